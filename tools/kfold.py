# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Train and test each fold of a config, then average, for the last and the best epoch.

    python tools/kfold.py configs/s4d_finetune_dfew.py --folds 1-5 --gpus 2

Repeat the command after an interruption: it goes on where it stopped. See
docs/kfold.md.
"""

import argparse
import csv
import json
import os
import os.path as osp
import re
import signal
import subprocess
import sys

import run_arguments  # noqa: F401  (keeps mmcv-lite quiet)
from mmengine.config import Config, DictAction


def parse_folds(text: str) -> list[int]:
    """``1-5`` or ``1,3,5`` to numbers."""
    folds = []
    for part in text.split(','):
        match = re.fullmatch(r'\s*(\d+)\s*(?:-\s*(\d+)\s*)?', part)
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise argparse.ArgumentTypeError(f'{text!r}: expected folds such as 1-5 or 1,3,5')
        folds += range(int(match[1]), int(match[2] or match[1]) + 1)
    return sorted(set(folds))


def parse_args(argv: list | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description='Train and test each fold of a config, then average.'
    )
    parser.add_argument('config')
    parser.add_argument('--folds', type=parse_folds, default='1-5', help='1-5 or 1,3,5')
    parser.add_argument('--gpus', type=int, default=1, help='processes; the recipe is the same')
    parser.add_argument('--work-dir', help='work_dirs/<config>_kfold if not given')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='as for tools/train.py; for training and testing of all folds',
    )
    args = parser.parse_args(argv)
    if not osp.isfile(args.config):
        parser.error(f'config file {args.config} does not exist')
    if args.gpus < 1:
        parser.error(f'--gpus {args.gpus}: must be 1 or more')
    for option in args.cfg_options:
        if '=' not in option:
            parser.error(f'--cfg-options {option}: expected KEY=VALUE')
    if args.work_dir is None:
        stem = osp.splitext(osp.basename(args.config))[0]
        args.work_dir = osp.join('work_dirs', f'{stem}_kfold')
    return args


if __name__ == '__main__':
    parse_args()  # -h and mistakes end here, before the slow imports

import mmengine
import numpy as np

import s4d_mm.guard  # noqa: F401
from s4d_mm.engine.launch import batch_sampler_of, fold_datasets, load_config
from s4d_mm.engine.options import OptionError
from s4d_mm.engine.saved_config import flat
from s4d_mm.evaluation.functional import classification_report
from s4d_mm.evaluation.metrics.expression_metric import format_matrix
from s4d_mm.evaluation.predictions import (
    class_names_of_test,
    figures_by_modality,
    read_predictions,
)
from s4d_mm.evaluation.selection import LAST, name_of_best
from s4d_mm.files.atomic_write import atomic_write
from s4d_mm.files.last_checkpoint import find_checkpoint

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
METRICS = ('WAR', 'UAR', 'macro_F1', 'weighted_F1')
# settings that may differ between two parts of a run, because results do not depend on them
CHANGEABLE_SETTINGS = ('num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor')


# ------------------------------------------------------------------- settings
def fold_config(args: argparse.Namespace, fold: int) -> Config:
    """The config of a fold, which :func:`s4d_mm.engine.launch.set_fold` chose.

    Args:
        args (argparse.Namespace): Arguments of the tool.
        fold (int): Number of the fold.

    Returns:
        Config: The config.

    Raises:
        ValueError: If the config has no test data, or its files name no fold.
        FileNotFoundError: If an annotation file of the fold does not exist.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    options = parser.parse_args(['--cfg-options', *cfg_options(args, fold)]).cfg_options
    cfg = load_config(args.config, options, also=())
    if not cfg.get('test_dataloader'):
        raise ValueError(f'{args.config} has no test_dataloader. Give a config of fine-tuning.')
    for key, dataset, _ in fold_datasets(cfg):
        path = osp.join(dataset.get('data_root') or '', dataset['ann_file'])
        if not osp.isfile(path):
            raise FileNotFoundError(
                f'{path} ({key}, fold {fold}) does not exist. Check data_root and --folds.'
            )
    return cfg


