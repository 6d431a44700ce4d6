# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""How the routers of MoAE share out the tokens: in the log, and a warning of idle experts."""

from typing import Any

import torch
from mmengine.dist import all_gather_object
from mmengine.hooks import Hook, LoggerHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ...models.necks import MoAENeck

# modality, and number of the layer in the encoder
Key = tuple[str, int]


class RouterLoad:
    """Sums over the tokens that a router has seen, by modality, on its device.

    Args:
        router (NoisyTopKRouter): Its output in training is counted.
    """

    def __init__(self, router: nn.Module) -> None:
        self.modality = ''  # of the batch that is trained on; nothing else is counted
        self.sums: dict[str, Tensor] = {}
        self._handle: RemovableHandle = router.register_forward_hook(self._count)

    def remove(self) -> None:
        """Count no more."""
        self._handle.remove()

    def take(self) -> dict[str, list[float]]:
        """The sums since the last call, which waits for the device.

        Returns:
            dict[str, list[float]]: For each modality the tokens that each expert got, the sum of
            the entropies of the router (nats), and the tokens.
        """
        sums, self.sums = self.sums, {}
        return {modality: total.tolist() for modality, total in sums.items()}

    def _count(self, router: nn.Module, args: Any, outputs: tuple[Tensor, Tensor, Tensor]) -> None:
        # a compiled router has no place for sums
        if not (router.training and self.modality) or torch.compiler.is_compiling():
            return
        _, experts_SK, probs_SE = outputs
        with torch.no_grad():
            chosen_SKE = experts_SK[..., None] == torch.arange(
                probs_SE.shape[1], device=probs_SE.device
            )
            entropy = torch.special.entr(probs_SE).sum()
            tokens = torch.full_like(entropy, len(probs_SE))
            step = torch.cat([chosen_SKE.sum((0, 1)).float(), entropy[None], tokens[None]])
            # whole numbers above 2**24 need it
            self.sums[self.modality] = self.sums.get(self.modality, 0) + step.double()


@HOOKS.register_module()
class ExpertLoadHook(Hook):
    """Log the share of each expert and the entropy of the routers, by modality and layer.

    The share is that of the modality's tokens that an expert got, 0..1; the shares of a layer sum
    to ``top_k``. The entropy is that of the softmax over all experts, in nats: 0 if the router
    is certain, ``ln(num_experts)`` if it is even. Layers are counted from 0 in the whole encoder.

    Whenever ``LoggerHook`` logs, all of these go to the visualizer (``scalars.json``, TensorBoard
    ...) as ``moae/video/layer_7/expert_0`` and ``moae/video/layer_7/entropy``: means since the
    last time, over the tokens of the main process. The text has the extremes over the layers,
    ``moae/video/min_share`` and ``max_share``, alone.

    After each epoch, or iteration-based training, an expert under ``min_share`` is a warning;
    here the tokens of all processes count. An epoch that was resumed counts from there.

    A model without :class:`MoAENeck` logs nothing, nor does one that ``compile=True`` compiles.

    Args:
        min_share (float): Share of a modality's tokens under which an expert is idle, 0..1.
            Defaults to 0.01.

    Raises:
        ValueError: If ``min_share`` is not in 0..1.
    """

    def __init__(self, min_share: float = 0.01) -> None:
        if not 0 <= min_share <= 1:
            raise ValueError(f'min_share={min_share!r} of ExpertLoadHook must be in 0..1.')
        self.min_share = min_share
        self._loads: dict[int, RouterLoad] = {}
        self._epoch: dict[Key, list[float]] = {}
        self._logger_hook: LoggerHook | None = None

    def before_train(self, runner: Runner) -> None:
        """Begin to count."""
        self.after_train(runner)
        for neck in runner.model.modules():
            if isinstance(neck, MoAENeck):
                for layer, router in neck.routers().items():
                    self._loads[layer] = RouterLoad(router)
        hooks = [hook for hook in runner.hooks if isinstance(hook, LoggerHook)]
        self._logger_hook = hooks[0] if hooks else None

    def after_train(self, runner: Runner) -> None:
        """End to count."""
        for load in self._loads.values():
            load.remove()
        self._loads, self._epoch = {}, {}

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Note the modality of the batch."""
        modality = modality_of(data_batch)
        for load in self._loads.values():
            load.modality = modality

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Log where ``LoggerHook`` does, which comes after this hook."""
        for load in self._loads.values():
            load.modality = ''
        hook = self._logger_hook
        if not self._loads or hook is None:
            return
        last = self.end_of_epoch(runner.train_dataloader, batch_idx)
        if not last and not self.every_n_inner_iters(batch_idx, hook.interval):
            return
        shares = {}
        for (modality, layer), sums in self._take().items():
            *experts, entropy, tokens = (value / sums[-1] for value in sums)
            for i, share in enumerate(experts):
                shares[f'moae/{modality}/layer_{layer}/expert_{i}'] = share
            shares[f'moae/{modality}/layer_{layer}/entropy'] = entropy
        runner.visualizer.add_scalars(shares, step=runner.iter + 1)
        for modality in {name.split('/')[1] for name in shares}:
            found = [
                share
                for name, share in shares.items()
                if name.startswith(f'moae/{modality}/') and 'expert' in name
            ]
            for name, value in (('min_share', min(found)), ('max_share', max(found))):
                runner.message_hub.update_scalar(f'train/moae/{modality}/{name}', value)

    def after_train_epoch(self, runner: Runner) -> None:
        """Warn of the experts that were idle in this epoch."""
        if not self._loads:
            return
        self._take()
        total: dict[Key, list[float]] = {}
        for part in all_gather_object(self._epoch):
            add_sums(total, part)
        self._epoch = {}
        for (modality, layer), sums in sorted(total.items()):
            *shares, _, _ = (value / sums[-1] for value in sums)
            for i, share in enumerate(shares):
                if share < self.min_share:
                    runner.logger.warning(
                        f'Epoch {runner.epoch + 1}: expert {i} of layer {layer} got '
                        f'{100 * share:.2f}% of the {modality} tokens (of {len(shares)} experts, '
                        f'under {100 * self.min_share:g}%). If it stays so, raise loss_weight of '
                        'MoAENeck.'
                    )

    def _take(self) -> dict[Key, list[float]]:
        """What was counted since the last time; the sums of the epoch get it too."""
        taken = {
            (modality, layer): sums
            for layer, load in self._loads.items()
            for modality, sums in load.take().items()
        }
        add_sums(self._epoch, taken)
        return taken


def add_sums(total: dict[Key, list[float]], part: dict[Key, list[float]]) -> None:
    """Add sums to those of the same modality and layer, in place."""
    for key, sums in part.items():
        total[key] = [a + b for a, b in zip(total.get(key, [0.0] * len(sums)), sums)]


def modality_of(data_batch: Any) -> str:
    """The ``input_type`` of a batch's first sample, or 'all' where there is none."""
    samples = data_batch.get('data_samples') if isinstance(data_batch, dict) else None
    meta = getattr(samples[0], 'metainfo', {}) if samples else {}
    return meta.get('input_type', 'all')
