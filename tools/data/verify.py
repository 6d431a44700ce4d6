# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Open every sample that a config names, before a training does.

    python tools/data/verify.py configs/s4d_finetune_dfew.py --workers 8

Exits with 1 if there is trouble. See docs/data/verify.md.
"""

import argparse
import csv
import hashlib
import json
import os
import os.path as osp
import re
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import NamedTuple

from mmengine.config import Config, DictAction


def parse_args(argv: list | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Open every sample that a config names.')
    parser.add_argument('config')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    parser.add_argument(
        '--workers', type=int, default=os.cpu_count(), help='processes; 0 for none but this one'
    )
    parser.add_argument('--out', help='CSV file for everything found')
    parser.add_argument(
        '--decode',
        choices=('all', 'ends', 'none'),
        default='all',
        help='frames to decode of each clip: all, the first and last, or '
        'none (open it and read its size)',
    )
    args = parser.parse_args(argv)
    if not osp.isfile(args.config):
        parser.error(f'config file {args.config} does not exist')
    if args.workers < 0:
        parser.error(f'--workers {args.workers}: must be 0 or more')
    return args


if __name__ == '__main__':
    parse_args()  # -h and mistakes end here, before the slow imports

import numpy as np
from mmengine.registry import DATASETS, init_default_scope
from mmengine.utils import ProgressBar

import s4d_mm  # noqa: F401
from s4d_mm.datasets import DFEW, AnnotationError, BaseExpressionDataset
from s4d_mm.datasets.public_dataset import SYNONYMS
from s4d_mm.datasets.transforms.loading import ClipInit, ImageLoad
from s4d_mm.engine.launch import load_config
from s4d_mm.files.text import printable, safe_cell
from s4d_mm.media import MediaReadError, open_image, read_image

STAGES = ('train', 'val', 'test')
# what does not change which samples a dataset has
NOT_DATA = (
    'pipeline',
    'test_mode',
    'lazy_init',
    'serialize_data',
    'max_refetch',
    'max_fault_share',
    'allow_test_faults',
)
LISTED = 10  # findings of a kind that are printed one by one
LEAST_SHARES = 200  # samples of a list whose counts are compared with those of the data set
# what is said of all findings of a kind in one line
KINDS = dict(
    list='the annotation file of {split} cannot be used: {what}',
    line='{n} of {lines} lines of {split} cannot be read',
    missing='{n} of {files} files of {split} are missing',
    unreadable='{n} of {files} files of {split} cannot be read',
    numbers='{n} of {files} clips of {split} lack frames, or have a frame twice',
    label='{n} of {files} samples of {split} have a label without a class',
    twice='{n} of {files} samples of {split} are there twice',
    leak='{n} of {files} samples of {split} are in the training data',
    stages='{split}: {what}',
    sizes='{n} of {files} clips of {split} have frames of several sizes',
    counted='{n} of {files} clips of {split} are decoded from their first frame for each sample',
    short='{n} of {files} clips of {split} have fewer frames than clip_len',
    begins='{n} of {files} samples of {split} begin as one of the training data',
    absent='{split}: {what}',
    variant='{split}: {what}',
    order='{n} of {files} samples of {split} lie in the folder of another class',
    shares='{split}: {what}',
)


class Finding(NamedTuple):
    """One thing found: a trouble, or a note."""

    level: str  # 'trouble' or 'note'
    split: str
    path: str
    line: str  # of the annotation file, as file:number
    label: str
    what: str
    kind: str  # one of KINDS


class Sample(NamedTuple):
    """One sample of a split."""

    path: str
    label: int | None
    line: str  # of the annotation file, as file:number


@dataclass
class Media:
    """What one file or folder of frames is."""

    frames: int = 0
    sizes: list[tuple[int, int]] = field(default_factory=list)  # (h, w)
    first: str = ''  # hash of the file, or of the first frame file
    content: str = ''  # hash of the file, or of 3 frame files and their number
    readable: bool = True
    # level, kind, and what it is
    findings: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, level: str, kind: str, what: str) -> None:
        """Add a finding; a trouble may mean that the file cannot be read."""
        self.readable &= kind not in ('missing', 'unreadable')
        self.findings.append((level, kind, what))


@dataclass
class Split:
    """The samples of one annotation file."""

    name: str
    stages: list[str]
    modality: str
    dataset: object
    clip_len: int
    interval: int = 1  # of the frames of a clip
    samples: list[Sample] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def add(self, level: str, kind: str, sample: Sample, what: str) -> None:
        """Add a finding about a sample."""
        label = self.class_name(sample.label)
        self.findings.append(Finding(level, self.name, sample.path, sample.line, label, what, kind))

    def class_name(self, label: int | None) -> str:
        """Id and name of a class; '' without a label."""
        classes = self.classes()
        if label is None or not 0 <= label < len(classes):
            return '' if label is None else str(label)
        return f'{label} {classes[label]}'

    def classes(self) -> tuple:
        """Names of the classes in label order; () without labels."""
        if not getattr(self.dataset, 'has_labels', True):
            return ()
        return tuple(getattr(self.dataset, 'metainfo', {}).get('classes', ()))


# ---------------------------------------------------------------- annotations
def leaf_datasets(cfg: dict) -> Iterator[dict]:
    """Find the datasets in a dataset: DualModalDataset, RepeatDataset ... hold others."""
    inner = [cfg[k] for k in ('video', 'image', 'dataset') if isinstance(cfg.get(k), dict)]
    inner += cfg.get('datasets', ())
    if not inner:
        yield cfg
    for one in inner:  # DualModalDataset may have the pipeline of its clips
        yield from leaf_datasets({'pipeline': cfg.get('pipeline'), **one})


def largest(key: str, steps: list) -> int:
    """The largest ``clip_len``, or another key, in a pipeline; 1 if there is none."""
    found = [1]
    for step in steps or ():
        if isinstance(step, dict):
            found.append(step.get(key, 1))
            found.append(largest(key, step.get('transforms')))
    return max(found)


def find_splits(cfg: Config) -> list[Split]:
    """Find the splits of a config, with their samples.

    A split that is named several times, as often for validation and test, is there
    once.
    """
    splits: dict[str, Split] = {}
    for stage in STAGES:
        loader = cfg.get(f'{stage}_dataloader')
        if not loader:
            continue
        for leaf in leaf_datasets(loader['dataset']):
            data = {k: v for k, v in leaf.items() if k not in NOT_DATA}
            key = json.dumps(data, sort_keys=True, default=str)
            length = largest('clip_len', leaf.get('pipeline'))
            interval = largest('frame_interval', leaf.get('pipeline'))
            if key in splits:
                splits[key].stages.append(stage)
                splits[key].clip_len = max(length, splits[key].clip_len)
            else:
                splits[key] = Split('', [stage], '', data, length, interval)
    if not splits:
        raise ValueError(
            f'{cfg.filename} has no dataset: none of train_dataloader, '
            'val_dataloader and test_dataloader is set.'
        )
    for split in splits.values():
        read_samples(split)
    return list(splits.values())


def read_samples(split: Split) -> None:
    """Fill a split. What cannot be read is a finding."""
    cfg = split.dataset
    split.stages = list(dict.fromkeys(split.stages))
    cls = DATASETS.get(cfg['type'])
    split.modality = getattr(cls, 'INPUT_TYPE', 'video')
    split.name = f'{"/".join(split.stages)} {split.modality}'
    file = Sample(cfg.get('ann_file', ''), None, '')
    try:
        split.dataset = DATASETS.build(dict(cfg, pipeline=[], lazy_init=True))
        file = Sample(getattr(split.dataset, 'ann_file', ''), None, '')
        if isinstance(split.dataset, BaseExpressionDataset):
            read_annotations(split, cfg.get('indices'))
        else:
            read_data_infos(split)
    except (OSError, ValueError) as e:
        split.add('trouble', 'list', file, str(e))
    if not (split.samples or split.findings):
        split.add('trouble', 'list', file, 'it has no samples')


def read_annotations(split: Split, indices: int | Sequence[int] | None = None) -> None:
    """Fill a split by the dataset's own parser. Each line that it refuses is a finding.

    Args:
        split (Split): The split, with a dataset of s4d_mm.
        indices (int | Sequence[int], optional): Which samples the config takes, as
            in :class:`mmengine.dataset.BaseDataset`. Defaults to None, all.
    """
    for found in split.dataset.annotations():
        if isinstance(found, AnnotationError):
            split.add('trouble', 'line', Sample(found.line, None, found.where), str(found))
        else:
            path = split.dataset.get_media_path(found.name)
            split.samples.append(Sample(path, found.label, found.where))
    if isinstance(indices, int):
        split.samples = split.samples[:indices] if indices > 0 else split.samples[indices:]
    elif indices is not None:
        split.samples = [split.samples[i] for i in indices]


def read_data_infos(split: Split) -> None:
    """Fill a split from a dataset of mmaction2 or mmpretrain."""
    dataset, classes = split.dataset, split.classes()
    dataset.full_init()
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        path = next(info[k] for k in ('filename', 'frame_dir', 'img_path') if k in info)
        sample = Sample(path, info.get('label'), '')
        split.samples.append(sample)
        if sample.label is not None and classes and not 0 <= sample.label < len(classes):
            what = f'label {sample.label} is not one of 0 to {len(classes) - 1}'
            split.add('trouble', 'label', sample, what)


# ---------------------------------------------------------------------- media
def file_hash(*paths: str, extra: str = '') -> str:
    """Hash the content of files, and of a text."""
    digest = hashlib.blake2b(extra.encode(), digest_size=16)
    for path in paths:
        with open(path, 'rb') as f:
            for block in iter(lambda: f.read(1 << 20), b''):
                digest.update(block)
    return digest.hexdigest()


def check_media(job: tuple[str, str, str]) -> Media:
    """Open and decode one sample.

    Args:
        job (tuple[str, str, str]): Path, 'video' or 'image', and how much to
            decode: 'all', 'ends' or 'none'.

    Returns:
        Media: What it is and what is wrong with it.
    """
    path, modality, decode = job
    media = Media()
    try:
        if osp.isfile(path) and osp.getsize(path) == 0:
            raise MediaReadError(f'{path} has zero bytes; get it anew.')
        if modality == 'image':
            _check_image(path, decode, media)
        elif osp.isdir(path):
            _check_folder(path, decode, media)
        else:
            _check_video(path, decode, media)
    except Exception as e:  # one file must not end the check of the others
        named = isinstance(e, (FileNotFoundError, MediaReadError))
        kind = 'unreadable' if osp.exists(path) else 'missing'
        media.add('trouble', kind, str(e) if named else f'{type(e).__name__}: {e}')
    return media


def _check_image(path: str, decode: str, media: Media) -> None:
    if decode == 'none' and osp.exists(path):
        media.sizes.append(_header_size(path))
    else:
        media.sizes.append(ImageLoad()(dict(filename=path))['img_shape'])
    media.frames = 1
    media.first = media.content = file_hash(path)


def _header_size(path: str) -> tuple[int, int]:
    with open_image(path) as image:
        return image.size[::-1]


def _check_folder(path: str, decode: str, media: Media) -> None:
    frames = ClipInit()(dict(filename=path))['frame_paths']
    media.frames = len(frames)
    _check_numbers(frames, media)
    faults = []
    for i, frame in enumerate(frames):
        try:
            if osp.getsize(frame) == 0:
                raise MediaReadError(f'{frame} has zero bytes; get it anew.')
            if decode == 'all' or (decode == 'ends' and i in (0, len(frames) - 1)):
                media.sizes.append(read_image(frame).shape[:2])
            elif i == 0:
                media.sizes.append(_header_size(frame))
        except OSError as e:
            faults.append(str(e))
    if len(faults) > 3:
        faults[3:] = [f'... and {len(faults) - 3} more of its {len(frames)} frames']
    for fault in faults:
        media.add('trouble', 'unreadable', fault)
    if len(set(media.sizes)) > 1:
        media.add(
            'note',
            'sizes',
            f'its frames differ in size: {min(media.sizes)} to {max(media.sizes)} (height, width)',
        )
    media.first = file_hash(frames[0])
    media.content = file_hash(
        frames[0], frames[len(frames) // 2], frames[-1], extra=str(len(frames))
    )


def _check_numbers(frames: list[str], media: Media) -> None:
    """Find gaps in the numbers of frame files, in steps of any size."""
    names = [re.fullmatch(r'(.*?)(\d{1,18})\D*', osp.basename(f)) for f in frames]
    if len(frames) < 2 or not all(names):
        return
    if len({m.group(1) for m in names}) > 1:
        return  # not one series
    numbers = np.array([int(m.group(2)) for m in names])
    unique = np.unique(numbers)
    if len(unique) < len(numbers):
        twice = unique[np.bincount(np.searchsorted(unique, numbers)) > 1]
        what = f'it has several frames of the number {_some(twice)}; remove all but one'
        media.add('trouble', 'numbers', what)
    step = int(np.gcd.reduce(np.diff(unique))) if len(unique) > 1 else 1
    missing = (unique[-1] - unique[0]) // step + 1 - len(unique)
    if missing:
        gaps = np.flatnonzero(np.diff(unique) > step)
        media.add(
            'trouble',
            'numbers',
            f'{missing} frame(s) missing from {unique[0]} to {unique[-1]}: '
            f'number {_some(unique[gaps] + step)}; extract its frames anew',
        )


def _some(values: np.ndarray) -> str:
    more = ' ...' if len(values) > 5 else ''
    return ', '.join(map(str, values[:5])) + more


def _check_video(path: str, decode: str, media: Media) -> None:
    start = time.perf_counter()
    reader = ClipInit()(dict(filename=path))['video_reader']
    media.frames = count = len(reader)
    numbers = {'all': range(count), 'ends': sorted({0, count - 1}), 'none': [0]}[decode]
    media.sizes += {frame.shape[:2] for frame in reader.read(numbers)}
    media.first = media.content = file_hash(path)
    if not reader.indexed:
        what = (
            f'it does not say where its frames are, so that each sample decodes it from its first '
            f'frame ({time.perf_counter() - start:.2f} s here for {count} frames). An .mp4 is '
            'decoded from the key frame before: ffmpeg -i OLD -c:v libx264 -crf 12 NEW.mp4'
        )
        media.add('note', 'counted', what)


def check_all(jobs: list, workers: int) -> Iterator[Media]:
    """Check files in parallel, in order.

    A file at which a decoder crashes ends its process only.

    Args:
        jobs (list): Arguments of :func:`check_media`.
        workers (int): Number of processes; 0 for none but this one.

    Yields:
        Media: Of each job.
    """
    if workers == 0:
        yield from map(check_media, jobs)
        return
    position = 0
    while position < len(jobs):
        try:
            with ProcessPoolExecutor(workers) as pool:
                for media in pool.map(check_media, jobs[position:], chunksize=8):
                    yield media
                    position += 1
        except BrokenProcessPool:  # find the file, each one by itself
            for job in jobs[position : position + 8 * workers]:
                yield _check_alone(job)
                position += 1


def _check_alone(job: tuple) -> Media:
    try:
        with ProcessPoolExecutor(1) as pool:
            return pool.submit(check_media, job).result()
    except BrokenProcessPool:
        media = Media()
        media.add(
            'trouble',
            'unreadable',
            'the decoder crashes on it (or was killed, for example '
            'for want of memory); get it anew or remove its line',
        )
        return media


# ----------------------------------------------------------------- comparison
def check_media_of(split: Split, media: dict[str, Media]) -> None:
    """Findings about single samples and about the classes."""
    for sample in split.samples:
        found = media[sample.path]
        for level, kind, what in found.findings:
            split.add(level, kind, sample, what)
        if found.readable and split.modality == 'video' and (found.frames < split.clip_len):
            what = f'it has {found.frames} frames, fewer than clip_len={split.clip_len}'
            split.add('note', 'short', sample, what)
    present = {s.label for s in split.samples}
    absent = [name for i, name in enumerate(split.classes()) if i not in present]
    if split.samples and absent:
        file = Sample(split.dataset.ann_file, None, '')
        split.add('note', 'absent', file, f'no sample of {", ".join(absent)}')


def dfew_variant(split: Split, media: dict[str, Media]) -> str | None:
    """Which of DFEW's folders its clips are from; None for other data."""
    counts = [media[s.path].frames for s in split.samples if media[s.path].readable]
    if not (counts and isinstance(split.dataset, DFEW)):
        return None
    return 'clip_224x224_16f' if counts.count(16) > 0.9 * len(counts) else 'clip_224x224'


