# The same data; the clips go to the device once, which cuts and resizes the 4
# crops of each (for the model: crops=dict(video=dict(size=160))).
_base_ = './voxceleb2_affectnet_pretrain.py'
video_pipeline = [
    *_base_.video_pipeline[:4],  # as far as FixedCrop
    dict(type='ClipResize', scale=(192, 192)),
    dict(type='RandomCropBoxes', times=4, area_range=(0.08, 1.0)),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs', meta_keys=('input_type', 'sample_id', 'img_shape', 'crop_boxes')),
]
train_dataloader = dict(dataset=dict(video=dict(pipeline=video_pipeline)))
