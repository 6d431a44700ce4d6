# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Files of the S2D authors' layout, into our models and back."""

import argparse

import pytest
import s2d_to_mm
import torch
from mmengine.config import Config
from small_models import FINETUNE, S2D, S2D_HEAD, S2D_NET, build, s2d_weights, write_landmark_net

from s4d_mm.apis import init_model
from s4d_mm.files.errors import WeightsError

DEPTH = S2D['arch']['num_layers']


def image_model_weights():
    """The authors' model for images: no temporal modules, and other names at the end."""
    weights = {
        k.replace('ln_post.', 'norm.'): v
        for k, v in s2d_weights().items()
        if 'TMA' not in k and 'temporal' not in k and 'head' not in k
    }
    weights['landmark.conv1.conv.weight'] = torch.zeros(2, 3, 3, 3)
    weights['head.weight'] = weights['weak_head.weight'] = torch.zeros(7, 32)
    return weights


def landmark_file(path, prefix=''):
    return write_landmark_net(path, prefix, **S2D_NET)


def model_config(landmarks=None):
    backbone = dict(S2D, landmark=dict(S2D['landmark'], checkpoint=landmarks))
    pre = dict(type='DualModalDataPreprocessor', mean=[120] * 3, std=[60] * 3)
    model = dict(type='S2DRecognizer', backbone=backbone, cls_head=S2D_HEAD, data_preprocessor=pre)
    return Config(dict(default_scope='mmaction', model=model))


def save_finetuned(path, prefix=''):
    """As the authors' ``save_model``."""
    weights = {f'{prefix}{k}': v for k, v in s2d_weights().items()}
    args = argparse.Namespace(model='vit', lr=1e-5)
    torch.save(dict(model=weights, optimizer={}, epoch=99, scaler={}, args=args), path)
    return str(path)


@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_a_finetuned_file(prefix, tmp_path, capsys):
    src, dst = save_finetuned(tmp_path / 'best.pth', prefix), str(tmp_path / 'ours.pth')
    net = landmark_file(tmp_path / 'net.pth.tar', prefix)
    assert s2d_to_mm.main([src, dst, '--landmarks', net]) == 0
    out = capsys.readouterr().out
    assert f'prompt_norms.{DEPTH - 1}.weight' in out and '2 keys' in out
    model = init_model(model_config(), dst, 'cpu')
    weights = s2d_weights()
    own = model.state_dict()
    assert torch.equal(own['backbone.layers.1.ffn.layers.1.bias'], weights['blocks.1.mlp.fc2.bias'])
    assert torch.equal(own['cls_head.fc_cls.weight'], weights['head.fc_cls.weight'])
    assert model.backbone.landmark.has_weights
    # and back: the same file, but for the norm that nothing uses
    back = str(tmp_path / 'back.pth')
    assert s2d_to_mm.main([dst, back, '--reverse']) == 0
    found = torch.load(back, weights_only=True)['model']
    assert set(found) == set(weights)
    for key, value in weights.items():
        if not key.startswith(f'prompt_norms.{DEPTH - 1}.'):
            assert torch.equal(found[key], value), key


def test_the_authors_file_as_it_is(tmp_path):
    """By load_from, testing and prediction, with the landmark network's file in the config."""
    src = save_finetuned(tmp_path / 'best.pth')
    net = landmark_file(tmp_path / 'net.pth')
    direct = init_model(model_config(net), src, 'cpu')
    assert s2d_to_mm.main([src, str(tmp_path / 'ours.pth'), '--landmarks', net]) == 0
    converted = init_model(model_config(), str(tmp_path / 'ours.pth'), 'cpu')
    x = torch.randn(1, 3, 4, 32, 32)
    with torch.no_grad():
        assert torch.equal(direct.backbone(x), converted.backbone(x))
    with pytest.raises(WeightsError, match='mobilefacenet_model_best.pth.tar'):
        init_model(model_config(), src, 'cpu')


def test_the_image_model_as_a_start(tmp_path, capsys):
    src, dst = tmp_path / 'Pretrain-AffectNet-7.pth', str(tmp_path / 'start.pth')
    torch.save(dict(model_state_dict=image_model_weights()), src)
    net = landmark_file(tmp_path / 'net.pth')
    assert s2d_to_mm.main([str(src), dst, '--landmarks', net]) == 0
    assert 'weak_head.weight' in capsys.readouterr().out
    found = torch.load(dst, weights_only=True)['state_dict']
    assert torch.equal(found['backbone.ln1.weight'], image_model_weights()['norm.weight'])
    model = build(model_config().model)
    missing, unexpected = model.load_state_dict(found, strict=False)
    assert not unexpected
    assert all('temporal' in k or k.startswith('cls_head.') for k in missing)


def test_wrong_files(tmp_path, capsys):
    net = landmark_file(tmp_path / 'net.pth')
    finetuned = save_finetuned(tmp_path / 'best.pth')
    incomplete = {k: v for k, v in s2d_weights().items() if not k.startswith('blocks.1.')}
    wrong, dst = str(tmp_path / 'wrong.pth'), str(tmp_path / 'out.pth')
    torch.save(dict(model=incomplete), wrong)
    for args, message in (
        ([wrong, dst, '--landmarks', net], 'incomplete'),
        ([finetuned, dst], '--landmarks FILE'),
        ([finetuned, dst, '--landmarks', finetuned], 'is not the landmark network'),
        ([net, dst, '--landmarks', net], 'landmark network of S2D: give it by --landmarks'),
    ):
        assert s2d_to_mm.main(args) == 1
        assert message in capsys.readouterr().err
    torch.save(build(FINETUNE).state_dict(), wrong)
    with pytest.raises(WeightsError, match="s4d_mm's checkpoint of S4D"):
        init_model(model_config(net), wrong, 'cpu')
    with pytest.raises(WeightsError, match='give it to an S2D model'):
        init_model(Config(dict(default_scope='mmaction', model=FINETUNE)), finetuned, 'cpu')
    assert not (tmp_path / 'out.pth').exists()