def check_variant(split: Split, media: dict[str, Media], is_s2d: bool) -> None:
    """Whether the clips of DFEW are those that the recipe is for."""
    variant = dfew_variant(split, media)
    if variant == 'clip_224x224' and is_s2d:
        what = "these are clips of all frames, but S2D's recipe is for clip_224x224_16f"
    elif variant == 'clip_224x224_16f' and split.interval > 1:
        what = (
            'these are the clips of 16 frames (clip_224x224_16f), but the pipeline takes every '
            f'{split.interval}th frame of all (clip_224x224)'
        )
    else:
        return
    what += '; link that folder, as docs/data/dfew.md says'
    split.add('trouble', 'variant', Sample(split.dataset.ann_file, None, ''), what)


def check_order(split: Split) -> None:
    """Whether the label ids mean other classes, by the names of folders or the counts."""
    classes = [str(name).lower() for name in split.classes()]
    if not classes or getattr(split.dataset, 'target_ids', None):
        return
    for sample in split.samples:
        folder = osp.basename(osp.dirname(sample.path)).lower()
        name = folder if folder in classes else SYNONYMS.get(folder)
        if name in classes and sample.label not in (None, classes.index(name)):
            what = f'it lies in the folder {folder}, which is label {classes.index(name)}'
            split.add('trouble', 'order', sample, f'{what}; is this list from another copy?')
    known, labels = getattr(split.dataset, 'COUNTS', None), [s.label for s in split.samples]
    if not known or len(known) != len(classes) or len(labels) < LEAST_SHARES:
        return
    for label, name in enumerate(classes):
        share, right = labels.count(label) / len(labels), known[label] / sum(known)
        if abs(share - right) > 0.08:
            what = (
                f'{share:.0%} have the label {label} {name}, but {right:.0%} of the data set are '
                f'{name}: are the ids of this list in another order?'
            )
            split.add('trouble', 'shares', Sample(split.dataset.ann_file, None, ''), what)
            return


