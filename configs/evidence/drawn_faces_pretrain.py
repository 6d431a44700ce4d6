# Masked pre-training of drawn_faces.py, on all training clips and images, without their labels.
_base_ = '../quickstart/s4d_quickstart_pretrain.py'
# not `import os`, which mmengine takes for a config of its other kind
data_root = __import__('os').environ.get('EVIDENCE_DIR', 'work_dirs/evidence') + '/drawn_faces'
clips = dict(data_root=data_root, data_prefix=dict(video='frames'), suffix='')
# an epoch has 140 of 280 batches of clips, and as many of images
train_dataloader = dict(
    sampler=dict(share=dict(image=0.5)), dataset=dict(video=clips, image=dict(data_root=data_root))
)
steps, max_epochs = 1120, 4
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=False, begin=0, end=steps // 8),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=False, begin=steps // 8, end=steps),
]
train_cfg = dict(max_epochs=max_epochs)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))
