# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""tools/analysis_tools/*.py and publish_model.py."""

import glob
import hashlib
import os.path as osp

import compare_tests
import cv2
import get_flops
import mmengine
import numpy as np
import plot_confusion_matrix
import publish_model
import pytest
import torch
import torch.nn.functional as F
import vis_cam
import visualize_reconstruction
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from runs import FINETUNE, PRETRAIN, ROOT

from s4d_mm.apis import ExpressionInferencer, init_model
from s4d_mm.models import S2DViT, S4DViT

CONFIGS = osp.join(ROOT, 'configs')
MIXES = [osp.basename(path)[:-3] for path in sorted(glob.glob(osp.join(CONFIGS, 'mix', '*.py')))]


# ------------------------------------------------------------------- FLOPs
def build(name):
    cfg = Config.fromfile(osp.join(CONFIGS, f'{name}.py'))
    init_default_scope(cfg.default_scope)
    return MODELS.build(cfg.model)


def block_macs(tokens, dims):
    """Multiply-adds of a transformer block: qkv and proj, MLP, attention."""
    return tokens * (4 + 8) * dims**2 + 2 * tokens**2 * dims


def test_flops_of_the_paper_s_model():
    """12 blocks, of which 6 have 8 experts of width C / 4, 2 per token."""
    model = build('s4d_finetune_dfew')
    clip, image = get_flops.input_shapes(model, [])
    assert (clip, image) == ((1, 3, 16, 160, 160), (1, 3, 160, 160))
    for shape, tokens, values in ((clip, 800, 2 * 16 * 16 * 3), (image, 100, 16 * 16 * 3)):
        costs = get_flops.count(model, shape)
        assert list(costs) == ['backbone', 'neck', 'cls_head']
        backbone = tokens * values * 768 + 6 * block_macs(tokens, 768)
        experts = tokens * 768 * (8 + 2 * 2 * 192)
        neck = 6 * (block_macs(tokens, 768) + experts)
        assert costs['backbone'].flops == 2 * backbone
        assert costs['neck'].flops == 2 * neck
        assert costs['cls_head'].flops == 2 * 768 * 7
        params = sum(p.numel() for p in model.parameters())
        assert sum(c.params for c in costs.values()) == params


def test_flops_of_pretraining():
    """Encoder on 5 % of the tokens, decoder on all."""
    costs = get_flops.count(build('s4d_pretrain'), (2, 3, 16, 160, 160))
    visible = 800 - 760
    encoder = visible * 1536 * 768 + 12 * block_macs(visible, 768)
    decoder = visible * 768 * 384 + 4 * block_macs(800, 384) + 800 * 384 * 1536
    assert costs['backbone'].flops == 2 * 2 * encoder  # 2 clips
    assert costs['neck'].flops == 2 * 2 * decoder


@pytest.mark.parametrize('name', MIXES)
def test_flops_of_the_mixes(name):
    model = build(f'mix/{name}')
    shapes = [(1, 3, 4, 80, 80), (1, 3, 80, 80)]
    shapes = dict(video=shapes[:1], image=shapes[1:]).get(name.rpartition('_')[2], shapes)
    if isinstance(model.backbone, (S2DViT, S4DViT)):
        found = get_flops.input_shapes(model, [])
        assert found == tuple(shapes if isinstance(model.backbone, S4DViT) else shapes[:1])
    else:
        with pytest.raises(ValueError, match='--shape'):
            get_flops.input_shapes(model, [])
    for shape in shapes:
        costs = get_flops.count(model, shape)
        assert len(costs) == (3 if '_moae_' in name else 2)
        assert all(cost.flops > 0 for cost in costs.values())
        assert sum(c.params for c in costs.values()) == sum(p.numel() for p in model.parameters())


def test_flops_command(capsys):
    get_flops.main([FINETUNE, '--cfg-options', 'model.neck=None'])
    output = capsys.readouterr().out
    assert '(1, 3, 4, 80, 80)' in output and '(1, 3, 80, 80)' in output
    assert 'neck' not in output and output.count('total') == 2
    assert get_flops.input_shapes(None, [96]) == ((1, 3, 96, 96),)
    assert get_flops.input_shapes(None, [96, 80]) == ((1, 3, 96, 80),)


# ---------------------------------------------------------------- Grad-CAM
@pytest.fixture(scope='module')
def model(toolbox_run):
    return init_model(FINETUNE, toolbox_run.finetuned, 'cpu')


