# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Reading of images, videos and folders of frames; writing of images and mp4 files.

It imports nothing of the package, so that a process which only reads and writes pictures needs
neither torch nor the toolbox (``tools/data/s4d_mm_alone.py``).
"""

import io
import os
import os.path as osp
import re
import traceback
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import lru_cache, partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

EXIF_ORIENTATION = 0x0112
TIFF_BITS = 258  # tag: bits of a value
TRANSPARENT = (124, 117, 104, 255)  # RGBA under transparent pixels, as in mmcv
IMAGE_SUFFIXES = (
    *('.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.bmp', '.webp'),
    *('.gif', '.tif', '.tiff', '.avif'),
)
VIDEO_SUFFIXES = (
    *('.mp4', '.avi', '.flv', '.mkv', '.mov', '.webm', '.m4v', '.mpg', '.mpeg', '.mpe'),
    *('.wmv', '.asf', '.3gp', '.3g2', '.ts', '.mts', '.m2ts', '.vob', '.ogv'),
)
# pictures that Pillow does not read, or not as what a camera saw
REFUSED_SUFFIXES = (
    *('.heic', '.heif', '.jxl', '.svg', '.psd', '.exr', '.hdr'),
    *('.dng', '.cr2', '.cr3', '.nef', '.arw', '.orf', '.rw2', '.raf', '.raw'),
)
ASSUMED_FPS = 25.0  # of a video that does not say
TIME_BASE = Fraction(1, 90000)  # seconds: whole for all usual frame rates
MAX_IMAGE_PIXELS = 2**26  # 8192 x 8192
MAX_FRAME_PIXELS = 2**24  # twice 4K, half of 8K


class MediaReadError(OSError):
    """A video, frame or image file is there but cannot be decoded."""


def refuse_suffix(path: str) -> None:
    """Raise a MediaReadError if a file's suffix is one of :data:`REFUSED_SUFFIXES`."""
    suffix = osp.splitext(path)[1].lower()
    if suffix in REFUSED_SUFFIXES:
        raise MediaReadError(f'{path}: files of type {suffix} are not read. Convert it to .jpg.')


@contextmanager
def open_image(path: str, content: bytes | None = None) -> Iterator[Image.Image]:
    """Open an image file, or its content, with Pillow; it is decoded inside the ``with`` block.

    Unlike OpenCV, Pillow never takes a truncated file for a whole one. Of a phone's double picture
    (MPO) the first is taken; other files with several pictures are refused.

    Raises:
        MediaReadError: If Pillow cannot decode it, or it has several pictures or more than
            :data:`MAX_IMAGE_PIXELS`. Other errors of the block stay as they are.
    """
    refuse_suffix(path)
    try:
        with Image.open(path if content is None else io.BytesIO(content)) as image:
            count = getattr(image, 'n_frames', 1)
            if count > 1 and image.format != 'MPO':
                raise OSError(f'it has {count} pictures. Save the one that is meant as .png')
            width, height = image.size
            if width * height > MAX_IMAGE_PIXELS:
                raise OSError(f'{width} x {height} pixels are too many. Save it smaller')
            yield image
    except Exception as e:
        # the type does not tell: broken files raise SyntaxError, struct.error, KeyError and others
        raised_in = [f.f_globals.get('__name__', '') for f, _ in traceback.walk_tb(e.__traceback__)]
        if isinstance(e, OSError) or any(name.startswith('PIL.') for name in raised_in):
            raise MediaReadError(f'Cannot decode image {path}: {e}') from e
        raise


def is_turned(image: Image.Image, least: int = 5) -> bool:
    """Whether the EXIF orientation is at least ``least``: 2 for not upright, 5 for turned by 90."""
    return image.getexif().get(EXIF_ORIENTATION) in range(least, 9)


def to_rgb(image: Image.Image) -> np.ndarray:
    """Decode an open image to RGB, uint8, (height, width, 3), turned upright by its EXIF data.

    Grey values of 16 bits lose the lower 8.

    Raises:
        OSError: If the values have 32 bits: their range is not known.
    """
    bits = _bits_of_grey(image)
    if is_turned(image, least=2):
        image = ImageOps.exif_transpose(image)
    if bits is not None:
        image = Image.fromarray((np.array(image) >> (bits - 8)).astype(np.uint8))
    if image.mode == 'LA':  # on mmcv's colour, not on black
        canvas = Image.new('RGBA', image.size, TRANSPARENT)
        image = Image.alpha_composite(canvas, image.convert('RGBA'))
    return np.array(image if image.mode == 'RGB' else image.convert('RGB'))


