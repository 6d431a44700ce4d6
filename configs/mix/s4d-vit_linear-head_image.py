# S4D's ViT in mmpretrain's classifier; images alone, with mmpretrain's
# dataset, pipeline, preprocessor and head. Its heads want a tuple:
# out_indices.
_base_ = [
    '../_base_/datasets/quickstart_image.py',
    '../_base_/schedules/quickstart_10e.py',
    '../_base_/default_runtime.py',
]
default_scope = 'mmpretrain'
visualizer = dict(
    _delete_=True, type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')]
)
data_preprocessor = dict(
    num_classes=7, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True
)
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='S4DViT',
        arch=dict(embed_dims=128, num_layers=4, num_heads=4),
        img_size=80,
        num_frames=4,
        out_type='avg',
        out_indices=(-1,),
    ),
    head=dict(type='LinearClsHead', num_classes=7, in_channels=128),
)
