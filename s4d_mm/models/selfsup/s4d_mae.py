# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Pre-training model: mmpretrain's MAE, which also loads the files of the S4D authors."""

from mmengine.registry import MODELS
from mmpretrain.models import MAE

from ...converters.authors import take_authors_names


@MODELS.register_module()
class S4DMAE(MAE):
    """``MAE`` of mmpretrain with the parts of S4D. Files of the authors' code load as they are.

    Args:
        *args: As ``MAE``.
        **kwargs: As ``MAE``.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.register_load_state_dict_pre_hook(take_authors_names)
