# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, before it starts: the config of a run, its fold, and its processes."""

import contextlib
import datetime
import logging
import os
import os.path as osp
import re
import sys
import weakref
from argparse import Namespace
from collections.abc import Collection, Iterator

import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..files.atomic_write import DISK_FULL, FileNotWrittenError, free_space
from ..models.settings import is_number
from .hooks.hang_hook import HANG_TIMEOUT, check_seconds
from .loops import ResumableEpochBasedTrainLoop
from .options import PIPELINES, check_options

# set_<n> in the name of an annotation file (set_1_train.csv, train_set_1.csv, set_1.csv), or as
# the folder that it lies in (set_1/train.csv)
FOLD = re.compile(
    r'(?<![A-Za-z])set_\d+(?![A-Za-z0-9])(?=[^/]*$)'  # no dataset_1
    r'|(?<![^/])set_\d+(?=/[^/]*$)'
)
# messages that only the log file gets: what mmengine says of itself, ...
OF_TOOLBOX = re.compile(
    r'\n-+\nSystem environment|Config:\n|Distributed training is not used|Hooks will be executed|'
    r'Checkpoints will be saved|Exp name: |"FileClient" will be|"HardDiskBackend" is the alias'
)
# ... and what the line of an epoch says in short
OF_EPOCH = re.compile(
    r'Epoch\(train\) *\[\d+\]\[ *(\d+)/\1\]|Epoch\(val\)|Confusion matrix|Saving checkpoint at|'
    r'The (previous )?best checkpoint'
)


