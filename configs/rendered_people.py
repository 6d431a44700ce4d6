# A small model for real faces that has seen rendered people only; images and clips together:
#   RENDERED_DIR=data/rendered_people tools/dist_train.sh configs/rendered_people.py 2
_base_ = ['./_base_/datasets/rendered_people.py', './_base_/default_runtime.py']
channels = 256
model = dict(
    type='Recognizer3D',
    data_preprocessor=dict(
        type='DualModalDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
    ),
    backbone=dict(
        type='FrameWiseBackbone',
        backbone=dict(
            type='mmpretrain.ResNet',
            depth=18,
            stem_channels=32,
            base_channels=32,
            zero_init_residual=False,
        ),
    ),
    neck=dict(
        type='MoAENeck',
        arch=dict(embed_dims=channels, num_layers=1, num_heads=4),
        num_layers=1,
        num_experts=4,
    ),
    cls_head=dict(
        type='DualModalHead',
        in_channels=channels,
        num_classes=dict(video=7, image=7),
        with_norm=False,
        label_smooth_eps=0.05,
        dropout_ratio=0.2,
    ),
)
max_epochs = 9
base_lr = 1e-3
# bfloat16 on a CPU that has it
optim_wrapper = dict(
    type='CpuFallbackAmpOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(type='AdamW', lr=base_lr, weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=False, begin=0, end=100),
    dict(
        type='CosineAnnealingLR', eta_min=0.0, begin=0, end=max_epochs, convert_to_iter_based=True
    ),
]
train_cfg = dict(type='ResumableEpochBasedTrainLoop', max_epochs=max_epochs, val_interval=3)
randomness = dict(seed=0)
