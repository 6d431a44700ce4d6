# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""A web server of files on this machine, for tests of downloads."""

import io
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch


def saved(content) -> bytes:
    """A file of torch."""
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def kept(folder) -> list:
    """Names of the files in the caches of a folder, but for locks and notes of their origin."""
    found = [p for name in ('torch', 'hub') for p in (folder / name).rglob('*')]
    notes = ('.lock', '.address', '.TAG')
    return [p.name for p in found if p.is_file() and p.suffix not in notes and p.name != 'main']


class FileServer:
    """Serves bytes by path, such as '/a/x.pth', in a thread, between ``with`` and its end."""

    def __init__(self) -> None:
        self.files, self.asked = {}, Counter()  # asked: how often with GET
        self.torn = set()  # paths of which half is sent, with the whole length announced
        self.headers, self.missing = {}, {}  # sent with every file; where there is none
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                owner._answer(self, body=False)

            def do_GET(self) -> None:
                owner.asked[self.path] += 1
                owner._answer(self, body=True)

            def log_message(self, *args) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)

    def _answer(self, request: BaseHTTPRequestHandler, body: bool) -> None:
        content = self.files.get(request.path.partition('?')[0])
        if content is None:
            request.send_response(404)
            for name, value in {'Content-Length': '0', **self.missing}.items():
                request.send_header(name, value)
            request.end_headers()
            return
        request.send_response(200)
        request.send_header('Content-Length', str(len(content)))
        for name, value in self.headers.items():
            request.send_header(name, value)
        request.end_headers()
        if request.path in self.torn:
            content = content[: len(content) // 2]
        if body:
            request.wfile.write(content)

    def url(self, path: str, content: bytes = None) -> str:
        """Address of a path, under which ``content`` is served if it is given."""
        if content is not None:
            self.files[path] = content
        return f'http://127.0.0.1:{self._server.server_port}{path}'

    def be_the_hub(self, monkeypatch, cache) -> None:
        """Let the Hugging Face hub's own client ask this server."""
        constants = pytest.importorskip('huggingface_hub.constants')
        template = self.url('') + '/{repo_id}/resolve/{revision}/{filename}'
        monkeypatch.setattr(constants, 'ENDPOINT', self.url(''))
        monkeypatch.setattr(constants, 'HUGGINGFACE_CO_URL_TEMPLATE', template)
        monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(cache))
        self.headers = {'X-Repo-Commit': 'c' * 40, 'ETag': '"one"'}

    def __enter__(self) -> 'FileServer':
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *args) -> None:
        self._server.shutdown()
        self._server.server_close()
