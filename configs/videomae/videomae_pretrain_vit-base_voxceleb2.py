# VideoMAE pre-training of mmaction2's ViT-B on the faces of VoxCeleb2: S4D's
# recipe (100 epochs, 4 crops of each decoded clip) without images, masked in
# tubes (arXiv 2203.12602):
#   tools/dist_train.sh configs/videomae/videomae_pretrain_vit-base_voxceleb2.py 2
_base_ = [
    '../_base_/models/videomae_base.py',
    '../_base_/datasets/voxceleb2_affectnet_pretrain.py',
    '../_base_/schedules/s4d_pretrain_100e.py',
    '../_base_/default_runtime.py',
]
model = dict(backbone=dict(img_size=160, mask_ratio=0.95), neck=dict(img_size=160))
train_dataloader = dict(
    _delete_=True,
    batch_size=48,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='SeededSampler', shuffle=True),
    dataset=_base_.train_dataloader.dataset.video,
)
# the lr is that of 384 samples: 2 processes x 48 clips x 4 crops
auto_scale_lr = dict(enable=False, base_batch_size=2 * 48)
