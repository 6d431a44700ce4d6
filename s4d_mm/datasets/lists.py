# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, start: from the lines of a list, or the files of a folder, to samples."""

import csv
import io
import itertools
import os
import os.path as osp
import re
from collections.abc import Callable, Iterator, Sequence

from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from ..media import IMAGE_SUFFIXES, REFUSED_SUFFIXES, VIDEO_SUFFIXES
from ..packed import is_there, open_folder, packed_folder

# what the last column of a header line is called, and the only column of a list without labels
LABEL_HEADER = re.compile(r'label(s|_id)?|id|class(_id|_name)?|category|emotion|expression', re.I)
NAME_HEADER = re.compile(r'path|name|file(name)?|(video|image)(_name)?', re.I)
# other words for classes, tried where no class has the word as its name
SYNONYMS = dict(
    angry='anger', happy='happiness', sad='sadness', fearful='fear', surprised='surprise'
)
NOT_LISTED = ('contact_sheet.jpg',)  # of former versions of tools/data/prepare.py
LISTED = 20  # entries of a folder that an error message names


class AnnotationError(ValueError):
    """A line of a list that cannot be used: message, ``file:line``, and the line."""

    def __init__(self, message: str, where: str = '', line: str = '') -> None:
        super().__init__(message)
        self.where, self.line = where, line


