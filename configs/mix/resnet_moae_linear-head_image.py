# MoAE in an image classifier of mmpretrain, on its ResNet; images alone.
# MoAEImageClassifier adds the neck's load-balance loss, for which mmpretrain's
# ImageClassifier has no place.
# Full size: leave out the channels of the ResNet; 512 in neck and head.
_base_ = [
    '../_base_/datasets/quickstart_image.py',
    '../_base_/schedules/quickstart_10e.py',
    '../_base_/default_runtime.py',
]
randomness = dict(seed=0)
default_scope = 'mmpretrain'
visualizer = dict(
    _delete_=True, type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')]
)
data_preprocessor = dict(
    num_classes=7, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True
)
model = dict(
    type='MoAEImageClassifier',
    backbone=dict(type='ResNet', depth=18, stem_channels=16, base_channels=16),
    neck=dict(
        type='MoAENeck',
        arch=dict(embed_dims=128, num_layers=1, num_heads=4),
        num_layers=1,
        num_experts=4,
    ),
    head=dict(type='StackedLinearClsHead', num_classes=7, in_channels=128, mid_channels=[64]),
)
