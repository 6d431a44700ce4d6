# MoAE on the frames of mmpretrain's ViT, class tokens among the tokens; clips
# and images.
_base_ = [
    '../_base_/models/mix_moae_joint.py',
    '../_base_/datasets/quickstart_joint.py',
    '../_base_/schedules/quickstart_10e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(
        type='FrameWiseBackbone',
        backbone=dict(
            type='mmpretrain.VisionTransformer',
            arch=dict(embed_dims=128, num_layers=3, num_heads=4, feedforward_channels=512),
            img_size=80,
            out_type='raw',
        ),
    )
)
