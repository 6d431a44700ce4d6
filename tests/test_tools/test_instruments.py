# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""tools/analysis_tools/*.py and publish_model.py."""

import csv
import functools
import hashlib
import os.path as osp
import re

import collect
import compare_tests
import get_flops
import look_inside
import mmengine
import numpy as np
import publish_model
import pytest
import torch
import visualize_reconstruction
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import MODELS, init_default_scope
from runs import FINETUNE, PRETRAIN, ROOT
from statistics_of import calibration, overlap, paired_bootstrap

from s4d_mm.apis import ExpressionInferencer, init_model
from s4d_mm.models.tokens import to_tokens
from s4d_mm.predict.models import published_weights

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


def predictions(path, pairs, names=(0, 1, 2, 3)):
    samples = [
        dict(gt_label=[y], pred_score=np.eye(7)[said].tolist(), input_type='image', sample_id=name)
        for (y, said), name in zip(pairs, names)
    ]
    samples[2]['unreadable'] = pairs[2][0] == 6
    mmengine.dump(samples, path)
    return str(path)


def table(path):
    with open(path, encoding='utf-8') as f:
        return list(csv.DictReader(f))


def test_tests_are_compared_in_pairs(tmp_path, capsys):
    one = predictions(tmp_path / 'a.json', [(0, 0), (0, 0), (6, 6), (0, 2)])
    pairs = [(0, 0), (6, 6), (0, 2), (0, 2)]  # the same samples, the other way round
    two = predictions(tmp_path / 'b.json', pairs, (3, 2, 1, 0))
    out = str(tmp_path / 'x.png')
    compare_tests.main([FINETUNE, f'one={one}', f'two rows={two}', '--out', out])
    lines = [re.split(r' {2,}', line.strip()) for line in capsys.readouterr().out.splitlines()]
    assert lines[:-1] == [
        ['video WAR', 'video UAR', 'image WAR', 'image UAR'],
        ['one', '-', '-', '50.0', '33.3'],
        ['two rows', '-', '-', '50.0', '66.7'],
        ['two rows - one', '-', '-', '+0.0 [-100.0, +100.0]', '+33.3 [-100.0, +100.0]'],
        ['chance', '14.3', '14.3', '14.3', '14.3'],
    ]
    rows = [r for r in table(tmp_path / 'x.csv') if r['panel'].startswith('one')]
    title = 'one, image: 4 samples (1 unreadable) WAR 50.0 %, UAR 33.3 %'
    found = {(r['row'], r['column']): float(r['value']) for r in rows if r['panel'] == title}
    names = ['anger', 'disgust', 'fear', 'happiness', 'neutral', 'sadness', 'surprise']
    assert [row for row, column in found if column == 'fear'] == names  # of the alphabet
    assert [round(found['neutral', name]) for name in names] == [0, 0, 0, 0, 67, 33, 0]
    assert not any(found['anger', name] for name in names)  # what was not read
    ends = [found['neutral', key] for key in ('samples', 'low', 'high')]
    assert ends == pytest.approx([3, 20.77, 93.85], abs=0.01)
    assert [float(r['value']) for r in rows if r['row'] == 'bin 9'][:3] == [4, 1, 0.5]
    with pytest.raises(SystemExit):
        compare_tests.main([FINETUNE, f'one={one}', f'b={predictions(two, pairs)}'])
    assert 'differ' in capsys.readouterr().err


def test_statistics():
    error, counts, *_ = calibration([0.2, 0.2, 0.9, 1.0], [0, 1, 1, 1], 2)
    assert error == pytest.approx((2 * 0.3 + 2 * 0.05) / 4) and counts.tolist() == [2, 2]
    assert [overlap(np.eye(2)[0], np.eye(2)[i]) for i in (0, 1)] == pytest.approx([1, 0])
    rng = np.random.default_rng(0)
    a, labels = rng.random((2, 4000)) < 0.6, np.arange(4000) % 4 == 0
    b = a | (rng.random(4000) < 0.3) & labels  # gains in the smaller class
    gain = 100.0 * (b ^ a)
    mean, error = gain[0].mean(), 1.96 * gain[0].std() / 4000**0.5
    expected = (mean, mean - error, mean + error)
    assert paired_bootstrap(a[0], b[0]) == pytest.approx(expected, abs=0.05)
    value, low, high = paired_bootstrap(a, b, labels=labels)
    assert value == pytest.approx(gain[:, labels].mean() / 2) and low < value < high
    assert paired_bootstrap(a, b, labels=labels) == (value, low, high)  # one seed, one answer


@pytest.fixture(scope='module')
def collected(toolbox_run, tmp_path_factory):
    out = str(tmp_path_factory.mktemp('collected') / 'x.npz')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('QUICKSTART_DIR', str(toolbox_run.folder))
        options = ['--device', 'cpu', '--max-samples', '5', '--out', out]
        collect.main([FINETUNE, toolbox_run.finetuned, *options])
    return out


