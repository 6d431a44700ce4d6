# lr = 1e-5 * videos of a step / 8 for 32 videos, on any number of processes. It
# starts from 0, warms up for 5 epochs and ends at 1e-6 * 32 / 256, scaled by
# layer as the lr is
base_lr = 1e-5 * 32 / 8
min_lr = 1e-6 * 32 / 256
optim_wrapper = dict(
    type='CpuFallbackAmpOptimWrapper',
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
        type='WarmupCosineLR',
        warmup_share=0.05,
        end_ratio=min_lr / base_lr,
        convert_to_iter_based=True,
    )
]
train_cfg = dict(type='ResumableEpochBasedTrainLoop', max_epochs=100, val_begin=1, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
# of train_dataloader.batch_sampler.total_batch_size
auto_scale_lr = dict(enable=False, base_batch_size=dict(video=32, image=64))
