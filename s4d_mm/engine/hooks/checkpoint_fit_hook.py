# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Before training and testing: the checkpoint is one of this model, at least in part."""

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ...converters.authors import as_own_checkpoint
from ...converters.fit import check_fit, match_names
from ...files.errors import WeightsError
from ...files.last_checkpoint import noted
from ..saved_config import changed_settings, saved_config

MOST_CHANGES = 5  # named in a message


@HOOKS.register_module()
class CheckpointFitHook(Hook):
    """Stop a run whose checkpoint fills nothing, and log how much another one fills.

    It stands before ``ClassCheckHook``, which asks for the weights of the head.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare the checkpoint with the model, before it is loaded into it.

        Args:
            runner (Runner): Of a training, a validation or a test.
            checkpoint (dict): What was read. The weights of other code become its ``state_dict``,
                those of the authors under our names.

        Raises:
            WeightsError: If nothing of it fits, a number in it is not finite, or it cannot be
                resumed from, also because it is of another model.
        """
        checkpoint.update(as_own_checkpoint(checkpoint))
        if runner._resume and 'epoch' not in checkpoint.get('meta', {}):
            raise WeightsError(
                'A training is to be resumed, but the checkpoint has weights alone and no state '
                'of a training by s4d_mm (meta.epoch). To start a new training from them, leave '
                '--resume out and give --cfg-options load_from=CHECKPOINT.'
            )
        if runner._resume:
            refuse_other_model(runner, checkpoint)
        check_fit(runner.model, checkpoint, runner.logger, source_of(runner))


def refuse_other_model(runner: Runner, checkpoint: dict) -> None:
    """Refuse to resume the training of another model, of which mmengine would take what fits.

    Args:
        runner (Runner): Of a training.
        checkpoint (dict): What was read.

    Raises:
        WeightsError: If names or shapes differ, with the settings of the model that do.
    """
    model = runner.model
    while is_model_wrapper(model):
        model = model.module
    weights = checkpoint.get('state_dict', checkpoint)
    fit = match_names(
        model.state_dict(), {k.removeprefix('module.'): v for k, v in weights.items()}
    )
    if not (fit.missing or fit.left_over):
        return
    saved = saved_config(checkpoint).get('model')
    changed = list(changed_settings(saved, runner.cfg.get('model'), 'model')) if saved else []
    if changed:
        reason = f'{"; ".join(changed[:MOST_CHANGES])}{" ..." if changed[MOST_CHANGES:] else ""}'
    else:
        keys = [*fit.left_over, *fit.missing]
        reason = f'{len(keys)} of its weights have another name or shape, such as {keys[0]}'
    raise WeightsError(
        f'{source_of(runner)} is the checkpoint of another model: {reason}. A training is resumed '
        'with the model that it was begun with: set those values, or leave --resume out and give '
        '--cfg-options load_from=CHECKPOINT to start a new training from its weights.'
    )


def source_of(runner: Runner) -> str | None:
    """File of the checkpoint that a run begins with, if there is one."""
    if runner._load_from is None and runner._resume:
        return noted(runner.work_dir)
    return runner._load_from
