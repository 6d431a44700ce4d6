# S2D fine-tuning on MAFW (fold 1; arXiv 2312.05447).
# The other folds: --cfg-options fold=2 (to 5), or tools/kfold.py
_base_ = './s2d_finetune_dfew.py'
fold = 1
model = dict(
    data_preprocessor=dict(
        blending=dict(
            video=dict(
                augments=[
                    dict(type='ReversedMixupBlending', alpha=0.8, num_classes=11),
                    dict(type='ReversedCutmixBlending', alpha=1.0, num_classes=11),
                ]
            )
        )
    ),
    cls_head=dict(num_classes=11),
)
train_dataloader = dict(
    dataset=dict(
        video=dict(
            type='MAFW',
            data_root='data/MAFW',
            ann_file=f'annotations/set_{fold}_train.csv',
            data_prefix=dict(video='frames'),
        )
    )
)
val_dataloader = dict(
    dataset=dict(
        video=dict(
            type='MAFW',
            data_root='data/MAFW',
            ann_file=f'annotations/set_{fold}_test.csv',
            data_prefix=dict(video='frames'),
        )
    )
)
test_dataloader = val_dataloader
