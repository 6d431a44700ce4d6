# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Arguments that ``train.py`` and ``test.py`` share. Needs no torch, so that ``-h`` is quick."""

import warnings
from argparse import ArgumentParser

from mmengine.config import DictAction

# mmcv-lite asks for mmcv when it is imported, which no recipe needs (open-mmlab/mmcv#1975)
warnings.filterwarnings('ignore', message='Fail to import ``MultiScaleDeformableAttention``')


def add_run_arguments(parser: ArgumentParser) -> None:
    """Add the arguments that ``tools/train.py`` and ``tools/test.py`` share.

    Args:
        parser (ArgumentParser): Parser of the tool, with the argument
            ``config``.
    """
    parser.add_argument('--work-dir', help='folder of logs, checkpoints and figures')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change settings of the config file, e.g. fold=3 or '
        'train_dataloader.num_workers=4. A list is key="[a,b]" or key=a,b; it may be nested, '
        'e.g. key="[(a,b),(c,d)]", with quotation marks and without white space. The other '
        'flags win over it',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='what started the processes',
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