def check_twice(split: Split, media: dict[str, Media]) -> None:
    """The same sample twice in a split, by path and by content."""
    paths, contents = {}, {}
    for sample in split.samples:
        path, content = osp.realpath(sample.path), media[sample.path].content
        for where, key, said in (
            (paths, path, 'the same file'),
            (contents, content, 'the same content'),
        ):
            if not key:
                continue
            other = where.setdefault(key, sample)
            if other is sample:
                continue
            differs = other.label != sample.label
            what = f'{said} as {_place(other, split)}'
            what += ' with another label' if differs else ''
            trouble = where is paths or differs
            level = 'trouble' if trouble else 'note'
            split.add(level, 'twice', sample, f'{what}; remove one of the two')
            break


def check_between(train: Split, test: Split, media: dict[str, Media]) -> None:
    """Samples of a test split that are in the training split."""
    seen = dict(path={}, content={}, first={})
    keys = dict(
        path=lambda s: osp.realpath(s.path),
        content=lambda s: media[s.path].content,
        first=lambda s: media[s.path].first,
    )
    for sample in train.samples:
        for kind, key in keys.items():
            seen[kind].setdefault(key(sample), sample)
    said = dict(
        path='the same file as',
        content='the same content as',
        first='begins with the same frame as',
    )
    for sample in test.samples:
        for kind, key in keys.items():
            other = seen[kind].get(key(sample)) if key(sample) else None
            if other is not None:
                test.add(
                    'note' if kind == 'first' else 'trouble',
                    'begins' if kind == 'first' else 'leak',
                    sample,
                    f'{said[kind]} {_place(other, train)}: test data in the training data',
                )
                break


