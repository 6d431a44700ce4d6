# Joint fine-tuning model, base size (arXiv 2409.06154): 6 plain blocks, then
# 6 with a mixture of adapter experts, then a classifier per modality. Final
# configs set num_classes (also in the blending).
model = dict(
    type='DualModalRecognizer',
    data_preprocessor=dict(
        type='DualModalDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        pack_views=True,
    ),  # in testing a short clip has one view
    backbone=dict(type='S4DViT', arch='base', depth=6),
    neck=dict(type='MoAENeck', arch='base', num_layers=6, num_experts=8, top_k=2),
    cls_head=dict(
        type='DualModalHead',
        in_channels=768,
        num_classes=dict(video=7, image=7),
        label_smooth_eps=0.1,
        average_clips='prob',
    ),
)
