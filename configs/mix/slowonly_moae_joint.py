# MoAE on mmaction2's SlowOnly ResNet; clips and images, which are clips of
# one frame. Full size: leave out the channels of the ResNet; 512 in neck and
# head.
_base_ = [
    '../_base_/models/mix_moae_joint.py',
    '../_base_/datasets/quickstart_joint.py',
    '../_base_/schedules/quickstart_10e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(image_frames=1),
    backbone=dict(
        type='ResNet3dSlowOnly',
        depth=18,
        base_channels=16,
        pretrained=None,
        lateral=False,
        conv1_kernel=(1, 7, 7),
        conv1_stride_t=1,
        pool1_stride_t=1,
        inflate=(0, 0, 1, 1),
        norm_eval=False,
    ),
)
