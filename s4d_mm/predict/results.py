# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What a prediction gives back: a list of records, and what was found in each input."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..files.text import safe_cell

Box = tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels of the upright frame
BOX = ('x1', 'y1', 'x2', 'y2')
COLUMNS = ('media', 'face', 'start', 'end', 'start_frame', 'end_frame', *BOX, 'label')
MEDIA = ('media', 'kind', 'frames', 'fps', 'size', 'faces', 'status', 'message', 'trained_on')
SHOWN_PARTS = 5  # of a clip whose label changes


class ExpressionRecord(NamedTuple):
    """The expression of one face in one window of a video, or in an image.

    Attributes:
        media (str): The file, as it was given, or a name for an input that is no file.
        face (int | None): Number of the face within its input, from 1; None with ``faces='none'``.
        start (float | None): Time of the first frame in seconds; None for an image.
        end (float | None): Time at which the last frame ends, in seconds; None for an image.
        start_frame (int): Number of the first frame, from 0.
        end_frame (int): Number of the last frame, plus 1.
        box (tuple | None): x1, y1, x2, y2 of the face crop, in pixels inside the upright frame,
            averaged over the frames; None with ``faces='none'``.
        label (str): The class of the highest probability.
        probabilities (dict[str, float]): Of each class, in the order of
            :attr:`MediaResult.classes`.
        features (np.ndarray | None): (C, ), the input of the classifier, if it was asked for.
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
        squares (np.ndarray): (N, 4 or 5), centre x, centre y, side, angle, and perhaps height in
            each frame.
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
        tracks (dict[int, FaceTrack]): The faces by number; empty with ``faces='none'``.
        records (list[ExpressionRecord]): The records of this input.
        classes (list[str]): All classes of the model: those of videos in label order, then those
            of images only.
        status (str): 'ok', 'no_face', or 'unreadable'.
        message (str): What was wrong, or is worth knowing; '' if nothing.
        trained_on (str): The training data of the model, such as 'drawn faces'.
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

    @property
    def faces(self) -> int:
        """Number of faces."""
        return len(self.tracks)

    def report(self) -> list[str]:
        """One line for each face, and a second one if its label changes."""
        if self.status == 'no_face':
            hint = '(try --faces none if the pictures are cut already)'
            return [f'no face found in {self.media} {hint}']
        lines = []
        for face in summarise(self.records):
            name = self.media if face.face is None else f'{self.media}  face {face.face}'
            time = '' if face.start is None else f'  {face.start:.1f}-{face.end:.1f} s'
            ranked = sorted(face.probabilities.items(), key=lambda item: -item[1])[:2]
            shares = [f'{label} {100 * share:.0f} %' for label, share in ranked]
            then = f'  (then {shares[1]})' if shares[1:] else ''
            lines.append(f'{name}{time}  {shares[0]}{then}')
            parts = label_parts([r for r in self.records if r.face == face.face])
            if len(parts) > 1:
                shown = [f'{label} {a:.1f}-{b:.1f} s' for label, a, b in parts[:SHOWN_PARTS]]
                rest = len(parts) - len(shown)
                more = f', and {rest} more' if rest else ''
                lines.append(f'    in turn: {", ".join(shown)}{more}')
        return lines


class ExpressionResult(list):
    """The list of records of all inputs, in the order of the inputs, faces and times.

    Attributes:
        media (list[MediaResult]): What was found in each input, also in those without a record.
        files (list[str]): Paths of the files that were written.
    """

    def __init__(self, media: Iterable[MediaResult] = (), files: Sequence[str] = ()) -> None:
        self.media, self.files = list(media), list(files)
        super().__init__(record for item in self.media for record in item.records)

    @property
    def classes(self) -> list[str]:
        """Names of all classes of the model, in the order of the columns."""
        named = [*(item.classes for item in self.media), *(r.probabilities for r in self)]
        return list(dict.fromkeys(name for names in named for name in names))

    def summary(self) -> list[ExpressionRecord]:
        """One record for each face over the whole input.

        The probabilities of a frame are the mean of the windows that hold it, and those of the
        face the mean of its frames.
        """
        return summarise(self)

    def to_csv(self, path: str | None = None) -> str:
        """The records as CSV text, a line each, also written to ``path`` if it is given.

        A text that a spreadsheet would compute, such as a file name that begins with ``=``, gets a
        ``'`` in front of it.
        """
        text = io.StringIO()
        rows = [[*COLUMNS, *self.classes], *self._rows()]
        csv.writer(text, lineterminator='\n').writerows(map(safe_cell, row) for row in rows)
        return _write(text.getvalue(), path)

    def to_json(self, path: str | None = None) -> str:
        """``media``, ``records`` and ``summary`` as JSON text, also written to ``path``."""
        content = dict(
            media=[{key: getattr(item, key) for key in MEDIA} for item in self.media],
            records=[record.to_dict() for record in self],
            summary=[record.to_dict() for record in self.summary()],
        )
        return _write(json.dumps(content, indent=1, ensure_ascii=False) + '\n', path)

    def to_frame(self) -> Any:
        """The table of :meth:`to_csv` as a data frame; pandas must be installed."""
        import pandas

        return pandas.DataFrame(self._rows(), columns=[*COLUMNS, *self.classes])

    def _rows(self) -> Iterator[list]:
        classes = self.classes
        for r in self:
            times = [None if t is None else round(t, 3) for t in (r.start, r.end)]
            box = [None] * 4 if r.box is None else [round(v, 2) for v in r.box]
            scores = [r.probabilities.get(name) for name in classes]  # None: not known in images
            scores = [None if s is None else round(s, 6) for s in scores]
            yield [r.media, r.face, *times, r.start_frame, r.end_frame, *box, r.label, *scores]


def summarise(records: Iterable[ExpressionRecord]) -> list[ExpressionRecord]:
    """One record for each face, see :meth:`ExpressionResult.summary`."""
    groups = {}
    for record in records:
        groups.setdefault((record.media, record.face), []).append(record)
    return [_summarise_face(group) for group in groups.values()]


def _summarise_face(records: list[ExpressionRecord]) -> ExpressionRecord:
    first, last = records[0], max(records, key=lambda r: r.end_frame)
    weights = frame_weights([(r.start_frame, r.end_frame) for r in records])

    def mean(rows: list) -> np.ndarray:
        return weights @ np.array(rows) / weights.sum()

    shares = mean([list(r.probabilities.values()) for r in records]).tolist()
    probabilities = dict(zip(first.probabilities, shares))
    return first._replace(
        end=last.end,
        end_frame=last.end_frame,
        box=None if first.box is None else tuple(mean([r.box for r in records]).tolist()),
        label=max(probabilities, key=probabilities.get),
        probabilities=probabilities,
        features=None if first.features is None else mean([r.features for r in records]),
    )


def frame_weights(spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """How many frames each window stands for, if a frame in k windows counts 1/k in each.

    Args:
        spans (Sequence[tuple[int, int]]): First frame, and last frame plus 1, of each window.

    Returns:
        np.ndarray: (windows, ), their sum is the number of different frames.
    """
    holders = np.zeros(max(end for _, end in spans))  # of each frame
    for start, end in spans:
        holders[start:end] += 1
    return np.array([(1 / holders[start:end]).sum() for start, end in spans])


def label_parts(records: Iterable[ExpressionRecord]) -> list[list]:
    """Label, start and end of each part of a clip that has one label, also of overlapping ones."""
    parts = []
    for record in (r for r in records if r.start is not None):
        if parts and parts[-1][0] == record.label:
            parts[-1][2] = record.end
            continue
        if parts:
            parts[-1][2] = min(parts[-1][2], record.start)
        parts.append([record.label, record.start, record.end])
    return parts


def _write(text: str, path: str | None) -> str:
    if path is not None:
        Path(path).write_text(text, encoding='utf-8', newline='')
    return text
