# S2D fine-tuning on DFEW (fold 1; arXiv 2312.05447), from the authors' image model:
#   python tools/model_converters/s2d_to_mm.py Pretrain-AffectNet-7.pth start.pth \
#       --landmarks mobilefacenet_model_best.pth.tar
#   tools/dist_train.sh configs/s2d_finetune_dfew.py 2 --cfg-options load_from=start.pth
# The other folds: --cfg-options fold=2 (to 5), or tools/kfold.py
_base_ = [
    '_base_/models/s2d_base.py',
    '_base_/datasets/s2d_dfew.py',
    '_base_/schedules/s2d_finetune_100e.py',
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
            )
        )
    ),
    cls_head=dict(label_smooth_eps=0.1),
)
# beside the last checkpoints, that of the best epoch: best_WAR_epoch_<n>.pth
default_hooks = dict(checkpoint=dict(save_best='WAR', rule='greater'))
