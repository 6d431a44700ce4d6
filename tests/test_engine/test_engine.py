# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Hooks that check a run before it starts."""

from types import SimpleNamespace

import pytest
from mmengine.registry import MODELS, init_default_scope
from small_models import FINETUNE, PRETRAIN

from s4d_mm.engine import ClassCheckHook


def runner(num_classes, train, val=None, blending=None, input_type=None):

    def loader(classes):
        return SimpleNamespace(
            dataset=SimpleNamespace(metainfo=dict(classes=classes), INPUT_TYPE=input_type)
        )

    return SimpleNamespace(
        model=SimpleNamespace(
            cls_head=SimpleNamespace(num_classes=num_classes),
            data_preprocessor=SimpleNamespace(blending=blending or {}),
        ),
        train_dataloader=loader(train),
        val_loop=None if val is None else object(),
        val_dataloader=loader(val),
    )


def test_class_check():
    hook, seven = ClassCheckHook(), tuple('abcdefg')
    both, data = dict(video=7, image=7), dict(video=seven, image=seven)
    hook.before_train(runner(both, data))
    hook.before_train(runner(both, seven, input_type='video'))
    hook.before_train(runner(7, seven, val=seven))
    with pytest.raises(ValueError, match='train_dataloader has 7 video class'):
        hook.before_train(runner(dict(video=11, image=7), data))
    with pytest.raises(ValueError, match="Add 'image' to model.cls_head.num"):
        hook.before_train(runner(dict(video=7), data))
    with pytest.raises(ValueError, match='7 .* classes'):
        hook.before_train(runner(8, seven))


def test_class_check_sees_validation_data_before_training():
    seven, six = tuple('abcdefg'), tuple('abcdef')
    with pytest.raises(ValueError, match='val_dataloader has 6 '):
        ClassCheckHook().before_train(runner(7, seven, val=six))


def test_class_check_sees_blending():
    init_default_scope('mmaction')
    seven = tuple('abcdefg')
    data = dict(video=seven, image=seven)
    blending = dict(
        image=MODELS.build(
            dict(
                type='RandomBatchAugment',
                augments=[
                    dict(type='MixupBlending', num_classes=7, alpha=0.8),
                    dict(type='CutmixBlending', num_classes=8, alpha=1.0),
                ],
            )
        )
    )
    with pytest.raises(ValueError, match='7 image classes.*blending.image: CutmixBlending.num_cl'):
        ClassCheckHook().before_train(runner(dict(video=7, image=7), data, blending=blending))


def test_packed_views_need_a_head_that_knows_them():
    """mmaction2's heads would average a view with those of another clip."""
    init_default_scope('mmaction')
    seven = tuple('abcdefg')
    for head, fits in (
        (dict(type='TimeSformerHead', num_classes=7, in_channels=16), False),
        (dict(type='DualModalHead', num_classes=dict(video=7), in_channels=16), True),
    ):
        fake = runner(7, seven, input_type='video')
        fake.model = SimpleNamespace(
            cls_head=MODELS.build(head),
            data_preprocessor=SimpleNamespace(pack_views=True, blending={}),
        )
        if fits:
            ClassCheckHook().before_train(fake)
        else:
            with pytest.raises(ValueError, match='pack_views=True needs Dual'):
                ClassCheckHook().before_train(fake)


MIXED = dict(type='DualModalDataPreprocessor', mean=[0.0] * 3, std=[1.0] * 3, mixed=True)
RECOGNIZER = dict(FINETUNE, type='DualModalRecognizer', data_preprocessor=MIXED)
AUTO_ENCODER = dict(PRETRAIN, data_preprocessor=MIXED)


@pytest.mark.parametrize(
    'cfg, message',
    [
        (RECOGNIZER, None),
        ({k: v for k, v in RECOGNIZER.items() if k != 'neck'}, None),
        (AUTO_ENCODER, None),
        (
            dict(RECOGNIZER, type='Recognizer3D'),
            r"mixed=True needs model\.type='DualModalRecognizer' .* is Recognizer3D",
        ),
        (dict(FINETUNE, data_preprocessor=dict(MIXED, mixed=False)), None),
        (
            dict(RECOGNIZER, cls_head=dict(type='TimeSformerHead', num_classes=7, in_channels=32)),
            r"needs model\.cls_head\.type='DualModalHead', but it is TimeSformerH",
        ),
        (
            dict(
                AUTO_ENCODER,
                head=dict(
                    type='mmpretrain.MAEPretrainHead',
                    loss=dict(type='mmpretrain.PixelReconstructionLoss', criterion='L2'),
                ),
            ),
            r"needs model\.head\.type='S4DMAEHead', but it is MAEPretrainHead",
        ),
    ],
)
def test_mixed_batches_need_a_model_that_takes_them(cfg, message):
    init_default_scope('mmaction')
    fake = runner(None, None)
    fake.model = MODELS.build(cfg)
    if message is None:
        ClassCheckHook().before_train(fake)
        return
    with pytest.raises(ValueError, match=message) as error:
        ClassCheckHook().before_train(fake)
    assert "mixed=False there and batching='alternate'" in str(error.value)
    ClassCheckHook().before_val(fake)  # mixes in training only
