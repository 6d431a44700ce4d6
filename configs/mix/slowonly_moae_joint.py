# MoAE on a video backbone of mmaction2, SlowOnly; clips and images together.
# Full size: leave out base_channels; 512 in neck and head.
_base_ = [
    '../_base_/datasets/quickstart_joint.py',
    '../_base_/schedules/quickstart_10e.py',
    '../_base_/default_runtime.py',
]
randomness = dict(seed=0)
model = dict(
    type='Recognizer3D',
    data_preprocessor=dict(
        type='DualModalDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        image_frames=1,  # an image is a clip of one frame
    ),
    backbone=dict(
        type='ResNet3dSlowOnly',
        depth=18,
        base_channels=16,
        pretrained=None,
        lateral=False,
        conv1_kernel=(1, 7, 7),
        conv1_stride_t=1,
        pool1_stride_t=1,
        inflate=(0, 0, 1, 1),
        norm_eval=False,
    ),
    neck=dict(
        type='MoAENeck',
        arch=dict(embed_dims=128, num_layers=1, num_heads=4),
        num_layers=1,
        num_experts=4,
    ),
    cls_head=dict(type='DualModalHead', in_channels=128, num_classes=dict(video=7, image=7)),
)
