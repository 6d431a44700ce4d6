# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What is drawn on, and beside, a picture of which a prediction is known."""

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ..files.text import printable
from .colors import BLACK, class_labels
from .panel import BACKGROUND, ProbabilityPanel
from .pieces import pieces_by_face
from .plates import Rect, draw_plate, place_plates
from .text import font_size

if TYPE_CHECKING:
    from ..apis.results import MediaResult

SMALLEST, LARGEST = 200, 640  # pixels: sides of a picture that is enlarged, so that text fits on it
FACE = 0.75  # of a square's side: the rest is margin
SUBPIXEL_BITS = 4  # fixed-point bits of OpenCV's drawing coordinates


class Overlay:
    """Draws the records of one input on its frames.

    In each frame: the square of each face that has a record there, a plate with its number, label
    and probability, and, outside of the picture, a strip of bars (:class:`ProbabilityPanel`).
    Where several records cover a frame it is their mean. Sizes follow the picture's.

    Args:
        result (MediaResult): Of the input.
        width (int): Of its frames, in pixels.
        height (int): Of its frames, in pixels.
        even (bool): Whether to add a pixel to odd sides. Defaults to False.

    Attributes:
        zoom (int): By which the picture is enlarged; 1 but for small ones, on which no text
            would fit.
    """

    def __init__(self, result: 'MediaResult', width: int, height: int, even: bool = False) -> None:
        fits = LARGEST // max(width, height)
        self.zoom = max(1, min(math.ceil(SMALLEST / min(width, height)), fits))
        self.width, self.height = width * self.zoom, height * self.zoom
        self.tracks = result.tracks
        self.pieces = pieces_by_face(result.records)
        self.line = max(2, round(0.006 * min(self.width, self.height)))
        self.font_size = font_size(self.width, self.height)
        self.panel = None
        if result.records:
            self.classes = class_labels(result)
            importance = np.sum([list(r.probabilities.values()) for r in result.records], axis=0)
            self.panel = ProbabilityPanel(
                self.classes,
                self.width,
                self.height,
                importance,
                len(self.pieces),
                printable(result.trained_on and f'trained on {result.trained_on}'),
            )
        self._canvas, self._picture, self._panel = self._make_canvas(even)
        self._plates = {}  # by face: number of the piece, and its plates
        self._choices = {}  # by face: which plate, and where, see place_plates
        self._on_panel = []  # faces and their pieces

    def draw(self, frame: np.ndarray, number: int) -> np.ndarray:
        """Draw a frame and what is known of it.

        Args:
            frame (np.ndarray): RGB, uint8, (height, width, 3).
            number (int): Of the frame, from 0.

        Returns:
            np.ndarray: RGB, uint8: the frame at its upper left, and the panel to the right or
            below if there is any record in the input. The next call overwrites it.
        """
        if self.zoom > 1:
            size = self.width, self.height
            frame = cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC)
        self._picture[:] = frame
        found = [(face, pieces.at(number)) for face, pieces in self.pieces.items()]
        found = [(face, piece) for face, piece in found if piece is not None]
        corners = {face: self._corners(face, number) for face, _ in found}
        for face, piece in found:
            if corners[face] is not None:
                best = int(self.pieces[face].scores[piece].argmax())
                self._draw_box(corners[face], self.classes[best].color)
        self._draw_plates(found, corners)
        self._draw_panel(found)
        height, width = self._picture.shape[:2]
        if self.panel is None:  # the last row and column twice, where sides are made even
            self._canvas[height:, :width] = self._picture[-1:]
            self._canvas[:, width:] = self._canvas[:, width - 1 : width]
        return self._canvas

    def _make_canvas(self, even: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """The whole picture, and the parts of it that are the frame and the panel."""
        height, width = self.height, self.width
        if self.panel is not None and self.panel.beside:
            height, width = self.panel.height, width + self.panel.width
        elif self.panel is not None:
            height, width = height + self.panel.height, self.panel.width
        if even:
            height, width = height + height % 2, width + width % 2
        canvas = np.full((height, width, 3), BACKGROUND, np.uint8)
        panel = None
        if self.panel is not None:
            panel = canvas[:, self.width :] if self.panel.beside else canvas[self.height :]
            panel = panel[: self.panel.height, : self.panel.width]
        return canvas, canvas[: self.height, : self.width], panel

    def _draw_panel(self, found: list[tuple[int | None, int]]) -> None:
        if found != self._on_panel:
            faces = [(face, self.pieces[face].scores[piece]) for face, piece in found]
            self._panel[:] = self.panel.draw(faces)
            self._on_panel = found

    def _corners(self, face: int | None, number: int) -> np.ndarray | None:
        """The corners (4, 2) of the square of a face; None where it is not known."""
        track = self.tracks.get(face)
        if track is None or not 0 <= number - track.start_frame < len(track.squares):
            return None
        square = track.squares[number - track.start_frame].tolist()
        cx, cy, side, angle, height = [*square, square[2]][:5]
        if math.isnan(cx):
            return None
        return self.zoom * cv2.boxPoints(((cx, cy), (side, height), math.degrees(angle)))

    def _draw_box(self, corners: np.ndarray, color: tuple) -> None:
        points = np.round((corners - 0.5) * 2**SUBPIXEL_BITS).astype(np.int32)
        rim = self.line + 2 * math.ceil(self.line / 3)
        for shade, thickness in ((BLACK, rim), (color, self.line)):
            cv2.polylines(
                self._picture, [points], True, shade, thickness, cv2.LINE_AA, SUBPIXEL_BITS
            )

    def _make_plates(self, face: int | None, piece: int) -> list[np.ndarray]:
        """The plates to choose from: what a crowd has no room for is left out from the end."""
        if self._plates.get(face, (None, None))[0] != piece:
            scores = self.pieces[face].scores[piece]
            best = int(scores.argmax())
            name, color = self.classes[best]
            texts = [f'{name} {scores[best]:.0%}']
            if face is not None:
                texts = [f'{face}  {texts[0]}', f'{face}  {name}', str(face)]
            plates = [draw_plate(text, self.font_size, color, self.width) for text in texts]
            self._plates[face] = piece, plates
        return self._plates[face][1]

    def _draw_plates(self, found: list[tuple[int | None, int]], corners: dict) -> None:
        plates = [self._make_plates(*face_and_piece) for face_and_piece in found]
        top = 0, round(1.5 * self.font_size), 0, 0  # the upper left corner of the picture
        boxes = [top if (c := corners[f]) is None else _rect(c, 1, self.line) for f, _ in found]
        placed = place_plates(
            [[plate.shape[1::-1] for plate in choices] for choices in plates],
            boxes,
            [_rect(c, FACE) for c in corners.values() if c is not None],
            (self.width, self.height),
            [self._choices.get(face, 0) for face, _ in found],
        )
        for (face, _), choices, (choice, i, x, y) in zip(found, plates, placed):
            self._choices[face] = choice
            height, width = choices[i].shape[:2]
            target = self._picture[y : y + height, x : x + width]
            target[:] = choices[i][: target.shape[0], : target.shape[1]]


def _rect(corners: np.ndarray, share: float, rim: int = 0) -> Rect:
    """What is upright round a square, made smaller by ``share`` and then larger by ``rim``."""
    low, high = corners.min(axis=0), corners.max(axis=0)
    low, high = (low + (high - low) * s for s in ((1 - share) / 2, (1 + share) / 2))
    low = np.floor(low - rim)
    return *low.astype(int).tolist(), *np.ceil(high + rim - low).astype(int).tolist()
