# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Weights from addresses: kept where torch.hub keeps them, used only if they came whole."""

import hashlib
import io
import os
import socket
import sys
from pathlib import Path

import pytest
import torch
from mmengine.runner import CheckpointLoader, checkpoint
from processes import run_ranks

from s4d_mm.files.checkpoint import load_weights
from s4d_mm.files.download import cached_path, local_file, may_exist
from s4d_mm.files.errors import (
    DownloadError,
    HubMissingError,
    WeightsError,
    WeightsNotFoundError,
    weights_errors_as_messages,
)


def saved(value: float, **options) -> bytes:
    """A checkpoint file with one tensor."""
    file = io.BytesIO()
    torch.save(dict(state_dict=dict(a=torch.full((100,), value))), file, **options)
    return file.getvalue()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def kept(tmp_path) -> list:
    """Files of the cache, but for the lock and the notes of addresses."""
    files = (p for p in (tmp_path / 'torch').rglob('*') if p.is_file())
    return [p for p in files if p.suffix not in ('.lock', '.address')]


def test_a_local_path_stays_what_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    assert local_file('~/x.pth') == str(tmp_path / 'x.pth')
    (tmp_path / 'x.pth').write_bytes(b'x')
    assert local_file(f'~/x.pth#sha256={digest(b"x")}') == str(tmp_path / 'x.pth')
    assert may_exist(f'~/x.pth#sha256={digest(b"x")}') and not may_exist('~/y.pth')
    with pytest.raises(WeightsError, match='x.pth is not the file .* 2d711642, not with 01234567'):
        local_file(str(tmp_path / 'x.pth'), sha256='01234567')
    with pytest.raises(WeightsNotFoundError, match='no checkpoint none.pth'):
        local_file('none.pth', sha256='01234567')


def test_a_download_is_kept_by_its_address(server, tmp_path):
    one = server.url('/a/epoch.pth', saved(1))
    two = server.url('/b/epoch.pth', saved(2))
    for _ in range(2):
        for address, value in ((one, 1), (two, 2)):
            for read in (load_weights, CheckpointLoader.load_checkpoint):
                weights = read(address)
                assert (weights.get('state_dict', weights)['a'] == value).all()
    # once for its size, once for the file
    assert server.asked == {'/a/epoch.pth': 2, '/b/epoch.pth': 2}
    assert [p.name for p in kept(tmp_path)] == ['epoch.pth'] * 2
    # a query is part of the address
    assert cached_path(f'{one}?v=1') != cached_path(one) == cached_path(f'{one}#x')


