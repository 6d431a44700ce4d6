# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Trainings that are killed at random moments and resumed, against one that is not.

Each training is the quickstart's, on a small set of drawn faces, in processes of its own. SIGKILL
goes to all of them at once. What it leaves at its end (weights, optimizer, schedules, the history
of losses and metrics, the names of the files) is compared bit by bit.
"""

import contextlib
import glob
import os
import os.path as osp
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from helpers import ROOT
from mmengine.config import Config
from runs import (
    FINETUNE,
    PRETRAIN,
    Training,
    differences,
    final_state,
    resumed,
    run,
    run_ranks,
    short_config,
)


@dataclass(frozen=True)
class Case:
    """A training, and when it is killed.

    Args:
        stage (str): 'pretrain' or 'finetune'.
        workers (int): Of the data loader of a process.
        processes (int): Ranks of the run.
        by_epoch (bool): Whether checkpoints are saved after epochs, or after every second step.
        moment (str): 'anywhere', or 'checkpoint' (while one is written).
    """

    stage: str
    workers: int = 0
    processes: int = 1
    by_epoch: bool = True
    moment: str = 'anywhere'


CASES = (
    Case('pretrain', workers=0),
    Case('finetune', workers=2),
    Case('pretrain', workers=2, by_epoch=False),
    Case('finetune', workers=0, by_epoch=False),
    Case('pretrain', workers=0, by_epoch=False, moment='checkpoint'),
    Case('finetune', workers=2, moment='checkpoint'),
    Case('finetune', workers=2, processes=2, by_epoch=False),
)


def config_of(case: Case, work_dir: str) -> Config:
    """The config of a case's training: three epochs."""
    path = FINETUNE if case.stage == 'finetune' else PRETRAIN
    return short_config(
        path,
        work_dir,
        train_cfg__max_epochs=3,
        train_dataloader__num_workers=case.workers,
        default_hooks__checkpoint__max_keep_ckpts=2,
        default_hooks__checkpoint__by_epoch=case.by_epoch,
        default_hooks__checkpoint__interval=1 if case.by_epoch else 2,
        visualizer=None,
        launcher='none' if case.processes == 1 else 'pytorch',
    )


def start(cfg: Config, processes: int, folder: Path) -> Training:
    """Begin a training in a group of processes of its own; ``folder`` gets what it prints."""
    if processes == 1:
        return Training(lambda: run(cfg), folder)
    ranks = Path(tempfile.mkdtemp())
    return Training(lambda: run_ranks(lambda: run(cfg), ranks, processes), folder)


def files_of(work_dir: str) -> dict[str, tuple]:
    """The checkpoints, whole or not, with what changes when one is written."""
    found = {}
    for path in glob.glob(osp.join(work_dir, '*.pth*')):
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(path)
            found[path] = status.st_ino, status.st_size, status.st_mtime_ns
    return found


def wait_for(case: Case, training: Training, work_dir: str, delay: float, writes: int) -> None:
    """Wait for the moment of a kill, or for the end of the training.

    Args:
        case (Case): The case.
        training (Training): Its training.
        work_dir (str): Folder of the run.
        delay (float): Seconds to wait after it began, for a kill anywhere.
        writes (int): Changes of files to wait for, for a kill while a checkpoint is written.
    """
    if case.moment == 'anywhere':
        training.process.join(delay)
        return
    seen = files_of(work_dir)
    while training.process.is_alive() and writes:
        now = files_of(work_dir)
        writes -= now != seen
        seen = now
        time.sleep(0.0005)


def measure_case(case: Case, kills: int, folder: str, seed: int) -> dict:
    """Kill and resume trainings, each up to three times, until there were enough kills.

    Args:
        case (Case): The case.
        kills (int): How often.
        folder (str): Where to work.
        seed (int): Of the moments.

    Returns:
        dict: A row of the table: ``kills``, ``runs`` that came to an end after them, how many of
        those are ``identical`` to the one that was not killed, and what was wrong with the first
        of the others.
    """
    rng = random.Random(f'{seed} {case}')
    place = Path(folder, '_'.join(map(str, vars(case).values())))
    place.mkdir()
    whole, begin = str(place / 'whole'), time.monotonic()
    if start(config_of(case, whole), case.processes, place).end() != 0:
        raise RuntimeError(f'The training did not end well; see {place}/output.')
    length, expected = time.monotonic() - begin, final_state(whole)
    row = dict(vars(case), kills=0, runs=0, identical=0, first_difference='')
    while row['kills'] < kills:
        cfg = config_of(case, str(place / f'{row["runs"]}'))
        code, wanted = -signal.SIGKILL, min(rng.randint(1, 3), kills - row['kills'])
        while code == -signal.SIGKILL:
            saved = glob.glob(osp.join(cfg.work_dir, '*.pth'))
            training = start(resumed(cfg) if saved else cfg, case.processes, place)
            if wanted:
                delay = rng.uniform(0.2, 1.0) * length
                wait_for(case, training, cfg.work_dir, delay, rng.randint(1, 6))
                with contextlib.suppress(ProcessLookupError):
                    training.signal(signal.SIGKILL, group=True)
            code = training.end()
            wanted -= code == -signal.SIGKILL
            row['kills'] += code == -signal.SIGKILL
        found = [f'exit code {code}'] if code else differences(expected, final_state(cfg.work_dir))
        row['runs'] += 1
        row['identical'] += not found
        row['first_difference'] = row['first_difference'] or ''.join(found[:1])[:80]
    return row


@contextlib.contextmanager
def drawn_faces(folder: str | None = None) -> Iterator[str]:
    """A folder with a small set of drawn faces, to work in; a temporary one if none is given."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = osp.abspath(folder or temporary)
        tool = osp.join(ROOT, 'tools', 'data', 'make_quickstart.py')
        command = [sys.executable, tool, osp.join(folder, 'data'), '--images', '28']
        command += ['--clips', '21', '--size', '80', '--workers', '1']
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        os.environ['QUICKSTART_DIR'] = folder
        yield folder


def measure(kills: int, folder: str | None = None, seed: int = 0) -> list[dict]:
    """Kill trainings of all kinds.

    Args:
        kills (int): In all; each kind has its share.
        folder (str, optional): Where to work; kept. Defaults to None: a temporary one.
        seed (int): Of the moments. Defaults to 0.

    Returns:
        list[dict]: A row for each of :data:`CASES`, of :func:`measure_case`.
    """
    rows = []
    # formatting the config takes most of the time of a short run
    unformatted = mock.patch('mmengine.config.config.FormatCode', lambda text, **_: (text, True))
    with drawn_faces(folder) as place, unformatted:
        for i, case in enumerate(CASES):
            share = kills // len(CASES) + (i < kills % len(CASES))
            if share:
                rows.append(measure_case(case, share, place, seed))
                print(rows[-1], flush=True)
    return rows
