# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Which checkpoint a training goes on from, and what is refused before it begins."""

import os
import shutil
import signal
import struct
import subprocess
import zipfile

import pytest
import torch
from helpers import ROOT, process_env, truncate
from mmengine.runner import Runner
from runs import PRETRAIN, TRAIN_OPTIONS, config, train

from s4d_mm.engine import checkpoint
from s4d_mm.engine.checkpoint import alone_in, prepare_training
from s4d_mm.files import last_checkpoint
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
    with pytest.raises(ResumeError, match=r'--resume: no checkpoint in .*run\. Check --work-dir'):
        prepare_training(cfg)


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


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(checkpoint, 'PATIENCE', 0)


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


def start_two(folder):
    """tools/dist_train.sh with 2 processes, each with a worker, after its first logged step."""
    command = ['bash', os.path.join(ROOT, 'tools', 'dist_train.sh'), PRETRAIN, '2']
    command += ['--work-dir', str(folder / 'run'), '--cfg-options', *TRAIN_OPTIONS]
    command += ['train_cfg.max_epochs=40', 'train_dataloader.num_workers=1']
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=process_env(PORT=str(20000 + os.getpid() % 20000)),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
        if 'Epoch(train)' in line:
            break
    return process, lines


def test_two_processes_under_torchrun_are_told_to_stop(quickstart):
    process, lines = start_two(quickstart)
    process.send_signal(signal.SIGTERM)
    lines += process.stdout.readlines()
    output = ''.join(lines)
    assert process.wait() != 0, output[-4000:]
    assert 'SIGTERM: saved ' in output, output[-4000:]
    (saved,) = (quickstart / 'run').glob('iter_*.pth')
    check_whole(str(saved))
    with open(quickstart / 'run' / 'last_checkpoint') as f:
        assert f.read() == str(saved)


def test_processes_end_with_a_killed_torchrun(quickstart, impatient):
    """So that none of them trains beside the run that is resumed."""
    shutil.rmtree(quickstart / 'run', ignore_errors=True)
    process, _ = start_two(quickstart)
    assert not is_free(quickstart / 'run')
    process.kill()
    process.stdout.read()  # until the last process has ended
    process.wait()
    assert is_free(quickstart / 'run')