class TerseRunner(Runner):
    """mmengine's runner, with a terminal on which its log is short; the log file has all of it."""

    def build_logger(self, *args, **kwargs) -> MMLogger:
        """Build the logger, of which the first handler is the terminal's."""
        logger = super().build_logger(*args, **kwargs)
        shown = weakref.WeakMethod(self._is_for_terminal)  # the logger outlives the runner
        logger.handlers[0].addFilter(lambda record: shown() is None or shown()(record))
        return logger

    def _is_for_terminal(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if isinstance(self._train_loop, ResumableEpochBasedTrainLoop) and OF_EPOCH.match(message):
            return False
        return not OF_TOOLBOX.match(message)


def load_run_config(args: Namespace) -> Config:
    """The config of a run, with what ``tools/run_arguments.py`` added.

    Args:
        args (Namespace): Parsed arguments.

    Returns:
        Config: With ``launcher`` and ``work_dir``, which is that of the
        command line, else of the file, else ``work_dirs/<name of the file>``.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = load_config(args.config, args.cfg_options, also=())
    cfg.launcher = args.launcher
    stem = osp.splitext(osp.basename(args.config))[0]
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or osp.join('./work_dirs', stem)
    return cfg


def load_config(
    path: str, options: dict | None = None, also: Collection[str] = PIPELINES
) -> Config:
    """Read a config file and change it as ``--cfg-options`` says.

    Args:
        path (str): The file.
        options (dict, optional): Parsed ``--cfg-options``. ``fold`` also
            chooses the annotation files, see :func:`set_fold`.
        also (Collection[str]): Names that the tool reads beside those that a training or a test
            reads. Defaults to the pipelines of prediction.

    Returns:
        Config: The config.

    Raises:
        OptionError: If nothing reads an option, see :func:`~.options.check_options`.
    """
    cfg = Config.fromfile(path)
    if options:
        check_options(cfg, options, also)
        cfg.merge_from_dict(options)
        if 'fold' in options:
            set_fold(cfg, options['fold'])
    return cfg


def fold_datasets(cfg: Config, stages: tuple = ('train', 'val', 'test')) -> Iterator:
    """The datasets of a config whose annotation file is that of a fold.

    Args:
        cfg (Config): The config.
        stages (tuple[str]): Of which dataloaders. Defaults to all.

    Yields:
        tuple[str, dict, int]: Key of ``ann_file``, the part of the config that
        holds it, and the number n of ``set_<n>`` in the name of the file, or of its
        folder.
    """

    def visit(node, key: str) -> Iterator:
        name = node.get('ann_file') if isinstance(node, dict) else None
        found = FOLD.findall(name) if isinstance(name, str) else None
        if found:  # in folder and file, that of the file counts
            yield f'{key}.ann_file', node, int(found[-1].split('_')[1])
        for part, value in node.items() if isinstance(node, dict) else enumerate(node):
            if part != 'pipeline' and isinstance(value, (dict, list, tuple)):
                yield from visit(value, f'{key}.{part}')

    for stage in stages:
        yield from visit(cfg.get(f'{stage}_dataloader') or {}, f'{stage}_dataloader')


def set_fold(cfg: Config, fold: int) -> None:
    """Choose the annotation files of a fold.

    A variable of a config file is only read when the file is, so the option
    ``fold=3`` alone would change nothing.

    Args:
        cfg (Config): Config of any fold. ``fold``, and ``set_<n>`` in the name of
            each ``ann_file`` or of its folder, are changed in place.
        fold (int): Number of the fold.

    Raises:
        ValueError: If ``fold`` is no number, or the files of training or
            testing name no fold.
    """
    if not isinstance(fold, int):
        raise ValueError(f'fold={fold!r} is not a number. Write, for example, fold=3.')
    for stage in ('train', 'val', 'test'):
        datasets = list(fold_datasets(cfg, (stage,)))
        # the validation may be on a fixed set
        if not datasets and stage != 'val' and cfg.get(f'{stage}_dataloader'):
            raise ValueError(
                f'fold={fold}: {cfg.filename} names no fold in {stage}_dataloader, because no '
                'ann_file there has set_<n> in its name or as its folder. Leave the option out: a '
                'data set with one split, such as FERV39k, has no folds.'
            )
        for _, dataset, _ in datasets:
            dataset['ann_file'] = FOLD.sub(f'set_{fold}', dataset['ann_file'])
    cfg.fold = fold


def check_fold(cfg: Config) -> None:
    """Make sure that the annotation files are those of the config's fold.

    They are not if ``--cfg-options fold=3`` was given to a tool that does not
    know what it means, such as mmaction2's ``train.py``.

    Args:
        cfg (Config): Config of a run, with ``fold`` or without.

    Raises:
        ValueError: If one is of another fold.
    """
    fold = cfg.get('fold')
    for key, dataset, number in fold_datasets(cfg):
        if fold is not None and number != fold:
            raise ValueError(
                f'The config says fold={fold}, but {key} is {dataset["ann_file"]!r}. Only '
                'tools/train.py, tools/test.py and tools/kfold.py of s4d_mm choose the files by '
                '--cfg-options fold=N; use them, or set fold and each ann_file to the same fold.'
            )


def build_runner(cfg: Config) -> Runner:
    """Start the processes' talk and build the runner of a config.

    The batches of an optimizer step are counted in, see :func:`count_accumulation`.

    Args:
        cfg (Config): Config of the run with its ``launcher`` and
            ``work_dir``. ``runner_type`` names a runner of one's own.

    Returns:
        Runner: Ready to train or test.
    """
    check_optimizer(cfg)
    prepare_distributed(cfg)
    count_accumulation(cfg)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else TerseRunner.from_cfg(cfg)
    log_distributed(runner)
    return runner


def check_optimizer(cfg: Config) -> None:
    """Refuse a learning rate or a limit of the gradients that would train nothing, or backwards.

    Args:
        cfg (Config): Config of a run.

    Raises:
        ValueError: If the rate is no number or negative, or the limit not above 0.
    """
    wrapper = cfg.get('optim_wrapper') or {}
    rate = (wrapper.get('optimizer') or {}).get('lr', 0)
    if not is_number(rate) or rate < 0:
        raise ValueError(
            f'optim_wrapper.optimizer.lr must be a number, 0 or more, but is {rate!r}.'
        )
    for name, value in (wrapper.get('clip_grad') or {}).items():
        if name in ('max_norm', 'clip_value') and not (is_number(value) and value > 0):
            raise ValueError(
                f'optim_wrapper.clip_grad.{name} must be a number above 0, but is {value!r}.'
            )


def prepare_distributed(cfg: Config) -> None:
    """Choose the distributed backend.

    It is NCCL with GPUs (or what the config names), gloo without. Its time-out follows that of
    ``HangHook``, see :func:`group_timeout`.

    mmengine itself needs a GPU for each process: its ``init_dist`` sets a CUDA
    device and its runner passes one to DDP. Without GPUs the process group is
    started here, and ``model_wrapper_cfg`` says that there are no devices.

    Args:
        cfg (Config): Config of the run with its ``launcher``. Changed in
            place.

    Raises:
        RuntimeError: If the launcher cannot be used without GPUs.
        ValueError: If a time-out is no number of seconds.
    """
    if cfg.launcher == 'none':
        return
    dist_cfg = cfg.setdefault('env_cfg', {}).setdefault('dist_cfg', {})
    timeout = group_timeout(cfg)
    if get_device() != 'cpu':
        dist_cfg.setdefault('backend', 'nccl')
        if timeout is not None:
            dist_cfg['timeout'] = timeout.total_seconds()
        return
    if cfg.launcher != 'pytorch':
        raise RuntimeError(
            f'--launcher {cfg.launcher} needs GPUs and there are none; '
            'without GPUs use --launcher pytorch (tools/dist_train.sh)'
        )
    dist_cfg['backend'] = 'gloo'
    if not dist.is_initialized():
        dist.init_process_group('gloo', timeout=timeout)
    wrapper = cfg.get('model_wrapper_cfg') or dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    wrapper['device_ids'] = None
    cfg.model_wrapper_cfg = wrapper


def group_timeout(cfg: Config) -> datetime.timedelta | None:
    """How long a process waits for the others in torch's process group.

    Args:
        cfg (Config): Config of a run.

    Returns:
        datetime.timedelta | None: ``env_cfg.dist_cfg.timeout`` seconds if the config has it, else
        ``default_hooks.hang.timeout``; None, torch's own, if there is no limit.
    """
    own = ((cfg.get('env_cfg') or {}).get('dist_cfg') or {}).get('timeout')
    hook = (cfg.get('default_hooks') or {}).get('hang') or dict(timeout=0)
    limit = check_seconds('default_hooks.hang.timeout', hook.get('timeout', HANG_TIMEOUT))
    if own is None and limit == 0:
        return None
    seconds = check_seconds('env_cfg.dist_cfg.timeout', limit if own is None else own)
    return datetime.timedelta(seconds=seconds)


def log_distributed(runner: Runner) -> None:
    """Say in the log what was chosen."""
    backend = dist.get_backend() if dist.is_initialized() else 'none'
    launcher = runner.cfg.get('launcher')  # FlexibleRunner has no attribute
    runner.logger.info(
        f'Launcher {launcher}: '
        f'world size {runner.world_size}, backend {backend}, '
        f'device {get_device()}.'
    )


def batch_sampler_of(cfg: Config) -> dict:
    """The part of a config that describes the batches of the training, empty if there is none."""
    return (cfg.get('train_dataloader') or {}).get('batch_sampler') or {}


def count_accumulation(cfg: Config) -> None:
    """Tell the batch sampler in how many parts the total batch of an optimizer step is read.

    Args:
        cfg (Config): Config of a run. ``accumulative_counts`` of a batch sampler with
            ``total_batch_size`` becomes that of ``optim_wrapper``.
    """
    batch_sampler = batch_sampler_of(cfg)
    if batch_sampler.get('total_batch_size') is not None:
        counts = (cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1)
        batch_sampler['accumulative_counts'] = counts


def scale_learning_rate(cfg: Config) -> None:
    """Do what ``--auto-scale-lr`` asks for.

    With a ``total_batch_size`` the learning rate of the config is scaled here by that size over
    ``auto_scale_lr.base_batch_size``, whatever the number of processes. Otherwise mmengine does
    it, by the batch size of all processes.

    Args:
        cfg (Config): Config with ``auto_scale_lr``. Changed in place.

    Raises:
        ValueError: If the batch size that counts is not clear.
    """
    total = batch_sampler_of(cfg).get('total_batch_size')
    if total is None:
        cfg.auto_scale_lr.enable = True
        check_batch_size(cfg)
        return
    base = cfg.auto_scale_lr.base_batch_size
    sizes, bases = (s if isinstance(s, dict) else dict(samples=s) for s in (total, base))
    ratios = {size / bases[name] for name, size in sizes.items() if name in bases}
    if set(sizes) != set(bases) or len(ratios) != 1:
        raise ValueError(
            f'--auto-scale-lr: train_dataloader.batch_sampler.total_batch_size={total} must be '
            f'auto_scale_lr.base_batch_size={base} times one factor for all modalities. Make '
            'them agree, or set optim_wrapper.optimizer.lr yourself.'
        )
    cfg.optim_wrapper.optimizer.lr *= ratios.pop()
    cfg.auto_scale_lr.enable = False  # mmengine's


def check_batch_size(cfg: Config) -> None:
    """Make sure that ``--auto-scale-lr`` reads the batch size that is used.

    mmengine reads ``train_dataloader.batch_size``; the batch sampler has one
    for each modality.

    Raises:
        ValueError: If it is none of them.
    """
    loader = cfg.train_dataloader
    sizes = batch_sampler_of(cfg).get('batch_size')
    if isinstance(sizes, dict) and loader.batch_size not in sizes.values():
        raise ValueError(
            f'--auto-scale-lr reads train_dataloader.batch_size='
            f'{loader.batch_size}, which is none of train_dataloader.'
            f'batch_sampler.batch_size={dict(sizes)}. Set it to the one that '
            'auto_scale_lr.base_batch_size counts.'
        )


@contextlib.contextmanager
def run_faults_as_messages(work_dir: str) -> Iterator[None]:
    """End the command with the message alone, where the disk or the memory is at fault.

    Args:
        work_dir (str): Folder of the run, whose free space the message names.

    Raises:
        SystemExit: In place of a :class:`~s4d_mm.files.atomic_write.FileNotWrittenError`, another
            error that says that the disk is full, or one that says that a data loader worker
            died; the exit code is 1.
    """
    try:
        yield
    except FileNotWrittenError as e:
        sys.exit(f'{e} Make room, then go on with --resume.')
    except OSError as e:
        if e.errno not in DISK_FULL:
            raise
        sys.exit(
            f'{e.filename or "A file of the log"} cannot be written: {e.strerror}. '
            f'{free_space(work_dir)} Make room, then go on with --resume.'
        )
    except RuntimeError as e:
        if not re.search(
            r'DataLoader worker \(pid.*(killed by signal|exited unexpectedly)', str(e)
        ):
            raise
        sys.exit(
            f'{str(e).strip()} A worker that the system killed was mostly short of memory: use '
            'fewer workers (train_dataloader.num_workers) or smaller batches.'
        )


def finish_distributed() -> None:
    """Wait for the other processes and close the process group.

    Left open, gloo's threads can end a process with an abort after its work
    is done, and torchrun then reports a failure.
    """
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