class ListDataset(BaseDataset):
    """Dataset whose samples are the lines of a list, or the files of a folder.

    A public data set is a subclass with other values of the fields below; one whose lines are
    unusual overrides :meth:`parse_line`. For the arguments see :class:`BaseExpressionDataset`.
    """

    INPUT_TYPE: str  # 'video' or 'image'
    PREFIX_KEY: str  # key of data_prefix
    LABEL_START: int | None = 0  # None: 1 if a list has the id of the last class so, and no 0
    HAS_LABELS = True
    FROM_FOLDER = False  # whether the folder is listed where there is no ann_file
    NAME_DIGITS = 0  # to which a number at the start of a file's name is filled with zeros

    def __init__(
        self,
        ann_file: str = '',
        data_root: str = '',
        data_prefix: dict | None = None,
        metainfo: dict | None = None,
        suffix: str = '',
        label_start: int | None = None,
        delimiter: str | None = None,
        has_labels: bool | None = None,
        encoding: str = 'utf-8-sig',
        label_map: dict[str, str | None] | None = None,
        **kwargs,
    ) -> None:
        data_prefix = {self.PREFIX_KEY: ''} if data_prefix is None else data_prefix
        if set(data_prefix) != {self.PREFIX_KEY}:
            raise ValueError(
                f'data_prefix of {type(self).__name__} must have the key {self.PREFIX_KEY!r} and '
                f'no other, but got {data_prefix!r}.'
            )
        self.suffix, self.delimiter, self.encoding = suffix or '', delimiter, encoding
        self.label_start = self.LABEL_START if label_start is None else label_start
        self.has_labels = self.HAS_LABELS if has_labels is None else has_labels
        metainfo = self._load_metainfo({'classes': self.own_classes(), **(metainfo or {})})
        metainfo = dict(metainfo, classes=tuple(metainfo['classes']))
        if self.has_labels and not metainfo['classes']:
            raise ValueError(
                f'{type(self).__name__} needs the class names in label order: '
                "metainfo=dict(classes=('neutral', ...)). If the annotation file has no labels, "
                'set has_labels=False.'
            )
        self.file_classes, self.target_ids = metainfo['classes'], None
        if label_map is not None:
            own, target = self.own_classes() or tuple(label_map), metainfo['classes']
            names = [label_map.get(name, name) for name in own]
            wrong = [n for n in label_map if n not in own]
            wrong += [n for n in names if n not in (None, *target)]
            if wrong:
                raise ValueError(
                    f'label_map={dict(label_map)}: {wrong} are not among the classes of the data, '
                    f'{own}, or of metainfo, {target}. Map each class of the data to one of '
                    'metainfo, or to None to leave it out.'
                )
            self.file_classes = own
            self.target_ids = [None if n is None else target.index(n) for n in names]
        super().__init__(ann_file or '', metainfo, data_root, data_prefix, **kwargs)

    def own_classes(self) -> tuple[str, ...]:
        """What the data set calls its classes, in label order; () if it does not say."""
        return tuple(self.METAINFO.get('classes', ()))

    def load_data_list(self) -> list[dict]:
        """Read the list: ``sample_id``, ``filename`` and, if there are labels, ``label``."""
        samples = self.read_list()
        if not samples:
            where = self.ann_file or self.data_prefix[self.PREFIX_KEY]
            raise ValueError(
                f'{where} has no samples for {type(self).__name__}. Check data_prefix, suffix and, '
                'if set, subjects or label_map.'
            )
        return samples

    def read_list(self, wrong: list[AnnotationError] | None = None) -> list[dict]:
        """Read the samples of all lines, with the labels of ``metainfo``.

        For tools ``wrong`` takes the errors of lines, and the samples also have ``where``, such as
        ``file:line``; without it the first error is raised.
        """
        if self.ann_file:
            lines = read_lines(self.ann_file, self.encoding, type(self).__name__)
            parse = self.parse_line
            if self.label_start is None:
                lines = list(lines)
                ids = {re.split(r'[,\s]', line)[-1] for _, line in lines}
                self.label_start = int(str(len(self.file_classes)) in ids and '0' not in ids)
                print_log(f'{self.ann_file}: ids from {self.label_start}.', logger='current')
        else:
            lines, parse = self._listed(), self.parse_name
        samples = []
        for i, (where, line) in enumerate(lines):
            if i == 0 and self.ann_file and self.is_header(line):
                continue
            try:
                parsed = parse(line)
            except ValueError as e:
                error = AnnotationError(f'{where}: {e}', where, line)
                if wrong is None:
                    raise error from e
                wrong.append(error)
                continue
            if parsed is None:
                continue
            sample = dict(sample_id=parsed[0])
            if self.has_labels:
                sample['label'] = self.target_ids[parsed[1]] if self.target_ids else parsed[1]
                if sample['label'] is None:
                    continue
            if wrong is not None:
                sample['where'] = where
            samples.append(sample)
        for sample, path in zip(samples, self._paths([s['sample_id'] for s in samples])):
            sample['filename'] = path
        return samples

    def _listed(self) -> list[tuple[str, str]]:
        if not self.FROM_FOLDER:
            official = self.METAINFO.get('split_files', 'none')
            raise ValueError(f'{type(self).__name__} needs ann_file; official lists: {official}.')
        folder = self.data_prefix[self.PREFIX_KEY]
        frames = self.INPUT_TYPE == 'video' and not self.suffix
        if packed_folder(folder) == osp.normpath(folder):
            names = open_folder(osp.normpath(folder)).keys()
        else:
            names = sorted(list_folder(folder, self.suffix, frames))
        return [(osp.join(folder, name), name) for name in names]

    def is_header(self, line: str) -> bool:
        """Whether the first line of the list is a header."""
        if not self.has_labels:
            return bool(NAME_HEADER.fullmatch(line))
        fields = split_fields(line, self.delimiter)
        return len(fields) == 2 and bool(LABEL_HEADER.fullmatch(fields[1]))

    def parse_line(self, line: str) -> tuple[str, int | None] | None:
        """Name and label id of a line; None to leave it out, or a ``ValueError``."""
        if not self.has_labels:
            return line, None
        fields = split_fields(line, self.delimiter)
        if len(fields) != 2 or not all(fields):
            between = 'a comma or white space' if self.delimiter is None else repr(self.delimiter)
            raise ValueError(
                f'expected a name and a label with {between} between them, but got {line!r}. Set '
                'delimiter if it is another one, or has_labels=False if the lines are just names.'
            )
        return fields[0], self.label_id(fields[1])

    def parse_name(self, name: str) -> tuple[str, int | None] | None:
        """Name and label id of a sample that was found in the folder; None to leave it out."""
        return name, None

    def label_id(self, label: str) -> int:
        """Id, from 0, of a label of the list: an id there, or a class name or its synonym."""
        classes, start = self.file_classes, self.label_start or 0
        try:
            label_id = int(label) - start
        except ValueError:
            names, word = [str(name).lower() for name in classes], label.lower()
            word = word if word in names else SYNONYMS.get(word)
            label_id = names.index(word) if word in names else -1
        if not 0 <= label_id < len(classes):
            names = ', '.join(f'{i} {c}' for i, c in enumerate(classes, start))
            raise ValueError(
                f'unknown label {label!r}. It must be {start} to {start + len(classes) - 1} or a '
                f'class name: {names}. If the ids of this file do not start at {start}, set '
                'label_start.'
            )
        return label_id

    def _paths(self, names: Sequence[str]) -> list[str]:
        # all take the form in which the files of the first ones are there
        folder, forms = self.data_prefix[self.PREFIX_KEY], self.path_forms()
        several = (n for n in names[:10_000] if len(forms) > 1 and len({f(n) for f in forms}) > 1)
        for name in itertools.islice(several, 100):
            forms = [f for f in forms if is_there(osp.join(folder, f(name)))] or forms
        return [osp.join(folder, forms[0](name)) for name in names]

    def path_forms(self) -> list[Callable[[str], str]]:
        """How a name becomes that of a file or a folder of frames, the likeliest way first.

        Official lists of clips may have names with a suffix such as ``.mp4``, where the files
        have another one or are folders of frames.
        """
        suffix, digits = self.suffix, self.NAME_DIGITS

        def as_it_is(name: str) -> str:
            return name + suffix

        def other_suffix(name: str) -> str:
            known = name.lower().endswith(VIDEO_SUFFIXES)
            return (osp.splitext(name)[0] if known else name) + suffix

        def filled(form: Callable[[str], str]) -> Callable[[str], str]:
            return lambda name: re.sub(r'^\d+', lambda m: m[0].zfill(digits), form(name))

        if self.INPUT_TYPE == 'image':
            return [as_it_is]
        forms = [other_suffix] if suffix else [as_it_is, other_suffix]
        return [*map(filled, forms), *forms] if digits else forms


