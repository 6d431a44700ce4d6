# MoAE on the frames of mmpretrain's ViT, class tokens among the tokens; clips
# and images.
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
            type='mmpretrain.VisionTransformer',
            arch=dict(
                embed_dims=128,
                num_layers=3,
                num_heads=4,
                feedforward_channels=512),
            img_size=80,
            out_type='raw')),
    neck=dict(
        type='MoAENeck',
        arch=dict(embed_dims=128, num_layers=1, num_heads=4),
        num_layers=1,
        num_experts=4),
    cls_head=dict(
        type='DualModalHead',
        in_channels=128,
        num_classes=dict(video=7, image=7)))
