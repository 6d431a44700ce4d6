# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Prediction: from the frames of one face, as they come, to the windows that a model takes."""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .scorer import Window


class Piece(NamedTuple):
    """One window of a run of frames.

    Attributes:
        start (int): First frame that its scores stand for, counted from the run's first.
        end (int): Last frame that they stand for, plus 1.
        images (list[np.ndarray]): The sampled frames, ``clip_len`` of them.
    """

    start: int
    end: int
    images: list


class WindowStream:
    """Cuts a run of consecutive frames into windows.

    A window begins at every ``stride``-th frame. Of its frames every ``frame_interval``-th one is
    sampled. What is left at the end gets the last ``clip_len`` of the frames 0, ``frame_interval``,
    2 * ``frame_interval`` ... of the run, as the last view of ``SampleClipViews`` has them, so that
    the model sees a full window. Where windows do not overlap, that one stands for the frames
    which no other covers; else for those from its first sampled frame on. A run with fewer
    sampled frames than ``clip_len`` is one window, filled up as ``window.loop`` says. With
    ``window.spread`` the one window of a run that is shorter than a window has its frames from all
    over the run.

    At most ``clip_len`` images of each window that is under way are kept, and twice as many to
    spread.

    Args:
        window (Window): How the model samples.
        stride (int, optional): Frames from a window to the next. Defaults to None, which means
            ``window.span``: each frame is in one window.
    """

    def __init__(self, window: Window, stride: int | None = None) -> None:
        self.window = window
        self.stride = stride or window.span
        self.count = 0  # frames so far
        self.covered = 0  # end of the last window that was given out
        self.open = deque()  # windows under way, in order
        self.grid = deque(maxlen=window.clip_len)  # (frame, image) of every frame_interval-th
        self.early, self.every = [], 1  # every every-th image of the first window, to spread

    def push(self, make_image: Callable[[], np.ndarray]) -> list[Piece]:
        """Take the next frame.

        Args:
            make_image (Callable): Gives its image; called only if the frame is sampled.

        Returns:
            list[Piece]: The windows that it completes.
        """
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
        """End the run.

        Returns:
            list[Piece]: The windows of the frames that are left.
        """
        full = [p for p in self.open if len(p.images) == self.window.clip_len]
        rest = [p for p in self.open if len(p.images) < self.window.clip_len]
        done = [piece._replace(end=self.count) for piece in full]
        if rest and not full and self.covered < self.count:
            done.append(self._last(rest[0].start))
        self.open.clear()
        return done

    def _last(self, start: int) -> Piece:
        images = [image for _, image in self.grid]
        if self.window.spread and self.count < self.window.span:
            places = np.linspace(0, len(self.early) - 1, self.window.clip_len)
            images = [self.early[i] for i in places.round().astype(int)]
        if self.covered and self.stride < self.window.span:
            start = self.grid[0][0]
        return Piece(start, self.count, fill_up(images, self.window))


def fill_up(images: list, window: Window) -> list:
    """Repeat images until there are ``window.clip_len``.

    Args:
        images (list): One or more, at most ``window.clip_len``.
        window (Window): ``loop`` says whether all are repeated, or the last one.

    Returns:
        list: ``window.clip_len`` images.
    """
    missing = window.clip_len - len(images)
    if window.loop:
        return (images * (missing // len(images) + 2))[: window.clip_len]
    return images + images[-1:] * missing
