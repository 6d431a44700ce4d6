# Dual-modal masked auto-encoder, large size (arXiv 2409.06154).
_base_ = './s4d_mae_base.py'
model = dict(backbone=dict(arch='large'), neck=dict(arch='large'))
