# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""A local web page: drop a video or an image, see which expression each face has.

gradio (``pip install s4d_mm[demo]``) is imported in functions only.
"""

import os
import os.path as osp
import shutil
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from html import escape
from typing import Any

from ..media import is_picture, video_info
from .results import BOX, ExpressionResult

TITLE = 'Which expression has this face?'
FACES = [
    ('every face', 'auto'),
    ('the largest face', 'largest'),
    ('the picture is one face, cut out already', 'none'),
]
WAITING = '<p class="s4d-note">Drop a video or an image, or record a clip.</p>'
CSS = """
.s4d-face { font-size: 1.3rem; margin: .2rem 0; }
.s4d-note { opacity: .75; }
.s4d-problem { border-left: .3rem solid #c00; background: #c001; padding: .6rem .8rem; }
#records { overflow: auto; max-height: 24rem; }
#records :is(td, th) { padding: .2rem .6rem; text-align: left; white-space: nowrap; }
"""
LOCAL = ('127.0.0.1', 'localhost', '::1')
# The browser takes nothing from another server, whatever gradio's page asks for.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "frame-ancestors 'self'; form-action 'self'; base-uri 'self'"
)
Inferencer = Callable[..., ExpressionResult]


def answer_upload(
    inferencer: Inferencer, path: str, faces: str, out_dir: str, max_seconds: float = 60
) -> tuple[str, ExpressionResult]:
    """Classify the faces in an uploaded file.

    Of a video that does not say its length, 60 frames for each of ``max_seconds`` are read.

    Returns:
        tuple: HTML, and what was found. An error is a sentence in the HTML; one that no user can
        cause is also printed with its traceback.
    """
    try:
        if not is_picture(path) and (video_info(path).duration or 0) > max_seconds:
            raise ValueError(
                f'{osp.basename(path)} is longer than the {max_seconds:g} s that this page takes: '
                'cut it, or use "s4d predict".'
            )
        most = round(60 * max_seconds)
        result = inferencer(path, faces=faces, out_dir=out_dir, max_frames=most)
    except Exception as e:  # the page must go on
        result, problem = ExpressionResult(), str(e)
        if not isinstance(e, (OSError, ValueError)):
            traceback.print_exc()
            problem = f'This failed ({type(e).__name__}: {e}); the terminal says more.'
        lines = [('problem" role="alert', problem)]
    else:
        (media,) = result.media
        lines = [('face' if result else 'problem" role="alert', line) for line in media.report()]
        seen = f'The model was trained on: {media.trained_on}'
        lines += [('note', media.message), ('note', seen)]
    folder = osp.dirname(path) + os.sep
    html = (f'<p class="s4d-{kind}">{escape(text.replace(folder, ""))}</p>' for kind, text in lines)
    return ''.join(html), result


def build(inferencer: Inferencer, max_seconds: float = 60, max_mb: float = 100) -> Any:
    """Lay out the page.

    A file is classified as soon as it is uploaded or recorded. It and what was made of it are
    deleted with the next file of the same page, when it is removed there, when the page is closed,
    or after an hour. One file is worked on at a time, the others wait.

    Args:
        inferencer (callable): An ``ExpressionInferencer``.
        max_seconds (float): Length of the longest video. Defaults to 60.
        max_mb (float): Size of the largest file in millions of bytes, for the text; the server's
            ``max_file_size`` sets it. Defaults to 100.
    """
    import gradio as gr

    folder = gr.utils.get_upload_folder()
    name = osp.splitext(osp.basename(inferencer.scorer.name))[0]
    model = escape(f'{name}, trained on: {inferencer.scorer.trained_on}')
    held = {}  # session -> its upload, folder of its results

    def forget(request: gr.Request, keep: str = '') -> None:
        upload, results = held.pop(request.session_hash, ('', ''))
        shutil.rmtree(results, ignore_errors=True)
        # gradio keeps one copy of what several visitors upload
        if upload not in (keep, *(path for path, _ in held.values())):
            with suppress(OSError):
                os.remove(upload)
                os.rmdir(osp.dirname(upload))

    def show(path: str | None, faces: str, request: gr.Request) -> list:
        if path is None:
            return [gr.skip()] * len(outputs)
        forget(request, path)
        results = tempfile.mkdtemp(prefix='result_', dir=folder)
        held[request.session_hash] = path, results
        return fill(*answer_upload(inferencer, path, faces, results, max_seconds))

    def fill(text: str, result: ExpressionResult) -> list:
        hidden = ['media', 'start_frame', 'end_frame', *BOX]
        table = result.to_frame().drop(columns=hidden).dropna(axis=1, how='all').round(2)
        values = [table.to_html(index=False, na_rep='', border=0) if result else None]
        for ending in ('.mp4', '.png', '.csv', '.json'):
            values.append(next((p for p in result.files if p.endswith(ending)), None))
        shown = [kind(value=v, visible=v is not None) for kind, v in zip(kinds, values)]
        return [text, *shown]

    def clear(request: gr.Request) -> list:
        forget(request)
        return fill(WAITING, ExpressionResult())

    with gr.Blocks(title=TITLE, delete_cache=(60, 3600), analytics_enabled=False) as page:
        gr.Markdown(f'# {TITLE}')
        gr.HTML(f'<p class="s4d-note" id="model">Model: {model}</p>', padding=False)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                faces = gr.Radio(FACES, value='auto', label='Look at')
                with gr.Tab('File'):
                    file = gr.File(label='Video or image', elem_id='file', height=200)
                with gr.Tab('Camera'):
                    camera = gr.Video(sources=['webcam'], label='Record a clip', elem_id='camera')
                gr.HTML(
                    f'<p class="s4d-note">Up to {max_seconds:g} s and {max_mb:g} MB. The file and '
                    'what was made of it are deleted when you remove it, drop another one or '
                    'close this page.</p>'
                )
            with gr.Column(scale=3, min_width=400):
                text = gr.HTML(WAITING, elem_id='answer')
                # not gradio's button that shares with another server
                hidden = dict(visible=False, show_label=False, buttons=['download'])
                clip, picture = gr.Video(**hidden), gr.Image(**hidden, elem_id='picture')
        table = gr.HTML(visible=False, elem_id='records')
        with gr.Row():
            csv = gr.DownloadButton('Records as CSV', visible=False, size='md')
            json = gr.DownloadButton('Records as JSON', visible=False, size='md')
        outputs = [text, table, clip, picture, csv, json]
        kinds = [type(part) for part in outputs[1:]]
        options = dict(concurrency_limit=1, concurrency_id='model', api_visibility='private')
        for part, event in ((file, file.upload), (camera, camera.stop_recording)):
            # gradio's own makes another file, of a recording by ffmpeg
            part.preprocess = lambda upload: upload and upload.path
            event(show, [part, faces], outputs, show_progress_on=text, **options)
            part.clear(clear, None, outputs, queue=False, api_visibility='private')
        page.unload(forget)
    return page.queue(max_size=16)


def serve(inferencer: Inferencer, host: str, port: int, max_seconds: float, max_mb: float) -> None:
    """Serve the page until the process gets SIGINT (Ctrl-C) or SIGTERM, in the main thread.

    All files of the page are in one temporary folder, which is deleted then. Nothing is asked
    of other machines: no analytics, no share link, no fonts.

    Args:
        inferencer (callable): An ``ExpressionInferencer``.
        host (str): Address to listen on; all but this machine's own get a warning.
        port (int): Port to listen on.
        max_seconds (float): Length of the longest video.
        max_mb (float): Size of the largest file, in millions of bytes.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with tempfile.TemporaryDirectory(prefix='s4d_demo_') as folder:
        # before gradio is imported, which reads them then
        os.environ.update(
            GRADIO_TEMP_DIR=folder, GRADIO_ANALYTICS_ENABLED='False', HF_HUB_DISABLE_TELEMETRY='1'
        )
        # gradio calls its own server at the start, which no proxy would find
        for name in ('no_proxy', 'NO_PROXY'):
            os.environ[name] = ','.join(filter(None, (os.environ.get(name), *LOCAL)))
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware

        # a page from elsewhere, whose name was made to mean this address, could read the answers
        hosts = [*LOCAL, '[::1]'] if host in LOCAL else ['*']
        middleware = [Middleware(TrustedHostMiddleware, allowed_hosts=hosts), Middleware(_policy)]
        page = build(inferencer, max_seconds, max_mb)
        page.launch(
            server_name=host,
            server_port=port,
            share=False,
            ssr_mode=False,
            enable_monitoring=False,
            run_history=False,
            footer_links=[],
            quiet=True,
            prevent_thread_lock=True,
            max_file_size=int(max_mb * 1e6),
            app_kwargs=dict(middleware=middleware, openapi_url=None),
            css=CSS,
        )
        if host not in LOCAL:
            print('Warning: others can use this page; it has no password.', file=sys.stderr)
        print(f'http://{host}:{port}   (Ctrl-C ends it)', flush=True)
        stop.wait()
        page.close(verbose=False)


def _policy(app: Callable) -> Callable:
    """ASGI middleware that sends :data:`POLICY` with every answer."""

    async def answer(scope: dict, receive: Callable, send: Callable) -> None:
        async def send_with_policy(message: dict) -> None:
            if message['type'] == 'http.response.start':
                policy = (b'content-security-policy', POLICY.encode())
                message = dict(message, headers=[*message.get('headers', ()), policy])
            await send(message)

        await app(scope, receive, send_with_policy)

    return answer
