# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Write the lists of training and test samples for a folder of your own clips or images.

    python tools/data/make_lists.py clips data/mine/clips data/mine/clip_lists --person '(p[0-9]+)_'
    python tools/data/make_lists.py AffectNet LIST PART --max-per-class 20000

The label of a sample is the folder that holds it, or comes from a table (``--labels``). All samples
of a person are on the same side of a split (docs/own_data.md). The second form draws a part of the
list of a public dataset.
"""

import argparse
import csv
import io
import os
import os.path as osp
import random
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from clip_files import OWN_NAMES, find_sources
from s4d_mm_alone import media
from s4d_mm_alone.files.atomic_write import atomic_write

HEADER_NAMES = ('label', 'labels', 'class', 'emotion', 'expression')
PERSONS = 'persons.csv'
LISTED = 5  # samples that a message names


class Sample(NamedTuple):
    """A clip or an image."""

    name: str  # path below the folder, as in the lists
    label: str
    person: str


def find_samples(folder: str, kind: str) -> list[str]:
    """Paths of the clips (videos, and folders of frames) or images below a folder, in order."""
    sources = find_sources(folder, 'image' if kind == 'images' else 'video')
    found = [p for p, _, file in sources if file != folder and osp.basename(p) not in OWN_NAMES]
    if not found:
        what = 'images' if kind == 'images' else 'video files or folders of frames'
        raise ValueError(f'{folder} holds no {what}')
    return sorted((path.replace(os.sep, '/') for path in found), key=media.natural_key)


def read_table(path: str) -> dict[str, tuple[str, str]]:
    """Label and person ('' if unknown) of each name without suffix, from a table of labels."""
    try:
        text = Path(path).read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as e:
        raise ValueError(f'--labels {path}: {e}') from e
    first = text.partition('\n')[0]
    reader = csv.reader(io.StringIO(text), delimiter=max(',;\t', key=first.count))
    table = {}
    for row in reader:
        row, where = [field.strip() for field in row], f'{path}:{reader.line_num}'
        if not any(row) or (reader.line_num == 1 and row[1:2] and row[1].lower() in HEADER_NAMES):
            continue
        if len(row) < 2 or not all(row[:2]):
            raise ValueError(f'{where}: expected a name and a label, but got {row}')
        name = without_suffix(row[0].replace('\\', '/'))
        if name in table:
            raise ValueError(f'{where}: {row[0]} is there for the second time')
        table[name] = (row[1], row[2] if len(row) > 2 else '')
    return table


def without_suffix(name: str) -> str:
    """A name without .mp4, .jpg and the like; a dot in the name of a folder of frames stays."""
    stem, suffix = osp.splitext(name)
    known = suffix.lower() in media.VIDEO_SUFFIXES or media.is_picture(name)
    return stem if known else name


def label_samples(
    names: Sequence[str], table: dict[str, tuple[str, str]] | None, person: str | None
) -> list[Sample]:
    """Label and person of each sample; without a known person each has one of its own."""
    if table is None:
        rows = {name: (osp.basename(osp.dirname(name)), '') for name in names}
        how = 'each must lie in a folder with the name of its class, or name a table with --labels'
    else:
        rows = {name: table.get(without_suffix(name), ('', '')) for name in names}
        how = 'add lines for them to the table, or move them out of the folder'
    refuse([name for name in names if not rows[name][0]], f'have no label; {how}')
    persons = {name: row[1] for name, row in rows.items()}
    if person is not None:
        found = {name: re.search(person, without_suffix(name)) for name in names}
        why = f'do not match --person {person!r}, which must find the person in each name'
        refuse([name for name in names if not found[name]], why)
        persons = {name: match[match.re.groups and 1] for name, match in found.items()}
    elif any(persons.values()):
        refuse([n for n in names if not persons[n]], 'have no person in the third column')
    else:
        persons = {name: name for name in names}
    return [Sample(name, rows[name][0], persons[name]) for name in names]


def refuse(names: Sequence[str], why: str) -> None:
    if names:
        more = f' and {len(names) - LISTED} more' if len(names) > LISTED else ''
        raise ValueError(f'{", ".join(names[:LISTED])}{more} {why}')


def deal_persons(
    samples: Iterable[Sample], folds: int, seed: int, known: dict[str, int]
) -> dict[str, int]:
    """Fold of each person, from 1, so that each fold has about the same share of each class."""
    labels_of: dict[str, Counter] = {}
    for sample in samples:
        labels_of.setdefault(sample.person, Counter())[sample.label] += 1
    dealt = {name: fold for name, fold in known.items() if name in labels_of}
    if max([folds, *dealt.values()]) > folds:
        raise ValueError(f'--persons has other folds than 1 to --folds {folds}')
    if len(labels_of) < folds:
        raise ValueError(f'--folds {folds}: there are only {len(labels_of)} persons')
    total = sum(labels_of.values(), Counter())
    held = [Counter() for _ in range(folds)]
    for name, fold in dealt.items():
        held[fold - 1].update(labels_of[name])
    order = sorted(labels_of)
    random.Random(seed).shuffle(order)
    order.sort(key=lambda name: -labels_of[name].total())
    for name in (n for n in order if n not in dealt):
        costs = [
            sum(n * counts[label] / total[label] ** 2 for label, n in labels_of[name].items())
            for counts in held
        ]
        fold = min(range(folds), key=lambda i: (costs[i], held[i].total(), i))
        held[fold].update(labels_of[name])
        dealt[name] = fold + 1
    return dealt


def splits_of(
    samples: Sequence[Sample], dealt: dict[str, int], folds: int, val: bool
) -> dict[str, list[Sample]]:
    """The samples of ``set_<n>_train.csv`` and the others; the fold after the test's validates."""
    lists = {}
    for fold in range(1, folds + 1):
        role = {fold % folds + 1: 'val'} if val else {}
        role[fold] = 'test'
        for split in ('train', 'val', 'test') if val else ('train', 'test'):
            own = [s for s in samples if role.get(dealt[s.person], 'train') == split]
            lists[f'set_{fold}_{split}.csv'] = own
    return lists


