# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Prediction of one input: frames, faces, windows, scores, records."""

from array import array
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from ..files.errors import NonFiniteError
from ..files.text import printable
from ..media import MediaReadError
from .inputs import Source, described
from .results import ExpressionRecord, FaceTrack, MediaResult
from .scorer import Scorer, Window
from .windows import Piece, WindowStream

FACES = ('auto', 'largest', 'none')


class Plan(NamedTuple):
    """How all inputs are treated.

    Attributes:
        faces (str): 'auto', 'largest' or 'none'.
        stride (int | None): Frames from a window to the next.
        max_frames (int | None): Frames of a video that are read.
        settings (FaceSettings | None): How faces are followed and cut; None with 'none'.
        detect (Callable | None): From an RGB frame to its faces; None with 'none'.
        lenient (bool): Whether an input that cannot be read is noted, not raised.
    """

    faces: str
    stride: int | None
    max_frames: int | None
    settings: Any
    detect: Callable | None
    lenient: bool


class Task(NamedTuple):
    """A sample to be scored.

    Attributes:
        input_type (str): 'video' or 'image'.
        sample (Any): For :meth:`Scorer.score`.
        done (Callable): Takes the scores (classes, ) and the features (C, ) or None.
    """

    input_type: str
    sample: Any
    done: Callable


