# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""A run that stands still ends, and says who stands still on which file: real processes."""

import datetime
import multiprocessing
import os
import os.path as osp
import pickle
import signal
import sys
import threading
import time
import traceback
from multiprocessing.reduction import ForkingPickler
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from helpers import ROOT, run_script
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, TRANSFORMS, init_default_scope

from s4d_mm.datasets.reading_notes import ReadingNotes
from s4d_mm.engine.hangs import (
    RankBoard,
    Watchdog,
    group_timeout,
    loader_errors_as_messages,
)
from s4d_mm.engine.hangs.watchdog import describe_ranks
from s4d_mm.engine.hooks import HangHook
from s4d_mm.engine.launch import build_runner, prepare_distributed

FINETUNE = osp.join(ROOT, 'configs', 'quickstart', 's4d_quickstart_finetune.py')
LIMIT = 5  # seconds without progress; a busy machine reads a sample and steps in less
FOREVER = 240  # seconds after which a test that guards an end gives up


@TRANSFORMS.register_module()
class StandStill(BaseTransform):
    """One process stops for ever at its ``nth`` sample, and leaves the sample's name in a file.

    Args:
        note (str): The file.
        how (str): 'sleep', 'stop' (SIGSTOP) or 'kill' (SIGKILL).
        nth (int): From 0. Defaults to 2.
        rank (int): Of which process. Defaults to 0.
    """

    def __init__(self, note, how, nth=2, rank=0):
        self.note, self.how, self.nth, self.rank = note, how, nth, rank

    def transform(self, results):
        mine = not dist.is_initialized() or dist.get_rank() == self.rank
        self.nth -= mine
        if mine and self.nth < 0 and not osp.exists(self.note):
            with open(self.note, 'x') as f:
                f.write(results['filename'])
            self.stand_still()
        return results

    def stand_still(self):
        if self.how == 'kill':
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.how == 'stop':
            if dist.is_initialized():  # the rank tells twice in this time what it reads
                time.sleep(LIMIT * 0.4)
            os.kill(os.getpid(), signal.SIGSTOP)
        parent = os.getppid()
        while os.getppid() == parent:  # not longer than the test
            time.sleep(0.2)


def make_config(folder, how, workers, rank=0, where='train_dataloader', **options):
    """The quickstart's fine-tuning, in which one process stands still."""
    cfg = Config.fromfile(FINETUNE)
    step = dict(type='StandStill', note=str(folder / 'stuck'), how=how, rank=rank)
    for part in cfg[where].dataset.values():
        if isinstance(part, dict) and 'pipeline' in part:
            part.pipeline.insert(0, step)
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[name].num_workers, cfg[name].persistent_workers = workers, False
    cfg.val_evaluator, cfg.val_cfg, cfg.val_dataloader = None, None, None
    cfg.train_cfg = dict(by_epoch=True, max_epochs=2)
    cfg.default_hooks.hang = dict(type='HangHook', timeout=LIMIT, heartbeat=2)
    cfg.default_hooks.checkpoint.interval = -1
    cfg.work_dir, cfg.launcher = str(folder / 'run'), 'none'
    cfg.merge_from_dict(options)
    return cfg


def fork(function, folder, ranks=1):
    """Exit codes and outputs of a function in processes of its own.

    The first one is waited for, the others are killed then.
    """

    def run(rank):
        out = os.open(folder / f'out{rank}', os.O_CREAT | os.O_WRONLY)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout = sys.stderr = os.fdopen(2, 'w')
        os.chdir(folder)
        os.environ['LOCAL_RANK'] = '0'
        try:
            if ranks > 1:
                dist.init_process_group(
                    'gloo', f'file://{folder}/store', rank=rank, world_size=ranks
                )
            function()
        except Exception:
            traceback.print_exc()
            sys.exit(9)

    context = multiprocessing.get_context('fork')
    processes = [context.Process(target=run, args=(rank,)) for rank in range(ranks)]
    for process in processes:
        process.start()
    try:
        processes[0].join(FOREVER)
        codes = [process.exitcode for process in processes]
    finally:
        for process in processes:
            process.kill()
    return codes, [(folder / f'out{rank}').read_text() for rank in range(ranks)]


