# The small network of ../rendered_people.py on 896 clips and 25,585 images of rendered people,
# without experts: the first 560 of 1,120 steps. With experts from the start the loss stays at
# chance, so every row begins without them; see rows.yml.
_base_ = '../rendered_people.py'
# not `import os`, which mmengine takes for a config of its other kind
frames = __import__('os').environ.get('EVIDENCE_DIR', 'work_dirs/evidence') + '/rendered_people'
clips = dict(data_prefix=dict(video=__import__('os').path.abspath(frames + '/frames')), suffix='')
model = dict(neck=None)
# an epoch has 56 batches of clips and 224 of 399 of images
train_dataloader = dict(sampler=dict(share=dict(image=0.5604)), dataset=dict(video=clips))
test_dataloader = dict(dataset=dict(video=clips))
val_cfg = val_dataloader = val_evaluator = None
optim_wrapper = dict(optimizer=dict(lr=2e-3))
steps, max_epochs = 560, 2
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=False, begin=0, end=2 * steps),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
default_hooks = dict(checkpoint=dict(interval=2, max_keep_ckpts=1))
