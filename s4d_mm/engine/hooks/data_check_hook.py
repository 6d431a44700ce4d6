# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Before training and testing: there is data, also for what comes after the last epoch."""

import copy
import os.path as osp
from collections.abc import Iterator

import numpy as np
from mmengine.dataset import InfiniteSampler
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, HOOKS
from mmengine.runner import Runner
from torch.utils.data import DataLoader, Dataset

LOOKED_AT = 20  # samples of a dataset, spread over it
# where datasets of s4d_mm, mmaction2 and mmpretrain say which file a sample is
PATH_KEYS = ('filename', 'img_path', 'frame_dir', 'video_path')


@HOOKS.register_module()
class DataCheckHook(Hook):
    """Look for the data of a run before its first step.

    A data loader that gives no batch is refused. Of the validation data 20 samples are looked
    for (not read), so that a wrong folder shows at once. Of test data that are not those of the
    validation the annotations and files are looked for too; a training can do without them, so
    that what is missing is a warning.
    """

    def before_train(self, runner: Runner) -> None:
        """Check the batches of the training, and the files of validation and test.

        Args:
            runner (Runner): Of a training.

        Raises:
            ValueError: If there is no batch.
            FileNotFoundError: If files of the validation are missing.
        """
        require_batches(runner.train_dataloader, 'train_dataloader')
        if runner.val_loop is not None:
            require_batches(runner.val_dataloader, 'val_dataloader')
            require_files(runner.val_dataloader.dataset, 'val_dataloader')
        problem = problem_of_test_data(runner) if runner.rank == 0 else None
        if problem is not None:
            runner.logger.warning(
                f'The training goes on, but its result cannot be tested here: {problem}'
            )

    def before_test(self, runner: Runner) -> None:
        """Check the batches of the test.

        Args:
            runner (Runner): Of a test.

        Raises:
            ValueError: If there is none.
        """
        require_batches(runner.test_dataloader, 'test_dataloader')


def require_batches(dataloader: DataLoader, name: str) -> None:
    """Refuse a data loader that gives no batch.

    Args:
        dataloader (DataLoader): The data loader.
        name (str): Its key in the config.

    Raises:
        ValueError: If it gives none, with its settings.
    """
    if isinstance(dataloader.sampler, InfiniteSampler) or len(dataloader):
        return
    samples, size = len(dataloader.sampler), dataloader.batch_size
    raise ValueError(
        f'{name} gives no batch: a process has {samples} of {len(dataloader.dataset)} samples, '
        f'batch_size={size} and drop_last={dataloader.drop_last}. Lower {name}.batch_size to '
        f'{max(samples, 1)} or less, or set {name}.drop_last=False.'
    )


def require_files(dataset: Dataset, name: str) -> None:
    """Look for files of a dataset, without reading them.

    Args:
        dataset (Dataset): The dataset, or a wrapper of several.
        name (str): Key of its data loader in the config.

    Raises:
        FileNotFoundError: If one is missing; with ``allow_test_faults`` of the dataset, if all
            that were looked for are.
    """
    for part in parts_of(dataset):
        paths = list(paths_of(part))
        missing = [path for path in paths if not osp.exists(path)]
        tolerated = getattr(part, 'allow_test_faults', False) and len(missing) < len(paths)
        if missing and not tolerated:
            raise FileNotFoundError(
                f'{name}: {len(missing)} of {len(paths)} files of {type(part).__name__} that were '
                f'looked for are missing, such as {osp.abspath(missing[0])}. Check data_root '
                f'({getattr(part, "data_root", None)!r}), data_prefix and suffix.'
            )


def parts_of(dataset: Dataset) -> Iterator[Dataset]:
    """The datasets inside of wrappers such as ``ConcatDataset``, or the dataset itself."""
    inner = list(getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)])
    if inner == [None]:
        yield dataset
    else:
        for part in inner:
            yield from parts_of(part)


def paths_of(dataset: Dataset) -> Iterator[str]:
    """Paths of up to 20 samples of a dataset, the first and the last among them."""
    if not hasattr(dataset, 'get_data_info'):
        return
    places = np.linspace(0, len(dataset) - 1, min(LOOKED_AT, len(dataset)))
    for i in places.round().astype(int).tolist():
        info = dataset.get_data_info(i)
        path = next((info[key] for key in PATH_KEYS if isinstance(info.get(key), str)), None)
        if path is not None and '://' not in path:
            yield path


def problem_of_test_data(runner: Runner) -> str | None:
    """What is wrong with the test data of a training, if they are not those of the validation."""
    test, val = (
        (runner.cfg.get(f'{stage}_dataloader') or {}).get('dataset') for stage in ('test', 'val')
    )
    if not isinstance(test, dict) or (test == val and runner.val_loop is not None):
        return None
    try:
        require_files(DATASETS.build(copy.deepcopy(test)), 'test_dataloader')
    except (OSError, ValueError, KeyError, TypeError) as e:
        return str(e)
    return None