def cfg_options(args: argparse.Namespace, fold: int) -> list[str]:
    """The ``--cfg-options`` of a fold for ``tools/train.py`` and ``tools/test.py``."""
    return [*args.cfg_options, f'fold={fold}']


def settings_of(args: argparse.Namespace, cfg: Config) -> dict:
    """What the results of a fold depend on.

    Args:
        args (argparse.Namespace): Arguments of the tool.
        cfg (Config): Config of the fold.

    Returns:
        dict: ``config``, and ``gpus`` if the batch of a step depends on it.
    """
    settings = dict(config=cfg.to_dict())
    if batch_sampler_of(cfg).get('total_batch_size') is None:
        settings['gpus'] = args.gpus
    return settings


def check_settings(path: str, settings: dict) -> dict:
    """Write the settings of a fold, or compare them with those it was begun with.

    Args:
        path (str): File of the settings.
        settings (dict): Of :func:`settings_of`.

    Returns:
        dict: What the file says, with ``checkpoints`` after the training.

    Raises:
        ValueError: If the fold was begun with other settings.
    """
    settings = json.loads(json.dumps(settings, default=str))
    if not osp.isfile(path):
        write_json(path, settings)
        return settings
    before = mmengine.load(path)
    old, new = (dict(flat(d['config'], ''), gpus=d.get('gpus')) for d in (before, settings))
    changed = [
        f'{k}: {old.get(k)!r} before, now {new.get(k)!r}'
        for k in sorted({*old, *new})
        if old.get(k) != new.get(k) and k.split('.')[-1] not in CHANGEABLE_SETTINGS
    ]
    if changed:
        raise ValueError(
            f'{osp.dirname(path)} was begun with other settings '
            f'({"; ".join(changed[:5])}{" ..." if changed[5:] else ""}). Use '
            'the same ones, another --work-dir, or delete this folder.'
        )
    return before


def write_json(path: str, content: dict) -> None:
    """Write a file that is whole or not there."""
    atomic_write(path, json.dumps(content, indent=1))


# ------------------------------------------------------------------ subprocess
def launch(tool: str, arguments: list[str], gpus: int) -> int:
    """Run tools/<tool>.py, in several processes if asked.

    Args:
        tool (str): 'train' or 'test'.
        arguments (list[str]): Config, checkpoint (test) and the flags.
        gpus (int): Number of processes.

    Returns:
        int: Exit code.
    """
    env = dict(os.environ)
    env['PYTHONPATH'] = os.pathsep.join(filter(None, (ROOT, env.get('PYTHONPATH'))))
    if gpus > 1:
        place = 1 if tool == 'train' else 2
        command = ['bash', osp.join(ROOT, 'tools', f'dist_{tool}.sh')]
        command += [*arguments[:place], str(gpus), *arguments[place:]]
        env['PATH'] = os.pathsep.join((osp.dirname(sys.executable), env.get('PATH', '')))
    else:
        command = [sys.executable, osp.join(ROOT, 'tools', f'{tool}.py')]
        command += arguments
    process = subprocess.Popen(command, env=env)
    try:
        return process.wait()
    finally:
        if process.poll() is None:  # interrupted
            process.terminate()
            process.wait()


