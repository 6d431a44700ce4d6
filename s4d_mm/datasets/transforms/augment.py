# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Pipeline step 5: RandAugment of a clip or image by Pillow."""

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS
from PIL import Image


@TRANSFORMS.register_module()
class ClipRandAugment(BaseTransform):
    """RandAugment (arXiv 1909.13719) as timm does it, the same for all frames.

    The options are those of mmpretrain's ``RandAugment``. In contrast to it, the operations are
    Pillow's, which weigh the channels as RGB (Color, Contrast), and an operation that is drawn
    twice has two strengths. Random numbers come from torch's generator.

    Required Keys:

    - imgs

    Modified Keys:

    - imgs

    Args:
        policies (str): 'timm_increasing', the only set of operations here.
        num_policies (int): Operations a sample, each done with probability 0.5.
        magnitude_level (float): Strength, 0..10.
        magnitude_std (float): Standard deviation of the strength. Defaults to 0.
        hparams (dict, optional): ``pad_val``, the colour of what comes from outside of the
            picture, 0..255, a number or one for each channel (default 128, timm's grey);
            ``interpolation``, 'nearest', 'bilinear' or 'bicubic' (the default). Defaults to None.

    Raises:
        ValueError: If an option is out of range.

    Examples:
        >>> augment = ClipRandAugment('timm_increasing', 4, 7, 0.5)  # rand-m7-n4-mstd0.5-inc1
        >>> len(augment(dict(imgs=[np.zeros((160, 160, 3), np.uint8)] * 16))['imgs'])
        16
    """

    def __init__(
        self,
        policies: str,
        num_policies: int,
        magnitude_level: float,
        magnitude_std: float = 0.0,
        hparams: dict | None = None,
    ) -> None:
        from ...rand_augment import RandAugmentIncreasing

        self.augment = RandAugmentIncreasing.from_options(
            'ClipRandAugment',
            policies,
            num_policies,
            magnitude_level,
            magnitude_std,
            {'pad_val': 128, 'interpolation': 'bicubic', **(hparams or {})},
            ('nearest', 'bilinear', 'bicubic'),
        )

    def transform(self, results: dict) -> dict:
        """Augment every frame with the same operations."""
        imgs = results['imgs']
        operations = self.augment.draw(*imgs[0].shape[:2])
        if operations:
            results['imgs'] = [
                np.array(self.augment.operate(Image.fromarray(img), operations)) for img in imgs
            ]
        return results

    def __repr__(self) -> str:
        augment = self.augment
        return (
            f'{self.__class__.__name__}(num_policies={augment.num_ops}, '
            f'magnitude_level={10 * augment.level}, magnitude_std={10 * augment.std}, '
            f'interpolation={augment.interpolation.value!r}, pad_val={augment.fill})'
        )
