# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Before training and testing: the checkpoint is one of this model, at least in part."""

from typing import Optional

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner, find_latest_checkpoint
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP

from ...converters.errors import WeightsError
from ...converters.fit import check_fit


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
                resumed from.
        """
        if runner._resume and 'epoch' not in checkpoint.get('meta', {}):
            raise WeightsError(
                'A training is to be resumed, but the checkpoint has weights alone and no state '
                'of a training by s4d_mm (meta.epoch). To start a new training from them, leave '
                '--resume out and give --cfg-options load_from=CHECKPOINT.'
            )
        # in shards nothing can be compared: S4DFSDPStrategy reports what FSDP found
        if not isinstance(runner.model, FSDP):
            check_fit(runner.model, checkpoint, runner.logger, source_of(runner))


def source_of(runner: Runner) -> Optional[str]:
    """File of the checkpoint that a run begins with, as mmengine finds it, if there is one."""
    if runner._load_from is None and runner._resume:
        return find_latest_checkpoint(runner.work_dir)
    return runner._load_from
