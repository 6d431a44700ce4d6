# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, public datasets: official annotation files with many columns."""

import csv
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator

from mmengine.logging import print_log

from .annotations import Annotation, AnnotationError, parse_lines
from .public_dataset import PublicImageDataset


class OfficialCsvDataset(PublicImageDataset, ABC):
    """Images with an official CSV of many columns, with or without a header.

    A file whose first line has another number of fields is a simple list, as for
    :class:`BaseExpressionDataset`.

    Args:
        **kwargs: Arguments of :class:`PublicDataset`.
    """

    COLUMNS: tuple[str, ...]

    @abstractmethod
    def parse_row(self, row: dict[str, str], left_out: Counter) -> tuple[str, int | None] | None:
        """Parse a row of the official file.

        Args:
            row (dict[str, str]): Fields by column.
            left_out (Counter): Where to count a row that is left out, by the reason.

        Returns:
            tuple[str, int] | None: Name of the image and label id; None to leave the
            row out.

        Raises:
            ValueError: If the row is malformed.
        """

    def is_official(self) -> bool:
        """Whether ``ann_file`` is the official file, not a simple list.

        Returns:
            bool: Whether its first line has as many fields.
        """
        if not self.ann_file:
            return False
        for _, line in self.read_lines():
            return len(_split_csv(line)) == len(self.COLUMNS)
        return False

    def read_annotations(self) -> Iterator[Annotation | AnnotationError]:
        """Read the official file or a simple list.

        Yields:
            Annotation | AnnotationError: The sample of each line, or what is wrong
            with it.
        """
        if not self.is_official():
            yield from super().read_annotations()
            return
        count, left_out = 0, Counter()
        for found in parse_lines(
            self.read_lines(),
            lambda line: self.parse_row(self._split_row(line), left_out),
            lambda line: _split_csv(line)[0] == self.COLUMNS[0],
        ):
            count += isinstance(found, Annotation)
            yield found
        reasons = ', '.join(f'{number} {why}' for why, number in left_out.items()) or 'none'
        print_log(f'{self.ann_file}: {count} images; left out: {reasons}.', logger='current')

    def _split_row(self, line: str) -> dict[str, str]:
        fields = _split_csv(line)
        if len(fields) != len(self.COLUMNS):
            raise ValueError(
                f'expected the {len(self.COLUMNS)} columns {", ".join(self.COLUMNS)}, but got '
                f'{len(fields)}.'
            )
        return dict(zip(self.COLUMNS, fields))


def _split_csv(line: str) -> list[str]:
    return next(csv.reader([line]))


def read_number(text: str) -> int:
    """Read an id or a count of an official file.

    Args:
        text (str): The field.

    Returns:
        int: The number.

    Raises:
        ValueError: If it is none.
    """
    try:
        return int(text)
    except ValueError:
        raise ValueError(f'expected a number, but got {text!r}.') from None
