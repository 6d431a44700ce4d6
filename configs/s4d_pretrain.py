# S4D pre-training, base size (arXiv 2409.06154), the same steps on 1, 2, 4, 8 ...
# GPUs:
#   tools/dist_train.sh configs/s4d_pretrain.py 2
_base_ = [
    '_base_/models/s4d_mae_base.py',
    '_base_/datasets/voxceleb2_affectnet_pretrain.py',
    '_base_/schedules/s4d_pretrain_100e.py',
    '_base_/default_runtime.py',
]
