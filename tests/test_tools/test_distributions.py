# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What is in the wheel and the sdist, that the wheel works without the repository, and what works
where only what a command installs is there."""

import email
import os
import os.path as osp
import re
import resource
import shutil
import subprocess
import sys
import tarfile
import zipfile
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import pytest
from helpers import ROOT, process_env
from packaging.requirements import Requirement
from user_files import CONFIG, write_checkpoint, write_clip

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


# the interpreter of quickstart.sh where nothing is installed: says what pip is asked for, and ends
# where that is the clone (`-e`)
ASKED = f"""#!/bin/sh
case "$*" in
-I*) exit 1 ;;
'-m pip install'*) echo "pip: $*" && [ "${{*#*-e }}" = "$*" ] ;;
*) exec "{sys.executable}" "$@" ;;
esac
"""


def installed_by(files):
    """The distributions that ``requirements/*.txt`` bring, those that they need, and so on."""
    lines = '\n'.join(Path(ROOT, 'requirements', f'{name}.txt').read_text() for name in files)
    wanted = [Requirement(ln) for ln in re.sub('#.*', '', lines).split('\n') if ln.strip()]
    found = {}
    while wanted:
        want = wanted.pop()
        if want.name not in found and (not want.marker or want.marker.evaluate({'extra': ''})):
            for name in (want.name, f'onedl-{want.name}', want.name.removesuffix('-lite')):
                with suppress(metadata.PackageNotFoundError):
                    found[want.name] = metadata.distribution(name)
                    wanted += map(Requirement, found[want.name].requires or [])
                    break
    return found.values()


@pytest.fixture(scope='module')
def fresh(built, tmp_path_factory):
    """Programs of an environment with only what ``tools/quickstart.sh`` installs, the clone too."""
    venv = tmp_path_factory.mktemp('fresh')
    python = venv / 'asked' / 'python'
    python.parent.mkdir()
    python.write_text(ASKED)
    python.chmod(0o755)
    done = subprocess.run(
        ['bash', osp.join(ROOT, 'tools', 'quickstart.sh')],
        env={**process_env(), 'PATH': f'{python.parent}:{os.environ["PATH"]}'},
        cwd=venv,
        text=True,
        capture_output=True,
    )
    (extras,) = re.findall(r'^pip: .* -e \S+\[(.*)\]$', done.stdout, re.M)
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', venv], check=True)
    (site,) = venv.glob('lib/python*/site-packages')
    for distribution in installed_by(['runtime', *extras.split(',')]):
        for name in {Path(file).parts[0] for file in distribution.files} - {'..', '__pycache__'}:
            if not (site / name).exists() and distribution.locate_file(name).exists():
                (site / name).symlink_to(distribution.locate_file(name))
    subprocess.run(
        [sys.executable, '-m', 'pip', '--python', venv / 'bin' / 'python', 'install', '-q']
        + ['--no-index', '--no-deps', '--no-build-isolation', '-e', built / 's4d_mm'],
        check=True,
        capture_output=True,
    )
    return venv / 'bin'


def run_fresh(*command, cwd, **variables):
    env = {name: value for name, value in process_env().items() if name != 'PYTHONPATH'}
    return subprocess.run(
        list(map(str, command)), cwd=cwd, env={**env, **variables}, text=True, capture_output=True
    )


def test_beside_the_clone_and_with_what_the_quickstart_installs_faces_are_found(built, fresh):
    write_checkpoint(built / 'weights.pth')
    write_clip(built / 'clip.mp4')
    assert (built / 's4d_mm' / 'setup.py').exists()  # the clone, which is no package
    command = ['-m', 's4d_mm', 'predict', 'clip.mp4', '--model', CONFIG, '--weights', 'weights.pth']
    done = run_fresh(fresh / 'python', *command, cwd=built)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('clip.mp4  face 1  0.0-1.0 s  ')
    code = 'from s4d_mm.apis import ExpressionInferencer'
    done = run_fresh(fresh / 'python', '-W', 'ignore', '-c', code, cwd=built)
    assert (done.returncode, done.stderr) == (0, '')


@pytest.mark.parametrize('kind', ['editable', 'wheel'])
@pytest.mark.parametrize(
    'arguments, code, answer',
    [
        ('', 0, 'usage: s4d [-h]'),
        ('--help', 0, 'usage: s4d [-h]'),
        ('predict --help', 0, 'usage: s4d predict [-h]'),
        ('demo --help', 0, 'usage: s4d demo [-h]'),
        ('--version', 0, 's4d_mm '),
        ('version', 0, 's4d_mm '),
        ('predct', 2, "invalid choice: 'predct'"),
        ('predict a.mp4 --model m --wieghts w', 2, 'unrecognized arguments: --wieghts'),
        ('predict --model m', 2, 'give videos, images or folders'),
    ],
)
def test_s4d_answers_before_anything_is_imported(
    fresh, unpacked, tmp_path, kind, arguments, code, answer
):
    (script,) = unpacked.glob('*.data/scripts/s4d') if kind == 'wheel' else [fresh / 's4d']
    more = dict(PYTHONPATH=str(unpacked)) if kind == 'wheel' else {}
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = run_fresh(
        *(fresh / 'python', '-X', 'importtime', script, *arguments.split()), cwd=tmp_path, **more
    )
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 0.5
    assert done.returncode == code, done.stderr
    assert answer in (done.stderr if code else done.stdout)
    imported = set(re.findall(r'^import time:.*\| +(\w+)', done.stderr, re.M))
    assert 'argparse' in imported
    assert not imported & {'torch', 'numpy', 'mmengine', 'mmaction', 's4d_mm'}


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
