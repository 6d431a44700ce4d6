# MoAE on mmaction2's VideoMAE ViT; clips and images. Its positions are for
# clips of num_frames, so that an image is repeated to one. With feature maps
# its fc_norm is not used: find_unused_parameters.
_base_ = [
    '../_base_/models/mix_moae_joint.py',
    '../_base_/datasets/quickstart_joint.py',
    '../_base_/schedules/quickstart_10e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(image_frames=4),
    backbone=dict(
        type='VisionTransformer',
        img_size=80,
        num_frames=4,
        embed_dims=128,
        depth=3,
        num_heads=4,
        return_feat_map=True,
    ),
)
find_unused_parameters = True
