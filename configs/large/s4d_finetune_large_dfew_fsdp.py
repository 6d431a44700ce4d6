# S4D fine-tuning on DFEW (fold 1) and AffectNet, large size, sharded by FSDP
# over 8 GPUs:
#   tools/dist_train.sh configs/large/s4d_finetune_large_dfew_fsdp.py 8 \
#       --cfg-options load_from=work_dirs/s4d_pretrain_large_fsdp/epoch_100.pth
_base_ = ['../s4d_finetune_dfew.py', '../_base_/strategies/fsdp.py']
# 18 plain blocks, then 6 with adapter experts
model = dict(
    backbone=dict(arch='large', depth=18), neck=dict(arch='large'), cls_head=dict(in_channels=1024)
)
# bfloat16 needs no loss scaling
optim_wrapper = dict(dtype='bfloat16', loss_scale=dict(enabled=False))
