# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, from a batch of the data loader to the input of the model.

Shapes use the letters of :mod:`s4d_mm.models`.
"""

from collections.abc import Sequence

import torch
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import MODELS
from torch import Tensor

MODALITIES = ('video', 'image')


@MODELS.register_module()
class DualModalDataPreprocessor(BaseDataPreprocessor):
    """Put a batch of clips or of images on the device, normalise and blend.

    For one modality the numbers are those of mmaction2's ``ActionDataPreprocessor``. In contrast to
    it, the modality may change from batch to batch, the pixels travel to the device as they come
    from the data loader (uint8), and shapes that differ are an error where it would pad.

    Args:
        mean (Sequence[float]): Mean of each channel, 0..255.
        std (Sequence[float]): Standard deviation of each channel, 0..255.
        blending (dict[str, dict], optional): Configs of :class:`ReversedMixupBlending`,
            :class:`ReversedCutmixBlending` or mmaction2's ``RandomBatchAugment`` and others for
            training, under 'video' and/or 'image', since the modalities may have different
            numbers of classes.
        merge_views (bool): Whether to make each view a sample of its own, as masked pre-training
            needs.
        pack_views (bool): Whether in testing the samples of a batch may have different numbers of
            views, as with ``SampleClipViews(merge_equal=True)``, for ``DualModalHead``. Where
            they differ, the views are packed one after the other.
        image_frames (int, optional): If given, images become clips of this many equal frames, for
            backbones that take clips only.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        blending: dict[str, dict] | None = None,
        merge_views: bool = False,
        pack_views: bool = False,
        image_frames: int | None = None,
    ) -> None:
        super().__init__(non_blocking=True)
        blending = blending or {}
        if not set(blending) <= set(MODALITIES):
            raise ValueError(
                'blending of DualModalDataPreprocessor must be a dict with the keys '
                f'{MODALITIES}, but has the keys {tuple(blending)}.'
            )
        if len(mean) != len(std) or max(std) < 1:
            raise ValueError(
                'mean and std of DualModalDataPreprocessor must be those of pixels in 0..255, with '
                f'one value per channel, but are {mean!r} and {std!r}.'
            )
        self.register_buffer('mean', torch.tensor(mean, dtype=torch.float32), persistent=False)
        self.register_buffer('std', torch.tensor(std, dtype=torch.float32), persistent=False)
        self.blending = {
            name: MODELS.build(cfg) for name, cfg in blending.items() if cfg is not None
        }
        self.merge_views = merge_views
        self.pack_views = pack_views
        self.image_frames = image_frames

    @torch.compiler.disable  # numbers drawn on the host would compile again
    def forward(self, data: dict, training: bool = False) -> dict:
        """Preprocess a batch.

        Args:
            data (dict): ``inputs``, a tensor (V, 3, T, H, W) of each clip or (V, 3, H, W) of each
                image; ``data_samples``.
            training (bool): Whether to blend. Defaults to False.

        Returns:
            dict: ``inputs``, float32 (B, V, 3, [T, ]H, W), or (B * V, 3, [T, ]H, W) with
            ``merge_views``, where images have T with ``image_frames`` only; ``data_samples``, with
            ``input_type`` in their meta information. With ``pack_views``, where the samples
            differ in V, (sum of V, 1, 3, [T, ]H, W) and ``num_views`` in the meta information.
        """
        inputs, data_samples = list(data['inputs']), data['data_samples']
        pack = self.pack_views and not training
        input_type = self._check_batch(inputs, data_samples, pack)
        x = self._stack(inputs, data_samples, pack)
        per_channel = (-1,) + (1,) * (x.ndim - 3)
        x = x.float().sub_(self.mean.view(per_channel)).div_(self.std.view(per_channel))
        if training and input_type in self.blending:
            x, data_samples = self.blending[input_type](x, data_samples)
        if self.image_frames is not None and input_type == 'image':
            # B V 3 H W -> B V 3 T H W
            x = x[:, :, :, None].expand(-1, -1, -1, self.image_frames, -1, -1)
        if self.merge_views:
            x = x.flatten(0, 1)
        return dict(inputs=x, data_samples=self.cast_data(data_samples))

    def _check_batch(self, inputs: list[Tensor], data_samples: list, any_views: bool) -> str:
        modalities, shapes = {}, {}  # each with the name of the first sample that has it
        for i, (x, sample) in enumerate(zip(inputs, data_samples)):
            name = sample.metainfo.get('sample_id', f'(sample {i} of the batch)')
            if x.ndim not in (4, 5) or x.shape[1] != len(self.mean):
                raise ValueError(
                    f'Sample {name!r} has the shape {tuple(x.shape)}, but must be (views, '
                    f'{len(self.mean)}, H, W) or (views, {len(self.mean)}, T, H, W). End the '
                    "pipeline with FormatShape(input_format='NCTHW') for clips, 'NCHW' for images."
                )
            if 'input_type' not in sample.metainfo:
                sample.set_metainfo(dict(input_type='video' if x.ndim == 5 else 'image'))
            modalities.setdefault(sample.input_type, name)
            shapes.setdefault(tuple(x.shape[any_views:]), name)
        for what, found in (('modalities', modalities), ('shapes', shapes)):
            if len(found) > 1:
                listed = ', '.join(f'{name!r} {value}' for value, name in found.items())
                raise ValueError(
                    f'A batch has samples of different {what}: {listed}. Give both modalities '
                    "batch_sampler=dict(type='DualModalBatchSampler'), and let the pipeline resize "
                    'or crop to one size. In testing views may differ with pack_views=True.'
                )
        (input_type,) = modalities
        return input_type

    def _stack(self, inputs: list[Tensor], data_samples: list, pack: bool) -> Tensor:
        inputs_on_device = self.cast_data(inputs)
        if pack and len({len(x) for x in inputs}) > 1:
            for x, sample in zip(inputs, data_samples):
                sample.set_metainfo(dict(num_views=len(x)))
            return torch.cat(inputs_on_device)[:, None]  # sum of V, 1, 3 [T] H W
        return torch.stack(inputs_on_device)  # B V 3 [T] H W
