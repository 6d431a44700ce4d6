# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What the pages tell users to type does run: blocks after ``<!-- tested -->``.

Blocks of a page run one after the other in one folder, which holds what the pages speak of;
neighbours in Python make one script. ``<!-- tested: FILE -->`` before a table says that FILE, which
an earlier block wrote, has its columns. A block that no test can run says what it needs:
``<!-- needs: REASON -->``. ``python docs/marked_blocks.py`` lists all of them.
"""

import os
import os.path as osp
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest
from helpers import ROOT, process_env
from marked_blocks import blocks, pages
from user_files import CONFIG, write_checkpoint, write_clip, write_own_data, write_picture

BLOCKS = {page.relative_to(ROOT).as_posix(): blocks(page) for page in pages()}
TESTED = [page for page, found in BLOCKS.items() if any(block.tested for block in found)]


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp('checkpoint') / 'weights.pth')


@pytest.fixture
def folder(tmp_path, checkpoint, page):
    """Where a user works."""
    Path(tmp_path, 'config.py').write_text(f'_base_ = [{CONFIG!r}]\n')
    os.symlink(checkpoint, tmp_path / 'weights.pth')
    write_clip(tmp_path / 'clip.mp4')
    write_clip(tmp_path / 'face.mp4')
    write_picture(tmp_path / 'photo.jpg')
    if page == 'docs/own_data.md':
        write_own_data(tmp_path)
    for name in ('configs', 'tools'):
        os.symlink(osp.join(ROOT, name), tmp_path / name)
    command = tmp_path / 'bin' / 's4d'  # of this tree, wherever the package is installed
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{ROOT}/tools/s4d" "$@"\n')
    command.chmod(0o755)
    return tmp_path


def scripts(page):
    """File, language and text of the tested blocks of a page, those of a script in one."""
    found = [block for block in BLOCKS[page] if block.tested]
    for language, group in groupby(found, key=lambda block: block.language):
        if language == 'python':
            yield '', language, '\n'.join(block.text for block in group)
        else:
            yield from ((block.file, language, block.text) for block in group)


def typed(text):
    """The commands of a block, without what it shows of their output."""
    lines = text.splitlines(keepends=True)
    return ''.join(line[2:] for line in lines if line.startswith('$ '))


def run(command, folder):
    env = process_env()
    env['PATH'] = os.pathsep.join((str(folder / 'bin'), env['PATH']))
    done = subprocess.run(command, cwd=folder, env=env, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, f'{command[-1]}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}'


@pytest.mark.parametrize('page', sorted(page for page, found in BLOCKS.items() if found))
def test_every_block_is_tested_or_says_what_it_needs(page):
    unmarked = [
        f'{page}:{block.line}' for block in BLOCKS[page] if not (block.tested or block.needs)
    ]
    assert not unmarked, 'write <!-- tested --> or <!-- needs: REASON --> in the line before'


@pytest.mark.parametrize('page', TESTED)
def test_commands_of_a_page_run(page, folder):
    for file, language, text in scripts(page):
        if language == 'python':
            run([sys.executable, '-c', text], folder)
        elif language == 'csv':
            with open(osp.join(folder, file), encoding='utf-8') as f:
                assert f.readline() == text.splitlines(keepends=True)[0]
        else:
            commands = typed(text) if language == 'console' else text
            assert commands, f'{page}: a block without a command'
            run(['bash', '-euc', commands], folder)
