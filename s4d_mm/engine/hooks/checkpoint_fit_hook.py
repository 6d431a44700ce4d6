# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Before training and testing: the checkpoint is one of this model, at least in part."""

from typing import Optional

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner, find_latest_checkpoint
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP

from ...converters.errors import WeightsError
from ...converters.fit import Fit, check_fit
from ..resume import changed_settings


@HOOKS.register_module()
class CheckpointFitHook(Hook):
    """Stop a run whose checkpoint fills nothing, and log how much another one fills.

    It stands before ``ClassCheckHook``, which asks for the weights of the head.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare the checkpoint with the model, before it is loaded into it.

        Args:
            runner (Runner): Of a training, a validation or a test.
            checkpoint (dict): What was read.

        Raises:
            WeightsError: If nothing of it fits, a number in it is not finite, or it cannot be
                resumed from: it has weights alone, or is of another model.
        """
        if runner._resume and 'epoch' not in checkpoint.get('meta', {}):
            raise WeightsError(
                'A training is to be resumed, but the checkpoint has weights alone and no state '
                'of a training by s4d_mm (meta.epoch). To start a new training from them, leave '
                '--resume out and give --cfg-options load_from=CHECKPOINT.'
            )
        # in shards nothing can be compared: S4DFSDPStrategy reports what FSDP found
        if not isinstance(runner.model, FSDP):
            fit = check_fit(runner.model, checkpoint, runner.logger, source_of(runner))
            if runner._resume and (fit.missing or fit.left_over):
                raise WeightsError(other_model(fit, checkpoint, runner))


def other_model(fit: Fit, checkpoint: dict, runner: Runner) -> str:
    """Why a training cannot be resumed from the checkpoint of another model, for a message."""
    changed = changed_settings(checkpoint['meta'].get('cfg') or '', runner.cfg.pretty_text)
    changed = [line for line in changed if line.startswith('model.')][:5]
    return (
        f'--resume: the checkpoint is of another model, to which the state of the optimizer '
        f'belongs: {len(fit.missing)} tensors of this one have no place in it, and '
        f'{len(fit.left_over)} of it none in this one, such as '
        f'{(fit.missing or fit.left_over)[0]} ({"; ".join(changed) or "no setting of it changed"}).'
        ' Give the settings that it was trained with, or begin a new training by --cfg-options '
        'load_from=CHECKPOINT.'
    )


def source_of(runner: Runner) -> Optional[str]:
    """File of the checkpoint that a run begins with, as mmengine finds it, if there is one."""
    if runner._load_from is None and runner._resume:
        return find_latest_checkpoint(runner.work_dir)
    return runner._load_from
