# Clips for S2D: 16 frames one after the other, 224 x 224 pixels. DFEW here, whose clips
# are 16 frames spread over the whole clip (clip_224x224_16f, linked as frames_16f); for
# another data set a config states its type and files.
fold = 1
clip_len, img_size = 16, 224
mean, std = [124, 116, 104], [58, 57, 57]  # of ImageNet
meta_keys = ('input_type', 'sample_id', 'img_shape')

train_pipeline = [
    dict(type='ClipInit'),
    dict(type='SampleClipWindow', clip_len=clip_len, frame_interval=1),
    dict(type='ClipDecode'),
    dict(type='ClipResize', scale=(img_size, img_size)),
    dict(  # rand-m7-n4-mstd0.5-inc1, the same for all frames
        type='ClipRandAugment',
        policies='timm_increasing',
        num_policies=4,
        magnitude_level=7,
        magnitude_std=0.5,
    ),
    dict(type='RandomResizedCrop', area_range=(0.08, 1.0)),
    # only enlarges, so there is nothing to antialias
    dict(type='Resize', scale=(img_size, img_size), keep_ratio=False),
    dict(type='Flip', flip_ratio=0.5),
    dict(
        type='TransformBroadcaster',
        mapping=dict(img='imgs'),
        auto_remap=True,
        share_random_params=True,  # one window for all frames
        transforms=[
            dict(
                type='RandomErasing',
                _scope_='mmpretrain',
                erase_prob=0.25,
                mode='rand',  # noise of the data's mean and deviation
                fill_color=mean,
                fill_std=std,
                min_area_ratio=0.02,
                max_area_ratio=1 / 3,
            ),
        ],
    ),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs', meta_keys=meta_keys),
]
# the first 16 frames and the last 16; the authors' two crops are the same pixels.
# To predict a video, its frames are spread over windows of 64
test_pipeline = [
    dict(type='ClipInit'),
    dict(
        type='SampleClipViews',
        clip_len=clip_len,
        frame_interval=1,
        num_views=2,
        merge_equal=True,
        predict_span=64,
    ),
    dict(type='ClipDecode'),
    dict(type='ClipResize', scale=(img_size, img_size)),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs', meta_keys=meta_keys),
]

train_dataloader = dict(
    batch_size=16,  # mmengine asks for one; total_batch_size is what counts
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,  # for the copy to the GPU beside the computation
    sampler=dict(type='DualModalSampler'),
    batch_sampler=dict(
        type='DualModalBatchSampler', total_batch_size=dict(video=16), drop_last=True
    ),
    dataset=dict(
        type='DualModalDataset',
        modalities=('video',),
        video=dict(
            type='DFEW',
            data_root='data/DFEW',
            ann_file=f'annotations/set_{fold}_train.csv',
            data_prefix=dict(video='frames_16f'),
            pipeline=train_pipeline,
        ),
    ),
)
# No validation split: each epoch is watched on the test split, with the test's windows.
val_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    batch_sampler=dict(type='DualModalBatchSampler', batch_size=dict(video=16)),
    dataset=dict(
        type='DualModalDataset',
        modalities=('video',),
        pipeline=test_pipeline,  # here mmaction2's inferencers find it
        video=dict(
            type='DFEW',
            data_root='data/DFEW',
            ann_file=f'annotations/set_{fold}_test.csv',
            data_prefix=dict(video='frames_16f'),
            test_mode=True,
        ),
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='ExpressionMetric')
test_evaluator = val_evaluator
