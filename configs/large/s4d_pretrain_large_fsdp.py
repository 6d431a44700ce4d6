# S4D pre-training, large size, sharded by FSDP over 32 GPUs: on each of 4
# machines of 8
#   NNODES=4 NODE_RANK=... MASTER_ADDR=... tools/dist_train.sh \
#       configs/large/s4d_pretrain_large_fsdp.py 8
# The total batch is the recipe's (384 samples): 12 images, or 3 clips x 4
# crops, on each GPU.
_base_ = [
    '../_base_/models/s4d_mae_large.py',
    '../_base_/datasets/voxceleb2_affectnet_pretrain.py',
    '../_base_/schedules/s4d_pretrain_100e.py',
    '../_base_/default_runtime.py',
    '../_base_/strategies/fsdp.py',
]
# bfloat16 needs no loss scaling
optim_wrapper = dict(dtype='bfloat16', loss_scale=dict(enabled=False))
