# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What a run reports: a table of what was chosen, idle experts, unreadable files, best and last."""

import csv
import functools
import json
import os.path as osp
from numbers import Real
from typing import Any

import torch
from mmengine import dist
from mmengine.device import get_device
from mmengine.hooks import Hook, LoggerHook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..datasets.faults import datasets_with_faults
from ..evaluation.predictions import LAST, name_of_best
from ..files.atomic_write import atomic_write
from ..files.text import safe_cell
from ..models import MoAENeck, Routing
from ..version import __version__

FIGURES = ('WAR', 'UAR')


@HOOKS.register_module()
class RunSummaryHook(Hook):
    """Log device, processes, model, optimizer and data, once, at the start of a training."""

    priority = 'VERY_LOW'

    def before_train(self, runner: Runner) -> None:
        """Log the table."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        millions = sum(p.numel() for p in model.parameters()) / 1e6
        rates = [rate for rates in runner.optim_wrapper.get_lr().values() for rate in rates]
        loader = runner.train_dataloader
        rows = {
            's4d_mm': f'{__version__}, torch {torch.__version__}',
            'device': f'{get_device()}, {torch.get_num_threads()} threads',
            'processes': f'{runner.world_size}, backend {dist.get_backend() or "none"}',
            'log file': f'{runner.logger.log_file}, which also has what is not shown here',
            'model': f'{type(model).__name__}, {millions:.2f}M parameters',
            'optimizer': f'{len(rates)} groups, learning rate {min(rates):.3g} .. {max(rates):.3g}',
            'train data': f'{len(loader.dataset)} samples, {len(loader)} batches of a process',
            'length': f'{runner.max_epochs} epochs, {runner.max_iters} iterations',
        }
        table = '\n'.join(f'  {name:<10}  {text}' for name, text in rows.items())
        runner.logger.info(f'Run summary\n{table}')


@HOOKS.register_module()
class ExpertLoadHook(Hook):
    """Log the share of each expert and the entropy of the routers, by modality and layer.

    The share is that of the modality's tokens that an expert got; the shares of a layer sum to
    ``top_k``. The entropy is that of the softmax over all experts, in nats. Layers are counted
    from 0 in the whole encoder. Whenever ``LoggerHook`` logs, they go to the visualizer
    (``scalars.json``, TensorBoard ...) as ``moae/video/layer_7/expert_0`` and
    ``moae/video/layer_7/entropy``: means since the last time, over the tokens of the main process.
    The text has ``moae/video/min_share`` and ``max_share`` alone. After each epoch an expert
    under ``min_share`` is a warning. A compiled model logs nothing.

    Args:
        min_share (float): Share of a modality's tokens under which an expert is idle, 0..1.
            Defaults to 0.01.
    """

    def __init__(self, min_share: float = 0.01) -> None:
        self.min_share = min_share
        self._modality = ''  # of the batch that is trained on; nothing else is counted
        # by modality and layer: tokens of each expert, sum of entropies, tokens
        self._sums: dict[tuple[str, int], Tensor] = {}
        self._epoch: dict[tuple[str, int], Tensor] = {}

    def before_train(self, runner: Runner) -> None:
        """Begin to count."""
        for neck in runner.model.modules():
            if isinstance(neck, MoAENeck):
                for layer, router in neck.routers().items():
                    router.register_forward_hook(functools.partial(self._count, layer))
        hooks = [hook for hook in runner.hooks if isinstance(hook, LoggerHook)]
        self._interval = hooks[0].interval if hooks else 1

    def _count(self, layer: int, router: nn.Module, args: Any, outputs: Routing) -> None:
        # a compiled router has no place for sums
        if not (router.training and self._modality) or torch.compiler.is_compiling():
            return
        probs_SE = outputs.probs
        if probs_SE is None:  # a router of one's own
            return
        with torch.no_grad():
            ids_E = torch.arange(probs_SE.shape[1], device=probs_SE.device)
            tokens_E = (outputs.experts[..., None] == ids_E).sum((0, 1)).float()
            entropy = torch.special.entr(probs_SE).sum()[None]
            step = torch.cat([tokens_E, entropy, torch.full_like(entropy, len(probs_SE))])
            key = (self._modality, layer)
            # whole numbers above 2**24 need it
            self._sums[key] = self._sums.get(key, 0) + step.double()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Note the modality of the batch: ``input_type`` of its first sample."""
        samples = data_batch.get('data_samples') if isinstance(data_batch, dict) else None
        meta = getattr(samples[0], 'metainfo', {}) if samples else {}
        self._modality = meta.get('input_type', 'all')

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Log where ``LoggerHook`` does, which comes after this hook."""
        self._modality = ''
        last = self.end_of_epoch(runner.train_dataloader, batch_idx)
        if not self._sums or not (last or self.every_n_inner_iters(batch_idx, self._interval)):
            return
        found, shares = {}, {}
        taken, self._sums = self._sums, {}
        for (modality, layer), sums in taken.items():
            key, sums = (modality, layer), sums.cpu()
            self._epoch[key] = self._epoch.get(key, 0) + sums
            *experts, entropy = (sums[:-1] / sums[-1]).tolist()
            name = f'moae/{modality}/layer_{layer}'
            found |= {f'{name}/expert_{i}': share for i, share in enumerate(experts)}
            found[f'{name}/entropy'] = entropy
            shares.setdefault(modality, []).extend(experts)
        runner.visualizer.add_scalars(found, step=runner.iter + 1)
        for modality, values in shares.items():
            for name, value in (('min_share', min(values)), ('max_share', max(values))):
                runner.message_hub.update_scalar(f'train/moae/{modality}/{name}', value)

    def after_train_epoch(self, runner: Runner) -> None:
        """Warn of the experts that were idle in this epoch."""
        for (modality, layer), sums in sorted(self._epoch.items()):
            for i, share in enumerate((sums[:-2] / sums[-1]).tolist()):
                if share < self.min_share:
                    runner.logger.warning(
                        f'Epoch {runner.epoch + 1}: expert {i} of layer {layer} got '
                        f'{100 * share:.2f}% of the {modality} tokens (of {len(sums) - 2} experts, '
                        f'under {100 * self.min_share:g}%). MoAENeck.loss_weight may be too low.'
                    )
        self._epoch = {}


@HOOKS.register_module()
class MediaFaultHook(Hook):
    """Count the unreadable samples of all processes in the log, and list them.

    ``unreadable.csv`` in the work directory has ``ann_file``, ``sample_id`` and ``path``. The sum
    over the processes is compared with ``max_fault_share`` of the datasets.
    """

    def __init__(self) -> None:
        self._reported: Any = None

    def after_train_epoch(self, runner: Runner) -> None:
        """Report the training data."""
        self._report(runner, runner.train_dataloader.dataset)

    def after_test_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Report the test data."""
        self._report(runner, runner.test_dataloader.dataset)

    def _report(self, runner: Runner, dataset: Dataset) -> None:
        datasets = list(datasets_with_faults(dataset))
        for part in datasets:
            # of a copy, as the marks themselves lie in the workers' shared memory
            marks = part.faults.marks.clone()
            dist.all_reduce(marks, op='max')
            part.faults.marks.copy_(marks)
        found = [(part, part.faults.indices()) for part in datasets]
        if found == self._reported or not any(indices for _, indices in found):
            return
        self._reported = found
        path = osp.join(runner.work_dir, 'unreadable.csv')
        rows = [('ann_file', 'sample_id', 'path')]
        for part, indices in found:
            runner.logger.warning(
                f'{len(indices)} of {len(part)} {part.INPUT_TYPE} '
                f'samples of {part.ann_file} are unreadable, see {path}'
            )
            infos = map(part.get_data_info, indices)
            rows += [(part.ann_file, info['sample_id'], info['filename']) for info in infos]
        if runner.rank == 0:
            with open(path, 'w', newline='', encoding='utf-8') as f:
                csv.writer(f).writerows([safe_cell(cell) for cell in row] for row in rows)
        for part in datasets:
            if not part.test_mode:
                part.check_faults()


