# S4D on clips and images of your own together. The page for it: docs/own_data.md
# The same steps on a CPU and on 1, 2, 4 or 8 GPUs:
#   python tools/train.py configs/own/own_joint.py
#   tools/dist_train.sh configs/own/own_joint.py 8
_base_ = [
    '../_base_/models/s4d_base.py',
    '../_base_/datasets/dfew_affectnet.py',  # its pipelines and samplers
    '../_base_/schedules/s4d_finetune_100e.py',
    '../_base_/default_runtime.py',
]

# ------------------------------------------------ what you change
data_root = 'data/mine'  # holds clips/, clip_lists/, images/ and image_lists/
video_classes = ('anger', 'happiness', 'neutral')
image_classes = ('anger', 'disgust', 'fear', 'happiness', 'neutral', 'sadness', 'surprise')
fold = 1
watched = 'test'  # list that each epoch is validated on: 'val' if you made one
total_batch_size = dict(video=8, image=16)  # in a step of all processes
lr = 1e-5 * total_batch_size['video'] / 8
max_epochs = 30
load_from = 'hf://cyinen/S4D/vit_base_voxceleb2+affectnet_100.pt'
# ----------------------------------------------------------------

model = dict(cls_head=dict(num_classes=dict(video=len(video_classes), image=len(image_classes))))
clips = dict(
    _delete_=True,
    type='ExpressionVideoDataset',
    data_root=data_root,
    data_prefix=dict(video='clips'),
    metainfo=dict(classes=video_classes),
)
images = dict(
    _delete_=True,
    type='ExpressionImageDataset',
    data_root=data_root,
    data_prefix=dict(img='images'),
    metainfo=dict(classes=image_classes),
)
train_dataloader = dict(
    num_workers=2,
    sampler=dict(share=dict(video=1.0, image=1.0), balance=('video', 'image')),
    batch_sampler=dict(total_batch_size=total_batch_size),
    dataset=dict(
        video=dict(
            ann_file=f'clip_lists/set_{fold}_train.csv', pipeline=_base_.train_pipeline, **clips
        ),
        image=dict(
            ann_file=f'image_lists/set_{fold}_train.csv',
            pipeline=_base_.image_train_pipeline,
            **images,
        ),
    ),
)
test_dataloader = dict(
    num_workers=2,
    dataset=dict(
        video=dict(ann_file=f'clip_lists/set_{fold}_test.csv', test_mode=True, **clips),
        image=dict(
            ann_file=f'image_lists/set_{fold}_test.csv',
            pipeline=_base_.image_test_pipeline,
            test_mode=True,
            **images,
        ),
    ),
)
val_dataloader = dict(
    num_workers=2,
    dataset=dict(
        video=dict(ann_file=f'clip_lists/set_{fold}_{watched}.csv', test_mode=True, **clips),
        image=dict(
            ann_file=f'image_lists/set_{fold}_{watched}.csv',
            pipeline=_base_.image_test_pipeline,
            test_mode=True,
            **images,
        ),
    ),
)
optim_wrapper = dict(optimizer=dict(lr=lr))
train_cfg = dict(max_epochs=max_epochs)
auto_scale_lr = dict(base_batch_size=total_batch_size)
default_hooks = dict(checkpoint=dict(save_best='video/WAR', rule='greater', max_keep_ckpts=1))
