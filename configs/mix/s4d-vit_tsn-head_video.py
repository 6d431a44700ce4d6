# S4D's ViT as feature maps with TSN's consensus over time; clips alone.
# Recognizer3D does not tell mmaction2's TSNHead how many frames there are,
# ClipTSNHead reads it off the map.
_base_ = [
    '../_base_/models/mix_s4d_video.py',
    '../_base_/datasets/quickstart_video.py',
    '../_base_/schedules/quickstart_10e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(out_type='featmap'),
    cls_head=dict(type='ClipTSNHead', num_classes=7, in_channels=128, average_clips='prob'),
)
