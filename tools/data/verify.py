# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Open every sample that a config names, before a training does.

    python tools/data/verify.py configs/s4d_finetune_dfew.py --workers 8

Exits with 1 if there is trouble. See docs/data/verify.md.
"""

import argparse
import hashlib
import json
import os
import os.path as osp
import sys
from collections import Counter, namedtuple
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from mmengine.config import Config, DictAction


def parse_args(argv: list | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Open every sample that a config names.')
    add = parser.add_argument
    add('config')
    add('--cfg-options', nargs='+', action=DictAction)
    add('--workers', type=int, default=os.cpu_count(), help='processes; 0 for none but this one')
    add('--decode', choices=('all', 'none'), default='all', help='frames of each clip')
    args = parser.parse_args(argv)
    if not osp.isfile(args.config):
        parser.error(f'config file {args.config} does not exist')
    return args


if __name__ == '__main__':
    parse_args()  # -h and mistakes end here, before the slow imports

import numpy as np
from clip_files import frame_numbers, missing_numbers
from mmengine.registry import DATASETS, init_default_scope
from mmengine.utils import track_iter_progress

import s4d_mm  # noqa: F401
from s4d_mm.datasets import DFEW, BaseExpressionDataset
from s4d_mm.datasets.lists import SYNONYMS
from s4d_mm.engine.checks import PATH_KEYS
from s4d_mm.engine.options import dicts_in, load_config
from s4d_mm.files.text import printable
from s4d_mm.media import NumberedFrames, list_frames, open_image, read_image
from s4d_mm.packed import PackedClip, find_packed, packed_folder

# what does not change which samples a dataset has
NOT_DATA = ('pipeline', 'test_mode', 'lazy_init', 'serialize_data', 'max_refetch')
NOT_DATA += ('max_fault_share', 'allow_test_faults')
LEAST_SHARES = 200  # samples of a list whose counts are compared with those of the data set

# line is file:number in the annotation file
Finding = namedtuple('Finding', 'split path line label what kind')
Sample = namedtuple('Sample', 'path label line', defaults=(None, ''))
# what a file or a folder of frames is: frames is 0 if it cannot be read, sizes are (h, w),
# content is a hash, findings are (kind, what)
Media = namedtuple('Media', 'frames sizes content findings', defaults=(0, (), '', ()))


@dataclass
class Split:
    """The samples of one annotation file."""

    cfg: dict
    modality: str
    name: str = ''
    classes: tuple[str, ...] = ()  # in label order; () without labels
    stages: list[str] = field(default_factory=list)
    interval: int = 1  # largest frame_interval of the pipelines
    dataset: object = None  # once it is built
    samples: list[Sample] = field(default_factory=list)
    media: dict[str, Media] = field(default_factory=dict)  # by path
    findings: list[Finding] = field(default_factory=list)

    def add(self, kind: str, what: str, sample: Sample | None = None) -> None:
        """Add a finding; it is of the annotation file where no sample is given."""
        sample = sample or Sample(self.cfg.get('ann_file', ''))
        name = dict(enumerate(self.classes)).get(sample.label, '')
        label = '' if sample.label is None else f'{sample.label} {name}'.strip()
        self.findings.append(Finding(self.name, sample.path, sample.line, label, what, kind))


def find_splits(cfg: Config) -> list[Split]:
    """The splits of a config with their samples; one that several stages name is there once."""
    splits: dict[str, Split] = {}
    for stage in ('train', 'val', 'test'):
        nodes = [node for _, node in dicts_in(cfg.get(f'{stage}_dataloader'))]
        for node in nodes:
            if node.keys().isdisjoint(('ann_file', 'data_root', 'data_prefix')):
                continue  # such as a dataset of datasets
            data = {k: v for k, v in node.items() if k not in NOT_DATA}
            modality = getattr(DATASETS.get(data['type']), 'INPUT_TYPE', 'video')
            key = json.dumps(data, sort_keys=True, default=str)
            split = splits.setdefault(key, Split(data, modality))
            split.stages += [stage] * (stage not in split.stages)
            split.interval = max([split.interval, *(n.get('frame_interval', 1) for n in nodes)])
    if not splits:
        sys.exit(f'{cfg.filename} has no dataset: no dataloader is set')
    for split in splits.values():
        split.name = f'{"/".join(split.stages)} {split.modality}'
        read_samples(split)
    return list(splits.values())


def read_samples(split: Split) -> None:
    wrong = []
    try:
        own = dict(pipeline=[], lazy_init=True, serialize_data=False)
        split.dataset = dataset = DATASETS.build(dict(split.cfg, **own))
        if getattr(dataset, 'has_labels', True):
            split.classes = tuple(dataset.metainfo.get('classes', ()))
        if isinstance(dataset, BaseExpressionDataset):  # finds all lines that are wrong
            dataset.load_data_list = partial(dataset.read_list, wrong)
        dataset.full_init()
        for info in map(dataset.get_data_info, range(len(dataset))):
            path = next(info[k] for k in PATH_KEYS if k in info)
            split.samples.append(Sample(path, info.get('label'), info.get('where', '')))
    except (OSError, ValueError) as e:
        split.add('unusable list', str(e))
    for error in wrong:
        split.add('unreadable line', str(error), Sample(error.line, None, error.where))
    if not (split.samples or split.findings):
        split.add('unusable list', 'it has no samples')


def hash_of(*paths: str) -> str:
    return hashlib.blake2b(b''.join(Path(path).read_bytes() for path in paths)).hexdigest()


def check_media(job: tuple[str, str, str]) -> Media:
    """Open and decode one sample: its path, 'video' or 'image', and how much to decode."""
    path, modality, decode = job
    try:
        packed = find_packed(path)
        if packed is not None:
            return _check_clip(packed, decode, hashlib.blake2b(packed.record()).hexdigest())
        if modality == 'video' and not osp.isdir(path):
            return _check_clip(NumberedFrames(path), decode, hash_of(path))
        return _check_frames([path] if modality == 'image' else list_frames(path), decode)
    except Exception as e:  # one file must not end the check of the others
        kind, what = 'unreadable', str(e) if isinstance(e, OSError) else f'{type(e).__name__}: {e}'
        if isinstance(e, FileNotFoundError) or not (packed_folder(path) or osp.exists(path)):
            kind, what = 'missing', 'not there; check data_root, data_prefix and suffix'
        return Media(findings=[(kind, what)])


def _check_frames(frames: list[str], decode: str) -> Media:
    count = len(frames)
    if decode == 'none':
        with open_image(frames[0]) as image:
            sizes = {image.size[::-1]}
    else:
        sizes = {read_image(frame).shape[:2] for frame in frames}
    missing = missing_numbers(frame_numbers(frames))
    said = f'frames {missing} are missing; extract them anew'
    findings = [('frame numbers', said)] if missing else []
    content = hash_of(*dict.fromkeys((frames[0], frames[count // 2], frames[-1])))
    return Media(count, sizes, f'{count} {content}', findings)


def _check_clip(clip: NumberedFrames | PackedClip, decode: str, content: str) -> Media:
    frames = clip.read(range(len(clip)) if decode == 'all' else [0])
    return Media(len(clip), {frame.shape[:2] for frame in frames}, content)


def check_samples(split: Split, is_s2d: bool) -> None:
    counts = [split.media[s.path].frames for s in split.samples if split.media[s.path].frames]
    for sample in split.samples:
        for finding in split.media[sample.path].findings:
            split.add(*finding, sample)
    if split.samples and 'train' in split.stages and len(split.stages) > 1:
        what = f'{" and ".join(split.stages)} are the same samples; give another ann_file'
        split.add('list of training and test', what)
    sixteen = counts.count(16) > 0.9 * len(counts)
    other = not sixteen if is_s2d else sixteen and split.interval > 1
    if counts and other and isinstance(split.dataset, DFEW):
        have, want = ('clip_224x224', 'clip_224x224_16f')[:: 1 if is_s2d else -1]
        what = f'these are {have}, but the recipe is for {want}: see docs/data/dfew.md'
        split.add('folder of another recipe', what)


def check_order(split: Split) -> None:
    """Whether the label ids mean other classes, by the names of folders or the counts."""
    classes = [str(name).lower() for name in split.classes]
    if not classes or getattr(split.dataset, 'target_ids', None):
        return
    for sample in split.samples:
        folder = osp.basename(osp.dirname(sample.path)).lower()
        name = folder if folder in classes else SYNONYMS.get(folder)
        if name in classes and sample.label not in (None, classes.index(name)):
            what = f'it lies in the folder {folder}, which is label {classes.index(name)}'
            split.add('folder of another class', f'{what}; is this list from another copy?', sample)
    known, labels = getattr(split.dataset, 'COUNTS', ()), [s.label for s in split.samples]
    if len(known) == len(classes) and len(labels) >= LEAST_SHARES:
        shares = np.bincount(labels, minlength=len(known)) / len(labels)
        right = np.divide(known, sum(known))
        worst = np.abs(shares - right).argmax()
        if abs(shares - right)[worst] > 0.08:
            what = f'{shares[worst]:.0%} are {classes[worst]}, of all data {right[worst]:.0%}'
            split.add('list in another order', f'{what}: do its ids mean other classes?')


def check_copies(split: Split, trains: list[Split]) -> None:
    """Samples of a split that are there twice, or in one of the training splits too."""
    seen = {}
    for home, sample in [(part, one) for part in (*trains, split) for one in part.samples]:
        content = split.media[sample.path].content or sample.path
        for same, key in (('file', osp.realpath(sample.path)), ('content', content)):
            first, place = seen.setdefault((same, key), (sample, home))
            if home is not split or first is sample:
                continue
            if place is split and same == 'content' and first.label == sample.label:
                break
            kind = 'twice' if place is split else 'in the training data'
            what = f'the same {same} as {first.path} ({place.name}, {first.line}) with the label '
            split.add(kind, f'{what}{first.label}; remove one of the two', sample)
            break


def verify(cfg: Config, workers: int = 0, decode: str = 'all') -> list[Split]:
    init_default_scope(cfg.get('default_scope', 'mmaction'))
    splits = find_splits(cfg)
    jobs = {(s.path, split.modality, decode): None for split in splits for s in split.samples}
    with ProcessPoolExecutor(workers or 1) as pool:  # starts no process before it is used
        found = pool.map(check_media, jobs, chunksize=8) if workers else map(check_media, jobs)
        found = track_iter_progress((found, len(jobs)), file=sys.stderr)
        media = {job[0]: one for job, one in zip(jobs, found)}
    for split in splits:
        split.media = media
        check_samples(split, is_s2d='S2DViT' in str(cfg.get('model')))
        check_order(split)
        same = [s for s in splits if 'train' in s.stages and s.modality == split.modality]
        check_copies(split, [] if 'train' in split.stages else same)
    return splits


def table(split: Split) -> str:
    found = [split.media[s.path] for s in split.samples]
    sizes = sorted(set().union(*(m.sizes for m in found)), key=np.prod)
    frames = [m.frames for m in found if m.frames]
    rows = [('samples', len(found)), ('unreadable', len(found) - len(frames))]
    if sizes:
        rows.append(('height x width', ' .. '.join(f'{h} x {w}' for h, w in (sizes[0], sizes[-1]))))
    if frames and split.modality == 'video':
        middle = f'{min(frames)} / {np.median(frames):g} / {max(frames)}'
        rows.append(('frames min / median / max', middle))
    counts = Counter(s.label for s in split.samples)
    for label, name in enumerate(split.classes):
        share = counts[label] / max(1, len(found))
        rows.append((f'  {label} {name}', f'{counts[label]} ({share:.1%})'))
    title = f'\n{split.name}: {split.cfg["type"]}, {split.cfg.get("ann_file")}'
    return '\n'.join([title] + [f'  {k:<26}{v}' for k, v in rows])


def main(argv: list | None = None) -> int:
    args = parse_args(argv)
    try:
        splits = verify(load_config(args.config, args.cfg_options), args.workers, args.decode)
    except BrokenProcessPool:
        sys.exit('verify: a file crashes the decoder, or memory is short; try fewer --workers')
    findings = [f for split in splits for f in split.findings]
    for f in findings:
        where = ', '.join(filter(None, (f.split, f.line, f.label and f'label {f.label}')))
        print(printable(f'{f.kind}: {f.path} ({where}): {f.what}'))
    print(f'{len(findings)} troubles')
    for (split, kind), count in Counter((f.split, f.kind) for f in findings).items():
        print(f'  {split}: {count} {kind}')
    print(*map(table, splits), sep='\n')
    return int(bool(findings))


if __name__ == '__main__':
    sys.exit(main())
