# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Test a model: the config's test set, from a checkpoint to the metrics.

python tools/test.py configs/quickstart/s4d_quickstart_finetune.py CHECKPOINT
"""

import argparse
import os.path as osp

from mmengine.config import Config
from run_arguments import parse_run_arguments


def parse_args(argv: list | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Test (and eval) a model')
    parser.add_argument('config', help='test config file path')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--dump', help='.pkl file of the predictions; a .json comes beside it')
    args = parse_run_arguments(parser, argv)
    if args.dump is not None and not args.dump.endswith(('.pkl', '.pickle')):
        parser.error(f'--dump {args.dump}: must end in .pkl or .pickle')
    return args


if __name__ == '__main__':
    parse_args()  # -h and mistakes end here, before the slow imports

import s4d_mm.guard  # noqa: F401
from s4d_mm.engine.launch import (
    build_runner,
    errors_as_messages,
    finish_distributed,
    load_run_config,
)
from s4d_mm.engine.options import ConfigError
from s4d_mm.evaluation.predictions import kind_of_checkpoint


def make_config(args: argparse.Namespace) -> Config:
    cfg = load_run_config(args)
    if not cfg.get('test_dataloader'):
        raise ConfigError(f'{args.config} has no test_dataloader; give a config of fine-tuning')
    cfg.load_from = args.checkpoint
    if args.dump is not None:
        evaluators = cfg.test_evaluator
        evaluators = evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]
        # what our tools read, because reading a pickle may run code
        plain = dict(type='PredictionsFile', out_file_path=osp.splitext(args.dump)[0] + '.json')
        dump = dict(type='DumpResults', out_file_path=args.dump)
        cfg.test_evaluator = [*evaluators, dump, plain]
    return cfg


def main(argv: list | None = None) -> None:
    args = parse_args(argv)
    with errors_as_messages(config=True):
        runner = build_runner(make_config(args))
        runner.test_loop  # noqa: B018  builds it
    with errors_as_messages(runner.work_dir):
        runner.test()
    kind = kind_of_checkpoint(args.checkpoint, runner.cfg)
    if kind is not None:
        runner.logger.info(f'These are figures of {args.checkpoint}: {kind}')
    finish_distributed()


if __name__ == '__main__':
    main()
