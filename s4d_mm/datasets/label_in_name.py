# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, public datasets whose names say the label, and often the person."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from .annotations import NAME_HEADERS, Annotation, AnnotationError
from .public_dataset import PublicDataset


class LabelInName(PublicDataset, ABC):
    """Dataset whose names say the label.

    A line of ``ann_file`` is a name, or a name and a label with a comma
    between them; then that label counts. Without ``ann_file`` the folder is listed.

    Args:
        subjects (Sequence[int], optional): Take only the samples of these
            people, so that folds can be made by person. Defaults to None, all.
        **kwargs: Arguments of :class:`PublicDataset`.
    """

    FROM_FOLDER = True
    NAME_FORMAT: str  # what names look like, for error messages

    def __init__(self, subjects: Sequence[int] | None = None, **kwargs) -> None:
        self.subjects = None if subjects is None else set(subjects)
        super().__init__(**kwargs)

    @abstractmethod
    def parse_name(self, name: str) -> tuple[str, int | None] | None:
        """Find label and person in a name.

        Args:
            name (str): Name of a sample.

        Returns:
            tuple[str, int | None] | None: Label, and number of the person if the
            name says it; None if it is no name of this dataset.
        """

    def get_subject(self, name: str) -> int | None:
        """Number of the person in a sample.

        Args:
            name (str): ``sample_id`` of the sample.

        Returns:
            int | None: The number; None if the dataset does not tell.

        Raises:
            ValueError: If it is no name of this dataset.
        """
        return self._parse_name(name)[1]

    def _parse_name(self, name: str) -> tuple[str, int | None]:
        found = self.parse_name(name)
        if found is None:
            raise ValueError(
                f'cannot read {name!r} as a name of '
                f'{type(self).__name__}. Names are like {self.NAME_FORMAT}.'
            )
        return found

    def is_header(self, line: str) -> bool:
        """Whether the first line of the file is a header, of one column or of two."""
        if self._is_just_a_name(line):
            return line.lower() in NAME_HEADERS
        return super().is_header(line)

    def parse_line(self, line: str) -> tuple[str, int | None] | None:
        """Parse a line of the annotation file: a name, or a name and a label."""
        if self._is_just_a_name(line):
            return self.parse_name_only(line)
        return self._if_chosen(*super().parse_line(line))

    def parse_name_only(self, name: str) -> tuple[str, int | None] | None:
        """Parse a name that has no label beside it."""
        label = self.label_to_id(self._parse_name(name)[0]) if self.has_labels else None
        return self._if_chosen(name, label)

    def _is_just_a_name(self, line: str) -> bool:
        return self.delimiter is None and ',' not in line

    def _if_chosen(self, name: str, label: int | None) -> tuple[str, int | None] | None:
        """The sample; None if ``subjects`` leaves out its person."""
        if self.subjects is not None:
            person = self.get_subject(name)
            self._people.add(person)
            if person not in self.subjects:
                return None
        return name, label

    def read_annotations(self) -> Iterator[Annotation | AnnotationError]:
        """Read the annotation file, or list the folder.

        Yields:
            Annotation | AnnotationError: The samples of the chosen people, and what
            is wrong.

        Raises:
            ValueError: If one of ``subjects`` is not there.
        """
        self._people = set()  # that were found
        yield from super().read_annotations()
        missing = (self.subjects or set()) - self._people
        if missing:
            raise ValueError(
                f'subjects of {type(self).__name__}: {sorted(missing)} are '
                f'not in {self.ann_file or self.data_prefix}, which has '
                f'{sorted(self._people - {None})}.'
            )
