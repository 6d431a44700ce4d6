# mmaction2's TSN (Recognizer2D on mmpretrain's ResNet) with S4D's head for
# both modalities; the frames of a clip are segments, an image has one. Full
# size: leave out the channels of the ResNet; 512 in neck and head.
_base_ = [
    '../_base_/datasets/quickstart_joint.py',
    '../_base_/schedules/quickstart_10e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    type='Recognizer2D',
    data_preprocessor=dict(
        type='DualModalDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
    ),
    backbone=dict(type='mmpretrain.ResNet', depth=18, stem_channels=16, base_channels=16),
    cls_head=dict(type='DualModalHead', in_channels=128, num_classes=dict(video=7, image=7)),
)

segments = dict(type='SampleFrames', clip_len=1, frame_interval=1, num_clips=4)
train_pipeline = _base_.train_pipeline
train_pipeline[1] = segments
train_pipeline[-2] = dict(type='FormatShape', input_format='NCHW')
test_pipeline = _base_.test_pipeline
test_pipeline[1] = dict(test_mode=True, **segments)
test_pipeline[-2] = dict(type='FormatShape', input_format='NCHW')
train_dataloader = dict(dataset=dict(video=dict(pipeline=train_pipeline)))
test_dataloader = dict(dataset=dict(video=dict(pipeline=test_pipeline)))
val_dataloader = test_dataloader
