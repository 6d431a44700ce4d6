# A joint fine-tuning model that trains on 2 cores: 2 plain blocks, then 2
# with 4 adapter experts.
_base_ = './s4d_base.py'
arch = dict(_delete_=True, embed_dims=128, num_layers=4, num_heads=4)
model = dict(
    backbone=dict(arch=arch, depth=2, img_size=80, num_frames=4),
    neck=dict(arch=arch, num_layers=2, num_experts=4),
    cls_head=dict(in_channels=128),
)
