# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Write the lists of training and test samples for a folder of your own clips or images.

    python tools/data/make_lists.py clips data/mine/clips data/mine/clip_lists --person '(p[0-9]+)_'

See docs/own_data.md.
"""

import argparse
import csv
import os.path as osp
import random
import re
import sys
from collections import Counter, namedtuple
from collections.abc import Sequence
from pathlib import Path

from clip_files import csv_text, list_sources
from s4d_mm_alone import media
from s4d_mm_alone.files.atomic_write import atomic_write

PERSONS = 'persons.csv'

# name is the path below the folder, as in the lists
Sample = namedtuple('Sample', 'name label person')


def read_table(path: str) -> dict[str, tuple[str, str]]:
    """Label and person ('' if unknown) of each name without suffix, from a table of labels."""
    header, *lines = Path(path).read_text(encoding='utf-8-sig').splitlines() or ['']
    table = {}
    for row in csv.reader(lines, delimiter=max(',;\t', key=header.count)):
        name, label, *person = [field.strip() for field in (*row, '', '', '')]
        stem = without_suffix(name.replace('\\', '/'))
        if name and table.setdefault(stem, (label, person[0])) != (label, person[0]):
            raise ValueError(f'--labels {path} has two lines of {name}; remove one')
    return table


def without_suffix(name: str) -> str:
    """A name without .mp4, .jpg and the like; a dot in the name of a folder of frames stays."""
    stem, suffix = osp.splitext(name)
    known = suffix.lower() in media.VIDEO_SUFFIXES or media.is_picture(name)
    return stem if known else name


def label_samples(names: Sequence[str], table: dict | None, person: str | None) -> list[Sample]:
    """Label and person of each sample; without a known person each has one of its own."""
    samples, has_persons = [], any(who for _, who in (table or {}).values())
    for name in names:
        stem = without_suffix(name)
        label, who = osp.basename(osp.dirname(name)), ''
        if table is not None:
            label, who = table.get(stem, ('', ''))
        if not label:
            how = 'put it into a folder with the name of its class, or add it to a table (--labels)'
            raise ValueError(f'{name} has no label; {how}')
        if person is not None:
            match = re.search(person, stem)
            if not match:
                raise ValueError(f'{name} does not match --person {person!r}; change one of them')
            who = match[match.re.groups and 1]
        elif has_persons and not who:
            raise ValueError(f'{name} has no person in the third column of --labels; add it')
        samples.append(Sample(name, label, who or name))
    return samples


def deal_persons(samples: list[Sample], folds: int, seed: int, known: dict) -> dict[str, int]:
    """Fold of each person, from 1, so that each fold has about the same share of each class."""
    labels_of: dict[str, Counter] = {}
    for sample in samples:
        labels_of.setdefault(sample.person, Counter())[sample.label] += 1
    if len(labels_of) < folds:
        raise ValueError(f'--folds {folds}: there are only {len(labels_of)} persons')
    total, dealt = sum(labels_of.values(), Counter()), {}
    held = [Counter() for _ in range(folds)]
    order = sorted(labels_of)
    random.Random(seed).shuffle(order)
    order.sort(key=lambda name: (name not in known, -labels_of[name].total()))
    for name in order:
        costs = []
        for fold, part in enumerate(held, 1):
            cost = sum(n * part[c] / total[c] ** 2 for c, n in labels_of[name].items())
            costs.append((cost, part.total(), fold))
        dealt[name] = known.get(name, min(costs)[-1])
        if not 1 <= dealt[name] <= folds:
            raise ValueError(f'--persons has other folds than 1 to --folds {folds}')
        held[dealt[name] - 1].update(labels_of[name])
    return dealt


def read_persons(path: str) -> dict[str, int]:
    try:
        with open(path, encoding='utf-8', newline='') as f:
            return {row['person']: int(row['fold']) for row in csv.DictReader(f)}
    except (OSError, KeyError, TypeError, ValueError) as e:
        raise ValueError(f'--persons {path}: this is no {PERSONS} of make_lists.py ({e})') from e


def write_tables(out: str, tables: dict[str, list[Sequence]]) -> None:
    """Write CSV files into a folder; one that is there with other content is left alone."""
    texts = {osp.join(out, name): csv_text(rows) for name, rows in tables.items()}
    for path, text in texts.items():
        if osp.exists(path) and Path(path).read_text(encoding='utf-8') != text:
            raise ValueError(f'{path} exists with other content; delete or name another')
    for path, text in texts.items():
        atomic_write(path, text)


def report(samples: Sequence[Sample], lists: dict[str, list[Sample]]) -> None:
    classes = sorted({s.label for s in samples}, key=media.natural_key)
    print(f'{len(samples)} samples, {len({s.person for s in samples})} persons')
    if all(s.person == s.name for s in samples):
        print('No persons were named: each sample counts as its own. See --person.')
    for name, rows in lists.items():
        counts = Counter(s.label for s in rows)
        print(f'{name}: {len(rows)} (' + ', '.join(f'{c} {counts[c]}' for c in classes) + ')')
    print(f'classes = {tuple(classes)}')


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add('kind', choices=('clips', 'images'))
    add('folder', help='of the clips or images; faces are cut out already')
    add('out', help='folder to write set_<n>_train.csv, set_<n>_test.csv to')
    add('--labels', help='table of name, label, person, with a header; else a folder is a label')
    add('--person', help="regular expression that finds the person in a name: '(p[0-9]+)_'")
    add('--persons', help=f'{PERSONS} of an earlier call, whose persons stay in their folds')
    add('--folds', type=int, default=5, help='a test list has 1/FOLDS (default: 5)')
    add('--val', action='store_true', help='also a validation list, of the next fold')
    add('--seed', type=int, default=0, help='of the split')
    args = parser.parse_args(argv)
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
        table = read_table(args.labels) if args.labels else None
        kind = 'image' if args.kind == 'images' else 'video'
        sources = list_sources(args.folder, kind)
        names = [s.path for s in sources if s.file != osp.abspath(args.folder)]
        samples = label_samples(names, table, args.person)
        known = read_persons(args.persons) if args.persons else {}
        dealt = deal_persons(samples, args.folds, args.seed, known)
        lists = {}
        for fold in range(1, args.folds + 1):  # the fold after the test's validates
            role = {fold % args.folds + 1: 'val', fold: 'test'} if args.val else {fold: 'test'}
            for split in ('train', *role.values()):
                own = [s for s in samples if role.get(dealt[s.person], 'train') == split]
                lists[f'set_{fold}_{split}.csv'] = own
        tables = {PERSONS: [('person', 'fold'), *sorted(dealt.items())]}
        for name, own in lists.items():
            tables[name] = [('name', 'label'), *((s.name, s.label) for s in own)]
        write_tables(args.out, tables)
    except (OSError, ValueError) as e:
        print(f'make_lists: {e}', file=sys.stderr)
        return 2
    report(samples, lists)
    if lost := sorted(set(table or ()) - {without_suffix(name) for name in names}):
        print(f'{len(lost)} names of {args.labels} have no file: {", ".join(lost)}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
