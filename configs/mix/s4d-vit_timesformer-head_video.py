# S4D's ViT, pooled, with mmaction2's head for ViTs; clips alone.
# Full size: arch='base' and no sizes; 768 in the head.
_base_ = [
    '../_base_/datasets/quickstart_video.py',
    '../_base_/schedules/quickstart_10e.py',
    '../_base_/default_runtime.py',
]
randomness = dict(seed=0)
model = dict(
    type='Recognizer3D',
    data_preprocessor=dict(
        type='ActionDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        format_shape='NCTHW',
    ),
    backbone=dict(
        type='S4DViT',
        arch=dict(embed_dims=128, num_layers=4, num_heads=4),
        img_size=80,
        num_frames=4,
        out_type='avg',
    ),
    cls_head=dict(type='TimeSformerHead', num_classes=7, in_channels=128, average_clips='prob'),
)
