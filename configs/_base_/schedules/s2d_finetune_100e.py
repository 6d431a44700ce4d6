# lr = 1e-5 * clips of a step / 8 for 16 clips, on any number of processes. It starts
# from 0, warms up for 2 epochs and ends at 1e-8 * 16 / 256
base_lr = 1e-5 * 16 / 8
min_lr = 1e-8 * 16 / 256
optim_wrapper = dict(
    type='CpuFallbackAmpOptimWrapper',
    optimizer=dict(type='AdamW', lr=base_lr, betas=(0.9, 0.999), weight_decay=0.05, fused=True),
    paramwise_cfg=dict(
        flat_decay_mult=0.0,  # norms, biases, scale of the fovea
        custom_keys={'temporal_embedding': dict(decay_mult=0.0)},
    ),
)
param_scheduler = [
    dict(
        type='WarmupCosineLR',
        warmup_share=0.02,
        end_ratio=min_lr / base_lr,
        convert_to_iter_based=True,
    )
]
train_cfg = dict(type='ResumableEpochBasedTrainLoop', max_epochs=100, val_begin=1, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
# of train_dataloader.batch_sampler.total_batch_size
auto_scale_lr = dict(enable=False, base_batch_size=dict(video=16))
