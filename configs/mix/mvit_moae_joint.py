# MoAE on mmaction2's MViT, which returns pairs of a feature map and a class
# token; clips and images, which become clips of equal frames. Full size:
# arch='small', embed_dims of the neck 768.
_base_ = [
    '../_base_/models/mix_moae_joint.py',
    '../_base_/datasets/quickstart_joint.py',
    '../_base_/schedules/quickstart_10e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(image_frames=4),
    backbone=dict(
        type='MViT',
        arch=dict(embed_dims=32, num_layers=4, num_heads=1, downscale_indices=[1, 3]),
        spatial_size=80,
        temporal_size=4,
    ),
)