def _place(sample: Sample, split: Split) -> str:
    line = f', {sample.line}' if sample.line else ''
    return f'{sample.path} ({split.name}{line})'


def verify(
    cfg: Config, workers: int = 0, decode: str = 'all', progress: bool = False
) -> tuple[list[Split], dict[str, Media]]:
    """Check all data of a config.

    Args:
        cfg (Config): The config.
        workers (int): Number of processes. Defaults to 0, none but this one.
        decode (str): Frames to decode of each clip: 'all', 'ends' (the first
            and the last) or 'none' (open only). Defaults to 'all'.
        progress (bool): Whether to show a progress bar. Defaults to False.

    Returns:
        tuple[list[Split], dict[str, Media]]: The splits with their findings,
        and the files by path.
    """
    init_default_scope(cfg.get('default_scope', 'mmaction'))
    splits = find_splits(cfg)
    jobs = list(
        dict.fromkeys((s.path, split.modality, decode) for split in splits for s in split.samples)
    )
    bar = None
    if progress and jobs:
        bar = ProgressBar(len(jobs), file=sys.stderr)
    media = {}
    for job, found in zip(jobs, check_all(jobs, workers)):
        media[job[0]] = found
        if bar:
            bar.update()
    if bar:
        print(file=sys.stderr)
    backbone = (cfg.get('model') or {}).get('backbone') or {}
    is_s2d = str(backbone.get('type')).endswith('S2DViT')
    for split in splits:
        check_media_of(split, media)
        check_variant(split, media, is_s2d)
        check_order(split)
        check_twice(split, media)
        if 'train' in split.stages[:-1] and split.samples:
            split.add(
                'trouble',
                'stages',
                Sample(split.dataset.ann_file, None, ''),
                f'{" and ".join(split.stages)} are the same samples; give another ann_file',
            )
    for train in splits:
        for test in splits:
            if (
                'train' in train.stages
                and 'train' not in test.stages
                and (train.modality == test.modality)
            ):
                check_between(train, test, media)
    return splits, media


