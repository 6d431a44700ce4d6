# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Exported models: the commands and the code of docs/export.md, and what they give.

The page's commands write the files that most tests look at.
"""

import json
import os
import os.path as osp
import re
import shlex
from types import SimpleNamespace

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers import ROOT, run_script
from mmengine.config import Config
from small_models import FINETUNE, PREDICT, build

from s4d_mm.apis import ExpressionInferencer, init_model
from s4d_mm.predict.export import PixelsToScores
from s4d_mm.predict.scorers import OnnxScorer, read_info
from s4d_mm.predict.windows import Window
from s4d_mm.version import __version__

CLASSES = dict(video=list('abcdefg'), image=list('ABCDEFGH'))
ARCH = dict(embed_dims=32, num_layers=2, num_heads=4)
MODEL = dict(
    FINETUNE,
    data_preprocessor=dict(
        type='DualModalDataPreprocessor', mean=[123.0, 116.0, 103.0], std=[58.0, 57.0, 56.0]
    ),
    backbone=dict(FINETUNE['backbone'], arch=ARCH, depth=1),
    neck=dict(FINETUNE['neck'], arch=ARCH, num_layers=1),
)
RESIZE = dict(type='Resize', scale=(32, 32), keep_ratio=False)
STEPS = PREDICT['image_test_pipeline']
CONFIG = dict(
    PREDICT,
    trained_on='drawn faces',
    model=MODEL,
    image_test_pipeline=[STEPS[0], RESIZE, *STEPS[2:]],
)
FILES = dict(video='s4d.onnx', image='s4d_image.onnx')


def page_blocks(language):
    with open(osp.join(ROOT, 'docs', 'export.md'), encoding='utf-8') as f:
        return re.findall(rf'```{language}\n(.*?)```', f.read(), re.S)


def save_config(folder, config=CONFIG):
    """Write a config, and a checkpoint whose scores are far from equal."""
    Config(config).dump(folder / 'config.py')
    model = build(config['model'], seed=5)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if 'classifiers' in name or 'moae' in name:
                p.normal_(std=0.5)
    meta = dict(dataset_meta=dict(classes=CLASSES))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / 'checkpoint.pth')
    return str(folder / 'config.py'), str(folder / 'checkpoint.pth')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Where the commands of the page have run."""
    folder = tmp_path_factory.mktemp('export')
    config, checkpoint = save_config(folder)
    lines = [ln for ln in page_blocks('bash')[0].splitlines() if ln.startswith('python ')]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in lines:
            words = [
                dict(CONFIG=config, CHECKPOINT=checkpoint).get(w, w) for w in shlex.split(line)
            ]
            with pytest.raises(SystemExit) as stop:
                run_script(words[1], *words[2:])
            assert stop.value.code == 0, line
    files = {'s4d.onnx', 's4d_image.onnx'}
    assert set(os.listdir(folder)) == files | {'config.py', 'checkpoint.pth'}
    return folder


@pytest.fixture(scope='module')
def model(folder):
    return init_model(str(folder / 'config.py'), str(folder / 'checkpoint.pth'), 'cpu')


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def pixels(input_type, count):
    frames = (4,) if input_type == 'video' else ()
    return torch.from_numpy(noise(count, 3, *frames, 32, 32))


def reference(model, input_type, x):
    with torch.no_grad():
        return PixelsToScores(model, input_type).eval()(x)


def assert_close(found, expected, tolerance=1e-4):
    assert len(found) == len(expected)
    for a, b in zip(found, expected):
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape
        assert np.abs(a - b).max() < tolerance


@pytest.mark.parametrize('input_type', ['video', 'image'])
def test_scores_are_those_of_the_test_pipeline(folder, tmp_path, input_type):
    frames = noise(8 if input_type == 'video' else 1, 48, 64, 3)
    for i, picture in enumerate(frames):
        cv2.imwrite(str(tmp_path / f'{i}.png'), picture[..., ::-1])
    files = [str(folder / name) for name in ('config.py', 'checkpoint.pth')]
    options = dict(faces='none', folder='frames' if input_type == 'video' else 'images')
    media = str(tmp_path)
    (record,) = ExpressionInferencer(*files, 'cpu', show_progress=False)(media, **options)
    exported = ExpressionInferencer(str(folder / FILES[input_type]), device='cpu')
    (found,) = exported(media, **options)
    assert exported.scorer.classes == {input_type: list(record.probabilities)}
    assert exported.scorer.window == (Window(4, 2) if input_type == 'video' else None)
    values = list(found.probabilities.values())
    assert_close([values], [list(record.probabilities.values())])
    assert np.ptp(values) > 0.1  # or anything would be close


@pytest.mark.parametrize('input_type', ['video', 'image'])
@pytest.mark.parametrize('count', [1, 5])
def test_any_batch_size(folder, model, input_type, count):
    x = pixels(input_type, count)
    session = onnxruntime.InferenceSession(str(folder / FILES[input_type]))
    names = ['probabilities', 'logits', 'features']
    expected = reference(model, input_type, x)
    assert_close(session.run(names, {'pixels': x.numpy()}), expected)
    scorer = OnnxScorer(str(folder / FILES[input_type]))
    scores = scorer.score(list(x.numpy()), input_type, features=True)
    assert_close(scores, [expected[0], expected[2]])
    assert scores[0].dtype == np.float32


