# As s4d_finetune_mafw.py, with what the authors' code really does on 2 GPUs: experts drop
# the tokens beyond their mean load, and there is no balance loss.
_base_ = './s4d_finetune_mafw.py'
model = dict(neck=dict(capacity_factor=1.0, loss_weight=0.0))
