# S4D fine-tuning on FERV39k and AffectNet (arXiv 2409.06154). FERV39k has one
# split; its clips are short, so every frame is taken.
_base_ = './s4d_finetune_dfew.py'
train_pipeline = _base_.train_pipeline
train_pipeline[1]['frame_interval'] = 1  # SampleClipWindow
test_pipeline = _base_.test_pipeline
test_pipeline[1]['frame_interval'] = 1  # SampleClipViews
train_dataloader = dict(
    dataset=dict(
        video=dict(
            type='FERV39k',
            data_root='data/FERV39k',
            ann_file='annotations/train.csv',
            pipeline=train_pipeline,
        )
    )
)
val_dataloader = dict(
    dataset=dict(
        pipeline=test_pipeline,
        video=dict(type='FERV39k', data_root='data/FERV39k', ann_file='annotations/test.csv'),
    )
)
test_dataloader = val_dataloader
