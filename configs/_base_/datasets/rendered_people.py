# The rendered faces of tools/data/make_benchmark.py: images and clips of 128 x 128 pixels.
# They differ much in light, colour, sharpness and crop already, so there is little augmentation.
# A clip has 16 frames at 12 fps.
# not `import os`, which mmengine takes for a config of its other kind
data_root = __import__('os').environ.get('RENDERED_DIR', 'data/rendered_people')
trained_on = 'rendered people only'  # every answer says it
img_size, clip_len, frame_interval = 96, 8, 2
meta_keys = ('input_type', 'sample_id', 'img_shape')

augment = [
    dict(type='RandomResizedCrop', area_range=(0.75, 1.0), aspect_ratio_range=(0.9, 1.1)),
    dict(type='Resize', scale=(img_size, img_size), keep_ratio=False),
    dict(type='Flip', flip_ratio=0.5),
    dict(type='ColorJitter', brightness=0.3, contrast=0.3, saturation=0.3, hue=0),
    dict(
        type='TransformBroadcaster',
        mapping=dict(img='imgs'),
        auto_remap=True,
        share_random_params=True,
        transforms=[dict(type='RandomGrayscale', prob=0.1, keep_channels=True)],
    ),
]
train_pipeline = [
    dict(type='ClipInit'),
    dict(type='UniformSample', clip_len=4),  # one frame of each quarter, at random
    dict(type='ClipDecode'),
    *augment,
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs', meta_keys=meta_keys),
]
test_pipeline = [
    dict(type='ClipInit'),
    dict(
        type='SampleClipViews',
        clip_len=clip_len,
        frame_interval=frame_interval,
        num_views=1,
        predict_span=32,  # the time of 16 frames at 12 fps in a video of 25 fps
    ),
    dict(type='ClipDecode'),
    dict(type='Resize', scale=(img_size, img_size), keep_ratio=False),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs', meta_keys=meta_keys),
]
image_train_pipeline = [
    dict(type='ImageLoad'),
    *augment,
    dict(type='FormatShape', input_format='NCHW'),
    dict(type='PackActionInputs', meta_keys=meta_keys),
]
image_test_pipeline = [
    dict(type='ImageLoad'),
    dict(type='Resize', scale=(img_size, img_size), keep_ratio=False),
    dict(type='FormatShape', input_format='NCHW'),
    dict(type='PackActionInputs', meta_keys=meta_keys),
]

train_dataloader = dict(
    batch_size=16,  # mmengine asks for one; total_batch_size is what counts
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DualModalSampler'),
    batch_sampler=dict(
        type='DualModalBatchSampler', total_batch_size=dict(video=16, image=64), drop_last=True
    ),
    dataset=dict(
        type='DualModalDataset',
        video=dict(
            type='DFEW',
            data_root=data_root,
            ann_file='annotations/dfew_train.csv',
            data_prefix=dict(video='clips'),
            suffix='.mp4',
            pipeline=train_pipeline,
        ),
        image=dict(
            type='AffectNet',
            data_root=data_root,
            ann_file='annotations/affectnet_train.txt',
            data_prefix=dict(img='images'),
            pipeline=image_train_pipeline,
        ),
    ),
)
test_dataloader = dict(
    batch_size=16,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    batch_sampler=dict(type='DualModalBatchSampler', batch_size=dict(video=16, image=128)),
    dataset=dict(
        type='DualModalDataset',
        pipeline=test_pipeline,  # of the videos; here mmaction2's inferencers find it
        video=dict(
            type='DFEW',
            data_root=data_root,
            ann_file='annotations/dfew_test.csv',
            data_prefix=dict(video='clips'),
            suffix='.mp4',
            test_mode=True,
        ),
        image=dict(
            type='AffectNet',
            data_root=data_root,
            ann_file='annotations/affectnet_test.txt',
            data_prefix=dict(img='images'),
            pipeline=image_test_pipeline,
            test_mode=True,
        ),
    ),
)
test_evaluator = dict(type='ExpressionMetric')
test_cfg = dict(type='TestLoop')
# people whom training does not see
val_dataloader, val_evaluator = test_dataloader, test_evaluator
val_cfg = dict(type='ValLoop')
