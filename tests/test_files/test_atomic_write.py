# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Files that are whole or not there, and what is said where the disk is full."""

import errno
import os
import resource
import signal
import stat
import subprocess
from pathlib import Path

import pytest
import torch
from mmengine.fileio import LocalBackend, put, put_text
from mmengine.hooks import Hook
from mmengine.runner.checkpoint import save_checkpoint
from tiny_training import Training, config, train

from s4d_mm.engine.launch import run_faults_as_messages
from s4d_mm.files.atomic_write import FileNotWrittenError, atomic_write
from s4d_mm.files.last_checkpoint import check_whole


def test_order_of_a_write(tmp_path, monkeypatch):
    """Flushed before it has its name, and the folder after that."""
    calls, fsync, replace = [], os.fsync, os.replace

    def watch_fsync(descriptor):
        calls.append('folder' if stat.S_ISDIR(os.fstat(descriptor).st_mode) else 'file')
        fsync(descriptor)

    def watch_replace(*args):
        calls.append('replace')
        replace(*args)

    monkeypatch.setattr(os, 'fsync', watch_fsync)
    monkeypatch.setattr(os, 'replace', watch_replace)
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
        match=r'a\.json \(5 bytes\) cannot be written: No space left on device\. '
        rf'The disk of {tmp_path} has \d.*B free\. What was there before is kept\.',
    ) as error:
        write(b'newer', str(path))
    assert error.value.errno == errno.ENOSPC
    assert path.read_bytes() == b'old' and os.listdir(tmp_path) == ['a.json']


def test_links_and_pipes_stay(tmp_path):
    atomic_write(str(tmp_path / 'real'), 'old')
    (tmp_path / 'link').symlink_to('real')
    atomic_write(str(tmp_path / 'link'), 'nöw')
    assert (tmp_path / 'link').is_symlink() and (tmp_path / 'real').read_text() == 'nöw'
    atomic_write(os.devnull, 'x')
    assert not os.path.isfile(os.devnull)


def test_everything_that_mmengine_saves_goes_through_it(tmp_path, monkeypatch):
    """Where the guard is on."""
    monkeypatch.setattr('s4d_mm.guard.atomic_write', lambda path, data: names.append(path))
    names = []
    save_checkpoint(dict(a=1), str(tmp_path / 'a.pth'))
    save_checkpoint(dict(a=1), str(tmp_path / 'b.pth'), file_client_args=dict(backend='disk'))
    LocalBackend().put(b'', 'c')
    assert [os.path.basename(n) for n in names] == ['a.pth', 'b.pth', 'c']


class TestKilled:
    """By SIGKILL, in a training whose checkpoints take long to write."""

    @pytest.fixture
    def stands(self, tmp_path, monkeypatch):
        """Let the run stand still in a call of a write, for the kill."""

        def stand(name, nth):
            of_system, count = getattr(os, name), []

            def call(*args):
                count.append(args)
                if len(count) == nth:
                    (tmp_path / 'standing').write_text('here\n')
                    signal.pause()
                return of_system(*args)

            def run():
                setattr(os, name, call)
                train(config(tmp_path / 'run', save=dict(max_keep_ckpts=1)))

            run = Training(run, tmp_path)
            run.wait_for('here', 'standing')
            run.signal(signal.SIGKILL)
            assert run.end() == -signal.SIGKILL
            return {p.name for p in (tmp_path / 'run').iterdir() if p.is_file()}

        return stand

    def check(self, folder, epoch):
        """What is left is whole, and a training resumes from ``epoch`` to its end."""
        for path in (folder / 'run').glob('*.pth'):
            check_whole(str(path))
        options = dict(save=dict(max_keep_ckpts=1), resume=True)
        run = Training(lambda: train(config(folder / 'run', **options)), folder)
        assert run.end() == 0, run.output()
        assert f'resumed epoch: {epoch}' in run.output()
        left = {p.name for p in (folder / 'run').iterdir() if p.suffix in ('.pth', '.part')}
        assert left == {'epoch_3.pth'}

    def test_before_the_second_file_has_its_name(self, stands, tmp_path):
        # of each checkpoint: file and note
        files = stands('replace', 3)
        assert 'epoch_1.pth' in files and 'epoch_2.pth' not in files
        assert any(name.startswith('epoch_2.pth.') and name.endswith('.part') for name in files)
        self.check(tmp_path, 1)

    def test_before_the_note_has_its_name(self, stands, tmp_path):
        assert {'epoch_1.pth', 'epoch_2.pth'} <= stands('replace', 4)
        assert (tmp_path / 'run' / 'last_checkpoint').read_text().endswith('epoch_1.pth')
        self.check(tmp_path, 1)

    def test_before_the_old_one_is_removed(self, stands, tmp_path):
        assert {'epoch_1.pth', 'epoch_2.pth'} <= stands('remove', 1)
        self.check(tmp_path, 2)


