# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""A video with what was found in it, and with its sound."""

import os
import os.path as osp
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from fractions import Fraction
from itertools import chain
from typing import TYPE_CHECKING

import cv2

from ..media import MediaReadError, TimedFrame, list_frames, read_image, read_timed
from .overlay import Overlay
from .sound import Sound, open_sound

if TYPE_CHECKING:
    import av

    from ..apis.results import MediaResult

DEFAULT_FPS = 25
TIME_BASE = Fraction(1, 90000)  # seconds: whole for all usual frame rates


def annotate_video(
    src: str,
    dst: str,
    result: 'MediaResult',
    progress: Callable[[int], None] | None = None,
) -> None:
    """Draw the faces of a video, their labels, and the probabilities of all classes over time.

    The source is read once, frame by frame. The file is mp4: H.264 (yuv420p, crf 20), upright,
    with the time stamps and the sound of the source, and plays before it is loaded as a whole.
    A failure leaves nothing at ``dst``, or what was there.

    Args:
        src (str): A video file, or a folder of frames, which are shown at ``result.fps``, or else
            at 25 frames per second.
        dst (str): The mp4 file.
        result (MediaResult): What was found in it.
        progress (Callable, optional): It is called after each frame with the number of frames so
            far. Defaults to None.

    Raises:
        MediaReadError: If the source cannot be read, or its frames are not all of one size.
        OSError: If ``dst`` cannot be written.
    """
    part = f'{dst}.part'
    try:
        with ExitStack() as stack:
            sound = None if osp.isdir(src) else stack.enter_context(open_sound(src))
            _write(_timed_frames(src, result.fps), part, result, sound, progress)
        os.replace(part, dst)
    finally:
        if osp.isfile(part):
            os.remove(part)


def _timed_frames(src: str, fps: float | None) -> Iterator[TimedFrame]:
    """Frames of a file or folder; times rise from 0."""
    if osp.isdir(src):
        for number, path in enumerate(list_frames(src)):
            yield TimedFrame(read_image(path), number / (fps or DEFAULT_FPS))
    else:
        yield from read_timed(src)


def _write(
    frames: Iterator[TimedFrame],
    path: str,
    result: 'MediaResult',
    sound: Sound | None,
    progress: Callable[[int], None] | None,
) -> None:
    import av

    first = next(frames, None)
    if first is None:
        raise MediaReadError(f'{result.media} has no frames to draw on.')
    shape = first.image.shape
    overlay = Overlay(result, shape[1], shape[0], even=True)
    with av.open(path, 'w', format='mp4', options=dict(movflags='faststart')) as container:
        stream = container.add_stream('libx264', rate=_frame_rate(result.fps))
        stream.pix_fmt = 'yuv420p'
        stream.options = dict(crf='20', preset='veryfast')
        _tag_colors(stream.codec_context)
        if sound is not None:
            sound.add_to(container)
        last = -1
        for number, (image, time) in enumerate(chain((first,), frames)):
            if image.shape != shape:
                raise MediaReadError(
                    f'Frame {number} of {result.media} is {image.shape[1]} x {image.shape[0]} '
                    f'pixels, the first {shape[1]} x {shape[0]}. A video needs frames of one size.'
                )
            canvas = overlay.draw(image, number)
            if not number:
                stream.height, stream.width = canvas.shape[:2]
                stream.codec_context.time_base = TIME_BASE
            planes = cv2.cvtColor(canvas, cv2.COLOR_RGB2YUV_I420)  # 8 times as fast as swscale
            frame = av.VideoFrame.from_ndarray(planes, format='yuv420p')
            last = max(last + 1, round(time / TIME_BASE))  # a later frame is shown later
            frame.pts, frame.time_base = last, TIME_BASE
            if sound is not None:
                sound.copy_until(time)
            container.mux(stream.encode(frame))
            if progress is not None:
                progress(number + 1)
        container.mux(stream.encode())
        if sound is not None:
            sound.copy_until(float('inf'))


def _frame_rate(fps: float | None) -> Fraction:
    """A guess for the encoder, which plans by it; time stamps are those of the frames."""
    return Fraction(fps or DEFAULT_FPS).limit_denominator(1001)


def _tag_colors(context: 'av.VideoCodecContext') -> None:
    """Say which colours OpenCV makes: BT.601 in the range of video, of a picture in BT.709."""
    context.colorspace = 6  # SMPTE 170M, which is BT.601
    context.color_primaries = context.color_trc = 1
    context.color_range = 1
