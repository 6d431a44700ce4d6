# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""From the faces of each frame to tracks: which face is which, and where it is in every frame."""

from collections.abc import Sequence

import numpy as np

from .boxes import Face, pair_faces
from .settings import FaceSettings
from .squares import face_square

PATIENCE = 12  # frames that a face may be out of sight before its track ends


class Track:
    """One face from its first sighting to its last.

    Gaps between sightings are filled in a straight line. The square is then averaged over
    ``settings.smooth`` frames, near the ends of the track over fewer, but as many before as
    after, so that even motion is kept.

    Args:
        frame (int): Number of the first frame.
        face (Face): The first sighting.
        settings (FaceSettings): Margin, align and smooth are used.

    Attributes:
        first (int): Number of the first frame.
        last (int): Number of the frame of the last sighting.
        face (Face): The last sighting.
        sightings (int): In how many frames it was seen.
        ended (bool): Whether no sighting will follow.
        number (int | None): Number of the face, once it counts and was given out.
    """

    def __init__(self, frame: int, face: Face, settings: FaceSettings) -> None:
        self.settings = settings
        self.first, self.last, self.face = frame, frame, face
        self.sightings, self.ended = 1, False
        self.number: int | None = None
        self._half = settings.smooth // 2
        self._square = self._square_of(face, 0.0)  # the last one
        self._squares = {frame: self._square}  # those that are still needed
        self._seen = {frame}

    def _square_of(self, face: Face, last_angle: float) -> np.ndarray:
        return face_square(
            face, self.settings.margin, self.settings.align, last_angle, self.settings.stretch
        )

    def see(self, frame: int, face: Face) -> None:
        """Add a sighting, and fill the gap before it."""
        before = self._square
        after = self._square_of(face, before[3])
        gap = frame - self.last
        for i in range(1, gap):
            self._squares[self.last + i] = before + (after - before) * (i / gap)
        self._squares[frame] = self._square = after
        self._seen.add(frame)
        self.last, self.face = frame, face
        self.sightings += 1

    def is_known(self, frame: int) -> bool:
        """Whether later frames change nothing in this one."""
        return self.ended or frame < self.first or frame + self._half <= self.last

    def covers(self, frame: int) -> bool:
        """Whether the frame lies between first and last sighting."""
        return self.first <= frame <= self.last

    def take(self, frame: int) -> tuple[np.ndarray, bool]:
        """The square of a frame that is known; frames are taken in order.

        Returns:
            tuple[np.ndarray, bool]: Square, and whether the face was seen in this frame.
        """
        half = min(frame - self.first, self.last - frame, self._half)
        around = [self._squares[i] for i in range(frame - half, frame + half + 1)]
        self._squares.pop(frame - self._half, None)  # no later frame needs it
        seen = frame in self._seen
        self._seen.discard(frame)
        return np.mean(around, axis=0), seen


class Tracker:
    """Follows all faces of a clip.

    The faces of a frame are paired with the last sightings of the tracks, the pair that overlaps
    most first (:func:`pair_faces`). A face that is left over begins a track. A track that was not
    seen in ``PATIENCE`` frames and not in the next one either ended at its last sighting. One
    with too few sightings in its first ``PATIENCE + 1`` frames was none.

    Args:
        settings (FaceSettings): All but the detector's are used.

    Attributes:
        tracks (list[Track]): Those that are not over yet.
    """

    def __init__(self, settings: FaceSettings) -> None:
        self.settings = settings
        self.tracks: list[Track] = []
        self._numbers = 0

    def update(self, frame: int, faces: Sequence[Face]) -> None:
        """Take in the faces of the next frame.

        Args:
            frame (int): Its number; one more than the last one.
            faces (Sequence[Face]): Its faces.
        """
        alive = [t for t in self.tracks if not t.ended]
        pairs = pair_faces([t.face for t in alive], faces, self.settings.max_jump)
        for i, j in pairs:
            alive[i].see(frame, faces[j])
        taken = {j for _, j in pairs}
        for j, face in enumerate(faces):
            if j not in taken:
                self.tracks.append(Track(frame, face, self.settings))
        for track in alive:
            if frame - track.last > PATIENCE:
                track.ended = True
        needed = self.settings.min_sightings
        self._drop(lambda t: t.sightings < needed and (t.ended or frame - t.first >= PATIENCE))

    def finish(self, count: int) -> None:
        """All frames were taken in.

        Args:
            count (int): Number of frames.
        """
        for track in self.tracks:
            track.ended = True
        needed = min(self.settings.min_sightings, count)
        self._drop(lambda t: t.sightings < needed)

    def _drop(self, is_over) -> None:
        self.tracks = [t for t in self.tracks if not is_over(t)]

    def is_known(self, frame: int) -> bool:
        """Whether later frames change nothing in this one."""
        needed = self.settings.min_sightings
        return all(
            t.is_known(frame) and (t.ended or frame < t.first or t.sightings >= needed)
            for t in self.tracks
        )

    def take(self, frame: int) -> list[tuple[int, np.ndarray, bool]]:
        """The faces of a frame that is known; frames are taken in order.

        Returns:
            list[tuple]: Number of the face, square, and whether it was seen; by number.
        """
        self._drop(lambda t: t.ended and t.last < frame)
        placed = [(t, *t.take(frame)) for t in self.tracks if t.covers(frame)]
        new = [(track, square) for track, square, _ in placed if track.number is None]
        for track, _ in sorted(new, key=lambda x: -x[1][2]):  # of several, the largest first
            self._numbers += 1
            track.number = self._numbers
        return sorted(((t.number, square, seen) for t, square, seen in placed), key=lambda x: x[0])
