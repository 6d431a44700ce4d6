# S4D's ViT, pooled, with mmaction2's head for ViTs; clips alone.
_base_ = [
    '../_base_/models/mix_s4d_video.py',
    '../_base_/datasets/quickstart_video.py',
    '../_base_/schedules/quickstart_10e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(out_type='avg'),
    cls_head=dict(type='TimeSformerHead', num_classes=7, in_channels=128, average_clips='prob'),
)
