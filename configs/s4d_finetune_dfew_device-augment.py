# Fine-tuning on DFEW with the augmentation made on the device: the workers
# decode and resize only (images they also crop and mirror). For machines whose
# CPU cores are fewer than the GPUs need. For another set, put its config under
# _base_.
_base_ = './s4d_finetune_dfew.py'
mean, std = _base_.mean, _base_.std
area = dict(min_area_ratio=0.02, max_area_ratio=1 / 3)
# the options are those of the steps that the pipelines lose here, but torchvision
# moves the pixels of tensors bilinearly, not bicubically
model = dict(
    data_preprocessor=dict(
        augments=dict(
            video=[
                dict(
                    type='BatchRandAugment',
                    policies='timm_increasing',
                    num_policies=4,
                    magnitude_level=7,
                    magnitude_std=0.5,
                ),
                dict(
                    type='BatchRandomResizedCrop', size=160, area_range=(0.08, 1.0), flip_ratio=0.5
                ),
                dict(
                    type='BatchRandomErasing',
                    erase_prob=0.25,
                    mode='rand',
                    fill_color=mean,
                    fill_std=std,
                    **area,
                ),
            ],
            image=[
                dict(
                    type='BatchRandAugment',
                    policies='timm_increasing',
                    num_policies=2,
                    magnitude_level=9,
                    magnitude_std=0.5,
                ),
                dict(
                    type='BatchRandomErasing', erase_prob=0.25, mode='const', fill_color=0, **area
                ),
            ],
        )
    )
)
train_dataloader = dict(
    dataset=dict(
        video=dict(
            pipeline=[
                *_base_.train_pipeline[:4],  # as far as ClipResize
                *_base_.train_pipeline[-2:],
            ]
        ),
        image=dict(
            pipeline=[
                *_base_.image_train_pipeline[:4],  # as far as Flip
                *_base_.image_train_pipeline[-2:],
            ]
        ),
    )
)
