# For configs/mix, which give the backbone: one block with 4 adapter experts and
# a classifier per modality on features of 128 channels.
model = dict(
    type='Recognizer3D',
    data_preprocessor=dict(
        type='DualModalDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
    ),
    neck=dict(
        type='MoAENeck',
        arch=dict(embed_dims=128, num_layers=1, num_heads=4),
        num_layers=1,
        num_experts=4,
    ),
    cls_head=dict(type='DualModalHead', in_channels=128, num_classes=dict(video=7, image=7)),
)
