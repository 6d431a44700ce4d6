# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Loading step: files as they are, also the authors', where mmengine asks for a checkpoint."""

import os.path as osp
from typing import Any

from mmengine.logging import print_log

from s4d_mm.version import __version__

from .io import MapLocation, read_checkpoint, unwrap
from .s2d import from_s2d_authors, is_s2d
from .s4d import from_authors, stage_of


def load_from_address(filename: str, map_location: MapLocation = None, **_: Any) -> Any:
    """Read the file of an ``http(s)://`` or ``hf://`` address, as :func:`load_from_local` does.

    Each process asks for it; the first of a machine downloads it, the others wait for that.

    Args:
        filename (str): The address (:func:`~s4d_mm.converters.fetch.local_file`).
        map_location (str | Callable, optional): As in ``torch.load``. Defaults to None.
        **_: What mmengine's reader takes besides, of its own cache and progress bar; not used.

    Returns:
        Any: As :func:`load_from_local`.
    """
    return load_from_local(filename, map_location)


def load_from_local(filename: str, map_location: MapLocation = None) -> Any:
    """Read a local file for mmengine's ``CheckpointLoader``, in place of its own reader.

    A checkpoint of mmengine comes as it is. The weights of other code come as one of mmengine has
    them, in ``state_dict``, and those of the S4D and S2D authors under our names. So ``load_from``,
    ``init_cfg``, testing and prediction take the authors' files.

    Args:
        filename (str): The file.
        map_location (str | Callable, optional): As in ``torch.load``. Defaults to None.

    Returns:
        Any: What the file holds; a dict with ``state_dict`` and ``meta`` if it is of other code.

    Raises:
        WeightsNotFoundError: If there is no such file.
        WeightsError: If it cannot be read with ``weights_only=True``.
        ValueError: If the authors' weights in it are incomplete.
    """
    filename = osp.expanduser(filename)
    checkpoint = read_checkpoint(filename, map_location)
    weights = unwrap(checkpoint)
    stage = None if weights is None else stage_of(weights)
    if stage is not None:
        renamed, unplaced = from_authors(weights, stage)
        print_log(f"{filename} has the S4D authors' names ({stage}); they are renamed.", 'current')
        # what has no place keeps its name, so that loading lists it
        weights = {**renamed, **{key: weights[key] for key in unplaced}}
        family = f'S4D, {stage}'
    elif weights is not None and is_s2d(weights):
        renamed, unplaced = from_s2d_authors(weights)
        print_log(f"{filename} has the S2D authors' names; they are renamed.", 'current')
        weights = {**renamed, **{key: weights[key] for key in unplaced}}
        family = 'S2D'
    elif weights is None or not isinstance(checkpoint, dict) or 'state_dict' in checkpoint:
        return checkpoint
    else:
        family = 'unknown'
    meta = dict(converted_from=osp.basename(filename), family=family, s4d_mm_version=__version__)
    return dict(state_dict=weights, meta=meta)
