# A stand-in of the config: a small ResNet of mmpretrain, frame by frame, with MoAE.
_base_ = [
    './_base_/datasets/quickstart_joint.py',
    './_base_/schedules/quickstart_10e.py',
    './_base_/default_runtime.py',
]
trained_on = 'rendered people only'
randomness = dict(seed=0)
model = dict(
    type='Recognizer3D',
    data_preprocessor=dict(
        type='DualModalDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
    ),
    backbone=dict(
        type='FrameWiseBackbone',
        backbone=dict(type='mmpretrain.ResNet', depth=18, base_channels=32),
    ),
    neck=dict(
        type='MoAENeck',
        arch=dict(embed_dims=256, num_layers=1, num_heads=4),
        num_layers=1,
        num_experts=4,
    ),
    cls_head=dict(type='DualModalHead', in_channels=256, num_classes=dict(video=7, image=7)),
)
