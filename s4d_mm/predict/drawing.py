# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Predictions on images and videos: boxes, label boxes, and bars of all classes beside them.

It draws what is in a :class:`~s4d_mm.predict.results.MediaResult` and needs neither a model nor
torch. A video is drawn frame by frame, with the times and the sound of its source.
"""

import math
import os.path as osp
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from heapq import merge

import cv2
import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

from ..files.text import printable
from ..media import TimedEncoder, read_timed
from .faces import square_corners
from .results import ExpressionRecord, MediaResult

Color = tuple[int, int, int]  # RGB, 0..255
Rect = tuple[int, int, int, int]  # x1, y1, x2, y2

# Okabe and Ito (Color Universal Design, 2008): people with any colour vision tell them apart
COLORS = (
    *((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66)),
    *((0, 114, 178), (213, 94, 0), (204, 121, 167), (153, 153, 153)),
)
COLORS += tuple(tuple(round(0.6 * c) for c in color) for color in COLORS)  # the same, darker
NAMES = ('happiness', 'sadness', 'neutral', 'anger', 'surprise', 'disgust', 'fear', 'contempt')
BLACK, WHITE, DARK, GREY = (0, 0, 0), (255, 255, 255), (24, 24, 24), (58, 58, 58)
SMALLEST, LARGEST = 200, 640  # pixels: sides of a picture that is enlarged, so that text fits on it
FACE = 0.75  # of a square's side: the rest is margin
COVERED = 0.05  # share of a face that a label box may cover
DEJAVU = osp.join(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf')


def class_colors(result: MediaResult) -> dict[str, Color]:
    """Names and colours of the classes of an input's records, in their order.

    A class of :data:`NAMES` has one colour everywhere; the others of a model take what is left.
    """
    shown = list(result.records[0].probabilities) if result.records else []
    names = list(dict.fromkeys([*result.classes, *shown]))
    free = [i for i, name in enumerate(NAMES) if name not in names]
    free += range(len(NAMES), len(NAMES) + len(names))
    places = {n: NAMES.index(n) if n in NAMES else free.pop(0) for n in names}
    return {printable(n): COLORS[places[n] % len(COLORS)] for n in shown}


def scores_by_face(records: Sequence[ExpressionRecord]) -> dict:
    """By face: the first frame, and the mean of the records that cover a frame, or NaN.

    Returns:
        dict[int | None, tuple[int, np.ndarray]]: The array is (frames, classes).
    """
    groups, scores = {}, {}
    for record in records:
        groups.setdefault(record.face, []).append(record)
    for face, group in groups.items():
        first = min(r.start_frame for r in group)
        total = np.zeros((max(r.end_frame for r in group) - first, len(group[0].probabilities) + 1))
        for r in group:
            total[r.start_frame - first : r.end_frame - first] += [*r.probabilities.values(), 1]
        count = total[:, -1:]
        mean = np.divide(total[:, :-1], count, np.full_like(total[:, :-1], np.nan), where=count > 0)
        scores[face] = first, mean
    return scores


@lru_cache
def font_file(letters: frozenset) -> str:
    """DejaVu Sans, or the first font of this computer that has some letters."""
    for path in (DEJAVU, *(sorted(font_manager.findSystemFonts()) if letters else ())):
        with suppress(RuntimeError, OSError):  # a bitmap font, or a broken one
            font = FT2Font(path)
            if all(font.get_char_index(ord(letter)) for letter in letters):
                return path
    return DEJAVU


@lru_cache
def text_font(text: str, size: int) -> ImageFont.FreeTypeFont:
    """A font that has the letters of a text; OpenCV's own fonts know ASCII only."""
    return ImageFont.truetype(font_file(frozenset(c for c in text if not c.isascii())), size)


def shorten(text: str, size: int, width: int) -> str:
    """A text that fits into ``width`` pixels, with an ellipsis where it was cut."""
    if text_font(text, size).getlength(text) <= width:
        return text
    while text and text_font(text, size).getlength(text + '…') > width:
        text = text[:-1]
    return text.rstrip() + '…'


