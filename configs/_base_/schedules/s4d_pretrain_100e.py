# lr = 1.6e-3 * samples of a step / 512 for 384 samples (images, or 96 clips x 4
# crops), on any number of processes. It warms up for 5 epochs from 1e-6, then
# follows the cosine of the whole run
base_lr = 1.6e-3 * 384 / 512
optim_wrapper = dict(
    type='CpuFallbackAmpOptimWrapper',
    optimizer=dict(type='AdamW', lr=base_lr, betas=(0.9, 0.95), weight_decay=0.05, fused=True),
    # q_bias and v_bias do decay
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = [
    dict(
        type='WarmupCosineLR',
        warmup_share=0.05,
        start_ratio=1e-6 / base_lr,
        whole_run=True,
        convert_to_iter_based=True,
    )
]
train_cfg = dict(type='ResumableEpochBasedTrainLoop', max_epochs=100)
# of train_dataloader.batch_sampler.total_batch_size
auto_scale_lr = dict(enable=False, base_batch_size=dict(video=96, image=384))
