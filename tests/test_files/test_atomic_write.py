# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Files that are whole or not there, and what is said where the disk is full."""

import errno
import os
import resource
import signal
import stat

import pytest
from mmengine.fileio import put, put_text
from mmengine.hooks import Hook
from runs import Training, config, train

from s4d_mm.files.atomic_write import FileNotWrittenError, atomic_path, atomic_write
from s4d_mm.files.last_checkpoint import check_whole


def test_order_of_a_write(tmp_path, monkeypatch):
    """Flushed before it has its name, and the folder after that."""
    calls, fsync, replace = [], os.fsync, os.replace

    def watch_fsync(descriptor):
        calls.append('folder' if stat.S_ISDIR(os.fstat(descriptor).st_mode) else 'file')
        fsync(descriptor)

    monkeypatch.setattr(os, 'fsync', watch_fsync)
    monkeypatch.setattr(os, 'replace', lambda *args: calls.append('replace') or replace(*args))
    atomic_write(str(tmp_path / 'new' / 'a'), b'x')
    assert calls == ['file', 'replace', 'folder']
    assert (tmp_path / 'new' / 'a').read_bytes() == b'x'


@pytest.mark.parametrize('write', [put, lambda data, path: put_text(data.decode(), path)])
def test_failed_write_leaves_what_was_there(write, tmp_path, monkeypatch):
    path = tmp_path / 'a.json'
    write(b'old', str(path))

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(
        FileNotWrittenError,
        match=r'a\.json \(0\.0 MB\) cannot be written: No space left on device\. '
        rf'The disk of {tmp_path} has \d+ MB free\.',
    ) as error:
        write(b'newer', str(path))
    assert error.value.errno == errno.ENOSPC
    assert path.read_bytes() == b'old' and os.listdir(tmp_path) == ['a.json']


def test_links_pipes_and_long_names(tmp_path):
    atomic_write(str(tmp_path / 'real'), 'old')
    (tmp_path / 'link').symlink_to('real')
    atomic_write(str(tmp_path / 'link'), 'nöw')
    assert (tmp_path / 'link').is_symlink() and (tmp_path / 'real').read_text() == 'nöw'
    atomic_write(os.devnull, 'x')
    assert not os.path.isfile(os.devnull)
    atomic_write(str(tmp_path / ('ö' * 127)), 'x')
    with pytest.raises(ZeroDivisionError), atomic_path(str(tmp_path / 'folder')) as part:
        os.makedirs(f'{part}/inner')
        raise ZeroDivisionError
    assert len(os.listdir(tmp_path)) == 3


@pytest.mark.parametrize(
    'name, nth, there, epoch',
    [('replace', 3, {'epoch_1.pth'}, 1), ('remove', 1, {'epoch_1.pth', 'epoch_2.pth'}, 2)],
)
def test_a_killed_training_leaves_whole_files(name, nth, there, epoch, tmp_path):
    """By SIGKILL before the second checkpoint has its name, and before the first is removed."""
    of_system, calls = getattr(os, name), []

    def stop(*args):
        calls.append(args)
        if len(calls) == nth:
            (tmp_path / 'standing').write_text('here\n')
            signal.pause()
        return of_system(*args)

    def run():
        setattr(os, name, stop)
        train(config(tmp_path / 'run', save=dict(max_keep_ckpts=1)))

    run = Training(run, tmp_path)
    run.wait_for('here', 'standing')
    run.signal(signal.SIGKILL)
    assert run.end() == -signal.SIGKILL
    files = {p.name for p in (tmp_path / 'run').glob('*.pth')}
    assert files == there
    for path in files:
        check_whole(str(tmp_path / 'run' / path))
    options = dict(save=dict(max_keep_ckpts=1), resume=True)
    run = Training(lambda: train(config(tmp_path / 'run', **options)), tmp_path)
    assert run.end() == 0, run.output()
    assert f'resumed epoch: {epoch}' in run.output()
    left = {p.name for p in (tmp_path / 'run').iterdir() if p.suffix in ('.pth', '.part')}
    assert left == {'epoch_3.pth'}


def test_a_full_disk_ends_the_run_with_a_sentence(tmp_path):
    """By a limit of a file's size, which begins after the first epoch."""

    class Limit(Hook):
        priority = 'LOWEST'

        def after_train_epoch(self, runner):
            runner.message_hub.update_info('filling', 'x' * 300_000)  # of the next checkpoint
            resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    def run():
        cfg = config(tmp_path / 'run', epochs=50)
        cfg.custom_hooks += [Limit()]
        train(cfg)

    run = Training(run, tmp_path)
    assert run.end() == 1
    last = run.output().splitlines()[-1]
    assert 'Traceback' not in run.output() and 'File too large' in last
    assert f'{tmp_path}/run/epoch_' in last and ' free.' in last and '--resume' in last
    left = [p for p in (tmp_path / 'run').iterdir() if p.suffix in ('.pth', '.part')]
    assert {p.suffix for p in left} == {'.pth'}
    for path in left:
        check_whole(str(path))
