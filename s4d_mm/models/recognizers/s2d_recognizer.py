# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Model: mmaction2's recognizer, which also loads the files of the S2D authors."""

from mmaction.models.recognizers import Recognizer3D
from mmengine.registry import MODELS

from ...converters.authors import take_authors_names


@MODELS.register_module()
class S2DRecognizer(Recognizer3D):
    """``Recognizer3D`` with :class:`S2DViT`. Files of the authors' code load as they are.

    Args:
        *args: As ``Recognizer3D``.
        **kwargs: As ``Recognizer3D``.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.register_load_state_dict_pre_hook(take_authors_names)
