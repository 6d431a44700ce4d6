# A joint fine-tuning model that trains on 2 cores: 4 plain blocks, then 2
# with 4 adapter experts.
_base_ = './s4d_base.py'
arch = dict(_delete_=True, embed_dims=192, num_layers=6, num_heads=6)
model = dict(
    backbone=dict(
        arch=arch, depth=4, img_size=96, num_frames=8, drop_path_rate=0.),
    neck=dict(arch=arch, num_layers=2, num_experts=4, drop_path_rate=0.),
    cls_head=dict(in_channels=192))
