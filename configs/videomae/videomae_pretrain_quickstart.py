# VideoMAE pre-training on the clips of the drawn faces, a minute on 2 cores:
#   python tools/train.py configs/videomae/videomae_pretrain_quickstart.py
_base_ = '../quickstart/s4d_quickstart_pretrain.py'
model = dict(
    backbone=dict(mask_type='tube', mask_ratio=0.9, patch_size=16),
    neck=dict(patch_size=16),
    head=dict(patch_size=16),
)
train_dataloader = dict(
    _delete_=True,
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='SeededSampler', shuffle=True),
    dataset=_base_.train_dataloader.dataset.video,
)
# not `import os`, which mmengine takes for a config of its other kind
work_dir = __import__('os').environ.get('QUICKSTART_DIR', 'work_dirs/quickstart') + '/videomae'
