# The tiny S4D of the quickstart, with few clips and more images: 224 clips of 32 drawn persons and
# 2,240 images. tools/evidence.py makes the data and trains the rows of rows.yml.
_base_ = '../quickstart/s4d_quickstart_finetune.py'
# not `import os`, which mmengine takes for a config of its other kind
data_root = __import__('os').environ.get('EVIDENCE_DIR', 'work_dirs/evidence') + '/drawn_faces'
clips = dict(data_root=data_root, data_prefix=dict(video='frames'), suffix='')
train_dataloader = dict(
    sampler=dict(share=dict(image=0.5)),
    dataset=dict(video=dict(indices=224, **clips), image=dict(data_root=data_root, indices=2240)),
)
test_dataloader = dict(dataset=dict(video=clips, image=dict(data_root=data_root)))
val_cfg = val_dataloader = val_evaluator = None
# every row has the same number of steps, whatever an epoch of it is
steps = 1600
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=False, begin=0, end=steps // 8),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=False, begin=steps // 8, end=steps),
]
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=steps, val_interval=steps)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=steps // 4, max_keep_ckpts=1))
log_processor = dict(by_epoch=False)
