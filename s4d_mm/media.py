# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Media files, once for the package and its tools.

Images, videos and folders of frames are read, images and mp4 files are written.
This module imports nothing of the package, so that a process which only reads
and writes pictures needs neither torch nor the toolbox
(``tools/data/s4d_mm_alone.py``).
"""

import os
import os.path as osp
import re
import traceback
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import lru_cache
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
# pictures that Pillow does not read, or not as what a camera saw
REFUSED_SUFFIXES = (
    *('.heic', '.heif', '.jxl', '.svg', '.psd', '.exr', '.hdr'),
    *('.dng', '.cr2', '.cr3', '.nef', '.arw', '.orf', '.rw2', '.raf', '.raw'),
)
OPENCV_WRITES = ('.jpg', '.jpeg', '.jpe', '.png', '.bmp', '.webp')
ASSUMED_FPS = 25.0  # of a video that does not say
MAX_IMAGE_PIXELS = 2**26  # 8192 x 8192
MAX_FRAME_PIXELS = 2**24  # twice 4K, half of 8K
VIDEO_SUFFIXES = (
    *('.mp4', '.avi', '.flv', '.mkv', '.mov', '.webm', '.m4v', '.mpg', '.mpeg', '.mpe'),
    *('.wmv', '.asf', '.3gp', '.3g2', '.ts', '.mts', '.m2ts', '.vob', '.ogv'),
)


class MediaReadError(OSError):
    """A video, frame or image file is there but cannot be decoded."""


def refuse_suffix(path: str) -> None:
    """Refuse a file by its name, if it is of a kind that is not read.

    Args:
        path (str): The file; it need not be there.

    Raises:
        MediaReadError: If its suffix is one of :data:`REFUSED_SUFFIXES`.
    """
    suffix = osp.splitext(path)[1].lower()
    if suffix in REFUSED_SUFFIXES:
        raise MediaReadError(
            f'{path}: files of type {suffix} are not read. Convert it to .jpg or .png.'
        )


@contextmanager
def open_image(path: str) -> Iterator[Image.Image]:
    """Open an image file with Pillow.

    Unlike OpenCV it never takes a truncated file for a whole one. Files with several pictures
    (animations, pages) are refused: which of them is meant? Of a phone's double picture (MPO)
    the first is taken.

    Args:
        path (str): The file.

    Yields:
        PIL.Image.Image: The image, not yet decoded.

    Raises:
        MediaReadError: If the file is no image, has several, more than :data:`MAX_IMAGE_PIXELS`,
            or Pillow cannot decode it inside the ``with`` block. Other errors of the block stay as
            they are.
    """
    refuse_suffix(path)
    try:
        with open(path, 'rb') as f, Image.open(f) as image:
            count = getattr(image, 'n_frames', 1)
            if count > 1 and image.format != 'MPO':
                raise OSError(
                    f'it has {count} pictures. Save the one that is meant as .png, or all of them '
                    'as a folder of frames'
                )
            if image.width * image.height > MAX_IMAGE_PIXELS:
                raise OSError(
                    f'it has {image.width} x {image.height} pixels; more than '
                    f'{MAX_IMAGE_PIXELS:,} in all are not read. Save it smaller'
                )
            yield image
    except Exception as e:
        if not (isinstance(e, OSError) or _of_pillow(e)):
            raise
        raise MediaReadError(f'Cannot decode image {path}: {e}') from e


def _of_pillow(error: Exception) -> bool:
    """Whether an error was raised inside of Pillow.

    Its type would not tell: a broken file can be a SyntaxError, a RuntimeError
    or struct.error, and broken EXIF data a TypeError, AttributeError or
    KeyError.
    """
    return any(
        frame.f_globals.get('__name__', '').startswith('PIL.')
        for frame, _ in traceback.walk_tb(error.__traceback__)
    )


def is_turned(image: Image.Image, least: int = 5) -> bool:
    """Whether the EXIF orientation of an image is at least ``least``.

    Args:
        image (PIL.Image.Image): The image.
        least (int): 2 for anything but upright, 5 for turned by 90 degrees.
            Defaults to 5.

    Returns:
        bool: Whether it is.
    """
    return image.getexif().get(EXIF_ORIENTATION) in range(least, 9)


def to_rgb(image: Image.Image) -> np.ndarray:
    """Decode an open image, turned upright as its EXIF data say.

    Args:
        image (PIL.Image.Image): The image.

    Returns:
        np.ndarray: RGB, uint8, (height, width, 3). Grey values of 16 bits lose the lower 8, as
        Pillow and OpenCV do it with colours.

    Raises:
        OSError: If the values have no range that could be scaled to 0..255.
    """
    bits = bits_of_grey(image)
    if is_turned(image, least=2):
        image = ImageOps.exif_transpose(image)
    if bits is not None:
        image = Image.fromarray((np.array(image) >> (bits - 8)).astype(np.uint8))
    if image.mode == 'LA':  # on mmcv's colour, not on black
        canvas = Image.new('RGBA', image.size, TRANSPARENT)
        image = Image.alpha_composite(canvas, image.convert('RGBA'))
    if image.mode != 'RGB':
        image = image.convert('RGB')
    return np.array(image)


def bits_of_grey(image: Image.Image) -> int | None:
    """Bits of the values of a grey image that has more than 8, which Pillow would cut off at 255.

    Args:
        image (PIL.Image.Image): The image, as it was opened.

    Returns:
        int | None: 9..16; None for every other image.

    Raises:
        OSError: If the values are floats, or integers of 32 bits: their range is not known.
    """
    # Pillow before 11.3 opens PNGs of 16 bits in this mode
    if image.mode.startswith('I;16') or (image.mode == 'I' and image.format == 'PNG'):
        return getattr(image, 'tag_v2', {}).get(TIFF_BITS, (16,))[0]
    if image.mode in ('I', 'F'):
        raise OSError('its pixels have 32 bits. Save it with 8 or 16 bits')
    return None


def read_image(path: str) -> np.ndarray:
    """Read an image file.

    Args:
        path (str): The file.

    Returns:
        np.ndarray: RGB, uint8, (height, width, 3).

    Raises:
        MediaReadError: If the file is truncated or no image.
    """
    with open_image(path) as image:
        return to_rgb(image)


def is_picture(name: str) -> bool:
    """Whether a file is a picture by its name, also one that cannot be read."""
    return name.lower().endswith(IMAGE_SUFFIXES + REFUSED_SUFFIXES)


def natural_key(name: str) -> list:
    """Sort key by which ``2.jpg`` comes before ``10.jpg``."""
    parts = re.split('([0-9]+)', name)  # text, number, text, ...
    return [int(p) if i % 2 else p for i, p in enumerate(parts)]


def list_frames(folder: str) -> list[str]:
    """Paths of the frames in a folder, in natural order.

    Args:
        folder (str): The folder. Hidden files and files that are no images are
            skipped; pictures that cannot be read are not (:func:`refuse_suffix`).

    Returns:
        list[str]: Paths.

    Raises:
        MediaReadError: If there is none, or one is of a kind that is not read.
    """
    names = [n for n in os.listdir(folder) if is_picture(n) and not n.startswith('.')]
    for name in names:
        refuse_suffix(osp.join(folder, name))
    if not names:
        raise MediaReadError(
            f'Frame folder {folder} has no image files ({", ".join(IMAGE_SUFFIXES)}).'
        )
    return [osp.join(folder, n) for n in sorted(names, key=natural_key)]


class TimedFrame(NamedTuple):
    """One frame of a video and when it is shown.

    Attributes:
        image (np.ndarray): RGB, uint8, (height, width, 3), upright.
        time (float): Seconds after the first frame.
    """

    image: np.ndarray
    time: float


class VideoInfo(NamedTuple):
    """What a video file says of itself.

    Attributes:
        fps (float | None): Mean frames per second; None if the file does not say.
        frames (int): Number of frames; 0 if the file does not say. A truncated file has fewer.
        duration (float | None): Seconds; None if the file does not say.
        size (tuple[int, int]): Width and height of the upright frames in pixels.
        has_sound (bool): Whether there is sound.
    """

    fps: float | None
    frames: int
    duration: float | None
    size: tuple[int, int]
    has_sound: bool


@contextmanager
def _open_video(path: str, threads: int = 0) -> Iterator[tuple]:
    """Open a video with PyAV; a picture of the cover of a sound file is no video.

    Yields:
        tuple: The container and its first video stream.

    Raises:
        MediaReadError: If it cannot be opened, has no video or too large frames, or FFmpeg fails
            inside the ``with`` block.
    """
    import av  # not above: a process may read images only

    refuse_suffix(path)
    try:
        container = av.open(path)
    except (av.FFmpegError, OSError, ValueError) as e:
        raise MediaReadError(f'Cannot open video {path}: {_ffmpeg_reason(e)}') from e
    with container:
        if container.format.name == 'image2' or container.format.name.endswith('_pipe'):
            raise MediaReadError(f'{path} is a picture and no video.')
        cover = av.stream.Disposition.attached_pic
        streams = [s for s in container.streams.video if not s.disposition & cover]
        if not streams:
            raise MediaReadError(f'{path} has no video stream.')
        context = streams[0].codec_context
        if context is None:
            raise MediaReadError(f'Cannot open video {path}: FFmpeg does not know its codec.')
        if context.width * context.height > MAX_FRAME_PIXELS:
            raise MediaReadError(
                f'{path} has frames of {context.width} x {context.height} pixels; more than '
                f'{MAX_FRAME_PIXELS:,} in all are not read. Make them smaller: ffmpeg -i OLD -vf '
                'scale=1920:-2 NEW.mp4'
            )
        context.thread_count = threads
        context.options = dict(max_pixels=str(MAX_FRAME_PIXELS))  # frames may belie the header
        try:
            yield container, streams[0]
        except av.FFmpegError as e:
            raise MediaReadError(f'Cannot read video {path}: {_ffmpeg_reason(e)}') from e


def _decode(path: str, threads: int = 0) -> Iterator[tuple]:
    """Decode a video.

    Yields:
        tuple: Stream and frame of PyAV.

    Raises:
        MediaReadError: See :func:`read_video`.
    """
    import av

    with _open_video(path, threads) as (container, stream):
        count = 0
        decoded = container.decode(stream)
        while True:
            try:
                frame = next(decoded)
            except StopIteration:
                break
            except (av.FFmpegError, OSError, ValueError) as e:
                raise MediaReadError(
                    f'Cannot decode frame {count} of video {path}: {_ffmpeg_reason(e)}'
                ) from e
            count += 1
            yield stream, frame
    if not count:
        raise MediaReadError(f'Video {path} has no frames.')


def _rgb_converter(path: str) -> Callable:
    """Make a function from a frame of PyAV to an upright RGB array of its own."""
    import av

    reformat = av.video.reformatter.VideoReformatter().reformat
    # PyAV 17 brought the option, and without it takes as many threads as there are CPUs
    options = dict(threads=1) if int(av.__version__.split('.')[0]) >= 17 else {}

    def convert(frame: Any) -> np.ndarray:
        try:
            image = reformat(frame, format='rgb24', **options).to_ndarray()
        except (av.FFmpegError, OSError, ValueError) as e:
            raise MediaReadError(f'Cannot read video {path}: {_ffmpeg_reason(e)}') from e
        return np.array(np.rot90(image, round(frame.rotation / 90)), order='C')

    return convert


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
        threads (int): Of the decoder; 0 for all CPUs. Defaults to 1.

    Attributes:
        fps (float): Mean frames per second.
        indexed (bool): Whether decoding starts at key frames; :meth:`read` may find that it cannot.

    Raises:
        MediaReadError: If the file cannot be read, is cut off, or has no frames.
    """

    def __init__(self, path: str, threads: int = 1) -> None:
        from av.format import Flags

        self.path, self.threads = path, threads
        if is_cut_off(path):
            raise MediaReadError(f'Cannot open video {path}: it is cut off. Get it anew.')
        packets = []  # one for each frame, but for formats that are cut without regard to frames
        with _open_video(path) as (container, stream):
            self.fps = float(stream.average_rate or ASSUMED_FPS)
            if not container.format.flags & (Flags.ts_discont | Flags.no_timestamps).value:
                is_vp8 = stream.codec_context.name == 'vp8'
                packets = [
                    (p.pts, p.is_keyframe)
                    for p in container.demux(stream)
                    if p.size and not p.is_discard and not (is_vp8 and _is_hidden(p))
                ]
            reorders = stream.codec_context.has_b_frames
        times = [time for time, _ in packets]
        self.indexed = len(set(times)) == len(times) > 0 and None not in times
        if self.indexed:
            packets.sort()
            self.times = [time for time, _ in packets]
            self.keys = [i for i, (_, is_key) in enumerate(packets) if is_key]
            # the frames' order in such a file is not the order in which they are shown
            self.indexed = not reorders or self.times != times
        state = os.stat(path)
        self.count = len(packets) or _count_frames(path, state.st_size, state.st_mtime_ns)

    def __len__(self) -> int:
        return self.count

    def read(self, numbers: Iterable[int]) -> Iterator[np.ndarray]:
        """Decode some frames.

        Args:
            numbers (Iterable[int]): Their numbers, rising.

        Yields:
            np.ndarray: RGB, uint8, (height, width, 3), upright.

        Raises:
            MediaReadError: If one cannot be decoded.
        """
        left, convert = list(numbers), _rgb_converter(self.path)
        if self.indexed and left:
            try:
                for frame in self._from_keys(list(left)):
                    yield convert(frame)
                    left.pop(0)
            except MediaReadError:
                pass  # said below if it is so from the first frame on, too
            self.indexed = not left
        for number, (_, frame) in enumerate(_decode(self.path, self.threads) if left else ()):
            if number == left[0]:
                yield convert(frame)
                left.pop(0)
                if not left:
                    return
        if left:
            raise MediaReadError(
                f'Cannot decode frames {left} of video {self.path}: it has fewer than '
                f'{self.count} frames.'
            )

    def _from_keys(self, numbers: list[int]) -> Iterator:
        """Yield frames of PyAV; end early at one that is not what comes next by its time."""
        number, start = numbers[0], self._key_before(numbers[0])
        place = None  # number of the frame that comes next; None on the way to the key frame
        with _open_video(self.path, self.threads) as (container, stream):
            if start:
                container.seek(self.times[start], stream=stream)
            for packet in container.demux(stream):
                if place is None and packet.pts == self.times[start]:
                    place = start
                if place is None or not (packet.size or packet.dts is None):
                    continue  # an empty packet would end the decoding
                if packet.is_keyframe:
                    newest = packet.pts
                for frame in packet.decode():
                    if place == start and frame.pts is not None and frame.pts < self.times[start]:
                        continue  # shown before the key frame, it needs what was not decoded
                    fits = [frame.pts] == self.times[place : place + 1]
                    if not fits or (place == start and not frame.key_frame):
                        return
                    place += 1
                    if place <= number:
                        continue
                    yield frame
                    numbers = numbers[1:]
                    if not numbers:
                        return
                    number, key = numbers[0], self._key_before(numbers[0])
                    if self.times[key] > newest:
                        start, place = key, None
                        stream.codec_context.flush_buffers()
                        break

    def _key_before(self, number: int) -> int:
        before = bisect_right(self.keys, number)
        return self.keys[before - 1] if before else 0


