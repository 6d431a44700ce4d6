# S4D pre-training with the crops of the clips made on the device: for machines
# whose CPU cores are fewer than the GPUs need.
_base_ = [
    '_base_/models/s4d_mae_base.py',
    '_base_/datasets/voxceleb2_affectnet_pretrain_device-crops.py',
    '_base_/schedules/s4d_pretrain_100e.py',
    '_base_/default_runtime.py',
]
model = dict(data_preprocessor=dict(crops=dict(video=dict(size=160))))
