# MoAE on the frames of mmpretrain's ResNet; clips and images. Full size:
# leave out the channels of the ResNet; 512 in neck and head.
_base_ = [
    '../_base_/datasets/quickstart_joint.py',
    '../_base_/schedules/quickstart_10e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    type='Recognizer3D',
    data_preprocessor=dict(
        type='DualModalDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],),
    backbone=dict(
        type='FrameWiseBackbone',
        backbone=dict(
            type='mmpretrain.ResNet',
            depth=18,
            stem_channels=16,
            base_channels=16)),
    neck=dict(
        type='MoAENeck',
        arch=dict(embed_dims=128, num_layers=1, num_heads=4),
        num_layers=1,
        num_experts=4),
    cls_head=dict(
        type='DualModalHead',
        in_channels=128,
        num_classes=dict(video=7, image=7)))
