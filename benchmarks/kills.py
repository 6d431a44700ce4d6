# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Kill a training at random moments while it saves, and look at what is left each time.

    python benchmarks/kills.py --kills 20

The training does little but save after each step, one checkpoint of ``--size`` at a time
(``max_keep_ckpts=1``), and is resumed after each SIGKILL. A kill counts as one while a file was
being written if a ``.part`` is left.
"""

import argparse
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

# the script runs from anywhere; the training is one of the tests' files
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(1, str(Path(__file__).resolve().parents[1] / 'tests'))

import tools.run_arguments  # noqa: F401, I001  (keeps mmcv-lite quiet, so before the others)
from tiny_training import Training, config, train

from s4d_mm.files.last_checkpoint import check_whole, find_checkpoint


def main() -> None:
    """Kill, look, resume; a line for each kill, then the sum."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--kills', type=int, default=20)
    parser.add_argument('--size', type=int, default=80, help='MB of a checkpoint; default: 80')
    parser.add_argument('--longest', type=float, default=2.0, help='seconds until a kill, at most')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    draw = random.Random(args.seed)
    folder = Path(tempfile.mkdtemp())
    work = folder / 'run'
    width = args.size * 10**6 // 8  # weights and momentum

    counts = dict(kills=0, writing=0, torn=0, no_checkpoint=0)
    for i in range(args.kills):
        found = find_checkpoint(str(work))
        cfg = config(work, width=width, epochs=10**6, save=dict(max_keep_ckpts=1))
        cfg.resume = found is not None
        cfg.train_dataloader.dataset.size = 1
        run = Training(lambda cfg=cfg: train(cfg), folder)
        # with nothing to resume from, the first checkpoint is there after the second step
        run.wait_for(f'step {2 if found is None else number_of(found) + 1}')
        time.sleep(draw.uniform(0, args.longest))
        run.signal(signal.SIGKILL)
        run.end()
        parts = list(work.glob('*.part'))
        torn = [path.name for path in work.glob('*.pth') if not is_whole(path)]
        counts['kills'] += 1
        counts['writing'] += bool(parts)
        counts['torn'] += bool(torn)
        counts['no_checkpoint'] += find_checkpoint(str(work)) is None
        files = sorted(path.name for path in work.iterdir() if path.is_file())
        print(
            i + 1, [name for name in files if not name.endswith('.py')], 'torn:', torn, flush=True
        )
    print(counts)
    sys.exit(bool(counts['torn'] or counts['no_checkpoint']))


def number_of(path: str) -> int:
    """The number in the name of an ``epoch_<n>.pth``."""
    return int(Path(path).stem.split('_')[1])


def is_whole(path: Path) -> bool:
    """Whether all of a checkpoint can be read."""
    try:
        check_whole(str(path))
    except ValueError:
        return False
    return True


if __name__ == '__main__':
    main()
