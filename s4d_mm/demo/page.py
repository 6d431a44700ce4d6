# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The page itself, laid out with gradio."""

import os
import os.path as osp
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from html import escape
from typing import TYPE_CHECKING

from ..apis.results import ExpressionResult
from ..media import read_image, write_mp4
from .answer import Answer, Limits, answer_upload

if TYPE_CHECKING:
    import gradio as gr

TITLE = 'Which expression has this face?'
FACES = [
    ('every face', 'auto'),
    ('the largest face', 'largest'),
    ('the picture is one face, cut out already', 'none'),
]
WAITING = Answer(note='Drop a video or an image, or record a clip.')
CSS = """
.s4d-face { font-size: 1.15rem; margin: .2rem 0; }
.s4d-face b { font-size: 1.5rem; }
.s4d-face span, .s4d-note { opacity: .75; }
.s4d-problem { border-left: .3rem solid #c00; background: #c001; padding: .6rem .8rem; }
.s4d-table { overflow: auto; max-height: 24rem; font-variant-numeric: tabular-nums; }
.s4d-table :is(td, th) { padding: .2rem .6rem; text-align: left; white-space: nowrap; }
.toast-wrap { right: auto !important; left: 1rem; }
"""
EXAMPLE = 'grace_hopper.jpg'  # in the public domain; comes with matplotlib


