# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Files of the repository that say the same thing must agree."""

import os.path as osp
import re

import pytest
import yaml
from helpers import ROOT
from packaging.specifiers import SpecifierSet

from s4d_mm.version import __version__


def read(*path):
    with open(osp.join(ROOT, *path), encoding='utf-8') as f:
        return f.read()


@pytest.fixture(scope='module')
def jobs():
    """What the test workflow runs with."""
    return yaml.safe_load(read('.github', 'workflows', 'test.yml'))['jobs']


def test_workflow_tests_the_oldest_and_the_newest(jobs):
    oldest, newest = jobs['test']['strategy']['matrix']['include']
    low, high = re.search(r"python_requires='>=(3\.\d+),<3\.(\d+)'", read('setup.py')).groups()
    assert (oldest['python'], newest['python']) == (low, f'3.{int(high) - 1}')
    for name in ('torch', 'torchvision'):
        found = re.search(
            rf'^{name}>=(\d+\.\d+),<(\d+)\.(\d+)$', read('requirements', 'runtime.txt'), re.M
        )
        low, major, minor = found.groups()
        assert (oldest[name], newest[name]) == (low, f'{major}.{int(minor) - 1}')


def test_ruff_is_the_same_everywhere():
    allowed = re.search(r'^ruff(\S+)', read('requirements', 'tests.txt'), re.M).group(1)
    repos = yaml.safe_load(read('.pre-commit-config.yaml'))['repos']
    (version,) = (repo['rev'] for repo in repos if 'ruff' in repo['repo'])
    assert SpecifierSet(allowed).contains(version)
    steps = yaml.safe_load(read('.github', 'workflows', 'lint.yml'))['jobs']['ruff']['steps']
    assert any('requirements/tests.txt' in step.get('run', '') for step in steps)


def test_changelog_names_this_version():
    assert re.findall(r'^## (.+)$', read('CHANGELOG.md'), re.M)[:2] == ['Unreleased', __version__]
