# lr = 1e-5 * total video batch / 8 for 8 GPUs x 16 clips; it ends at
# 1e-6 * total batch / 256, scaled by layer as the lr is
base_lr = 1e-5 * 8 * 16 / 8
min_lr = 1e-6 * 8 * 16 / 256
optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(type='AdamW', lr=base_lr, betas=(0.9, 0.999), weight_decay=0.05, fused=True),
    constructor='S4DLayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(
        layer_decay_rate=0.75,
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys={'_bias': dict(decay_mult=0.0)},
    ),
)  # q, v, experts
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=min_lr / base_lr,
        by_epoch=True,
        begin=0,
        end=5,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=min_lr / base_lr,
        by_epoch=True,
        begin=5,
        end=100,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=100, val_begin=1, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=8 * 16)