# --------------------------------------------------------------------- report
def in_one_line(split: Split, kind: str, found: Sequence[Finding]) -> str:
    """Say all findings of a kind in one line.

    Args:
        split (Split): The split.
        kind (str): One of :data:`KINDS`.
        found (Sequence[Finding]): Its findings of this kind; one at least.

    Returns:
        str: The line.
    """
    # a clip with several unreadable frames counts once
    n, files = len({(f.path, f.line) for f in found}), len(split.samples)
    lines = files + sum(f.kind == 'line' for f in split.findings)
    text = KINDS[kind].format(n=n, files=files, lines=lines, split=split.name, what=found[0].what)
    return f'{text}: is data_root right?' if kind == 'missing' and n == files else text


def report(splits: Sequence[Split]) -> Iterator[str]:
    """What was found: a line for each kind, then one for each finding; trouble before notes.

    Args:
        splits (Sequence[Split]): The splits with their findings.

    Yields:
        str: The lines.
    """
    groups = []  # level, line, findings
    for level in ('trouble', 'note'):
        for split in splits:
            kinds: dict[str, list] = {}
            for f in split.findings:
                if f.level == level:
                    kinds.setdefault(f.kind, []).append(f)
            groups += [(level, in_one_line(split, *kind), kind[1]) for kind in kinds.items()]
    for level in ('trouble', 'note'):
        count = sum(len(found) for of, _, found in groups if of == level)
        yield f'{count} {level}{"s" * (count != 1)}'
        yield from (f'  {printable(line)}' for of, line, _ in groups if of == level)
    for _, line, found in groups:
        yield f'\n{printable(line)}'
        for f in found[:LISTED]:
            where = ', '.join(filter(None, (f.split, f.line, f.label and f'label {f.label}')))
            yield printable(f'  {f.path} ({where}): {f.what}')
        if len(found) > LISTED:
            yield f'  ... and {len(found) - LISTED} more; --out FILE.csv writes all'