def run_fold(args: argparse.Namespace, fold: int, cfg: Config) -> dict:
    """Train and test a fold, as far as that has not been done.

    Args:
        args (argparse.Namespace): Arguments of the tool.
        fold (int): Number of the fold.
        cfg (Config): Its config.

    Returns:
        dict: ``fold``, and ``checkpoints``: for each kind, :data:`LAST` and
        :func:`name_of_best`, ``file`` and ``modalities``, the figures of
        :func:`figures_by_modality`.

    Raises:
        ValueError: If the fold was begun with other settings.
        RuntimeError: If training or testing fails.
    """
    folder = osp.join(args.work_dir, f'fold_{fold}')
    result_file = osp.join(folder, 'result.json')
    settings_file = osp.join(folder, 'settings.json')
    settings = check_settings(settings_file, settings_of(args, cfg))
    if osp.isfile(result_file):
        print(f'Fold {fold}: done before, {result_file}')
        return mmengine.load(result_file)

    files = settings.get('checkpoints')
    if not files or not all(osp.isfile(osp.join(folder, f)) for f in files.values()):
        files = train_fold(args, fold, folder, name_of_best(cfg))
        write_json(settings_file, dict(settings, checkpoints=files))
    classes = class_names_of_test(cfg)
    checkpoints = {
        kind: dict(
            file=file,
            modalities=figures_by_modality(test_fold(args, fold, folder, kind, file), classes),
        )
        for kind, file in files.items()
    }
    result = dict(fold=fold, checkpoints=checkpoints)
    write_json(result_file, result)
    return result


def train_fold(args: argparse.Namespace, fold: int, folder: str, best: str) -> dict[str, str]:
    """Train a fold, from its newest checkpoint if there is one.

    Args:
        args (argparse.Namespace): Arguments of the tool.
        fold (int): Number of the fold.
        folder (str): Its folder.
        best (str): Name of the best epoch in ``summary.json``.

    Returns:
        dict[str, str]: Names of the files in ``folder``: of the last checkpoint, and of the best
        one if the config keeps it.
    """
    newest = find_checkpoint(folder)
    print(f'Fold {fold}: training{f", resumed from {newest}" if newest else ""}', flush=True)
    arguments = [args.config, '--work-dir', folder]
    arguments += ['--resume', newest] if newest else []
    code = launch('train', [*arguments, '--cfg-options', *cfg_options(args, fold)], args.gpus)
    newest = find_checkpoint(folder)
    if code or not newest:
        raise RuntimeError(
            f'Fold {fold}: training ended with exit code {code}'
            f'{"" if newest else " and left no checkpoint"}. Its log is '
            f'in {folder}. Repeat the command to resume.'
        )
    files = {LAST: osp.basename(newest)}
    summary = osp.join(folder, 'summary.json')  # of BestAndLastHook
    chosen = mmengine.load(summary).get(best) if osp.isfile(summary) else None
    if chosen and chosen['checkpoint']:
        files[best] = chosen['checkpoint']
    return files


def test_fold(
    args: argparse.Namespace, fold: int, folder: str, kind: str, checkpoint: str
) -> list[dict]:
    """Test a checkpoint of a fold.

    Args:
        args (argparse.Namespace): Arguments of the tool.
        fold (int): Number of the fold.
        folder (str): Its folder.
        kind (str): What the checkpoint is: :data:`LAST` or :func:`name_of_best`.
        checkpoint (str): Name of its file in ``folder``.

    Returns:
        list[dict]: The predictions that ``tools/test.py --dump`` saved.
    """
    print(f'Fold {fold}: testing {checkpoint}, {kind}', flush=True)
    part = 'last' if kind == LAST else 'best'
    dump, plain = (osp.join(folder, f'predictions_{part}.{end}') for end in ('pkl', 'json'))
    arguments = [args.config, osp.join(folder, checkpoint)]
    arguments += ['--work-dir', osp.join(folder, f'test_{part}'), '--dump', dump]
    code = launch('test', [*arguments, '--cfg-options', *cfg_options(args, fold)], args.gpus)
    if code or not osp.isfile(plain):
        raise RuntimeError(
            f'Fold {fold}: testing ended with exit code {code}. Repeat the command to test again.'
        )
    return read_predictions(plain)


