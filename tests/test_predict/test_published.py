# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The authors' weights by a name: chosen, fetched, checked, converted once and kept."""

import hashlib
import io
import json
import os
import sys
from collections import Counter

import pytest
import torch
from file_server import kept, saved
from helpers import config_path, write_video
from small_models import S2D, S2D_NET, s2d_weights, write_landmark_net

from benchmarks.plain_s2d import PlainS2D
from s4d_mm.datasets.config import config_classes
from s4d_mm.files.errors import DownloadError, HubMissingError, WeightsError
from s4d_mm.predict import cli, models
from s4d_mm.predict.models import choose_file, fold_of, init_model, published_weights

FOLD = 'DFEW/split0{}_checkpoint-best.pth'
FILES = [
    'README.md',
    'pretrain-AffectNet-7.pth',
    *(FOLD.format(i) for i in range(1, 6)),
    'FERV39K_best.pth',
    'mafw_fold1.pth',
    'mafw_fold1_last.pth',
]
RESOLVED = '/cyinen/S2D/resolve/main/'


@pytest.fixture(scope='module')
def weights():
    """Weights of S2D, and the content of the file of its landmark network."""
    file = io.BytesIO()
    write_landmark_net(file, **S2D_NET)
    return s2d_weights(), file.getvalue()


@pytest.fixture
def hub(server, weights, tmp_path, monkeypatch):
    """A hub and a repository on this machine, and a small S2D in place of the recipe's."""
    server.be_the_hub(monkeypatch, tmp_path / 'hub')
    listed = [dict(type='file', path=name, size=9, oid='0') for name in FILES]
    server.url('/api/models/cyinen/S2D/tree/main', json.dumps(listed).encode())
    vit, network = weights
    server.url(RESOLVED + FOLD.format(1), saved(dict(model=vit, epoch=99)))
    blob = hashlib.sha1(b'blob %d\0' % len(network) + network).hexdigest()
    monkeypatch.setattr(models, 'LANDMARKS_BLOB', blob)
    monkeypatch.setattr(models, 'LANDMARKS', server.url('/landmarks.pth.tar', network))
    config = tmp_path / 'small.py'
    shape = dict(S2D, arch=dict(_delete_=True, **S2D['arch']))
    base = config_path('s2d_finetune_dfew')
    steps = [
        dict(type='ClipInit'),
        dict(type='SampleClipViews', clip_len=4, frame_interval=1, num_views=2),
        dict(type='ClipDecode'),
        dict(type='ClipResize', scale=(32, 32)),
        dict(type='FormatShape', input_format='NCTHW'),
        dict(type='PackActionInputs', meta_keys=('input_type',)),
    ]
    config.write_text(
        f'_base_ = {base!r}\nmodel = dict(backbone={shape!r}, cls_head=dict(in_channels=32))\n'
        f'test_pipeline = {steps!r}\ntest_dataloader = dict(dataset=dict(pipeline=test_pipeline))\n'
    )
    monkeypatch.setattr(models, 'find_model', lambda name: str(config))
    server.config = str(config)
    return server


def test_a_second_call_asks_nobody(hub, tmp_path, monkeypatch, capsys, weights):
    monkeypatch.setattr('s4d_mm.predict.inferencer.find_model', lambda name: hub.config)
    clip = write_video(tmp_path / 'my.mp4', 20)
    command = ['predict', str(clip), '--model', 's2d_dfew', '--faces', 'none', '--device', 'cpu']
    path = str(tmp_path / 'torch' / 'hub' / 's4d_mm' / 's2d_dfew_fold1.pth')
    assert cli.main(command) == 0
    out, err = capsys.readouterr()
    assert 'the model was trained on: DFEW, fold 1\n' in out
    for part in (FOLD.format(1), 'Apache-2.0', 'without a licence', hub.url('/land'), path):
        assert part in err
    before = Counter(hub.asked)
    assert cli.main(command) == 0 and hub.asked == before
    assert capsys.readouterr() == (out, '')
    assert published_weights('S2D_finetune_DFEW', None, 1) == path
    meta = torch.load(path, weights_only=True)['meta']
    assert meta['trained_on'] == 'DFEW, fold 1' and meta['family'] == 'S2D'
    model = init_model(hub.config, path, 'cpu')
    assert model.trained_on == 'DFEW, fold 1'
    assert model.dataset_meta['classes'] == config_classes(model.cfg)
    video, landmark = torch.randn(2, 3, 4, 32, 32), model.backbone.landmark
    with torch.no_grad():
        expected, _ = PlainS2D(weights[0], 2, (4, 2), landmark).scores(video)
        scores = model.cls_head(model.backbone(video))
    assert landmark(video[:, :, 0]).abs().sum() > 0
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)


