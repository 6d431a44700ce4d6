# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""A training that is told to stop: it saves, says so, ends with the signal's code, and resumes."""

import multiprocessing
import os
import re
import signal
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from mmengine.hooks import Hook
from tiny_training import STEPS, TIMEOUT, Training, config, train

SIGNALS = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 138}


def start(folder, pause=0.1, **options):
    return Training(lambda: train(config(folder / 'run', pause=pause, **options)), folder)


def saved(folder, name):
    return torch.load(folder / 'run' / name, weights_only=True)


def names(folder):
    return sorted(p.name for p in (folder / 'run').glob('*.pth'))


@pytest.mark.parametrize('number', SIGNALS)
def test_the_step_is_finished_and_saved(number, tmp_path):
    """Also where the whole process group gets the signal, workers too, as by Slurm or Ctrl-C."""
    run = start(tmp_path, workers=2, pause=0.3)
    run.wait_for('step 8')
    run.signal(number, group=True)
    assert run.end() == SIGNALS[number]
    done = int((tmp_path / 'steps').read_text().split()[-1])
    output = run.output()
    file = f'iter_{done}.pth'
    assert f'{number.name}: saved {tmp_path / "run" / file} after {done} iterations' in output
    assert 'Traceback' not in output and 'Error' not in output
    assert (tmp_path / 'run' / 'last_checkpoint').read_text() == str(tmp_path / 'run' / file)
    meta = saved(tmp_path, file)['meta']
    assert STEPS < done < 2 * STEPS and (meta['epoch'], meta['iter']) == (1, done)


def test_workers_leave_the_signals_to_their_process(tmp_path):
    """They do not die of one that a stranger sends."""
    run = start(tmp_path, epochs=2, workers=2)
    run.wait_for('step 2')
    workers = Path(f'/proc/{run.pid}/task/{run.pid}/children').read_text().split()
    assert len(workers) == 2
    for number in SIGNALS:
        for pid in workers:
            os.kill(int(pid), number)
    assert run.end() == 0, run.output()
    assert names(tmp_path) == ['epoch_1.pth', 'epoch_2.pth']
    assert not any(Path(f'/proc/{pid}').exists() for pid in workers)


def test_process_can_still_end_its_forks(tmp_path):
    """One that stands still, as a worker may, by SIGTERM of its parent."""

    class Fork(Hook):
        priority = 'LOW'

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            fork = multiprocessing.get_context('fork').Process(target=signal.pause)
            fork.start()
            fork.terminate()
            fork.join(TIMEOUT)
            sys.exit(7 if fork.exitcode == 0 else 1)

    def run():
        cfg = config(tmp_path / 'run')
        cfg.custom_hooks.append(Fork())
        train(cfg)

    assert Training(run, tmp_path).end() == 7


def test_resumed_training_goes_on_and_replaces_it(tmp_path):
    run = start(tmp_path, save=dict(max_keep_ckpts=1))
    run.wait_for('step 8')
    run.signal(signal.SIGTERM)
    assert run.end() == 143
    assert len(names(tmp_path)) in (1, 2)  # 1: the machine was slow, and an epoch had ended
    run = start(tmp_path, save=dict(max_keep_ckpts=1), resume=True)
    assert run.end() == 0, run.output()
    assert re.search(r'resumed epoch: [12], iter: ', run.output())
    assert names(tmp_path) == ['epoch_3.pth']


def test_second_interrupt_ends_at_once(tmp_path):
    """Also while the step does not come back to Python."""
    run = Training(lambda: train(config(tmp_path / 'run', pause=TIMEOUT)), tmp_path)
    run.wait_for('step 1')
    run.signal(signal.SIGINT)
    run.wait_for('SIGINT: the step is finished and saved; again to end at once.', 'output')
    run.signal(signal.SIGINT)
    assert run.end() == -signal.SIGINT and names(tmp_path) == []


def test_ignored_signal_stays_ignored(tmp_path):
    """As ``nohup`` and ``&`` in a script ask for."""

    def ignoring():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        train(config(tmp_path / 'run', epochs=1, pause=0.1))

    run = Training(ignoring, tmp_path)
    run.wait_for('step 2')
    run.signal(signal.SIGINT)
    assert run.end() == 0 and names(tmp_path) == ['epoch_1.pth']


def test_accumulated_gradients_are_not_lost(tmp_path):
    wrapper = dict(optimizer=dict(type='SGD', lr=0.1), accumulative_counts=4)
    run = start(tmp_path, optim_wrapper=wrapper)
    run.wait_for('step 1')
    run.signal(signal.SIGTERM)
    assert run.end() == 143 and names(tmp_path) == ['iter_4.pth']


def test_validation_ends_at_once_if_the_epoch_is_saved(tmp_path):
    run = start(tmp_path, scores=[1, 2, 3])
    run.wait_for('val 1')
    run.signal(signal.SIGTERM)
    assert run.end() == 143
    assert names(tmp_path) == ['epoch_1.pth']
    assert 'SIGTERM during the validation' in run.output()


def test_validation_is_finished_if_the_epoch_is_not_saved(tmp_path):
    run = start(tmp_path, scores=[1, 2, 3], save=dict(interval=2))
    run.wait_for('val 1')
    run.signal(signal.SIGTERM)
    assert run.end() == 143
    assert names(tmp_path) == [f'iter_{STEPS + 1}.pth']


def test_checkpoints_by_iteration(tmp_path):
    """The saved step is one of the hook's own, and counts in ``max_keep_ckpts``."""
    save = dict(by_epoch=False, interval=4, max_keep_ckpts=1)
    run = start(tmp_path, save=save)
    run.wait_for('step 6')
    run.signal(signal.SIGTERM)
    assert run.end() == 143
    done = int((tmp_path / 'steps').read_text().split()[-1])
    assert names(tmp_path) == [f'iter_{done}.pth']


def test_error_gives_the_signals_back(tmp_path):
    """Where the process goes on after it, as a notebook does."""

    class Failing(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            raise RuntimeError

    def fork():  # one that may train itself
        sys.exit(7 if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL else 1)

    def failing():
        # as in a new process: another test of this one may have left its own
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        cfg = config(tmp_path / 'run')
        cfg.custom_hooks.append(Failing())
        with pytest.raises(RuntimeError):
            train(cfg)
        process = multiprocessing.get_context('fork').Process(target=fork)
        process.start()
        process.join(TIMEOUT)
        assert process.exitcode == 7
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            sys.exit(7)

    run = Training(failing, tmp_path)
    assert run.end() == 7, run.output()


@pytest.mark.parametrize('told', [[0], [1]])
def test_one_of_two_processes_is_told(told, tmp_path):
    def rank(number):
        os.environ.update(RANK=str(number), LOCAL_RANK=str(number))
        store = f'file://{tmp_path}/store'
        dist.init_process_group('gloo', store, rank=number, world_size=2)
        train(config(tmp_path / 'run', pause=0.1, launcher='pytorch'))

    runs = []
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        runs.append(Training(lambda number=number: rank(number), tmp_path / str(number)))
    runs[0].wait_for('step 4', '../steps0')
    for number in told:
        runs[number].signal(signal.SIGTERM)
    assert [run.end() for run in runs] == [143, 143]
    counts = {int((tmp_path / f'steps{i}').read_text().split()[-1]) for i in range(2)}
    assert len(counts) == 1
    assert (tmp_path / 'run' / 'last_checkpoint').read_text().endswith(f'/iter_{counts.pop()}.pth')
