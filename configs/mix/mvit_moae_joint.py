# MoAE on mmaction2's MViT, which returns pairs of a feature map and a class
# token; clips and images, which become clips of equal frames. Full size:
# arch='small', embed_dims of the neck 768.
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
        type='MViT',
        arch=dict(
            embed_dims=32, num_layers=4, num_heads=1, downscale_indices=[1, 3]),
        spatial_size=80,
        temporal_size=4),
    neck=dict(
        type='MoAENeck',
        arch=dict(embed_dims=128, num_layers=1, num_heads=4),
        num_layers=1,
        num_experts=4),
    cls_head=dict(
        type='DualModalHead',
        in_channels=128,
        num_classes=dict(video=7, image=7)))
