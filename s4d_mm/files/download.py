# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Loading step, its start: weights from a path, an http(s) address or the Hugging Face hub.

What is downloaded is kept by address, so that two files of one name stay apart, and is used only
if it came whole.
"""

import contextlib
import hashlib
import http.client
import os
import os.path as osp
import re
import sys
import urllib.error
import urllib.request
from typing import IO, Optional
from urllib.parse import urlsplit

import torch
from filelock import FileLock
from rich.console import Console
from rich.progress import wrap_file

from s4d_mm.version import __version__

from .errors import DownloadError, HubMissingError, WeightsError, WeightsNotFoundError

CACHE_VARIABLE = 'S4D_MM_CACHE'
TIMEOUT = 30.0  # seconds without a byte, after which a server counts as gone
CHUNK = 1 << 20  # bytes
# the first digits of the SHA-256 in a name, as torch and OpenMMLab publish files: x-0123abcd.pth
HASH_IN_NAME = re.compile(r'-([0-9a-f]{8,64})\.[^.]+$')
DATE = re.compile(r'(19|20)\d\d[01]\d[0-3]\d')
WEB_PAGE = re.compile(rb'\s*<(!doctype|html|head|\?xml)', re.IGNORECASE)
HUB_ADDRESS = re.compile(r'hf://([^/@]+/[^/@]+)/([^@]+?)(?:@([^@]+))?', re.IGNORECASE)


def is_address(path: str) -> bool:
    """Whether a path is an address, such as ``https://...``, and no local file."""
    return re.match(r'[A-Za-z][\w+.-]*://', path) is not None


def may_exist(path: str) -> bool:
    """Whether a path is a file here, or an address, of which only the download knows."""
    return is_address(path) or osp.isfile(osp.expanduser(path.partition('#sha256=')[0]))


def local_file(address: str, sha256: Optional[str] = None) -> str:
    """Find a file of weights, and download it where it is not here yet.

    Args:
        address (str): A local path, which may begin with ``~``; an ``http://`` or ``https://``
            address; or ``hf://OWNER/REPO/FILE``, with ``@REVISION`` at the end if it is to be
            another one than the newest. ``#sha256=DIGITS`` at the end of any of them is
            ``sha256``.
        sha256 (str, optional): What the file must have, in hexadecimal digits; the first 8 or
            more are enough. Defaults to None: what the end of a name such as
            ``x-0123abcd.pth`` says is checked after a download, and else nothing.

    Returns:
        str: Path of the local file.

    Raises:
        WeightsNotFoundError: If there is no such file at the address. A local path is not looked
            at, unless it has a ``sha256``.
        DownloadError: If the address cannot be reached, or the file did not come whole.
        WeightsError: If the address cannot be read, the file is another one than ``sha256``
            says, or it is a web page.
        HubMissingError: If an ``hf://`` address is given and huggingface_hub is not installed.
    """
    place, _, digits = str(address).partition('#sha256=')
    sha256 = (sha256 or digits).lower() or None
    if sha256 is not None and not re.fullmatch('[0-9a-f]{8,64}', sha256):
        raise WeightsError(
            f'{address}: sha256={sha256!r} is not a SHA-256 in hexadecimal digits (64 of them, or '
            'the first 8 or more).'
        )
    scheme = place.split('://')[0].lower() if is_address(place) else ''
    if scheme in ('http', 'https'):
        return _web_file(place, sha256)
    if scheme == 'hf':
        path = _hub_file(place)
    elif scheme:
        raise WeightsError(
            f'{place}: weights are read from a path, http://, https:// and hf://OWNER/REPO/FILE, '
            f'not from {scheme}://.'
        )
    else:
        path = osp.expanduser(place)
        if sha256 is not None and not osp.isfile(path):
            raise WeightsNotFoundError(f'There is no checkpoint {path}.')
    if sha256 is not None:
        check_digest(digest_of(path), sha256, place)
    return path


def cache_folder() -> str:
    """Where downloads are kept: ``$S4D_MM_CACHE``, or ``s4d_mm`` in the folder of torch.hub."""
    folder = os.environ.get(CACHE_VARIABLE) or osp.join(torch.hub.get_dir(), 's4d_mm')
    return osp.expanduser(folder)


def cached_path(address: str) -> str:
    """Where the file of an http(s) address is kept, downloaded or not.

    Args:
        address (str): The address; what follows ``#`` in it does not count.

    Returns:
        str: A path whose folder is that of the address, and whose name is like the file's.
    """
    address = address.partition('#')[0]
    name = re.sub(r'[^\w.+-]', '_', osp.basename(urlsplit(address).path), flags=re.ASCII)
    folder = hashlib.sha256(address.encode()).hexdigest()[:16]
    return osp.join(cache_folder(), folder, name.lstrip('.')[-100:] or 'weights')


def forget(address: str) -> None:
    """Drop the copy of an http(s) address, so that the next use downloads it again."""
    with contextlib.suppress(OSError):
        os.remove(cached_path(address))


