# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Models by config or name, with their weights and the names of their classes.

A small model of our own, :data:`OWN_MODEL`, is in the package with its weights. Those that the S2D
authors publish on the Hugging Face hub are fetched and converted once.
"""

import hashlib
import os
import os.path as osp
import re
import sys
from difflib import get_close_matches
from typing import Any

import torch
from filelock import FileLock
from mmaction.apis import init_recognizer
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.fileio import load
from mmengine.runner import load_state_dict
from torch import nn

from ..datasets.config import config_classes, trained_on
from ..files.checkpoint import load_weights, read_checkpoint
from ..files.download import forget, hub_errors, local_file
from ..files.errors import WeightsError
from ..models import state_dict
from ..models.landmark_net import LandmarkMobileFaceNet
from ..weights.io import save_checkpoint
from ..weights.s2d import join_landmarks

PACKAGE = osp.dirname(osp.dirname(osp.abspath(__file__)))
OWN_MODEL = 'rendered_people'  # taken where no model is named
HUB = 'cyinen/S2D'
PUBLISHED = dict(  # by name: the data set, what is in the names of its files, and its folds
    s2d_dfew=('DFEW', 'dfew', 5), s2d_ferv39k=('FERV39k', 'ferv', 0), s2d_mafw=('MAFW', 'mafw', 5)
)
OVERSAMPLED = re.compile(r'(?<!wo.)(?<!without.)(?<!no.)(?<!non.)(over.?sampl|bds)')
SUFFIXES = ('.pth', '.pt', '.bin', '.ckpt', '.tar', '.safetensors')
LANDMARKS = (
    'https://raw.githubusercontent.com/MSA-LMC/S2D/e1b5e5dfb57a/'
    'landmark/mobilefacenet_model_best.pth.tar'
)
LANDMARKS_BLOB = '3f7d78be085b0dc33ec914bc1d70fc991ba04bfa'  # its name in git


def init_model(
    config: str | Config, checkpoint: str | None = None, device: str | None = None
) -> nn.Module:
    """Build a recognizer, load its weights and find out the names of its classes.

    mmaction2's ``init_recognizer`` does the building. Weights that do not fit are refused: it would
    only warn, and predict with random ones.

    Args:
        config (str | Config): Config file or object.
        checkpoint (str, optional): Checkpoint to load. Defaults to None.
        device (str, optional): Defaults to None, a GPU if there is one.

    Returns:
        nn.Module: In evaluation mode, with ``cfg``, ``dataset_meta`` (the classes, by the
        checkpoint or else the config; None if neither knows them) and ``trained_on``, the training
        data by the checkpoint or else the config.

    Raises:
        WeightsError: If the checkpoint lacks a parameter of the model, has it in another size, or
            holds a number that is not finite.
    """
    cfg = config if isinstance(config, Config) else Config.fromfile(config)
    require_classifier(cfg)
    model = init_recognizer(cfg, device=device or get_device())
    model.dataset_meta, model.trained_on = None, 'unknown data'
    if checkpoint is not None:
        try:
            _load(model, checkpoint)
        except ValueError as e:
            name = cfg.filename or 'the config'
            raise WeightsError(f'{checkpoint} cannot be used with {name}. {e}') from e
    return model


def require_classifier(cfg: Config) -> None:
    """Raise a ``ValueError`` if a config has no model that classifies."""
    model, name = cfg.get('model') or {}, cfg.filename or 'The config'
    head = model.get('cls_head') or model.get('head') or {}
    if 'num_classes' not in head:
        raise ValueError(
            f'{name} has no classifier: its model {model.get("type")} is one of pre-training. Give '
            'a config of fine-tuning and its weights.'
        )


def _load(model: nn.Module, checkpoint: str) -> None:
    loaded = state_dict.as_own_checkpoint(read_checkpoint(checkpoint))
    weights, meta = loaded.get('state_dict', loaded), loaded.get('meta', {})
    load_state_dict(model, weights, logger='silent')
    missing = state_dict.check_fit(model, loaded, 'silent', source=checkpoint).missing
    state_dict.check_head_weights(model, loaded)
    for name, module in model.named_modules():
        if isinstance(module, LandmarkMobileFaceNet):  # may have a file of its own
            module.require_weights()
            missing = [key for key in missing if not key.startswith(f'{name}.')]
    for key in missing[:1]:
        raise WeightsError(
            f'It lacks {key} ({len(missing)} tensors in all). Give the config of its training.'
        )
    model.trained_on = trained_on(meta) or trained_on(model.cfg) or model.trained_on
    known = meta.get('dataset_meta') or {}
    classes = known.get('classes') or config_classes(model.cfg)
    model.dataset_meta = dict(known, classes=classes) if classes else None


def class_names(model: nn.Module, input_type: str) -> list[str]:
    """Class names of a model in label order, or numbers if there are not as many names."""
    count = state_dict.classification_head(model)[1].num_classes
    count = count[input_type] if isinstance(count, dict) else count
    classes = (model.dataset_meta or {}).get('classes')
    if isinstance(classes, dict):
        classes = classes.get(input_type)
    return list(classes if classes and len(classes) == count else map(str, range(count)))


def index_folder() -> str:
    """The folder that holds ``model-index.yml`` and ``configs``: a source tree, or ``.mim``.

    mmengine would look for ``configs`` beside the package, which in ``site-packages`` may be
    anybody's.
    """
    root = osp.dirname(PACKAGE)
    is_tree = osp.isfile(osp.join(root, 'model-index.yml'))
    return root if is_tree else osp.join(PACKAGE, '.mim')


def list_models() -> list[dict]:
    """The models of ``model-index.yml``, as they are there, but ``Config`` is a whole path."""
    folder = index_folder()
    files = load(osp.join(folder, 'model-index.yml'))['Import']
    models = [model for file in files for model in load(osp.join(folder, file))['Models']]
    return [dict(model, Config=osp.join(folder, model['Config'])) for model in models]


def find_model(name: str) -> str:
    """Path of the config of a name or alias in the index."""
    if name.endswith('.py') or osp.basename(name) != name:
        raise FileNotFoundError(f'There is no config {name}.')
    models = {m[key].lower(): m for m in list_models() for key in ('Name', 'Alias') if key in m}
    if name.lower() in models:
        return models[name.lower()]['Config']
    names = ', '.join(get_close_matches(name.lower(), models) or models)
    raise ValueError(f'{name!r} is neither a config file nor a model of model-index.yml: {names}.')


def published_weights(model: Any, weights: str | None, fold: int | None) -> str | None:
    """The weights for a model; those of a name in ``PUBLISHED`` are fetched and converted once.

    ``OWN_MODEL`` has its own in the package, unless ``weights`` are given.
    A file of the authors, ``hf://cyinen/S2D/FILE``, is taken in place of the one that ``fold``
    chooses; other ``weights`` are given back.
    """
    name = str(model).lower().replace('s2d_finetune_', 's2d_')
    data, _, folds = PUBLISHED.get(name, ('', '', 0))
    if fold is not None and (weights or not 1 <= fold <= folds):
        raise ValueError(f'fold={fold}: only s2d_dfew and s2d_mafw have the folds 1 to 5.')
    if name == OWN_MODEL:
        return weights or osp.join(PACKAGE, 'predict', f'{OWN_MODEL}.safetensors')
    if not data or not (weights or f'hf://{HUB}/').startswith(f'hf://{HUB}/'):
        return weights
    fold = (fold or 1) if folds and not weights else None
    part = weights and re.sub(r'[^\w.-]', '_', weights.removeprefix(f'hf://{HUB}/'))
    stem = '_'.join(filter(None, (name, fold and f'fold{fold}', part)))
    path = osp.join(torch.hub.get_dir(), 's4d_mm', f'{stem}.pth')
    if not osp.isfile(path):
        os.makedirs(osp.dirname(path), exist_ok=True)
        with FileLock(f'{path}.lock'):
            if not osp.isfile(path):  # written by another process
                _fetch(name, weights, fold, path)
    return path


def choose_file(files: list[str], name: str, fold: int | None) -> str:
    """The one of the hub's files that is for a name of ``PUBLISHED`` and a fold, by its name."""
    data, word, _ = PUBLISHED[name]
    weights = [file for file in files if file.lower().endswith(SUFFIXES)]
    named = [file for file in weights if word in file.lower()]
    found = [file for file in named if fold is None or fold_of(file, word) == fold]
    plain = [file for file in found if not OVERSAMPLED.search(file.lower())]  # as the config
    if len(found) == 1 or len(plain) == 1:
        return (plain or found)[0]
    listed = '\n'.join(f'  hf://{HUB}/{file}' for file in found or named or weights)
    raise WeightsError(
        f'{len(found) or "No"} files of https://huggingface.co/{HUB} seem to be for {data}'
        f'{f", fold {fold}" if fold else ""}. Give one as --weights:\n{listed}'
    )


