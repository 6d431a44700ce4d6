# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The page itself, laid out with gradio."""

import os
import os.path as osp
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from html import escape
from typing import TYPE_CHECKING, Optional

from ..apis.results import ExpressionResult
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
"""


class SessionFolders:
    """A folder of results for each open page: gone with the next result, or when it is closed.

    Args:
        root (str): Where the folders are made; gradio must be allowed to show what is there.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._folders = {}

    def renew(self, session: str) -> str:
        """Delete the folder of a session, if there is one, and make an empty one.

        Args:
            session (str): Name of the session.

        Returns:
            str: Path of the folder.
        """
        self.drop(session)
        self._folders[session] = tempfile.mkdtemp(prefix='result_', dir=self.root)
        return self._folders[session]

    def drop(self, session: str) -> None:
        """Delete the folder of a session, if there is one.

        Args:
            session (str): Name of the session.
        """
        folder = self._folders.pop(session, None)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def build(
    inferencer: Callable[..., ExpressionResult], max_seconds: float = 60, max_mb: float = 100
) -> 'gr.Blocks':
    """Lay out the page.

    A file is classified as soon as it is uploaded or recorded, and deleted then; what was made
    of it is deleted with the next file of the same page, when the page is closed, or after an
    hour. One file is worked on at a time, the others wait.

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
    folders = SessionFolders(upload_folder)

    # gradio passes a request to whatever is annotated with one, and needs the type itself
    def show(path: Optional[str], faces: str, request: gr.Request) -> list:
        if path is None:
            return [gr.skip()] * (1 + len(outputs))
        out_dir = folders.renew(request.session_hash)
        try:
            answer = answer_upload(inferencer, path, faces, out_dir, limits)
        finally:
            _delete_upload(path)
        return [None, *_fill(gr, answer)]

    def forget(request: gr.Request) -> None:
        folders.drop(request.session_hash)

    with gr.Blocks(title=TITLE, delete_cache=(60, 3600), analytics_enabled=False) as page:
        gr.Markdown(f'# {TITLE}')
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
                gr.HTML(
                    f'<p class="s4d-note">Up to {max_seconds:g} s and {max_mb:g} MB. The file is '
                    'deleted when the answer is there; what was made of it, when you drop '
                    'another one or close this page.</p>'
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
                table = gr.Dataframe(label='Records', visible=False, elem_id='records')
                with gr.Row():
                    csv = gr.DownloadButton('Records as CSV', visible=False, size='md')
                    json = gr.DownloadButton('Records as JSON', visible=False, size='md')
        outputs = [text, clip, picture, timeline, table, csv, json]
        for part in (file, camera):
            # gradio's own makes another file, of a recording by ffmpeg
            part.preprocess = lambda upload: upload and upload.path
        options = dict(
            concurrency_limit=1,
            concurrency_id='model',
            show_progress_on=text,
            api_visibility='private',
        )
        file.upload(show, [file, faces], [file, *outputs], **options)
        camera.stop_recording(show, [camera, faces], [camera, *outputs], **options)
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


def _delete_upload(path: str) -> None:
    """Delete a file, and the folder that gradio made for it alone."""
    with suppress(OSError):
        os.remove(path)
        os.rmdir(osp.dirname(path))


def _fill(gr, answer: Answer) -> list:
    """New values of the outputs; those without one are hidden."""
    table = dict(headers=answer.columns, data=answer.rows) if answer.rows else None
    values = (
        (gr.Video, answer.clip),
        (gr.Image, answer.picture),
        (gr.Image, answer.timeline),
        (gr.Dataframe, table),
        (gr.DownloadButton, answer.csv),
        (gr.DownloadButton, answer.json),
    )
    return [to_html(answer), *(kind(value=v, visible=v is not None) for kind, v in values)]
