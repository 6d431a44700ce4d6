# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Trainings that are killed at random moments and resumed, against one that is not.

Each training is the quickstart's, on a small set of drawn faces, in processes of its own. SIGKILL
goes to all of them at once. What it leaves at its end (weights, optimizer, schedules, the history
of losses and metrics, the names of the files) is compared bit by bit.
"""

import contextlib
import glob
import multiprocessing
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
from killed_runs import differences, final_state, resumed, run, small_config
from processes import run_ranks

LATEST = 300.0  # seconds after which a training that was not killed is given up


@dataclass(frozen=True)
class Case:
    """A training, and when it is killed.

    Args:
        stage (str): 'pretrain' or 'finetune'.
        workers (int): Of the data loader of a process.
        processes (int): Ranks of the run.
        by_epoch (bool): Whether checkpoints are saved after epochs, or after every second step.
        moment (str): 'anywhere', 'validation' or 'checkpoint' (while one is written).
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
    Case('finetune', workers=2, moment='validation'),
    Case('pretrain', workers=0, by_epoch=False, moment='checkpoint'),
    Case('finetune', workers=2, moment='checkpoint'),
    Case('finetune', workers=2, processes=2, by_epoch=False),
)


def config_of(case: Case, work_dir: str):
    """The config of a case's training."""
    options = dict(train_cfg__max_epochs=3, default_hooks__checkpoint__max_keep_ckpts=2)
    if not case.by_epoch:
        options.update(
            default_hooks__checkpoint__by_epoch=False, default_hooks__checkpoint__interval=2
        )
    launcher = 'none' if case.processes == 1 else 'pytorch'
    return small_config(case.stage, work_dir, case.workers, launcher=launcher, **options)


def start(cfg, processes: int, log: str) -> multiprocessing.Process:
    """Begin a training in a group of processes of its own.

    Args:
        cfg (Config): Of :func:`config_of`.
        processes (int): Ranks.
        log (str): File for what it prints.

    Returns:
        Process: The first of the group.
    """

    def train() -> None:
        os.setpgid(0, 0)
        with open(log, 'a', encoding='utf-8') as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        if processes == 1:
            run(cfg)
        else:
            os.environ['LOCAL_RANK'] = '0'
            run_ranks(lambda: run(cfg), Path(tempfile.mkdtemp()), processes)

    process = multiprocessing.get_context('fork').Process(target=train)
    process.start()
    return process


def kill_group(process: multiprocessing.Process) -> None:
    """End all processes of a training by SIGKILL."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join()


def files_of(work_dir: str) -> dict[str, tuple]:
    """The checkpoints, whole or not, with what changes when one is written."""
    found = {}
    for path in glob.glob(osp.join(work_dir, '*.pth*')):
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(path)
            found[path] = status.st_ino, status.st_size, status.st_mtime_ns
    return found


def wait_for(case: Case, process, work_dir: str, log: str, delay: float, count: int) -> None:
    """Wait for the moment of a kill, or for the end of the training.

    Args:
        case (Case): The case.
        process (Process): Its training.
        work_dir (str): Folder of the run.
        log (str): What the training prints.
        delay (float): Seconds to wait after it began, for a kill anywhere.
        count (int): Of which write, or validation.
    """
    if case.moment == 'anywhere':
        process.join(delay)
        return
    end, seen, changes = time.monotonic() + LATEST, files_of(work_dir), 0
    while process.is_alive() and time.monotonic() < end:
        if case.moment == 'validation':
            # the log says when an epoch is saved, just before it is validated
            logs = glob.glob(osp.join(work_dir, '*', '*.log'))
            changes = sum(Path(p).read_text().count('Saving checkpoint at') for p in logs)
            if changes >= count:
                time.sleep(random.uniform(0, 0.3))
                return
            time.sleep(0.01)
        else:
            now = files_of(work_dir)
            changes += now != seen
            seen = now
            if changes >= count:
                return
            time.sleep(0.0005)


def measure_case(case: Case, kills: int, folder: str, seed: int) -> dict:
    """Kill and resume a training again and again, until it was killed often enough.

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
    name = '_'.join(map(str, vars(case).values()))
    whole, begin = osp.join(folder, f'{name}_whole'), time.monotonic()
    process = start(config_of(case, whole), case.processes, f'{whole}.log')
    process.join(LATEST)
    if process.exitcode != 0:
        raise RuntimeError(f'The training did not end well; see {whole}.log.')
    length, expected = time.monotonic() - begin, final_state(whole)
    row = dict(vars(case), kills=0, runs=0, identical=0, first_difference='')
    while row['kills'] < kills:
        work_dir = osp.join(folder, f'{name}_{row["runs"]}')
        found = kill_and_resume(case, work_dir, length, kills, row, rng)
        found = found or ', '.join(differences(expected, final_state(work_dir))[:1])
        row['runs'] += 1
        row['identical'] += not found
        row['first_difference'] = row['first_difference'] or found[:80]
    return row


def kill_and_resume(
    case: Case, work_dir: str, length: float, kills: int, row: dict, rng: random.Random
) -> str:
    """One training, killed up to three times.

    Args:
        case (Case): The case.
        work_dir (str): Folder of the run.
        length (float): Seconds that a whole one takes.
        kills (int): How many are wanted in all.
        row (dict): Its ``kills`` are counted up.
        rng (Random): For the moments.

    Returns:
        str: Why it could not be resumed; empty if it came to its end.
    """
    cfg, log, wanted = config_of(case, work_dir), f'{work_dir}.log', rng.randint(1, 3)
    while True:
        saved = bool(glob.glob(osp.join(work_dir, '*.pth')))
        open(log, 'w').close()
        process = start(resumed(cfg) if saved else cfg, case.processes, log)
        if wanted and row['kills'] < kills:
            delay = rng.uniform(0.2, 1.0) * length
            wait_for(case, process, work_dir, log, delay, rng.randint(1, 3))
            if process.is_alive():
                kill_group(process)
                row['kills'] += 1
                wanted -= 1
                continue
        process.join(LATEST)
        kill_group(process)
        if process.exitcode == 0:
            return ''
        return f'exit code {process.exitcode}: {last_line(log)}'


def last_line(log: str) -> str:
    """The last line that a training printed."""
    lines = Path(log).read_text(encoding='utf-8').split('\n')
    return next((line for line in reversed(lines) if line.strip()), '')


@contextlib.contextmanager
def drawn_faces(folder: str | None = None) -> Iterator[str]:
    """A folder with a small set of drawn faces, to work in.

    Args:
        folder (str, optional): Where to make it; kept. Defaults to None: a temporary one.

    Yields:
        str: The folder.
    """
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
