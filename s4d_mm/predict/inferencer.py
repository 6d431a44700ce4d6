# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Prediction of expressions in the user's own media, in one call."""

import logging
import os.path as osp
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import INFERENCERS
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from ..files.errors import NonFiniteError
from ..files.text import printable
from ..media import MediaReadError, TimedFrame, video_info
from .faces import FaceDetector, FaceSettings, crop_square, square_box
from .inputs import Input, Source, list_sources
from .models import OWN_MODEL, find_model, published_weights
from .outputs import OutputFolder
from .results import ExpressionRecord, ExpressionResult, FaceTrack, MediaResult
from .scorers import OnnxScorer, Scorer, TorchScorer
from .tracking import follow_faces
from .windows import Piece, Window, WindowStream

FACES = ('auto', 'largest', 'none')
SMALL_FACE = 0.5  # of the frame's shorter side
make_detector = lru_cache(FaceDetector)  # it reads its weights


@INFERENCERS.register_module()
class ExpressionInferencer:
    """Finds the faces in videos and images and says what they express.

    A video is read once, as a stream. Every face is tracked and cropped as for training, and
    classified in windows over the whole video; faces in images are classified by the image
    classifier.

    Args:
        model (str | Path | Config, optional): Config file or object of a fine-tuned model, the name
            of one in ``model-index.yml``, or an ``.onnx`` file of ``tools/deployment/export.py``.
            Defaults to None, ``rendered_people``, a small one that has seen rendered people only.
        weights (str, optional): Its checkpoint, also one of the S4D authors; a file or an address.
            Defaults to None, which means ``load_from`` of the config, what is in the package
            (``rendered_people``), or what the authors publish (``s2d_dfew``, ``s2d_ferv39k``,
            ``s2d_mafw``). Not for ``.onnx``.
        device (str, optional): Such as 'cpu' or 'cuda:0'. Defaults to None, a GPU if there is one.
        show_progress (bool): Whether a terminal shows a progress bar. Defaults to True.
        fold (int, optional): Which of the authors' files a name such as ``s2d_dfew`` stands for.
            Defaults to None, the first.

    Attributes:
        scorer (Scorer): What computes the model.
        detector (Callable | None): A function from an RGB frame to a list of ``Face``, to be used
            in place of ``FaceDetector``. None at first.

    Raises:
        FileNotFoundError: If the model or the weights are not there.
        ValueError: If they do not fit, or cannot predict, or weights are given without a model.

    Example:
        >>> inferencer = ExpressionInferencer()  # or ('configs/s4d_finetune_dfew.py', 'x.pth')
        >>> result = inferencer('interview.mp4', out_dir='out')
        >>> result[0].label, result[0].probabilities
    """

    def __init__(
        self,
        model: str | Path | Config | None = None,
        weights: str | None = None,
        device: str | None = None,
        show_progress: bool = True,
        fold: int | None = None,
    ) -> None:
        if model is None:
            if weights is not None:
                raise ValueError(
                    f'weights={weights!r}: give their config, too, as model (--model).'
                )
            model = OWN_MODEL
        model = str(model) if isinstance(model, Path) else model
        weights = published_weights(model, None if weights is None else str(weights), fold)
        self.show_progress = show_progress
        self.detector = None
        if isinstance(model, str) and model.lower().endswith('.onnx'):
            if weights is not None:
                raise ValueError(f'{model} holds its weights; leave out weights={weights!r}.')
            self.scorer: Scorer = OnnxScorer(model, device)
        else:
            if isinstance(model, str) and not osp.isfile(model):
                model = find_model(model)
            self.scorer = TorchScorer(model, weights, device)
        print_log(f'The model was trained on: {self.scorer.trained_on}', 'current')

    def __call__(
        self,
        inputs: Input | Sequence[Input],
        faces: str = 'auto',
        batch_size: int = 4,
        window_stride: int | None = None,
        folder: str = 'auto',
        features: bool = False,
        out_dir: str | None = None,
        draw: bool = True,
        face_settings: FaceSettings | None = None,
        fps: float = 25,
        max_frames: int | None = None,
    ) -> ExpressionResult:
        """Predict the expressions in one or many inputs.

        Args:
            inputs (Input | Sequence[Input]): Paths (str or Path) of videos, images or folders;
                arrays (T, H, W, 3) for a video or (H, W, 3) for an image, RGB, uint8; an iterator
                of such frames; the number of a camera, which is read until it ends or Ctrl-C; a
                list or tuple of these.
            faces (str): 'auto' finds and tracks every face, 'largest' one face at a time, as
                ``tools/data/prepare.py`` does; 'none' takes the whole frame, for face crops.
                Defaults to 'auto'.
            batch_size (int): Windows, or images, that the model takes at once; the scores do not
                depend on it. Defaults to 4.
            window_stride (int, optional): Frames from the start of a window to that of the next.
                Defaults to None, the length of a window.
            folder (str): 'frames', 'images' or 'auto': see
                :func:`~s4d_mm.predict.inputs.list_sources`. Defaults to 'auto'.
            features (bool): Whether records have ``features``, the input of the classifier.
                Defaults to False.
            out_dir (str, optional): Folder for NAME.csv, NAME.json and, with ``draw``, NAME.mp4
                and NAME_timeline.png, or NAME.png, of each input. Defaults to None.
            draw (bool): Whether to write pictures to ``out_dir``. Defaults to True.
            face_settings (FaceSettings, optional): How faces are found, tracked and cropped.
                Defaults to None, as ``tools/data/prepare.py`` does it by default.
            fps (float): Frames per second of arrays, iterators and folders of frames. Defaults to
                25.
            max_frames (int, optional): Most frames that are read of a video or camera. Defaults to
                None, all.

        Returns:
            ExpressionResult: The records of all inputs; ``.media`` says what was found in each.

        Raises:
            FileNotFoundError: If the one input does not exist.
            MediaReadError: If the one input cannot be read to its end. Of several, those are noted
                in ``.media`` with ``status='unreadable'``, and the others are predicted.
            ValueError: If an argument or input is none of the above, or the model takes no videos
                or no images.
            ImportError: If ``faces`` needs the extra ``faces``.
        """
        if faces not in FACES:
            raise ValueError(f'faces={faces!r}: must be one of {FACES}.')
        counts = dict(batch_size=batch_size, window_stride=window_stride, max_frames=max_frames)
        for name, value in counts.items():
            if value is not None and value < 1:
                raise ValueError(f'{name}={value!r}: must be at least 1.')
        sources = list_sources(inputs, folder, fps)
        for source in sources:
            if source.kind not in self.scorer.classes:
                raise ValueError(
                    f'{source.name} is of the kind {source.kind!r}, but {self.scorer.name} has '
                    f'classifier and test pipeline only for {" and ".join(self.scorer.classes)}.'
                )
        settings = face_settings or FaceSettings()
        detect = self.detector
        if detect is None and faces != 'none':
            detect = make_detector(settings.detect_side, settings.threshold)
        options = (faces, window_stride, max_frames, settings, detect, len(sources) > 1)
        jobs = [MediaJob(source, self.scorer, *options) for source in sources]
        outputs = None if out_dir is None else OutputFolder(str(out_dir), sources, draw)
        self._predict(jobs, batch_size, features, outputs)
        return ExpressionResult([job.result for job in jobs], outputs.files if outputs else ())

    def _predict(
        self, jobs: list['MediaJob'], batch_size: int, features: bool, outputs: OutputFolder | None
    ) -> None:
        batch, waiting = [], []  # samples of one input type; jobs that miss scores
        console = Console(stderr=True)
        shown = self.show_progress and console.is_terminal
        with Progress(console=console, transient=True, disable=not shown) as bar:
            task = bar.add_task('')

            def show(job: MediaJob, frame: TimedFrame) -> None:
                bar.update(task, total=job.total, advance=1)

            for job in jobs:
                bar.reset(task, total=None, description=escape(osp.basename(job.source.name)))
                job.on_frame.append(partial(show, job))
                if job is jobs[0] and job.faces == 'none':
                    job.on_frame.append(partial(self._warn_of_small_face, job))
                with outputs.spool(job.source) if outputs else nullcontext() as spool:
                    if spool:
                        job.on_frame.append(spool.write)
                    for item in job.windows():
                        if batch and batch[0][0].source.kind != job.source.kind:
                            self._score(batch, features)
                        batch.append(item)
                        if len(batch) == batch_size:
                            self._score(batch, features)
                    waiting.append(job)
                    # images share batches, a video has its own
                    if job.source.kind == 'video' or job is jobs[-1]:
                        self._score(batch, features)
                    for done in [job for job in waiting if not job.missing]:
                        waiting.remove(done)
                        done.finish()
                        if outputs:
                            video = spool.close() if spool else done.source.path
                            outputs.write(jobs.index(done), done.result, done.image, video)
                        done.image = None

    def _score(self, batch: list[tuple], features: bool) -> None:
        if batch:
            samples, kind = [sample for _, sample, *_ in batch], batch[0][0].source.kind
            scores, seen = self.scorer.score(samples, kind, features)
            for i, (job, _, *span) in enumerate(batch):
                job.add(*span, scores[i], None if seen is None else seen[i])
            batch.clear()

    def _warn_of_small_face(self, job: 'MediaJob', frame: TimedFrame) -> None:
        if len(job.times) > 1:
            return
        try:
            detect = job.detect or make_detector()
        except ImportError:  # the extra is not installed
            return
        boxes = [face.box for face in detect(frame.image)]
        side = max((max(x2 - x1, y2 - y1) for x1, y1, x2, y2 in boxes), default=np.inf)
        share = side / min(frame.image.shape[:2])
        if share < SMALL_FACE:
            text = f"fills {100 * share:.0f} % of the frame's shorter side. Use faces='auto'"
            text = f'{job.source.name}: the largest face {text}, as the model takes face crops.'
            print_log(text, 'current', logging.WARNING)