def digest_of(path: str) -> str:
    """SHA-256 of a file in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, 'rb') as f:
        while chunk := f.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def check_digest(found: str, expected: str, address: str) -> None:
    """Compare a SHA-256 with its first digits, or all of them.

    Raises:
        WeightsError: If they differ.
    """
    if not found.startswith(expected):
        raise WeightsError(
            f'{address} is not the file that it should be: its SHA-256 begins with '
            f'{found[: len(expected)]}, not with {expected}. If you know that it is the right '
            f'one, add #sha256={found} to the address.'
        )


def _web_file(address: str, sha256: Optional[str]) -> str:
    path = cached_path(address)
    try:
        os.makedirs(osp.dirname(path), exist_ok=True)
        # processes of one run ask at once: the first downloads, the others find the file
        with FileLock(f'{path}.lock'):
            if osp.isfile(path) and (sha256 is None or digest_of(path).startswith(sha256)):
                return path
            _download(address, path, sha256)
    except OSError as e:
        if isinstance(e, (WeightsNotFoundError, DownloadError)):
            raise
        raise DownloadError(
            f'{address} cannot be kept in {osp.dirname(path)}: {e.strerror or e}. Another folder '
            f'is set by the variable {CACHE_VARIABLE}.'
        ) from e
    return path


def _download(address: str, path: str, sha256: Optional[str]) -> None:
    """Download a file, check it, and put it at ``path``."""
    part = f'{path}.part'
    print(f'Downloading {address} to {path}', file=sys.stderr, flush=True)
    try:
        with _open_address(address) as response, open(part, 'wb') as f:
            digest = _copy(response, f, address)
        check_digest(digest, sha256 or hash_in_name(path) or '', address)
        os.replace(part, path)
    finally:
        if osp.isfile(part):
            os.remove(part)


def hash_in_name(path: str) -> Optional[str]:
    """First digits of the SHA-256 that a file name such as ``x-0123abcd.pth`` ends with."""
    found = HASH_IN_NAME.search(osp.basename(path))
    return found[1] if found and not DATE.fullmatch(found[1]) else None


def _open_address(address: str) -> http.client.HTTPResponse:
    request = urllib.request.Request(address, headers={'User-Agent': f's4d_mm/{__version__}'})
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as e:
        if e.code in (404, 410):
            raise WeightsNotFoundError(
                f'There is no file at {address} ({e.code} {e.reason}).'
            ) from e
        raise DownloadError(
            f'{address} cannot be downloaded: the server answers {e.code} {e.reason}.'
        ) from e
    except (OSError, http.client.HTTPException, ValueError) as e:
        raise _unreachable(address, e) from e


def _unreachable(address: str, error: Exception) -> DownloadError:
    reason = getattr(error, 'reason', None) or error
    return DownloadError(
        f'{address} cannot be downloaded: {reason}. Check the address and the network, or '
        'download the file by other means and give its path.'
    )


def _copy(response: http.client.HTTPResponse, f: IO[bytes], address: str) -> str:
    """Copy the body of a response into a file.

    Returns:
        str: Its SHA-256.
    """
    size = response.length  # None if the server does not say
    console = Console(stderr=True)
    hidden = not (console.is_terminal and size)
    digest, count = hashlib.sha256(), 0
    with wrap_file(
        response, size or 0, description='', console=console, disable=hidden, transient=True
    ) as body:
        while chunk := _read(body, address):
            if not count and WEB_PAGE.match(chunk):
                raise WeightsError(
                    f'{address} is a web page and no file of weights. Give the address of the '
                    'file itself: on github.com it has /raw/ in it, on huggingface.co /resolve/.'
                )
            f.write(chunk)
            digest.update(chunk)
            count += len(chunk)
    if not count or (size is not None and count != size):
        raise DownloadError(
            f'{address} did not come whole: {count} bytes of {size or "an unknown number"}. '
            'Nothing of it is kept; try again.'
        )
    return digest.hexdigest()


def _read(body: IO[bytes], address: str) -> bytes:
    try:
        return body.read(CHUNK)
    except http.client.IncompleteRead as e:
        raise DownloadError(
            f'{address} did not come whole: the server broke off. Nothing of it is kept; try again.'
        ) from e
    except (OSError, http.client.HTTPException) as e:
        raise _unreachable(address, e) from e


def _hub_file(address: str) -> str:
    """Path of a file of the Hugging Face hub, in the cache of huggingface_hub."""
    parts = HUB_ADDRESS.fullmatch(address)
    if parts is None:
        raise WeightsError(
            f'{address} is not of the form hf://OWNER/REPO/FILE or hf://OWNER/REPO/FILE@REVISION.'
        )
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import (
            EntryNotFoundError,
            GatedRepoError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError as e:
        raise HubMissingError(
            f'{address} needs huggingface_hub: pip install "s4d_mm[hub]" or pip install '
            'huggingface_hub. Or download the file and give its path.'
        ) from e
    repo, file, revision = parts.groups()
    try:
        return hf_hub_download(repo, file, revision=revision)
    except (LocalEntryNotFoundError, GatedRepoError) as e:  # each is one of the next, too
        reason = 'no network and no copy of it here'
        if isinstance(e, GatedRepoError):
            reason = 'its owner asks you to accept terms on huggingface.co, then: hf auth login'
        raise DownloadError(f'{address} cannot be downloaded: {reason}.') from e
    except (EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError) as e:
        raise WeightsNotFoundError(
            f'There is no file at {address}: '
            f'{missing_part(type(e).__name__, repo, file, revision)}. A private repository needs '
            'hf auth login.'
        ) from e
    except Exception as e:  # of two HTTP libraries, by its version
        reason = (str(e).splitlines() or [''])[0] or type(e).__name__
        raise DownloadError(f'{address} cannot be downloaded: {reason}') from e


def missing_part(error: str, repo: str, file: str, revision: Optional[str]) -> str:
    """What of an ``hf://`` address is not there, by the name of huggingface_hub's error."""
    if error.startswith('Repository'):
        return f'no repository {repo}'
    if error.startswith('Revision'):
        return f'no revision {revision} of {repo}'
    return f'no {file} in {repo}'
