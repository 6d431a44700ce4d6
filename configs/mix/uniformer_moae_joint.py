# MoAE on mmaction2's UniFormer; clips and images, which become clips of equal
# frames. Full size: leave out depth, embed_dim and head_dim.
_base_ = [
    '../_base_/models/mix_moae_joint.py',
    '../_base_/datasets/quickstart_joint.py',
    '../_base_/schedules/quickstart_10e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(image_frames=4),
    backbone=dict(
        type='UniFormer',
        depth=[1, 1, 1, 1],
        embed_dim=[32, 64, 96, 128],
        head_dim=32,
        pretrained2d=False,
    ),
)
