# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""From one uploaded file to what the page shows of it."""

import os
import os.path as osp
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from ..apis.results import BOX, COLUMNS, ExpressionRecord, ExpressionResult, table_rows
from ..media import MediaReadError, is_picture

HIDDEN = ('media', 'start_frame', 'end_frame', *BOX)  # columns that the page leaves out


class Limits(NamedTuple):
    """What the page takes.

    Attributes:
        seconds (float): Length of the longest video.
        mb (float): Size of the largest file, in millions of bytes.
    """

    seconds: float = 60
    mb: float = 100


@dataclass
class Answer:
    """What the page shows of one file.

    Attributes:
        faces (list[tuple[str, str, str]]): For each face its name, the label, and its share
            and time.
        note (str): What was wrong, or is worth knowing; '' if nothing.
        trained_on (str): What the model has seen.
        clip (str | None): The annotated video.
        picture (str | None): The annotated image.
        timeline (str | None): Picture of the probabilities over time.
        columns (list[str]): Head of the table of records.
        rows (list[list]): Its rows.
        csv (str | None): The records as a file, for keeping.
        json (str | None): The same, with what was found in the file.
    """

    faces: list[tuple[str, str, str]] = field(default_factory=list)
    note: str = ''
    trained_on: str = ''
    clip: str | None = None
    picture: str | None = None
    timeline: str | None = None
    columns: list[str] = field(default_factory=list)
    rows: list[list] = field(default_factory=list)
    csv: str | None = None
    json: str | None = None


def answer_upload(
    inferencer: Callable[..., ExpressionResult],
    path: str,
    faces: str,
    out_dir: str,
    limits: Limits,
) -> Answer:
    """Classify the faces in an uploaded file.

    Args:
        inferencer (callable): An ``ExpressionInferencer``.
        path (str): The video or image.
        faces (str): 'auto', 'largest' or 'none'.
        out_dir (str): An empty folder for what is made.
        limits (Limits): Anything beyond them is refused before it is decoded.

    Returns:
        Answer: Errors are a sentence in its ``note``; those that no user can cause are also
        printed with their traceback.
    """
    try:
        check_limits(path, limits)
        result = inferencer(path, faces=faces, out_dir=out_dir)
    except (OSError, ValueError) as e:
        return Answer(note=_without_folder(str(e), path))
    except Exception as e:  # the page must go on
        traceback.print_exc()
        return Answer(note=f'This failed ({type(e).__name__}: {e}); the terminal says more.')
    media = result.media[0]
    note = _without_folder(media.message, path)
    if not result:
        note = note or 'no face was found'
        name = osp.basename(path)
        return Answer(note=note if name in note else f'{name}: {note}')
    columns, rows = _table(result)
    return Answer(
        faces=[_describe(record) for record in result.summary()],
        note=note,
        trained_on=media.trained_on,
        columns=columns,
        rows=rows,
        **_made_files(out_dir, media.kind),
    )


def check_limits(path: str, limits: Limits) -> None:
    """Refuse a file that is too large, or a video that is too long.

    Nothing is decoded: the length of a video is taken from the time stamps of its packets,
    since the one that the file declares may be missing (a browser's recording) or wrong.

    Args:
        path (str): The file.
        limits (Limits): The limits.

    Raises:
        ValueError: If it is beyond them, or no file.
        MediaReadError: If it is neither an image by its name nor a video.
    """
    name = osp.basename(path)
    if not osp.isfile(path):
        raise ValueError(f'{name} is no file, or was deleted; drop it again.')
    megabytes = osp.getsize(path) / 1e6
    if megabytes > limits.mb:
        raise ValueError(
            f'{name} has {megabytes:.1f} MB, but this page takes {limits.mb:g} MB at most; '
            'see --max-mb.'
        )
    if not is_picture(path) and exceeds(path, limits.seconds):
        raise ValueError(
            f'{name} is longer than the {limits.seconds:g} s that this page takes; cut it, start '
            'the page with another --max-seconds, or use "s4d predict", which has no limit.'
        )


def exceeds(path: str, seconds: float) -> bool:
    """Whether a video is longer than some seconds, by the time stamps of its packets.

    Args:
        path (str): The video.
        seconds (float): The length to compare it with.

    Returns:
        bool: Whether it is; reading stops there.

    Raises:
        MediaReadError: If the file cannot be opened, or has no video stream.
    """
    import av

    try:
        with av.open(path) as container:
            if not container.streams.video:
                raise MediaReadError(f'{path} has no video stream.')
            stream = container.streams.video[0]
            rate = stream.average_rate or 25  # where packets have no time stamps
            first, count = None, 0
            for packet in container.demux(stream):
                if not packet.size:  # the one that ends the stream
                    continue
                stamp = packet.dts if packet.pts is None else packet.pts
                now = float(count / rate if stamp is None else stamp * packet.time_base)
                first, count = now if first is None else first, count + 1
                if now - first > seconds:
                    return True
    except (av.FFmpegError, ValueError) as e:
        raise MediaReadError(f'{path} cannot be read as a video or an image.') from e
    return False


def _without_folder(text: str, path: str) -> str:
    """A message without the folder of the upload, which tells the user nothing."""
    return text.replace(osp.dirname(path) + os.sep, '')


def _describe(record: ExpressionRecord) -> tuple[str, str, str]:
    share = f'{100 * record.probabilities[record.label]:.0f} %'
    if record.start is not None:
        share += f', {record.start:.1f} to {record.end:.1f} s'
    return ('' if record.face is None else f'Face {record.face}:', record.label, share)


def _table(result: ExpressionResult) -> tuple[list[str], list[list]]:
    columns = [*COLUMNS, *result.classes]
    shown = [i for i, name in enumerate(columns) if name not in HIDDEN]
    rows = []
    for row in table_rows(result, result.classes):
        values = (row[i] for i in shown)
        rows.append([round(v, 2) if isinstance(v, float) else v for v in values])
    return [columns[i] for i in shown], rows


def _made_files(folder: str, kind: str) -> dict:
    """The files that the inferencer made, by the fields of :class:`Answer`."""
    paths = [osp.join(folder, name) for name in sorted(os.listdir(folder), key=len)]

    def first(suffix: str, but: str | None = None) -> str | None:
        return next((p for p in paths if p.endswith(suffix) and p != but), None)

    # the shortest is the image's, whose own name may end like a timeline's
    picture = first('.png') if kind == 'image' else None
    return dict(
        clip=first('.mp4'),
        picture=picture,
        timeline=first('_timeline.png', but=picture),
        csv=first('.csv'),
        json=first('.json'),
    )
