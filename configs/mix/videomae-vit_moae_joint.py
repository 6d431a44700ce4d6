# MoAE on mmaction2's VideoMAE ViT; clips and images. Its positions are for
# clips of num_frames, so that an image is repeated to one. With feature maps
# its fc_norm is not used: find_unused_parameters.
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
        type='VisionTransformer',
        img_size=80,
        num_frames=4,
        embed_dims=128,
        depth=3,
        num_heads=4,
        return_feat_map=True),
    neck=dict(
        type='MoAENeck',
        arch=dict(embed_dims=128, num_layers=1, num_heads=4),
        num_layers=1,
        num_experts=4),
    cls_head=dict(
        type='DualModalHead',
        in_channels=128,
        num_classes=dict(video=7, image=7)))
find_unused_parameters = True
