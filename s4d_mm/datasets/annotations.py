# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, start: the lines of an annotation file, one by one.

A dataset takes the samples and stops at the first line that is wrong;
``tools/data/verify.py`` lists all that are wrong and goes on.
"""

import csv
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

# what the last column of a header line is called
LABEL_HEADERS = frozenset(
    (
        'label',
        'labels',
        'label_id',
        'id',
        'class',
        'class_id',
        'class_name',
        'category',
        'emotion',
        'expression',
    )
)
# what the only column of a file without labels is called
NAME_HEADERS = frozenset(
    ('path', 'name', 'file', 'filename', 'video', 'video_name', 'image', 'image_name')
)
LIST_SUFFIXES = ('.csv', '.txt', '.tsv')
# where find_lists stops: a folder with more entries holds media, not lists
MOST_ENTRIES, MOST_FOLDERS = 100, 500


class Annotation(NamedTuple):
    """One line of an annotation file.

    Attributes:
        where (str): ``file:line``.
        name (str): Name of the sample.
        label (int, optional): Label id, from 0; None in a file without labels.
    """

    where: str
    name: str
    label: int | None = None


class AnnotationError(ValueError):
    """A line of an annotation file that cannot be used.

    Args:
        message (str): What is wrong, in which file and line, and what to do.
        where (str): ``file:line``.
        line (str): The line.
    """

    def __init__(self, message: str, where: str = '', line: str = '') -> None:
        super().__init__(message)
        self.where, self.line = where, line


def read_lines(path: str, encoding: str = 'utf-8-sig') -> Iterator[tuple[str, str]]:
    """Read a text file.

    Args:
        path (str): The file.
        encoding (str): How its characters are stored. Defaults to 'utf-8-sig', which
            is UTF-8 with or without a byte order mark.

    Yields:
        tuple[str, str]: ``file:line`` and the line, stripped, of each line that is
        not empty.

    Raises:
        AnnotationError: If the file has another encoding; with file and line.
    """
    with open(path, 'rb') as f:
        content = f.read()
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as e:
        # what comes before the fault can be read, so that its lines can be counted
        before = e.object[: e.start].decode(encoding, 'ignore')
    else:
        # UTF-16 without a byte order mark is valid UTF-8, with a NUL in each character
        before, nul, _ = text.partition('\0')
        if not nul:
            for number, line in enumerate(io.StringIO(text, newline=None), 1):
                line = line.strip()
                if line:
                    yield f'{path}:{number}', line
            return
    where = f'{path}:{before.count(chr(10)) + 1}'
    raise AnnotationError(
        f'{where}: this is no {encoding.replace("-sig", "")} text. Save the file as UTF-8, or '
        "tell the dataset what it is, for example encoding='gb18030', 'latin-1' or 'utf-16'.",
        where,
    )


def find_lists(folder: str) -> list[str]:
    """Find what may be annotation files, to name them when another one is missing.

    Args:
        folder (str): Where to look, and below it. Folders with more than 100 entries
            are not entered, because they hold media.

    Returns:
        list[str]: Paths relative to the folder, those of the upper folders first.
    """
    found, folders = [], ['']
    for below in folders:  # which grows
        try:
            entries = sorted(os.scandir(os.path.join(folder, below)), key=lambda e: e.name)
        except OSError:
            continue
        paths = [(os.path.join(below, e.name), e) for e in entries]
        found += [path for path, e in paths if path.lower().endswith(LIST_SUFFIXES)]
        if len(entries) <= MOST_ENTRIES:
            inner = [path for path, e in paths if e.is_dir()]
            folders += inner[: max(0, MOST_FOLDERS - len(folders))]
    return found


def parse_lines(
    lines: Iterable[tuple[str, str]],
    parse: Callable[[str], tuple[str, int | None] | None],
    is_header: Callable[[str], bool] = lambda line: False,
) -> Iterator[Annotation | AnnotationError]:
    """Parse lines, also those after a line that is wrong.

    Args:
        lines (Iterable[tuple[str, str]]): Place and text of each line, as from
            :func:`read_lines`.
        parse (Callable): Gives name and label id of a line, or None to leave it
            out, or raises a ValueError.
        is_header (Callable): Whether the first line is a header. Defaults to
            never.

    Yields:
        Annotation | AnnotationError: What each line says, or what is wrong with it.
    """
    for position, (where, line) in enumerate(lines):
        if position == 0 and is_header(line):
            continue
        try:
            found = parse(line)
        except ValueError as e:
            yield AnnotationError(f'{where}: {e}', where, line)
            continue
        if found is not None:
            yield Annotation(where, *found)


def split_fields(line: str, delimiter: str | None = None) -> list[str]:
    """Split a line into its fields.

    Args:
        line (str): The line.
        delimiter (str, optional): Between the fields. White space splits off the
            last field only, since names may have some too. Defaults to None: a
            comma if the line has one, white space otherwise.

    Returns:
        list[str]: The fields, stripped.
    """
    if delimiter is None and ',' in line:
        delimiter = ','
    if delimiter is None or delimiter.isspace():
        fields = line.rsplit(delimiter, 1)
    elif '"' not in line:
        fields = line.split(delimiter)
    else:
        fields = next(csv.reader([line], delimiter=delimiter))
    return [field.strip() for field in fields]


def label_to_id(label: str, classes: Sequence[str], start: int = 0) -> int:
    """Find the id of a label.

    Args:
        label (str): An id, or the name of a class in upper or lower case.
        classes (Sequence[str]): Names of the classes in label order.
        start (int): What the file calls the first class. Defaults to 0.

    Returns:
        int: Label id, from 0.

    Raises:
        ValueError: If there is no such class.
    """
    try:
        label_id = int(label) - start
    except ValueError:
        names = [str(name).lower() for name in classes]
        label_id = names.index(label.lower()) if label.lower() in names else -1
    if not 0 <= label_id < len(classes):
        names = ', '.join(f'{i} {c}' for i, c in enumerate(classes, start))
        raise ValueError(
            f'unknown label {label!r}. It must be {start} to {start + len(classes) - 1} or a '
            f'class name: {names}. If the ids of this file do not start at {start}, set '
            'label_start.'
        )
    return label_id