def run_log(folder):
    (log,) = (folder / 'run').glob('*/*.log')
    return log.read_text()


def test_a_worker_that_stands_still_ends_the_training(quickstart, tmp_path):
    cfg = make_config(tmp_path, 'sleep', workers=2)
    (code,), (output,) = fork(lambda: build_runner(cfg).train(), tmp_path)
    file = (tmp_path / 'stuck').read_text()
    assert code == 1
    for text in (output, run_log(tmp_path)):
        assert f'has read {file} for ' in text.partition('This run ends')[2]
        assert 'waits for the data of training step' in text.partition('This run ends')[2]
        assert 'default_hooks.hang.timeout' in text
    # before the end, the log's heartbeat; and it is the worker that reads
    assert 'No step was finished for' in run_log(tmp_path).partition('This run ends')[0]
    assert 'data loader worker ' in output
    assert 'in run_epoch' in output  # the stack of the main thread


def test_a_main_process_that_stands_still_ends_a_test(quickstart, tmp_path):
    cfg = make_config(tmp_path, 'sleep', workers=0, where='test_dataloader')
    (code,), (output,) = fork(lambda: build_runner(cfg).test(), tmp_path)
    file = (tmp_path / 'stuck').read_text()
    assert code == 1
    end = output.partition('This run ends')[2]
    assert 'the main process (pid' in end
    assert f'has read {file} for ' in end
    assert 'waits for the data of test step 2' in end  # after that of the clips
    assert 'stand_still' in output  # the line of code in which it is


@pytest.mark.skipif(not osp.exists('/proc/self/stat'), reason='needs /proc')
def test_a_stopped_worker_ends_the_run_and_leaves_no_process(quickstart, tmp_path):
    """torch's own time-out raises an error, after which Python waits for the worker for ever."""
    cfg = make_config(tmp_path, 'stop', workers=2)
    cfg.train_dataloader.timeout = LIMIT - 2
    (code,), (output,) = fork(lambda: build_runner(cfg).train(), tmp_path)
    file = (tmp_path / 'stuck').read_text()
    assert f'DataLoader timed out after {LIMIT - 2} seconds' in output
    assert code == 1
    found = output.partition('This run ends')[2].partition(f'has read {file} for ')
    assert 'stopped by a signal (SIGSTOP)' in found[2].splitlines()[0]
    pid = int(found[0].rpartition('(pid ')[2].partition(')')[0])
    with pytest.raises(ProcessLookupError):
        wait_for_end(pid)


def wait_for_end(pid):
    """Raise an error as soon as there is no such process."""
    for _ in range(100):
        os.kill(pid, 0)
        time.sleep(0.1)


@pytest.mark.parametrize('how', ['sleep', 'stop'])
def test_the_others_name_the_rank_that_stands_still(quickstart, tmp_path, how):
    """A worker of rank 1 stands still, or the whole rank is stopped in its data loading."""
    workers = 1 if how == 'sleep' else 0
    cfg = make_config(tmp_path, how, workers, rank=1)
    cfg.launcher = 'pytorch'
    cfg.train_dataloader.batch_sampler.total_batch_size = dict(video=4, image=8)

    (code, _), (output, _) = fork(lambda: build_runner(cfg).train(), tmp_path, ranks=2)
    file = (tmp_path / 'stuck').read_text()
    assert code == 1
    end = output.partition('This run (rank 0) ends')[2]
    assert 'The others wait for rank 1.' in end
    line = next(line for line in end.splitlines() if line.startswith('  rank 1'))
    assert f'has read {file} for ' in line


