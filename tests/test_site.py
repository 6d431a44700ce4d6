# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The site: no page is stale, and mkdocs builds it without a warning and without a network."""

import subprocess
import sys
from pathlib import Path

import make_model_zoo
import pytest
from helpers import ROOT, process_env


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
    home = Path(tmp_path, 'index.html').read_text(encoding='utf-8')
    assert 'fonts.googleapis.com' not in home
    assert Path(tmp_path, 'repository', 'CHANGELOG.html').is_file()
    assert 'ExpressionInferencer' in Path(tmp_path, 'api', 'apis.html').read_text(encoding='utf-8')
