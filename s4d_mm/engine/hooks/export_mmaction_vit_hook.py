# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""After training: the encoder as weights of mmaction2's VisionTransformer."""

import os.path as osp

from mmengine._strategy import DeepSpeedStrategy, FSDPStrategy
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner

from ...converters.io import save_checkpoint
from ...converters.vit import to_mmaction_vit
from ...models import S4DViT
from ...version import __version__


@HOOKS.register_module()
class ExportMMActionViTHook(Hook):
    """Write ``mmaction_vit_epoch_{n}.pth`` (or ``_iter_{n}``) into the work
    directory, with the encoder's weights under the names of mmaction2's
    ``VisionTransformer``, so that ``load_from`` of its VideoMAE configs takes
    it. As in VideoMAE, the norm after the last block is left out: fine-tuning
    averages the tokens before its norm. For other checkpoints of the run:
    ``tools/model_converters/s4d_to_mmaction.py``.

    Raises:
        ValueError: Before training, if the model's backbone is no
            :class:`S4DViT` of the arch's whole depth, or the model is sharded.
    """

    def before_train(self, runner: Runner) -> None:
        """Check the model, so that a wrong one shows before the work."""
        strategy = getattr(runner, 'strategy', None)
        if isinstance(strategy, (FSDPStrategy, DeepSpeedStrategy)):
            raise ValueError(
                f'ExportMMActionViTHook cannot be used with '
                f'{type(strategy).__name__}, which keeps the model in shards. '
                'Remove the hook from custom_hooks and run tools/'
                'model_converters/s4d_to_mmaction.py after training.'
            )
        backbone = self._model(runner).backbone
        if not isinstance(backbone, S4DViT) or len(backbone.blocks) < backbone.arch['num_layers']:
            raise ValueError(
                'ExportMMActionViTHook needs a model with a whole S4DViT or '
                f'S4DMAEViT as backbone, but got {type(backbone).__name__}. '
                'Remove the hook from custom_hooks.'
            )

    @master_only
    def after_train(self, runner: Runner) -> None:
        """Write the file."""
        model = self._model(runner)
        backbone = model.backbone
        slots = len(backbone.pos_embed) // (backbone.pos_grid[0] * backbone.pos_grid[1])
        converted = to_mmaction_vit(
            {name: value.detach().cpu() for name, value in model.state_dict().items()},
            backbone.pos_grid[0] * backbone.patch_embed.patch_size,
            slots * backbone.patch_embed.tubelet_size,
        )
        name = (
            f'epoch_{runner.epoch}'
            if isinstance(runner.train_loop, EpochBasedTrainLoop)
            else f'iter_{runner.iter}'
        )
        path = osp.join(runner.work_dir, f'mmaction_vit_{name}.pth')
        save_checkpoint(
            dict(state_dict=converted.weights, meta=dict(s4d_mm_version=__version__)), path
        )
        runner.logger.info(
            f'The encoder for mmaction2 is saved to {path}: {"; ".join(converted.notes)}.'
        )

    @staticmethod
    def _model(runner: Runner):
        model = runner.model
        return model.module if is_model_wrapper(model) else model
