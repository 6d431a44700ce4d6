# S2D fine-tuning on FERV39k (arXiv 2312.05447) as published: without Mixup, CutMix, label
# smoothing and dropout. Its anchors are never filled, so that the second loss only pulls the
# scores to 0 (docs/s2d.md); s2d_finetune_ferv39k_anchors.py fills them.
_base_ = './s2d_finetune_dfew.py'
model = dict(
    data_preprocessor=dict(blending=dict(video=None)),
    cls_head=dict(
        type='EmotionAnchorHead',
        dropout_ratio=0.0,
        label_smooth_eps=0.0,
        update_interval=100,
        after_dropout=True,
        clip_negative=False,
        sync=False,
    ),
)
train_dataloader = dict(
    dataset=dict(
        video=dict(
            type='FERV39k',
            data_root='data/FERV39k',
            ann_file='annotations/train.csv',
            data_prefix=dict(video='frames'),
        )
    )
)
val_dataloader = dict(
    dataset=dict(
        video=dict(
            type='FERV39k',
            data_root='data/FERV39k',
            ann_file='annotations/test.csv',
            data_prefix=dict(video='frames'),
        )
    )
)
test_dataloader = val_dataloader
