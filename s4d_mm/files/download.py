# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Loading step, its start: weights from a path, an http(s) address or the Hugging Face hub.

What is downloaded is kept in the cache of ``torch.hub``, and is used only if it came whole.
"""

import contextlib
import hashlib
import http.client
import os
import os.path as osp
import re
import socket
import sys
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import torch
from filelock import FileLock

from s4d_mm.version import __version__

from .atomic_write import atomic_write, in_bytes
from .errors import DownloadError, HubMissingError, WeightsError, WeightsNotFoundError

TIMEOUT = 30.0  # seconds without a byte, after which a server counts as gone
CHUNK = 1 << 20  # bytes
MOST_BYTES = 20 * 10**9  # of a download
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


def local_file(address: str, sha256: str | None = None) -> str:
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


def cached_path(address: str) -> str:
    """Where the file of an http(s) address is kept, downloaded or not.

    It is where ``torch.hub`` keeps it, so that a cache that torch has filled serves here, too. If
    the file of that name came from another address, it is in a folder beside it.

    Args:
        address (str): The address; what follows ``#`` in it does not count.

    Returns:
        str: The path.
    """
    address = address.partition('#')[0]
    folder = osp.join(torch.hub.get_dir(), 'checkpoints')
    name = re.sub(r'[^\w.+-]', '_', osp.basename(urlsplit(address).path), flags=re.ASCII)
    name = name.lstrip('.')[-100:] or 'weights'
    path = osp.join(folder, name)
    if osp.isfile(path) and _noted_address(path) not in (None, address):
        path = osp.join(folder, hashlib.sha256(address.encode()).hexdigest()[:16], name)
    return path


def _noted_address(path: str) -> str | None:
    """Where a file of the cache came from; None if torch itself has put it there."""
    try:
        with open(f'{path}.address', encoding='utf-8') as f:
            return f.read()
    except FileNotFoundError:
        return None


def forget(address: str) -> None:
    """Drop the copy of an http(s) address, so that the next use downloads it again."""
    with contextlib.suppress(OSError):
        path = cached_path(address)
        if _noted_address(path) == address.partition('#')[0]:
            os.remove(path)


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


def _web_file(address: str, sha256: str | None) -> str:
    folder = osp.join(torch.hub.get_dir(), 'checkpoints')
    try:
        os.makedirs(folder, exist_ok=True)
        # processes of one run ask at once: the first downloads, the others find the file
        with FileLock(osp.join(folder, '.s4d_mm.lock')):
            path = cached_path(address)
            if osp.isfile(path) and (sha256 is None or digest_of(path).startswith(sha256)):
                return path
            _download(address, path, sha256)
    except OSError as e:
        if isinstance(e, (WeightsNotFoundError, DownloadError)):
            raise
        raise DownloadError(
            f'{address} cannot be kept in {folder}: {e.strerror or e}. Another folder is set by '
            'the variable TORCH_HOME.'
        ) from e
    return path


def _download(address: str, path: str, sha256: str | None) -> None:
    """Download a file, check it, and put it at ``path``."""
    size = _size_of(address)
    part = f'{path}.part'
    os.makedirs(osp.dirname(path), exist_ok=True)
    print(f'Downloading {address} ({in_bytes(size)}) to {path}', file=sys.stderr, flush=True)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)  # torch.hub has none
    try:
        torch.hub.download_url_to_file(address, part, progress=sys.stderr.isatty())
        _check_download(address, part, size)
        digest = sha256 or hash_in_name(path)
        if digest is not None:
            check_digest(digest_of(part), digest, address)
        atomic_write(f'{path}.address', address)
        os.replace(part, path)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError) as e:
        raise _unreachable(address, e) from e
    finally:
        socket.setdefaulttimeout(before)
        if osp.isfile(part):
            os.remove(part)


def _check_download(address: str, part: str, size: int) -> None:
    """Refuse a file that did not come whole, or a web page."""
    found = os.path.getsize(part)
    if not found or found != size:
        raise DownloadError(
            f'{address} did not come whole: {found} bytes of {size}. Nothing of it is kept; try '
            'again.'
        )
    with open(part, 'rb') as f:
        if WEB_PAGE.match(f.read(200)):
            raise WeightsError(
                f'{address} is a web page and no file of weights. Give the address of the '
                'file itself: on github.com it has /raw/ in it, on huggingface.co /resolve/.'
            )


def hash_in_name(path: str) -> str | None:
    """First digits of the SHA-256 that a file name such as ``x-0123abcd.pth`` ends with."""
    found = HASH_IN_NAME.search(osp.basename(path))
    return found[1] if found and not DATE.fullmatch(found[1]) else None


def _size_of(address: str) -> int:
    """Ask a server how large a file is, in bytes."""
    request = urllib.request.Request(address, headers={'User-Agent': f's4d_mm/{__version__}'})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            size = response.length
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
    if size is None or size > MOST_BYTES:
        said = 'does not say how large it is' if size is None else f'is {in_bytes(size)} large'
        raise DownloadError(
            f'{address} {said}; at most {in_bytes(MOST_BYTES)} are downloaded. If it is the right '
            'file, download it by other means and give its path.'
        )
    return size


def _unreachable(address: str, error: Exception) -> DownloadError:
    reason = getattr(error, 'reason', None) or error
    return DownloadError(
        f'{address} cannot be downloaded: {reason}. Check the address and the network, or '
        'download the file by other means and give its path.'
    )


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


def missing_part(error: str, repo: str, file: str, revision: str | None) -> str:
    """What of an ``hf://`` address is not there, by the name of huggingface_hub's error."""
    if error.startswith('Repository'):
        return f'no repository {repo}'
    if error.startswith('Revision'):
        return f'no revision {revision} of {repo}'
    return f'no {file} in {repo}'
