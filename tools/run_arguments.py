# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Arguments that ``train.py`` and ``test.py`` share. Needs no torch, so that ``-h`` is quick."""

import os.path as osp
from argparse import ArgumentParser, Namespace

from mmengine.config import DictAction


def parse_run_arguments(
    parser: ArgumentParser, argv: list | None, checkpoint: str = 'checkpoint'
) -> Namespace:
    """Add the arguments that the tools share, parse, and look for the config and a checkpoint."""
    parser.add_argument('--work-dir', help='folder of logs, checkpoints and figures')
    said = 'settings of the config, e.g. fold=3; a list is KEY=a,b without white space'
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help=said
    )
    launchers = ['none', 'pytorch', 'slurm', 'mpi']
    parser.add_argument('--launcher', choices=launchers, default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args(argv)
    if not osp.isfile(args.config):
        parser.error(f'config file {args.config} does not exist')
    path = getattr(args, checkpoint)
    if path not in (None, 'auto'):
        from s4d_mm.files.download import may_exist

        if not may_exist(path):
            parser.error(f'checkpoint {path} does not exist')
    return args
