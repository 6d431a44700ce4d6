# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Former places of modules that the pages of 0.2 name: they can be imported for one release."""

import importlib
import sys

# the module, and its former places
FORMER = {
    'models': 'models.backbones models.necks models.heads models.recognizers models.classifiers '
    'models.data_preprocessors models.selfsup',
    'models.tokens': 'models.layers.tubelets models.layers.token_layout',
    'models.encoder': 'models.layers.transformer models.backbones.s4d_vit',
    'models.moae': 'models.layers models.layers.moae models.necks.moae_neck',
    'models.mae': 'models.backbones.s4d_mae_vit models.necks.s4d_mae_decoder '
    'models.heads.s4d_mae_head',
    'models.joint': 'models.heads.dual_modal_head models.recognizers.dual_modal_recognizer',
    'models.mix': 'models.backbones.frame_wise_backbone models.heads.clip_tsn_head '
    'models.classifiers.moae_image_classifier',
    'models.preprocessor': 'models.data_preprocessors.dual_modal_data_preprocessor',
    'models.blending': 'models.data_preprocessors.blending',
    'datasets.expression': 'datasets.expression_dataset',
    'datasets.joint': 'datasets.dual_modal_dataset datasets.samplers datasets.seeding',
    'datasets.public': 'datasets.public_dataset datasets.dfew datasets.ferv39k datasets.mafw '
    'datasets.acted datasets.caer datasets.voxceleb2 datasets.affectnet datasets.ferplus '
    'datasets.rafdb',
    'datasets.transforms': 'datasets.transforms.loading datasets.transforms.crops '
    'datasets.transforms.augment',
    'engine': 'engine.hooks engine.hooks.checkpoint_fit_hook engine.hooks.class_check_hook '
    'engine.hooks.data_check_hook engine.hooks.resume_check_hook engine.hooks.best_and_last_hook '
    'engine.hooks.expert_load_hook engine.hooks.media_fault_hook engine.hooks.run_summary_hook '
    'engine.hooks.hang_hook engine.hooks.non_finite_hook engine.hooks.stop_signal_hook '
    'engine.hooks.safe_checkpoint_hook',
    'engine.loop': 'engine.loops',
    'evaluation': 'evaluation.metrics',
    'evaluation.metric': 'evaluation.metrics.expression_metric',
    'weights': 'converters',
    'weights.io': 'converters.io',
    'weights.s4d': 'converters.s4d',
    'weights.s2d': 'converters.s2d',
    'weights.vit': 'converters.vit',
    'models.state_dict': 'converters.fit',
}


def keep_former_names(table: dict[str, str] = FORMER) -> None:
    """Let the former places of modules stand for them in ``import``."""
    for now, former in table.items():
        module = importlib.import_module(f'{__package__}.{now}')
        for name in former.split():
            sys.modules.setdefault(f'{__package__}.{name}', module)
