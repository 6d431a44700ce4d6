# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Prediction, its middle: what turns pictures of one face into probabilities."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np


class Window(NamedTuple):
    """How a model samples a clip.

    Attributes:
        clip_len (int): Frames that the model takes.
        frame_interval (int): Distance of these frames in the video.
        loop (bool): How a clip that is too short is filled up: from its beginning (``'loop'`` of
            mmaction2's ``SampleFrames``), or by its last frame. Defaults to False, the last frame.
        spread (bool): Whether the frames of a clip that is shorter than the window are spread
            over it, in place of that. Defaults to False.
    """

    clip_len: int
    frame_interval: int
    loop: bool = False
    spread: bool = False

    @property
    def span(self) -> int:
        """Frames of the video that one window covers."""
        return self.clip_len * self.frame_interval

    @classmethod
    def of_sampler(cls, sampler: Any, interval: int | None = None, loop: bool = False):
        """The window of a sampling step of a test pipeline.

        Args:
            sampler (Any): The step.
            interval (int, optional): Of frames, where the step has none. Defaults to None.
            loop (bool): See above. Defaults to False.
        """
        span = getattr(sampler, 'predict_span', None)
        interval = getattr(sampler, 'frame_interval', None) or interval
        if span:
            interval = span // sampler.clip_len
        return cls(sampler.clip_len, interval, loop, bool(span))


class Scorer(ABC):
    """A model that classifies faces, whatever runs it.

    Attributes:
        name (str): For messages: the config or file.
        classes (dict[str, list[str]]): Class names in label order, by the input types that the
            model takes, 'video' and 'image'.
        window (Window | None): How it samples clips; None if it takes no videos.
        trained_on (str): What it has seen, such as 'drawn faces'.
    """

    name: str
    classes: dict[str, list[str]]
    window: Window | None
    trained_on: str

    @abstractmethod
    def prepare(self, images: list[np.ndarray], input_type: str) -> Any:
        """Turn the sampled frames of one window, or one image, into a sample.

        Args:
            images (list[np.ndarray]): RGB, uint8, (height, width, 3), all of one size:
                ``window.clip_len`` of them for 'video', 1 for 'image'.
            input_type (str): 'video' or 'image'.

        Returns:
            Any: What :meth:`score` takes.
        """

    @abstractmethod
    def score(
        self, samples: list, input_type: str, features: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Classify samples in one batch.

        Args:
            samples (list): Of :meth:`prepare`, all of ``input_type``.
            input_type (str): 'video' or 'image'.
            features (bool): Whether to give what the classifier sees, too. Defaults to False.

        Returns:
            tuple: Probabilities (samples, classes), float32, and features (samples, C) or None.

        Raises:
            ValueError: If ``features`` is asked of a model that cannot give them.
        """
