# The rendered faces of tools/data/make_benchmark.py: images and clips of 128 x 128 pixels.
# Real faces differ from them in light, colour, sharpness and crop, so training varies these, by
# steps that are cheap on a CPU. A clip has 16 frames at 12 fps.
# not `import os`, which mmengine takes for a config of its other kind
data_root = __import__('os').environ.get('RENDERED_DIR', 'data/rendered_people')
trained_on = 'rendered people only'  # every answer says it
img_size, clip_len, frame_interval = 96, 8, 2
meta_keys = ('input_type', 'sample_id', 'img_shape')

augment = [
    dict(type='RandomResizedCrop', area_range=(0.55, 1.0), aspect_ratio_range=(0.85, 1.18)),
    # less sharp, as a small face is
    dict(
        type='RandomApply',
        prob=0.3,
        transforms=[dict(type='RandomRescale', scale_range=(32, img_size))],
    ),
    dict(type='Resize', scale=(img_size, img_size), keep_ratio=False),
    dict(type='Flip', flip_ratio=0.5),
    # hue in one direction: with the other, mmaction2's step fails under NumPy 2
    dict(type='ColorJitter', brightness=0.35, contrast=0.35, saturation=0.5, hue=(0.0, 0.03)),
    dict(
        type='TransformBroadcaster',
        mapping=dict(img='imgs'),
        auto_remap=True,
        share_random_params=True,
        transforms=[
            dict(
                type='Rotate',
                _scope_='mmpretrain',
                magnitude_range=(0, 15),
                magnitude_std='inf',  # uniform
                interpolation='bilinear',
                pad_val=(128, 128, 128),
                prob=0.5,
            ),
            dict(type='RandomGrayscale', prob=0.1, keep_channels=True),
            dict(
                type='RandomErasing',
                _scope_='mmpretrain',
                erase_prob=0.25,
                mode='rand',
                fill_color=[124, 116, 104],
                fill_std=[58, 57, 57],
                min_area_ratio=0.02,
                max_area_ratio=0.15,
            ),
        ],
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
