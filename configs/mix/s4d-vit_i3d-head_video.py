# S4D's ViT as feature maps (B, C, T, H, W), with mmaction2's I3D head; clips
# alone.
_base_ = [
    '../_base_/models/mix_s4d_video.py',
    '../_base_/datasets/quickstart_video.py',
    '../_base_/schedules/quickstart_10e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(out_type='featmap'),
    cls_head=dict(type='I3DHead', num_classes=7, in_channels=128, average_clips='prob'),
)