def fold_of(file: str, word: str) -> int | None:
    """The fold in the name of a file, such as ``DFEW/split01_best.pth`` or ``mafw_fold_1.pth``."""
    pattern = rf'(?:fold|split|set|fd|{word})[\W_]*0*([1-9])(?!\d|\w*fold)'
    found = re.findall(pattern, file.lower())
    return int(found[-1]) if found else None


def _fetch(name: str, weights: str | None, fold: int | None, path: str) -> None:
    data = PUBLISHED[name][0]
    if weights is None:
        with hub_errors(f'{name} of https://huggingface.co/{HUB}'):
            from huggingface_hub import HfApi

            files = HfApi().list_repo_files(HUB)
        weights = f'hf://{HUB}/{choose_file(files, name, fold)}'
    landmarks = os.environ.get('S4D_MM_LANDMARKS') or LANDMARKS  # a copy: a path or an address
    text = (
        f'{name} needs two files, once:\n  {weights}, Apache-2.0 by https://huggingface.co/{HUB}\n'
        f'  {landmarks}, without a licence: do not pass it on\nThey are converted to {path}. '
        f'{data} is for research, by agreement with its makers.'
    )
    print(text, file=sys.stderr, flush=True)
    network = local_file(landmarks)
    with open(network, 'rb') as f:
        content = f.read()
    blob = hashlib.sha1(b'blob %d\0%b' % (len(content), content)).hexdigest()
    if blob != LANDMARKS_BLOB:
        forget(landmarks)
        raise WeightsError(
            f'{landmarks} is another file now: its git blob is {blob}, not {LANDMARKS_BLOB}.'
        )
    classes = config_classes(Config.fromfile(find_model(name)))['video']
    result = join_landmarks(load_weights(weights), network, classes)
    if not result.classes:
        raise WeightsError(f'{weights} has no classifier: it is not fine-tuned.')
    meta = dict(result.meta(weights), trained_on=f'{data}, fold {fold}' if fold else data)
    save_checkpoint(dict(state_dict=result.weights, meta=meta), path)