def test_best_checkpoint_is_removed_after_the_better_one_is_there(tmp_path, monkeypatch):
    seen = []
    write = atomic_write

    def watch(path, data):
        seen.append((os.path.basename(path), sorted(p.name for p in run.glob('best*.pth'))))
        write(path, data)

    run = tmp_path / 'run'
    monkeypatch.setattr('s4d_mm.guard.atomic_write', watch)
    save = dict(save_best='WAR', rule='greater', max_keep_ckpts=1)
    train(config(run, scores=[1, 3, 2], save=save))
    assert ('best_WAR_epoch_2.pth', ['best_WAR_epoch_1.pth']) in seen
    assert {p.name for p in run.glob('*.pth')} == {'best_WAR_epoch_2.pth', 'epoch_3.pth'}
    meta = torch.load(run / 'epoch_3.pth', weights_only=True)['meta']
    assert (meta['epoch'], meta['iter']) == (3, 18)


def test_best_checkpoint_of_the_same_name_is_kept(tmp_path):
    """Two validations of one epoch."""
    save = dict(save_best='WAR', rule='greater')
    loop = dict(type='IterBasedTrainLoop', max_iters=6, val_interval=3)
    train(config(tmp_path / 'run', scores=[1, 2], save=save, train_cfg=loop))
    assert [p.name for p in (tmp_path / 'run').glob('best*')] == ['best_WAR_epoch_0.pth']


class TestFullDisk:
    def run_on(self, folder, tmp_path, hooks=()):
        def run():
            cfg = config(folder / 'run', epochs=50, width=30_000)
            cfg.custom_hooks += list(hooks)
            train(cfg)

        run = Training(run, tmp_path)
        return run.end(), run.output()

    def check(self, code, output, folder, reason):
        assert code == 1
        last = output.splitlines()[-1]
        assert 'Traceback' not in output
        assert f'{folder / "run"}/epoch_' in last and 'kB) cannot be written' in last
        assert reason in last and ' free.' in last and last.endswith('go on with --resume.')
        left = sorted(p.name for p in (folder / 'run').iterdir() if p.suffix in ('.pth', '.part'))
        assert left and not any(name.endswith('.part') for name in left)
        for name in left:
            check_whole(str(folder / 'run' / name))

    def test_of_a_small_size(self, tmp_path):
        disk = tmp_path / 'disk'
        disk.mkdir()
        mount = ['mount', '-t', 'tmpfs', '-o', 'size=1m', 'none', str(disk)]
        if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
            pytest.skip('only root may mount')
        try:
            self.check(*self.run_on(disk, tmp_path), disk, 'No space left on device')
        finally:
            subprocess.run(['umount', str(disk)], check=True)

    def test_limit_of_a_files_size(self, tmp_path):
        """Which begins after the first epoch; also without the rights to mount."""

        class Limit(Hook):
            priority = 'LOWEST'

            def after_train_epoch(self, runner):
                resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

        code, output = self.run_on(tmp_path, tmp_path, hooks=[Limit()])
        self.check(code, output, tmp_path, 'File too large')
        assert (tmp_path / 'run' / 'epoch_1.pth').exists()


def test_other_errors_of_the_disk(tmp_path):
    """A log that cannot be written is said, and any other error stays as it is."""
    with (
        pytest.raises(SystemExit, match=f'log cannot be written: full. The disk of {tmp_path} has'),
        run_faults_as_messages(str(tmp_path)),
    ):
        raise OSError(errno.ENOSPC, 'full')
    with pytest.raises(FileNotFoundError), run_faults_as_messages(str(tmp_path)):
        Path('/no/such').read_text()