# ------------------------------------------------------------------ what must not be ended
class Notes:
    """A dataset of which samples are read."""

    def __init__(self):
        self.notes = ReadingNotes()

    def get_data_info(self, idx):
        return dict(filename=f'{idx}.mp4')


def watch(run, timeout=1.0):
    """Call a function under a watchdog."""
    dog = Watchdog(timeout, 0, MMLogger('watched'), RankBoard(0), [run.__code__])
    dog.datasets = [Notes()]
    dog.start()
    return dog


def test_a_slow_start_that_reads_goes_on(tmp_path):
    """The first batch may take longer than the limit, as long as its samples come."""

    def read(dog, seconds):
        for i in range(40):
            with dog.datasets[0].notes.reading(i):
                time.sleep(seconds)

    (code,), _ = fork(lambda: read(watch(read, timeout=2), 0.1), tmp_path)
    assert code == 0
    # the same reader, when one sample takes longer than the limit
    (code,), (output,) = fork(lambda: read(watch(read, timeout=2), 9 * FOREVER), tmp_path)
    assert code == 1
    assert 'has read 0.mp4 for' in output


def test_what_follows_a_failed_run_goes_on(tmp_path):
    """In a notebook, after an exception, or in a run that begins after it."""

    def run():
        raise RuntimeError('the run failed')

    def session():
        watch(run, timeout=0.5)
        with pytest.raises(RuntimeError, match='the run failed'):
            run()
        time.sleep(2)

    def again():
        old = watch(later, timeout=0.5)
        new = watch(later, timeout=9 * FOREVER)
        later()
        return old, new

    def later():
        time.sleep(2)

    for i, function in enumerate((session, again)):
        (tmp_path / str(i)).mkdir()
        (code,), (output,) = fork(function, tmp_path / str(i))
        assert code == 0, output


def test_time_in_which_the_job_was_suspended_does_not_count(tmp_path):
    def run():
        for _ in range(20):
            time.sleep(0.1)

    def suspended():
        watch(run, timeout=4.0)
        if os.fork() == 0:  # wakes its parent
            parent = os.getppid()
            time.sleep(1)  # the watchdog has looked twice
            os.kill(parent, signal.SIGSTOP)
            time.sleep(4.5)
            os.kill(parent, signal.SIGCONT)
            os._exit(0)
        run()

    (code,), (output,) = fork(suspended, tmp_path)
    assert code == 0, output


def test_limit_0_starts_nothing(quickstart, tmp_path):
    cfg = make_config(tmp_path, 'sleep', workers=0)
    cfg.train_dataloader.dataset.video.pipeline.pop(0)
    cfg.train_dataloader.dataset.image.pipeline.pop(0)
    cfg.train_cfg.max_epochs = 1
    threads = []

    class Threads(Hook):
        def after_train_iter(self, runner, **kwargs):
            threads.append(sum(t.name.startswith('s4d_mm') for t in threading.enumerate()))

    for timeout, expected in ((0, {0}), (600, {2})):
        cfg.default_hooks.hang.timeout = timeout
        threads.clear()
        runner = build_runner(cfg)
        runner.register_hook(Threads())
        runner.train()
        assert set(threads) == expected
    (hang,) = (hook for hook in runner.hooks if isinstance(hook, HangHook))
    assert not hang.watchdog.is_running()


def test_notes_are_shared_with_workers_that_are_no_forks():
    """Such a worker gets them through torch's pickler."""
    notes = ReadingNotes()
    theirs = pickle.loads(bytes(ForkingPickler.dumps(notes)))
    assert notes.open_notes() == [] and notes.last_change() == 0
    before = time.monotonic()
    with theirs.reading(7):
        (note,) = notes.open_notes()
        assert (note.worker, note.pid, note.index) == (-1, os.getpid(), 7)
        assert before <= note.since <= time.monotonic()
    assert notes.open_notes() == [] and notes.last_change() > note.since