def table(split: Split, media: dict[str, Media]) -> str:
    """What a split holds, as text."""
    found = [media[s.path] for s in split.samples]
    sizes = sorted({tuple(size) for m in found for size in m.sizes}, key=lambda s: (s[0] * s[1], s))
    frames = [m.frames for m in found if m.frames]
    rows = [('samples', len(found)), ('unreadable', sum(not m.readable for m in found))]
    if sizes:
        rows.append(('height x width', ' .. '.join(f'{h} x {w}' for h, w in (sizes[0], sizes[-1]))))
    if frames and split.modality == 'video':
        rows.append(
            ('frames min / median / max', f'{min(frames)} / {np.median(frames):g} / {max(frames)}')
        )
    variant = dfew_variant(split, media)
    if variant:
        rows.append(('variant', f'{variant}, by the number of frames'))
    labels = [s.label for s in split.samples]
    for label, name in enumerate(split.classes()):
        count = labels.count(label)
        rows.append((f'  {label} {name}', f'{count} ({count / max(1, len(labels)):.1%})'))
    dataset = split.dataset
    title = f'{split.name}: '
    title += (
        'cannot be read'
        if isinstance(dataset, dict)
        else f'{type(dataset).__name__}, {dataset.ann_file}'
    )
    return '\n'.join([title] + [f'  {k:<26}{v}' for k, v in rows])


def main(argv: list | None = None) -> int:
    """Check the data of a config and print what was found; 1 if there is trouble."""
    args = parse_args(argv)
    cfg = load_config(args.config, args.cfg_options)
    splits, media = verify(cfg, args.workers, args.decode, progress=sys.stderr.isatty())
    print('\n'.join(report(splits)), end='\n\n')
    print('\n\n'.join(table(split, media) for split in splits))
    findings = [f for split in splits for f in split.findings]
    if args.out:
        os.makedirs(osp.dirname(osp.abspath(args.out)), exist_ok=True)
        with open(args.out, 'w', newline='', encoding='utf-8') as file:
            writer = csv.writer(file)
            writer.writerow(Finding._fields)
            writer.writerows(map(safe_cell, finding) for finding in findings)
        print(f'\n{args.out}: {len(findings)} findings')
    return int(any(f.level == 'trouble' for f in findings))


if __name__ == '__main__':
    sys.exit(main())
