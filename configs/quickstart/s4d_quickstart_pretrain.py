# Masked pre-training on the quickstart's drawn faces, a minute on 2 cores:
#   python tools/data/make_quickstart.py work_dirs/quickstart/data
#   tools/dist_train.sh configs/quickstart/s4d_quickstart_pretrain.py 2
_base_ = [
    '../_base_/models/s4d_mae_tiny.py',
    '../_base_/datasets/quickstart.py',
    '../_base_/default_runtime.py',
]
# each clip is decoded once for two crops
train_pipeline = _base_.train_pipeline
train_pipeline[3:5] = [
    dict(
        type='ClipRandomResizedCrop',
        size=_base_.img_size,
        times=2,
        area_range=(0.7, 1.0),
        flip_ratio=0.5,
    )
]
# few, large patches: quick to learn
model = dict(
    backbone=dict(patch_size=40, mask_ratio=dict(image=0.5, video=0.75)),
    neck=dict(patch_size=40),
    head=dict(patch_size=40),
)
train_dataloader = dict(
    batch_size=32,
    sampler=dict(share=dict(video=0.5)),
    batch_sampler=dict(batch_size=dict(video=8, image=32)),
    dataset=dict(video=dict(pipeline=train_pipeline)),
)
max_epochs = 3
base_lr = 3e-3
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=base_lr, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, begin=0, end=1, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR', eta_min=0.0, begin=1, end=max_epochs, convert_to_iter_based=True
    ),
]
train_cfg = dict(type='ResumableEpochBasedTrainLoop', max_epochs=max_epochs)
# not `import os`, which mmengine takes for a config of its other kind
work_dir = __import__('os').environ.get('QUICKSTART_DIR', 'work_dirs/quickstart') + '/pretrain'
randomness = dict(seed=0)