def test_metadata_says_what_is_outside_of_the_graph(folder):
    video, image = (OnnxScorer(str(folder / name)).info for name in FILES.values())
    assert video.pop('int8') is False  # a file of 0.2 may say it
    assert video == dict(
        s4d_mm_version=__version__,
        config='config.py',
        input_type='video',
        classes=CLASSES['video'],
        clip_len=4,
        frame_interval=2,
        size=[32, 32],
        channel_order='RGB',
        mean=[123.0, 116.0, 103.0],
        std=[58.0, 57.0, 56.0],
        steps=[dict(type='ClipResize', scale=[32, 32])],
        interpolation=['Pillow, bilinear, antialiased'],
        loop=False,
        spread=False,
        trained_on='drawn faces',
    )
    strings = {key: json.dumps(value) for key, value in video.items()}
    del strings['spread'], strings['loop'], strings['trained_on']  # a file of 0.2
    assert read_info(strings, 'x') == dict(video, trained_on='unknown data', int8=False)
    assert (image['clip_len'], image['frame_interval']) == (None, None)
    assert image['interpolation'] == ['OpenCV, bilinear']


def test_code_of_the_page(folder, tmp_path, monkeypatch):
    faces = list(noise(4, 40, 40, 3))
    for i, picture in enumerate(faces):
        cv2.imwrite(str(folder / f'face_{i}.png'), picture[..., ::-1])
    monkeypatch.chdir(folder)
    alone, with_package = page_blocks('python')
    names = {}
    assert 's4d_mm' not in alone
    exec(alone, names)
    scorer = OnnxScorer('s4d.onnx')
    expected, _ = scorer.score([scorer.prepare(faces, 'video')], 'video')
    assert_close(names['probabilities'], expected, 1e-4)  # Pillow rounds otherwise
    names = dict(faces=faces)
    exec(with_package, names)
    assert names['features'].shape == (1, 32)


def test_a_file_with_8_bit_weights_runs_sample_by_sample(folder):
    scorer = OnnxScorer(change_metadata(folder / 's4d.onnx', folder / 'x.onnx', int8='true'))
    sizes, run = [], scorer.session.run
    scorer.session = SimpleNamespace(
        run=lambda names, feed: sizes.append(len(feed['pixels'])) or run(names, feed)
    )
    assert scorer.score(list(pixels('video', 3).numpy()), 'video')[0].shape == (3, 7)
    assert sizes == [1, 1, 1]


def change_metadata(path, out, **strings):
    content = onnx.load(path)
    props = {p.key: p.value for p in content.metadata_props}
    del content.metadata_props[:]
    props = {k: v for k, v in {**props, **strings}.items() if v is not None}
    onnx.helper.set_model_props(content, props)
    onnx.save(content, out)
    return str(out)


def test_file_of_a_stranger(folder, tmp_path):
    out = tmp_path / 'x.onnx'
    for change in (dict(s4d_mm_version=None), dict(classes='[')):
        path = change_metadata(folder / 's4d.onnx', out, **change)
        with pytest.raises(ValueError, match='x.onnx was not written by tools/deployment/export'):
            OnnxScorer(path)
    # what the file names is built only if it is on our list
    path = change_metadata(folder / 's4d.onnx', out, steps='[{"type": "LoadImageFromFile"}]')
    with pytest.raises(ValueError, match="The steps \\['LoadImageFromFile'\\] are not among"):
        OnnxScorer(path)
    steps = json.dumps([dict(RESIZE, scale=(16, 16))])
    scorer = OnnxScorer(change_metadata(folder / 's4d_image.onnx', out, steps=steps))
    with pytest.raises(ValueError, match='(?s)cannot run .*x.onnx: .*Expected: 32'):
        scorer.score([scorer.prepare([np.zeros((40, 40, 3), np.uint8)], 'image')], 'image')


def test_tool_refuses_what_it_cannot_export(tmp_path, capsys):
    # the graph does not know of a data preprocessor that swaps channels
    swap = dict(type='mmaction.ActionDataPreprocessor', to_rgb=True, format_shape='NCTHW')
    preprocessor = dict(MODEL['data_preprocessor'], **swap)
    files = save_config(tmp_path, dict(CONFIG, model=dict(MODEL, data_preprocessor=preprocessor)))
    arguments = [*files, tmp_path / 'x.onnx', '--input-type', 'video']
    with pytest.raises(SystemExit) as stop:
        run_script('tools/deployment/export.py', *arguments)
    message = capsys.readouterr().err
    assert stop.value.code == 2 and 'Traceback' not in message
    assert 'gives other numbers than PyTorch' in message and 'ActionDataPreprocessor' in message
    assert set(os.listdir(tmp_path)) == {'config.py', 'checkpoint.pth'}
