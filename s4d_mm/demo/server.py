# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Serves the page to this machine, and leaves nothing behind."""

import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from importlib.util import find_spec
from ipaddress import ip_address
from urllib.parse import urlsplit

from ..apis.results import ExpressionResult

# The browser takes nothing from another server, whatever gradio's page asks for.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "frame-ancestors 'self'; form-action 'self'; base-uri 'self'"
)
LOCAL = ('127.0.0.1', 'localhost', '::1')


def check_gradio() -> None:
    """Raise an error that says what to do where gradio is not installed.

    Raises:
        ImportError: If it is not.
    """
    if find_spec('gradio') is None:
        raise ImportError('The page needs gradio: pip install "s4d_mm[demo]".')


def serve(
    inferencer: Callable[..., ExpressionResult],
    host: str = '127.0.0.1',
    port: int = 7860,
    max_seconds: float = 60,
    max_mb: float = 100,
) -> None:
    """Serve the page until the process gets SIGINT (Ctrl-C) or SIGTERM.

    All files of the page are in one temporary folder, which is deleted then. Nothing is asked
    of other machines: no analytics, no share link, no fonts. To be called in the main thread.

    Args:
        inferencer (callable): An ``ExpressionInferencer``.
        host (str): Address to listen on; 127.0.0.1 is reached from this machine only, and
            another one gets a warning. Defaults to '127.0.0.1'.
        port (int): Port to listen on. Defaults to 7860.
        max_seconds (float): Length of the longest video. Defaults to 60.
        max_mb (float): Size of the largest file, in millions of bytes. Defaults to 100.

    Raises:
        ImportError: If gradio is not there.
        OSError: If the port cannot be used.
    """
    check_gradio()
    _check_port(host, port)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    folder = tempfile.mkdtemp(prefix='s4d_demo_')
    try:
        page = _launch(inferencer, host, port, max_seconds, max_mb, folder)
        if host not in LOCAL:
            print(
                f'Warning: whoever reaches port {port} of {host} can use this page: there is no '
                'password, and no encryption.',
                file=sys.stderr,
            )
        address = f'[{host}]' if ':' in host else host
        print(f'http://{address}:{port}   (Ctrl-C ends it)', flush=True)
        stop.wait()
        page.close(verbose=False)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _launch(inferencer, host, port, max_seconds, max_mb, folder):
    # before gradio is imported, which reads them then
    os.environ.update(
        GRADIO_TEMP_DIR=folder, GRADIO_ANALYTICS_ENABLED='False', HF_HUB_DISABLE_TELEMETRY='1'
    )
    # gradio calls its own server at the start, which no proxy would find
    for name in ('no_proxy', 'NO_PROXY'):
        os.environ[name] = ','.join(filter(None, (os.environ.get(name), *LOCAL)))
    from starlette.middleware import Middleware

    from .page import CSS, build

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
        app_kwargs=dict(middleware=[Middleware(_Policy, host=host)], openapi_url=None),
        css=CSS,
    )
    return page


class _Policy:
    """ASGI middleware that sends :data:`POLICY` with every answer.

    It refuses a ``Host`` that is not this machine: a page from elsewhere, whose name was made to
    mean this address, could read what the browser gets here. An address needs no name.
    """

    def __init__(self, app, host: str) -> None:
        self.app, self.local = app, host in LOCAL
        own = socket.gethostname()
        names = () if self.local else (host, own, f'{own}.local', socket.getfqdn())
        self.names = {*LOCAL, *(name.lower() for name in names)}

    def knows(self, header: str) -> bool:
        """Whether a ``Host`` header names this machine."""
        try:
            name = urlsplit(f'//{header}').hostname or ''
            return name in self.names or not self.local and bool(ip_address(name))
        except ValueError:
            return False

    async def __call__(self, scope, receive, send) -> None:
        host = dict(scope.get('headers', ())).get(b'host', b'').decode('latin-1')
        if scope['type'] in ('http', 'websocket') and not self.knows(host):
            from starlette.responses import PlainTextResponse

            refusal = PlainTextResponse('This page is not served under that name.', 400)
            return await refusal(scope, receive, send)

        async def send_with_policy(message) -> None:
            if message['type'] == 'http.response.start':
                policy = (b'content-security-policy', POLICY.encode())
                message = dict(message, headers=[*message.get('headers', ()), policy])
            await send(message)

        await self.app(scope, receive, send_with_policy)


def _check_port(host: str, port: int) -> None:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(address)
    except OSError as e:
        raise OSError(
            f'Port {port} of {host} cannot be used ({e.strerror or e}); is the page running '
            'already? Name another one with --port.'
        ) from e
