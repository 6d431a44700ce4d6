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
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config, DictAction


def parse_args(argv: list | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Open every sample that a config names.')
    add = parser.add_argument
    add('config')
    add('--cfg-options', nargs='+', action=DictAction)
    add('--workers', type=int, default=os.cpu_count(), help='processes; 0 for none but this one')
    add('--out', help='CSV file for everything found')
    add('--decode', choices=('all', 'ends', 'none'), default='all', help='frames of each clip')
    args = parser.parse_args(argv)
    if not osp.isfile(args.config):
        parser.error(f'config file {args.config} does not exist')
    return args


if __name__ == '__main__':
    parse_args()  # -h and mistakes end here, before the slow imports

import numpy as np
from mmengine.registry import DATASETS, init_default_scope
from mmengine.utils import track_iter_progress

import s4d_mm  # noqa: F401
from s4d_mm.datasets import DFEW, BaseExpressionDataset
from s4d_mm.datasets.lists import SYNONYMS
from s4d_mm.datasets.transforms import ClipInit, ImageLoad
from s4d_mm.engine.options import load_config
from s4d_mm.files.text import printable, safe_cell
from s4d_mm.media import MediaReadError, open_image, read_image

# what does not change which samples a dataset has
NOT_DATA = ('pipeline', 'test_mode', 'lazy_init', 'serialize_data', 'max_refetch')
NOT_DATA += ('max_fault_share', 'allow_test_faults')
LISTED = 10  # findings of a kind that are printed one by one
LEAST_SHARES = 200  # samples of a list whose counts are compared with those of the data set
# what is said of all findings of a kind in one line; of the other kinds, '{split}: {what}'
KINDS = dict(
    list='the annotation file of {split} cannot be used: {what}',
    line='{n} of {lines} lines of {split} cannot be read',
    missing='{n} of {files} files of {split} are missing',
    unreadable='{n} of {files} files of {split} cannot be read',
    numbers='{n} of {files} clips of {split} lack frames, or have a frame twice',
    label='{n} of {files} samples of {split} have a label without a class',
    twice='{n} of {files} samples of {split} are there twice',
    alike='{n} of {files} samples of {split} have the content of another one',
    leak='{n} of {files} samples of {split} are in the training data',
    sizes='{n} of {files} clips of {split} have frames of several sizes',
    counted='{n} of {files} clips of {split} are decoded from their first frame for each sample',
    short='{n} of {files} clips of {split} have fewer frames than clip_len',
    begins='{n} of {files} samples of {split} begin as one of the training data',
    order='{n} of {files} samples of {split} lie in the folder of another class',
)
NOTES = ('alike', 'sizes', 'counted', 'short', 'begins', 'absent')  # the others are troubles


class Finding(NamedTuple):
    """One thing found."""

    level: str  # 'trouble' or 'note'
    split: str
    path: str
    line: str  # of the annotation file, as file:number
    label: str
    what: str
    kind: str


class Sample(NamedTuple):
    """One sample of a split, or its annotation file."""

    path: str
    label: int | None = None
    line: str = ''  # of the annotation file, as file:number


@dataclass
class Media:
    """What one file or folder of frames is."""

    frames: int = 0
    sizes: list[tuple[int, int]] = field(default_factory=list)  # (h, w)
    first: str = ''  # hash of the file, or of the first frame file
    content: str = ''  # hash of the file, or of 3 frame files and their number
    findings: list[tuple[str, str]] = field(default_factory=list)  # kind, what

    @property
    def readable(self) -> bool:
        return not any(kind in ('missing', 'unreadable') for kind, _ in self.findings)


@dataclass
class Split:
    """The samples of one annotation file."""

    cfg: dict
    stages: list[str] = field(default_factory=list)
    clip_len: int = 1
    interval: int = 1  # of the frames of a clip
    dataset: object = None  # once it is built
    name: str = ''
    modality: str = 'video'
    samples: list[Sample] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def add(self, kind: str, what: str, sample: Sample | None = None) -> None:
        sample = sample or Sample(self.cfg.get('ann_file', ''))
        level = 'note' if kind in NOTES else 'trouble'
        label = '' if sample.label is None else str(sample.label)
        if sample.label in range(len(self.classes())):
            label += f' {self.classes()[sample.label]}'
        self.findings.append(Finding(level, self.name, sample.path, sample.line, label, what, kind))

    def classes(self) -> tuple:
        """Names of the classes in label order; () without labels."""
        if not getattr(self.dataset, 'has_labels', True):
            return ()
        return tuple(getattr(self.dataset, 'metainfo', {}).get('classes', ()))


def leaf_datasets(cfg: dict) -> Iterator[dict]:
    """The datasets within a dataset: DualModalDataset, RepeatDataset ... hold others."""
    inner = [cfg[k] for k in ('video', 'image', 'dataset') if isinstance(cfg.get(k), dict)]
    inner += cfg.get('datasets', ())
    if not inner:
        yield cfg
    for one in inner:  # DualModalDataset may have the pipeline of its clips
        yield from leaf_datasets({'pipeline': cfg.get('pipeline'), **one})


def largest(key: str, steps: list | None) -> int:
    found = [1]
    for step in steps or ():
        if isinstance(step, dict):
            found += [step.get(key, 1), largest(key, step.get('transforms'))]
    return max(found)


def find_splits(cfg: Config) -> list[Split]:
    """The splits of a config with their samples; one that several stages name is there once."""
    splits: dict[str, Split] = {}
    for stage in ('train', 'val', 'test'):
        for leaf in leaf_datasets((cfg.get(f'{stage}_dataloader') or {}).get('dataset') or {}):
            if not leaf:
                continue
            data = {k: v for k, v in leaf.items() if k not in NOT_DATA}
            key = json.dumps(data, sort_keys=True, default=str)
            split, pipeline = splits.setdefault(key, Split(data)), leaf.get('pipeline')
            split.clip_len = max(split.clip_len, largest('clip_len', pipeline))
            split.interval = max(split.interval, largest('frame_interval', pipeline))
            if stage not in split.stages:
                split.stages.append(stage)
    if not splits:
        raise ValueError(f'{cfg.filename} has no dataset: no dataloader is set')
    for split in splits.values():
        read_samples(split)
    return list(splits.values())


def read_samples(split: Split) -> None:
    cfg, wrong = split.cfg, []
    split.modality = getattr(DATASETS.get(cfg['type']), 'INPUT_TYPE', 'video')
    split.name = f'{"/".join(split.stages)} {split.modality}'
    try:
        split.dataset = dataset = DATASETS.build(dict(cfg, pipeline=[], lazy_init=True))
        if isinstance(dataset, BaseExpressionDataset):
            found = dataset.read_list(wrong)
        else:  # of mmaction2 or mmpretrain
            dataset.full_init()
            found = map(dataset.get_data_info, range(len(dataset)))
        for info in found:
            path = next(info[k] for k in ('filename', 'frame_dir', 'img_path') if k in info)
            split.samples.append(Sample(path, info.get('label'), info.get('where', '')))
    except (OSError, ValueError) as e:
        split.add('list', str(e))
    for error in wrong:
        split.add('line', str(error), Sample(error.line, None, error.where))
    ours, count = isinstance(split.dataset, BaseExpressionDataset), len(split.classes())
    indices = cfg.get('indices') if ours else None  # others have taken them
    if isinstance(indices, int):
        split.samples = split.samples[:indices] if indices > 0 else split.samples[indices:]
    elif indices is not None:
        split.samples = [split.samples[i] for i in indices]
    for sample in split.samples:
        if sample.label is not None and count and not 0 <= sample.label < count:
            split.add('label', f'label {sample.label} is not one of 0 to {count - 1}', sample)
    if not (split.samples or split.findings):
        split.add('list', 'it has no samples')


def file_hash(*paths: str, extra: str = '') -> str:
    digest = hashlib.blake2b(extra.encode(), digest_size=16)
    for path in paths:
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()


def check_media(job: tuple[str, str, str]) -> Media:
    """Open and decode one sample: its path, 'video' or 'image', and how much to decode."""
    path, modality, decode = job
    media = Media()
    try:
        refuse_empty(path)
        if modality == 'image':
            if decode == 'none' and osp.exists(path):
                size = _size_in_header(path)
            else:
                size = ImageLoad()(dict(filename=path))['img_shape']
            media.frames, media.sizes = 1, [size]
            media.first = media.content = file_hash(path)
        elif osp.isdir(path):
            _check_folder(path, decode, media)
        else:
            _check_video(path, decode, media)
    except Exception as e:  # one file must not end the check of the others
        named = isinstance(e, (FileNotFoundError, MediaReadError))
        what = str(e) if named else f'{type(e).__name__}: {e}'
        media.findings.append(('unreadable' if osp.exists(path) else 'missing', what))
    return media


def refuse_empty(path: str) -> None:
    if osp.isfile(path) and osp.getsize(path) == 0:
        raise MediaReadError(f'{path} has zero bytes; get it anew.')


def _size_in_header(path: str) -> tuple[int, int]:
    with open_image(path) as image:
        return image.size[::-1]


def _check_folder(path: str, decode: str, media: Media) -> None:
    frames = ClipInit()(dict(filename=path))['frame_paths']
    media.frames = len(frames)
    _check_numbers(frames, media)
    faults = []
    for i, frame in enumerate(frames):
        try:
            refuse_empty(frame)
            if decode == 'all' or (decode == 'ends' and i in (0, len(frames) - 1)):
                media.sizes.append(read_image(frame).shape[:2])
            elif i == 0:
                media.sizes.append(_size_in_header(frame))
        except OSError as e:
            faults.append(str(e))
    if faults:
        more = f'; and {len(faults) - 3} more of its {len(frames)} frames' if faults[3:] else ''
        media.findings.append(('unreadable', '; '.join(faults[:3]) + more))
    if len(set(media.sizes)) > 1:
        ends = f'{min(media.sizes)} to {max(media.sizes)} (height, width)'
        media.findings.append(('sizes', f'its frames differ in size: {ends}'))
    three = frames[0], frames[len(frames) // 2], frames[-1]
    media.first, media.content = file_hash(frames[0]), file_hash(*three, extra=str(len(frames)))


def _check_numbers(frames: list[str], media: Media) -> None:
    """Find gaps in the numbers of frame files, in steps of any size."""
    names = [re.fullmatch(r'(.*?)(\d{1,18})\D*', osp.basename(f)) for f in frames]
    if len(frames) < 2 or not all(names) or len({m[1] for m in names}) > 1:
        return  # not one series
    numbers, counts = np.unique([int(m[2]) for m in names], return_counts=True)
    if counts.max() > 1:
        what = f'several frames of the number {numbers[counts > 1][0]}; remove all but one'
        media.findings.append(('numbers', what))
    step = int(np.gcd.reduce(np.diff(numbers))) or 1
    missing = (numbers[-1] - numbers[0]) // step + 1 - len(numbers)
    if missing:
        first = (numbers[:-1][np.diff(numbers) > step] + step)[0]
        what = f'{missing} frame(s) missing from {numbers[0]} to {numbers[-1]}'
        media.findings.append(('numbers', f'{what}: number {first} first; extract its frames anew'))


def _check_video(path: str, decode: str, media: Media) -> None:
    reader = ClipInit()(dict(filename=path))['video_reader']
    media.frames = count = len(reader)
    numbers = {'all': range(count), 'ends': sorted({0, count - 1}), 'none': [0]}[decode]
    media.sizes += {frame.shape[:2] for frame in reader.read(numbers)}
    media.first = media.content = file_hash(path)
    if not reader.indexed:
        what = 'it does not say where its frames are: each sample decodes it from its first frame; '
        what += 'mend it by ffmpeg -i OLD -c:v libx264 -crf 12 NEW.mp4'
        media.findings.append(('counted', what))


def check_all(jobs: list, workers: int) -> Iterator[Media]:
    """Check files in parallel, in order; a decoder that crashes ends the check of its file only."""
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
                try:
                    with ProcessPoolExecutor(1) as pool:
                        media = pool.submit(check_media, job).result()
                except BrokenProcessPool:
                    said = 'the decoder crashes on it (or memory is short); get it anew'
                    media = Media(findings=[('unreadable', said)])
                yield media
                position += 1


def check_samples(split: Split, media: dict[str, Media]) -> None:
    for sample in split.samples:
        found = media[sample.path]
        for finding in found.findings:
            split.add(*finding, sample)
        if found.readable and split.modality == 'video' and found.frames < split.clip_len:
            what = f'it has {found.frames} frames, fewer than clip_len={split.clip_len}'
            split.add('short', what, sample)
    present = {s.label for s in split.samples}
    absent = [name for i, name in enumerate(split.classes()) if i not in present]
    if split.samples and absent:
        split.add('absent', f'no sample of {", ".join(absent)}')
    if split.samples and 'train' in split.stages and len(split.stages) > 1:
        what = f'{" and ".join(split.stages)} are the same samples; give another ann_file'
        split.add('stages', what)


def check_variant(split: Split, media: dict[str, Media], is_s2d: bool) -> None:
    """Whether the clips of DFEW are from the folder that the recipe is for."""
    counts = [media[s.path].frames for s in split.samples if media[s.path].readable]
    if not (counts and isinstance(split.dataset, DFEW)):
        return
    sixteen = counts.count(16) > 0.9 * len(counts)
    if is_s2d and not sixteen:
        what = "these are clip_224x224, but S2D's recipe is for 16 frames, clip_224x224_16f"
        split.add('variant', f'{what}: see docs/data/dfew.md')
    elif sixteen and split.interval > 1:
        what = f'these are clip_224x224_16f, but every {split.interval}th frame of all is wanted'
        split.add('variant', f'{what}, of clip_224x224: see docs/data/dfew.md')


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
            split.add('order', f'{what}; is this list from another copy?', sample)
    known, labels = getattr(split.dataset, 'COUNTS', None), [s.label for s in split.samples]
    if not known or len(known) != len(classes) or len(labels) < LEAST_SHARES:
        return
    for label, name in enumerate(classes):
        share, right = labels.count(label) / len(labels), known[label] / sum(known)
        if abs(share - right) > 0.08:
            what = f'{share:.0%} have the label {label} {name}, but {right:.0%} of the data set do'
            split.add('shares', f'{what}: are the ids of this list in another order?')
            return


def check_copies(split: Split, trains: list[Split], media: dict[str, Media]) -> None:
    """Samples of a split that are there twice, or in one of the training splits too."""
    seen = {}
    for home, sample in [(part, one) for part in (*trains, split) for one in part.samples]:
        found = media[sample.path]
        for said, key in (
            ('the same file as', osp.realpath(sample.path)),
            ('the same content as', found.content),
            ('begins with the same frame as', found.first),
        ):
            first, place = seen.setdefault((said, key), (sample, home)) if key else (sample, home)
            if home is not split or first is sample or (place is split and 'begins' in said):
                continue
            if place is not split:
                kind = 'begins' if 'begins' in said else 'leak'
                more = ': test data in the training data'
            else:
                other = first.label != sample.label
                kind = 'twice' if other or 'file' in said else 'alike'
                more = ' with another label' * other + '; remove one of the two'
            line = f', {first.line}' if first.line else ''
            split.add(kind, f'{said} {first.path} ({place.name}{line}){more}', sample)
            break


def verify(
    cfg: Config, workers: int = 0, decode: str = 'all', progress: bool = False
) -> tuple[list[Split], dict[str, Media]]:
    """Check all data of a config; the splits with their findings, and the files by path."""
    init_default_scope(cfg.get('default_scope', 'mmaction'))
    splits = find_splits(cfg)
    jobs = [(s.path, split.modality, decode) for split in splits for s in split.samples]
    jobs = list(dict.fromkeys(jobs))
    found = check_all(jobs, workers)
    if progress and jobs:
        found = track_iter_progress((found, len(jobs)), file=sys.stderr)
    media = {job[0]: one for one, job in zip(found, jobs)}
    backbone = (cfg.get('model') or {}).get('backbone') or {}
    for split in splits:
        check_samples(split, media)
        check_variant(split, media, is_s2d=str(backbone.get('type')).endswith('S2DViT'))
        check_order(split)
        same = [s for s in splits if 'train' in s.stages and s.modality == split.modality]
        check_copies(split, [] if 'train' in split.stages else same, media)
    return splits, media


def report(splits: list[Split]) -> Iterator[str]:
    """A line for each kind, then one for each finding; trouble before notes."""
    groups = []  # line, findings
    for level in ('trouble', 'note'):
        start = len(groups)
        for split in splits:
            kinds: dict[str, list] = {}
            for f in split.findings:
                if f.level == level:
                    kinds.setdefault(f.kind, []).append(f)
            sizes = dict(split=split.name, files=len(split.samples))
            sizes['lines'] = sizes['files'] + sum(f.kind == 'line' for f in split.findings)
            for kind, found in kinds.items():
                form = KINDS.get(kind, '{split}: {what}')
                line = form.format(n=len(found), what=found[0].what, **sizes)
                if kind == 'missing' and len(found) == sizes['files']:
                    line += ': is data_root right?'
                groups.append((printable(line), found))
        count = sum(len(found) for _, found in groups[start:])
        yield f'{count} {level}{"s" * (count != 1)}'
        yield from (f'  {line}' for line, _ in groups[start:])
    for line, found in groups:
        yield f'\n{line}'
        for f in found[:LISTED]:
            where = ', '.join(filter(None, (f.split, f.line, f.label and f'label {f.label}')))
            yield printable(f'  {f.path} ({where}): {f.what}')
        if len(found) > LISTED:
            yield f'  ... and {len(found) - LISTED} more; --out FILE.csv writes all'


def table(split: Split, media: dict[str, Media]) -> str:
    found = [media[s.path] for s in split.samples]
    sizes = sorted({tuple(size) for m in found for size in m.sizes}, key=lambda s: (s[0] * s[1], s))
    frames = [m.frames for m in found if m.frames]
    rows = [('samples', len(found)), ('unreadable', sum(not m.readable for m in found))]
    if sizes:
        rows.append(('height x width', ' .. '.join(f'{h} x {w}' for h, w in (sizes[0], sizes[-1]))))
    if frames and split.modality == 'video':
        middle = f'{min(frames)} / {np.median(frames):g} / {max(frames)}'
        rows.append(('frames min / median / max', middle))
    labels = [s.label for s in split.samples]
    for label, name in enumerate(split.classes()):
        count = labels.count(label)
        rows.append((f'  {label} {name}', f'{count} ({count / max(1, len(labels)):.1%})'))
    title = f'{split.name}: {split.cfg["type"]}, {split.cfg.get("ann_file")}'
    return '\n'.join([title] + [f'  {k:<26}{v}' for k, v in rows])


def main(argv: list | None = None) -> int:
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
