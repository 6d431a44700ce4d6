# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The two models of S4D in a size for tests, and input for them."""

import copy

import torch
from mmaction.structures import ActionDataSample
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from s4d_mm.weights.s2d import to_s2d_authors

ARCH = dict(embed_dims=32, num_layers=4, num_heads=4)
DECODER = dict(embed_dims=24, num_layers=2, num_heads=3)
SIZE = dict(img_size=32, num_frames=4)
IMAGES, VIDEOS = (2, 3, 32, 32), (2, 3, 4, 32, 32)

PRETRAIN = dict(
    type='S4DMAE',
    data_preprocessor=dict(type='mmpretrain.SelfSupDataPreprocessor'),
    backbone=dict(type='S4DMAEViT', arch=ARCH, mask_ratio=0.5, **SIZE),
    neck=dict(type='S4DMAEDecoder', in_channels=32, arch=DECODER, **SIZE),
    head=dict(type='S4DMAEHead'),
)
DECODER_MASKING = dict(PRETRAIN, neck=dict(PRETRAIN['neck'], mask_ratio=0.5))
FINETUNE = dict(
    type='DualModalRecognizer',
    backbone=dict(type='S4DViT', arch=ARCH, depth=2, **SIZE),
    neck=dict(type='MoAENeck', arch=ARCH, num_layers=2, num_experts=4, top_k=2),
    cls_head=dict(
        type='DualModalHead',
        in_channels=32,
        num_classes=dict(video=7, image=8),
        label_smooth_eps=0.1,
    ),
)


def build(cfg, scope='mmaction', seed=0):
    init_default_scope(scope)
    torch.manual_seed(seed)
    model = MODELS.build(copy.deepcopy(cfg))
    model.init_weights()
    return model


def inputs(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def samples(input_type, labels):
    return [ActionDataSample(metainfo=dict(input_type=input_type)).set_gt_label(y) for y in labels]


def run(model, shape):
    """Losses of one batch, of either model."""
    x = inputs(shape)
    if hasattr(model, 'cls_head'):
        kind = 'image' if len(shape) == 4 else 'video'
        return model(x[:, None], samples(kind, [1, 6]), mode='loss')
    return model(x, mode='loss')


def pixel_batch(input_type, size=4, shape=None, meta=True, seed=0):
    """A batch of the data loader: random uint8 pixels, labels 0, 1, 2 ..."""
    generator = torch.Generator().manual_seed(seed)
    shape = shape or dict(video=(1, 3, 4, 8, 8), image=(1, 3, 8, 8))[input_type]
    data_samples = []
    for i in range(size):
        sample = ActionDataSample().set_gt_label(i % 7)
        if meta:
            sample.set_metainfo(dict(input_type=input_type, sample_id=f'{input_type}{i}'))
        data_samples.append(sample)
    pixels = torch.randint(0, 256, (size, *shape), dtype=torch.uint8, generator=generator)
    return dict(inputs=list(pixels), data_samples=data_samples)


_PACK = dict(type='PackActionInputs', meta_keys=('input_type', 'sample_id'))
# a whole config of the fine-tuning model: clips of 4 frames, every 2nd; names in the checkpoint
PREDICT = dict(
    default_scope='mmaction',
    model=dict(
        FINETUNE,
        data_preprocessor=dict(type='DualModalDataPreprocessor', mean=[0.0] * 3, std=[255.0] * 3),
    ),
    test_pipeline=[
        dict(type='ClipInit'),
        dict(type='SampleClipViews', clip_len=4, frame_interval=2, num_views=2),
        dict(type='ClipDecode'),
        dict(type='ClipResize', scale=(32, 32)),
        dict(type='FormatShape', input_format='NCTHW'),
        _PACK,
    ],
    image_test_pipeline=[
        dict(type='ImageLoad'),
        dict(type='ClipResize', scale=(32, 32)),
        dict(type='FormatShape', input_format='NCHW'),
        _PACK,
    ],
)
CLASSES = dict(video=tuple('abcdefg'), image=tuple('ABCDEFGH'))


def save_checkpoint(path, change=None):
    """Weights of FINETUNE that tell pictures apart, with CLASSES; ``change`` may alter them."""
    weights = build(FINETUNE, seed=5).state_dict()
    for name, value in weights.items():
        if 'classifiers' in name and name.endswith('weight'):
            value.mul_(30)
    if change:
        change(weights)
    torch.save(dict(state_dict=weights, meta=dict(dataset_meta=dict(classes=CLASSES))), path)
    return str(path)


# a small S2D: its landmark network, its backbone and its head
S2D_NET = dict(channels=(8, 8, 16), widths=(16, 16, 32, 32), depths=(1, 1))
S2D = dict(
    type='S2DViT',
    arch=dict(embed_dims=32, num_layers=2, num_heads=4, feedforward_channels=64),
    img_size=32,
    patch_size=8,
    num_frames=4,
    prompt_dims=4,
    adapter_ratio=0.25,
    adapter_heads=2,
    landmark=dict(type='LandmarkMobileFaceNet', input_size=32, **S2D_NET),
)
S2D_HEAD = dict(type='ViewsI3DHead', num_classes=7, in_channels=32, average_clips='prob')
# layers of the authors' file that S2D does not use
TAIL = ('conv_45.conv.conv', 'conv_5.model.0.conv.conv', 'conv_6_sep.conv', 'output_layer.linear')


def s2d_weights():
    """Random weights of S2D under the names of its authors' code."""
    model = nn.ModuleDict(dict(backbone=build(S2D), cls_head=build(S2D_HEAD)))
    for param in model.parameters():  # also where the initial value is zero
        param.data += 0.1 * torch.randn_like(param)
    return to_s2d_authors(model.state_dict())[0]


def write_landmark_net(path, prefix='', **sizes):
    """A file of S2D's landmark network, as its authors save it, with random weights."""
    weights = build(dict(type='LandmarkMobileFaceNet', **sizes)).state_dict()
    weights.update({f'{name}.weight': torch.zeros(2, 2) for name in TAIL})
    torch.save(dict(state_dict={f'{prefix}{k}': v for k, v in weights.items()}, epoch=3), path)
    return str(path)
