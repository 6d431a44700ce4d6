# S4D fine-tuning on DFEW (fold 1) and AffectNet (arXiv 2409.06154), the same
# steps on 1, 2, 4, 8 ... GPUs:
#   tools/dist_train.sh configs/s4d_finetune_dfew.py 2 \
#       --cfg-options load_from=work_dirs/s4d_pretrain/epoch_100.pth
# The other folds: --cfg-options fold=2 (to 5), or tools/kfold.py
_base_ = [
    '_base_/models/s4d_base.py',
    '_base_/datasets/dfew_affectnet.py',
    '_base_/schedules/s4d_finetune_100e.py',
    '_base_/default_runtime.py',
]
# Mixup 0.8 or CutMix 1.0, one of them for every batch, with the batch reversed
model = dict(
    data_preprocessor=dict(
        blending=dict(
            video=dict(
                type='RandomBatchAugment',
                augments=[
                    dict(type='ReversedMixupBlending', alpha=0.8, num_classes=7),
                    dict(type='ReversedCutmixBlending', alpha=1.0, num_classes=7),
                ],
            ),
            image=dict(
                type='RandomBatchAugment',
                augments=[
                    dict(type='ReversedMixupBlending', alpha=0.8, num_classes=7),
                    dict(type='ReversedCutmixBlending', alpha=1.0, num_classes=7),
                ],
            ),
        )
    )
)
# beside the last checkpoints, that of the best epoch: best_video_WAR_epoch_<n>.pth
default_hooks = dict(checkpoint=dict(save_best='video/WAR', rule='greater'))
