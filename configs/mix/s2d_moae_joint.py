# S2D trained as S4D, which neither paper has: S2D's frozen ViT with its landmark
# prompts and temporal adapters, on images and clips together, and MoAE on the
# tokens of all frames.
# The landmark network needs its weights (docs/s2d.md).
# Full size: arch='base', img_size=224, no landmark.input_size; 768 in neck and head;
# load_from a converted checkpoint of S2D, without which the frozen ViT is random.
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
    ),
    backbone=dict(
        type='S2DViT',
        arch=dict(embed_dims=128, num_layers=3, num_heads=4, feedforward_channels=512),
        img_size=80,
        num_frames=4,
        landmark=dict(
            type='LandmarkMobileFaceNet',
            checkpoint='work_dirs/mobilefacenet_model_best.pth.tar',
            input_size=40,
        ),
        out_type='raw',
    ),
    neck=dict(
        type='MoAENeck',
        arch=dict(embed_dims=128, num_layers=1, num_heads=4),
        num_layers=1,
        num_experts=4,
    ),
    cls_head=dict(type='DualModalHead', in_channels=128, num_classes=dict(video=7, image=7)),
)
