# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Names of models, from model-index.yml."""

import os.path as osp
import shutil

import pytest
from helpers import ROOT, write_text

from s4d_mm.apis import model_index
from s4d_mm.apis.model_index import find_model, list_models


def test_a_name_gives_its_config():
    config, weights = find_model('S4D_finetune_DFEW')
    assert osp.samefile(config, osp.join(ROOT, 'configs', 's4d_finetune_dfew.py'))
    assert weights is None
    assert all(osp.isfile(model.config) for model in list_models())
    (dfew,) = [m for m in list_models() if m.name == 's4d_finetune_dfew']
    assert dfew.results == (('DFEW', 'WAR', 76.68),) and dfew.source.startswith('paper')


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(ValueError, match='Do you mean s4d_finetune_dfew'):
        find_model('s4d_finetune_dfw')
    with pytest.raises(ValueError, match='The models are s4d_pretrain, s4d_finetune_dfew'):
        find_model('xyz')
    for path in ('nowhere.py', osp.join('configs', 'nowhere')):
        with pytest.raises(FileNotFoundError, match='no config .*nowhere'):
            find_model(path)


def test_an_installed_package_has_its_index_in_mim(tmp_path, monkeypatch):
    package = tmp_path / 's4d_mm'
    monkeypatch.setattr(model_index, 'PACKAGE', str(package))
    with pytest.raises(FileNotFoundError, match='no model-index.yml in .*s4d_mm'):
        list_models()
    shutil.copytree(osp.join(ROOT, 'configs'), package / '.mim' / 'configs')
    index = 'Import:\n  - configs/metafile.yml'
    write_text(package / '.mim' / 'model-index.yml', index)
    metafile = package / '.mim' / 'configs' / 'metafile.yml'
    text = metafile.read_text()
    text = text.replace(
        'Name: s4d_finetune_mafw', 'Name: s4d_finetune_mafw\n    Weights: hf://a/b/c'
    )
    metafile.write_text(text)
    config, weights = find_model('s4d_finetune_mafw')
    assert config == str(package / '.mim' / 'configs' / 's4d_finetune_mafw.py')
    assert weights == 'hf://a/b/c'
