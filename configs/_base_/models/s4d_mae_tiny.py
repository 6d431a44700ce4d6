# A masked auto-encoder that trains on 2 cores.
_base_ = './s4d_mae_base.py'
size = dict(img_size=80, num_frames=4)
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=128, num_layers=4, num_heads=4),
        mask_ratio=dict(image=0.75, video=0.9),
        **size,
    ),
    neck=dict(
        in_channels=128, arch=dict(_delete_=True, embed_dims=64, num_layers=2, num_heads=2), **size
    ),
)
