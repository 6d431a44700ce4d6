# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What a prediction gives back: a list of records, and what was found in each input."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..files.text import safe_cell

Box = tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels of the upright frame

BOX = ('x1', 'y1', 'x2', 'y2')
COLUMNS = ('media', 'face', 'start', 'end', 'start_frame', 'end_frame', *BOX, 'label')


class ExpressionRecord(NamedTuple):
    """The expression of one face in one window of a video, or in an image.

    Attributes:
        media (str): The file, as it was given, or a name for an input that is no file.
        face (int | None): Number of the face within its input, from 1; None where no face was
            looked for (``faces='none'``).
        start (float | None): Time of the first frame in seconds; None for an image.
        end (float | None): Time at which the last frame ends, in seconds; None for an image.
        start_frame (int): Number of the first frame, from 0.
        end_frame (int): Number of the last frame, plus 1.
        box (tuple | None): x1, y1, x2, y2 of what was cut out, in pixels of the upright frame
            and inside of it, averaged over the frames; None where no face was looked for.
        label (str): The class of the highest probability.
        probabilities (dict[str, float]): Of each class by name, 0..1, in the order of
            :attr:`MediaResult.classes`.
        features (np.ndarray | None): (C, ), what the classifier sees, if it was asked for.
    """

    media: str
    face: int | None
    start: float | None
    end: float | None
    start_frame: int
    end_frame: int
    box: Box | None
    label: str
    probabilities: dict[str, float]
    features: np.ndarray | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain Python types; without ``features`` if there are none."""
        fields = self._asdict()
        fields['box'] = None if self.box is None else [round(v, 2) for v in self.box]
        features = fields.pop('features')
        if features is not None:
            fields['features'] = features.tolist()
        return fields


class FaceTrack(NamedTuple):
    """Where one face is, frame by frame.

    Attributes:
        start_frame (int): Number of its first frame.
        squares (np.ndarray): (N, 4 or 5), in each frame: see :mod:`s4d_mm.faces.squares`.
    """

    start_frame: int
    squares: np.ndarray


@dataclass
class MediaResult:
    """What was found in one input.

    Attributes:
        media (str): The file, as it was given, or a name.
        kind (str): 'video' or 'image'.
        frames (int): Number of frames that were read.
        fps (float | None): Mean frames per second of a video.
        size (tuple[int, int] | None): Width and height of the upright frames in pixels.
        tracks (dict[int, FaceTrack]): The faces by number; empty where none was looked for.
        records (list[ExpressionRecord]): The records of this input.
        classes (list[str]): All classes of the model, for videos and images alike: those of
            videos in label order, then those that it knows in images only.
        status (str): 'ok', 'no_face', or 'unreadable'.
        message (str): What was wrong, or is worth knowing; '' if nothing.
        trained_on (str): What the model has seen, such as 'drawn faces'.
    """

    media: str
    kind: str
    frames: int = 0
    fps: float | None = None
    size: tuple[int, int] | None = None
    tracks: dict[int, FaceTrack] = field(default_factory=dict)
    records: list[ExpressionRecord] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    status: str = 'ok'
    message: str = ''
    trained_on: str = ''


class ExpressionResult(list):
    """The list of records of all inputs, in the order of the inputs, faces and times.

    Args:
        media (Iterable[MediaResult]): What was found in each input.

    Attributes:
        media (list[MediaResult]): The same, also for inputs that gave no record.
    """

    def __init__(self, media: Iterable[MediaResult] = ()) -> None:
        self.media = list(media)
        super().__init__(record for item in self.media for record in item.records)

    @property
    def classes(self) -> list[str]:
        """Names of all classes of the model, in the order of the columns."""
        known = [name for item in self.media for name in item.classes]
        return list(dict.fromkeys([*known, *class_names(self)]))

    def summary(self) -> list[ExpressionRecord]:
        """One record for each face over the whole input.

        Each frame counts once: the probabilities of a frame are the mean of the windows that
        hold it, and those of the face are the mean over its frames.

        Returns:
            list[ExpressionRecord]: In the order of the inputs and faces.
        """
        return summarise(self)

    def to_csv(self, path: str | None = None) -> str:
        """The records as CSV text, a line each; probabilities with 6 digits, boxes with 2.

        A text that a spreadsheet would compute, such as a file name that begins with ``=``, gets a
        ``'`` in front of it.

        Args:
            path (str, optional): File to write it to as well. Defaults to None.

        Returns:
            str: The text. Columns: media, face, start, end, start_frame, end_frame, x1, y1, x2,
            y2, label, and one for each class.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator='\n')
        classes = self.classes
        for row in ([*COLUMNS, *classes], *table_rows(self, classes)):
            writer.writerow([safe_cell(value) for value in row])
        return _write(text.getvalue(), path)

    def to_json(self, path: str | None = None) -> str:
        """Records, summary, and what was found in each input, as JSON text.

        Args:
            path (str, optional): File to write it to as well. Defaults to None.

        Returns:
            str: The text: an object with ``media`` (a list of objects with the fields of
            :class:`MediaResult` but for tracks and records), ``records`` and ``summary``.
        """
        media = [
            dict(
                media=m.media,
                kind=m.kind,
                frames=m.frames,
                fps=m.fps,
                size=m.size,
                faces=len(m.tracks),
                status=m.status,
                message=m.message,
                trained_on=m.trained_on,
            )
            for m in self.media
        ]
        content = dict(
            media=media,
            records=[r.to_dict() for r in self],
            summary=[r.to_dict() for r in self.summary()],
        )
        return _write(json.dumps(content, indent=1, ensure_ascii=False) + '\n', path)

    def to_frame(self) -> Any:
        """The table of :meth:`to_csv` as a pandas data frame.

        Raises:
            ImportError: If pandas is not installed.
        """
        try:
            import pandas
        except ImportError as e:
            raise ImportError(
                'to_frame() needs pandas: pip install pandas. to_csv() and to_json() do not.'
            ) from e
        classes = self.classes
        return pandas.DataFrame(list(table_rows(self, classes)), columns=[*COLUMNS, *classes])


