# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Prediction of expressions in the user's own media, in one call."""

import logging
import os
import os.path as osp
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.infer import BaseInferencer
from mmengine.logging import print_log
from mmengine.registry import INFERENCERS
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from torch import nn

from ..files.text import printable
from ..media import TimedFrame
from .inputs import Input, Source, list_sources
from .media_job import FACES, MediaJob, Plan, Task
from .model_index import find_model
from .outputs import FrameSpool, OutputFolder
from .published_models import published_weights
from .results import ExpressionResult, MediaResult
from .scorer import Scorer

SMALL_FACE = 0.5  # of the frame's shorter side


@INFERENCERS.register_module()
class ExpressionInferencer(BaseInferencer):
    """Finds the faces in videos and images and says what they express.

    A video is read once, as a stream. Every face is followed and cut out as for training, and
    classified in windows over the whole video; faces in images are classified by the image
    classifier.

    Args:
        model (str | Path | Config): Config file or object of a fine-tuned model, the name of one in
            ``model-index.yml``, or an ``.onnx`` file of ``tools/deployment/export.py``.
        weights (str, optional): Its checkpoint, also one of the S4D authors; a file or an address.
            Defaults to None, which means ``load_from`` of the config, or what the authors publish
            (``s2d_dfew``, ``s2d_ferv39k``, ``s2d_mafw``). Not for ``.onnx``.
        device (str, optional): Such as 'cpu' or 'cuda:0'. Defaults to None, a GPU if there is one.
        show_progress (bool): Whether a terminal shows a progress bar. Defaults to True.
        fold (int, optional): Which of the authors' files a name such as ``s2d_dfew`` stands for.
            Defaults to None, the first.

    Attributes:
        scorer (Scorer): What computes the model.
        detector (Callable | None): A function from an RGB frame to a list of faces
            (``s4d_mm.faces.Face``), to be used in place of ``FaceDetector``. None at first.

    Raises:
        FileNotFoundError: If the model or the weights are not there.
        ValueError: If they do not fit, or cannot predict.

    Example:
        >>> inferencer = ExpressionInferencer('configs/s4d_finetune_dfew.py', 'epoch_100.pth')
        >>> result = inferencer('interview.mp4', out_dir='out')
        >>> result[0].label, result[0].probabilities
    """

    def __init__(
        self,
        model: str | Path | Config,
        weights: str | None = None,
        device: str | None = None,
        show_progress: bool = True,
        fold: int | None = None,
    ) -> None:
        model = str(model) if isinstance(model, Path) else model
        weights = published_weights(model, None if weights is None else str(weights), fold)
        self.detector = None
        self._detectors = {}  # by their settings
        if isinstance(model, str) and model.lower().endswith('.onnx'):
            if weights is not None:
                raise ValueError(f'{model} holds its weights; leave out weights={weights!r}.')
            from .onnx_scorer import OnnxScorer

            self.scorer: Scorer = OnnxScorer(model, device)
            self.model = self.cfg = self.visualizer = None
            self.scope, self.show_progress = 'mmaction', show_progress
            self.pipeline = self.scorer.prepare
            return
        super().__init__(model, weights, device, scope='mmaction', show_progress=show_progress)

    def _init_model(
        self, cfg: Config, weights: str | None = None, device: str = 'cpu'
    ) -> nn.Module:
        from .torch_scorer import TorchScorer

        self.scorer = TorchScorer(cfg, weights, device)
        return self.scorer.model

    def _init_pipeline(self, cfg: Config) -> Callable:
        return self.scorer.prepare

    def _init_visualizer(self, cfg: Config) -> None:
        """None: pictures are drawn by :mod:`s4d_mm.visualization`."""

    def _load_model_from_metafile(self, model: str) -> tuple[Config, str | None]:
        """Config and weights of a name in ``model-index.yml``."""
        config, weights = find_model(model)
        return Config.fromfile(config), weights

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
        face_settings: Any = None,
        fps: float = 25,
        max_frames: int | None = None,
    ) -> ExpressionResult:
        """Predict the expressions in one or many inputs.

        Args:
            inputs (Input | Sequence[Input]): Paths (str or Path) of videos, images or folders;
                arrays (T, H, W, 3) for a video or (H, W, 3) for an image, RGB, uint8; an iterator
                of such frames; the number of a camera, which is read until it ends or Ctrl-C; a
                list or tuple of these.
            faces (str): 'auto' finds and follows every face, 'largest' one face at a time, as
                ``tools/data/prepare.py`` does; 'none' takes the whole frame, for media whose faces
                are cut out already. Defaults to 'auto'.
            batch_size (int): Windows, or images, that the model takes at once; the scores do not
                depend on it. Defaults to 4.
            window_stride (int, optional): Frames from the start of a window to that of the next.
                Defaults to None, which means the length of a window.
            folder (str): 'frames', 'images' or 'auto': see
                :func:`~s4d_mm.apis.inputs.list_sources`. Defaults to 'auto'.
            features (bool): Whether records have ``features``, what the classifier sees. Defaults
                to False.
            out_dir (str, optional): Folder for NAME.csv, NAME.json and, with ``draw``, NAME.mp4
                and NAME_timeline.png, or NAME.png, of each input. Defaults to None.
            draw (bool): Whether to write pictures to ``out_dir``. Defaults to True.
            face_settings (FaceSettings, optional): How faces are found, followed and cut. Defaults
                to None, as ``tools/data/prepare.py`` does it by default.
            fps (float): Frames per second of arrays, iterators and folders of frames. Defaults to
                25.
            max_frames (int, optional): Frames after which a video or camera is left. Defaults to
                None, none.

        Returns:
            ExpressionResult: The records of all inputs; ``.media`` says what was found in each.

        Raises:
            FileNotFoundError: If the one input does not exist.
            MediaReadError: If the one input cannot be read to its end. Of several, those are noted
                in ``.media`` with ``status='unreadable'``, and the others go on.
            ValueError: If an argument or input is none of the above, or the model takes no videos
                or no images.
            ImportError: If ``faces`` needs the extra ``faces``.
        """
        if faces not in FACES:
            raise ValueError(f'faces={faces!r}: must be one of {FACES}.')
        for name, value in (
            ('batch_size', batch_size),
            ('window_stride', window_stride),
            ('max_frames', max_frames),
        ):
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f'{name}={value!r}: must be a whole number of at least 1.')
        sources = list_sources(inputs, folder, fps)
        self._require_kinds(sources)
        settings, detect = self._face_tools(faces, face_settings)
        plan = Plan(faces, window_stride, max_frames, settings, detect, len(sources) > 1)
        outputs = None if out_dir is None else OutputFolder(str(out_dir), sources, draw)
        media = self._predict(sources, plan, batch_size, features, outputs)
        return self.postprocess(media)

    def _require_kinds(self, sources: Sequence[Source]) -> None:
        for source in sources:
            if source.kind not in self.scorer.classes:
                raise ValueError(
                    f'{source.name} is {"an image" if source.kind == "image" else "a video"}, but '
                    f'{self.scorer.name} classifies {" and ".join(self.scorer.classes)}s only: it '
                    f'has no {source.kind} classifier or no {source.kind} test pipeline. Give '
                    f'another model.'
                )

    def _face_tools(self, faces: str, settings: Any) -> tuple[Any, Callable | None]:
        """Settings and detector; (None, None) where no face is looked for."""
        if faces == 'none':
            return None, None
        from ..faces import FaceSettings

        settings = settings or FaceSettings()
        return settings, self._get_detector(settings)

    def _get_detector(self, settings: Any) -> Callable:
        if self.detector is not None:
            return self.detector
        key = (settings.detect_side, settings.threshold)
        if key not in self._detectors:
            from ..faces import FaceDetector

            self._detectors[key] = FaceDetector(*key)
        return self._detectors[key]

    def _predict(
        self,
        sources: Sequence[Source],
        plan: Plan,
        batch_size: int,
        features: bool,
        outputs: OutputFolder | None,
    ) -> list[MediaResult]:
        batches = Batches(partial(self.forward, features=features), batch_size)
        waiting, results = {}, {}
        with FrameBar(self.show_progress, len(sources)) as bar:
            for number, source in enumerate(sources):
                with spooled(outputs, number, source) as spool:
                    job = MediaJob(source, self.scorer, plan)
                    job.on_start = partial(bar.start, source.name)
                    job.on_frame = [bar.advance, *([spool.write] if spool else [])]
                    if plan.faces == 'none' and number == 0:
                        job.on_frame.append(SmallFaceWarning(source.name, self._any_detector()))
                    for task in self.preprocess(job):
                        batches.add(task)
                    # images share batches, a video has its own
                    if source.kind == 'video' or number == len(sources) - 1:
                        batches.flush()
                    waiting[number] = job
                    for i in [i for i, job in waiting.items() if not job.pending]:
                        job = waiting.pop(i)
                        results[i] = job.close()
                        video = spool.close() if spool else job.source.path
                        self.visualize(i, job, video, outputs)
                bar.finish()
        return [results[i] for i in sorted(results)]

    def preprocess(self, inputs: MediaJob, batch_size: int = 1, **kwargs: Any) -> Iterator[Task]:
        """Yield the samples of one input, as they come.

        Args:
            inputs (MediaJob): The input.
            batch_size (int): Not used: samples of several inputs make a batch.
            **kwargs: None.

        Yields:
            Task: A sample and where its scores go.
        """
        yield from inputs.tasks()

    def forward(
        self, inputs: Sequence[Task], features: bool = False, **kwargs: Any
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Score a batch.

        Args:
            inputs (Sequence[Task]): Samples of one input type.
            features (bool): See :meth:`__call__`. Defaults to False.
            **kwargs: None.

        Returns:
            tuple: See :meth:`Scorer.score`.
        """
        samples = [task.sample for task in inputs]
        return self.scorer.score(samples, inputs[0].input_type, features)

    def visualize(
        self, inputs: int, preds: MediaJob, video: str | None, outputs: OutputFolder | None
    ) -> None:
        """Say what is wrong with an input, and write its files.

        Args:
            inputs (int): Its place among the inputs.
            preds (MediaJob): What was done with it.
            video (str | None): A file of its frames, if it is a video.
            outputs (OutputFolder | None): Where to write; None for nowhere.
        """
        result = preds.result
        if result.message:
            level = logging.INFO if result.status == 'ok' else logging.WARNING
            print_log(printable(f'{result.media}: {result.message}'), 'current', level)
        if outputs is not None:
            outputs.write(inputs, result, preds.image, video)
        preds.image = None

    def postprocess(self, preds: Sequence[MediaResult], *args: Any, **kwargs: Any) -> Any:
        """Join what was found in the inputs.

        Args:
            preds (Sequence[MediaResult]): By input.
            *args: None.
            **kwargs: None.

        Returns:
            ExpressionResult: The records of all.
        """
        return ExpressionResult(preds)

    def _any_detector(self) -> Callable | None:
        """The face detector, or None if it is not installed."""
        try:
            return self._face_tools('auto', None)[1]
        except ImportError:
            return None


class Batches:
    """Gathers samples and scores them in batches of one input type.

    Args:
        forward (Callable): Scores a list of tasks, as :meth:`ExpressionInferencer.forward`.
        size (int): Samples of a batch.
    """

    def __init__(self, forward: Callable, size: int) -> None:
        self.forward, self.size = forward, size
        self.tasks = {}

    def add(self, task: Task) -> None:
        """Take a sample; score a batch if it is full."""
        batch = self.tasks.setdefault(task.input_type, [])
        batch.append(task)
        if len(batch) == self.size:
            self._score(self.tasks.pop(task.input_type))

    def flush(self) -> None:
        """Score what is left."""
        while self.tasks:
            self._score(self.tasks.popitem()[1])

    def _score(self, tasks: list[Task]) -> None:
        scores, features = self.forward(tasks)
        for i, task in enumerate(tasks):
            task.done(scores[i], None if features is None else features[i])


class SmallFaceWarning:
    """Warns once if the largest face of the first frame is small, where none is looked for.

    Args:
        name (str): Of the input.
        detect (Callable | None): From an RGB frame to its faces; None if there is no detector.
    """

    def __init__(self, name: str, detect: Callable | None) -> None:
        self.name, self.detect = name, detect

    def __call__(self, frame: TimedFrame) -> None:
        """Look at the frame if it is the first."""
        detect, self.detect = self.detect, None
        boxes = [face.box for face in detect(frame.image)] if detect else []
        side = max((max(x2 - x1, y2 - y1) for x1, y1, x2, y2 in boxes), default=None)
        share = None if side is None else side / min(frame.image.shape[:2])
        if share is not None and share < SMALL_FACE:
            print_log(
                f'{printable(self.name)}: its largest face fills {100 * share:.0f} % of the '
                "frame's shorter side, but with faces='none' the model is given the whole frame, "
                "and it was trained on faces that are cut out. Use faces='auto'.",
                'current',
                logging.WARNING,
            )


@contextmanager
def spooled(
    outputs: OutputFolder | None, number: int, source: Source
) -> Iterator[FrameSpool | None]:
    """Keep frames for drawing as long as an input is worked on, if it cannot be read again.

    Args:
        outputs (OutputFolder | None): Where results go.
        number (int): Place of the input among all.
        source (Source): The input.

    Yields:
        FrameSpool | None: None if it need not be kept.
    """
    path = None if outputs is None else outputs.spool(number, source)
    spool = None if path is None else FrameSpool(path)
    try:
        yield spool
    finally:
        if spool is not None:
            spool.close()
            if osp.exists(path):
                os.remove(path)


class FrameBar:
    """A progress bar of inputs and of the frames of a video, on a terminal.

    Args:
        shown (bool): Whether to show it.
        inputs (int): Number of inputs.
    """

    def __init__(self, shown: bool, inputs: int) -> None:
        console = Console(stderr=True)
        self.bar = Progress(
            console=console, transient=True, disable=not (shown and console.is_terminal)
        )
        self.all = self.bar.add_task('inputs', total=inputs, visible=inputs > 1)
        self.one = None

    def __enter__(self) -> 'FrameBar':
        self.bar.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.bar.stop()

    def start(self, name: str, frames: int | None) -> None:
        """Begin an input of so many frames; None if that is not known."""
        self.one = self.bar.add_task(escape(printable(osp.basename(name))), total=frames)

    def advance(self, frame: TimedFrame) -> None:
        """Count a frame."""
        self.bar.advance(self.one)

    def finish(self) -> None:
        """End an input."""
        if self.one is not None:
            self.bar.remove_task(self.one)
            self.one = None
        self.bar.advance(self.all)
