# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""tools/analysis_tools/*.py and publish_model.py."""

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

CONFIGS = osp.join(ROOT, 'configs')


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


def test_flops_of_a_mix(capsys):
    config = osp.join(CONFIGS, 'mix', 'slowonly_moae_joint.py')
    get_flops.main([config, '--shape', '1', '3', '4', '80', '80'])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[3:]]
    assert [line[0] for line in lines] == ['backbone', 'neck', 'cls_head', 'total']
    assert all(float(line[1]) > 0 for line in lines if line[0] != 'cls_head')
    params = sum(p.numel() for p in build('mix/slowonly_moae_joint').parameters())
    assert float(lines[-1][3]) == pytest.approx(params / 1e6, abs=1e-3)


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
    for wrong in (['none.py', *command[1:]], [*command, '--out', f'{out}/none.py']):
        with pytest.raises(SystemExit, match='none.py'):
            vis_cam.main(wrong)


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


def test_tests_are_compared_in_a_table(drawn, tmp_path, capsys):
    for name, said in (('a', (0, 0, 0, 1)), ('b', (0, 1, 1, 1))):
        samples = predictions(zip((0, 0, 0, 1), said), 'image')
        mmengine.dump(samples, tmp_path / f'{name}.json')
    compare_tests.main([FINETUNE, f'one={tmp_path}/a.json', f'two rows={tmp_path}/b.json'])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ['video', 'WAR', 'video', 'UAR', 'image', 'WAR', 'image', 'UAR'],
        ['one', '-', '-', '100.0', '100.0'],
        ['two', 'rows', '-', '-', '50.0', '66.7'],
        ['chance', '14.3', '14.3', '14.3', '14.3'],
    ]


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
    assert osp.getsize(out) > 5000
    plot_confusion_matrix.plt.close('all')


def test_published_checkpoint_predicts_the_same(toolbox_run, tmp_path):
    publish_model.main([toolbox_run.finetuned, str(tmp_path / 's4d.pth')])
    (out,) = tmp_path.iterdir()
    sha = hashlib.sha256(out.read_bytes()).hexdigest()
    assert out.name.startswith('s4d_20') and out.name.endswith(f'-{sha[:8]}.pth')
    assert out.stat().st_size < 0.5 * osp.getsize(toolbox_run.finetuned)
    publish_model.main([str(out), str(tmp_path / 'half.safetensors'), '--half'])
    (half,) = tmp_path.glob('half*')
    assert half.stat().st_size < 0.55 * out.stat().st_size
    before, after, rounded = (
        ExpressionInferencer(FINETUNE, str(weights), 'cpu')(toolbox_run.clip, faces='none')
        for weights in (toolbox_run.finetuned, out, half)
    )
    assert before.summary()[0].probabilities == after.summary()[0].probabilities
    assert rounded[0].probabilities == pytest.approx(before[0].probabilities, abs=0.01)
    with pytest.raises(SystemExit, match='x_20.* cannot be written'):
        publish_model.main([str(out), f'{out}/x.pth'])