def to_csv(*rows: Sequence) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows(rows)
    return text.getvalue()


def read_persons(path: str) -> dict[str, int]:
    try:
        with open(path, encoding='utf-8', newline='') as f:
            return {row['person']: int(row['fold']) for row in csv.DictReader(f)}
    except (OSError, KeyError, TypeError, ValueError) as e:
        raise ValueError(f'--persons {path}: this is no {PERSONS} of make_lists.py ({e})') from e


def write_lists(out: str, texts: dict[str, str]) -> None:
    paths = {osp.join(out, name): text for name, text in texts.items()}
    for path, text in paths.items():
        if osp.exists(path) and Path(path).read_text(encoding='utf-8') != text:
            raise ValueError(f'{path} exists with other content; delete or name another')
    for path, text in paths.items():
        atomic_write(path, text)


def draw_part(dataset: str, path: str, most: int, seed: int) -> tuple[str, str]:
    """At most so many samples of each class of a public list, as CSV, and what is said of them."""
    from mmengine.registry import DATASETS

    import s4d_mm  # noqa: F401

    if DATASETS.get(dataset) is None:
        raise ValueError(f'{dataset} is neither clips, images nor a registered dataset')
    data = DATASETS.build(dict(type=dataset, ann_file=path, lazy_init=True))
    found = data.read_list()
    classes, draw, taken = data.metainfo['classes'], random.Random(seed), set()
    for label in range(len(classes)):
        own = [i for i, sample in enumerate(found) if sample['label'] == label]
        taken.update(draw.sample(own, min(most, len(own))))
    rows = [(s['sample_id'], classes[s['label']]) for i, s in enumerate(found) if i in taken]
    counts = Counter(label for _, label in rows)
    said = ', '.join(f'{name} {counts[name]}' for name in classes)
    return to_csv(('name', 'label'), *rows), f'{len(rows)} of {len(found)} samples: {said}'


def report(samples: Sequence[Sample], lists: dict[str, list[Sample]]) -> str:
    classes = sorted({s.label for s in samples}, key=media.natural_key)
    lines = [f'{len(samples)} samples, {len({s.person for s in samples})} persons']
    if all(s.person == s.name for s in samples):
        lines.append('No persons were named: each sample counts as its own. See --person.')
    lines.append(f'{"":22} {"all":>5} ' + ' '.join(f'{c:>9}' for c in classes))
    for name, rows in lists.items():
        counts = Counter(s.label for s in rows)
        lines.append(f'{name:22} {len(rows):>5} ' + ' '.join(f'{counts[c]:>9}' for c in classes))
    numbers = all(c.isdigit() for c in classes)
    lines.append(f'classes = {tuple(classes)}' + ', which are numbers: name them' * numbers)
    return '\n'.join(lines)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add('kind', help='clips or images; or a dataset, such as AffectNet, to draw a part of its list')
    add('folder', help='of the clips or images; faces are cut out already; or LIST')
    add('out', help='folder to write set_<n>_train.csv, set_<n>_test.csv to; or PART')
    add('--max-per-class', type=int, help='of a dataset: samples of a class that are drawn')
    add('--labels', help='table of name, label and, if known, person; else the folder is the label')
    add('--person', help="regular expression that finds the person in a name: '(p[0-9]+)_'")
    add('--persons', help=f'{PERSONS} of an earlier call, whose persons stay in their folds')
    add('--folds', type=int, default=5, help='a test list has 1/FOLDS (default: 5)')
    add('--val', action='store_true', help='also a validation list, of the next fold')
    add('--seed', type=int, default=0, help='of the split, or of the draw')
    args = parser.parse_args(argv)
    if (args.kind in ('clips', 'images')) == (args.max_per_class is not None):
        parser.error(f'{args.kind}: a dataset needs --max-per-class, clips and images have none')
    least = 3 if args.val else 2
    if args.folds < least:
        parser.error(f'--folds {args.folds}: must be {least} or more')
    try:
        re.compile(args.person or '')
    except re.error as e:
        parser.error(f'--person {args.person}: {e}')
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    try:
        if args.max_per_class is not None:
            text, said = draw_part(args.kind, args.folder, args.max_per_class, args.seed)
            write_lists(osp.dirname(osp.abspath(args.out)), {osp.basename(args.out): text})
            print(f'{args.out}: {said}')
            return 0
        table = read_table(args.labels) if args.labels else None
        names = find_samples(args.folder, args.kind)
        samples = label_samples(names, table, args.person)
        known = read_persons(args.persons) if args.persons else {}
        dealt = deal_persons(samples, args.folds, args.seed, known)
        lists = splits_of(samples, dealt, args.folds, args.val)
        texts = {}
        for name, rows in lists.items():
            texts[name] = to_csv(('name', 'label'), *((s.name, s.label) for s in rows))
        texts[PERSONS] = to_csv(('person', 'fold'), *sorted(dealt.items()))
        write_lists(args.out, texts)
    except (OSError, ValueError) as e:
        print(f'make_lists: {e}', file=sys.stderr)
        return 2
    print(report(samples, lists))
    lost = sorted(set(table or ()) - {without_suffix(name) for name in names})
    if lost:
        print(f'{len(lost)} names of {args.labels} have no file: {", ".join(lost[:LISTED])}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
