# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Pipeline step 4, where a dataset needs it: cut the same window out of every
frame.
"""

from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS


@TRANSFORMS.register_module()
class FixedCrop(BaseTransform):
    """Cut a fixed window, given in pixels of the frame.

    S4D keeps rows 0 to 160 and columns 32 to 192 of the 224 x 224 frames of
    VoxCeleb2: ``dict(type='FixedCrop', rows=(0, 160), columns=(32, 192))``.

    Required Keys:

    - imgs
    - filename

    Modified Keys:

    - imgs
    - img_shape

    Args:
        rows (tuple[int]): First row and the row after the last.
        columns (tuple[int]): First column and the column after the last.

    Raises:
        ValueError: If a frame is too small for the window.
    """

    def __init__(self, rows: tuple, columns: tuple) -> None:
        for name, span in (('rows', rows), ('columns', columns)):
            if not (len(span) == 2 and 0 <= span[0] < span[1]):
                raise ValueError(
                    f'{name} of FixedCrop must be (start, end) with 0 <= '
                    f'start < end, but got {span!r}.'
                )
        self.rows = tuple(rows)
        self.columns = tuple(columns)

    def transform(self, results: dict) -> dict:
        (top, bottom), (left, right) = self.rows, self.columns
        for img in results['imgs']:
            if img.shape[0] < bottom or img.shape[1] < right:
                raise ValueError(
                    f'{results["filename"]} has frames of '
                    f'{img.shape[0]} x {img.shape[1]} pixels (height x '
                    f'width), too small for FixedCrop rows {self.rows} and '
                    f'columns {self.columns}. Resize before it, or leave it '
                    'out of the pipeline if the faces are already cut.'
                )
        results['imgs'] = [img[top:bottom, left:right] for img in results['imgs']]
        results['img_shape'] = (bottom - top, right - left)
        return results

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(rows={self.rows}, columns={self.columns})'
