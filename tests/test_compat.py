# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Import of the package: version check, repairs of published wheels, and what it brings in."""

import importlib
import subprocess
import sys
from collections import OrderedDict
from importlib import metadata
from pickle import UnpicklingError

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.registry import init_default_scope

import s4d_mm
from s4d_mm.former_names import FORMER


def test_mmaction_models_import_and_drn_says_why():
    import mmaction.models.localizers as localizers
    from mmaction.registry import MODELS

    if metadata.version('mmaction2') != '1.2.0':
        pytest.skip('this mmaction2 has its own DRN')
    init_default_scope('mmaction')  # other tests may have left another one
    with pytest.raises(ImportError, match='mmaction2/issues/2714'):
        MODELS.build(dict(type='DRN'))
    assert localizers.DRN is MODELS.get('DRN')


def test_mmengine_checkpoint_loads_with_weights_only(tmp_path):
    buffer = HistoryBuffer()
    for value in (1.0, 2.0, 6.0):
        buffer.update(value)
    numbers = dict(best=np.float64(3), iter=np.int64(7), half=np.float16(2))
    torch.save(dict(loss=buffer, numbers=numbers), tmp_path / 'epoch_1.pth')
    found = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)
    assert found['loss'].mean(3) == 3
    assert found['numbers'] == dict(best=3.0, iter=7, half=2)


class OtherAttribute:
    def __reduce__(self):
        return getattr, (OrderedDict, 'fromkeys')


def test_other_attributes_stay_refused(tmp_path):
    torch.save(OtherAttribute(), tmp_path / 'other.pth')
    with pytest.raises(UnpicklingError, match='Only methods of mmengine'):
        torch.load(tmp_path / 'other.pth')


@pytest.mark.parametrize(
    'versions,match',
    [
        ({'mmengine': None, 'onedl-mmengine': None}, 'mmengine, but it is not installed: pip inst'),
        ({'mmcv': '2.2.0', 'mmcv-lite': None}, 'mmcv >=2.1.0, <2.2.0, but mmcv==2.2.0 is'),
        ({'mmcv': '2.1.0', 'mmcv-lite': '2.1.0'}, 'overwrite each other'),
    ],
)
def test_version_check(monkeypatch, versions, match):
    real = s4d_mm.installed_version
    monkeypatch.setattr(s4d_mm, 'installed_version', lambda name: versions.get(name, real(name)))
    with pytest.raises(ImportError, match=match):
        s4d_mm.check_versions()


def test_import_is_quiet_and_brings_in_no_apis():
    """In a process of its own. The apis are for prediction, and take time to import."""
    code = (
        'import sys, s4d_mm; '
        'from mmengine.registry import HOOKS; assert HOOKS.get("ClassCheckHook"); '
        'apis = [m for m in sys.modules if m.startswith(("mmaction.apis", "s4d_mm.apis"))]; '
        'assert not apis, apis'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'MultiScaleDeformableAttention' not in done.stderr


def test_former_places_of_modules_can_be_imported():
    for now, former in FORMER.items():
        module = importlib.import_module(f's4d_mm.{now}')
        for name in former.split():
            assert importlib.import_module(f's4d_mm.{name}') is module
    for name in ('apis.results', 'faces.boxes', 'visualization.timeline'):
        assert importlib.import_module(f's4d_mm.{name}').__name__.startswith('s4d_mm.predict.')