@dataclass(eq=False)
class MediaJob:
    """One input on its way from frames to records.

    Iterate over :meth:`windows`, :meth:`add` the scores of each, then :meth:`finish`.
    """

    source: Source
    scorer: Scorer
    faces: str
    stride: int | None
    max_frames: int | None
    settings: FaceSettings
    detect: Callable | None
    lenient: bool  # an input that cannot be read is noted, not raised
    on_frame: list[Callable] = field(default_factory=list)  # are called with each TimedFrame
    missing: int = 0  # windows whose scores are not there yet
    total: int | None = None  # frames, if that is known
    image: np.ndarray | None = None  # the image, if it is one

    def __post_init__(self) -> None:
        source, scorer = self.source, self.scorer
        names = [n for kind in ('video', 'image') for n in scorer.classes.get(kind, ())]
        self.result = MediaResult(source.name, source.kind, message=source.message)
        self.result.classes, self.result.trained_on = list(dict.fromkeys(names)), scorer.trained_on
        self.times = []
        self.tracks = {}  # face -> its first frame, its squares
        self.scored = []  # (face, first frame, last frame + 1, scores, features)

    def windows(self) -> Iterator[tuple]:
        """Read the input and yield job, sample, face, first frame and last frame + 1."""
        # an image is a window of one frame
        window = self.scorer.window if self.source.kind == 'video' else Window(1, 1)
        if self.faces == 'none':
            found = ((i, frame, None) for i, frame in enumerate(self._frames()))
        else:
            found = follow_faces(self._frames(), self.detect, self.settings, self.faces)
        streams = {}  # face -> number of its first frame, its windows
        for number, frame, placed in found:
            present = {None: None} if placed is None else {f.face: f.square for f in placed}
            for face in [face for face in streams if face not in present]:
                yield from self._samples(face, streams[face][0], streams.pop(face)[1].finish())
            for face, square in present.items():
                first, stream = streams.setdefault(
                    face, (number, WindowStream(window, self.stride))
                )
                if square is not None:
                    self.tracks.setdefault(face, (number, []))[1].append(square)
                crop = partial(crop_square, frame, square, self.settings.size)
                pieces = stream.push(frame.copy if square is None else crop)
                yield from self._samples(face, first, pieces)
        for face, (first, stream) in streams.items():
            yield from self._samples(face, first, stream.finish())

    def _samples(self, face: int | None, first: int, pieces: list[Piece]) -> Iterator[tuple]:
        for start, end, images in pieces:
            self.missing += 1
            sample = self.scorer.prepare(images, self.source.kind)
            yield self, sample, face, first + start, first + end

    def _frames(self) -> Iterator[np.ndarray]:
        source, is_video = self.source, self.source.kind == 'video'
        limit = self.max_frames if is_video else None
        try:
            if source.path is not None and not osp.exists(source.path):
                raise FileNotFoundError(f'There is no file or folder {source.path}.')
            # a video file says it
            known = video_info(source.path) if is_video and source.path else source
            self.result.fps = known.fps
            self.total = min((n for n in (known.frames, limit) if n), default=None)
            for frame in islice(source.read(), limit):
                if not self.times:
                    self.result.size = frame.image.shape[1::-1]
                    self.image = None if is_video else frame.image
                self.times.append(frame.time)
                for watch in self.on_frame:
                    watch(frame)
                yield frame.image
        except (FileNotFoundError, MediaReadError) as e:
            if not self.lenient:
                raise
            self.result.status, self.result.message = 'unreadable', printable(str(e))

    def add(
        self, face: int | None, start: int, end: int, scores: np.ndarray, features: Any
    ) -> None:
        """Take the scores of a window."""
        if not np.isfinite(scores).all():
            raise NonFiniteError(
                f'The scores of {self.source.name} (frames {start} to {end - 1}) are not finite: '
                f'{np.round(scores, 4).tolist()}. Check the weights.'
            )
        self.missing -= 1
        self.scored.append((face, start, end, scores, features))

    def finish(self) -> None:
        """Make the records, once all scores are there, and log what is wrong."""
        result = self.result
        result.frames = count = len(self.times)
        if result.kind == 'video' and result.fps is None and count > 1:
            result.fps = (count - 1) / max(self.times[-1] - self.times[0], 1e-6)
        result.tracks = {
            face: FaceTrack(first, np.array(squares))
            for face, (first, squares) in sorted(self.tracks.items())
        }
        self.scored.sort(key=lambda entry: (entry[0] or 0, *entry[1:3]))
        result.records = [self._record(*entry) for entry in self.scored]
        if result.status == 'ok' and not result.records:
            result.status = 'no_face'
            result.message = f'no face was found in {"it" if count == 1 else f"its {count} frames"}'
        if result.message:
            level = logging.INFO if result.status == 'no_face' else logging.WARNING
            name = '' if result.media in result.message else f'{result.media}: '
            print_log(printable(f'{name}{result.message}'), 'current', level)

    def _record(
        self, face: int | None, start: int, end: int, scores: np.ndarray, features: Any
    ) -> ExpressionRecord:
        times, box, result = (None, None), None, self.result
        if result.kind == 'video':  # a frame ends as the next one starts, or after its duration
            last = self.times[-1] + (1 / result.fps if result.fps else 0.0)
            times = self.times[start], self.times[end] if end < len(self.times) else last
        if face is not None:
            first, squares = result.tracks[face]
            boxes = [square_box(square) for square in squares[start - first : end - first]]
            inside = np.clip(np.reshape(boxes, (-1, 2, 2)), 0, result.size)
            box = tuple(inside.mean(axis=0).ravel().tolist())
        known = dict(zip(self.scorer.classes[result.kind], scores.tolist()))
        shares = {name: known[name] for name in result.classes if name in known}
        label = max(known, key=known.get)
        return ExpressionRecord(
            result.media, face, *times, start, end, box, label, shares, features
        )
