# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""A training that is resumed says what is not as it was."""

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..saved_config import changed_settings, saved_config

MOST = 10  # lines of a message
# what a training depends on, and what of it does not change its results
SECTIONS = ('model', 'optim_wrapper', 'param_scheduler', 'train_cfg', 'train_dataloader')
HARMLESS = ('num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor', '_scope_')


@HOOKS.register_module()
class ResumeCheckHook(Hook):
    """Compare the settings of a resumed training with those in its checkpoint.

    Another learning rate, batch size or model than saved is a warning with both values: the
    optimizer and the schedules go on with those of the checkpoint.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare, before anything is loaded into the model.

        Args:
            runner (Runner): Of a training that is resumed, or of any other run.
            checkpoint (dict): What was read.
        """
        if not runner._resume:
            return
        saved = saved_config(checkpoint)
        lines = [
            line
            for key in SECTIONS
            if key in saved
            for line in changed_settings(saved[key], runner.cfg.get(key), key)
        ]
        changed = [line for line in lines if line.split()[0].split('.')[-1] not in HARMLESS]
        if changed:
            lines = [f'  {line}' for line in changed[:MOST]]
            lines += [f'  and {len(changed) - MOST} more'] if len(changed) > MOST else []
            runner.logger.warning(
                'The settings are not those of the checkpoint. Learning rates and schedules go on '
                'as saved; everything else is as given now:\n' + '\n'.join(lines)
            )
