# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Run a command for long; write memory and open files of its processes into a CSV (Linux).

python benchmarks/soak.py --minutes 60 soak.csv python tools/train.py CONFIG --work-dir DIR
"""

import argparse
import csv
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

COLUMNS = ('seconds', 'main_rss', 'main_anonymous', 'main_files', 'main_threads')
COLUMNS += ('workers', 'workers_pss', 'workers_files')


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command until it ends or the minutes are over."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('out', help='CSV file; memory is in MiB')
    parser.add_argument('--minutes', type=float, default=60.0)
    parser.add_argument('--every', type=float, default=10.0, help='seconds; default: 10')
    parser.add_argument('command', nargs=argparse.REMAINDER)
    args = parser.parse_args(argv)
    start = time.monotonic()
    process = subprocess.Popen(args.command)
    try:
        with open(args.out, 'w', newline='', encoding='utf-8', buffering=1) as f:
            writer = csv.writer(f)
            writer.writerow(COLUMNS)
            while time.monotonic() - start < 60 * args.minutes and process.poll() is None:
                row = sample(process.pid)
                if row is not None:
                    writer.writerow([round(time.monotonic() - start), *row])
                time.sleep(args.every)
    finally:
        process.terminate()
        process.wait()


def sample(pid: int) -> list | None:
    """What a process and its descendants take now.

    Args:
        pid (int): The process.

    Returns:
        list | None: The values of :data:`COLUMNS` after the first; None if the process ended
        meanwhile. A process that ended counts nothing.
    """
    try:
        status, files = read_fields(pid, 'status'), open_files(pid)
        row = [status['VmRSS'] / 1024, status['RssAnon'] / 1024, files, int(status['Threads'])]
    except (OSError, KeyError):
        return None
    number, pss, files = 0, 0.0, 0
    for worker in descendants(pid):
        try:
            shared = read_fields(worker, 'smaps_rollup')['Pss'] / 1024
            files += open_files(worker)
        except (OSError, KeyError):
            continue
        number, pss = number + 1, pss + shared
    return [*row, number, pss, files]


def read_fields(pid: int, name: str) -> dict[str, float]:
    """The numbers of a file of ``/proc/PID`` with a ``name: number`` a line."""
    pairs = (line.split(':', 1) for line in Path(f'/proc/{pid}/{name}').read_text().splitlines())
    pairs = ((pair[0], pair[1].split()) for pair in pairs if len(pair) == 2)
    return {key: float(words[0]) for key, words in pairs if words and words[0].isdigit()}


def open_files(pid: int) -> int:
    """Number of open files of a process."""
    return len(list(Path(f'/proc/{pid}/fd').iterdir()))


def descendants(pid: int) -> list[int]:
    """Children of a process, and theirs."""
    found = []
    for task in Path(f'/proc/{pid}/task').glob('*/children'):
        try:
            children = [int(child) for child in task.read_text().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *descendants(child)]
    return found


if __name__ == '__main__':
    main()
