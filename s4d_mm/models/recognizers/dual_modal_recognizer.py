# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Model: mmaction2's recognizer, with images and videos in one step."""

from typing import Optional, Union

from mmaction.models.recognizers import Recognizer3D
from mmengine.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class DualModalRecognizer(Recognizer3D):
    """``Recognizer3D`` that also trains on a batch of each modality at once.

    The loss of such a step is the mean of those of the two batches, so that it
    does what two steps with gradient accumulation do, with one pass through
    all layers but attention. :class:`S4DViT` and :class:`MoAENeck` take both
    batches as one sequence; other backbones get them one after the other.

    With a batch of one modality it is ``Recognizer3D``, of which it has the
    arguments. Needs :class:`DualModalHead` and
    ``DualModalDataPreprocessor(mixed=True)``.
    """

    def extract_feat(
        self,
        inputs: Union[Tensor, dict[str, Tensor]],
        stage: str = 'neck',
        data_samples: Optional[list] = None,
        test_mode: bool = False,
    ) -> tuple:
        """Features, as ``Recognizer3D.extract_feat`` returns them.

        Args:
            inputs (Tensor | dict[str, Tensor]): (B, V, C, [T, ]H, W), or a
                dict of that for each modality.
            stage (str): 'backbone', 'neck' or 'head'. Defaults to 'neck'.
            data_samples (list, optional): Of the batch. Defaults to None.
            test_mode (bool): Whether in testing. Defaults to False.

        Returns:
            tuple: Features (of a dict, a dict), and a dict for the head.
        """
        if not isinstance(inputs, dict):
            return super().extract_feat(inputs, stage, data_samples, test_mode)
        # B V C [T] H W -> B*V C [T] H W
        x = {name: part.flatten(0, 1) for name, part in inputs.items()}
        if getattr(self.backbone, 'takes_dict', False):
            x = self.backbone(x)
        else:
            x = {name: self.backbone(part) for name, part in x.items()}
        losses = dict()
        if stage != 'backbone' and self.with_neck:
            x, losses = self.neck(x, data_samples=data_samples)
        if stage == 'head':
            x = {name: self.cls_head(part, name) for name, part in x.items()}
        return x, dict(loss_aux=losses)
