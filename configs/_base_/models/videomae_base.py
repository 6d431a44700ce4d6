# VideoMAE, base size (arXiv 2203.12602): the encoder of mmaction2's VideoMAE
# ViT, masked in tubes.
_base_ = './s4d_mae_base.py'
model = dict(backbone=dict(img_size=224, mask_type='tube', mask_ratio=0.9), neck=dict(img_size=224))
