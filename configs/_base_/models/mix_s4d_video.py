# For configs/mix, which give out_type and the head: S4D's ViT for clips.
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
    ),
)
