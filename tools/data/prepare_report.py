# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What prepare.py found: a table of all clips, and a picture of those that need a look."""

import csv
import io
import os.path as osp
from itertools import islice

import cv2
import numpy as np
from clip_files import Source, read_frames
from s4d_mm_alone import media
from s4d_mm_alone.files.atomic_write import atomic_path, atomic_write
from s4d_mm_alone.files.text import safe_cell
from s4d_mm_alone.predict.faces import square_corners

STATUSES = ('ok', 'no_face', 'jump', 'missing_frames', 'unreadable')
COLUMNS = ('path', 'frames', 'faces', 'largest_jump', 'missing', 'status', 'message')
SHEET_ROWS, SHEET_OK = 60, 3  # rows of troubled and of good clips
CELLS, CELL, LINE = 6, 144, 20  # frames of a clip; pixels
WHITE, GREEN, YELLOW = (255,) * 3, (0, 220, 0), (255, 200, 0)


def write_report(dst: str, records: list[dict]) -> None:
    text = io.StringIO(newline='')
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows([safe_cell(r[c]) for c in COLUMNS] for r in records)
    # names need not be UTF-8
    atomic_write(osp.join(dst, 'report.csv'), text.getvalue().encode('utf-8', 'replace'))


def write_sheet(dst: str, sources: list[Source], records: list[dict]) -> None:
    """Write contact_sheet.jpg: troubled clips, and some good ones."""
    pairs = sorted(zip(sources, records), key=lambda pair: STATUSES.index(pair[1]['status']))
    good = [pair for pair in pairs if pair[1]['status'] == 'ok']
    rows = [draw_row(*pair) for pair in pairs[len(good) :][:SHEET_ROWS] + good[:SHEET_OK]]
    with atomic_path(osp.join(dst, 'contact_sheet.jpg')) as part:
        media.write_image(part, np.concatenate(rows), '.jpg')


def sheet_frames(count: int, jump_at: int = 0) -> list[int]:
    """Which frames of a clip to show: evenly spaced ones, or those round a jump."""
    if jump_at:
        first = max(0, min(jump_at - CELLS // 2, count - CELLS))
        return list(range(first, min(first + CELLS, count)))
    return sorted(set(np.linspace(0, count - 1, CELLS).astype(int).tolist()))


def draw_row(source: Source, record: dict) -> np.ndarray:
    """A row of frames of a clip with the squares that were cut, by the record's ``samples``."""
    row = np.full((LINE + CELL, CELLS * CELL, 3), 30, np.uint8)
    text = f'{record["status"]}: {record["path"]} ({record["message"]})'
    write(row, text.encode('ascii', 'replace').decode(), (4, LINE - 6))
    samples = {number: rest for number, *rest in record['samples']}
    cells = []
    try:
        frames = enumerate(read_frames(source))
        shown = ((i, frame) for i, frame in frames if i in samples or not samples)
        for i, frame in islice(shown, len(samples) or CELLS):
            cells.append(_cell(frame, i, *samples.get(i, (None, False))))
    except OSError:
        pass  # the row says so; what could be read is shown
    for i, cell in enumerate(cells):
        row[LINE:, i * CELL : (i + 1) * CELL] = cell
    return row


def write(picture: np.ndarray, text: str, place: tuple[int, int]) -> None:
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, WHITE, 1, cv2.LINE_AA)


def _cell(frame: np.ndarray, number: int, square: list | None, detected: bool) -> np.ndarray:
    h, w = frame.shape[:2]
    k = (CELL - 4) / max(h, w)
    size = max(1, round(w * k)), max(1, round(h * k))
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    if square is not None:
        corners = np.round(square_corners(square) * k).astype(np.int32)
        cv2.polylines(small, [corners], True, GREEN if detected else YELLOW, 2)
    cell = np.full((CELL, CELL, 3), 30, np.uint8)
    cell[2 : 2 + len(small), 2 : 2 + small.shape[1]] = small
    write(cell, str(number + 1), (6, CELL - 8))
    return cell
