# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Train and test each fold of a config, then average, for the last and the best epoch.

    python tools/kfold.py configs/s4d_finetune_dfew.py --folds 1-5 --gpus 2

Repeat the command after an interruption: it resumes. See docs/kfold.md.
"""

import argparse
import json
import os
import os.path as osp
import signal
import subprocess
import sys
from pathlib import Path

from mmengine.config import Config, DictAction


def parse_folds(text: str) -> list[int]:
    ranges = [part.split('-') for part in text.split(',')]
    folds = {fold for ends in ranges for fold in range(int(ends[0]), int(ends[-1]) + 1)}
    if not folds:
        raise ValueError('no folds')
    return sorted(folds)


def parse_args(argv: list | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add('config')
    add('--folds', type=parse_folds, default='1-5', help='1-5 or 1,3,5')
    add('--gpus', type=int, default=1, help='processes; the recipe is the same')
    add('--work-dir', help='work_dirs/<config>_kfold if not given')
    add('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='as for tools/train.py')
    args = parser.parse_args(argv)
    if not osp.isfile(args.config):
        parser.error(f'config file {args.config} does not exist')
    args.work_dir = args.work_dir or osp.join('work_dirs', f'{Path(args.config).stem}_kfold')
    return args


if __name__ == '__main__':
    parse_args()  # -h and mistakes end here, before the slow imports

import mmengine
import numpy as np

import s4d_mm.guard  # noqa: F401  whose mmengine.dump writes a file whole or not at all
from s4d_mm.datasets.config import class_names_of_test
from s4d_mm.engine.checkpoint import changed_settings
from s4d_mm.engine.options import ConfigError, fold_datasets, load_config
from s4d_mm.evaluation.predictions import LAST, figures_by_modality, name_of_best, read_predictions
from s4d_mm.files.last_checkpoint import find_checkpoint

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
METRICS = ('WAR', 'UAR', 'macro_F1', 'weighted_F1')


def fold_config(args: argparse.Namespace, fold: int) -> Config:
    parser = argparse.ArgumentParser()
    parser.add_argument('options', nargs='+', action=DictAction)
    options = parser.parse_args([*args.cfg_options, f'fold={fold}']).options
    cfg = load_config(args.config, options, also=())
    if not cfg.get('test_dataloader'):
        raise ValueError(f'{args.config} has no test_dataloader. Give a config of fine-tuning.')
    for key, dataset, _ in fold_datasets(cfg):
        path = osp.join(dataset.get('data_root') or '', dataset['ann_file'])
        if not osp.isfile(path):
            raise FileNotFoundError(f'{path} ({key}, fold {fold}) does not exist')
    return cfg


def check_settings(path: str, args: argparse.Namespace, cfg: Config) -> dict:
    """Write what the results of a fold depend on, or compare it with what it was begun with."""
    batches = (cfg.get('train_dataloader') or {}).get('batch_sampler') or {}
    settings = dict(config=cfg.to_dict())
    if batches.get('total_batch_size') is None:
        settings['gpus'] = args.gpus
    settings = json.loads(json.dumps(settings, default=str))
    before = mmengine.load(path) if osp.isfile(path) else settings
    changed = changed_settings(*(dict(s['config'], gpus=s.get('gpus')) for s in (before, settings)))
    if changed:
        said = f'was begun with other settings ({"; ".join(changed[:5])})'
        raise ValueError(f'{osp.dirname(path)} {said}; delete it or give another --work-dir')
    mmengine.dump(before, path, indent=1)
    return before


def launch(tool: str, arguments: list[str], args: argparse.Namespace, fold: int) -> int:
    path = os.pathsep.join((osp.dirname(sys.executable), os.environ.get('PATH', '')))
    command = [sys.executable, osp.join(ROOT, 'tools', f'{tool}.py'), *arguments]
    if args.gpus > 1:
        arguments.insert(1 if tool == 'train' else 2, str(args.gpus))
        command = ['bash', osp.join(ROOT, 'tools', f'dist_{tool}.sh'), *arguments]
    command += ['--cfg-options', *args.cfg_options, f'fold={fold}']
    process = subprocess.Popen(command, env=dict(os.environ, PATH=path))
    try:
        return process.wait()
    finally:
        process.terminate()  # if it was interrupted
        process.wait()


def run_fold(args: argparse.Namespace, fold: int, cfg: Config) -> dict:
    """Train and test a fold, as far as that has not been done: figures by checkpoint."""
    folder = osp.join(args.work_dir, f'fold_{fold}')
    result_file, settings_file = (osp.join(folder, f'{n}.json') for n in ('result', 'settings'))
    settings = check_settings(settings_file, args, cfg)
    if osp.isfile(result_file):
        print(f'Fold {fold}: done before, {result_file}')
        return mmengine.load(result_file)
    files = settings.get('checkpoints')
    if not files or not all(osp.isfile(osp.join(folder, f)) for f in files.values()):
        files = train_fold(args, fold, folder, name_of_best(cfg))
        mmengine.dump(dict(settings, checkpoints=files), settings_file, indent=1)
    result = dict(fold=fold, checkpoints={})
    for kind, file in files.items():
        print(f'Fold {fold}: testing {file}, {kind}', flush=True)
        part = 'last' if kind == LAST else 'best'
        dump = osp.join(folder, f'predictions_{part}')
        arguments = [args.config, osp.join(folder, file), '--dump', f'{dump}.pkl']
        arguments += ['--work-dir', osp.join(folder, f'test_{part}')]
        code = launch('test', arguments, args, fold)
        if code or not osp.isfile(f'{dump}.json'):
            raise RuntimeError(f'Fold {fold}: testing ended with exit code {code}')
        figures = figures_by_modality(read_predictions(f'{dump}.json'), class_names_of_test(cfg))
        result['checkpoints'][kind] = dict(file=file, modalities=figures)
    mmengine.dump(result, result_file, indent=1)
    return result


def train_fold(args: argparse.Namespace, fold: int, folder: str, best: str) -> dict[str, str]:
    """Train or resume a fold; the names of its last and, if there is one, best checkpoint."""
    newest = find_checkpoint(folder)
    print(f'Fold {fold}: training{f", resumed from {newest}" if newest else ""}', flush=True)
    arguments = [args.config, '--work-dir', folder, *(['--resume', newest] if newest else [])]
    code = launch('train', arguments, args, fold)
    newest = find_checkpoint(folder)
    if code or not newest:
        said = f'training ended with exit code {code}' + ' and left no checkpoint' * (not newest)
        raise RuntimeError(f'Fold {fold}: {said}. Repeat the command to resume.')
    files = {LAST: osp.basename(newest)}
    summary = osp.join(folder, 'summary.json')  # of BestAndLastHook
    chosen = mmengine.load(summary).get(best) if osp.isfile(summary) else None
    if chosen and chosen['checkpoint']:
        files[best] = chosen['checkpoint']
    return files


def summarise(parts: list[dict]) -> dict:
    """Mean of the metrics of folds and, of several folds, the standard deviation (n - 1)."""
    values = {name: [part[name] for part in parts] for name in METRICS}
    own = dict(mean={name: float(np.mean(v)) for name, v in values.items()})
    if len(parts) > 1:
        own['std'] = {name: float(np.std(v, ddof=1)) for name, v in values.items()}
    return own


def report(args: argparse.Namespace, results: list[dict]) -> dict:
    summary = {}
    # the checkpoints that every fold has, so that each mean is one of all folds
    kinds = [k for k in results[0]['checkpoints'] if all(k in r['checkpoints'] for r in results)]
    for kind in kinds:
        figures = [r['checkpoints'][kind]['modalities'] for r in results]
        for modality in figures[0]:
            parts = [of_fold[modality]['metrics'] for of_fold in figures]
            own = summary.setdefault(kind, {})[modality] = summarise(parts)
            print(f'\n{kind}: {modality}')
            for name, values in [*zip(args.folds, parts), *own.items()]:
                print(f'  {name!s:<6}', *(f'{m} {values[m]:<7.2f}' for m in METRICS))
    path = osp.join(args.work_dir, 'kfold.json')
    mmengine.dump(dict(config=args.config, folds=results, summary=summary), path, indent=1)
    print(f'\n{path}')
    return summary


def main(argv: list | None = None) -> dict:
    args = parse_args(argv)
    try:
        # all folds are checked before the first one is trained
        configs = {fold: fold_config(args, fold) for fold in args.folds}
        results = [run_fold(args, fold, cfg) for fold, cfg in configs.items()]
    except (OSError, ValueError, RuntimeError) as e:
        print(f'kfold.py: {e}', file=sys.stderr)
        sys.exit(2 if isinstance(e, ConfigError) else 1)
    return report(args, results)


if __name__ == '__main__':
    # end the training too, which saves, instead of leaving it alone
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    main()