@lru_cache(maxsize=256)
def draw_label(text: str, size: int, color: Color, widest: int) -> np.ndarray:
    """A label box: one line of text, black or white, on a colour."""
    pad = max(2, size // 3)
    text = shorten(text, size, max(1, widest - 2 * pad))
    font = text_font(text, size)
    width = min(widest, int(font.getlength(text)) + 1 + 2 * pad)
    image = Image.new('RGB', (width, round(1.5 * size)), color)
    ink = BLACK if np.dot(color, (0.299, 0.587, 0.114)) > 120 else WHITE
    ImageDraw.Draw(image).text((pad, image.height / 2), text, ink, font, anchor='lm')
    return np.array(image)


def place_labels(
    sizes: Sequence[Sequence[tuple[int, int]]],
    boxes: Sequence[Rect],
    faces: Sequence[Rect],
    picture: tuple[int, int],
    last: Sequence[int],
) -> list[tuple[int, int, Rect]]:
    """Choose a label box for each face and a place at its box, where it covers no face or label.

    ``sizes`` are width and height of the label boxes of each face, the longest one first, and
    ``last`` the choices in the frame before, which are kept if they can be. Gives for each face the
    choice, the number of the label box, and the place that covers least.
    """
    chosen, rects = [(0, 0)] * len(sizes), np.zeros((len(sizes), 4), int)
    faces = np.reshape(faces, (-1, 4))
    areas = np.prod(faces[:, 2:] - faces[:, :2], axis=1)
    for all_labels in (False, True):  # a place for the shortest of all first
        for k, (x1, y1, x2, y2) in enumerate(boxes):
            places = []  # the best first: above and below, then at the sides
            for i, (w, h) in enumerate(sizes[k]):
                above, left = y1 - h, x1 - w
                corners = [(x, y) for x in (x1, x2 - w) for y in (above, y2)]
                corners += [(x, y) for y in (y1, y2 - h) for x in (left, x2)]
                places += [(i, x, y, w, h) for x, y in corners]
            number, x, y, w, h = np.array(places).T
            x = np.clip(x, 0, np.maximum(0, picture[0] - w))
            y = np.clip(y, 0, np.maximum(0, picture[1] - h))
            options = np.stack([x, y, x + w, y + h], axis=1)
            share = (_common_areas(options, faces) / areas).sum(1)
            cost = np.where(share > COVERED, share, 0)
            cost += (_common_areas(options, np.delete(rects, k, 0)) > 0).sum(1)
            if not all_labels:
                cost[number < len(sizes[k]) - 1] = np.inf
            best = np.lexsort((np.arange(len(cost)) != last[k], cost))[0]
            rects[k], chosen[k] = options[best], (int(best), int(number[best]))
    return [(*pair, tuple(rect)) for pair, rect in zip(chosen, rects.tolist())]


def _common_areas(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    low = np.maximum(a[:, None, :2], b[:, :2])
    return np.clip(np.minimum(a[:, None, 2:], b[:, 2:]) - low, 0, None).prod(-1)


class Painter:
    """Draws the records of one input on its frames.

    In each frame: the square of each face that has a record there, a label box with its number,
    label and probability, and, at the right of the picture, bars of all classes for as many faces
    as have room. Sizes follow the picture's; a small one is enlarged, so that text fits on it.
    """

    def __init__(self, result: MediaResult, width: int, height: int) -> None:
        fits = LARGEST // max(width, height)
        self.zoom = max(1, min(math.ceil(SMALLEST / min(width, height)), fits))
        self.size = self.width, self.height = width * self.zoom, height * self.zoom
        self.line = max(2, round(0.006 * min(self.size)))
        self.font_size = max(12, round(0.035 * min(self.size)))
        self.tracks, self.scores = result.tracks, scores_by_face(result.records)
        self.classes = list(class_colors(result).items())
        self.note = printable(result.trained_on and f'trained on {result.trained_on}')
        self.last = {}  # by face: the choice of place_labels
        self.panel = lru_cache(maxsize=1)(self._draw_panel)

    def draw(self, frame: np.ndarray, number: int) -> np.ndarray:
        """The frame of a number, from 0, with what is known of it; RGB, uint8."""
        picture = cv2.resize(frame, self.size, interpolation=cv2.INTER_CUBIC)  # a copy of it
        found = {}
        for face, (first, scores) in self.scores.items():
            if first <= number < first + len(scores) and not np.isnan(scores[number - first, 0]):
                found[face] = scores[number - first]
        corners = {face: self._corners(face, number) for face in found}
        for face, points in corners.items():
            if points is not None:
                points = np.round((points - 0.5) * 16).astype(np.int32)
                color, rim = self.classes[found[face].argmax()][1], 2 * math.ceil(self.line / 3)
                for shade, width in ((BLACK, self.line + rim), (color, self.line)):
                    cv2.polylines(picture, [points], True, shade, width, cv2.LINE_AA, shift=4)
        self._draw_labels(picture, found, corners)
        if not self.scores:
            return picture
        panel = self.panel(tuple((face, tuple(scores.tolist())) for face, scores in found.items()))
        return np.hstack([picture, panel])

    def _corners(self, face: int | None, number: int) -> np.ndarray | None:
        track = self.tracks.get(face)
        if track is None or not 0 <= number - track.start_frame < len(track.squares):
            return None
        return self.zoom * square_corners(track.squares[number - track.start_frame])

    def _draw_labels(self, picture: np.ndarray, found: dict, corners: dict) -> None:
        labels = []
        for face, scores in found.items():
            name, color = self.classes[scores.argmax()]
            texts = [f'{name} {scores.max():.0%}']
            if face is not None:  # what a crowd has no room for is left out from the end
                texts = [f'{face}  {texts[0]}', f'{face}  {name}', str(face)]
            labels.append([draw_label(t, self.font_size, color, self.width) for t in texts])
        top = 0, round(1.5 * self.font_size), 0, round(1.5 * self.font_size)
        placed = place_labels(
            [[label.shape[1::-1] for label in choices] for choices in labels],
            [top if c is None else _rect(c, 1, self.line) for c in corners.values()],
            [_rect(c, FACE) for c in corners.values() if c is not None],
            self.size,
            [self.last.get(face, 0) for face in found],
        )
        for face, choices, (choice, i, (x1, y1, x2, y2)) in zip(found, labels, placed):
            self.last[face] = choice
            target = picture[y1:y2, x1:x2]
            target[:] = choices[i][: target.shape[0], : target.shape[1]]

    def _draw_panel(self, faces: tuple) -> np.ndarray:
        # of many classes the likeliest that have room, with letters of 11 pixels
        best = np.argsort(-np.sum([scores for _, scores in faces], axis=0), kind='stable')
        shown = np.sort(best[: max(1, int(self.height / 15.4) - 3)])
        rows = len(shown) + 2
        size = self.height / (1.4 * rows * min(len(self.scores), 3))
        size = int(np.clip(size, 11, self.font_size))
        row = round(1.4 * size)
        image = Image.new('RGB', (19 * size, self.height), DARK)
        pen = ImageDraw.Draw(image)

        def write(x: float, y: float, text: str, width: float, color: Color = WHITE) -> None:
            text = shorten(text, size, width)
            pen.text((x, y + row / 2), text, color, text_font(text, size), anchor='lm')

        room = max(1, (self.height - bool(self.note) * row) // (rows * row))
        for i, (face, scores) in enumerate(faces[:room]):
            y = size // 2 + i * rows * row
            name = self.classes[np.argmax(scores)][0]
            write(size, y, name if face is None else f'Face {face}: {name}', 14 * size)
            for k in shown:
                (name, color), score, y = self.classes[k], scores[k], y + row
                ends = y + row // 5, y + row - row // 5
                write(size, y, name, 8.5 * size)
                pen.rectangle((10 * size, ends[0], 15 * size - 1, ends[1]), GREY)
                if round(score * 5 * size):
                    end = 10 * size + round(score * 5 * size) - 1
                    pen.rectangle((10 * size, ends[0], end, ends[1]), color)
                write(15.5 * size, y, f'{score:.0%}', 3.5 * size)
        write(size, self.height - 1.2 * row, self.note, 17 * size)
        return np.array(image)


def _rect(corners: np.ndarray, share: float, rim: int = 0) -> Rect:
    """What is upright round a square, made smaller by ``share`` and then larger by ``rim``."""
    low, high = corners.min(axis=0), corners.max(axis=0)
    middle, half = (low + high) / 2, (high - low) / 2 * share + rim
    return *np.floor(middle - half).astype(int), *np.ceil(middle + half).astype(int)


def annotate_image(image: np.ndarray, result: MediaResult) -> np.ndarray:
    """Draw the faces of an image (RGB, uint8), their labels, and the probabilities of all classes.

    The bars of the probabilities are at its right. An image with a side below 200 pixels is
    enlarged.
    """
    return Painter(result, *image.shape[1::-1]).draw(image, 0)


def annotate_video(src: str, dst: str, result: MediaResult) -> None:
    """Draw the faces of a video, their labels, and the probabilities of all classes over time.

    The source is read once, frame by frame. The result is mp4 (H.264, AAC), upright, with the times
    and the sound of the source, and plays before it is loaded as a whole.

    """
    import av

    options = dict(movflags='faststart')
    with av.open(dst, 'w', format='mp4', options=options) as output, av.open(src) as source:
        tracks = [_drawn_frames(src, result, TimedEncoder(output, result.fps))]
        if source.streams.audio:
            tracks.append(_sound(source, output.add_stream('aac', rate=48000)))
        for _, stream, frame in merge(*tracks, key=lambda item: item[0]):
            output.mux(stream.encode(frame))
        for stream in output.streams:
            output.mux(stream.encode())


def _drawn_frames(src: str, result: MediaResult, encoder: TimedEncoder) -> Iterator[tuple]:
    """Yield time in seconds, stream and frame of PyAV; all frames get the size of the first."""
    painter = None
    for number, (image, time) in enumerate(read_timed(src)):
        painter = painter or Painter(result, *image.shape[1::-1])
        yield time, encoder.stream, encoder.frame(painter.draw(image, number), time)


def _sound(source, stream) -> Iterator[tuple]:
    """Yield time in seconds after the first picture, stream and sound frame of PyAV."""
    import av

    video = source.streams.video[0]
    delay = float((video.start_time or 0) * video.time_base)
    for packet in source.demux(audio=0):
        try:
            frames = packet.decode()
        except av.FFmpegError:  # a broken packet, which players skip as well
            continue
        for frame in frames:
            frame.pts -= round(delay / frame.time_base)
            yield frame.time, stream, frame
