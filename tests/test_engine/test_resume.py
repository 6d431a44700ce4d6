# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Which checkpoint a training goes on from, and what is refused before it begins."""

import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import mmengine.runner
import pytest
import torch
from helpers import ROOT, process_env, truncate
from mmengine.runner import Runner
from tiny_training import config, train

from s4d_mm.engine import resume
from s4d_mm.engine.resume import alone_in, prepare_training
from s4d_mm.files import last_checkpoint
from s4d_mm.files.errors import WeightsError
from s4d_mm.files.last_checkpoint import ResumeError, check_whole, find_checkpoint


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp('finished')
    train(config(folder / 'run', epochs=3, save=dict(max_keep_ckpts=2)))
    return folder / 'run'


@pytest.fixture
def run(finished, tmp_path):
    """A folder with epoch_2.pth, epoch_3.pth and a note that names the folder before it moved."""
    shutil.copytree(finished, tmp_path / 'run')
    return tmp_path / 'run'


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(last_checkpoint, 'print_log', lambda line, *args: lines.append(line))
    return lines


def test_note_of_a_moved_folder(run, finished, said):
    """Also while the old one is still there, with a training that went on."""
    assert (run / 'last_checkpoint').read_text() == str(finished / 'epoch_3.pth')
    assert find_checkpoint(str(run)) == str(run / 'epoch_3.pth')
    assert not said


@pytest.mark.parametrize('note', [None, '', '\xff', '/no/where/epoch_9.pth'])
def test_note_that_is_missing_empty_or_wrong(note, run, said):
    (run / 'last_checkpoint').unlink()
    if note is not None:
        (run / 'last_checkpoint').write_bytes(note.encode('latin-1'))
    assert find_checkpoint(str(run)) == str(run / 'epoch_3.pth')
    (line,) = said
    assert line.startswith(f'Resuming from {run / "epoch_3.pth"}, the newest whole checkpoint')
    assert 'it is missing' in line


def damage(path):
    """Change a bit of a tensor's numbers."""
    with zipfile.ZipFile(path) as f:
        record = next(r for r in f.infolist() if r.filename.endswith('/data/0'))
    data = bytearray(path.read_bytes())
    lengths = data[record.header_offset + 26 : record.header_offset + 30]
    data[record.header_offset + 30 + sum(struct.unpack('<2H', lengths))] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize('spoil', [truncate, lambda p: p.write_bytes(b''), os.remove, damage])
def test_last_file_that_is_torn_or_missing(spoil, run, said):
    spoil(run / 'epoch_3.pth')
    assert find_checkpoint(str(run)) == str(run / 'epoch_2.pth')
    (line,) = said
    assert line.startswith(f'Resuming from {run / "epoch_2.pth"}, the newest whole')
    assert 'epoch_3.pth: ' in line


def test_order_is_that_of_the_iterations(run):
    """Not of the names, nor of the times of the files; best ones have no optimizer."""
    content = torch.load(run / 'epoch_3.pth', weights_only=True)
    content['meta'].update(iter=19, epoch=3)
    torch.save(content, run / 'iter_19.pth')
    content['meta'].update(iter=99)
    torch.save(content, run / 'best_WAR_epoch_3.pth')
    os.utime(run / 'iter_19.pth', (0, 0))
    (run / 'last_checkpoint').unlink()
    assert find_checkpoint(str(run)) == str(run / 'iter_19.pth')


def test_note_is_believed_where_it_can_be(run):
    """A training that was resumed from an earlier checkpoint."""
    (run / 'last_checkpoint').write_text(str(run / 'epoch_2.pth'))
    assert find_checkpoint(str(run)) == str(run / 'epoch_2.pth')


def test_no_whole_checkpoint(run):
    for path in run.glob('*.pth'):
        truncate(path)
    with pytest.raises(ResumeError, match=r'None of the checkpoints in .*run is whole .*epoch_2'):
        find_checkpoint(str(run))


def test_checkpoints_in_another_folder(run, tmp_path):
    """``out_dir`` of the checkpoint hook, by the config or by the note."""
    other = tmp_path / 'out' / 'run'
    other.parent.mkdir()
    work = tmp_path / 'work' / 'run'
    work.mkdir(parents=True)
    run.rename(other)
    assert find_checkpoint(str(work), str(other.parent)) == str(other / 'epoch_3.pth')
    (work / 'last_checkpoint').write_text(str(other / 'epoch_2.pth'))
    assert find_checkpoint(str(work)) == str(other / 'epoch_2.pth')


def test_nothing_to_resume_from(tmp_path):
    cfg = config(tmp_path / 'run', resume=True)
    with pytest.raises(ResumeError, match=r'--resume: there is no checkpoint in .*run\. Check'):
        prepare_training(cfg)
    assert (
        mmengine.runner.find_latest_checkpoint(str(tmp_path)) is None
    )  # mmengine's tools start, as before


def test_new_training_over_another(run):
    with pytest.raises(ResumeError, match=r'run holds the checkpoints of a training.*--resume to'):
        prepare_training(config(run))
    for path in run.glob('*.pth'):
        path.unlink()
    prepare_training(config(run))


def test_mmengines_own_resume(run, capsys):
    """As mmaction2's train.py does it, by ``resume`` of the config."""
    truncate(run / 'epoch_3.pth')
    cfg = config(run, epochs=3, resume=True, save=dict(max_keep_ckpts=2))
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.epoch == 3 and 'resumed epoch: 2, iter: 12' in capsys.readouterr().out
    check_whole(str(run / 'epoch_3.pth'))


