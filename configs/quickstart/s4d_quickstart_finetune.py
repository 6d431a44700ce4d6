# Joint fine-tuning on the quickstart's drawn faces, minutes on 2 cores:
#   python tools/train.py configs/quickstart/s4d_quickstart_finetune.py --cfg-options \
#       load_from=work_dirs/quickstart/pretrain/epoch_3.pth
_base_ = [
    '../_base_/models/s4d_tiny.py',
    '../_base_/datasets/quickstart_joint.py',
    '../_base_/default_runtime.py',
]
# not `import os`, which mmengine takes for a config of its other kind
work_dir = __import__('os').environ.get('QUICKSTART_DIR', 'work_dirs/quickstart') + '/finetune'
model = dict(backbone=dict(patch_size=40))  # few, large patches: quick to learn
max_epochs = 6
base_lr = 4e-3
# one group of parameters: for a model this small, a group for each would take a third of a step
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=base_lr, betas=(0.9, 0.98), weight_decay=0.05, fused=True)
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, begin=0, end=1, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR', eta_min=0.0, begin=1, end=max_epochs, convert_to_iter_based=True
    ),
]
train_cfg = dict(
    type='ResumableEpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs
)
randomness = dict(seed=0)
