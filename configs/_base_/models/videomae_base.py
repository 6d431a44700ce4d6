# VideoMAE, base size (arXiv 2203.12602): the encoder of mmaction2's VideoMAE
# ViT, masked in tubes. The model is mmpretrain's MAE; the parts are S4D's.
mean, std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
model = dict(
    type='mmpretrain.MAE',
    data_preprocessor=dict(
        type='DualModalDataPreprocessor',
        mean=mean,
        std=std,
        merge_views=True),
    backbone=dict(
        type='S4DMAEViT',
        arch='base',
        img_size=224,
        mask_type='tube',
        mask_ratio=0.9),
    neck=dict(type='S4DMAEDecoder', arch='base', img_size=224),
    head=dict(type='S4DMAEHead', mean=mean, std=std))
