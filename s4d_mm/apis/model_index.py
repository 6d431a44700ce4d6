# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Names of models, from ``model-index.yml``."""

import os
import os.path as osp
from difflib import get_close_matches
from typing import NamedTuple

from mmengine.fileio import load

PACKAGE = osp.dirname(osp.dirname(osp.abspath(__file__)))


class IndexedModel(NamedTuple):
    """A model of ``model-index.yml``.

    Attributes:
        name (str): Its name.
        alias (str): A short name with which the weights of others are fetched
            (:mod:`~s4d_mm.apis.published_models`); '' if there are none.
        config (str): Path of its config.
        weights (str | None): Address of its weights; None if none are published.
        data (tuple[str]): Names of the data sets that it is trained on.
        results (tuple[tuple[str, str, float]]): Data set, name and value of each published figure.
        source (str): Whose figures these are; '' if there are none.
    """

    name: str
    alias: str
    config: str
    weights: str | None
    data: tuple[str, ...]
    results: tuple[tuple[str, str, float], ...]
    source: str


def index_folder() -> str:
    """The folder that holds ``model-index.yml`` and ``configs``: a source tree, or ``.mim``.

    mmengine's ``BaseInferencer`` looks for a folder ``configs`` beside the package, which in
    ``site-packages`` may be that of anybody, and wants weights for each model.

    Raises:
        FileNotFoundError: If the package was installed without it.
    """
    folders = (osp.dirname(PACKAGE), osp.join(PACKAGE, '.mim'))
    for folder in folders:
        if osp.isfile(osp.join(folder, 'model-index.yml')):
            return folder
    raise FileNotFoundError(
        f'There is no model-index.yml in {" or ".join(folders)}. Install s4d_mm by pip install .'
    )


def list_models() -> list[IndexedModel]:
    """The models of ``model-index.yml``, in its order."""
    folder, models = index_folder(), []
    for file in load(osp.join(folder, 'model-index.yml'))['Import']:
        for model in load(osp.join(folder, file))['Models']:
            facts = model['Metadata']
            models.append(
                IndexedModel(
                    model['Name'],
                    model.get('Alias', ''),
                    osp.join(folder, model['Config']),
                    model.get('Weights'),
                    tuple(facts['Training Data']),
                    tuple(
                        (result['Dataset'], metric, value)
                        for result in model['Results']
                        for metric, value in result['Metrics'].items()
                    ),
                    facts.get('Source of Results', ''),
                )
            )
    return models


def find_model(name: str) -> tuple[str, str | None]:
    """Config and weights of a model.

    Args:
        name (str): Its name or alias; upper and lower case are the same.

    Returns:
        tuple[str, str | None]: Path of the config, address of the weights or None.

    Raises:
        FileNotFoundError: If the name is the path of a config that is not there.
        ValueError: If there is no such model, with the names that are like it.
    """
    if name.endswith('.py') or osp.basename(name) != name or os.sep in name:
        raise FileNotFoundError(f'There is no config {name}.')
    models = {n.lower(): m for m in list_models() for n in (m.name, m.alias) if n}
    if name.lower() in models:
        found = models[name.lower()]
        return found.config, found.weights
    near = get_close_matches(name.lower(), models)
    names = near or [model.name for model in list_models()]
    raise ValueError(
        f'{name!r} is neither a config file nor a model of model-index.yml. '
        f'{"Do you mean" if near else "The models are"} {", ".join(names)}{"?" if near else "."}'
    )
