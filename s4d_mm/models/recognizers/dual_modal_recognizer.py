# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Model: mmaction2's recognizer for an encoder whose last blocks are in its neck."""

from mmaction.models.recognizers import Recognizer3D
from mmengine.registry import MODELS

from ...converters.authors import take_authors_names
from ..necks.moae_neck import hand_over_blocks


@MODELS.register_module()
class DualModalRecognizer(Recognizer3D):
    """``Recognizer3D`` of S4D.

    The backbone has the first blocks of an encoder, :class:`MoAENeck` the last ones, and
    :class:`DualModalHead` a classifier per modality. The model computes what ``Recognizer3D``
    computes. When the checkpoint of a whole encoder is loaded, as after pre-training, the blocks
    that the backbone does not have go to the neck (see
    :func:`~s4d_mm.models.necks.moae_neck.hand_over_blocks`).

    Args:
        *args: As ``Recognizer3D``.
        **kwargs: As ``Recognizer3D``.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.register_load_state_dict_pre_hook(take_authors_names)
        self.register_load_state_dict_pre_hook(hand_over_blocks)