def test_the_file_is_chosen_by_its_name():
    assert choose_file(FILES, 's2d_dfew', 3) == FOLD.format(3)
    assert choose_file(FILES, 's2d_ferv39k', None) == 'FERV39K_best.pth'
    listed = '  hf://cyinen/S2D/mafw_fold1.pth\n  hf://cyinen/S2D/mafw_fold1_last.pth'
    for fold in (1, 2):
        with pytest.raises(WeightsError, match=f'MAFW, fold {fold}.*--weights') as error:
            choose_file(FILES, 's2d_mafw', fold)
        assert listed in str(error.value)
    for file, fold in {
        'DFEW01.pth': 1,
        'S2D_dfew_16f_fd2.pth': 2,
        'DFEW/3/checkpoint.pth': 3,
        'dfew_5folds.pth': None,
    }.items():
        assert fold_of(file, 'dfew') == fold, file
    # of both ways to sample that of the config
    for plain in ('dfew1.pth', 'dfew1_wo_oversampling.pth'):
        for other in ('dfew1_oversampling.pth', 'dfew1_bds.pth'):
            assert choose_file([other, plain], 's2d_dfew', 1) == plain


def test_a_file_can_be_named(hub):
    hub.url(RESOLVED + 'other.pth', hub.files[RESOLVED + FOLD.format(1)])
    path = published_weights('s2d_dfew', 'hf://cyinen/S2D/other.pth', None)
    assert os.path.basename(path) == 's2d_dfew_other.pth.pth'
    # all other weights are left as they are
    for model, weights in (('s2d_dfew', 'mine.pth'), ('x.py', None)):
        assert published_weights(model, weights, None) == weights
    for model, weights, fold in (('s2d_dfew', None, 6), ('s2d_dfew', 'mine.pth', 1)):
        with pytest.raises(ValueError, match=f'fold={fold}: only s2d_dfew and s2d_mafw'):
            published_weights(model, weights, fold)


def test_another_file_than_it_was(hub, tmp_path):
    address = RESOLVED + FOLD.format(1)
    network = hub.files['/landmarks.pth.tar']
    hub.files['/landmarks.pth.tar'] = network + b'\0'
    with pytest.raises(WeightsError, match='landmarks.pth.tar .* git blob'):
        published_weights('s2d_dfew', None, None)
    assert not kept(tmp_path)
    hub.files['/landmarks.pth.tar'] = network
    # a file without a classifier, as the image model is
    weights = torch.load(io.BytesIO(hub.files[address]), weights_only=True)['model']
    hub.files[address] = saved({k: v for k, v in weights.items() if not k.startswith('head.')})
    with pytest.raises(ValueError, match='not fine-tuned'):
        published_weights('s2d_dfew', None, None)
    assert not (tmp_path / 'torch/hub/s4d_mm/s2d_dfew_fold1.pth').exists()


def test_without_network_or_client(hub, tmp_path, monkeypatch):
    constants = sys.modules['huggingface_hub.constants']
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    with pytest.raises(DownloadError, match='s2d_dfew of https://hugg.*S2D cannot be downloaded'):
        published_weights('s2d_dfew', None, None)
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    with pytest.raises(HubMissingError, match='pip install "s4d_mm.hub."'):
        published_weights('s2d_dfew', None, None)
    assert not kept(tmp_path)
