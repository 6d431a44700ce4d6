# MoAE on mmaction2's Video Swin; clips and images, which become clips of
# equal frames. Full size: arch='tiny', embed_dims of the neck 768.
_base_ = [
    '../_base_/models/mix_moae_joint.py',
    '../_base_/datasets/quickstart_joint.py',
    '../_base_/schedules/quickstart_10e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(image_frames=4),
    backbone=dict(
        type='SwinTransformer3D',
        arch=dict(embed_dims=32, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8]),
        window_size=(2, 5, 5),
        pretrained2d=False,
    ),
    neck=dict(arch=dict(embed_dims=256)),
    cls_head=dict(in_channels=256),
)
