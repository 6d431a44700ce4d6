# Fold 2 of s4d_finetune_dfew.py.
_base_ = './s4d_finetune_dfew.py'
fold = 2
train_dataloader = dict(dataset=dict(video=dict(ann_file=f'annotations/set_{fold}_train.csv')))
val_dataloader = dict(dataset=dict(ann_file=f'annotations/set_{fold}_test.csv'))
test_dataloader = val_dataloader
