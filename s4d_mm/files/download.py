# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Weights from a path, an http(s) address or the Hugging Face hub."""

import contextlib
import hashlib
import os
import os.path as osp
import re
import socket
import sys
from collections.abc import Iterator
from urllib.error import HTTPError
from urllib.parse import urlsplit

import torch
from filelock import FileLock

from .errors import DownloadError, HubMissingError, WeightsError, WeightsNotFoundError

TIMEOUT = 30.0  # seconds without a byte, after which a server counts as gone
# the first digits of the SHA-256 in a name, as torch and OpenMMLab publish files: x-0123abcd.pth;
# not a date
HASH_IN_NAME = re.compile(r'-(?!(?:19|20)\d\d[01]\d[0-3]\d\.)([0-9a-f]{8,64})\.[^.]+$')
HUB_ADDRESS = re.compile(r'hf://([^/@]+/[^/@]+)/([^@]+?)(?:@([^@]+))?', re.IGNORECASE)


def is_address(path: str) -> bool:
    """Whether a path is an address, such as ``https://...``, and no local file."""
    return re.match(r'[A-Za-z][\w+.-]*://', path) is not None


def may_exist(path: str) -> bool:
    """Whether a path is a file here, or an address, of which only the download knows."""
    return is_address(path) or osp.isfile(osp.expanduser(path.partition('#sha256=')[0]))


def local_file(address: str) -> str:
    """Path of a file of weights, which is downloaded where it is not here yet.

    Args:
        address (str): A local path, an ``http(s)://`` address, or ``hf://OWNER/REPO/FILE`` with
            ``@REVISION`` at the end if it is to be another one than the newest. ``#sha256=DIGITS``
            after it says which hash the file must have; the first 8 or more digits are enough.
            Without that, the end of a name such as ``x-0123abcd.pth`` is checked after a download.

    Raises:
        WeightsNotFoundError: If there is no such file. A local path without ``#sha256=`` is
            not looked at.
        DownloadError, HubMissingError, WeightsError: If it cannot be had, or is another file.
    """
    place, _, digits = str(address).partition('#sha256=')
    sha256 = digits.lower()
    if sha256 and not re.fullmatch('[0-9a-f]{8,64}', sha256):
        raise WeightsError(f'{address}: {digits} is no SHA-256, of which 8 to 64 digits are given.')
    scheme = place.split('://')[0].lower() if is_address(place) else ''
    if scheme in ('http', 'https'):
        return _web_file(place, sha256)
    if scheme == 'hf':
        path = _hub_file(place)
    elif scheme:
        raise WeightsError(f'{place}: give a path, http://, https:// or hf://OWNER/REPO/FILE.')
    else:
        path = osp.expanduser(place)
    if sha256 and not osp.isfile(path):
        raise WeightsNotFoundError(f'There is no checkpoint {path}.')
    if sha256 and not digest_of(path).startswith(sha256):
        raise _other_file(place, sha256, digest_of(path))
    return path


def _other_file(address: str, expected: str, found: str) -> WeightsError:
    return WeightsError(
        f'{address} is not the file that it should be: its SHA-256 begins with '
        f'{found[: len(expected)]}, not with {expected}. If you know that it is the right one, add '
        f'#sha256={found} to the address.'
    )


def digest_of(path: str) -> str:
    """SHA-256 of a file in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, 'rb') as f:
        while chunk := f.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def cached_path(address: str) -> str:
    """Where the file of an http(s) address is kept, downloaded or not.

    It is in a folder of its own in the cache of ``torch.hub``, as others have the same name.
    """
    address = address.partition('#')[0]
    name = re.sub(r'[^\w.+-]', '_', osp.basename(urlsplit(address).path), flags=re.ASCII)
    name = name.lstrip('.')[-100:] or 'weights'
    folder = hashlib.sha256(address.encode()).hexdigest()[:16]
    return osp.join(torch.hub.get_dir(), 'checkpoints', folder, name)


def forget(address: str) -> None:
    """Drop the copy of an http(s) address, so that the next use downloads it again."""
    if is_address(address):
        with contextlib.suppress(OSError):
            os.remove(cached_path(address))


def _web_file(address: str, sha256: str) -> str:
    path = cached_path(address)
    folder, name = osp.split(path)
    try:
        os.makedirs(folder, exist_ok=True)
        # processes of one run ask at once: the first downloads, the others find the file
        with FileLock(osp.join(folder, '.s4d_mm.lock')):
            for file in (path, osp.join(osp.dirname(folder), name)):  # the other is torch's own
                if osp.isfile(file) and (not sha256 or digest_of(file).startswith(sha256)):
                    return file
            _download(address, path, sha256)
    except (WeightsNotFoundError, DownloadError):
        raise
    except OSError as e:
        raise DownloadError(
            f'{address} cannot be kept in {folder}: {e.strerror or e}. Another folder is set by '
            'the variable TORCH_HOME.'
        ) from e
    return path


def _download(address: str, path: str, sha256: str) -> None:
    named = HASH_IN_NAME.search(path)
    sha256 = sha256 or (named[1] if named else '')
    print(f'Downloading {address} to {path}', file=sys.stderr, flush=True)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)  # torch.hub has none
    try:
        torch.hub.download_url_to_file(address, path, sha256 or None, sys.stderr.isatty())
    except RuntimeError as e:  # 'invalid hash value (expected "...", got "...")'
        raise _other_file(address, sha256, str(e).rpartition('got "')[2].rstrip('")')) from e
    except (OSError, ValueError) as e:
        if isinstance(e, HTTPError) and e.code in (404, 410):
            raise WeightsNotFoundError(f'There is no file at {address} ({e}).') from e
        raise DownloadError(
            f'{address} cannot be downloaded: {getattr(e, "reason", None) or e}. Check the address '
            'and the network, or download the file by other means and give its path.'
        ) from e
    finally:
        socket.setdefaulttimeout(before)


def _hub_file(address: str) -> str:
    """Path of a file of the Hugging Face hub, in the cache of huggingface_hub."""
    parts = HUB_ADDRESS.fullmatch(address)
    if parts is None:
        raise WeightsError(
            f'{address} is not of the form hf://OWNER/REPO/FILE or hf://OWNER/REPO/FILE@REVISION.'
        )
    repo, file, revision = parts.groups()
    with hub_errors(address):
        from huggingface_hub import hf_hub_download

        return hf_hub_download(repo, file, revision=revision)


@contextlib.contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """Raise what huggingface_hub raises, or that it is missing, as an error of this package."""
    try:
        yield
    except ImportError as e:
        raise HubMissingError(
            f'{what} needs huggingface_hub: pip install "s4d_mm[hub]" or pip install '
            'huggingface_hub. Or download the file and give its path.'
        ) from e
    except Exception as e:  # of two HTTP libraries, by its version
        raise DownloadError(
            f'{what} cannot be downloaded: {(str(e).splitlines() or [type(e).__name__])[0]} A '
            'private repository, or one whose owner asks you to accept terms on huggingface.co, '
            'needs hf auth login.'
        ) from e
