# S4D pre-training in steps of four times as many samples, for 8 GPUs x 192: 1536
# samples (images, or 384 clips x 4 crops) at the lr 4.8e-3, by the rule lr =
# 1.6e-3 * samples / 512. Nobody's published result: the authors' figures are
# those of s4d_pretrain.py.
#   tools/dist_train.sh configs/s4d_pretrain_batch1536.py 8
_base_ = './s4d_pretrain.py'
base_lr = 1.6e-3 * 1536 / 512
optim_wrapper = dict(optimizer=dict(lr=base_lr))
param_scheduler = [
    dict(
        type='WarmupCosineLR',
        warmup_share=0.05,
        start_ratio=1e-6 / base_lr,
        whole_run=True,
        convert_to_iter_based=True,
    )
]
total_batch_size = dict(video=384, image=1536)
train_dataloader = dict(batch_sampler=dict(total_batch_size=total_batch_size))
auto_scale_lr = dict(base_batch_size=total_batch_size)
