# The drawn faces of tools/data/make_quickstart.py, small enough for 2 cores. The steps are
# mmaction2's cheap ones (OpenCV), not the recipe's.
# not `import os`, which mmengine takes for a config of its other kind
data_root = __import__('os').environ.get('QUICKSTART_DIR', 'work_dirs/quickstart') + '/data'
trained_on = 'drawn faces'  # every answer says it; without this key it names the training sets
img_size, clip_len, frame_interval = 80, 4, 3
meta_keys = ('input_type', 'sample_id', 'img_shape')

train_pipeline = [
    dict(type='ClipInit'),
    dict(
        type='SampleFrames',
        clip_len=clip_len,
        frame_interval=frame_interval,
        num_clips=1,
        out_of_bound_opt='repeat_last',
    ),
    dict(type='ClipDecode'),
    dict(type='Resize', scale=(img_size, img_size), keep_ratio=False),
    dict(type='Flip', flip_ratio=0.5),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs', meta_keys=meta_keys),
]
test_pipeline = [
    dict(type='ClipInit'),
    dict(type='SampleClipViews', clip_len=clip_len, frame_interval=frame_interval, num_views=2),
    dict(type='ClipDecode'),
    dict(type='Resize', scale=(img_size, img_size), keep_ratio=False),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs', meta_keys=meta_keys),
]
image_train_pipeline = [
    dict(type='ImageLoad'),
    dict(type='Resize', scale=(img_size, img_size), keep_ratio=False),
    dict(type='Flip', flip_ratio=0.5),
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
    batch_size=16,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DualModalSampler'),
    batch_sampler=dict(
        type='DualModalBatchSampler', batch_size=dict(video=8, image=16), drop_last=True
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
