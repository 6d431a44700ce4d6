# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What is in the wheel and the sdist, and that the wheel works without the repository."""

import email
import os
import os.path as osp
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest
from helpers import ROOT, process_env
from user_files import write_checkpoint, write_clip

LEFT_OUT = ('__pycache__', '.mim', '.git', '.*_cache', '.cache', '.venv', 'work_dirs', '*.egg-info')


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    """Folder with a wheel and an sdist, built from a copy because building writes to it."""
    folder = tmp_path_factory.mktemp('distributions')
    source = folder / 's4d_mm'
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*LEFT_OUT, 'build', 'dist'))
    subprocess.run(
        [sys.executable, '-W', 'ignore', 'setup.py', '-q']
        + ['sdist', '-d', str(folder), 'bdist_wheel', '-d', str(folder)],
        cwd=source,
        env={**process_env(), 'PYTHONPATH': ''},
        check=True,
        timeout=60,
    )
    return folder


@pytest.fixture(scope='module')
def unpacked(built):
    """Folder with what pip installs of the wheel, and nothing else of the repository."""
    (wheel,) = built.glob('*.whl')
    with zipfile.ZipFile(wheel) as f:
        f.extractall(built / 'unpacked')
    return built / 'unpacked'


def run_python(unpacked, folder, *arguments):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env={**process_env(), 'PYTHONPATH': str(unpacked)},
        text=True,
        capture_output=True,
        timeout=100,
    )


def files_of(*parts):
    """Files of the repository that belong into the distributions."""
    found = (osp.join(f, name) for p in parts for f, _, names in os.walk(p) for name in names)
    return {osp.relpath(path, ROOT) for path in found if not path.endswith('.pyc')}


def test_what_is_packed(built, unpacked):
    (sdist,) = built.glob('*.tar.gz')
    with tarfile.open(sdist) as f:
        names = {name.split('/', 1)[-1] for name in f.getnames()}
    folders = ('docs', 'benchmarks', 'tests', 'requirements', 'configs', 'tools')
    assert not files_of(*(osp.join(ROOT, part) for part in folders)) - names
    assert {'Dockerfile', '.dockerignore', 'mkdocs.yml', 'CITATION.cff', 'LICENSE'} <= names
    weights = 's4d_mm/predict/rendered_people.safetensors'
    assert weights in names and 0 < (unpacked / weights).stat().st_size < 8e6
    # what mim looks for, in the wheel
    mim = unpacked / 's4d_mm' / '.mim'
    wanted = files_of(osp.join(ROOT, 'configs'), osp.join(ROOT, 'tools'))
    wanted = {n for n in wanted if n.endswith(('.md', '.py', '.sh', '.yml'))} | {'model-index.yml'}
    assert {str(p.relative_to(mim)) for p in mim.rglob('*') if p.is_file()} == wanted
    assert not any((unpacked / name).exists() for name in ('tests', 'tools'))


def test_links_of_the_package_page_are_absolute(unpacked):
    (metadata,) = unpacked.glob('*.dist-info/METADATA')
    text = email.message_from_string(metadata.read_text(encoding='utf-8')).get_payload()
    text = re.sub(r'^```.*?^```|`[^`\n]+`', '', text, flags=re.M | re.S)
    links = re.findall(r'\]\(\s*([^\s)]+)|(?:src|href)=["\']([^"\']+)', text)
    links = [a or b for a, b in links]
    assert len(links) > 10
    assert not [link for link in links if not link.startswith('https://')]


def test_wheel_predicts_with_a_config_of_its_own(unpacked, tmp_path):
    """By ``_base_ = 's4d_mm::...'``, which the toolbox looks up in ``.mim``; and without one."""
    base = 's4d_mm::quickstart/s4d_quickstart_finetune.py'
    (tmp_path / 'config.py').write_text(f'_base_ = [{base!r}]\n')
    write_checkpoint(tmp_path / 'weights.pth')
    write_clip(tmp_path / 'face.mp4')
    command = ('-W', 'ignore', '-m', 's4d_mm', 'predict', 'face.mp4', '--faces', 'none')
    for model in ((), ('--model', 'config.py', '--weights', 'weights.pth')):
        done = run_python(unpacked, tmp_path, *command, *model, '--out', 'results')
        assert done.returncode == 0, done.stderr
        assert ('rendered people only' in done.stdout) is not bool(model)
        assert (tmp_path / 'results' / 'face.csv').stat().st_size > 100


def test_s4d_answers_before_anything_is_imported(unpacked, tmp_path):
    (script,) = unpacked.glob('*.data/scripts/s4d')
    arguments = ('predict', 'a.mp4', '--model', 'm', '--wieghts', 'w')
    done = run_python(unpacked, tmp_path, '-X', 'importtime', script, *arguments)
    assert done.returncode == 2 and 'unrecognized arguments: --wieghts' in done.stderr
    imported = set(re.findall(r'^import time:.*\| +(\w+)', done.stderr, re.M))
    assert 'argparse' in imported
    assert not imported & {'torch', 'numpy', 'mmengine', 'mmaction', 's4d_mm'}
