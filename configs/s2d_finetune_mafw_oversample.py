# As s2d_finetune_mafw.py, with each class drawn equally often: as many clips as there are,
# with replacement (the second columns of the authors' results).
_base_ = './s2d_finetune_mafw.py'
train_dataloader = dict(sampler=dict(balance=('video',)))
