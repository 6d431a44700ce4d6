# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Tables and pictures in a folder, each there only when it is whole."""

import os
import os.path as osp
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, count

import numpy as np

from ..files.atomic_write import atomic_path
from ..media import TimedEncoder, TimedFrame, write_image
from .inputs import Source
from .results import ExpressionResult, MediaResult

ENDINGS = dict(video=('.csv', '.json', '.mp4', '_timeline.png'), image=('.csv', '.json', '.png'))


class OutputFolder:
    """The folder that results are written to.

    For an input NAME these are NAME.csv, NAME.json, and, with ``draw`` and if a face was found,
    NAME.mp4 and NAME_timeline.png of a video, NAME.png of an image. Where inputs have one NAME,
    the later ones get NAME_2, NAME_3 ...

    Attributes:
        files (list[str]): Paths of what was written.

    Raises:
        ValueError: If an input itself would be overwritten.
    """

    def __init__(self, folder: str, sources: Sequence[Source], draw: bool) -> None:
        self.folder, self.draw, self.files = folder, draw, []
        self.names = unique_names(source.stem for source in sources)
        inputs = [os.stat(s.path) for s in sources if s.path and osp.exists(s.path)]
        for name, source in zip(self.names, sources):
            for target in (osp.join(folder, name + ending) for ending in ENDINGS[source.kind]):
                if osp.exists(target) and any(osp.samestat(os.stat(target), s) for s in inputs):
                    raise ValueError(f'{target} is an input and would be overwritten.')
        os.makedirs(folder, exist_ok=True)

    @contextmanager
    def spool(self, source: Source) -> Iterator['FrameSpool | None']:
        """Keep the frames of a video that is no file, for drawing; yields None if not needed."""
        if not self.draw or source.kind != 'video' or source.path is not None:
            yield None
            return
        with tempfile.TemporaryDirectory(prefix='.part-', dir=self.folder) as part:
            yield FrameSpool(osp.join(part, 'frames.mp4'))

    def write(
        self, number: int, result: MediaResult, image: np.ndarray | None, video: str | None
    ) -> None:
        """Write what was found in the input of this number; draw it on the image or the video."""
        if result.status == 'unreadable' and not result.records:
            return
        name, table = self.names[number], ExpressionResult([result])
        self._write(f'{name}.csv', table.to_csv)
        self._write(f'{name}.json', table.to_json)
        if not (self.draw and result.records):
            return
        from .drawing import annotate_image, annotate_video
        from .timeline import plot_timeline

        if result.kind == 'image':
            drawn = annotate_image(image, result)
            self._write(f'{name}.png', lambda path: write_image(path, drawn, '.png'))
            return
        if result.status == 'ok':  # a broken file cannot be drawn on to its end
            self._write(f'{name}.mp4', lambda path: annotate_video(video, path, result))
        self._write(f'{name}_timeline.png', lambda path: plot_timeline(result, path))

    def _write(self, name: str, write: Callable[[str], None]) -> None:
        target = osp.join(self.folder, name)
        with atomic_path(target) as part:
            write(part)
        self.files.append(target)


def unique_names(stems: Iterable[str]) -> list[str]:
    """Names that differ: a stem that was there before gets _2, _3 ...; at most 200 bytes of it."""
    names = []
    for stem in stems:
        stem = stem.encode()[:200].decode(errors='ignore')
        choice = chain([stem], (f'{stem}_{i}' for i in count(2)))
        names.append(next(name for name in choice if name not in names))
    return names


class FrameSpool:
    """Keeps frames with their times in an mp4 file, for inputs that cannot be read twice."""

    def __init__(self, path: str) -> None:
        import av

        self.path, self.container = path, av.open(path, 'w', format='mp4')
        self.encoder = TimedEncoder(self.container, crf=18)

    def write(self, frame: TimedFrame) -> None:
        """Add a frame of the common size."""
        coded = self.encoder.frame(frame.image, frame.time)
        self.container.mux(self.encoder.stream.encode(coded))

    def close(self) -> str:
        """Finish the file; its path."""
        if self.encoder.last >= 0:
            self.container.mux(self.encoder.stream.encode())
            self.encoder.last = -1  # a second call does nothing
        self.container.close()
        return self.path
