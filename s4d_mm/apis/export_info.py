# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What an exported model says about itself, in the metadata of its file."""

import json
from typing import NamedTuple

from .scorer import Window

MARK = 's4d_mm_version'  # the key by which a file of ours is known


class ExportInfo(NamedTuple):
    """The metadata of an exported model. Each field is a key, with a value in JSON.

    Attributes:
        s4d_mm_version (str): Version of the package that wrote the file.
        config (str): Name of the config.
        input_type (str): 'video' or 'image'.
        classes (list[str]): Class names in label order.
        clip_len (int | None): Frames of a window; None for images.
        frame_interval (int | None): Distance of these frames in the video; None for images.
        size (list[int]): Height and width of a frame in pixels.
        channel_order (str): 'RGB'.
        mean (list[float]): Of each channel, 0..255. The graph subtracts it.
        std (list[float]): Of each channel. The graph divides by it.
        steps (list[dict]): Steps of the pipeline that make frames of ``size`` out of faces:
            :data:`~s4d_mm.apis.frame_steps.FRAME_STEPS` with their arguments.
        interpolation (list[str]): What resizes in these steps, in words.
        int8 (bool): Whether the weights are 8-bit integers.
        spread (bool): See :class:`~s4d_mm.apis.scorer.Window`.
        trained_on (str): What the model has seen.
    """

    s4d_mm_version: str
    config: str
    input_type: str
    classes: list
    clip_len: int | None
    frame_interval: int | None
    size: list
    channel_order: str
    mean: list
    std: list
    steps: list
    interpolation: list
    int8: bool = False
    spread: bool = False
    trained_on: str = 'unknown data'  # older files do not say it

    @property
    def window(self) -> Window | None:
        """How the model samples clips; None for images."""
        if self.clip_len is None:
            return None
        return Window(self.clip_len, self.frame_interval, spread=self.spread)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample: (3, T, H, W) or (3, H, W)."""
        frames = () if self.clip_len is None else (self.clip_len,)
        return (3, *frames, *self.size)

    def to_strings(self) -> dict[str, str]:
        """The fields as JSON, by name."""
        return {key: json.dumps(value, ensure_ascii=False) for key, value in self._asdict().items()}

    @classmethod
    def from_strings(cls, strings: dict[str, str], path: str) -> 'ExportInfo':
        """Read what :meth:`to_strings` wrote.

        Args:
            strings (dict[str, str]): Metadata of a file.
            path (str): The file, for messages.

        Returns:
            ExportInfo: The fields.

        Raises:
            ValueError: If it is no file of ours, or a field is missing or no JSON.
        """
        if MARK not in strings:
            raise ValueError(
                f'{path} was not written by tools/deployment/export.py: its metadata has no '
                f'{MARK!r}, so nobody knows its classes and its input. Export the model again with '
                'that tool.'
            )
        try:
            # older files do not have those with a default
            known = [k for k in cls._fields if k in strings or k not in cls._field_defaults]
            return cls(**{key: json.loads(strings[key]) for key in known})
        except (KeyError, json.JSONDecodeError) as e:
            raise ValueError(
                f'{path} has no readable metadata ({type(e).__name__}: {e}); it says '
                f'{MARK}={strings[MARK]}. Export the model again.'
            ) from e


def interpolations(steps: list[dict]) -> list[str]:
    """What resizes in some steps, in words, for who does it without this package.

    Args:
        steps (list[dict]): Of :func:`~s4d_mm.apis.frame_steps.frame_steps`.

    Returns:
        list[str]: For each step that resizes 'Pillow, bilinear, antialiased' or
        'OpenCV, <method>'.
    """
    words = {
        'ClipResize': lambda step: 'Pillow, bilinear, antialiased',
        'Resize': lambda step: f'OpenCV, {step.get("interpolation", "bilinear")}',
    }
    return [words[step['type']](step) for step in steps if step['type'] in words]
