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
    source = folder / 'source'
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
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', *arguments],
        cwd=folder,
        env={**process_env(), 'PYTHONPATH': str(unpacked)},
        text=True,
        capture_output=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_sdist_has_the_pages_benchmarks_and_tests(built):
    (sdist,) = built.glob('*.tar.gz')
    with tarfile.open(sdist) as f:
        names = {name.split('/', 1)[-1] for name in f.getnames()}
    for part in ('docs', 'benchmarks', 'tests', 'requirements'):
        for folder, _, files in os.walk(osp.join(ROOT, part)):
            wanted = {osp.relpath(osp.join(folder, name), ROOT) for name in files}
            missing = {n for n in wanted - names if not n.endswith('.pyc')}
            assert not missing, missing
    assert {'Dockerfile', '.dockerignore', 'mkdocs.yml', 'CITATION.cff', 'LICENSE'} <= names


def test_links_of_the_package_page_are_absolute(unpacked):
    (metadata,) = unpacked.glob('*.dist-info/METADATA')
    text = email.message_from_string(metadata.read_text(encoding='utf-8')).get_payload()
    text = re.sub(r'^```.*?^```|`[^`\n]+`', '', text, flags=re.M | re.S)
    links = re.findall(r'\]\(\s*([^\s)]+)|(?:src|href)=["\']([^"\']+)', text)
    links = [a or b for a, b in links]
    assert len(links) > 10
    assert not [link for link in links if not link.startswith('https://')]


def test_wheel_predicts_with_a_config_of_its_own(unpacked, tmp_path):
    """By ``_base_ = 's4d_mm::...'``, which the toolbox looks up in ``.mim``."""
    base = 's4d_mm::quickstart/s4d_quickstart_finetune.py'
    (tmp_path / 'config.py').write_text(f'_base_ = [{base!r}]\n')
    (tmp_path / 'recipe.py').write_text("_base_ = 's4d_mm::s4d_finetune_dfew.py'\n")
    write_checkpoint(tmp_path / 'weights.pth')
    write_clip(tmp_path / 'face.mp4')
    code = (
        'import s4d_mm; from mmengine.config import Config; print(s4d_mm.__file__); '
        'print(Config.fromfile("recipe.py").model.type)'
    )
    where, model = run_python(unpacked, tmp_path, '-c', code).split()[-2:]
    assert where.startswith(str(unpacked)) and model.endswith('DualModalRecognizer')
    run_python(
        unpacked,
        tmp_path,
        *('-m', 's4d_mm', 'predict', 'face.mp4', '--faces', 'none', '--model', 'config.py'),
        *('--weights', 'weights.pth', '--out', 'results'),
    )
    assert (tmp_path / 'results' / 'face.csv').stat().st_size > 100


def test_dockerfile_runs_the_install_script():
    """Everything that it names is in the repository, and left in what is sent to the builder."""
    with open(osp.join(ROOT, 'Dockerfile'), encoding='utf-8') as f:
        text = f.read()
    steps = re.findall(r'^(?:RUN|COPY) .*', text.replace('\\\n', ' '), re.M)
    assert 'RUN bash tools/install.sh $EXTRAS' in steps and 'COPY . .' in steps
    with open(osp.join(ROOT, '.dockerignore'), encoding='utf-8') as f:
        ignored = {line.strip('/').split('/')[0] for line in f.read().splitlines()}
    named = set(re.findall(r'\b(?:tools|requirements)/[\w.]+', text))
    for file in named | {'setup.py', 'README.md', 'model-index.yml', 'configs'}:
        assert osp.exists(osp.join(ROOT, file)), file
        assert file.split('/')[0] not in ignored