def test_collected_is_what_the_model_does(toolbox_run, model, collected):
    found = dict(np.load(collected))
    clip = toolbox_run.folder / 'data' / 'clips' / f'{found["video_id"][0]}.mp4'
    info = dict(filename=str(clip), label=-1, start_index=0, modality='RGB', input_type='video')
    batch = pseudo_collate([Compose(model.cfg.test_pipeline)(dict(info, sample_id='clip'))])

    def score(pixels, kind='video'):
        batch['data_samples'][0].set_metainfo(dict(input_type=kind))
        return model.test_step(dict(batch, inputs=[pixels]))[0].pred_score

    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        pixels = batch['inputs'][0]  # two views
        close(found['video_scores'][0], score(pixels))
        hidden = pixels.clone()
        hidden[:, :, 1] = pixels.float().mean(2).to(torch.uint8)
        close(found['video_hidden'][0, 1], score(hidden)[found['video_label'][0]])
        close(found['video_alone'][0, 1], score(pixels[:1, :, 1], 'image'))
        tokens = model.backbone(model.data_preprocessor(batch)['inputs'].flatten(0, 1))
        close(found['video_features'][0], model.cls_head.features(model.neck(tokens)[0]).mean(0))
        block = model.neck.blocks[0]
        tokens = block.norm2(tokens + block.attn(block.norm1(tokens)))
        chosen = block.moae.router(tokens.flatten(0, 1)).experts
    close(found['video_share'][0, 0], np.bincount(chosen.flatten(), minlength=4) / chosen.numel())
    assert found['image_experts'].shape[1:] == (2, 1, 2, 2)  # blocks, t, h, w
    np.testing.assert_array_equal(found['video_experts'][0, 0], chosen[:8, 0].view(2, 2, 2))


def test_experts_of_feature_maps():
    weights = published_weights('rendered_people', None, None)
    model = init_model(osp.join(CONFIGS, 'rendered_people.py'), weights, 'cpu')
    found, x = collect.watch(model), torch.rand(1, 3, 8, 96, 96)
    with torch.no_grad():
        tokens, restore = to_tokens(model.backbone(x))
        model.neck(restore(tokens))
    experts = collect.routing(found, model, x)['experts']
    assert experts.shape == (1, 8, 3, 3)  # B t h w
    torch.testing.assert_close(experts.long(), restore(found[0].experts[None, :, :1])[0])


def test_pictures_of_a_model(collected, tmp_path, capsys):
    found, rows = dict(np.load(collected)), {}
    look_inside.main([collected, '--out', str(tmp_path)])
    for name in ('experts', 'faces', 'tasks', 'frames'):
        assert (tmp_path / f'{name}.png').stat().st_size > 5000
        rows[name] = table(tmp_path / f'{name}.csv')
    means = [float(r['value']) for r in rows['experts'] if r['row'] == 'all']
    shares = np.stack([found[f'{kind}_share'].mean(axis=0) for kind in ('video', 'image')], axis=1)
    np.testing.assert_allclose(means, 100 * shares.flatten(), rtol=1e-5)
    seen = found['image_experts'][found['image_shown'][0]].flatten()
    assert [int(r['expert']) for r in rows['faces'] if r['modality'] == 'image'] == seen.tolist()
    drop = found['video_scores'][0, found['video_label'][0]] - found['video_hidden'][0, 1]
    assert float(rows['frames'][1]['drop']) == pytest.approx(100 * drop, abs=1e-3)
    plain = str(tmp_path / 'plain.npz')
    np.savez(plain, **{key: found[key] for key in found if not key.endswith('_share')})
    for wrong, said in (([plain, 'experts'], 'MoAENeck'), ([f'{plain}.x'], 'is not there')):
        with pytest.raises(SystemExit):
            look_inside.main(wrong)
        assert said in capsys.readouterr().err


def test_tasks_have_their_own_order_of_classes(tmp_path):
    """The image classifier is right at the apex, by the facial actions beside a clip."""
    actions = dict(jawOpen=[0, 0.5, 1], mouthSmileLeft=[0.1, 0.1, 0.2], eyeBlinkLeft=[9, 0, 0])
    mmengine.dump(dict(actions=actions), tmp_path / 'a.json')
    strength = collect.strength_of(str(tmp_path / 'a.mp4'), np.array([0, 2]))
    assert strength == pytest.approx([0.1, 1.2])
    fear, anger = [0.1, 0.2, 0.7], [0.1, 0.7, 0.2]
    np.savez(
        tmp_path / 'x.npz',
        video_classes=['fear', 'anger', 'shame'],  # images have no shame
        image_classes=['neutral', 'anger', 'fear'],
        video_label=[0, 1, 2],
        image_label=[0, 1, 2, 2],
        video_features=[[3.0, 0.0], [1.0, 0.0], [9.0, 9.0]],
        image_features=[[5.0, 5.0], [0.0, 1.0], [0.0, 2.0], [0.0, 4.0]],
        video_scores=[[0.5, 0.3, 0.2], [0.6, 0.4, 0.0], [0.0, 0.1, 0.9]],
        video_alone=[[anger, fear], [fear, anger], [fear, fear]],
        video_strength=[strength] * 3,
    )
    look_inside.main([str(tmp_path / 'x.npz'), 'tasks', '--out', str(tmp_path)])
    rows = table(tmp_path / 'tasks.csv')
    values = {(r['panel'][:3], r['row'], r['column']): float(r['value']) for r in rows}
    wars = [values['WAR', name, 'WAR'] for name in ('apex', 'mean of frames', 'clip classifier')]
    assert wars == [100, 50, 50] and values['Ima', 'fear', 'fear'] == 50
    assert values['Cos', 'fear', 'fear'] == pytest.approx(0)


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
