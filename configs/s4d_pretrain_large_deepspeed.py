# S4D pre-training, large size, with DeepSpeed's ZeRO over 64 GPUs: as
# s4d_pretrain_large_fsdp.py
_base_ = [
    '_base_/models/s4d_mae_large.py',
    '_base_/datasets/voxceleb2_affectnet_pretrain.py',
    '_base_/schedules/s4d_pretrain_100e.py',
    '_base_/default_runtime.py',
    '_base_/strategies/deepspeed_zero2.py',
]
model = dict(backbone=dict(with_cp=True), neck=dict(with_cp=True))
train_dataloader = dict(batch_size=24, batch_sampler=dict(batch_size=dict(video=6, image=24)))
# mixed precision is the strategy's
optim_wrapper = dict(type='DeepSpeedOptimWrapper')