class MediaJob:
    """One input on its way. Iterate over :meth:`tasks`, then call :meth:`close`.

    Args:
        source (Source): The input.
        scorer (Scorer): The model.
        plan (Plan): How it is treated.

    Attributes:
        on_start (Callable | None): Is called with the number of frames, or None if unknown.
        on_frame (Sequence[Callable]): Are called with each :class:`TimedFrame`.
        result (MediaResult): What was found so far.
        image (np.ndarray | None): The image, if it is one.
    """

    def __init__(self, source: Source, scorer: Scorer, plan: Plan) -> None:
        self.source, self.scorer, self.plan = source, scorer, plan
        self.on_start, self.on_frame = None, ()
        names = [n for kind in ('video', 'image') for n in scorer.classes.get(kind, ())]
        self.result = MediaResult(
            source.name,
            source.kind,
            classes=list(dict.fromkeys(names)),
            message=source.message,
            trained_on=scorer.trained_on,
        )
        self.image = None
        self.times = array('d')
        self.tracks = {}  # face -> (first frame, its squares one after the other)
        self.scored = []  # (face, first frame, last frame + 1, scores, features)
        self.numbers = 5 if plan.settings and plan.settings.stretch else 4  # of a square
        self.pending = 0  # tasks whose scores are not there yet

    @property
    def window(self) -> Window:
        """How the model samples this input; an image is a window of one frame."""
        return self.scorer.window if self.source.kind == 'video' else Window(1, 1)

    def tasks(self) -> Iterator[Task]:
        """Read the input and yield what is to be scored.

        Raises:
            FileNotFoundError: If there is no such file, unless ``plan.lenient``.
            MediaReadError: If it cannot be read to its end, unless ``plan.lenient``.
        """
        streams = {}  # face -> number of its first frame, its windows
        for number, frame, present in self._faces():
            for face in [f for f in streams if f not in present]:
                yield from self._finish(face, *streams.pop(face))
            for face, square in present.items():
                if face not in streams:
                    streams[face] = number, WindowStream(self.window, self.plan.stride)
                first, stream = streams[face]
                for piece in stream.push(partial(self._cut, frame, square)):
                    yield self._task(face, first, piece)
        for face in list(streams):
            yield from self._finish(face, *streams.pop(face))

    def _finish(self, face: int | None, first: int, stream: WindowStream) -> Iterator[Task]:
        for piece in stream.finish():
            yield self._task(face, first, piece)

    def _task(self, face: int | None, first: int, piece: Piece) -> Task:
        self.pending += 1
        sample = self.scorer.prepare(piece.images, self.source.kind)
        span = (face, first + piece.start, first + piece.end)
        return Task(self.source.kind, sample, partial(self._score, *span))

    def _score(self, face: int | None, start: int, end: int, scores: Any, seen: Any) -> None:
        if not np.isfinite(scores).all():
            raise NonFiniteError(
                f'The scores of {self.source.name} (frames {start} to {end - 1}) are not finite: '
                f'{np.round(scores, 4).tolist()}. The numbers of the model overflow: check its '
                'weights.'
            )
        self.pending -= 1
        self.scored.append((face, start, end, scores, seen))

    def _faces(self) -> Iterator[tuple[int, np.ndarray, dict]]:
        """Yield number, frame, and the squares by face; {None: None} where none is looked for."""
        if self.plan.faces == 'none':
            for number, frame in enumerate(self._frames()):
                yield number, frame, {None: None}
            return
        from ..faces import follow_faces

        settings = self.plan.settings
        if self.source.kind == 'image':  # one sighting is all that it can have
            settings = settings._replace(min_sightings=1)
        found = follow_faces(self._frames(), self.plan.detect, settings, self.plan.faces)
        for number, frame, placed in found:
            squares = {p.face: p.square for p in placed}
            for face, square in squares.items():
                _, values = self.tracks.setdefault(face, (number, array('d')))
                values.extend(float(v) for v in square)
            yield number, frame, squares

    def _frames(self) -> Iterator[np.ndarray]:
        """Yield the images, and keep what is to be known of them."""
        try:
            source = described(self.source)
            self.result.fps = source.fps
            limit = self.plan.max_frames if source.kind == 'video' else None
            if self.on_start:
                known = [n for n in (source.frames, limit) if n]
                self.on_start(min(known, default=None))
            for frame in islice(source.read(), limit):
                if not self.times:
                    self.result.size = frame.image.shape[1::-1]
                    self.image = frame.image if source.kind == 'image' else None
                self.times.append(frame.time)
                for watch in self.on_frame:
                    watch(frame)
                yield frame.image
        except (FileNotFoundError, MediaReadError) as e:
            if not self.plan.lenient:
                raise
            self.result.status, self.result.message = 'unreadable', printable(str(e))

    def _cut(self, frame: np.ndarray, square: np.ndarray | None) -> np.ndarray:
        if square is None:
            return frame
        from ..faces import crop_square

        return crop_square(frame, square, self.plan.settings.size)

    def close(self) -> MediaResult:
        """Make the records, once all scores are there."""
        result = self.result
        result.frames = count = len(self.times)
        if result.kind == 'video' and result.fps is None and count > 1:
            result.fps = (count - 1) / max(self.times[-1] - self.times[0], 1e-6)
        result.tracks = {
            face: FaceTrack(first, np.array(values).reshape(-1, self.numbers))
            for face, (first, values) in sorted(self.tracks.items())
        }
        self.scored.sort(key=lambda entry: (entry[0] or 0, *entry[1:3]))
        result.records = [self._record(*entry) for entry in self.scored]
        if result.status == 'ok' and not result.records:
            result.status = 'no_face'
            result.message = f'no face was found in {"it" if count == 1 else f"its {count} frames"}'
        return result

    def _record(
        self, face: int | None, start: int, end: int, scores: np.ndarray, seen: Any
    ) -> ExpressionRecord:
        known = dict(zip(self.scorer.classes[self.source.kind], scores.tolist()))
        probabilities = {name: known[name] for name in self.result.classes if name in known}
        is_video = self.source.kind == 'video'
        return ExpressionRecord(
            media=self.source.name,
            face=face,
            start=self.times[start] if is_video else None,
            end=self._end_time(end) if is_video else None,
            start_frame=start,
            end_frame=end,
            box=None if face is None else self._box(face, start, end),
            label=max(known, key=known.get),
            probabilities=probabilities,
            features=seen,
        )

    def _end_time(self, end: int) -> float:
        """When the frame before ``end`` ends: as the next one starts, or after its duration."""
        if end < len(self.times):
            return self.times[end]
        return self.times[-1] + (1 / self.result.fps if self.result.fps else 0.0)

    def _box(self, face: int, start: int, end: int) -> tuple[float, float, float, float]:
        from ..faces import square_box

        track = self.result.tracks[face]
        squares = track.squares[start - track.start_frame : end - track.start_frame]
        boxes = np.reshape([square_box(square) for square in squares], (-1, 2, 2))
        return tuple(np.clip(boxes, 0, self.result.size).mean(axis=0).ravel().tolist())