@HOOKS.register_module()
class BestAndLastHook(Hook):
    """Log a table of the last and the best epoch, and write it to ``summary.json``.

    The best epoch is the first with the highest value of ``save_best`` of ``CheckpointHook``, or
    of the WAR of videos if that is not set. ``summary.json`` in the work directory holds
    ``chosen_by`` (name of that metric) and, under ``last`` and :func:`name_of_best`, ``epoch``
    (from 1), ``checkpoint`` (name of the file, None if the epoch has none) and ``metrics``
    (percent; None if the epoch was not validated).
    """

    # before CheckpointHook, which saves the message hub again with the best epoch
    priority = 'LOW'

    def __init__(self) -> None:
        self._validated = False

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Keep the figures of an epoch, in a training."""
        metrics = {k: float(v) for k, v in (metrics or {}).items() if isinstance(v, Real)}
        hook = (runner.cfg.get('default_hooks') or {}).get('checkpoint') or {}
        # data of one modality have no part before the slash
        names = (hook.get('save_best'), 'video/WAR', 'WAR')
        name = next((n for n in names if isinstance(n, str) and n in metrics), None)
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
        hub, path = runner.message_hub, osp.join(runner.work_dir, 'summary.json')
        best = hub.get_info('best_validation')
        # a finished training that was resumed has nothing to add
        if best is None or (osp.isfile(path) and not self._validated):
            return
        last = hub.get_info('last_validation')
        if last['epoch'] != runner.epoch:
            last = dict(last, epoch=runner.epoch, metrics=None)
        summary = dict(chosen_by=best['chosen_by'])
        lines = [f'Results: the last epoch, and the one with the highest {best["chosen_by"]}']
        kinds = (LAST, last, 'last_ckpt'), (name_of_best(runner.cfg), best, 'best_ckpt')
        for name, entry, key in kinds:
            file, figures = hub.get_info(key), entry['metrics']
            file = file and osp.basename(file)
            summary[name] = dict(epoch=entry['epoch'], checkpoint=file, metrics=figures)
            shown = [k for k in figures or {} if k.split('/')[-1] in FIGURES and 'recall' not in k]
            texts = [f'epoch {entry["epoch"]}', *(f'{k} {figures[k]:.2f}' for k in shown)]
            lines.append(f'  {name}: {", ".join(texts)}, {file}')
        runner.logger.info('\n'.join(lines))
        if runner.rank == 0:
            atomic_write(path, json.dumps(summary, indent=1))
