# A masked auto-encoder that trains on 2 cores.
_base_ = './s4d_mae_base.py'
size = dict(img_size=96, num_frames=8)
model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True, embed_dims=192, num_layers=6, num_heads=6),
        mask_ratio=dict(image=0.75, video=0.9),
        **size),
    neck=dict(
        in_channels=192,
        arch=dict(_delete_=True, embed_dims=96, num_layers=2, num_heads=3),
        **size))
