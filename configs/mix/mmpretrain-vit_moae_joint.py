# MoAE on an image backbone of mmpretrain, a ViT, which sees the frames of a
# clip one by one; clips and images together. MoAE gets the tokens of all
# frames, class tokens among them.
# Full size: arch='b', img_size=160; 768 in neck and head.
_base_ = [
    '../_base_/datasets/quickstart_joint.py',
    '../_base_/schedules/quickstart_10e.py',
    '../_base_/default_runtime.py',
]
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
        backbone=dict(
            type='mmpretrain.VisionTransformer',
            arch=dict(embed_dims=128, num_layers=3, num_heads=4, feedforward_channels=512),
            img_size=80,
            out_type='raw',
        ),
    ),
    neck=dict(
        type='MoAENeck',
        arch=dict(embed_dims=128, num_layers=1, num_heads=4),
        num_layers=1,
        num_experts=4,
    ),
    cls_head=dict(type='DualModalHead', in_channels=128, num_classes=dict(video=7, image=7)),
)
