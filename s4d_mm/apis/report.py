# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What a prediction found, in a few lines for a terminal."""

from collections.abc import Sequence

from ..files.text import printable
from .results import ExpressionRecord, MediaResult, summarise

SHOWN_PARTS = 5  # of a clip whose label changes


def report_lines(result: MediaResult) -> list[str]:
    """Say in one or two lines for each face what one input expresses.

    Args:
        result (MediaResult): What was found in the input.

    Returns:
        list[str]: The lines. The second one of a face says how its label changes, if it does.
    """
    if result.status == 'no_face':
        line = f'no face found in {result.media} (try --faces none if the pictures are cut already)'
        return [printable(line)]
    lines = []
    for summary in summarise(result.records):
        name = result.media if summary.face is None else f'{result.media}  face {summary.face}'
        lines.append('  '.join([name, *_time(summary), *_labels(summary)]))
        parts = label_parts([r for r in result.records if r.face == summary.face])
        if len(parts) > 1:
            shown = ', '.join(f'{label} {a:.1f}-{b:.1f} s' for label, a, b in parts[:SHOWN_PARTS])
            more = len(parts) - SHOWN_PARTS
            lines.append(f'    in turn: {shown}{f", and {more} more" if more > 0 else ""}')
    return [printable(line) for line in lines]


def label_parts(records: Sequence[ExpressionRecord]) -> list[tuple[str, float, float]]:
    """Label, start and end in seconds of each part of a clip that has one label.

    Args:
        records (Sequence[ExpressionRecord]): Of one face, in the order of time.

    Returns:
        list[tuple[str, float, float]]: A part ends where the next one starts, also where windows
        overlap. Empty for an image.
    """
    parts = []
    for record in records:
        if record.start is None:
            continue
        if parts and parts[-1][0] == record.label:
            parts[-1][2] = record.end
            continue
        if parts:
            parts[-1][2] = min(parts[-1][2], record.start)
        parts.append([record.label, record.start, record.end])
    return [tuple(part) for part in parts]


def _time(record: ExpressionRecord) -> list[str]:
    return [] if record.start is None else [f'{record.start:.1f}-{record.end:.1f} s']


def _labels(record: ExpressionRecord) -> list[str]:
    ranked = sorted(record.probabilities.items(), key=lambda item: -item[1])
    texts = [f'{name} {100 * share:.0f} %' for name, share in ranked[:2]]
    return [texts[0], *(f'(then {text})' for text in texts[1:])]
