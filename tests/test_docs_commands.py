# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What the pages tell users to type does run: blocks after ``<!-- tested -->``.

Blocks of a page run one after the other in one folder, which holds what the pages speak of;
neighbours in Python make one script. ``<!-- tested: FILE -->`` before a table says that FILE, which
an earlier block wrote, has its columns.
"""

import os
import os.path as osp
import re
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest
from helpers import ROOT, process_env
from user_files import CONFIG, write_checkpoint, write_clip, write_picture

MARKED = re.compile(r'^<!-- tested(?:: (\S+))? -->\n```(\w+)\n(.*?)^```$', re.M | re.S)
PAGES = sorted(
    path.name for path in Path(ROOT, 'docs').glob('*.md') if '<!-- tested' in path.read_text()
)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp('checkpoint') / 'weights.pth')


@pytest.fixture
def folder(tmp_path, checkpoint):
    """Where a user works."""
    Path(tmp_path, 'config.py').write_text(f'_base_ = [{CONFIG!r}]\n')
    os.symlink(checkpoint, tmp_path / 'weights.pth')
    write_clip(tmp_path / 'clip.mp4')
    write_clip(tmp_path / 'face.mp4')
    write_picture(tmp_path / 'photo.jpg')
    command = tmp_path / 'bin' / 's4d'  # of this tree, wherever the package is installed
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m s4d_mm "$@"\n')
    command.chmod(0o755)
    return tmp_path


def blocks(page):
    """File, language and text of the marked blocks of a page, those of a script in one."""
    found = MARKED.findall(Path(ROOT, 'docs', page).read_text(encoding='utf-8'))
    for language, group in groupby(found, key=lambda block: block[1]):
        if language == 'python':
            yield '', language, '\n'.join(text for _, _, text in group)
        else:
            yield from group


def run(command, folder):
    env = process_env()
    env['PATH'] = os.pathsep.join((str(folder / 'bin'), env['PATH']))
    done = subprocess.run(command, cwd=folder, env=env, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, f'{command[-1]}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}'


def test_every_mark_is_before_a_block():
    """A mark that nothing is found for would test nothing."""
    assert {'predict.md', 'python.md'} <= set(PAGES)
    for page in PAGES:
        text = Path(ROOT, 'docs', page).read_text(encoding='utf-8')
        found = MARKED.findall(text)
        assert len(found) == text.count('<!-- tested'), page
        assert {language for _, language, _ in found} <= {'bash', 'python', 'csv'}, page


@pytest.mark.parametrize('page', PAGES)
def test_commands_of_a_page_run(page, folder):
    for file, language, text in blocks(page):
        if language == 'bash':
            run(['bash', '-euc', text], folder)
        elif language == 'python':
            run([sys.executable, '-c', text], folder)
        else:
            with open(osp.join(folder, file), encoding='utf-8') as f:
                assert f.readline() == text.splitlines(keepends=True)[0]
