# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Models whose weights the authors publish, by name: fetched and converted once, then kept here.

The files of S2D are on the Hugging Face hub. Its landmark network is in the authors' repository.
"""

import contextlib
import hashlib
import io
import os
import os.path as osp
import re
import sys
from glob import escape, glob
from typing import Any, NamedTuple

import torch
from filelock import FileLock
from mmengine.config import Config

from ..converters.s2d import join_landmarks
from ..datasets.config_classes import config_classes
from ..files.atomic_write import PART_SUFFIX, atomic_write, in_bytes
from ..files.checkpoint import load_weights
from ..files.download import forget, local_file
from ..files.errors import DownloadError, HubMissingError, WeightsError
from .model_index import find_model

HUB = 'cyinen/S2D'
# a copy of the landmark network, a path or an address, in place of the authors'
LANDMARKS_VARIABLE = 'S4D_MM_LANDMARKS'
LANDMARKS = (
    'https://raw.githubusercontent.com/MSA-LMC/S2D/e1b5e5dfb57a/'
    'landmark/mobilefacenet_model_best.pth.tar'
)
LANDMARKS_BLOB = '3f7d78be085b0dc33ec914bc1d70fc991ba04bfa'  # its name in git
SUFFIXES = ('.pth', '.pt', '.bin', '.ckpt', '.tar', '.safetensors')


class Published(NamedTuple):
    """Weights of a data set on the hub.

    Attributes:
        data (str): Name of the data set.
        word (str): What is in the names of its files, in lower case.
        folds (int): How many splits it has, each with a file.
    """

    data: str
    word: str
    folds: int


MODELS = dict(
    s2d_dfew=Published('DFEW', 'dfew', 5),
    s2d_ferv39k=Published('FERV39k', 'ferv', 1),
    s2d_mafw=Published('MAFW', 'mafw', 5),
)


def published_weights(model: Any, weights: str | None, fold: int | None) -> str | None:
    """The weights for a model, which are fetched if its name stands for published ones.

    Args:
        model (Any): What the user gave as the model, such as 's2d_dfew'.
        weights (str, optional): What the user gave as its weights. A file of the authors,
            ``hf://cyinen/S2D/FILE``, is taken in place of the one that ``fold`` chooses.
        fold (int, optional): Which split; None for the first.

    Returns:
        str | None: Path of the converted file, or ``weights``, if they are others.

    Raises:
        ValueError: If there is no such fold, or ``fold`` has no meaning here.
        HubMissingError: If huggingface_hub is needed and not installed.
        DownloadError: If the hub or the repository cannot be reached, or the cache not written.
        WeightsError: A ValueError; if not one file fits, or a file is not what it should be.
    """
    name = str(model).lower().replace('s2d_finetune_', 's2d_')
    theirs = weights is None or weights.startswith(f'hf://{HUB}/')
    if name not in MODELS or not theirs or (weights and fold is not None):
        if fold is not None:
            raise ValueError(
                f'fold={fold} chooses a file of the authors, so the model must be one of '
                f'{", ".join(MODELS)}, without weights.'
            )
        return weights
    known = MODELS[name]
    if fold is not None and not 1 <= fold <= known.folds > 1:
        has = f'the folds 1 to {known.folds}' if known.folds > 1 else 'no folds'
        raise ValueError(f'fold={fold}: {known.data} has {has}.')
    fold = (fold or 1) if known.folds > 1 and not weights else None
    file = weights and weights[len(f'hf://{HUB}/') :]
    part = file and re.sub(r'[^\w.-]', '_', file)
    stem = '_'.join(filter(None, (name, fold and f'fold{fold}', part)))
    path = osp.join(torch.hub.get_dir(), 's4d_mm', f'{stem}.pth')
    if osp.isfile(path):
        return path
    try:
        os.makedirs(osp.dirname(path), exist_ok=True)
        with FileLock(f'{path}.lock'):
            for left in glob(f'{escape(path)}.*{PART_SUFFIX}'):  # by a process that was killed
                os.remove(left)
            if not osp.isfile(path):  # by a process that was faster
                _fetch(name, file, fold, path)
    except PermissionError as e:
        raise DownloadError(
            f'{path} cannot be written: {e.strerror}. TORCH_HOME sets another folder.'
        ) from e
    return path


def choose_file(files: list[str], known: Published, fold: int | None) -> str:
    """The file of a data set and fold, by its name.

    Args:
        files (list[str]): Names of all files of the hub's repository.
        known (Published): The data set.
        fold (int, optional): The fold; None where there are none.

    Returns:
        str: The one that fits.

    Raises:
        WeightsError: If none or several fit, with a list of them.
    """
    weights = [file for file in files if file.lower().endswith(SUFFIXES)]
    named = [file for file in weights if known.word in file.lower()]
    found = [file for file in named if fold is None or fold_of(file, known.word) == fold]
    plain = [file for file in found if not is_oversampled(file)]  # as the config has it
    if len(found) == 1 or len(plain) == 1:
        return (plain or found)[0]
    wanted = known.data if fold is None else f'{known.data}, fold {fold}'
    what = f'{len(found)} files' if found else 'No file'
    listed = '\n'.join(f'  hf://{HUB}/{file}' for file in found or named or weights)
    raise WeightsError(
        f'{what} of https://huggingface.co/{HUB} can be told by name to be for {wanted}. Give the '
        f'one that you mean as the weights (--weights), out of these:\n{listed}'
    )


def fold_of(file: str, word: str) -> int | None:
    """The fold in the name of a file, such as ``DFEW/split01_best.pth`` or ``mafw_fold_1.pth``."""
    for before in ('fold|split|set|fd', word):
        found = re.findall(rf'(?:{before})[\W_]*0*([1-9])(?!\d|\w*fold)', file.lower())
        if found:
            return int(found[-1])
    return None


def is_oversampled(file: str) -> bool:
    """Whether a file was trained on rare classes more often, by its name."""
    found = re.search(r'(wo|without|no|non)?[\W_]*(over.?sampl|bds)', file.lower())
    return found is not None and not found[1]


def _fetch(name: str, file: str | None, fold: int | None, path: str) -> None:
    """Get the two files, and write what is made of them."""
    known = MODELS[name]
    landmarks = os.environ.get(LANDMARKS_VARIABLE) or LANDMARKS
    file, size, sha256 = _ask_hub(name, file, fold)
    print(
        f'{name} needs two files, once:\n'
        f'  {file} ({size}) from https://huggingface.co/{HUB}, Apache-2.0 by that page\n'
        f'  {osp.basename(landmarks)} from {landmarks}, without a licence: '
        'do not pass it on\n'
        f'They are converted to {path}. {known.data}, on which the model was trained, is for '
        'research, by agreement with its makers.',
        file=sys.stderr,
        flush=True,
    )
    copies = []
    try:
        network = local_file(landmarks)
        header = f'blob {osp.getsize(network)}\0'.encode()
        _check(network, hashlib.sha1(header), LANDMARKS_BLOB, landmarks, 'git blob')
        weights = local_file(f'hf://{HUB}/{file}')
        copies = [osp.realpath(weights), weights]  # the hub's client keeps a link to the file
        _check(weights, hashlib.sha256(), sha256, f'hf://{HUB}/{file}', 'SHA-256')
        classes = config_classes(Config.fromfile(find_model(name)[0]))['video']
        result = join_landmarks(load_weights(weights), network, classes)
        if not result.classes:
            raise WeightsError(f'hf://{HUB}/{file} has no classifier: it is not fine-tuned.')
    except ValueError:  # another file than it should be, which the next call must not find
        forget(landmarks)
        for copy in copies:
            with contextlib.suppress(FileNotFoundError):
                os.remove(copy)
        raise
    seen = known.data if fold is None else f'{known.data}, fold {fold}'
    content = io.BytesIO()
    meta = dict(result.meta(file), trained_on=seen)
    torch.save(dict(state_dict=result.weights, meta=meta), content)
    atomic_write(path, content.getbuffer())


def _ask_hub(name: str, file: str | None, fold: int | None) -> tuple[str, str, str]:
    """Name, size and SHA-256 of the file on the hub; '' where the hub does not say the last."""
    try:
        from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url
    except ImportError as e:
        raise HubMissingError(
            f'{name} is fetched by huggingface_hub, which is missing: pip install "s4d_mm[hub]".'
        ) from e
    try:
        file = file or choose_file(HfApi().list_repo_files(HUB), MODELS[name], fold)
        plain, _, revision = file.partition('@')
        found = get_hf_file_metadata(hf_hub_url(HUB, plain, revision=revision or None))
    except WeightsError:
        raise
    except Exception as e:  # of two HTTP libraries, by its version
        reason = (str(e).splitlines() or [''])[0] or type(e).__name__
        raise DownloadError(
            f'{name} cannot be fetched from https://huggingface.co/{HUB}: {reason}. Check the '
            'network and try again; once it is here, no network is needed.'
        ) from e
    sha256 = found.etag if re.fullmatch('[0-9a-f]{64}', found.etag or '') else ''
    return file, in_bytes(found.size) if found.size else 'size not known', sha256


def _check(path: str, digest: Any, expected: str, address: str, kind: str) -> None:
    """Raise a ``WeightsError`` if a file is another one than its hash says; '' fits any."""
    with open(path, 'rb') as f:
        while chunk := f.read(1 << 20):
            digest.update(chunk)
    if expected and digest.hexdigest() != expected:
        raise WeightsError(
            f'{address} is not the file that it was: the {kind} of {path} is '
            f'{digest.hexdigest()}, not {expected}. It is not used.'
        )
