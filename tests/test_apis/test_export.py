# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Exported models: the commands and the code of docs/export.md, and what they give.

The page's commands write the files that most tests look at.
"""

import json
import os
import os.path as osp
import re
import shlex
import sys

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers import ROOT, run_script
from mmengine.config import Config
from small_models import FINETUNE, PRETRAIN, build

from s4d_mm.apis import ExpressionInferencer, init_model
from s4d_mm.apis.export import PixelsToScores, export_model
from s4d_mm.apis.export_info import ExportInfo
from s4d_mm.apis.onnx_scorer import OnnxScorer
from s4d_mm.apis.scorer import Window
from s4d_mm.version import __version__

CLASSES = dict(video=list('abcdefg'), image=list('ABCDEFGH'))
PACK = dict(type='PackActionInputs', meta_keys=('input_type', 'sample_id'))
ARCH = dict(embed_dims=32, num_layers=2, num_heads=4)
MODEL = dict(
    FINETUNE,
    data_preprocessor=dict(
        type='DualModalDataPreprocessor', mean=[123.0, 116.0, 103.0], std=[58.0, 57.0, 56.0]
    ),
    backbone=dict(FINETUNE['backbone'], arch=ARCH, depth=1),
    neck=dict(FINETUNE['neck'], arch=ARCH, num_layers=1),
)
CONFIG = dict(
    default_scope='mmaction',
    trained_on='drawn faces',
    model=MODEL,
    test_pipeline=[
        dict(type='ClipInit'),
        dict(type='SampleClipViews', clip_len=4, frame_interval=2, num_views=1),
        dict(type='ClipDecode'),
        dict(type='ClipResize', scale=(32, 32)),
        dict(type='FormatShape', input_format='NCTHW'),
        PACK,
    ],
    image_test_pipeline=[
        dict(type='ImageLoad'),
        dict(type='Resize', scale=(32, 32), keep_ratio=False),
        dict(type='FormatShape', input_format='NCHW'),
        PACK,
    ],
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
    return folder


@pytest.fixture(scope='module')
def model(folder):
    return init_model(str(folder / 'config.py'), str(folder / 'checkpoint.pth'), 'cpu')


@pytest.fixture(scope='module')
def inferencer(folder):
    files = [str(folder / name) for name in ('config.py', 'checkpoint.pth')]
    return ExpressionInferencer(*files, 'cpu', show_progress=False)


def noise(count, shape, seed=0):
    return list(np.random.default_rng(seed).integers(0, 256, (count, *shape, 3), dtype=np.uint8))


def write_pictures(folder, pictures, name='face_{}.png'):
    os.makedirs(folder, exist_ok=True)
    paths = [osp.join(folder, name.format(i)) for i in range(len(pictures))]
    for path, picture in zip(paths, pictures):
        cv2.imwrite(path, picture[..., ::-1])
    return paths


def pixels(input_type, count):
    shape = dict(video=(3, 4, 32, 32), image=(3, 32, 32))[input_type]
    return torch.from_numpy(
        np.random.default_rng(1).integers(0, 256, (count, *shape), dtype=np.uint8)
    )


def reference(model, input_type, x):
    with torch.no_grad():
        return PixelsToScores(model, input_type).eval()(x)


def assert_close(found, expected, tolerance=1e-4):
    assert len(found) == len(expected)
    for a, b in zip(found, expected):
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape
        assert np.abs(a - b).max() < tolerance


def test_the_page_leaves_these_files_and_no_others(folder):
    files = {'s4d.onnx', 's4d_image.onnx', 's4d.pt2', 's4d_int8.onnx'}
    assert set(os.listdir(folder)) == files | {'config.py', 'checkpoint.pth'}


def test_clip_has_the_scores_of_the_test_pipeline(folder, inferencer, tmp_path):
    frames = noise(8, (48, 64))
    write_pictures(tmp_path / 'clip', frames)
    (record,) = inferencer(str(tmp_path / 'clip'), faces='none', folder='frames')
    expected = record.probabilities
    scorer = OnnxScorer(str(folder / 's4d.onnx'))
    assert scorer.classes == dict(video=list(expected))
    assert scorer.window == Window(4, 2)
    found, features = scorer.score([scorer.prepare(frames[::2], 'video')], 'video')
    assert features is None
    assert found.dtype == np.float32
    assert_close(found, [list(expected.values())])
    assert np.ptp(found) > 0.1  # or anything would be close


def test_image_has_the_scores_of_the_test_pipeline(folder, inferencer, tmp_path):
    (image,) = noise(1, (48, 64))
    (path,) = write_pictures(tmp_path, [image])
    (record,) = inferencer(path, faces='none')
    expected = record.probabilities
    scorer = OnnxScorer(str(folder / 's4d_image.onnx'))
    assert scorer.classes == dict(image=list(expected))
    assert scorer.window is None
    found, _ = scorer.score([scorer.prepare([image], 'image')], 'image')
    assert_close(found, [list(expected.values())])
    assert np.ptp(found) > 0.1


@pytest.mark.parametrize('input_type', ['video', 'image'])
@pytest.mark.parametrize('count', [1, 5])
def test_any_batch_size_in_onnxruntime(folder, model, input_type, count):
    x = pixels(input_type, count)
    session = onnxruntime.InferenceSession(str(folder / FILES[input_type]))
    names = ['probabilities', 'logits', 'features']
    expected = reference(model, input_type, x)
    assert_close(session.run(names, {'pixels': x.numpy()}), expected)
    scorer = OnnxScorer(str(folder / FILES[input_type]))
    scores = scorer.score(list(x.numpy()), input_type, features=True)
    assert_close(scores, [expected[0], expected[2]])


@pytest.mark.parametrize('count', [1, 5])
def test_any_batch_size_in_torch_export(folder, model, count):
    x = pixels('video', count)
    extra = {'s4d_mm.json': ''}
    program = torch.export.load(str(folder / 's4d.pt2'), extra_files=extra)
    assert_close(program.module()(x), reference(model, 'video', x))
    assert json.loads(extra['s4d_mm.json'])['classes'] == CLASSES['video']


@pytest.mark.parametrize(('name', 'input_type'), [('a.onnx', 'video'), ('a.pt2', 'image')])
def test_without_experts(tmp_path, name, input_type):
    plain = dict(MODEL, backbone=dict(MODEL['backbone'], depth=2), neck=None)
    config, checkpoint = save_config(tmp_path, dict(CONFIG, model=plain))
    out = str(tmp_path / 'new' / name)
    report = export_model(config, checkpoint, out, input_type)
    assert set(report.differences) == {'probabilities', 'logits', 'features'}
    assert max(report.differences.values()) < 1e-4
    assert report.size == osp.getsize(out)
    if name.endswith('.onnx'):  # and by another way than the report's
        x = pixels(input_type, 2)
        expected = reference(init_model(config, checkpoint, 'cpu'), input_type, x)
        assert_close(OnnxScorer(out).score(list(x.numpy()), input_type)[0], expected[0])


def test_metadata_says_what_is_outside_of_the_graph(folder):
    video, image = (OnnxScorer(str(folder / name)).info for name in FILES.values())
    assert video._asdict() == dict(
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
        int8=False,
        spread=False,
        trained_on='drawn faces',
    )
    strings = video._replace(spread=True).to_strings()
    assert ExportInfo.from_strings(strings, 'x').window.spread
    del strings['spread'], strings['trained_on']  # a file of 0.2
    assert ExportInfo.from_strings(strings, 'x') == video._replace(trained_on='unknown data')
    assert (image.clip_len, image.frame_interval) == (None, None)
    assert image.classes == CLASSES['image']
    assert image.interpolation == ['OpenCV, bilinear']


def test_code_of_the_page_without_this_package(folder, tmp_path, monkeypatch):
    faces = noise(4, (40, 40))
    write_pictures(tmp_path, faces)
    monkeypatch.chdir(tmp_path)
    names = dict()
    code = page_blocks('python')[0]
    assert 's4d_mm' not in code
    exec(code.replace("'s4d.onnx'", repr(str(folder / 's4d.onnx'))), names)
    scorer = OnnxScorer(str(folder / 's4d.onnx'))
    expected, _ = scorer.score([scorer.prepare(faces, 'video')], 'video')
    assert_close(names['probabilities'], expected, 1e-6)


def test_other_code_of_the_page(folder, monkeypatch):
    monkeypatch.chdir(folder)
    names = dict(faces=noise(4, (40, 40)))
    for code in page_blocks('python')[1:]:
        exec(code.replace('16, 160, 160', '4, 32, 32'), names)
    assert names['features'].shape == (1, 32)
    assert json.loads(names['extra']['s4d_mm.json'])['clip_len'] == 4


def test_int8_is_small_and_a_sample_does_not_feel_its_neighbours(folder, model):
    scorer = OnnxScorer(str(folder / 's4d_int8.onnx'))
    assert scorer.info.int8
    operators = {node.op_type for node in onnx.load(folder / 's4d_int8.onnx').graph.node}
    assert 'MatMulInteger' in operators
    assert osp.getsize(folder / 's4d_int8.onnx') < osp.getsize(folder / 's4d.onnx')
    x = pixels('video', 3)
    x[1] //= 8
    together, _ = scorer.score(list(x.numpy()), 'video')
    alone = [scorer.score([one], 'video')[0][0] for one in x.numpy()]
    assert_close(together, alone, 1e-6)
    assert_close([together], reference(model, 'video', x)[:1], 0.1)


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
    path = change_metadata(folder / 's4d.onnx', out, s4d_mm_version=None)
    with pytest.raises(ValueError, match='x.onnx was not written by tools/deployment/export.py'):
        OnnxScorer(path)
    path = change_metadata(folder / 's4d.onnx', out, classes='[')
    with pytest.raises(ValueError, match='x.onnx has no readable metadata'):
        OnnxScorer(path)
    # what the file names is built only if it is on our list
    path = change_metadata(folder / 's4d.onnx', out, steps='[{"type": "LoadImageFromFile"}]')
    with pytest.raises(ValueError, match="The steps \\['LoadImageFromFile'\\] are not among"):
        OnnxScorer(path)


def test_scorer_says_what_is_wrong(folder, tmp_path, monkeypatch):
    path = str(folder / 's4d.onnx')
    scorer = OnnxScorer(path)
    for call in (scorer.prepare, scorer.score):
        with pytest.raises(ValueError, match="exported for the input type 'video'.*'image'"):
            call(noise(1, (40, 40)), 'image')
    with pytest.raises(ValueError, match=r'takes samples of the shape \(3, 4, 32, 32\)'):
        scorer.prepare(noise(3, (40, 40)), 'video')
    with pytest.raises(FileNotFoundError, match='no file nowhere.onnx'):
        OnnxScorer('nowhere.onnx')
    (tmp_path / 'x.onnx').write_text('nothing')
    with pytest.raises(ValueError, match='onnxruntime cannot run .*x.onnx'):
        OnnxScorer(str(tmp_path / 'x.onnx'))
    with pytest.raises(ValueError, match="device must be .* but is 'tpu'"):
        OnnxScorer(path, 'tpu')
    monkeypatch.setattr('onnxruntime.get_available_providers', lambda: ['CPUExecutionProvider'])
    with pytest.raises(ValueError, match="device='cuda:1' needs another onnxruntime"):
        OnnxScorer(path, 'cuda:1')
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(ImportError, match='pip install onnxruntime'):
        OnnxScorer(path)


def test_features_that_the_file_does_not_have(folder, tmp_path):
    content = onnx.load(folder / 's4d.onnx')
    del content.graph.output[2]
    onnx.save(content, tmp_path / 'x.onnx')
    scorer = OnnxScorer(str(tmp_path / 'x.onnx'))
    sample = pixels('video', 1).numpy()
    assert scorer.score(sample, 'video')[0].shape == (1, 7)
    with pytest.raises(ValueError, match='x.onnx gives no features'):
        scorer.score(sample, 'video', features=True)


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        run_script('tools/deployment/export.py', *arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert 'Traceback' not in error
    return error


def test_tool_refuses_what_it_cannot_export(folder, tmp_path, capsys, monkeypatch):
    config, checkpoint, out = folder / 'config.py', folder / 'checkpoint.pth', tmp_path / 'x.onnx'
    video = ('--input-type', 'video')

    def error(*arguments):
        return refused(capsys, *arguments)

    assert 'no file nowhere.py' in error('nowhere.py', checkpoint, out, *video)
    assert 'must end with .onnx or .pt2' in error(config, checkpoint, tmp_path / 'x.pb', *video)
    pt2 = tmp_path / 'x.pt2'
    assert 'are for .onnx files' in error(config, checkpoint, pt2, *video, '--int8')
    assert 'opset must be in 18..' in error(config, checkpoint, out, *video, '--opset', 7)

    pretrain = tmp_path / 'pretrain.py'
    Config(dict(default_scope='mmpretrain', model=PRETRAIN)).dump(pretrain)
    torch.save(build(PRETRAIN, 'mmpretrain').state_dict(), tmp_path / 'pretrain.pth')
    message = error(pretrain, tmp_path / 'pretrain.pth', pt2, *video)
    assert 'its model S4DMAE has no head with classes' in message
    assert 'pretrain.py' in message

    for package in ('onnxscript', 'onnxruntime', 'onnx'):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            assert f'{package} is missing: pip install' in error(config, checkpoint, out, *video)
    assert set(os.listdir(tmp_path)) == {'pretrain.py', 'pretrain.pth'}


def test_tool_refuses_an_input_type_that_the_model_lacks(tmp_path, capsys):
    head = dict(MODEL['cls_head'], num_classes=dict(video=7))
    config, checkpoint = save_config(tmp_path, dict(CONFIG, model=dict(MODEL, cls_head=head)))
    message = refused(capsys, config, checkpoint, tmp_path / 'x.pt2', '--input-type', 'image')
    assert "no classifier for the input type 'image', but for 'video'" in message
    assert 'config.py' in message

    config, checkpoint = save_config(tmp_path, dict(CONFIG, image_test_pipeline=None))
    message = refused(capsys, config, checkpoint, tmp_path / 'x.pt2', '--input-type', 'image')
    assert 'has no `image_test_pipeline`' in message


def test_file_that_computes_something_else_is_not_kept(tmp_path, capsys):
    """The graph does not know of a data preprocessor that swaps channels."""
    preprocessor = dict(
        type='mmaction.ActionDataPreprocessor',
        mean=[123.0, 116.0, 103.0],
        std=[58.0, 57.0, 56.0],
        to_rgb=True,
        format_shape='NCTHW',
    )
    model = dict(MODEL, data_preprocessor=preprocessor)
    config, checkpoint = save_config(tmp_path, dict(CONFIG, model=model))
    message = refused(capsys, config, checkpoint, tmp_path / 'x.pt2', '--input-type', 'video')
    assert 'gives other numbers than PyTorch' in message
    assert 'ActionDataPreprocessor' in message
    assert not [name for name in os.listdir(tmp_path) if 'x' in name.split('.')[0]]
