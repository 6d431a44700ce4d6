# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The command s4d, with a stand-in for the inferencer; the real one is in test_cli_predict.py."""

import logging
import os.path as osp
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest
from helpers import ROOT, process_env, run_script, write_text
from mmengine.logging import MMLogger, print_log

import s4d_mm
from s4d_mm import apis, cli
from s4d_mm.apis.results import ExpressionRecord, ExpressionResult, MediaResult
from s4d_mm.media import MediaReadError

MODEL = ['--model', 'config.py', '--weights', 'epoch_1.pth']


def found(media='a.mp4', **changes):
    scores = dict(happiness=0.71, surprise=0.12, fear=0.17)
    record = ExpressionRecord(media, 1, 0.0, 2.88, 0, 72, (0, 0, 9, 9), 'happiness', scores)
    return MediaResult(media, 'video', 72, 25.0, (64, 48), {}, [record], **changes)


@pytest.fixture
def inferencer(monkeypatch):
    """Says what it was called with; ``answer`` is what it gives, ``error`` what it raises."""
    seen = SimpleNamespace(answer=[found()], error=None, model_error=None, work=None)

    class StandIn:
        def __init__(self, *model, fold=None):
            seen.model, seen.fold = model, fold
            if seen.model_error:
                raise seen.model_error

        def __call__(self, inputs, **options):
            seen.inputs, seen.options = inputs, options
            if seen.work:
                seen.work()
            if seen.error:
                raise seen.error
            return ExpressionResult(seen.answer)

    monkeypatch.setattr(apis, 'ExpressionInferencer', StandIn, raising=False)
    return seen


def run(capsys, *argv):
    """Exit code, standard output and error of ``s4d``."""
    try:
        code = cli.main(list(map(str, argv)))
    except SystemExit as e:  # argparse
        code = e.code
    return (code, *capsys.readouterr())


# ---------------------------------------------------------------- predict
def test_the_answer_says_once_what_the_model_has_seen(inferencer, capsys):
    inferencer.answer = [found(f'{name}.mp4', trained_on='drawn faces') for name in 'ab']
    out = run(capsys, 'predict', 'a.mp4', 'b.mp4', '--model', 's2d_dfew', '--fold', '3')[1]
    assert out.splitlines()[2:] == ['the model was trained on: drawn faces']
    assert inferencer.model[0] == 's2d_dfew' and inferencer.fold == 3


def test_predict_hands_over_what_it_was_given(inferencer, capsys, tmp_path):
    code, out, err = run(capsys, 'predict', 'a.mp4', *MODEL)
    assert (code, err) == (0, '')
    assert out == 'a.mp4  face 1  0.0-2.9 s  happiness 71 %  (then fear 17 %)\n'
    assert inferencer.model == ('config.py', 'epoch_1.pth', None)
    assert inferencer.inputs == ['a.mp4']
    assert inferencer.options == dict(
        faces='auto',
        folder='auto',
        fps=25,
        window_stride=None,
        batch_size=4,
        features=False,
        out_dir=None,
        draw=True,
    )
    options = ['--faces=largest', '--folder=frames', '--fps=30', '--window-stride=8']
    options += ['--batch-size=2']
    options += ['--device', 'cpu', '--features', '--no-pictures', '--out', tmp_path / 'out']
    assert run(capsys, 'predict', '--camera', 0, *MODEL, *options)[0] == 0
    assert inferencer.inputs == 0 and inferencer.model[2] == 'cpu'
    assert inferencer.options == dict(
        faces='largest',
        folder='frames',
        fps=30,
        window_stride=8,
        batch_size=2,
        features=True,
        out_dir=str(tmp_path / 'out'),
        draw=False,
    )


def test_predict_sets_how_often_faces_are_looked_for(inferencer, capsys, monkeypatch):
    faces = ModuleType('s4d_mm.faces')
    faces.FaceSettings = dict
    monkeypatch.setitem(sys.modules, 's4d_mm.faces', faces)
    assert run(capsys, 'predict', 'a.mp4', *MODEL, '--detect-every', 3)[0] == 0
    assert inferencer.options['face_settings'] == dict(detect_every=3)


@pytest.mark.parametrize(
    'argv, message',
    [
        (['a.mp4'], 'the following arguments are required: --model'),
        (MODEL, 'give videos, images or folders, or --camera N'),
        (['a.mp4', '--camera', '0', *MODEL], 'give videos, images or folders, or --camera N'),
        (['a.mp4', *MODEL, '--faces', 'two'], "invalid choice: 'two'"),
        (['a.mp4', *MODEL, '--features'], 'give --out DIR, too'),
        (['a.mp4', *MODEL, '--no-pictures'], '--out DIR, which is not given'),
        (['a.mp4', *MODEL, '--faces=none', '--detect-every=2'], 'no meaning with --faces none'),
        (['a.mp4', *MODEL, '--out', __file__], 'is no folder and cannot be made one: File exists'),
    ],
)
def test_wrong_call(inferencer, capsys, argv, message):
    code, out, err = run(capsys, 'predict', *argv)
    assert (code, out) == (2, '') and message in err
    assert not hasattr(inferencer, 'model')  # said before the model is loaded


