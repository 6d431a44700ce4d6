# MoAE on mmaction2's Video Swin; clips and images, which become clips of
# equal frames. Full size: arch='tiny', embed_dims of the neck 768.
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
        std=[58.395, 57.12, 57.375],
        image_frames=4),
    backbone=dict(
        type='SwinTransformer3D',
        arch=dict(
            embed_dims=32, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8]),
        window_size=(2, 5, 5),
        pretrained2d=False),
    neck=dict(
        type='MoAENeck',
        arch=dict(embed_dims=256, num_layers=1, num_heads=4),
        num_layers=1,
        num_experts=4),
    cls_head=dict(
        type='DualModalHead',
        in_channels=256,
        num_classes=dict(video=7, image=7)))
