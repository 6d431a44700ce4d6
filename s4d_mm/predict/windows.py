# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""From the frames of one face, as they come, to the windows that a model takes."""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Window(NamedTuple):
    """How a model samples a clip.

    Attributes:
        clip_len (int): Frames that the model takes.
        frame_interval (int): Distance of these frames in the video.
        loop (bool): Whether a clip that is too short is repeated (``'loop'`` of mmaction2's
            ``SampleFrames``), not filled up with its last frame. Defaults to False.
        spread (bool): Whether the frames of a clip that is shorter than the window are spread
            over it instead. Defaults to False.
    """

    clip_len: int
    frame_interval: int
    loop: bool = False
    spread: bool = False

    @property
    def span(self) -> int:
        """Frames of the video that one window covers."""
        return self.clip_len * self.frame_interval


class Piece(NamedTuple):
    """The ``clip_len`` images of one window; its scores stand for the frames start to end - 1."""

    start: int
    end: int
    images: list


class WindowStream:
    """Cuts a run of consecutive frames into windows.

    A window begins at every ``stride``-th frame. Every ``frame_interval``-th of its frames is
    sampled. What is left at the end gets the last ``clip_len`` of the frames 0, ``frame_interval``,
    2 * ``frame_interval`` ... of the run, as the last view of ``SampleClipViews`` has them, so that
    the model sees a full window. Where windows do not overlap, this one stands for the frames
    that no other covers, else for those from its first sampled frame on.

    At most ``clip_len`` images of each open window are kept, and twice as many to spread.

    Args:
        window (Window): How the model samples.
        stride (int, optional): Frames from a window to the next. Defaults to None, ``window.span``.
    """

    def __init__(self, window: Window, stride: int | None = None) -> None:
        self.window = window
        self.stride = stride or window.span
        self.count = 0  # frames so far
        self.covered = 0  # end of the last complete window
        self.open = deque()  # windows that are not complete, in order
        self.grid = deque(maxlen=window.clip_len)  # (frame, image) of every frame_interval-th
        self.early, self.every = [], 1  # every every-th image of the first window, to spread

    def push(self, make_image: Callable[[], np.ndarray]) -> list[Piece]:
        """Take the next frame, whose image is made only if it is sampled; give complete windows."""
        frame, interval = self.count, self.window.frame_interval
        if frame % self.stride == 0:
            self.open.append(Piece(frame, frame + self.window.span, []))
        on_grid = frame % interval == 0
        takers = [piece for piece in self.open if (frame - piece.start) % interval == 0]
        early = self.window.spread and frame < self.window.span and frame % self.every == 0
        if on_grid or takers or early:
            image = make_image()
            if on_grid:
                self.grid.append((frame, image))
            if early:
                self.early.append(image)
                if len(self.early) == 2 * self.window.clip_len:
                    del self.early[1::2]
                    self.every *= 2
            for piece in takers:
                piece.images.append(image)
        self.count += 1
        if self.count == self.window.span:
            self.early.clear()
        done = []
        while self.open and self.open[0].end == self.count:
            done.append(self.open.popleft())
            self.covered = self.count
        return done

    def finish(self) -> list[Piece]:
        """End the run; give the windows of the frames that are left."""
        left, self.open = self.open, deque()
        full = [p for p in left if len(p.images) == self.window.clip_len]
        if left and not full and self.covered < self.count:
            return [self._last(left[0].start)]
        return [piece._replace(end=self.count) for piece in full]

    def _last(self, start: int) -> Piece:
        clip_len = self.window.clip_len
        images = [image for _, image in self.grid]
        if self.window.spread and self.count < self.window.span:
            places = np.linspace(0, len(self.early) - 1, clip_len)
            images = [self.early[i] for i in places.round().astype(int)]
        if self.covered and self.stride < self.window.span:
            start = self.grid[0][0]
        filling = images * clip_len if self.window.loop else images[-1:] * clip_len
        return Piece(start, self.count, (images + filling)[:clip_len])
