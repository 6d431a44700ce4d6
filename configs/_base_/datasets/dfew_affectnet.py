# Joint fine-tuning data (arXiv 2409.06154): DFEW clips and AffectNet images.
# For another video set, a config states its type and files.
fold = 1
clip_len, frame_interval = 16, 4
mean, std = [124, 116, 104], [58, 57, 57]  # of ImageNet
meta_keys = ('input_type', 'sample_id', 'img_shape')

train_pipeline = [
    dict(type='ClipInit'),
    dict(type='SampleClipWindow', clip_len=clip_len, frame_interval=frame_interval),
    dict(type='ClipDecode'),
    dict(type='ClipResize', scale=(160, 160)),
    dict(  # rand-m7-n4-mstd0.5-inc1, the same for all frames
        type='ClipRandAugment',
        policies='timm_increasing',
        num_policies=4,
        magnitude_level=7,
        magnitude_std=0.5,
    ),
    dict(type='RandomResizedCrop', area_range=(0.08, 1.0)),
    # only enlarges, so there is nothing to antialias
    dict(type='Resize', scale=(160, 160), keep_ratio=False),
    dict(type='Flip', flip_ratio=0.5),
    dict(
        type='TransformBroadcaster',
        mapping=dict(img='imgs'),
        auto_remap=True,
        share_random_params=True,
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
test_pipeline = [
    dict(type='ClipInit'),
    dict(
        type='SampleClipViews',
        clip_len=clip_len,
        frame_interval=frame_interval,
        num_views=2,
        merge_equal=True,
    ),  # a short clip is computed once
    dict(type='ClipDecode'),
    dict(type='ClipResize', scale=(160, 160)),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs', meta_keys=meta_keys),
]
image_train_pipeline = [
    dict(type='ImageLoad'),
    dict(type='ClipResize', scale=(192, 192)),
    dict(type='RandomCrop', size=160),
    dict(type='Flip', flip_ratio=0.5),
    dict(
        type='ClipRandAugment',
        policies='timm_increasing',
        num_policies=2,
        magnitude_level=9,
        magnitude_std=0.5,
    ),
    dict(
        type='TransformBroadcaster',
        mapping=dict(img='imgs'),
        auto_remap=True,
        share_random_params=True,
        transforms=[
            dict(
                type='RandomErasing',
                _scope_='mmpretrain',
                erase_prob=0.25,
                mode='const',  # black
                fill_color=0,
                min_area_ratio=0.02,
                max_area_ratio=1 / 3,
            ),
        ],
    ),
    dict(type='FormatShape', input_format='NCHW'),
    dict(type='PackActionInputs', meta_keys=meta_keys),
]
image_test_pipeline = [
    dict(type='ImageLoad'),
    dict(type='ClipResize', scale=(160, 160)),
    dict(type='FormatShape', input_format='NCHW'),
    dict(type='PackActionInputs', meta_keys=meta_keys),
]

train_dataloader = dict(
    batch_size=16,  # mmengine asks for one; total_batch_size is what counts
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,  # for the copy to the GPU beside the computation
    # all video batches and half of the image batches of an epoch; AffectNet
    # is unbalanced, so it is drawn with inverse class-frequency weights
    sampler=dict(type='DualModalSampler', share=dict(video=1.0, image=0.5), balance=('image',)),
    batch_sampler=dict(
        type='DualModalBatchSampler', total_batch_size=dict(video=32, image=64), drop_last=True
    ),
    dataset=dict(
        type='DualModalDataset',
        video=dict(
            type='DFEW',
            data_root='data/DFEW',
            ann_file=f'annotations/set_{fold}_train.csv',
            data_prefix=dict(video='frames'),
            pipeline=train_pipeline,
        ),
        image=dict(
            type='AffectNet',
            data_root='data/AffectNet',
            ann_file='annotations/train_7.txt',
            # the authors' list, or that of docs/data/affectnet.md; without either all are read
            subsets=('annotations/train_affectnet7_2w.txt', 'annotations/train_7_20000.txt'),
            data_prefix=dict(img='images'),
            pipeline=image_train_pipeline,
        ),
    ),
)
# DFEW and AffectNet have no validation split: each epoch is watched on the test
# splits. The last epoch is no selection; the best one, as the authors report it, is.
val_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    batch_sampler=dict(type='DualModalBatchSampler', batch_size=dict(video=16, image=64)),
    dataset=dict(
        type='DualModalDataset',
        pipeline=test_pipeline,  # of the videos; here mmaction2's inferencers find it
        video=dict(
            type='DFEW',
            data_root='data/DFEW',
            ann_file=f'annotations/set_{fold}_test.csv',
            data_prefix=dict(video='frames'),
            test_mode=True,
        ),
        image=dict(
            type='AffectNet',
            data_root='data/AffectNet',
            ann_file='annotations/test_7.txt',
            data_prefix=dict(img='images'),
            pipeline=image_test_pipeline,
            test_mode=True,
        ),
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='ExpressionMetric')
test_evaluator = val_evaluator
