# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Files of the repository that say the same thing agree, and the site builds."""

import os.path as osp
import re
import subprocess
import sys

import make_model_zoo
import pytest
import yaml
from helpers import ROOT, process_env, read_config
from mmengine.config import Config
from packaging.specifiers import SpecifierSet

from s4d_mm.version import __version__

# keys of dicts, and mmengine's own, which docs/config_guide.md explains in words
IN_WORDS = {'type', '_scope_'}


def read(*path):
    with open(osp.join(ROOT, *path), encoding='utf-8') as f:
        return f.read()


def load(*path):
    return yaml.safe_load(read(*path))


def test_workflow_tests_the_oldest_and_the_newest():
    jobs = load('.github', 'workflows', 'test.yml')['jobs']
    oldest, newest = jobs['test']['strategy']['matrix']['include']
    low, high = re.search(r"python_requires='>=(3\.\d+),<3\.(\d+)'", read('setup.py')).groups()
    assert (oldest['python'], newest['python']) == (low, f'3.{int(high) - 1}')
    for name in ('torch', 'torchvision'):
        pattern = rf'^{name}>=(\d+\.\d+),<(\d+)\.(\d+)$'
        low, major, minor = re.search(pattern, read('requirements', 'runtime.txt'), re.M).groups()
        assert (oldest[name], newest[name]) == (low, f'{major}.{int(minor) - 1}')


def test_ruff_is_the_same_everywhere():
    allowed = re.search(r'^ruff(\S+)', read('requirements', 'tests.txt'), re.M).group(1)
    repos = load('.pre-commit-config.yaml')['repos']
    (version,) = (repo['rev'] for repo in repos if 'ruff' in repo['repo'])
    assert SpecifierSet(allowed).contains(version)
    steps = load('.github', 'workflows', 'lint.yml')['jobs']['ruff']['steps']
    assert any('requirements/tests.txt' in step.get('run', '') for step in steps)


def test_changelog_names_this_version():
    assert re.findall(r'^## (.+)$', read('CHANGELOG.md'), re.M)[:2] == ['Unreleased', __version__]


def training_data(cfg):
    """What a config says that it trains on, or the names of the sets."""
    if 'trained_on' in cfg:
        return [cfg.trained_on]
    dataset = cfg.train_dataloader.dataset
    if dataset.type == 'DualModalDataset':
        parts = dataset.get('modalities', ('video', 'image'))
        return [dataset[part].type for part in parts]
    if dataset.type == 'VideoDataset':  # mmaction2's, of any set
        return [{'kinetics400': 'Kinetics-400'}[dataset.ann_file.split('/')[1]]]
    return [dataset.type]


def test_models_have_their_configs():
    models = [m for name in load('model-index.yml')['Import'] for m in load(name)['Models']]
    assert len(models) == 10
    for model in models:
        cfg = Config.fromfile(osp.join(ROOT, model['Config']))
        assert model['Metadata']['Training Data'] == training_data(cfg)
        assert model['Metadata']['Epochs'] == cfg.train_cfg.max_epochs
        for result in model['Results']:  # nothing of ours was measured yet
            source = model['Metadata']['Source of Results']
            assert source.startswith(('paper', "the authors' README"))
            assert result['Dataset'] == cfg.test_dataloader.dataset.video.type


def parts(value):
    """Type and arguments of each part below a value."""
    if isinstance(value, dict):
        if 'type' in value:
            yield value['type'].split('.')[-1], set(value) - IN_WORDS
        for below in value.values():
            yield from parts(below)
    elif isinstance(value, (list, tuple)):
        for below in value:
            yield from parts(below)


@pytest.mark.parametrize('recipe', ['s4d_finetune_dfew', 's4d_pretrain'])
def test_every_key_and_argument_is_on_the_page(recipe):
    """docs/config_guide.md names every key, part and argument of the recipes that it explains."""
    names = set(re.findall(r'`([^`]+)`', read('docs', 'config_guide.md')))
    cfg = read_config(recipe).to_dict()
    assert set(cfg) - names == set()
    missing = {
        (name, argument)
        for name, arguments in parts(cfg)
        for argument in (name, *arguments)
        if argument not in names
    }
    assert missing == set()


def test_model_zoo_is_that_of_the_index():
    assert make_model_zoo.PAGE.read_text(encoding='utf-8') == make_model_zoo.page(), (
        'run: python docs/make_model_zoo.py'
    )


def test_site_builds_without_a_warning(tmp_path):
    for module in ('mkdocs', 'material', 'mkdocstrings', 'mkdocs_jupyter'):
        pytest.importorskip(module, reason='pip install -r requirements/docs.txt')
    # not with --quiet, which hides warnings from --strict too
    env = dict(process_env(), http_proxy='http://127.0.0.1:9', https_proxy='http://127.0.0.1:9')
    done = subprocess.run(
        [sys.executable, '-m', 'mkdocs', 'build', '--strict', '-d', str(tmp_path)],
        cwd=ROOT,
        env=env,
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    home = (tmp_path / 'index.html').read_text(encoding='utf-8')
    assert 'fonts.googleapis.com' not in home
    assert (tmp_path / 'repository' / 'CHANGELOG.html').is_file()
    assert 'ExpressionInferencer' in (tmp_path / 'api' / 'apis.html').read_text()