class SessionFiles:
    """What each open page has: its uploads, and a folder of results for the last one.

    gradio keeps one copy of what several visitors upload: it is deleted when none has it.

    Args:
        root (str): Where the folders are made; gradio must be allowed to show what is there.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._folders, self._uploads = {}, {}  # by session

    def take(self, session: str, upload: str) -> None:
        """Note that a session has an upload."""
        self._uploads[session] = [*self._uploads.get(session, ()), upload]

    def renew(self, session: str, upload: str | None = None) -> str:
        """Make an empty folder for a session; delete the one before and the uploads before this."""
        uploads = self._uploads.get(session, [])
        self.drop(session, keep=uploads[uploads.index(upload) :] if upload in uploads else ())
        self._folders[session] = tempfile.mkdtemp(prefix='result_', dir=self.root)
        return self._folders[session]

    def drop(self, session: str, keep: Sequence[str] = ()) -> None:
        """Delete what a session has, but for the uploads to keep."""
        shutil.rmtree(self._folders.pop(session, ''), ignore_errors=True)
        gone = self._uploads.pop(session, ())
        if keep:
            self._uploads[session] = list(keep)
        used = {path for paths in list(self._uploads.values()) for path in paths}
        for path in {*gone} - used:
            with suppress(OSError):
                os.remove(path)
                os.rmdir(osp.dirname(path))


def build(
    inferencer: Callable[..., ExpressionResult], max_seconds: float = 60, max_mb: float = 100
) -> 'gr.Blocks':
    """Lay out the page.

    A file is classified as soon as it is uploaded or recorded. It and what was made of it are
    deleted with the next file of the same page, when it is removed there, when the page is closed,
    or after an hour. One file is worked on at a time, the others wait.

    Args:
        inferencer (callable): An ``ExpressionInferencer``.
        max_seconds (float): Length of the longest video. Defaults to 60.
        max_mb (float): Size of the largest file, in millions of bytes. Defaults to 100.

    Returns:
        gr.Blocks: To be launched, see :func:`s4d_mm.demo.serve`. Its ``css`` is ``CSS`` of this
        module.
    """
    import gradio as gr

    limits = Limits(max_seconds, max_mb)
    upload_folder = gr.utils.get_upload_folder()
    files = SessionFiles(upload_folder)
    example = example_file(inferencer.scorer.classes, upload_folder)
    model = osp.splitext(osp.basename(inferencer.scorer.name))[0]

    # gradio passes a request to whatever is annotated with one, and needs the type itself
    def show(path: str | None, faces: str, request: gr.Request) -> list:
        if path is None:
            return [gr.skip()] * len(outputs)
        out_dir = files.renew(request.session_hash, path)
        return _fill(gr, answer_upload(inferencer, path, faces, out_dir, limits))

    def show_example(faces: str, request: gr.Request) -> list:
        return [None, *show(example, faces, request)]

    def take(path: str | None, request: gr.Request) -> None:
        if path is not None:
            files.take(request.session_hash, path)

    def forget(request: gr.Request) -> None:
        files.drop(request.session_hash)

    def clear(request: gr.Request) -> list:
        forget(request)
        return _fill(gr, WAITING)

    with gr.Blocks(title=TITLE, delete_cache=(60, 3600), analytics_enabled=False) as page:
        gr.Markdown(f'# {TITLE}')
        gr.HTML(f'<p class="s4d-note" id="model">Model: {escape(model)}</p>', padding=False)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                faces = gr.Radio(FACES, value='auto', label='Look at')
                with gr.Tab('File'):
                    file = gr.File(label='Video or image', elem_id='file', height=200)
                with gr.Tab('Camera'):
                    camera = gr.Video(
                        sources=['webcam'],
                        label='Record a clip',
                        include_audio=False,
                        webcam_options=gr.WebcamOptions(mirror=False),
                        elem_id='camera',
                    )
                problem = gr.HTML(elem_id='problem')
                button = gr.Button('Try an example', elem_id='example', visible=bool(example))
                gr.HTML(
                    f'<p class="s4d-note">Up to {max_seconds:g} s and {max_mb:g} MB. The file and '
                    'what was made of it are deleted when you remove it, drop another one or '
                    'close this page.</p>'
                )
            with gr.Column(scale=3, min_width=400):
                text = gr.HTML(to_html(WAITING), elem_id='answer')
                clip = gr.Video(
                    label='Annotated video', show_label=False, visible=False, buttons=['download']
                )
                picture = gr.Image(
                    label='Annotated image',
                    show_label=False,
                    visible=False,
                    buttons=['download', 'fullscreen'],
                    elem_id='picture',
                )
                timeline = gr.Image(
                    label='Over time',
                    show_label=False,
                    visible=False,
                    buttons=['download', 'fullscreen'],
                    elem_id='timeline',
                )
        table = gr.HTML(visible=False, elem_id='records')
        with gr.Row():
            csv = gr.DownloadButton('Records as CSV', visible=False, size='md')
            json = gr.DownloadButton('Records as JSON', visible=False, size='md')
        outputs = [problem, text, clip, picture, timeline, table, csv, json]
        for part in (file, camera):
            # gradio's own makes another file, of a recording by ffmpeg
            part.preprocess = lambda upload: upload and upload.path
        options = dict(
            concurrency_limit=1,
            concurrency_id='model',
            show_progress_on=text,
            api_visibility='private',
        )
        # taken at once, also where it waits: another visitor may delete the same file
        at_once = dict(queue=False, api_visibility='private')
        for part, event in ((file, file.upload), (camera, camera.stop_recording)):
            event(take, part, None, **at_once)
            event(show, [part, faces], outputs, trigger_mode='always_last', **options)
            part.clear(clear, None, outputs, **at_once)
        button.click(show_example, faces, [file, *outputs], **options)
        page.unload(forget)
    return page.queue(max_size=16)


def to_html(answer: Answer) -> str:
    """The labels of an answer and what is worth knowing, as HTML.

    Args:
        answer (Answer): The answer.

    Returns:
        str: A paragraph for each face, then the note, and what the model has seen.
    """
    lines = [
        f'<p class="s4d-face">{escape(name)} <b>{escape(label)}</b> <span>{escape(rest)}</span></p>'
        for name, label, rest in answer.faces
    ]
    trained = answer.trained_on and f'The model was trained on: {answer.trained_on}'
    lines += [f'<p class="s4d-note">{escape(text)}</p>' for text in (answer.note, trained) if text]
    return f'<div class="s4d-answer">{"".join(lines)}</div>'


def table_html(answer: Answer) -> str | None:
    """The records of an answer as a table, or None if there are none."""
    if not answer.rows:
        return None
    rows = (('th', answer.columns), *(('td', row) for row in answer.rows))
    lines = (
        ''.join(f'<{tag}>{"" if v is None else escape(str(v))}</{tag}>' for v in row)
        for tag, row in rows
    )
    return f'<div class="s4d-table"><table><tr>{"</tr><tr>".join(lines)}</tr></table></div>'


def example_file(classes: Iterable[str], folder: str) -> str | None:
    """A photo with a face, or a clip of it for a model of videos; None if it is not installed."""
    from matplotlib.cbook import get_sample_data

    path = get_sample_data(EXAMPLE, asfileobj=False)
    if not osp.isfile(path) or 'image' in classes:
        return str(path) if osp.isfile(path) else None
    os.makedirs(folder, exist_ok=True)
    clip = osp.join(folder, 'example.mp4')
    write_mp4(clip, [read_image(str(path))] * 50)
    return clip


def _fill(gr, answer: Answer) -> list:
    """New values of the outputs; those without one are hidden."""
    problem = ''
    if answer is not WAITING and not answer.faces:
        problem = f'<p class="s4d-problem" role="alert">{escape(answer.note)}</p>'
        answer = Answer()
    values = (
        (gr.Video, answer.clip),
        (gr.Image, answer.picture),
        (gr.Image, answer.timeline),
        (gr.HTML, table_html(answer)),
        (gr.DownloadButton, answer.csv),
        (gr.DownloadButton, answer.json),
    )
    return [problem, to_html(answer), *(kind(value=v, visible=v is not None) for kind, v in values)]
