# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Prediction, its end: tables and pictures in a folder, each there only when it is whole."""

import os
import os.path as osp
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

from ..media import TimedFrame, write_image
from .inputs import Source
from .results import ExpressionResult, MediaResult

ENDINGS = dict(
    video=('.csv', '.json', '.mp4', '_timeline.png'),
    image=('.csv', '.json', '.png'),
)


class OutputFolder:
    """The folder that results are written to.

    For an input NAME these are NAME.csv, NAME.json, and, with ``draw`` and if a face was found,
    NAME.mp4 and NAME_timeline.png of a video, NAME.png of an image. Where inputs have one NAME,
    the later ones get NAME_2, NAME_3 ...

    Args:
        folder (str): The folder; it is made.
        sources (Sequence[Source]): All inputs.
        draw (bool): Whether to write pictures.

    Raises:
        ValueError: If an input itself would be overwritten.
    """

    def __init__(self, folder: str, sources: Sequence[Source], draw: bool) -> None:
        self.folder, self.draw = folder, draw
        self.names = unique_names([source.stem for source in sources])
        for name, source in zip(self.names, sources):
            for ending in ENDINGS[source.kind]:
                target = osp.join(folder, name + ending)
                if any(s.path and _same(s.path, target) for s in sources):
                    raise ValueError(
                        f'{target} is an input and would be overwritten. Give another out_dir.'
                    )
        os.makedirs(folder, exist_ok=True)

    def part(self, name: str) -> str:
        """Path of a file that is not whole yet; it ends as the file does."""
        return osp.join(self.folder, f'.part-{os.getpid()}-{name[-50:]}')

    def spool(self, number: int, source: Source) -> str | None:
        """Path to keep the frames in of an input that cannot be read twice, or None."""
        if self.draw and source.kind == 'video' and source.path is None:
            return self.part(f'{self.names[number]}_frames.mp4')
        return None

    def write(
        self,
        number: int,
        result: MediaResult,
        image: np.ndarray | None,
        video: str | None,
    ) -> None:
        """Write what was found in one input.

        Args:
            number (int): Its place among the inputs.
            result (MediaResult): What was found.
            image (np.ndarray | None): The image, if it is one.
            video (str | None): A file with its frames, if it is a video.
        """
        if result.status == 'unreadable' and not result.records:
            return
        name, table = self.names[number], ExpressionResult([result])
        self._write(f'{name}.csv', table.to_csv)
        self._write(f'{name}.json', table.to_json)
        if not (self.draw and result.records):
            return
        from ..visualization import annotate_image, annotate_video, plot_timeline

        if result.kind == 'image':
            drawn = annotate_image(image, result)
            self._write(f'{name}.png', lambda path: write_image(path, drawn))
            return
        if result.status == 'ok':  # a broken file cannot be drawn on to its end
            self._write(f'{name}.mp4', lambda path: annotate_video(video, path, result))
        self._write(f'{name}_timeline.png', lambda path: plot_timeline(result, path))

    def _write(self, name: str, write: Callable[[str], None]) -> None:
        part = self.part(name)
        try:
            write(part)
            os.replace(part, osp.join(self.folder, name))
        finally:
            if osp.exists(part):
                os.remove(part)


def unique_names(stems: Sequence[str]) -> list[str]:
    """Names that differ: a stem that was there before gets _2, _3 ...; the rest of 200 bytes."""
    names = []
    for stem in stems:
        stem = stem.encode()[:200].decode(errors='ignore')
        name, count = stem, 1
        while name in names:
            count += 1
            name = f'{stem}_{count}'
        names.append(name)
    return names


def _same(path: str, target: str) -> bool:
    return osp.exists(path) and osp.exists(target) and osp.samefile(path, target)


class FrameSpool:
    """Keeps frames with their times in an mp4 file, for inputs that cannot be read twice.

    Args:
        path (str): The file.
    """

    RATE = 90000  # of the time stamps, as in MPEG

    def __init__(self, path: str) -> None:
        self.path = path
        self.container = self.stream = None
        self.last = -1

    def write(self, frame: TimedFrame) -> None:
        """Add a frame.

        Args:
            frame (TimedFrame): All have one size. An odd side gets one more row or column, which
                H.264 needs.
        """
        import av

        image = frame.image
        height, width = image.shape[:2]
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode='edge')
        if self.container is None:
            self.container = av.open(self.path, 'w', format='mp4')
            self.stream = self.container.add_stream('libx264', rate=25)
            self.stream.height, self.stream.width = image.shape[:2]
            self.stream.pix_fmt = 'yuv420p'
            self.stream.options = dict(crf='18', preset='veryfast')
            self.stream.codec_context.time_base = Fraction(1, self.RATE)
        coded = av.VideoFrame.from_ndarray(image, format='rgb24')
        self.last = max(round(frame.time * self.RATE), self.last + 1)
        coded.pts, coded.time_base = self.last, Fraction(1, self.RATE)
        self.container.mux(self.stream.encode(coded))

    def close(self) -> str:
        """Finish the file; its path."""
        if self.container is not None:
            self.container.mux(self.stream.encode())
            self.container.close()
            self.container = None
        return self.path
