# The images of the drawn faces alone, in mmpretrain's way.
# not `import os`, which mmengine takes for a config of its other kind
data_root = __import__('os').environ.get('QUICKSTART_DIR', 'work_dirs/quickstart') + '/data'
img_size = 80
train_pipeline = [
    dict(type='SeedDraws'),  # the sample's own seed, in any worker
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(img_size, img_size)),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(img_size, img_size)),
    dict(type='PackInputs'),
]
dataset = dict(
    type='CustomDataset',
    data_root=data_root,
    data_prefix='images',
    # AffectNet's label order
    metainfo=dict(
        classes=('neutral', 'happiness', 'sadness', 'surprise', 'fear', 'disgust', 'anger')
    ),
)
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='SeededSampler', shuffle=True),
    dataset=dict(ann_file='annotations/affectnet_train.txt', pipeline=train_pipeline, **dataset),
)
test_dataloader = dict(
    batch_size=16,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(ann_file='annotations/affectnet_test.txt', pipeline=test_pipeline, **dataset),
)
# WAR (= accuracy), UAR and recalls; mmpretrain's Accuracy works as well
test_evaluator = dict(type='ExpressionMetric')
test_cfg = dict()
val_dataloader, val_evaluator, val_cfg = test_dataloader, test_evaluator, dict()
