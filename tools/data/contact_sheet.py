# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, step 0 (your own videos): one picture of the clips that need a look.

Each has a row of frames, with the square that was cut.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from clip_files import Source, read_frames
from s4d_mm_alone.faces import square_corners

COLUMNS, CELL, LINE = 6, 144, 20
GREEN, YELLOW, GREY = (0, 220, 0), (255, 200, 0), (90, 90, 90)


def sheet_frames(count: int, jump_at: int = 0) -> list[int]:
    """Which frames of a clip to show: evenly spaced ones, or those round a jump."""
    if jump_at:
        first = max(0, min(jump_at - COLUMNS // 2, count - COLUMNS))
        return list(range(first, min(first + COLUMNS, count)))
    return sorted(set(np.linspace(0, count - 1, COLUMNS).astype(int).tolist()))


def draw_row(source: Source, record: dict) -> np.ndarray:
    """Draw one clip.

    Args:
        source: Where its frames are.
        record: ``path``, ``status``, ``message`` and ``samples``: frame
            number, square or None, and whether the face was detected in it.

    Returns:
        np.ndarray: RGB.
    """
    row = np.full((LINE + CELL, COLUMNS * CELL, 3), 30, np.uint8)
    text = f'{record["status"]}: {record["path"]}'
    if record['message']:
        text += f' ({record["message"]})'
    text = text.encode('ascii', 'replace').decode()
    cv2.putText(
        row, text, (4, LINE - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, cv2.LINE_AA
    )
    samples = {number: rest for number, *rest in record['samples']}
    cells = []
    try:
        for number, frame in enumerate(read_frames(source)):
            if number in samples or not samples:
                cells.append(_cell(frame, number, *samples.get(number, (None, False))))
            if len(cells) == min(COLUMNS, len(samples) or COLUMNS):
                break
    except OSError:  # MediaReadError is one
        pass  # the row says so; what could be read is shown
    for i, cell in enumerate(cells):
        row[LINE:, i * CELL : (i + 1) * CELL] = cell
    if not cells:
        row[LINE:] = GREY
    return row


def _cell(frame: np.ndarray, number: int, square, detected) -> np.ndarray:
    h, w = frame.shape[:2]
    k = (CELL - 4) / max(h, w)
    small = cv2.resize(
        frame, (max(1, round(w * k)), max(1, round(h * k))), interpolation=cv2.INTER_AREA
    )
    if square is not None:
        corners = np.round(square_corners(square) * k).astype(np.int32)
        cv2.polylines(small, [corners], True, GREEN if detected else YELLOW, 2)
    cell = np.full((CELL, CELL, 3), 30, np.uint8)
    cell[2 : 2 + len(small), 2 : 2 + small.shape[1]] = small
    cv2.putText(
        cell,
        str(number + 1),
        (6, CELL - 8),
        cv2.FONT_HERSHEY_SIMPLEX,
        0.4,
        (255, 255, 255),
        1,
        cv2.LINE_AA,
    )
    return cell


def draw_sheet(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows below each other."""
    return np.concatenate(list(rows))
