# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, from a batch of the data loader to the input of the model.

Shapes use the letters of :mod:`s4d_mm.models`.
"""

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import MODELS
from mmengine.utils import is_list_of
from torch import Tensor, nn

from ..settings import check_pixel_statistics
from .batch_augments import crop_and_resize

MODALITIES = ('video', 'image')
INTERPOLATIONS = ('bilinear', 'bicubic')


def never_compiled(function: Callable) -> Callable:
    """``torch.compiler.disable``, without the import of the compiler where nobody compiles."""
    disabled = None

    @functools.wraps(function)
    def call(*args, **kwargs):
        nonlocal disabled
        if 'torch._dynamo' not in sys.modules:
            return function(*args, **kwargs)
        if disabled is None:
            disabled = torch.compiler.disable(function)
        return disabled(*args, **kwargs)

    return call


@MODELS.register_module()
class DualModalDataPreprocessor(BaseDataPreprocessor):
    """Put a batch of clips or of images on the device, normalise and blend.

    For one modality the numbers are those of mmaction2's
    ``ActionDataPreprocessor``. In contrast to it, the modality may change from
    batch to batch, the pixels travel to the device as they come from the data
    loader (uint8), and shapes that differ are an error where it would pad.

    Args:
        mean (Sequence[float]): Mean of each channel, 0..255.
        std (Sequence[float]): Standard deviation of each channel, 0..255.
        blending (dict[str, dict], optional): Configs of
            :class:`ReversedMixupBlending`, :class:`ReversedCutmixBlending` or
            mmaction2's ``RandomBatchAugment`` and others for training, under
            'video' and/or 'image', since the modalities may have different
            numbers of classes. Defaults to None.
        merge_views (bool): Whether to make each view a sample of its own, as
            masked pre-training needs. Defaults to False.
        pack_views (bool): Whether in testing the samples of a batch may have
            different numbers of views, as with
            ``SampleClipViews(merge_equal=True)``, for ``DualModalHead``. Where
            they differ, the views are packed one after the other. Defaults to
            False.
        crops (dict[str, dict], optional): Windows to cut on the device, under
            'video' and/or 'image': ``dict(video=dict(size=160,
            interpolation='bilinear'))``, for pipelines with
            :class:`RandomCropBoxes`. Defaults to None.
        augments (dict[str, list[dict]], optional): Configs of augmentations
            of the uint8 pixels for training, done one after the other on the
            device, under 'video' and/or 'image':
            :class:`BatchRandAugment`, :class:`BatchRandomResizedCrop`,
            :class:`BatchRandomErasing`. They come before ``crops``. Defaults
            to None.
        image_frames (int, optional): If given, images become clips of this
            many equal frames, for backbones that take clips only. Defaults to
            None, which leaves them images.

    Raises:
        ValueError: If ``mean`` and ``std`` do not fit each other or are of pixels in 0..1,
            ``blending``, ``crops`` or ``augments`` has other keys,
            ``blending`` comes with ``merge_views``, or ``image_frames`` is
            below 1.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        blending: dict[str, dict] | None = None,
        merge_views: bool = False,
        pack_views: bool = False,
        crops: dict[str, dict] | None = None,
        image_frames: int | None = None,
        augments: dict[str, list[dict]] | None = None,
    ) -> None:
        super().__init__(non_blocking=True)
        blending, crops, augments = blending or {}, crops or {}, augments or {}
        check_options(mean, std, blending, merge_views, crops, augments, image_frames)
        self.register_buffer('mean', torch.tensor(mean, dtype=torch.float32), persistent=False)
        self.register_buffer('std', torch.tensor(std, dtype=torch.float32), persistent=False)
        self.blending = {
            name: MODELS.build(cfg) for name, cfg in blending.items() if cfg is not None
        }
        self.augments = nn.ModuleDict({name: MODELS.build(cfgs) for name, cfgs in augments.items()})
        self.merge_views = merge_views
        self.pack_views = pack_views
        self.crops = crops
        self.image_frames = image_frames

    @never_compiled  # numbers drawn on the host would compile again
    def forward(self, data: dict, training: bool = False) -> dict:
        """Preprocess a batch.

        Args:
            data (dict): ``inputs``, a tensor (V, 3, T, H, W) of each clip or
                (V, 3, H, W) of each image; ``data_samples``.
            training (bool): Whether to augment and blend. Defaults to False.

        Returns:
            dict: ``inputs``, float32 (B, V, 3, [T, ]H, W), or
            (B * V, 3, [T, ]H, W) with ``merge_views``, where images have T
            with ``image_frames`` only; ``data_samples``, with ``input_type``
            in their meta information. With ``pack_views``, where the samples
            differ in V, (sum of V, 1, 3, [T, ]H, W) and ``num_views`` in the
            meta information.

        Raises:
            ValueError: If the samples differ in shape or modality, or have
                another shape than those above.
        """
        inputs, data_samples = list(data['inputs']), data['data_samples']
        pack = self.pack_views and not training
        input_type = self._check_batch(inputs, data_samples, pack)
        boxes = self._check_boxes(inputs, data_samples, input_type)
        x = self._stack(inputs, data_samples, pack)
        if training and input_type in self.augments:
            x = self._augment(x, input_type, boxes is not None)
        if boxes is not None:
            x = crop_and_resize(x[:, 0], boxes, **self.crops[input_type])
        x = self._normalise(x)
        if training and input_type in self.blending:
            x, data_samples = self.blending[input_type](x, data_samples)
        if self.image_frames is not None and input_type == 'image':
            # B V 3 H W -> B V 3 T H W
            x = x[:, :, :, None].expand(-1, -1, -1, self.image_frames, -1, -1)
        if self.merge_views:
            x = x.flatten(0, 1)
        return dict(inputs=x, data_samples=self.cast_data(data_samples))

    def _check_batch(self, inputs: list[Tensor], data_samples: list, any_views: bool) -> str:
        """Check the shapes; set and return the modality."""
        names = [
            sample.metainfo.get('sample_id', f'(sample {i} of the batch)')
            for i, sample in enumerate(data_samples)
        ]
        types = [
            self._check_sample(name, x, sample)
            for name, x, sample in zip(names, inputs, data_samples)
        ]
        require_equal(
            names, types, 'modalities', "use batch_sampler=dict(type='DualModalBatchSampler')"
        )
        require_equal(
            names,
            [tuple(x.shape[any_views:]) for x in inputs],
            'shapes',
            'let the pipeline resize or crop all of them to one size (in testing, numbers of '
            'views may differ with pack_views=True)',
        )
        return types[0]

    def _check_sample(self, name: str, x: Tensor, sample: Any) -> str:
        """Check the shape of a sample; set and return its modality."""
        if x.ndim not in (4, 5) or x.shape[1] != len(self.mean):
            raise ValueError(
                f'Sample {name!r} has the shape {tuple(x.shape)}, but must be (views, '
                f'{len(self.mean)}, H, W) or (views, {len(self.mean)}, T, H, W). End the '
                "pipeline with FormatShape(input_format='NCTHW') for clips, 'NCHW' for images."
            )
        if 'input_type' not in sample.metainfo:
            sample.set_metainfo(dict(input_type='video' if x.ndim == 5 else 'image'))
        if sample.input_type not in MODALITIES:
            raise ValueError(
                f'Sample {name!r} has the input_type {sample.input_type!r}, but must have one '
                f'of {MODALITIES}.'
            )
        return sample.input_type

    def _check_boxes(
        self, inputs: list[Tensor], data_samples: list, input_type: str
    ) -> Tensor | None:
        """Check the windows that the pipeline drew, if any; return them, (B, V, 5)."""
        boxes = [sample.metainfo.get('crop_boxes') for sample in data_samples]
        given = [b is not None for b in boxes]
        if not any(given) and input_type not in self.crops:
            return None
        if input_type not in self.crops:
            raise ValueError(
                f'The {input_type} pipeline draws crop_boxes, but crops of '
                f'DualModalDataPreprocessor has no {input_type!r}. Add '
                f'crops=dict({input_type}=dict(size=160)), or leave crop_boxes out of meta_keys '
                'if the pipeline cuts the windows itself.'
            )
        if not all(given):
            raise ValueError(
                f'crops of DualModalDataPreprocessor has {input_type!r}, but not every sample '
                f'has crop_boxes. Put RandomCropBoxes into the {input_type} pipeline and '
                'crop_boxes into meta_keys of PackActionInputs.'
            )
        if any(len(x) != 1 for x in inputs):
            raise ValueError(
                f'crop_boxes go with one view of a sample, but there are {max(map(len, inputs))}.'
            )
        return torch.from_numpy(np.stack(boxes))

    def _stack(self, inputs: list[Tensor], data_samples: list, pack: bool) -> Tensor:
        """Put the pixels on the device, as they are, in one tensor."""
        inputs_on_device = self.cast_data(inputs)
        if pack and len({len(x) for x in inputs}) > 1:
            for x, sample in zip(inputs, data_samples):
                sample.set_metainfo(dict(num_views=len(x)))
            return torch.cat(inputs_on_device)[:, None]  # sum of V, 1, 3 [T] H W
        return torch.stack(inputs_on_device)  # B V 3 [T] H W

    def _augment(self, x: Tensor, input_type: str, has_boxes: bool) -> Tensor:
        """Augment pixels (B, V, 3, [T, ]H, W) with numbers of this process.

        Where a run gives all its processes one seed (the recipes do not), the first samples of
        all of them would be augmented alike, and the second ones too.
        """
        size = x.shape[-2:]
        seed = int(torch.randint(2**62, ())) + get_rank()
        devices = [x.device] if x.is_cuda else []
        # half precision would lose grey levels
        with torch.random.fork_rng(devices), torch.autocast(x.device.type, enabled=False):
            torch.manual_seed(seed)
            x = self.augments[input_type](x)
        if has_boxes and x.shape[-2:] != size:
            raise ValueError(
                f'augments of DualModalDataPreprocessor make {input_type} pictures of '
                f'{tuple(x.shape[-2:])} out of {tuple(size)} (height, width), for which '
                f'crop_boxes were drawn. Leave {input_type!r} out of crops and RandomCropBoxes '
                'out of the pipeline, or BatchRandomResizedCrop out of augments.'
            )
        return x

    def _normalise(self, x: Tensor) -> Tensor:
        """float32 pixels of mean 0 and deviation 1, (B, V, 3, [T, ]H, W)."""
        per_channel = (-1,) + (1,) * (x.ndim - 3)
        x = x.to(torch.float32)
        return x.sub_(self.mean.view(per_channel)).div_(self.std.view(per_channel))


