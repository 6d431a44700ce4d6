# The clips of the drawn faces alone.
_base_ = './quickstart.py'
video = dict(
    type='DFEW', data_root=_base_.data_root, data_prefix=dict(video='clips'), suffix='.mp4'
)
train_dataloader = dict(
    _delete_=True,
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='SeededSampler', shuffle=True),
    dataset=dict(ann_file='annotations/dfew_train.csv', pipeline=_base_.train_pipeline, **video),
)
test_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        ann_file='annotations/dfew_test.csv', pipeline=_base_.test_pipeline, test_mode=True, **video
    ),
)
test_evaluator = dict(type='ExpressionMetric')
test_cfg = dict(type='TestLoop')
val_dataloader, val_evaluator = test_dataloader, test_evaluator
val_cfg = dict(type='ValLoop')
