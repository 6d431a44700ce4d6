# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Write the lists of training and test samples for a folder of your own clips or images.

    python tools/data/make_lists.py clips data/mine/clips data/mine/clip_lists --person '(p[0-9]+)_'
    python tools/data/make_lists.py AffectNet LIST PART --max-per-class 20000

The label of a sample is the folder that holds it, or comes from a table (``--labels``). All samples
of a person are on the same side of a split. ``ExpressionVideoDataset`` and
``ExpressionImageDataset`` read the lists; docs/own_data.md has the whole path. The second form
draws a part of the list of a public dataset.
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
from typing import NamedTuple

from output_folder import write_text
from s4d_mm_alone import media

OWN_NAMES = ('contact_sheet.jpg',)  # what prepare.py puts beside the samples
HEADER_NAMES = ('label', 'labels', 'class', 'emotion', 'expression')
PERSONS = 'persons.csv'
LISTED = 5  # samples that a message names


class Sample(NamedTuple):
    """A clip or an image.

    Attributes:
        name (str): Path below the folder, as in the lists.
        label (str): Name or number of its class.
        person (str): Who is seen.
    """

    name: str
    label: str
    person: str


def find_samples(folder: str, kind: str) -> list[str]:
    """Find clips (video files, and folders that hold frames) or images.

    Args:
        folder (str): Searched recursively. Names that start with a dot are skipped.
        kind (str): 'clips' or 'images'.

    Returns:
        list[str]: Paths below the folder, with '/', in natural order.

    Raises:
        ValueError: If there are none.
    """
    if not osp.isdir(folder):
        raise ValueError(f'there is no folder {folder}')
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [d for d in folders if not d.startswith('.')]
        names = [n for n in names if not n.startswith('.') and n not in OWN_NAMES]
        below = '' if osp.samefile(place, folder) else osp.relpath(place, folder)
        pictures = [n for n in names if media.is_picture(n)]
        videos = [n for n in names if n.lower().endswith(media.VIDEO_SUFFIXES)]
        if kind == 'images':
            found += [osp.join(below, n) for n in pictures]
        elif videos:
            found += [osp.join(below, n) for n in videos]
        elif pictures and below:
            found.append(below)
    if not found:
        what = 'images' if kind == 'images' else 'video files or folders of frames'
        raise ValueError(f'{folder} holds no {what}')
    return sorted((path.replace(os.sep, '/') for path in found), key=media.natural_key)


def read_table(path: str) -> dict[str, tuple[str, str]]:
    """Read a table of labels.

    Args:
        path (str): Lines of name, label and, if they are known, person, with a comma, semicolon or
            tab between them. A first line with ``label`` in its second column is a header.

    Returns:
        dict: Label and person ('' if the table does not say) for each name without suffix.

    Raises:
        ValueError: If a line has fewer columns or names a sample again.
    """
    try:
        with open(path, encoding='utf-8-sig', newline='') as f:
            text = f.read()
    except (OSError, UnicodeDecodeError) as e:
        raise ValueError(f'--labels {path}: {e}') from e
    first = text.partition('\n')[0]
    reader = csv.reader(io.StringIO(text), delimiter=max(',;\t', key=first.count))
    table = {}
    for row in reader:
        row = [field.strip() for field in row]
        if not any(row) or (reader.line_num == 1 and row[1:2] and row[1].lower() in HEADER_NAMES):
            continue
        if len(row) < 2 or not all(row[:2]):
            raise ValueError(
                f'{path}:{reader.line_num}: expected a name and a label, but got {row}'
            )
        name = without_suffix(row[0].replace('\\', '/'))
        if name in table:
            raise ValueError(f'{path}:{reader.line_num}: {row[0]} is there for the second time')
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
    """Find label and person of each sample.

    Args:
        names (Sequence[str]): Of :func:`find_samples`.
        table (dict, optional): Of :func:`read_table`; None takes the label from the folder.
        person (str, optional): Regular expression whose group matches the person in a name.

    Returns:
        list[Sample]: In the same order. Without table and expression each sample has a person of
        its own.

    Raises:
        ValueError: If a label or a person is not found.
    """
    if table is None:
        labels = {name: osp.basename(osp.dirname(name)) for name in names}
        persons = {}
        how = 'each must lie in a folder with the name of its class, or name a table with --labels'
    else:
        rows = {name: table.get(without_suffix(name), ('', '')) for name in names}
        labels = {name: row[0] for name, row in rows.items()}
        persons = {name: row[1] for name, row in rows.items()}
        how = 'add lines for them to the table, or move them out of the folder'
    refuse([name for name in names if not labels[name]], f'have no label; {how}')
    if person is not None:
        found = {name: re.search(person, without_suffix(name)) for name in names}
        refuse(
            [name for name in names if not found[name]],
            f'do not match --person {person!r}, which must find the person in each name',
        )
        persons = {name: match[match.re.groups and 1] for name, match in found.items()}
    elif any(persons.values()):
        refuse([n for n in names if not persons[n]], 'have no person in the third column')
    else:
        persons = {name: name for name in names}
    return [Sample(name, labels[name], persons[name]) for name in names]