@pytest.mark.parametrize(
    'error, message',
    [
        (ValueError('c.py has no classifier.\n Use b.'), 'c.py has no classifier. Use b.'),
        (FileNotFoundError('epoch_1.pth can not be found.'), 'epoch_1.pth can not be found.'),
        (KeyError('X is not in the registry'), 'KeyError: X is not in the registry'),
        (AssertionError(), 'AssertionError: '),
    ],
)
def test_wrong_model_is_one_sentence(inferencer, capsys, error, message):
    inferencer.model_error = error
    expected = 2, '', f's4d predict: error: {message}\n'
    assert run(capsys, 'predict', 'a.mp4', *MODEL) == expected


@pytest.mark.parametrize(
    'error, code',
    [
        (MediaReadError('Cannot open video a.mp4'), 1),
        (ValueError('a.jpg is an image, but the config has no image classifier'), 2),
        (ImportError('pip install "s4d_mm[faces]"'), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_of_prediction(inferencer, capsys, error, code):
    inferencer.error = error
    text = 'stopped' if code == 130 else f'error: {error}'
    assert run(capsys, 'predict', 'a.mp4', *MODEL) == (code, '', f's4d predict: {text}\n')


def test_a_bug_keeps_its_traceback(inferencer, capsys):
    inferencer.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        run(capsys, 'predict', 'a.mp4', *MODEL)


def test_of_many_inputs_the_bad_ones_are_named(inferencer, capsys):
    broken = MediaResult('b.mp4', 'video', status='unreadable', message='Cannot open video b.mp4')
    message = 'no face was found in its 9 frames'
    empty = MediaResult('c.mp4', 'video', 9, status='no_face', message=message)
    noted = found('d.mp4', message='9 numbered images are read as one clip')
    inferencer.answer = [found(), broken, empty, noted]
    inferencer.work = lambda: [
        print_log(f'{m.media}: {m.message}', 'current', logging.WARNING) for m in (broken, empty)
    ]
    code, out, err = run(capsys, 'predict', *'abcd', *MODEL)
    assert code == 1
    assert [line.split(' (')[0] for line in out.splitlines()] == [
        'a.mp4  face 1  0.0-2.9 s  happiness 71 % ',
        'no face found in c.mp4',
        'd.mp4  face 1  0.0-2.9 s  happiness 71 % ',
    ]
    assert err.splitlines() == [
        's4d predict: Cannot open video b.mp4',
        's4d predict: d.mp4: 9 numbered images are read as one clip',
    ]


def test_the_log_is_silent_but_for_warnings(inferencer, capsys):
    def work():
        print_log('76 of 76 tensors', 'current')
        print_log('a small face', 'current', logging.WARNING)
        print_log('a small face', 'current', logging.WARNING)

    inferencer.work = work
    handlers = list(MMLogger.get_current_instance().handlers)
    _, out, err = run(capsys, 'predict', 'a.mp4', *MODEL)
    assert err == 's4d predict: a small face\n' and '76' not in out
    assert MMLogger.get_current_instance().handlers == handlers


def test_the_files_that_were_written_are_named(inferencer, capsys, tmp_path):
    write_text(tmp_path / 'old.csv', 'of another run')
    inferencer.work = lambda: [write_text(tmp_path / f'a.{s}', s) for s in ('json', 'csv')]
    out = run(capsys, 'predict', 'a.mp4', *MODEL, '--out', tmp_path)[1]
    assert out.splitlines()[-1] == f'written to {tmp_path}: a.csv, a.json'


# ------------------------------------------------------------------ the rest
def test_models_are_listed(capsys):
    code, out, _ = run(capsys, 'models')
    (line,) = [line for line in out.splitlines() if line.startswith('s4d_finetune_mafw')]
    assert code == 0
    assert line.split()[1:5] == ['configs/s4d_finetune_mafw.py', 'MAFW,', 'AffectNet', 'none']
    assert line.endswith('MAFW WAR 58.44 (paper, mean of 5 folds)')
    (line,) = [line for line in out.splitlines() if line.startswith('s2d_finetune_mafw')]
    assert 'fetched by --model s2d_mafw' in line


def test_demo_has_the_options_of_the_page(monkeypatch, capsys):
    demo, seen = ModuleType('s4d_mm.demo'), []
    demo.main = lambda args: seen.append(args.port)
    monkeypatch.setitem(sys.modules, 's4d_mm.demo', demo)
    command = ['demo', *MODEL, '--port']
    assert run(capsys, *command, '7')[0] == 0 and seen == [7]
    demo.main = lambda args: seen.index(args.port)
    assert run(capsys, *command, '8') == (2, '', 's4d demo: error: 8 is not in list\n')


def test_help_has_an_example_of_each_command(capsys):
    code, out, _ = run(capsys, '--help')
    assert code == 0
    for command in ('predict', 'models', 'version', 'demo'):
        assert f'  s4d {command}' in out and f'\n    {command}' in out


def test_the_tool_is_the_same_command(inferencer, capsys):
    with pytest.raises(SystemExit) as e:
        run_script('tools/predict.py', 'a.mp4', *MODEL)
    assert e.value.code == 0 and capsys.readouterr().out.startswith('a.mp4  face 1')


def test_version_as_a_process_prints_nothing_else():
    done = subprocess.run(
        [sys.executable, osp.join(ROOT, 'tools', 's4d'), 'version'],
        env=process_env(),
        text=True,
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, '')
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert {'s4d_mm', 'Python', 'torch', 'mmengine', 'mmaction2', 'mmpretrain'} < set(names)
    assert all(len(line.split()) == 2 for line in done.stdout.splitlines())
    assert {d for r in s4d_mm.REQUIREMENTS for d in r.distributions} < set(cli.DISTRIBUTIONS)
