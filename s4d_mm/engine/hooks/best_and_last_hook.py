# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""After training: the figures of the last epoch and of the best one, apart."""

import json
import os
import os.path as osp
from numbers import Real

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ...evaluation.selection import LAST, name_of_best

FIGURES = ('WAR', 'UAR')


@HOOKS.register_module()
class BestAndLastHook(Hook):
    """Log a table of the last and the best epoch, and write it to ``summary.json``.

    The last epoch is no selection; the best one is chosen by the data that it is measured on
    (:func:`name_of_best`). Both are kept in the message hub, so a resumed training knows the
    best epoch before the interruption.

    The best epoch is the first with the highest value of ``save_best`` of ``CheckpointHook``,
    or of the WAR of videos if that is not set.

    ``summary.json`` in the work directory holds ``chosen_by`` (name of that metric) and, under
    the names of the two, ``epoch`` (from 1), ``checkpoint`` (name of the file, None if the epoch
    has none) and ``metrics`` (percent; None if the epoch was not validated).
    """

    # before CheckpointHook, which saves the message hub again with the best epoch
    priority = 'LOW'

    def __init__(self) -> None:
        self._validated = False

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Keep the figures of an epoch, in a training."""
        metrics = {k: float(v) for k, v in (metrics or {}).items() if isinstance(v, Real)}
        name = next((n for n in names_of_choice(runner) if n in metrics), None)
        if name is None or runner.epoch == 0:  # validation alone
            return
        self._validated = True
        entry = dict(epoch=runner.epoch, chosen_by=name, metrics=metrics)
        hub = runner.message_hub
        hub.update_info('last_validation', entry)
        best = hub.get_info('best_validation')
        # as CheckpointHook: of equal ones the first
        if best is None or metrics[name] > best['metrics'][name]:
            hub.update_info('best_validation', entry)

    def after_train(self, runner: Runner) -> None:
        """Log the table and write the file."""
        best = runner.message_hub.get_info('best_validation')
        path = osp.join(runner.work_dir, 'summary.json')
        # a finished training that was resumed has nothing to add
        if best is None or (osp.isfile(path) and not self._validated):
            return
        last = runner.message_hub.get_info('last_validation')
        if last['epoch'] != runner.epoch:
            last = dict(last, epoch=runner.epoch, metrics=None)
        summary = dict(chosen_by=best['chosen_by'])
        for name, entry, key in (
            (LAST, last, 'last_ckpt'),
            (name_of_best(runner.cfg), best, 'best_ckpt'),
        ):
            checkpoint = runner.message_hub.get_info(key)
            summary[name] = dict(
                epoch=entry['epoch'],
                checkpoint=checkpoint and osp.basename(checkpoint),
                metrics=entry['metrics'],
            )
        runner.logger.info(format_summary(summary))
        if runner.rank == 0:
            with open(f'{path}.part', 'w', encoding='utf-8') as f:
                json.dump(summary, f, indent=1)
            os.replace(f'{path}.part', path)


def names_of_choice(runner: Runner) -> list[str]:
    """Metrics that may choose the best epoch, the first that there is does."""
    hook = (runner.cfg.get('default_hooks') or {}).get('checkpoint') or {}
    chosen = hook.get('save_best')
    # data of one modality have no part before the slash
    return [*([chosen] if isinstance(chosen, str) else []), 'video/WAR', 'WAR']


def format_summary(summary: dict) -> str:
    """The table of the log.

    Args:
        summary (dict): What ``summary.json`` holds.

    Returns:
        str: A line for each of the two, with their epoch, WAR and UAR of each modality, and
        checkpoint.
    """
    entries = {name: e for name, e in summary.items() if isinstance(e, dict)}
    known = {k: None for e in entries.values() for k in e['metrics'] or {}}
    columns = [k for k in known if k.split('/')[-1] in FIGURES and 'recall' not in k]
    rows = [['', 'epoch', *columns, 'checkpoint']]
    for name, entry in entries.items():
        figures = entry['metrics'] or {}
        values = [f'{figures[k]:.2f}' if k in figures else '-' for k in columns]
        rows.append([name, str(entry['epoch']), *values, entry['checkpoint'] or '-'])
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ['  '.join(f'{text:<{w}}' for text, w in zip(row, widths)).rstrip() for row in rows]
    title = f'Results: the last epoch, and the one with the highest {summary["chosen_by"]}'
    return '\n  '.join([title, *lines])
