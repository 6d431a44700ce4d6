# Dual-modal masked auto-encoder, base size (arXiv 2409.06154). The model is
# mmpretrain's MAE; the parts are S4D's.
mean, std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
model = dict(
    type='S4DMAE',
    data_preprocessor=dict(
        type='DualModalDataPreprocessor', mean=mean, std=std, merge_views=True
    ),  # the crops of a clip are samples of their own
    backbone=dict(type='S4DMAEViT', arch='base', mask_ratio=dict(image=0.9, video=0.95)),
    neck=dict(type='S4DMAEDecoder', arch='base'),
    head=dict(type='S4DMAEHead', mean=mean, std=std),
)
