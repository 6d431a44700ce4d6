# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The sound of a video, carried over into another file beside new pictures."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    import av

from ..media import MediaReadError

COPIED = ('aac', 'mp3', 'mp3float', 'ac3', 'eac3', 'opus', 'libopus', 'alac')  # what mp4 holds
AAC_RATE = 48000  # samples per second


class Sound:
    """The first sound track of an open file, copied packet by packet.

    What mp4 cannot hold is encoded again, as aac. Time 0 is the first frame of the video.

    Args:
        container (av.container.InputContainer): Of the source, used by nobody else.
    """

    def __init__(self, container: 'av.container.InputContainer') -> None:
        self.path = container.name
        self.source = container.streams.audio[0]
        self.copied = self.source.codec_context.name in COPIED
        self.packets = container.demux(self.source)
        start = container.streams.video[0]
        self.delay = float((start.start_time or 0) * start.time_base)
        self.waiting = None  # a packet that was read, but comes later
        self.output = self.stream = None

    def add_to(self, output: 'av.container.OutputContainer') -> None:
        """Make a stream in a file that is being written; before its first packet."""
        self.output = output
        if self.copied:
            self.stream = output.add_stream_from_template(self.source)
        else:
            self.stream = output.add_stream('aac', rate=AAC_RATE)
            channels = self.source.codec_context.layout.nb_channels
            self.stream.codec_context.layout = 'mono' if channels == 1 else 'stereo'

    def copy_until(self, time: float) -> None:
        """Write the packets up to a time in seconds, all that are left if it is infinite."""
        while True:
            packet = self.waiting or self._read()
            self.waiting = None
            if packet is None:
                return
            if packet.pts is not None and packet.pts * packet.time_base - self.delay > time:
                self.waiting = packet
                return
            self._write(packet)

    def _read(self) -> Optional['av.Packet']:
        import av

        try:
            return next(self.packets, None)
        except av.FFmpegError as e:
            raise MediaReadError(f'Cannot read the sound of {self.path}: {e}') from e

    def _write(self, packet: 'av.Packet') -> None:
        if packet.dts is not None:
            shift = round(self.delay / packet.time_base)
            packet.dts -= shift
            packet.pts = None if packet.pts is None else packet.pts - shift
        if not self.copied:
            for frame in _decode(packet):
                self.output.mux(self.stream.encode(frame))
            if not packet.size:  # the last packet, which brings out what the codecs still hold
                self.output.mux(self.stream.encode())
        elif packet.dts is not None:
            packet.stream = self.stream
            self.output.mux(packet)


def _decode(packet: 'av.Packet') -> list['av.AudioFrame']:
    """What a packet holds; nothing if it is broken, which players skip as well."""
    import av

    try:
        return packet.decode()
    except av.FFmpegError:
        return []


@contextmanager
def open_sound(path: str) -> Iterator[Sound | None]:
    """Open the sound of a video file.

    Args:
        path (str): The file.

    Yields:
        Sound | None: None if it has no sound.

    Raises:
        MediaReadError: If the file cannot be opened.
    """
    import av

    try:
        container = av.open(path)
    except (av.FFmpegError, OSError, ValueError) as e:
        raise MediaReadError(f'Cannot open video {path}: {e}') from e
    with container:
        yield Sound(container) if container.streams.audio else None