# ------------------------------------------------------------------ settings and words
@pytest.mark.parametrize('value', [-1, '600', None, True, float('nan')])
def test_limit_is_a_number_of_seconds(value):
    with pytest.raises(ValueError, match=f'timeout .*but is {value!r}'):
        HangHook(timeout=value)
    with pytest.raises(ValueError, match='default_hooks.hang.timeout'):
        group_timeout(Config(dict(default_hooks=dict(hang=dict(timeout=value)))))


def test_process_group_waits_a_minute_longer():
    def seconds(hang, **dist_cfg):
        cfg = dict(default_hooks=dict(hang=hang), env_cfg=dict(dist_cfg=dist_cfg))
        found = group_timeout(Config(cfg))
        return found and found.total_seconds()

    assert seconds(dict(type='HangHook')) == 660
    assert seconds(dict(type='HangHook', timeout=30)) == 90
    assert seconds(dict(type='HangHook', timeout=30), timeout=7) == 7
    assert seconds(dict(type='HangHook', timeout=0)) is None
    assert seconds(None) is None


def test_processes_start_with_that_limit(monkeypatch):
    monkeypatch.setattr('s4d_mm.engine.launch.dist.init_process_group', init := mock.Mock())
    for device in ('cpu', 'cuda'):
        monkeypatch.setattr('s4d_mm.engine.launch.get_device', lambda device=device: device)
        cfg = Config.fromfile(FINETUNE)
        cfg.launcher = 'pytorch'
        prepare_distributed(cfg)
    init.assert_called_once_with('gloo', timeout=datetime.timedelta(seconds=660))
    assert cfg.env_cfg.dist_cfg == dict(backend='nccl', timeout=660)  # seconds, for mmengine


def test_who_is_waited_for():
    def words(marks, readers=(), silent=False):
        told = dict(marks=marks, where='w', standing=9, readers=readers, at='l', host='h', pid=1)
        return dict(told, age=0.0, silent=silent)

    assert 'wait for rank 1.' in describe_ranks({0: words(5), 1: words(4), 2: words(5)}, 3)
    assert 'wait for rank 2.' in describe_ranks({0: words(5), 1: words(5)}, 3)
    assert 'rank 2: nothing was heard' in describe_ranks({0: words(5), 1: words(5)}, 3)
    assert 'wait for rank 0.' in describe_ranks({0: words(5, ['x']), 1: words(5)}, 2)
    silent = describe_ranks({0: words(5), 1: words(5, silent=True)}, 2)
    assert 'wait for rank 1.' in silent and 'silent for' in silent.splitlines()[-1]
    assert 'All ranks stand still' in describe_ranks({0: words(5), 1: words(5)}, 2)


# ------------------------------------------------------------------ a worker that died
@pytest.mark.parametrize('tool', ['train', 'test'])
def test_tools_say_what_a_killed_worker_read(quickstart, tmp_path, tool):
    cfg = make_config(tmp_path, 'kill', workers=2, where=f'{tool}_dataloader')
    cfg.dump(tmp_path / 'config.py')
    arguments = [tmp_path / 'config.py']
    if tool == 'test':
        init_default_scope('mmaction')
        weights = MODELS.build(cfg.model).state_dict()
        torch.save(dict(state_dict=weights), tmp_path / 'weights.pth')
        arguments.append(tmp_path / 'weights.pth')
    (code,), (output,) = fork(lambda: run_script(f'tools/{tool}.py', *arguments), tmp_path)
    assert code == 1
    assert 'Traceback' not in output
    said = output.strip().splitlines()[-1]
    assert f'had begun to read {(tmp_path / "stuck").read_text()}' in said
    assert 'killed by signal: Killed' in said or 'exited unexpectedly' in said
    assert 'num_workers' in said


def test_other_errors_stay_as_they_are():
    with pytest.raises(RuntimeError, match='another'), loader_errors_as_messages(None):
        raise RuntimeError('another')
