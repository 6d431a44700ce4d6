# Ten epochs of AdamW, for small sets.
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.05))
param_scheduler = [dict(type='CosineAnnealingLR', eta_min=0.0, convert_to_iter_based=True)]
train_cfg = dict(type='ResumableEpochBasedTrainLoop', max_epochs=10, val_interval=10)
