# S4D on clips of your own. The page for it: docs/own_data.md
#   python tools/train.py configs/own/own_clips.py             # a CPU or one GPU
#   tools/dist_train.sh configs/own/own_clips.py 8 --auto-scale-lr   # 8 GPUs
_base_ = [
    '../_base_/models/s4d_base.py',
    '../_base_/datasets/dfew_affectnet.py',  # its pipelines
    '../_base_/schedules/s4d_finetune_100e.py',
    '../_base_/default_runtime.py',
]

# ------------------------------------------------ what you change
data_root = 'data/mine'  # holds clips/ and clip_lists/
classes = ('anger', 'happiness', 'neutral')
fold = 1
watched = 'test'  # list that each epoch is validated on: 'val' if you made one
batch_size = 8  # clips in a step of one process
lr = 1e-5 * batch_size / 8
max_epochs = 30
load_from = 'hf://cyinen/S4D/vit_base_voxceleb2+affectnet_100.pt'
# ----------------------------------------------------------------

model = dict(cls_head=dict(num_classes=dict(_delete_=True, video=len(classes))))
clips = dict(
    type='ExpressionVideoDataset',
    data_root=data_root,
    data_prefix=dict(video='clips'),
    metainfo=dict(classes=classes),
)
train_dataloader = dict(
    _delete_=True,
    batch_size=batch_size,
    num_workers=2,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='SeededSampler', shuffle=True),
    dataset=dict(
        ann_file=f'clip_lists/set_{fold}_train.csv', pipeline=_base_.train_pipeline, **clips
    ),
)
test_dataloader = dict(
    _delete_=True,
    batch_size=batch_size,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        ann_file=f'clip_lists/set_{fold}_test.csv',
        pipeline=_base_.test_pipeline,
        test_mode=True,
        **clips,
    ),
)
val_dataloader = dict(
    _delete_=True,
    batch_size=batch_size,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        ann_file=f'clip_lists/set_{fold}_{watched}.csv',
        pipeline=_base_.test_pipeline,
        test_mode=True,
        **clips,
    ),
)
optim_wrapper = dict(optimizer=dict(lr=lr))
train_cfg = dict(max_epochs=max_epochs)
auto_scale_lr = dict(base_batch_size=batch_size)
default_hooks = dict(checkpoint=dict(save_best='WAR', rule='greater', max_keep_ckpts=1))
