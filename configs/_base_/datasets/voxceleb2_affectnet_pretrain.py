# Pre-training data (arXiv 2409.06154): VoxCeleb2 videos, each decoded once
# for 4 crops, and AffectNet images.
video_pipeline = [
    dict(type='ClipInit'),
    dict(
        type='SampleFrames',
        clip_len=16,
        frame_interval=4,
        num_clips=1,
        out_of_bound_opt='repeat_last',
    ),
    dict(type='ClipDecode'),
    # the face in VoxCeleb2's 224 x 224 frames
    dict(type='FixedCrop', rows=(0, 160), columns=(32, 192)),
    # one crop for all frames of a view, of frames of 192 x 192; no flip. As in the
    # authors' code, clips are resized here without antialiasing (tensors), images
    # with it (Pillow)
    dict(
        type='ClipRandomResizedCrop',
        size=160,
        times=4,
        area_range=(0.08, 1.0),
        scale=(192, 192),
    ),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs', meta_keys=('input_type', 'sample_id', 'img_shape')),
]
image_pipeline = [
    dict(type='ImageLoad'),
    dict(
        type='ClipRandomResizedCrop',
        size=160,
        area_range=(0.2, 1.0),
        flip_ratio=0.5,
        interpolation='bicubic',
        antialias=True,
    ),
    dict(type='FormatShape', input_format='NCHW'),
    dict(type='PackActionInputs', meta_keys=('input_type', 'sample_id', 'img_shape')),
]
train_dataloader = dict(
    batch_size=192,  # mmengine asks for one; total_batch_size is what counts
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,  # for the copy to the GPU beside the computation
    # an epoch has all image batches and a quarter of the video batches
    sampler=dict(type='DualModalSampler', share=dict(video=0.25, image=1.0)),
    batch_sampler=dict(
        type='DualModalBatchSampler', total_batch_size=dict(video=96, image=384), drop_last=True
    ),
    dataset=dict(
        type='DualModalDataset',
        video=dict(
            type='VoxCeleb2',
            data_root='data/VoxCeleb2',
            ann_file='annotations/train.txt',
            data_prefix=dict(video='videos'),
            pipeline=video_pipeline,
        ),
        image=dict(
            type='AffectNet',
            num_classes=8,
            data_root='data/AffectNet',
            ann_file='annotations/train_8.txt',
            data_prefix=dict(img='images'),
            pipeline=image_pipeline,
        ),
    ),
)