def refuse(names: Sequence[str], why: str) -> None:
    """Raise a ValueError that names the first samples, if there are any."""
    if names:
        more = f' and {len(names) - LISTED} more' if len(names) > LISTED else ''
        raise ValueError(f'{", ".join(names[:LISTED])}{more} {why}')


def deal_persons(
    samples: Iterable[Sample], folds: int, seed: int = 0, known: dict[str, int] | None = None
) -> dict[str, int]:
    """Deal persons to folds, so that each fold has about the same share of each class.

    The persons with most samples come first; each goes to the fold that has least of the classes
    of the person.

    Args:
        samples (Iterable[Sample]): All of them.
        folds (int): Number of folds.
        seed (int): Seed of the order of persons with equally many samples. Defaults to 0.
        known (dict, optional): Fold, from 1, of persons who were dealt before. Defaults to None.

    Returns:
        dict[str, int]: Fold of each person, from 1.

    Raises:
        ValueError: If there are fewer persons than folds, or a known fold does not exist.
    """
    labels_of: dict[str, Counter] = {}
    for sample in samples:
        labels_of.setdefault(sample.person, Counter())[sample.label] += 1
    known = {name: fold for name, fold in (known or {}).items() if name in labels_of}
    if any(not 1 <= fold <= folds for fold in known.values()):
        raise ValueError(f'--persons has other folds than 1 to --folds {folds}')
    if len(labels_of) < folds:
        raise ValueError(f'--folds {folds}: there are only {len(labels_of)} persons')
    total = sum(labels_of.values(), Counter())
    held = [Counter() for _ in range(folds)]
    for name, fold in known.items():
        held[fold - 1].update(labels_of[name])
    order = sorted(labels_of)
    random.Random(seed).shuffle(order)
    order.sort(key=lambda name: -sum(labels_of[name].values()))
    dealt = dict(known)
    for name in order:
        if name not in dealt:
            costs = [
                sum(n * counts[label] / total[label] ** 2 for label, n in labels_of[name].items())
                for counts in held
            ]
            sizes = [sum(counts.values()) for counts in held]
            fold = min(range(folds), key=lambda i: (costs[i], sizes[i], i))
            held[fold].update(labels_of[name])
            dealt[name] = fold + 1
    return dealt


def splits_of(
    samples: Sequence[Sample], dealt: dict[str, int], folds: int, val: bool
) -> dict[str, list[Sample]]:
    """The samples of each list.

    Args:
        samples (Sequence[Sample]): All of them.
        dealt (dict[str, int]): Of :func:`deal_persons`.
        folds (int): Number of folds.
        val (bool): Whether the next fold is for validation.

    Returns:
        dict[str, list[Sample]]: ``set_<n>_train.csv`` and the others.
    """
    lists = {}
    for fold in range(1, folds + 1):
        role = {fold: 'test'}
        if val:
            role[fold % folds + 1] = 'val'
        for split in ('train', 'val', 'test') if val else ('train', 'test'):
            lists[f'set_{fold}_{split}.csv'] = [
                s for s in samples if role.get(dealt[s.person], 'train') == split
            ]
    return lists


