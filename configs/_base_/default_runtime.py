# What every run shares.
default_scope = 'mmaction'
custom_imports = dict(imports=['s4d_mm'], allow_failed_imports=False)

default_hooks = dict(
    runtime_info=dict(type='RuntimeInfoHook'),
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=20, ignore_last=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='SafeCheckpointHook', interval=1, max_keep_ckpts=3),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    sync_buffers=dict(type='SyncBuffersHook'),
    # seconds without a finished step that end the run; 0 is no limit
    hang=dict(type='HangHook', timeout=1800),
)
custom_hooks = [
    dict(type='RunCheckHook'),  # config, checkpoint, data and model fit, before the first step
    dict(type='NonFiniteHook'),  # a loss that is NaN or infinite stops the run
    dict(type='ExpertLoadHook'),  # share of each expert in the log; none in pre-training
    dict(type='MediaFaultHook'),  # what could not be read, after each epoch
    dict(type='RunSummaryHook'),  # table at the start of the log
    dict(type='BestAndLastHook'),  # figures of the last and of the best epoch, at its end
    dict(type='StopSignalHook'),  # Ctrl-C, SIGTERM and SIGUSR1 save first
]

# tools/*.py turn nccl into gloo on a machine without a GPU
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)

# processes differ in masks, Mixup ratios and router noise, which follow from seed, step and rank.
# Without a seed the log says which one was drawn: tools/train.py --seed N repeats the run
randomness = dict(seed=None, diff_rank_seed=True)

log_processor = dict(type='LogProcessor', window_size=20, by_epoch=True)
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='ActionVisualizer', vis_backends=vis_backends)
log_level = 'INFO'
load_from = None
resume = False
