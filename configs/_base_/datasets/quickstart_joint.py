# Both modalities of the drawn faces, in training and in testing.
_base_ = './quickstart.py'
test_dataloader = dict(
    batch_size=16,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    batch_sampler=dict(type='DualModalBatchSampler'),
    dataset=dict(
        type='DualModalDataset',
        pipeline=_base_.test_pipeline,  # of the videos; here mmaction2's inferencers find it
        video=dict(
            type='DFEW',
            data_root=_base_.data_root,
            ann_file='annotations/dfew_test.csv',
            data_prefix=dict(video='clips'),
            suffix='.mp4',
            test_mode=True,
        ),
        image=dict(
            type='AffectNet',
            data_root=_base_.data_root,
            ann_file='annotations/affectnet_test.txt',
            data_prefix=dict(img='images'),
            pipeline=_base_.image_test_pipeline,
            test_mode=True,
        ),
    ),
)
test_evaluator = dict(type='ExpressionMetric')
test_cfg = dict(type='TestLoop')
# the test persons are watched in training
val_dataloader, val_evaluator = test_dataloader, test_evaluator
val_cfg = dict(type='ValLoop')