def _bits_of_grey(image: Image.Image) -> int | None:
    # Pillow before 11.3 opens PNGs of 16 bits in mode I; it would cut all of them off at 255
    if image.mode.startswith('I;16') or (image.mode == 'I' and image.format == 'PNG'):
        return getattr(image, 'tag_v2', {}).get(TIFF_BITS, (16,))[0]
    if image.mode in ('I', 'F'):
        raise OSError('its pixels have 32 bits. Save it with 8 or 16 bits')
    return None


def read_image(path: str, content: bytes | None = None) -> np.ndarray:
    """Read an image file, or its content, as RGB, uint8, (height, width, 3)."""
    with open_image(path, content) as image:
        return to_rgb(image)


def is_picture(name: str) -> bool:
    """Whether a file is a picture by its name, also one that cannot be read."""
    return name.lower().endswith(IMAGE_SUFFIXES + REFUSED_SUFFIXES)


def natural_key(name: str) -> list:
    """Sort key by which ``2.jpg`` comes before ``10.jpg``."""
    parts = re.split('([0-9]+)', name)  # text, number, text, ...
    return [int(p) if i % 2 else p for i, p in enumerate(parts)]


def list_frames(folder: str) -> list[str]:
    """Paths of the frames in a folder, in natural order; hidden and other files are skipped.

    Raises:
        MediaReadError: If there is none, or one is of a kind that is not read.
    """
    names = [n for n in os.listdir(folder) if is_picture(n) and not n.startswith('.')]
    for name in names:
        refuse_suffix(osp.join(folder, name))
    if not names:
        raise MediaReadError(f'Frame folder {folder} has no image files.')
    return [osp.join(folder, n) for n in sorted(names, key=natural_key)]


class TimedFrame(NamedTuple):
    """One frame (RGB, uint8, (height, width, 3), upright) and its time, seconds after the first."""

    image: np.ndarray
    time: float


class VideoInfo(NamedTuple):
    """What a video file declares.

    Attributes:
        fps (float | None): Mean frames per second; None if the file does not say.
        frames (int): Number of frames; 0 if the file does not say. It may have fewer.
        duration (float | None): Seconds; None if the file does not say.
    """

    fps: float | None
    frames: int
    duration: float | None


@contextmanager
def _ffmpeg_errors(what: str) -> Iterator[None]:
    import av  # not above: a process may read images only

    try:
        yield
    except MediaReadError:
        raise
    except (av.FFmpegError, OSError, ValueError) as e:
        # PyAV adds the last line of FFmpeg's log, which may be of another file
        raise MediaReadError(f'{what}: {str(e).split("; last error log")[0]}') from e


@contextmanager
def _open_video(path: str, threads: int = 0) -> Iterator[tuple]:
    """Open a video with PyAV; yields the container and its first video stream."""
    import av

    refuse_suffix(path)
    with _ffmpeg_errors(f'Cannot open video {path}'):
        container = av.open(path)
    with container, _ffmpeg_errors(f'Cannot read video {path}'):
        cover = av.stream.Disposition.attached_pic  # of a sound file
        streams = [s for s in container.streams.video if not s.disposition & cover]
        is_picture = container.format.name.endswith(('image2', '_pipe'))
        if is_picture or not streams or streams[0].codec_context is None:
            raise MediaReadError(f'{path} has no video stream that FFmpeg can decode.')
        context = streams[0].codec_context
        if context.width * context.height > MAX_FRAME_PIXELS:
            size = f'{context.width} x {context.height} pixels'
            raise MediaReadError(f'{path} has frames of {size}, which are too many. Scale it down.')
        context.thread_count = threads
        context.options = dict(max_pixels=str(MAX_FRAME_PIXELS))  # frames may belie the header
        yield container, streams[0]


def _decode(path: str, threads: int = 0) -> Iterator[tuple]:
    """Decode a video; yields the stream and each frame of PyAV."""
    with _open_video(path, threads) as (container, stream):
        frame = None
        for frame in container.decode(stream):
            yield stream, frame
        if frame is None:
            raise MediaReadError(f'Video {path} has no frames.')


def _reformatter() -> Callable:
    """Make a function that converts the pixels of PyAV's frames, in one thread."""
    import av

    # PyAV 17 brought the option, and without it takes as many threads as there are CPUs
    options = dict(threads=1) if int(av.__version__.split('.')[0]) >= 17 else {}
    return partial(av.video.reformatter.VideoReformatter().reformat, **options)