def require_equal(names: list[str], values: list, what: str, advice: str) -> None:
    """Raise a ``ValueError`` if the samples of a batch differ in a value."""
    if len(set(values)) > 1:
        # the first sample of each kind says enough
        found = ', '.join(f'{names[values.index(v)]!r} {v}' for v in dict.fromkeys(values))
        raise ValueError(f'A batch has samples of different {what}: {found}; {advice}.')


def check_options(
    mean: Sequence[float],
    std: Sequence[float],
    blending: dict,
    merge_views: bool,
    crops: dict,
    augments: dict,
    image_frames: int | None,
) -> None:
    """Raise a ``ValueError`` about an option of the data preprocessor."""
    check_pixel_statistics('DualModalDataPreprocessor', mean, std)
    if not set(blending) <= set(MODALITIES):
        raise ValueError(
            'blending of DualModalDataPreprocessor must be a dict like '
            "dict(video=dict(type='MixupBlending', ...)) with the keys "
            f'{MODALITIES}, but has the keys {tuple(blending)}.'
        )
    if blending and merge_views:
        raise ValueError(
            'DualModalDataPreprocessor cannot blend with merge_views=True, since views have no '
            'label of their own. Leave one out.'
        )
    for name, cfg in crops.items():
        if name not in MODALITIES or not (
            'size' in cfg
            and set(cfg) <= {'size', 'interpolation'}
            and cfg.get('interpolation', 'bilinear') in INTERPOLATIONS
        ):
            raise ValueError(
                'crops of DualModalDataPreprocessor must be a dict like '
                "dict(video=dict(size=160, interpolation='bilinear')) with the keys "
                f'{MODALITIES} and one of the interpolations {INTERPOLATIONS}, but is {crops!r}.'
            )
    if not (
        isinstance(augments, dict)
        and set(augments) <= set(MODALITIES)
        and all(is_list_of(cfgs, dict) for cfgs in augments.values())
    ):
        raise ValueError(
            'augments of DualModalDataPreprocessor must be a dict like '
            "dict(video=[dict(type='BatchRandAugment', ...)]) with the keys "
            f'{MODALITIES} and lists of configs, but is {augments!r}.'
        )
    if image_frames is not None and image_frames < 1:
        raise ValueError(
            'image_frames of DualModalDataPreprocessor must be 1 or more, or None, but is '
            f'{image_frames}.'
        )