def expected_maps(model, path, label):
    """Grad-CAM of the last block, written down once more."""
    data = model.data_preprocessor(vis_cam.read_media(model, path))
    x = data['inputs'].flatten(0, 1)  # V C [T] H W
    kind = data['data_samples'][0].metainfo['input_type']
    with torch.no_grad():
        tokens, _ = model.neck(model.backbone(x))
    tokens.requires_grad_()
    score = model.cls_head(tokens, kind)[:, label].sum()
    (gradient,) = torch.autograd.grad(score, tokens)
    grid = model.backbone.patch_embed.grid(x)
    a, g = (t.detach().transpose(1, 2).unflatten(2, grid) for t in (tokens, gradient))
    maps = (g.mean(dim=(3, 4), keepdim=True) * a).sum(dim=1).relu()
    size = (len(x), x.shape[2] if x.ndim == 5 else 1, *x.shape[-2:])
    maps = F.interpolate(maps[:, None], size[1:], mode='trilinear', align_corners=False)
    low = maps.amin(dim=(1, 2, 3, 4), keepdim=True)
    high = maps.amax(dim=(1, 2, 3, 4), keepdim=True)
    return ((maps - low) / (high - low + 1e-20)).squeeze(1)


@pytest.mark.parametrize('kind', ['clip', 'image'])
def test_cam_is_that_of_the_class(toolbox_run, model, kind):
    path, found = getattr(toolbox_run, kind), []
    classes = vis_cam.class_names(model, 'video' if kind == 'clip' else 'image')
    for target in ('anger', classes[0]):
        frames, maps, name = vis_cam.heat_maps(model, path, target)
        assert frames.shape == (*((2, 4) if kind == 'clip' else (1, 1)), 80, 80, 3)
        assert name == target and frames.min() >= 0 and frames.max() <= 1
        expected = expected_maps(model, path, classes.index(target))
        torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-4)
        found.append(maps)
    assert (found[0] - found[1]).abs().max() > 0.1


def test_cam_command_draws_the_predicted_class(toolbox_run, model, tmp_path, capsys):
    out = str(tmp_path / 'cam.png')
    command = [FINETUNE, toolbox_run.finetuned, toolbox_run.clip, '--out', out]
    vis_cam.main(command)
    # two views with two rows, two tubelets
    assert cv2.imread(out).shape == (4 * 80, 2 * 80, 3)
    with torch.no_grad():
        (sample,) = model.test_step(vis_cam.read_media(model, toolbox_run.clip))
    name = vis_cam.class_names(model, 'video')[int(sample.pred_label)]
    assert f'looks like {name}' in capsys.readouterr().out
    with pytest.raises(SystemExit, match='joy is not a class .*anger'):
        vis_cam.main([*command, '--target-category', 'joy'])
    with pytest.raises(ValueError, match='no file or folder nowhere.mp4'):
        vis_cam.heat_maps(model, 'nowhere.mp4')
    other = init_model(osp.join(CONFIGS, 'mix', 'slowonly_moae_joint.py'))
    with pytest.raises(ValueError, match='not of ResNet3dSlowOnly'):
        vis_cam.heat_maps(other, toolbox_run.clip)


# ------------------------------------------------ figures of tests, reconstruction
@pytest.fixture
def drawn(toolbox_run, monkeypatch):
    """What the confusion matrix is drawn of, panel by panel."""
    monkeypatch.setenv('QUICKSTART_DIR', str(toolbox_run.folder))
    found = []
    monkeypatch.setattr(plot_confusion_matrix, 'draw', lambda *args: found.append(args[1:]))
    return found


def predictions(pairs, kind):
    scores = torch.eye(7).tolist()
    return [dict(gt_label=[y], pred_score=scores[said], input_type=kind) for y, said in pairs]


def test_confusion_matrix_counts_unreadable_samples_as_wrong(drawn, tmp_path):
    samples = predictions([(0, 0), (0, 0), (0, 2), (0, 0)], 'image')
    samples[3]['unreadable'] = True
    mmengine.dump(samples, tmp_path / 'x.json')
    out = tmp_path / 'x.png'
    plot_confusion_matrix.main([FINETUNE, str(tmp_path / 'x.json'), '--out', str(out)])
    ((counts, names, title, support),) = drawn
    assert support[:3] == [4, 0, 0]
    assert counts[0].tolist() == [2, 0, 1, 0, 0, 0, 0] and counts.sum() == 3
    assert names[:2] == ['neutral', 'happiness']
    # the mean over classes counts those that have samples
    assert title == 'image: 4 samples (1 unreadable)\nWAR 50.0 %, UAR 50.0 %'
    assert out.stat().st_size > 5000