def _rgb_converter(path: str) -> Callable:
    """Make a function from a frame of PyAV to an upright RGB array of its own."""
    reformat = _reformatter()

    def convert(frame: Any) -> np.ndarray:
        with _ffmpeg_errors(f'Cannot read video {path}'):
            image = reformat(frame, format='rgb24').to_ndarray()
        return np.array(np.rot90(image, round(frame.rotation / 90)), order='C')

    return convert


def video_info(path: str) -> VideoInfo:
    """What a video file declares; nothing is decoded."""
    with _open_video(path) as (container, stream):
        fps, seconds = stream.average_rate, container.duration and container.duration / 1e6
        if stream.duration is not None:
            seconds = float(stream.duration * stream.time_base)
        return VideoInfo(fps and float(fps), stream.frames, seconds)


def read_timed(path: str) -> Iterator[TimedFrame]:
    """Read all frames of a video file with their times, one after the other.

    Frames are turned upright by the rotation flag that phones write; pixels that are not square
    stay as they are stored. Times are the file's and rise from 0; a frame whose time is missing, or
    does not rise, comes one mean interval after the one before.

    Raises:
        MediaReadError: If the file cannot be opened, a frame cannot be decoded, or there is none.
    """
    convert, start, time = _rgb_converter(path), None, 0.0
    for stream, frame in _decode(path):
        seconds = frame.time
        if start is None:
            start = seconds or 0.0
        elif seconds is None or seconds - start <= time:
            time += 1 / float(stream.average_rate or ASSUMED_FPS)
        else:
            time = seconds - start
        yield TimedFrame(convert(frame), time)


def read_video(path: str) -> Iterator[np.ndarray]:
    """The images of :func:`read_timed`."""
    return (frame.image for frame in read_timed(path))


@lru_cache(maxsize=2**16)
def _count_frames(path: str, size: int, changed: int) -> int:
    """Count the frames of a video by decoding it, once in a process while the file is the same."""
    return sum(1 for _ in _decode(path, threads=1))


class NumberedFrames:
    """The frames of a video file by number, counted as :func:`read_video` gives them.

    Decoding starts at the key frame before a frame. Where the times in the file do not say which
    numbers the key frames have, or the decoder gives another frame than the one that comes next by
    its time, decoding starts at the first frame and counts.

    Args:
        path (str): The file.

    Attributes:
        fps (float): Mean frames per second.
        indexed (bool): Whether decoding starts at key frames; :meth:`read` may find that it cannot.

    Raises:
        MediaReadError: If the file cannot be read, is cut off, or has no frames.
    """

    def __init__(self, path: str) -> None:
        from av.format import Flags

        self.path = path
        if is_cut_off(path):
            raise MediaReadError(f'Cannot open video {path}: it is cut off. Get it anew.')
        packets = []  # one for each frame, but for formats that are cut without regard to frames
        with _open_video(path) as (container, stream):
            self.fps = float(stream.average_rate or ASSUMED_FPS)
            if not container.format.flags & (Flags.ts_discont | Flags.no_timestamps).value:
                is_vp8 = stream.codec_context.name == 'vp8'
                for p in container.demux(stream):
                    # a frame of VP8 may be there to refer to and not to be shown (RFC 6386, 9.1)
                    is_hidden = is_vp8 and p.size and not memoryview(p)[0] >> 4 & 1
                    if p.size and not p.is_discard and not is_hidden:
                        packets.append((p.pts, p.is_keyframe))
            reorders = stream.codec_context.has_b_frames
        times = [time for time, _ in packets]
        self.indexed = len(set(times)) == len(times) > 0 and None not in times
        if self.indexed:
            self.times = sorted(times)
            self.keys = [i for i, (_, is_key) in enumerate(sorted(packets)) if is_key]
            # the frames' order in such a file is not the order in which they are shown
            self.indexed = not reorders or self.times != times
        state = os.stat(path)
        self.count = len(packets) or _count_frames(path, state.st_size, state.st_mtime_ns)

    def __len__(self) -> int:
        return self.count

    def read(self, numbers: Iterable[int]) -> Iterator[np.ndarray]:
        """Decode the frames of some rising numbers; RGB, uint8, (height, width, 3), upright."""
        left, convert = list(numbers), _rgb_converter(self.path)
        if self.indexed and left:
            with suppress(MediaReadError):  # raised below if it is so from the first frame on, too
                for frame in self._from_keys(list(left)):
                    yield convert(frame)
                    left.pop(0)
            self.indexed = not left
        for number, (_, frame) in enumerate(_decode(self.path, threads=1) if left else ()):
            if number == left[0]:
                yield convert(frame)
                left.pop(0)
                if not left:
                    return
        if left:
            fewer = f'it has fewer than {self.count} frames'
            raise MediaReadError(f'Cannot decode frames {left} of video {self.path}: {fewer}.')

    def _from_keys(self, numbers: list[int]) -> Iterator:
        """Yield frames of PyAV; end early at one that is not what comes next by its time."""
        with _open_video(self.path, threads=1) as (container, stream):
            decoded = container.decode(stream)
            start = place = 0  # numbers of the frame where decoding starts, and of the next one
            for number in numbers:
                key = self.keys[max(0, bisect_right(self.keys, number) - 1)] if self.keys else 0
                if key > place + 4:  # fewer frames are decoded faster than skipped
                    container.seek(self.times[key], stream=stream)
                    decoded, start, place = container.decode(stream), key, key
                for frame in decoded:
                    if place == start and (frame.pts or 0) < self.times[start]:
                        continue  # shown before the key frame, it needs what was not decoded
                    if frame.pts != self.times[place] or (place == start and not frame.key_frame):
                        return
                    place += 1
                    if place > number:
                        yield frame
                        break


