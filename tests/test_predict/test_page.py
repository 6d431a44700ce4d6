# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The page of ``s4d demo``: a real server, a real Chromium, files as a user drops them."""

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import ROOT, process_env, write_text
from user_files import CLASSES, CONFIG, write_checkpoint, write_clip, write_picture

BROWSER = next(
    filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None
)
pytest.importorskip('gradio', reason='gradio is not installed: pip install s4d_mm[demo]')
sync_api = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
if BROWSER is None:
    pytest.skip('there is no Chromium: apt-get install chromium', allow_module_level=True)

COMMAND = [sys.executable, os.path.join(ROOT, 'tools', 's4d'), 'demo']
OPTIONS = ['--model', CONFIG, '--device', 'cpu', '--max-seconds', '3', '--max-mb', '0.5']
# Python runs it at the start of the server: whom it looks up and calls goes into a file
WATCH = """
import os, sys

LOG = os.open(os.environ['WATCH_LOG'], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def note(event, args):
    if event == 'socket.getaddrinfo':
        os.write(LOG, f'{args[0]}\\n'.encode())
    elif event == 'socket.connect' and isinstance(args[1], tuple):
        os.write(LOG, f'{args[1][0]}\\n'.encode())

sys.addaudithook(note)
"""


class Site:
    """The server as a process, with the folder of its temporary files."""

    def __init__(self, folder):
        self.temp = folder / 'temp'
        self.temp.mkdir()
        self.log, self.calls = folder / 'log.txt', folder / 'calls.txt'
        with socket.create_server(('127.0.0.1', 0)) as free:
            self.port = free.getsockname()[1]
        self.address = f'http://127.0.0.1:{self.port}'
        write_text(folder / 'watch' / 'sitecustomize.py', WATCH)
        env = process_env(TMPDIR=str(self.temp), WATCH_LOG=str(self.calls))
        env['PYTHONPATH'] = os.pathsep.join([str(folder / 'watch'), env['PYTHONPATH']])
        weights = write_checkpoint(folder / 'weights.pth')
        command = [*COMMAND, *OPTIONS, '--weights', weights, '--port', str(self.port)]
        with open(self.log, 'w') as log:
            self.process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        deadline = time.monotonic() + 240
        while self.address not in self.log.read_text():
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def files(self):
        return [Path(place, n) for place, _, names in os.walk(self.temp) for n in names]


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    running = Site(tmp_path_factory.mktemp('site'))
    yield running
    running.process.kill()


@pytest.fixture(scope='module')
def browser():
    """A browser whose own calls go nowhere."""
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=BROWSER, args=['--proxy-server=http://127.0.0.1:1']
        )
        yield running.new_context()
        running.close()


@pytest.fixture
def page(site, browser):
    opened = browser.new_page()
    opened.set_default_timeout(60000)
    opened.goto(site.address)
    yield opened
    opened.close()


WAITING = 'Drop a video or an image, or record a clip.'


def upload(page, path):
    """Drop a file, in place of the one that is there."""
    if page.query_selector('#file .file-preview'):
        page.click('#file button')
    page.get_by_text(WAITING).wait_for()
    page.wait_for_selector('#file input[type=file]', state='attached')
    page.set_input_files('#file input[type=file]', str(path))


TEXT = '[...document.querySelectorAll("#answer p[class^=s4d]")].map(p => p.innerText).join("\\n")'


def drop(page, path):
    """Drop a file and wait for the answer; its text, or that of the problem."""
    upload(page, path)
    page.wait_for_function(f'waiting => {TEXT} != waiting', arg=WAITING)
    return page.evaluate(TEXT)


def wait_until_empty(site):
    deadline = time.monotonic() + 60
    while site.files() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not site.files()


def test_clip_gets_its_label(site, page, tmp_path):
    text = drop(page, write_clip(tmp_path / 'my clip.mp4'))
    label = re.match(r'my clip\.mp4 +face 1 +0\.0-1\.0 s +(\w+) \d+ %', text)[1]
    assert label in CLASSES and 'The model was trained on: drawn faces' in text
    # the video plays, the timeline is there, and so is the table
    page.wait_for_function('document.querySelector("video")?.videoWidth >= 320')
    page.wait_for_function('document.querySelector("#picture img")?.naturalWidth > 100')
    assert label in page.inner_text('#records')
    with page.expect_download() as download:
        page.get_by_text('Records as CSV').click()
    with open(download.value.path()) as f:
        assert f.readline().startswith('media,face,start,end')
    # the upload and what was made of it are there until the page is closed
    assert sorted(p.suffix for p in site.files()) == ['.csv', '.json', '.mp4', '.mp4', '.png']
    page.close()
    wait_until_empty(site)


def test_another_file_replaces_an_image_and_removed_files_are_deleted(site, page, tmp_path):
    assert 'face 1' in drop(page, write_picture(tmp_path / 'face.png'))
    page.wait_for_function('document.querySelector("#picture img")?.naturalWidth >= 320')
    wall = drop(page, write_picture(tmp_path / 'wall.png', faces=0))
    assert wall.startswith('no face found in wall.png')
    assert not page.is_visible('#picture')
    assert 'face' not in {p.stem for p in site.files()}
    page.click('#file button')
    page.get_by_text(WAITING).wait_for()
    wait_until_empty(site)


def test_errors_are_a_sentence_on_the_page(site, page, tmp_path):
    long = write_clip(tmp_path / 'long.mp4', frames=41, fps=10)
    assert drop(page, long).startswith('long.mp4 is longer than the 3 s')
    page.click('#file button')
    wait_until_empty(site)
    large = tmp_path / 'large.mp4'
    large.write_bytes(b'0' * 600000)
    upload(page, large)
    page.get_by_text('exceed the maximum allowed size').first.wait_for()
    assert not site.files()


@pytest.mark.parametrize('host', ['localhost', '[::1]', 'evil.example', ''])
def test_a_foreign_host_header_is_refused(site, host):
    connection = http.client.HTTPConnection('127.0.0.1', site.port, timeout=10)
    connection.request('GET', '/', headers={'Host': host and f'{host}:{site.port}'})
    answer = connection.getresponse()
    assert answer.status == (400 if host in ('evil.example', '') else 200)
    if answer.status == 200:  # the browser takes nothing from elsewhere
        assert "default-src 'self'" in answer.headers['content-security-policy']


def test_only_this_machine_reaches_it(site):
    socket.create_connection(('127.0.0.1', site.port), 5).close()
    with pytest.raises(OSError):  # another address of this machine
        socket.create_connection(('127.0.0.2', site.port), 5)


def test_nothing_went_elsewhere_and_nothing_is_left(site):
    """After all of the above."""
    site.process.send_signal(signal.SIGTERM)
    assert site.process.wait(60) == 0
    assert not list(site.temp.iterdir())
    assert 'Traceback' not in site.log.read_text()
    assert set(site.calls.read_text().split()) <= {'127.0.0.1', 'localhost', 'None'}