def to_csv(rows: Iterable[Sequence]) -> str:
    """Rows as the text of a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows(rows)
    return text.getvalue()


def read_persons(path: str) -> dict[str, int]:
    """Read the persons.csv of an earlier call."""
    try:
        with open(path, encoding='utf-8', newline='') as f:
            return {row['person']: int(row['fold']) for row in csv.DictReader(f)}
    except (OSError, KeyError, TypeError, ValueError) as e:
        raise ValueError(f'--persons {path}: this is no {PERSONS} of make_lists.py ({e})') from e


def write_lists(out: str, texts: dict[str, str]) -> None:
    """Write files, unless one is there with other content.

    Raises:
        ValueError: If it is so.
    """
    for name, text in texts.items():
        path = osp.join(out, name)
        if osp.exists(path):
            with open(path, encoding='utf-8', newline='') as f:
                if f.read() != text:
                    raise ValueError(
                        f'{path} exists with other content; delete it, or name another folder'
                    )
    os.makedirs(out, exist_ok=True)
    for name, text in texts.items():
        write_text(osp.join(out, name), text)


def draw_part(dataset: str, path: str, most: int, seed: int) -> tuple[str, str]:
    """Draw a part of the list of a public dataset.

    Args:
        dataset (str): Name of its class.
        path (str): The list.
        most (int): Samples of a class; of a class that has no more all are taken.
        seed (int): Of the draw.

    Returns:
        tuple[str, str]: The part as a CSV in the order of the list, and the samples of each class.

    Raises:
        ValueError: If there is no such dataset or list, or a line of it is wrong.
    """
    from mmengine.registry import DATASETS

    import s4d_mm  # noqa: F401
    from s4d_mm.datasets import AnnotationError

    if DATASETS.get(dataset) is None:
        raise ValueError(f'{dataset} is neither clips, images nor a registered dataset')
    try:
        data = DATASETS.build(dict(type=dataset, ann_file=path, lazy_init=True))
        found = list(data.annotations())
    except FileNotFoundError as e:
        raise ValueError(str(e)) from e
    wrong = next((a for a in found if isinstance(a, AnnotationError)), None)
    if wrong is not None:
        raise wrong
    classes, draw, taken = data.metainfo['classes'], random.Random(seed), set()
    for label in range(len(classes)):
        own = [i for i, a in enumerate(found) if a.label == label]
        taken.update(draw.sample(own, min(most, len(own))))
    rows = [(a.name, classes[a.label]) for i, a in enumerate(found) if i in taken]
    counts = Counter(label for _, label in rows)
    said = ', '.join(f'{name} {counts[name]}' for name in classes)
    return to_csv([('name', 'label'), *rows]), f'{len(rows)} of {len(found)} samples: {said}'


def class_names(samples: Iterable[Sample]) -> list[str]:
    """The labels that there are; ids in the order of numbers."""
    return sorted({s.label for s in samples}, key=media.natural_key)


def report(samples: Sequence[Sample], lists: dict[str, list[Sample]], alone: bool) -> str:
    """What was written, as text."""
    classes = class_names(samples)
    persons = len({s.person for s in samples})
    lines = [f'{len(samples)} samples, {persons} persons']
    if alone:
        lines.append('No persons were named: each sample counts as its own. See --person.')
    lines.append(f'{"":22} {"all":>5} ' + ' '.join(f'{c:>9}' for c in classes))
    for name, rows in lists.items():
        counts = Counter(s.label for s in rows)
        lines.append(f'{name:22} {len(rows):>5} ' + ' '.join(f'{counts[c]:>9}' for c in classes))
    if all(c.isdigit() for c in classes):
        lines.append(
            f'The labels are numbers: name the classes {", ".join(classes)} in this order.'
        )
    else:
        lines.append(f'classes = {tuple(classes)}')
    return '\n'.join(lines)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description='Write training and test lists for your own clips or images'
    )
    parser.add_argument(
        'kind', help='clips or images; or a dataset, such as AffectNet, to draw a part of its list'
    )
    parser.add_argument('folder', help='of the clips or images; faces are cut out already; or LIST')
    parser.add_argument(
        'out', help='folder to write set_<n>_train.csv, set_<n>_test.csv to; or PART'
    )
    parser.add_argument(
        '--max-per-class', type=int, help='of a dataset: samples of a class that are drawn'
    )
    parser.add_argument(
        '--labels',
        help='table of name, label and, if known, person; without it, the folder is the label',
    )
    parser.add_argument(
        '--person', help="regular expression that finds the person in a name, such as '(p[0-9]+)_'"
    )
    parser.add_argument(
        '--persons', help=f'{PERSONS} of an earlier call, whose persons stay in their folds'
    )
    parser.add_argument('--folds', type=int, default=5, help='a test list has 1/FOLDS (default: 5)')
    parser.add_argument(
        '--val', action='store_true', help='also a validation list, of the next fold'
    )
    parser.add_argument('--seed', type=int, default=0, help='of the split, or of the draw')
    args = parser.parse_args(argv)
    if (args.kind in ('clips', 'images')) == (args.max_per_class is not None):
        parser.error(f'{args.kind}: a dataset needs --max-per-class, clips and images have none')
    if args.max_per_class is not None and args.max_per_class < 1:
        parser.error(f'--max-per-class {args.max_per_class}: must be 1 or more')
    least = 3 if args.val else 2
    if args.folds < least:
        parser.error(f'--folds {args.folds}: must be {least} or more')
    if args.person is not None:
        try:
            re.compile(args.person)
        except re.error as e:
            parser.error(f'--person {args.person}: {e}')
    return args


def main(argv: list[str] | None = None) -> int:
    """Run the tool; returns its exit code."""
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
        known = read_persons(args.persons) if args.persons else None
        dealt = deal_persons(samples, args.folds, args.seed, known)
        lists = splits_of(samples, dealt, args.folds, args.val)
        texts = {
            name: to_csv([('name', 'label'), *((s.name, s.label) for s in rows)])
            for name, rows in lists.items()
        }
        texts[PERSONS] = to_csv([('person', 'fold'), *sorted(dealt.items())])
        write_lists(args.out, texts)
    except ValueError as e:
        print(f'make_lists: {e}', file=sys.stderr)
        return 2
    print(report(samples, lists, alone=all(s.person == s.name for s in samples)))
    lost = sorted(set(table or ()) - {without_suffix(name) for name in names})
    if lost:
        print(f'{len(lost)} names of {args.labels} have no file: {", ".join(lost[:LISTED])}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
