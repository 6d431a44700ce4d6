# VideoMAE pre-training of mmaction2's ViT-B on the videos of Kinetics-400, 800
# epochs (arXiv 2203.12602; augmentation and no-decay list as in the authors'
# code, which crops at several scales and does not flip), with mmaction2's
# dataset and transforms:
#   tools/dist_train.sh configs/videomae/videomae_pretrain_vit-base_k400.py 8
# For mmaction2's VideoMAE configs, convert the last checkpoint: see README.md
_base_ = [
    '../_base_/models/videomae_base.py',
    '../_base_/default_runtime.py',
]
train_pipeline = [
    dict(type='SeedDraws'),  # the sample's own seed, in any worker
    dict(type='DecordInit'),
    dict(type='SampleFrames', clip_len=16, frame_interval=4, num_clips=1),
    dict(type='DecordDecode'),
    dict(type='Resize', scale=(-1, 256)),
    dict(
        type='MultiScaleCrop',
        input_size=224,
        scales=(1, 0.875, 0.75, 0.66),
        random_crop=False,
        num_fixed_crops=13,
        max_wh_scale_gap=1,
    ),
    dict(type='Resize', scale=(224, 224), keep_ratio=False),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs'),
]
train_dataloader = dict(
    batch_size=32,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='SeededSampler', shuffle=True),
    dataset=dict(
        type='VideoDataset',
        ann_file='data/kinetics400/kinetics400_train_list_videos.txt',
        data_prefix=dict(video='data/kinetics400/videos_train'),
        pipeline=train_pipeline,
    ),
)
# lr = 1.5e-4 * total batch / 256 for 1024 clips: 8 GPUs x 32 x 4 steps
accumulative_counts = 4
base_lr = 1.5e-4 * 8 * 32 * accumulative_counts / 256
optim_wrapper = dict(
    type='CpuFallbackAmpOptimWrapper',
    accumulative_counts=accumulative_counts,
    optimizer=dict(type='AdamW', lr=base_lr, betas=(0.9, 0.95), weight_decay=0.05, fused=True),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys={'_bias': dict(decay_mult=0.0), 'mask_token': dict(decay_mult=0.0)},
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, begin=0, end=40, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, begin=40, end=800, convert_to_iter_based=True),
]
train_cfg = dict(type='ResumableEpochBasedTrainLoop', max_epochs=800)
auto_scale_lr = dict(enable=False, base_batch_size=8 * 32)
default_hooks = dict(checkpoint=dict(interval=20))
custom_hooks = [dict(type='NonFiniteHook'), dict(type='RunSummaryHook')]