def class_names(records: Iterable[ExpressionRecord]) -> list[str]:
    """Names of all classes of some records, in label order, each once."""
    return list(dict.fromkeys(name for record in records for name in record.probabilities))


def table_rows(records: Iterable[ExpressionRecord], classes: Sequence[str]) -> Iterable[list]:
    """Rows of the table; a class that a record does not know is empty (None)."""
    for r in records:
        times = [None if t is None else round(t, 3) for t in (r.start, r.end)]
        scores = [r.probabilities.get(name) for name in classes]
        yield [
            r.media,
            r.face,
            *times,
            r.start_frame,
            r.end_frame,
            *([None] * 4 if r.box is None else [round(v, 2) for v in r.box]),
            r.label,
            *(None if s is None else round(s, 6) for s in scores),
        ]


def summarise(records: Iterable[ExpressionRecord]) -> list[ExpressionRecord]:
    """See :meth:`ExpressionResult.summary`."""
    groups = {}
    for record in records:
        groups.setdefault((record.media, record.face), []).append(record)
    return [_summarise_face(group) for group in groups.values()]


def _summarise_face(records: list[ExpressionRecord]) -> ExpressionRecord:
    first, last = records[0], max(records, key=lambda r: r.end_frame)
    weights = frame_weights([(r.start_frame, r.end_frame) for r in records])
    scores = np.array([list(r.probabilities.values()) for r in records])
    mean = weights @ scores / weights.sum()
    probabilities = dict(zip(first.probabilities, mean.tolist()))
    box = None
    if first.box is not None:
        box = tuple((weights @ np.array([r.box for r in records]) / weights.sum()).tolist())
    features = None
    if first.features is not None:
        features = weights @ np.stack([r.features for r in records]) / weights.sum()
    return ExpressionRecord(
        media=first.media,
        face=first.face,
        start=first.start,
        end=last.end,
        start_frame=first.start_frame,
        end_frame=last.end_frame,
        box=box,
        label=max(probabilities, key=probabilities.get),
        probabilities=probabilities,
        features=features,
    )


def frame_weights(spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """How many frames each window stands for, if a frame in k windows counts 1/k in each.

    Args:
        spans (Sequence[tuple[int, int]]): First frame, and last frame plus 1, of each window.

    Returns:
        np.ndarray: (windows, ), their sum is the number of different frames.
    """
    starts, ends = np.array(spans).T
    edges = np.unique(np.concatenate([starts, ends]))
    first, last = np.searchsorted(edges, starts), np.searchsorted(edges, ends)
    opened = np.bincount(first, minlength=len(edges)) - np.bincount(last, minlength=len(edges))
    counts = np.maximum(np.cumsum(opened)[:-1], 1)  # windows over each piece between two edges
    until = np.concatenate([[0.0], np.cumsum(np.diff(edges) / counts)])
    return until[last] - until[first]


def _write(text: str, path: str | None) -> str:
    if path is not None:
        with open(path, 'w', encoding='utf-8', newline='') as f:
            f.write(text)
    return text