# --------------------------------------------------------------------- figures
def summarise(parts: list[dict]) -> dict:
    """Mean, standard deviation (n - 1) and pooled figures of folds.

    Args:
        parts (list[dict]): Figures of one modality of each fold, of :func:`figures_by_modality`.

    Returns:
        dict: ``mean``, ``std`` (None for one fold), ``pooled`` (the metrics of all samples
        together), ``classes``, ``samples`` and ``confusion_matrix`` (counts, rows are true
        classes).
    """
    values = {m: [p['metrics'][m] for p in parts] for m in METRICS}
    matrix = np.sum([p['matrix'] for p in parts], axis=0)
    support = np.sum([p['support'] for p in parts], axis=0)
    several = len(parts) > 1
    return dict(
        mean={m: float(np.mean(v)) for m, v in values.items()},
        std={m: float(np.std(v, ddof=1)) if several else None for m, v in values.items()},
        pooled=classification_report(matrix, support),
        classes=parts[0]['classes'],
        samples=int(support.sum()),
        confusion_matrix=matrix.tolist(),
    )


def common_kinds(results: list[dict]) -> list[str]:
    """The checkpoints that every fold has, so that each mean is one of all folds."""
    return [k for k in results[0]['checkpoints'] if all(k in r['checkpoints'] for r in results)]


def report(args: argparse.Namespace, results: list[dict]) -> dict:
    """Print the figures and write them to kfold.json and kfold.csv.

    Args:
        args (argparse.Namespace): Arguments of the tool.
        results (list[dict]): Of :func:`run_fold`.

    Returns:
        dict: What :func:`summarise` gives, by kind of checkpoint and modality.
    """
    folds = [r['fold'] for r in results]
    summary, tables = {}, {}
    for kind in common_kinds(results):
        summary[kind] = {}
        for modality in results[0]['checkpoints'][kind]['modalities']:
            parts = [r['checkpoints'][kind]['modalities'][modality] for r in results]
            own = summary[kind][modality] = summarise(parts)
            tables[kind, modality] = [
                *((fold, part['samples'], part['metrics']) for fold, part in zip(folds, parts)),
                ('mean', '', own['mean']),
                ('std', '', own['std']),
                ('pooled', own['samples'], own['pooled']),
            ]
    write_json(
        osp.join(args.work_dir, 'kfold.json'),
        dict(config=args.config, folds=results, summary=summary),
    )
    with open(osp.join(args.work_dir, 'kfold.csv'), 'w', newline='', encoding='utf-8') as f:
        writer = csv.writer(f)
        writer.writerow(['checkpoint', 'modality', 'fold', 'samples', *METRICS])
        for names, rows in tables.items():
            writer.writerows(
                [*names, name, samples, *(values[m] for m in METRICS)]
                for name, samples, values in rows
            )
        for kind, modality in tables:
            own = summary[kind][modality]
            writer.writerow([])
            writer.writerow([f'{kind}, {modality}, pooled: true class', *own['classes']])
            writer.writerows(
                [name, *row] for name, row in zip(own['classes'], own['confusion_matrix'])
            )
    for (kind, modality), rows in tables.items():
        own = summary[kind][modality]
        print(f'\n{kind}: {modality}, folds {folds}')
        for name, _, values in rows:
            texts = ['-' if values[m] is None else f'{values[m]:.2f}' for m in METRICS]
            numbers = ''.join(f'{m} {v:<8}' for m, v in zip(METRICS, texts))
            print(f'  {name!s:<8}{numbers}')
        print(
            f'Pooled confusion matrix, {own["samples"]} samples (rows: true '
            'class, columns: prediction)\n'
            + format_matrix(np.array(own['confusion_matrix']), own['classes'])
        )
    print(f'\n{osp.join(args.work_dir, "kfold.json")}, kfold.csv')
    return summary


def main(argv: list | None = None) -> dict:
    """Run the tool.

    Returns:
        dict: The summary of :func:`report`.
    """
    args = parse_args(argv)
    try:
        # all folds are checked before the first one is trained
        configs = {fold: fold_config(args, fold) for fold in args.folds}
        results = [run_fold(args, fold, cfg) for fold, cfg in configs.items()]
    except OptionError as e:
        print(f'kfold.py: {e}', file=sys.stderr)
        sys.exit(2)
    except (OSError, ValueError, RuntimeError) as e:
        sys.exit(f'kfold.py: {e}')
    return report(args, results)


if __name__ == '__main__':
    # end the training too, which saves, instead of leaving it alone
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    main()