def _is_hidden(packet: Any) -> bool:
    """Whether a packet of VP8 is a frame to refer to and not to be shown (RFC 6386, 9.1)."""
    return not memoryview(packet)[0] >> 4 & 1


def video_info(path: str) -> VideoInfo:
    """What a video file says of itself. Its first frame is decoded.

    Args:
        path (str): The file.

    Returns:
        VideoInfo: See there.

    Raises:
        MediaReadError: If the file is no video, or its first frame cannot be decoded.
    """
    with closing(_decode(path)) as decoded:
        stream, frame = next(decoded)
        image = _rgb_converter(path)(frame)
        rate, duration = stream.average_rate, stream.duration
        container = stream.container
        if duration is not None:
            duration = float(duration * stream.time_base)
        elif container.duration is not None:
            duration = container.duration / 1e6  # FFmpeg counts microseconds here
        return VideoInfo(
            fps=float(rate) if rate else None,
            frames=stream.frames,
            duration=duration,
            size=(image.shape[1], image.shape[0]),
            has_sound=bool(container.streams.audio),
        )


def is_cut_off(path: str) -> bool:
    """Whether an .avi, .mkv, .webm, .mp4 or .mov is shorter than it says: a broken download.

    Args:
        path (str): The file.

    Returns:
        bool: False too if it is not there, of another kind, or does not say how long it is.
    """
    if not osp.isfile(path):
        return False
    size, end = osp.getsize(path), 0
    with open(path, 'rb') as f:
        head = f.read(1024) + bytes(16)

        def varying(start: int) -> tuple[int, int]:  # a number of Matroska, and where it ends
            bits = 7 * (9 - head[start].bit_length())
            value = int.from_bytes(head[start : start + bits // 7], 'big') % (1 << bits)
            return value % ((1 << bits) - 1), start + bits // 7  # all ones: not known

        if head[:4] == b'RIFF':
            end = 8 + int.from_bytes(head[4:8], 'little')
        elif head[:4] == b'\x1a\x45\xdf\xa3':
            start = sum(varying(4))  # of the one element that holds all others
            if head[start : start + 4] == b'\x18\x53\x80\x67':
                end = sum(varying(start + 4))
        elif head[4:8] == b'ftyp':
            length = 8
            while length >= 8 and end < size:  # the boxes
                f.seek(end)
                box = f.read(16)
                is_long = box[:4] == b'\0\0\0\1'
                length = int.from_bytes(box[8:] if is_long else box[:4], 'big')
                end += length
    return end > size


def read_timed(path: str) -> Iterator[TimedFrame]:
    """Read all frames of a video file with their times, one after the other.

    Args:
        path (str): The file.

    Yields:
        TimedFrame: Frame and time. Times are the file's and rise from 0; a frame whose time is
        missing, or does not rise, comes one mean interval after the one before.

    Raises:
        MediaReadError: See :func:`read_video`.
    """
    first = last = None
    convert = _rgb_converter(path)
    for stream, frame in _decode(path):
        seconds = frame.time
        if first is None:
            first = seconds or 0.0
            time = 0.0
        elif seconds is not None and seconds - first > last:
            time = seconds - first
        else:
            time = last + 1 / float(stream.average_rate or ASSUMED_FPS)
        last = time
        yield TimedFrame(convert(frame), time)


def read_video(path: str) -> Iterator[np.ndarray]:
    """Read all frames of a video file, one after the other.

    They are turned upright by the rotation flag that phones write. Pixels that are not square stay
    as they are stored.

    Args:
        path (str): The file.

    Yields:
        np.ndarray: RGB, uint8, (height, width, 3).

    Raises:
        MediaReadError: If the file cannot be opened, a frame cannot be
            decoded, or there is none.
    """
    yield from map(_rgb_converter(path), (frame for _, frame in _decode(path)))


def _ffmpeg_reason(error: Exception) -> str:
    """What FFmpeg says of an error, without the last line of its log.

    PyAV adds that line only if there is one, and it may be of another file.
    """
    return str(error).split('; last error log')[0]


def write_image(path: str, image: np.ndarray, suffix: str | None = None, quality: int = 95) -> None:
    """Write an image file.

    Args:
        path (str): The file.
        image (np.ndarray): RGB, uint8, (height, width, 3).
        suffix (str, optional): Format, such as ``.jpg``. Defaults to None, the
            suffix of ``path``.
        quality (int): Of a jpg, 0..100. Defaults to 95.
    """
    import cv2

    suffix = (suffix or osp.splitext(path)[1]).lower()
    with open(path, 'wb') as f:  # cv2.imwrite cannot write to every name on every system
        if suffix not in OPENCV_WRITES:
            kind = Image.registered_extensions()[suffix]
            Image.fromarray(image).save(f, kind, quality=quality)
            return
        # OpenCV warns of an option that a format does not have
        options = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix in ('.jpg', '.jpeg') else []
        _, data = cv2.imencode(suffix, image[..., ::-1], options)
        f.write(data.tobytes())


def write_mp4(path: str, frames: Iterable[np.ndarray], fps=25) -> None:
    """Write a video file as H.264 (yuv420p, crf 18).

    It is encoded in one thread, so that the same frames give the same file.

    Args:
        path (str): The file; its suffix does not matter.
        frames (Iterable[np.ndarray]): RGB, uint8, (height, width, 3), all of
            one size, with even height and width.
        fps (int | Fraction): Frames per second. Defaults to 25.

    Raises:
        ValueError: If there are no frames, or a side is odd.
    """
    import av

    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError(f'There are no frames to write to {path}.')
    height, width = first.shape[:2]
    if height % 2 or width % 2:
        raise ValueError(f'{path}: frames are {height} x {width}, but H.264 needs even sides.')
    with av.open(path, 'w', format='mp4') as container:
        stream = container.add_stream('libx264', rate=fps)
        stream.height, stream.width = height, width
        stream.pix_fmt = 'yuv420p'
        stream.options = dict(crf='18', preset='veryfast', threads='1')
        for frame in chain((first,), frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        container.mux(stream.encode())