def test_other_settings_are_said(run, capsys):
    cfg = config(run, epochs=3, resume=True)
    cfg.optim_wrapper.optimizer.lr = 0.5
    cfg.train_dataloader.update(batch_size=2, num_workers=1)
    train(cfg)
    out = capsys.readouterr().out
    assert 'optim_wrapper.optimizer.lr is 0.5, in the checkpoint 0.01' in out
    assert 'train_dataloader.batch_size is 2, in the checkpoint 1' in out
    warning = out.split('The settings are not those of the checkpoint')[1]
    assert (
        'num_workers is' not in warning and 'custom_hooks' not in warning.split('in the check')[1]
    )
    train(config(run, epochs=3, resume=True))
    assert 'The settings are not those' not in capsys.readouterr().out


def test_another_model_is_refused(run):
    with pytest.raises(
        WeightsError, match=r'of another model: model.width is 5, in the checkpoint 4'
    ):
        train(config(run, epochs=3, resume=True, width=5))


def is_alive(pid):
    try:
        return Path(f'/proc/{pid}/stat').read_text().rsplit(')')[1].split()[0] != 'Z'
    except FileNotFoundError:
        return False


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(resume, 'PATIENCE', 0)


def is_free(folder):
    try:
        with alone_in(config(folder)):
            return True
    except ResumeError as e:
        assert f'Another training is running in {folder}.' in str(e)
        return False


def test_two_trainings_in_one_folder(tmp_path, monkeypatch, impatient):
    with alone_in(config(tmp_path / 'run')):
        assert not is_free(tmp_path / 'run')
        assert is_free(tmp_path / 'other')
        monkeypatch.setenv('RANK', '1')  # the first process of a run keeps the lock
        assert not is_free(tmp_path / 'run')  # which this is not, without a launcher
        with alone_in(config(tmp_path / 'run', launcher='pytorch')):
            pass
    assert is_free(tmp_path / 'run')


def test_killed_training_keeps_no_lock(tmp_path, impatient):
    """Also while a worker of its data loader is alive still."""
    reader, writer = os.pipe()
    killed = os.fork()
    if killed == 0:
        with alone_in(config(tmp_path)):
            worker = os.fork()
            if worker == 0:
                signal.pause()
            os.write(writer, str(worker).encode())
            signal.pause()
    worker = int(os.read(reader, 99))
    try:
        assert not is_free(tmp_path)
        os.kill(killed, signal.SIGKILL)
        os.waitpid(killed, 0)
        assert is_free(tmp_path)
    finally:
        os.kill(worker, signal.SIGKILL)


class TestTools:
    """tools/dist_train.sh with two processes, each with workers of its data loader."""

    OPTIONS = (
        '--cfg-options',
        'train_cfg.max_epochs=40',
        'train_dataloader.num_workers=1',
        'train_dataloader.batch_sampler.batch_size.video=2',
        'train_dataloader.batch_sampler.batch_size.image=2',
        'default_hooks.logger.interval=1',
    )

    def call(self, folder, *arguments):
        config = os.path.join(ROOT, 'configs', 'quickstart', 's4d_quickstart_pretrain.py')
        tool = os.path.join(ROOT, 'tools', 'dist_train.sh')
        command = ['bash', tool, config, '2', '--work-dir', str(folder / 'run'), *arguments]
        return subprocess.Popen(
            [*command, *self.OPTIONS],
            cwd=folder,
            env=process_env(PORT=str(20000 + os.getpid() % 20000)),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def test_training_is_told_to_stop(self, quickstart):
        process = self.call(quickstart)
        lines = []
        for line in process.stdout:
            lines.append(line)
            if 'Epoch(train)' in line:
                break
        process.send_signal(signal.SIGTERM)
        lines += process.stdout.readlines()
        output = ''.join(lines)
        assert process.wait() == 143, output[-4000:]
        assert 'SIGTERM: saved ' in output and 'Traceback' not in output, output[-4000:]
        (saved,) = (quickstart / 'run').glob('iter_*.pth')
        check_whole(str(saved))
        shutil.rmtree(quickstart / 'run')

    def test_ranks_end_with_a_killed_torchrun(self, quickstart, monkeypatch):
        """So that none of them trains beside the run that is resumed."""
        process = self.call(quickstart)
        for line in process.stdout:
            if 'Epoch(train)' in line:
                break
        ranks = Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()
        assert len(ranks) == 2
        with monkeypatch.context() as patch:
            patch.setattr(resume, 'PATIENCE', 0)
            assert not is_free(quickstart / 'run')
        process.kill()
        process.wait()
        assert is_free(quickstart / 'run')  # waits
        end = time.time() + resume.PATIENCE
        while any(map(is_alive, ranks)) and time.time() < end:
            time.sleep(0.1)
        assert not any(map(is_alive, ranks))
        shutil.rmtree(quickstart / 'run')

    RANK = """
import os, signal, sys
def stop(number, _):
    print(f'rank got {number}', flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
print('ready', flush=True)
if sys.argv[1] == 'wait':
    signal.pause()
sys.exit(int(sys.argv[1]))
"""

    @pytest.mark.parametrize(
        'number, argument, code',
        [(signal.SIGUSR1, 'wait', 138), (None, '143', 143), (None, '3', 1)],
    )
    def test_exit_code_of_torchrun(self, number, argument, code, tmp_path):
        """Of a signal that it gets, of one that its process got, and of an error."""
        (tmp_path / 'rank.py').write_text(self.RANK)
        tool = os.path.join(ROOT, 'tools', 'torchrun.py')
        process = subprocess.Popen(
            [sys.executable, tool, '--standalone', str(tmp_path / 'rank.py'), argument],
            env=process_env(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line == 'ready\n' and number is not None:
                process.send_signal(number)
        assert process.wait() == code, lines
        assert ('rank got 15\n' in lines) == (number is not None)