def test_panels_have_one_order_of_classes(drawn, tmp_path):
    """The data sets number their classes differently; the second panel follows the first."""
    ids = dict(
        video=dict(happiness=0, neutral=2, anger=3),
        image=dict(happiness=1, neutral=0, anger=6),
    )
    pairs = [('anger', 'happiness'), ('anger', 'anger'), ('neutral', 'anger')]
    samples = []
    for kind, of in ids.items():
        samples += predictions([(of[true], of[said]) for true, said in pairs], kind)
    mmengine.dump(samples, tmp_path / 'x.json')
    arguments = [FINETUNE, str(tmp_path / 'x.json'), '--out', str(tmp_path / 'x.png')]
    plot_confusion_matrix.main(arguments)
    (counts, names, _, support), image = drawn
    assert names[:4] == image[1][:4] == ['happiness', 'sadness', 'neutral', 'anger']
    assert counts[3].tolist() == [1, 0, 0, 1, 0, 0, 0] and support == [0, 0, 1, 2, 0, 0, 0]
    assert image[0].tolist() == counts.tolist() and image[3] == support
    own = dict(classes=['joy', 'anger'], matrix=[[1, 2], [3, 4]], support=[3, 7])
    assert plot_confusion_matrix.in_order(own, ['anger', 'happiness']) is own


def test_tests_are_compared_in_a_table(drawn, tmp_path, capsys):
    for name, said in (('a', (0, 0, 0, 1)), ('b', (0, 1, 1, 1))):
        samples = predictions(zip((0, 0, 0, 1), said), 'image')
        mmengine.dump(samples, tmp_path / f'{name}.json')
    command = [FINETUNE, f'one={tmp_path}/a.json', f'two rows={tmp_path}/b.json']
    compare_tests.main(command)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ['video', 'WAR', 'video', 'UAR', 'image', 'WAR', 'image', 'UAR'],
        ['one', '-', '-', '100.0', '100.0'],
        ['two', 'rows', '-', '-', '50.0', '66.7'],
        ['chance', '14.3', '14.3', '14.3', '14.3'],
    ]
    for wrong, said in ((f'no={tmp_path}/none.json', 'none.json'), ('a.json', 'NAME=PATH')):
        with pytest.raises(SystemExit) as end:
            compare_tests.main([*command, wrong])
        assert end.value.code == 2 and said in capsys.readouterr().err


def test_reconstruction_command(toolbox_run, tmp_path, monkeypatch):
    """A block for each modality, three columns in each; an image is there once."""
    monkeypatch.setenv('QUICKSTART_DIR', str(toolbox_run.folder))
    drawn, whole, out = [], visualize_reconstruction.draw, str(tmp_path / 'x.png')
    monkeypatch.setattr(
        visualize_reconstruction, 'draw', lambda blocks: drawn.append(blocks) or whole(blocks)
    )
    arguments = [PRETRAIN, toolbox_run.pretrained, '--out', out, '--num', '2', '--frames', '3']
    visualize_reconstruction.main(arguments)
    (blocks,) = drawn
    for name, frames in (('video', 3), ('image', 1)):
        assert len(blocks[name]) == 2
        (original, masked, rebuilt), ratio = blocks[name][0]
        assert original.shape == (frames, 80, 80, 3)
        grey = (np.abs(masked.astype(float) - 128) <= 1).all(-1)
        assert abs(grey.mean() - ratio) < 0.2
        np.testing.assert_array_equal(masked[~grey], original[~grey])
        np.testing.assert_array_equal(rebuilt[~grey], original[~grey])
        assert np.abs(rebuilt.astype(float) - original)[grey].mean() > 1
    height, width = cv2.imread(out).shape[:2]
    assert width > 1000 and height > 300
    plot_confusion_matrix.plt.close('all')


def test_published_checkpoint_predicts_the_same(toolbox_run, tmp_path, capsys):
    publish_model.main([toolbox_run.finetuned, str(tmp_path / 's4d.pth')])
    (out,) = tmp_path.iterdir()
    assert f'{out}: ' in capsys.readouterr().out
    sha = hashlib.sha256(out.read_bytes()).hexdigest()
    assert out.name.startswith('s4d_20') and out.name.endswith(f'-{sha[:8]}.pth')
    assert out.stat().st_size < 0.5 * osp.getsize(toolbox_run.finetuned)
    before, after = (
        ExpressionInferencer(FINETUNE, str(weights), 'cpu')(toolbox_run.clip, faces='none')
        for weights in (toolbox_run.finetuned, out)
    )
    assert before.summary()[0].probabilities == after.summary()[0].probabilities
