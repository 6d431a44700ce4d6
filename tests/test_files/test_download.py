# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Weights from addresses: kept where torch.hub keeps them, refused where they are others."""

import hashlib
import os
import socket
from pathlib import Path

import pytest
import torch
from file_server import kept, saved
from mmengine.runner import CheckpointLoader
from runs import run_ranks

from s4d_mm.files.checkpoint import load_weights
from s4d_mm.files.download import cached_path, local_file, may_exist
from s4d_mm.files.errors import (
    DownloadError,
    WeightsError,
    WeightsNotFoundError,
    weights_errors_as_messages,
)


def weights_file(value: float) -> bytes:
    """A checkpoint file with one tensor."""
    return saved(dict(state_dict=dict(a=torch.full((100,), value))))


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_local_path_stays_what_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    assert local_file('~/x.pth') == str(tmp_path / 'x.pth')
    (tmp_path / 'x.pth').write_bytes(b'x')
    assert local_file(f'~/x.pth#sha256={digest(b"x")}') == str(tmp_path / 'x.pth')
    assert may_exist(f'~/x.pth#sha256={digest(b"x")}') and not may_exist('~/y.pth')
    with pytest.raises(WeightsError, match='x.pth is not the file .* 2d711642, not with 01234567'):
        local_file(f'{tmp_path}/x.pth#sha256=01234567')
    with pytest.raises(WeightsNotFoundError, match='no checkpoint none.pth'):
        local_file('none.pth#sha256=01234567')


def test_a_download_is_kept_by_its_address(server, tmp_path):
    one = server.url('/a/epoch.pth', weights_file(1))
    two = server.url('/b/epoch.pth', weights_file(2))
    for _ in range(2):
        for address, value in ((one, 1), (two, 2)):
            for read in (load_weights, CheckpointLoader.load_checkpoint):
                weights = read(address)
                assert (weights.get('state_dict', weights)['a'] == value).all()
    assert server.asked == {'/a/epoch.pth': 1, '/b/epoch.pth': 1}
    assert kept(tmp_path) == ['epoch.pth'] * 2
    # a query is part of the address
    assert cached_path(f'{one}?v=1') != cached_path(one) == cached_path(f'{one}#x')


def test_a_cache_that_torch_has_filled_serves_offline(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    cache = tmp_path / 'torch' / 'hub' / 'checkpoints'
    cache.mkdir(parents=True)
    (cache / 'net.pth').write_bytes(weights_file(4))
    assert local_file('http://127.0.0.1:9/zoo/net.pth') == str(cache / 'net.pth')


@pytest.mark.parametrize('path', ['/..', '/.%2e/%2e%2e', '/a/.hidden', '/', ''])
def test_no_address_leads_out_of_the_cache(path, tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    found = Path(cached_path(f'http://x{path}'))
    assert found.resolve().parent.parent == tmp_path / 'hub' / 'checkpoints'
    assert not found.name.startswith('.')


def test_what_cannot_be_read_is_not_kept(server, tmp_path):
    """A download that ended early, and a web page in place of a file."""
    address = server.url('/x.pth', weights_file(1))
    server.torn.add('/x.pth')
    for _ in range(2):
        with pytest.raises(WeightsError, match=f'{address} is no checkpoint'):
            load_weights(address)
        assert not kept(tmp_path)
    server.torn.clear()
    assert (load_weights(address)['a'] == 1).all()
    page = server.url('/page.pth', b'\n<!DOCTYPE html><html><body>log in</body></html>')
    with pytest.raises(WeightsError, match=f'{page} is no checkpoint .*: it is a web page'):
        load_weights(page)
    assert len(kept(tmp_path)) == 1


def test_what_is_not_there(server, tmp_path, monkeypatch):
    missing = server.url('/none.pth')
    with pytest.raises(WeightsNotFoundError, match=f'no file at {missing} .*404'):
        local_file(missing)
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    with socket.socket() as taken:  # bound and not listening: refuses
        taken.bind(('127.0.0.1', 0))
        address = f'http://127.0.0.1:{taken.getsockname()[1]}/x.pth'
        with pytest.raises(DownloadError, match=f'{address} cannot be downloaded: .*refused'):
            local_file(address)
    with pytest.raises(SystemExit, match=missing), weights_errors_as_messages():
        local_file(missing)
    assert not kept(tmp_path)


def test_hashes(server, tmp_path):
    content = weights_file(1)
    good = server.url(f'/net-{digest(content)[:8]}.pth', content)
    assert local_file(good) and local_file(server.url('/net-20240131.pth', content))  # a date
    wrong = server.url('/net-0123abcd.pth', content)
    said = f'begins with {digest(content)[:8]}, not with 0123abcd'
    with pytest.raises(WeightsError, match=said):
        local_file(wrong)
    assert len(kept(tmp_path)) == 2
    assert local_file(f'{wrong}#sha256={digest(content)}')
    with pytest.raises(WeightsError, match='not with 00112233'):
        local_file(f'{good}#sha256=00112233')


def test_processes_that_ask_at_once_download_once(server, tmp_path):
    address = server.url('/x.pth', weights_file(1) + b'\0' * (1 << 22))
    (tmp_path / 'ranks').mkdir()
    found = run_ranks(lambda: local_file(address), tmp_path / 'ranks', 3)
    assert len(set(found)) == 1 and server.asked == {'/x.pth': 1}
    assert os.path.getsize(found[0]) == len(server.files['/x.pth'])


# ------------------------------------------------------- the Hugging Face hub
@pytest.fixture
def hub(server, tmp_path, monkeypatch):
    """The hub's own client, with a hub on this machine."""
    server.be_the_hub(monkeypatch, tmp_path / 'hub')
    server.files['/me/s4d/resolve/main/sub/x.pth'] = weights_file(1)
    server.files['/me/s4d/resolve/v2/sub/x.pth'] = weights_file(2)
    return server


def test_files_of_the_hub(hub):
    for _ in range(2):
        assert (load_weights('hf://me/s4d/sub/x.pth')['a'] == 1).all()
    assert hub.asked['/me/s4d/resolve/main/sub/x.pth'] == 1
    hub.headers = {'X-Repo-Commit': 'd' * 40, 'ETag': '"two"'}
    assert (load_weights('hf://me/s4d/sub/x.pth@v2')['a'] == 2).all()
    with pytest.raises(WeightsError, match='hf://me/s4d/sub/x.pth is not the file'):
        local_file('hf://me/s4d/sub/x.pth#sha256=00112233')


def test_what_the_hub_does_not_have(hub):
    with pytest.raises(WeightsError, match='hf://x.pth is not of the form hf://OWNER/REPO'):
        local_file('hf://x.pth')
    hub.missing = {'X-Error-Code': 'GatedRepo'}
    address = 'hf://me/s4d/none.pth@v9'
    with pytest.raises(DownloadError, match=f'{address} cannot be downloaded: .* accept terms'):
        local_file(address)
