# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, from a batch of the data loader to the input of the model.

Letters: B samples, V views of a sample, C colour channels, T frames.
"""

from collections.abc import Sequence
from typing import Optional

import numpy as np
import torch
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import MODELS
from mmengine.utils import is_list_of
from torch import Tensor, nn


from .device_augment import ProcessRandom
from .device_blending import blend
from .device_crops import TAPS, crop_and_resize

MODALITIES = ('video', 'image')


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
        blending (dict[str, dict], optional): Configs of :class:`BatchMixup`,
            :class:`BatchCutMix` or mmaction2's batch augmentations for
            training, under 'video' and/or 'image', since the modalities may
            have different numbers of classes. Defaults to None.
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
        mixed (bool): Whether a training batch may hold both modalities, as
            with ``DualModalBatchSampler(batching='mixed')``. Their inputs are
            then a dict of two tensors. Defaults to False.
        image_frames (int, optional): If given, images become clips of this
            many equal frames, for backbones that take clips only. Defaults to
            None, which leaves them images.

    Raises:
        ValueError: If ``mean`` and ``std`` do not fit each other,
            ``blending``, ``crops`` or ``augments`` has other keys,
            ``blending`` comes with ``merge_views``, or ``image_frames`` is
            below 1.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        blending: Optional[dict[str, dict]] = None,
        merge_views: bool = False,
        pack_views: bool = False,
        crops: Optional[dict[str, dict]] = None,
        image_frames: Optional[int] = None,
        mixed: bool = False,
        augments: Optional[dict[str, list[dict]]] = None,
    ) -> None:
        super().__init__(non_blocking=True)
        if len(mean) != len(std) or min(std) <= 0:
            raise ValueError(
                'mean and std of DualModalDataPreprocessor must have one '
                'value per channel, and std must be positive, but got '
                f'mean={mean!r} and std={std!r}.'
            )
        self.register_buffer('mean', torch.tensor(mean, dtype=torch.float32), persistent=False)
        self.register_buffer('std', torch.tensor(std, dtype=torch.float32), persistent=False)
        blending = blending or {}
        if not set(blending) <= set(MODALITIES):
            raise ValueError(
                'blending of DualModalDataPreprocessor must be a dict like '
                f"dict(video=dict(type='BatchMixup', ...)) with the keys "
                f'{MODALITIES}, but has the keys {tuple(blending)}.'
            )
        crops = crops or {}
        for name, cfg in crops.items():
            if name not in MODALITIES or not (
                'size' in cfg
                and set(cfg) <= {'size', 'interpolation'}
                and cfg.get('interpolation', 'bilinear') in TAPS
            ):
                raise ValueError(
                    'crops of DualModalDataPreprocessor must be a dict like '
                    "dict(video=dict(size=160, interpolation='bilinear')) "
                    f'with the keys {MODALITIES} and one of the '
                    f'interpolations {tuple(TAPS)}, but is {crops!r}.'
                )
        self.crops = crops
        if blending and merge_views:
            raise ValueError(
                'DualModalDataPreprocessor cannot blend with merge_views='
                'True, since views have no label of their own. Leave one out.'
            )
        self.blending = {
            name: MODELS.build(cfg) for name, cfg in blending.items() if cfg is not None
        }
        augments = augments or {}
        if not (
            isinstance(augments, dict)
            and set(augments) <= set(MODALITIES)
            and all(is_list_of(cfgs, dict) for cfgs in augments.values())
        ):
            raise ValueError(
                'augments of DualModalDataPreprocessor must be a dict like '
                "dict(video=[dict(type='BatchRandAugment', ...)]) with the "
                f'keys {MODALITIES} and lists of configs, but is '
                f'{augments!r}.'
            )
        self.augments = nn.ModuleDict({name: MODELS.build(cfgs) for name, cfgs in augments.items()})
        self.random = ProcessRandom()
        if image_frames is not None and image_frames < 1:
            raise ValueError(
                'image_frames of DualModalDataPreprocessor must '
                f'be 1 or more, or None, but is {image_frames}.'
            )
        self.merge_views = merge_views
        self.pack_views = pack_views
        self.image_frames = image_frames
        self.mixed = mixed

    @torch.compiler.disable  # numbers drawn on the host would compile again
    @torch.no_grad()
    def forward(self, data: dict, training: bool = False) -> dict:
        """Preprocess a batch.

        Args:
            data (dict): ``inputs``, a tensor (V, C, T, H, W) of each clip or
                (V, C, H, W) of each image; ``data_samples``.
            training (bool): Whether to augment and blend. Defaults to False.

        Returns:
            dict: ``inputs``, float32 (B, V, C, [T, ]H, W), or
            (B * V, C, [T, ]H, W) with ``merge_views``, where images have T
            with ``image_frames`` only; ``data_samples``, with ``input_type``
            in their meta information. With ``pack_views``, where the samples
            differ in V, (sum of V, 1, C, [T, ]H, W) and ``num_views`` in the
            meta information. Of a batch with both modalities (``mixed``):
            ``inputs``, a dict of such tensors by modality; ``data_samples``,
            in the same order.

        Raises:
            ValueError: If the samples differ in shape, or without ``mixed`` in
                modality, or have another shape than those above.
        """
        inputs, data_samples = list(data['inputs']), data['data_samples']
        if self.mixed and training:
            parts = self._split(inputs, data_samples)
            if len(parts) > 1:
                done = {name: self._forward(*part, training) for name, part in parts.items()}
                return dict(
                    inputs={name: x for name, (x, _) in done.items()},
                    data_samples=sum((s for _, s in done.values()), []),
                )
        x, data_samples = self._forward(inputs, data_samples, training)
        return dict(inputs=x, data_samples=data_samples)

    def _forward(
        self, inputs: list[Tensor], data_samples: list, training: bool
    ) -> tuple[Tensor, list]:
        """A batch of one modality."""
        pack = self.pack_views and not training
        input_type = self._check(inputs, data_samples, pack)
        boxes = self._boxes(input_type, inputs, data_samples)
        if pack and len({len(x) for x in inputs}) > 1:
            for x, sample in zip(inputs, data_samples):
                sample.set_metainfo(dict(num_views=len(x)))
            x = torch.cat(self.cast_data(inputs))[:, None]  # sum of V, 1 ...
        else:
            x = torch.stack(self.cast_data(inputs))  # B V C [T] H W
        if training and input_type in self.augments:
            # half precision would lose grey levels
            with self.random, torch.autocast(x.device.type, enabled=False):
                size, x = x.shape[-2:], self.augments[input_type](x)
            if boxes is not None and x.shape[-2:] != size:
                raise ValueError(
                    f'augments of DualModalDataPreprocessor make {input_type} '
                    f'pictures of {tuple(x.shape[-2:])} out of {tuple(size)} '
                    '(height, width), for which crop_boxes were drawn. Leave '
                    f'{input_type!r} out of crops and RandomCropBoxes out of '
                    'the pipeline, or BatchRandomResizedCrop out of augments.'
                )
        if boxes is not None:
            x = crop_and_resize(x[:, 0], self.cast_data(boxes), **self.crops[input_type])
        per_channel = (-1,) + (1,) * (x.ndim - 3)
        x = x.to(torch.float32)
        x = x.sub_(self.mean.view(per_channel)).div_(self.std.view(per_channel))
        if training and input_type in self.blending:
            # before the labels go to the device
            x, data_samples = blend(self.blending[input_type], x, data_samples)
        if self.image_frames is not None and input_type == 'image':
            # B V C H W -> B V C T H W
            x = x[:, :, :, None].expand(-1, -1, -1, self.image_frames, -1, -1)
        if self.merge_views:
            x = x.flatten(0, 1)
        return x, self.cast_data(data_samples)

    @staticmethod
    def _split(inputs: list[Tensor], data_samples: list) -> dict[str, tuple]:
        """Inputs and data samples of each modality."""
        parts = {}
        for x, sample in zip(inputs, data_samples):
            name = sample.metainfo.get('input_type', 'video' if x.ndim == 5 else 'image')
            part = parts.setdefault(name, ([], []))
            part[0].append(x)
            part[1].append(sample)
        return parts

    def _boxes(self, input_type: str, inputs: list[Tensor], data_samples: list) -> Optional[Tensor]:
        """Windows of the batch (B, V, 5), if it has any, checked against
        ``crops``.
        """
        boxes = [s.metainfo.get('crop_boxes') for s in data_samples]
        given = [b is not None for b in boxes]
        if not any(given) and input_type not in self.crops:
            return None
        if input_type not in self.crops:
            raise ValueError(
                f'The {input_type} pipeline draws crop_boxes, but crops of '
                f'DualModalDataPreprocessor has no {input_type!r}. Add '
                f'crops=dict({input_type}=dict(size=160)), or leave '
                'crop_boxes out of meta_keys if the pipeline cuts the '
                'windows itself.'
            )
        if not all(given):
            raise ValueError(
                f'crops of DualModalDataPreprocessor has {input_type!r}, but '
                'not every sample has crop_boxes. Put RandomCropBoxes into '
                f'the {input_type} pipeline and crop_boxes into meta_keys of '
                'PackActionInputs.'
            )
        if any(len(x) != 1 for x in inputs):
            raise ValueError(
                f'crop_boxes go with one view of a sample, but there are {max(map(len, inputs))}.'
            )
        return torch.from_numpy(np.stack(boxes))

    def _check(self, inputs: list[Tensor], data_samples: list, any_views: bool) -> str:
        """Check the batch; set and return its modality."""
        names = [
            sample.metainfo.get('sample_id', f'(sample {i} of the batch)')
            for i, sample in enumerate(data_samples)
        ]
        types = []
        for name, x, sample in zip(names, inputs, data_samples):
            if x.ndim not in (4, 5) or x.shape[1] != len(self.mean):
                raise ValueError(
                    f'Sample {name!r} has the shape {tuple(x.shape)}, but '
                    f'must be (views, {len(self.mean)}, H, W) or (views, '
                    f'{len(self.mean)}, T, H, W). End the pipeline with '
                    "FormatShape(input_format='NCTHW') for clips, 'NCHW' for "
                    'images.'
                )
            if 'input_type' not in sample.metainfo:
                sample.set_metainfo(dict(input_type='video' if x.ndim == 5 else 'image'))
            types.append(sample.metainfo['input_type'])
            if types[-1] not in MODALITIES:
                raise ValueError(
                    f'Sample {name!r} has the input_type {types[-1]!r}, but '
                    f'must have one of {MODALITIES}.'
                )
        for what, values, advice in [
            (
                'modalities',
                types,
                "use batch_sampler=dict(type='DualModalBatchSampler'); if both "
                'are wanted in one step, set mixed=True of '
                'DualModalDataPreprocessor',
            ),
            (
                'shapes',
                [tuple(x.shape[any_views:]) for x in inputs],
                'let the pipeline resize or crop all of them to one size (in '
                'testing, numbers of views may differ with pack_views=True)',
            ),
        ]:
            if len(set(values)) > 1:
                # the first sample of each kind says enough
                found = ', '.join(f'{names[values.index(v)]!r} {v}' for v in dict.fromkeys(values))
                raise ValueError(f'A batch has samples of different {what}: {found}; {advice}.')
        return types[0]
