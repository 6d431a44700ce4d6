# S2D fine-tuning on FERV39k with emotion anchors as the paper means them: filled from
# epoch 21 on, with the features before dropout, the same in all processes.
_base_ = './s2d_finetune_ferv39k.py'
model = dict(cls_head=dict(update_interval=1, after_dropout=False, clip_negative=True, sync=True))
