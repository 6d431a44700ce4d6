# MoAE on the frames of mmpretrain's ResNet; clips and images. Full size:
# leave out the channels of the ResNet; 512 in neck and head.
_base_ = [
    '../_base_/models/mix_moae_joint.py',
    '../_base_/datasets/quickstart_joint.py',
    '../_base_/schedules/quickstart_10e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(
        type='FrameWiseBackbone',
        backbone=dict(type='mmpretrain.ResNet', depth=18, stem_channels=16, base_channels=16),
    )
)
