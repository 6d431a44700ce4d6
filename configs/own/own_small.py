# A small model that learns from clips of your own on a CPU, from random weights.
# The rest is configs/own/own_clips.py; for images or both, copy what is below into your config.
#   python tools/train.py configs/own/own_small.py
_base_ = './own_clips.py'

lr = 1e-3
max_epochs = 10
load_from = None  # no published weights are of this size
# 4 blocks, the last 2 with 4 experts; 16 patches of 40 x 40 pixels in a frame
arch = dict(_delete_=True, embed_dims=128, num_layers=4, num_heads=4)
model = dict(
    backbone=dict(arch=arch, depth=2, patch_size=40),
    neck=dict(arch=arch, num_layers=2, num_experts=4),
    cls_head=dict(in_channels=128),
)
optim_wrapper = dict(
    _delete_=True, optimizer=dict(type='AdamW', lr=lr, weight_decay=0.05, fused=True)
)
train_cfg = dict(max_epochs=max_epochs)