def is_cut_off(path: str) -> bool:
    """Whether an .avi, .mkv, .webm, .mp4 or .mov is shorter than it says: a broken download."""
    if not osp.isfile(path):
        return False
    size, end = osp.getsize(path), 0
    with open(path, 'rb') as f:
        head = f.read(1024)
        if head[:4] == b'RIFF':
            end = 8 + int.from_bytes(head[4:8], 'little')
        elif head[:4] == b'\x1a\x45\xdf\xa3':  # Matroska: the segment, with a length of 7 bytes
            start = head.find(b'\x18\x53\x80\x67\x01') + 12
            length = int.from_bytes(head[start - 7 : start], 'big')
            if start > 11 and length < 2**56 - 1:  # all ones: not known
                end = start + length
        elif head[4:8] == b'ftyp':
            length = 8
            while length >= 8 and end < size:  # the boxes
                f.seek(end)
                box = f.read(16)
                length = int.from_bytes(box[8:] if box[:4] == b'\0\0\0\1' else box[:4], 'big')
                end += length
    return end > size


class TimedEncoder:
    """An H.264 stream in a container of PyAV whose frames have times; odd sides grow by one."""

    def __init__(self, container: Any, fps: float | None = None, crf: int = 20) -> None:
        # the rate is a guess, by which the encoder plans
        self.stream = container.add_stream('libx264', rate=round(fps or ASSUMED_FPS) or 1)
        self.stream.pix_fmt, self.stream.options = 'yuv420p', dict(crf=f'{crf}', preset='veryfast')
        self.stream.codec_context.colorspace = 6  # BT.601, as OpenCV converts
        self.stream.codec_context.time_base = TIME_BASE
        self.last = -1

    def frame(self, image: np.ndarray, time: float) -> Any:
        """The frame of PyAV of an RGB image at a time in seconds."""
        height, width = image.shape[:2]
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode='edge')
        if self.last < 0:
            self.stream.height, self.stream.width = image.shape[:2]
        frame = _yuv_frame(image)
        self.last = max(self.last + 1, round(time / TIME_BASE))  # a later frame is shown later
        frame.pts, frame.time_base = self.last, TIME_BASE
        return frame


def _yuv_frame(image: np.ndarray) -> Any:
    import av
    import cv2

    planes = cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420)  # 8 times as fast as swscale
    return av.VideoFrame.from_ndarray(planes, format='yuv420p')


def write_image(path: str, image: np.ndarray, suffix: str | None = None, quality: int = 95) -> None:
    """Write an RGB image in the format of ``suffix``, or else of the path; quality: of a jpg."""
    import cv2

    suffix = (suffix or osp.splitext(path)[1]).lower()
    with open(path, 'wb') as f:  # cv2.imwrite cannot write to every name on every system
        if suffix in ('.jpg', '.jpeg'):
            f.write(cv2.imencode(suffix, image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1])
        else:
            Image.fromarray(image).save(f, Image.registered_extensions()[suffix], quality=quality)


def write_mp4(path: str, frames: Iterable[np.ndarray], fps=25) -> None:
    """Write RGB frames as H.264 (yuv420p, crf 18), whatever the suffix of the path.

    Both sides must be even. The same frames look the same again, but x264 may write other bytes.

    Raises:
        ValueError: If there are no frames.
    """
    import av

    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError(f'There are no frames to write to {path}.')
    with av.open(path, 'w', format='mp4') as container:
        stream = container.add_stream('libx264', rate=fps)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = 'yuv420p'
        stream.options = dict(crf='18', preset='veryfast', threads='1')
        for image in chain((first,), frames):
            container.mux(stream.encode(_yuv_frame(image)))
        container.mux(stream.encode())