def read_lines(
    path: str, encoding: str = 'utf-8-sig', owner: str = 'the dataset'
) -> Iterator[tuple[str, str]]:
    """Yield ``file:line`` and text of each line of a list that is not empty."""
    if not osp.isfile(path):
        folder = missing = osp.abspath(path)
        while not osp.isdir(folder):
            folder = osp.dirname(folder)
        there = sorted(entry.name for entry in itertools.islice(os.scandir(folder), LISTED))
        raise FileNotFoundError(
            f'Annotation file {missing} of {owner} does not exist. Check ann_file and data_root. '
            f'{folder} has: {", ".join(there)}.'
        )
    with open(path, 'rb') as f:
        content = f.read()
    try:
        text = content.decode(encoding)
    except (UnicodeDecodeError, LookupError) as e:
        before = e.object[: e.start] if isinstance(e, UnicodeDecodeError) else b''
        number = before.count(b'\n') + 1
        where = f'{path}:{number}'
        raise AnnotationError(
            f'{where}: this is no {encoding.replace("-sig", "")} text. Save the file as UTF-8, or '
            "tell the dataset what it is, for example encoding='gb18030', 'latin-1' or 'utf-16'.",
            where,
        ) from e
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        line = line.strip()
        if line:
            yield f'{path}:{number}', line


def split_fields(line: str, delimiter: str | None = None) -> list[str]:
    """Split a line at a delimiter; by default at commas, or at its last white space."""
    if delimiter is None and ',' in line:
        delimiter = ','
    if delimiter is None or delimiter.isspace():
        fields = line.rsplit(delimiter, 1)  # names may have white space too
    elif '"' not in line:
        fields = line.split(delimiter)
    else:
        fields = next(csv.reader([line], delimiter=delimiter))
    return [field.strip() for field in fields]


def list_folder(folder: str, suffix: str, frames: bool) -> Iterator[str]:
    """Yield the names, without suffix, of files below a folder, or of its folders of frames."""
    # also those that will be refused when they are read: nothing is left out without a word
    suffixes = suffix or IMAGE_SUFFIXES + REFUSED_SUFFIXES
    for path, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [f for f in folders if f[0] != '.' and f != '__MACOSX']
        files = [f for f in files if (f if suffix else f.lower()).endswith(suffixes)]
        files = [f for f in files if f[0] != '.' and f not in NOT_LISTED]
        below = '' if path == folder else osp.relpath(path, folder).replace(os.sep, '/') + '/'
        if not frames:
            yield from (below + f[: len(f) - len(suffix)] for f in files)
        elif files and below:
            yield below[:-1]
