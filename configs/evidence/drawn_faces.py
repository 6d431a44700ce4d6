# The tiny S4D of the quickstart, with few clips and more images: 192 clips of 28 drawn persons and
# 1,536 images. tools/evidence.py makes the data and trains the rows of rows.yml.
_base_ = '../quickstart/s4d_quickstart_finetune.py'
# not `import os`, which mmengine takes for a config of its other kind
data_root = __import__('os').environ.get('EVIDENCE_DIR', 'work_dirs/evidence') + '/drawn_faces'
clips = dict(data_root=data_root, data_prefix=dict(video='frames'), suffix='')
# an epoch has 24 batches of clips and 48 of 96 of images
train_dataloader = dict(
    sampler=dict(share=dict(image=0.5)),
    dataset=dict(video=dict(indices=192, **clips), image=dict(data_root=data_root, indices=1536)),
)
test_dataloader = dict(dataset=dict(video=clips, image=dict(data_root=data_root)))
val_cfg = val_dataloader = val_evaluator = None
# every row has as many steps, whatever its epochs are
steps, max_epochs = 1440, 20
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=False, begin=0, end=steps // 8),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=False, begin=steps // 8, end=steps),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
default_hooks = dict(checkpoint=dict(interval=5, max_keep_ckpts=1))
