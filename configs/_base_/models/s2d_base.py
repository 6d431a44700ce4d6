# S2D, base size (arXiv 2312.05447): a frozen image ViT with landmark prompts and
# temporal adapters before its layers. Final configs set num_classes (also in the
# blending). The landmark network needs its weights: docs/s2d.md says where they are.
model = dict(
    type='S2DRecognizer',
    data_preprocessor=dict(
        type='DualModalDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        pack_views=True,
    ),  # in testing a short clip has one view
    backbone=dict(
        type='S2DViT',
        arch='base',
        img_size=224,
        num_frames=16,
        landmark=dict(type='LandmarkMobileFaceNet', checkpoint=None),
    ),
    cls_head=dict(
        type='ViewsI3DHead',
        in_channels=768,
        num_classes=7,
        dropout_ratio=0.5,
        init_std=0.02,
        average_clips='prob',
    ),
)