def test_a_cache_that_torch_has_filled_serves_offline(tmp_path, monkeypatch):
    """And a file that is put there is read by torch.hub."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    cache = tmp_path / 'torch' / 'hub' / 'checkpoints'
    cache.mkdir(parents=True)
    (cache / 'net.pth').write_bytes(saved(4))
    address = 'http://127.0.0.1:9/zoo/net.pth'
    assert local_file(address) == str(cache / 'net.pth')
    assert (torch.hub.load_state_dict_from_url(address)['state_dict']['a'] == 4).all()


def test_a_download_that_is_too_large(server, tmp_path, monkeypatch):
    address = server.url('/x.pth', saved(1))
    monkeypatch.setattr('s4d_mm.files.download.MOST_BYTES', 1000)
    with pytest.raises(DownloadError, match=r'x.pth is \d.* large; at most 1.0 kB'):
        local_file(address)
    server.silent.add('/x.pth')
    with pytest.raises(DownloadError, match='x.pth does not say how large it is'):
        local_file(address)
    assert not kept(tmp_path)


@pytest.mark.parametrize('path', ['/..', '/.%2e/%2e%2e', '/a/.hidden', '/', ''])
def test_no_address_leads_out_of_the_cache(path, tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    found = Path(cached_path(f'http://x{path}'))
    assert found.resolve().parent == tmp_path / 'hub' / 'checkpoints'
    assert not found.name.startswith('.')


def test_other_readers_of_mmengine_end_in_the_same_download(server, tmp_path, monkeypatch):
    address = server.url('/x.pth', saved(3))
    for name in ('get_torchvision_models', 'get_external_models', 'get_mmcls_models'):
        monkeypatch.setattr(checkpoint, name, lambda: dict(net=address))
    for scheme in ('torchvision', 'openmmlab', 'modelzoo', 'mmcls'):
        assert 'state_dict' in CheckpointLoader.load_checkpoint(f'{scheme}://net')
    assert server.asked == {'/x.pth': 2}
    assert kept(tmp_path) == [Path(cached_path(address))]


@pytest.mark.parametrize('silent', [False, True])
def test_a_torn_download_is_never_used(server, silent, tmp_path):
    address = server.url('/x.pth', saved(1))
    (server.silent if silent else server.torn).add('/x.pth')
    for _ in range(2):
        with pytest.raises(DownloadError, match=f'{address} (did not come whole|does not say)'):
            load_weights(address)
        assert not kept(tmp_path)
    server.silent.clear(), server.torn.clear()
    assert (load_weights(address)['a'] == 1).all()


def test_what_is_no_file_of_weights(server, tmp_path):
    page = server.url('/page.pth', b'\n<!DOCTYPE html><html><body>log in</body></html>')
    with pytest.raises(WeightsError, match=f'{page} is a web page'):
        local_file(page)
    missing = server.url('/none.pth')
    with pytest.raises(WeightsNotFoundError, match=f'no file at {missing} .404'):
        local_file(missing)
    with pytest.raises(DownloadError, match='0 bytes of 0|did not come whole'):
        local_file(server.url('/empty.pth', b''))
    for address in ('ftp://x/y.pth', 's3://x/y.pth'):
        with pytest.raises(WeightsError, match=f'{address}: weights are read from'):
            local_file(address)
    assert not kept(tmp_path)


def test_no_network(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    with socket.socket() as taken:  # bound and not listening: refuses
        taken.bind(('127.0.0.1', 0))
        address = f'http://127.0.0.1:{taken.getsockname()[1]}/x.pth'
        with pytest.raises(DownloadError, match=f'{address} cannot be downloaded: .*refused'):
            local_file(address)
    with pytest.raises(SystemExit) as error, weights_errors_as_messages():
        local_file('http:///x.pth')
    assert 'http:///x.pth cannot be downloaded' in error.value.code
    assert not kept(tmp_path)


def test_a_cache_that_cannot_be_written(server, tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'file'))
    with pytest.raises(DownloadError, match='cannot be kept in .*Not a directory.*TORCH_HOME'):
        local_file(server.url('/x.pth', saved(1)))


def test_the_digest_is_checked(server, tmp_path):
    old, new = saved(1), saved(2)
    address = server.url('/x.pth', old)
    with pytest.raises(WeightsError, match=f'{address} .* with 00112233.*#sha256={digest(old)}'):
        local_file(address, sha256='00112233')
    assert not kept(tmp_path)
    assert local_file(f'{address}#sha256={digest(old)}') == local_file(address)
    # a copy that is another file than is asked for is downloaded again
    server.files['/x.pth'] = new
    assert (load_weights(f'{address}#sha256={digest(new).upper()}')['a'] == 2).all()
    assert server.asked['/x.pth'] == 6
    with pytest.raises(WeightsError, match='not a SHA-256'):
        local_file(f'{address}#sha256=abc')


def test_the_digest_in_a_name_is_checked(server):
    content = saved(1)
    right = server.url(f'/x-{digest(content)[:8]}.pth', content)
    wrong = server.url('/x-0123abcd.pth', content)
    dated = server.url('/x-20240131.pth', content)
    assert local_file(right) and local_file(dated)
    with pytest.raises(WeightsError, match='begins with .*, not with 0123abcd'):
        local_file(wrong)
    assert local_file(f'{wrong}#sha256={digest(content)}')


def test_processes_that_ask_at_once_download_once(server, tmp_path):
    address = server.url('/x.pth', saved(1) + b'\0' * (1 << 22))
    (tmp_path / 'ranks').mkdir()
    found = run_ranks(lambda: local_file(address), tmp_path / 'ranks', 3)
    assert len(set(found)) == 1 and server.asked == {'/x.pth': 2}
    assert os.path.getsize(found[0]) == len(server.files['/x.pth'])


# ------------------------------------------------------- the Hugging Face hub
@pytest.fixture
def hub(server, tmp_path, monkeypatch):
    """The hub's own client, with a hub on this machine."""
    constants = pytest.importorskip('huggingface_hub.constants')
    monkeypatch.setattr(constants, 'ENDPOINT', server.url(''))
    template = server.url('') + '/{repo_id}/resolve/{revision}/{filename}'
    monkeypatch.setattr(constants, 'HUGGINGFACE_CO_URL_TEMPLATE', template)
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
    server.headers = {'X-Repo-Commit': 'c' * 40, 'ETag': '"e"'}
    server.files['/me/s4d/resolve/main/sub/x.pth'] = saved(1)
    server.files['/me/s4d/resolve/v2/sub/x.pth'] = saved(2)
    return server


def test_files_of_the_hub(hub):
    hub.headers['ETag'] = '"one"'
    assert (load_weights('hf://me/s4d/sub/x.pth')['a'] == 1).all()
    read = CheckpointLoader.load_checkpoint('hf://me/s4d/sub/x.pth')
    assert (read['state_dict']['a'] == 1).all()
    assert hub.asked['/me/s4d/resolve/main/sub/x.pth'] == 1
    hub.headers = {'X-Repo-Commit': 'd' * 40, 'ETag': '"two"'}
    assert (load_weights('hf://me/s4d/sub/x.pth@v2')['a'] == 2).all()
    with pytest.raises(WeightsError, match='hf://me/s4d/sub/x.pth is not the file'):
        local_file('hf://me/s4d/sub/x.pth#sha256=00112233')


def test_what_the_hub_does_not_have(hub):
    for address in ('hf://x.pth', 'hf://me/s4d', 'hf://me/s4d/x.pth@'):
        with pytest.raises(WeightsError, match=f'{address} is not of the form hf://OWNER/REPO'):
            local_file(address)
    for code, part in (
        ('EntryNotFound', 'no none.pth in me/s4d'),
        ('RepoNotFound', 'no repository me/s4d'),
        ('RevisionNotFound', 'no revision v9 of me/s4d'),
    ):
        hub.missing = {'X-Error-Code': code}
        with pytest.raises(WeightsNotFoundError, match=f'hf://me/s4d/none.pth@v9: {part}'):
            local_file('hf://me/s4d/none.pth@v9')
    hub.missing = {'X-Error-Code': 'GatedRepo'}
    with pytest.raises(DownloadError, match='accept terms'):
        local_file('hf://me/s4d/none.pth')


def test_no_hub(hub, monkeypatch):
    constants = sys.modules['huggingface_hub.constants']
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    with pytest.raises(DownloadError, match='hf://me/s4d/x.pth cannot be downloaded: no network'):
        local_file('hf://me/s4d/x.pth')


def test_without_the_package_of_the_hub(monkeypatch):
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    with pytest.raises(HubMissingError, match='pip install "s4d_mm.hub."'):
        local_file('hf://me/s4d/x.pth')
