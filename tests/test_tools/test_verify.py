# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""tools/data/verify.py finds each kind of trouble that it claims, and none in sound data."""

import csv
import os
import os.path as osp
import re
import shutil
import signal
import sys

import av
import pytest
import verify
from helpers import ROOT, truncate, write_frames, write_image, write_text, write_video
from mmengine.config import Config

from s4d_mm.datasets import DFEW
from s4d_mm.media import read_video

CONFIG = """
default_scope = 'mmaction'
pipeline = [dict(type='ClipInit'),
            dict(type='SampleClipViews', clip_len=8, frame_interval=1),
            dict(type='ClipDecode')]
clips = dict(type='ExpressionVideoDataset', data_root={root!r},
             metainfo=dict(classes=('calm', 'glad', 'sad')),
             pipeline=pipeline)
train_dataloader = dict(dataset=dict(
    type='DualModalDataset',
    video=dict(ann_file='train.csv', **clips),
    image=dict(type='RAFDB', data_root={root!r}, ann_file='images.txt',
               data_prefix=dict(img='images'))))
val_dataloader = dict(dataset=dict(ann_file='test.csv', **clips))
test_dataloader = dict(dataset=dict(
    ann_file='test.csv', test_mode=True, **clips))
"""


@pytest.fixture(scope='module')
def sound(tmp_path_factory):
    """A sound set: video files and folders of frames, images."""
    root = tmp_path_factory.mktemp('sound')
    for i in range(3):
        write_video(root / 'clips' / f'{i}.mp4', 10 + i, first=20 * i)
    write_frames(str(root / 'frames' / 'a'), 12, 40, 50)
    for i in range(12):  # every fifth frame, from 5
        write_image(root / 'frames' / 'b' / f'f_{5 * i + 5}.png', number=40 + i)
    for i in range(7):
        write_image(root / 'images' / f'train_{i}_aligned.jpg', 30, 30, number=i)
    write_text(
        root / 'train.csv',
        'video_name,label',
        'clips/0.mp4,0',
        'clips/1.mp4,glad',
        '',
        'frames/a,2',
    )
    write_text(root / 'test.csv', 'clips/2.mp4,1', 'frames/b,0')
    write_text(root / 'images.txt', *[f'train_{i}.jpg {i + 1}' for i in range(7)])
    return root


@pytest.fixture
def data(sound, tmp_path):
    """A copy of it, to be damaged, and its config."""
    root = tmp_path / 'data'
    shutil.copytree(sound, root)
    config = tmp_path / 'config.py'
    config.write_text(CONFIG.format(root=str(root)))
    return root, str(config)


def append(path, *lines):
    with open(path, 'a', encoding='utf-8') as f:
        f.writelines(f'{line}\n' for line in lines)


def findings(config, level='trouble', **kwargs):
    splits, _ = verify.verify(Config.fromfile(config), **kwargs)
    return [f for s in splits for f in s.findings if f.level == level]


@pytest.mark.parametrize('decode', ['all', 'ends', 'none'])
def test_sound_data(data, capfd, decode):
    _, config = data
    assert verify.main([config, '--decode', decode, '--workers', '2']) == 0
    out = capfd.readouterr()
    assert out.out.startswith('0 troubles\n1 note\n  val/test video: no sample of sad\n')
    assert out.err == ''  # which is no terminal
    train, image, test = out.out.split('\n\n')[-3:]
    assert train.startswith('train video: ExpressionVideoDataset')
    assert 'val/test video' in test  # the same split once
    assert [line.split() for line in train.splitlines()[1:]] == [
        ['samples', '3'],
        ['unreadable', '0'],
        ['height', 'x', 'width', '40', 'x', '50', '..', '48', 'x', '64'],
        ['frames', 'min', '/', 'median', '/', 'max', '10', '/', '11', '/', '12'],
        ['0', 'calm', '1', '(33.3%)'],
        ['1', 'glad', '1', '(33.3%)'],
        ['2', 'sad', '1', '(33.3%)'],
    ]
    assert 'frames' not in image and '30 x 30' in image
    assert 'no sample of sad' in out.out  # a note: test


def missing(root):
    os.remove(root / 'clips/1.mp4')
    return 'clips/1.mp4', 'does not exist', 'train.csv:3', '1 glad'


def cut_video(root):
    truncate(root / 'clips/1.mp4')
    return 'clips/1.mp4', 'Cannot open video', 'train.csv:3', '1 glad'


def cut_video_with_index(root):
    path = write_video(root / 'clips/2.mp4', 100, faststart=True)
    truncate(path, 0.6)
    return 'clips/2.mp4', 'it is cut off', 'test.csv:1', '1 glad'


def to_another(root, suffix, codec):
    """Clip 1 in another container; its path."""
    path = str(root / f'clips/1{suffix}')
    with av.open(path, 'w') as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, 'yuv420p'
        for frame in read_video(str(root / 'clips/1.mp4')):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        container.mux(stream.encode())
    text = (root / 'train.csv').read_text()
    (root / 'train.csv').write_text(text.replace('1.mp4', f'1{suffix}'))
    return path


def cut_off(root):
    truncate(to_another(root, '.avi', 'mpeg4'), 0.9)
    return 'clips/1.avi', '1.avi: it is cut off', 'train.csv:3', '1 glad'


def no_bytes(root):
    open(root / 'clips/0.mp4', 'w').close()
    return 'clips/0.mp4', 'zero bytes', 'train.csv:2', '0 calm'


def text_as_video(root):
    write_text(root / 'clips/0.mp4', 'Not found')
    return 'clips/0.mp4', 'Cannot open video', 'train.csv:2', '0 calm'


def cut_frame(root):
    truncate(root / 'frames/a/00005.jpg')
    return 'frames/a', '00005.jpg', 'train.csv:5', '2 sad'


def no_bytes_frame(root):
    open(root / 'frames/a/00005.jpg', 'w').close()
    return 'frames/a', '00005.jpg has zero bytes', 'train.csv:5', '2 sad'


def no_frames(root):
    shutil.rmtree(root / 'frames/a')
    write_text(root / 'frames/a/readme.txt', 'frames')
    return 'frames/a', 'has no image files', 'train.csv:5', '2 sad'


def missing_number(root):
    os.remove(root / 'frames/a/00005.jpg')
    return 'frames/a', '1 frame(s) missing from 0 to 11: number 5', ('train.csv:5'), '2 sad'


def missing_number_in_steps(root):
    os.remove(root / 'frames/b/f_20.png')
    os.remove(root / 'frames/b/f_25.png')
    return 'frames/b', '2 frame(s) missing from 5 to 60: number 20', ('test.csv:2'), '0 calm'


def number_twice(root):
    shutil.copy(root / 'frames/a/00005.jpg', root / 'frames/a/5.jpg')
    return 'frames/a', 'several frames of the number 5', 'train.csv:5', '2 sad'


def cut_image(root):
    truncate(root / 'images/train_3_aligned.jpg')
    return 'images/train_3_aligned.jpg', 'Cannot decode image', ('images.txt:4'), '3 happiness'


def text_as_image(root):
    write_text(root / 'images/train_3_aligned.jpg', 'Not found')
    return 'images/train_3_aligned.jpg', 'Cannot', 'images.txt:4', ('3 happiness')


def label_too_large(root):
    append(root / 'train.csv', 'clips/9.mp4,3')
    return 'clips/9.mp4,3', "unknown label '3'", 'train.csv:6', ''


def label_of_another_set(root):
    append(root / 'images.txt', 'train_9.jpg 0')
    return 'train_9.jpg 0', "unknown label '0'", 'images.txt:8', ''


def line_without_label(root):
    append(root / 'train.csv', 'clips/9.mp4')
    return 'clips/9.mp4', 'expected a name and a label', 'train.csv:6', ''


def no_annotation(root):
    os.remove(root / 'images.txt')
    return 'images.txt', 'does not exist', '', ''


def nothing_but_bad_lines(root):
    write_text(root / 'images.txt', 'train_9.jpg 8')
    return 'train_9.jpg 8', "unknown label '8'", 'images.txt:1', ''


def nothing_but_a_header(root):
    write_text(root / 'images.txt', 'name label')
    return 'images.txt', 'has no samples', '', ''


def same_file_twice(root):
    append(root / 'train.csv', 'clips/../clips/0.mp4,0')
    return 'clips/../clips/0.mp4', 'the same file as', 'train.csv:6', '0 calm'


def two_labels(root):
    shutil.copy(root / 'clips/0.mp4', root / 'clips/copy.mp4')
    append(root / 'train.csv', 'clips/copy.mp4,1')
    return 'clips/copy.mp4', 'with another label', 'train.csv:6', '1 glad'


def test_in_train(root):
    append(root / 'test.csv', 'clips/0.mp4,0')
    return 'clips/0.mp4', 'the same file as', 'test.csv:3', '0 calm'


def copy_in_train(root):
    shutil.copy(root / 'clips/0.mp4', root / 'clips/new.mp4')
    append(root / 'test.csv', 'clips/new.mp4,0')
    return 'clips/new.mp4', 'the same content as', 'test.csv:3', '0 calm'


def folder_copy_in_train(root):
    shutil.copytree(root / 'frames/a', root / 'frames/new')
    append(root / 'test.csv', 'frames/new,2')
    return 'frames/new', 'the same content as', 'test.csv:3', '2 sad'


KINDS = [
    missing,
    cut_video,
    cut_video_with_index,
    cut_off,
    no_bytes,
    text_as_video,
    cut_frame,
    no_bytes_frame,
    no_frames,
    missing_number,
    missing_number_in_steps,
    number_twice,
    cut_image,
    text_as_image,
    label_too_large,
    label_of_another_set,
    line_without_label,
    no_annotation,
    nothing_but_bad_lines,
    nothing_but_a_header,
    same_file_twice,
    two_labels,
    test_in_train,
    copy_in_train,
    folder_copy_in_train,
]
test_in_train.__test__ = False


@pytest.mark.parametrize('damage', KINDS)
def test_each_kind_of_trouble(data, damage):
    root, config = data
    path, what, line, label = damage(root)
    found = findings(config)
    assert len(found) == 1, found
    assert found[0].path.endswith(path) and what in found[0].what
    assert found[0].line.endswith(line) and bool(line) == bool(found[0].line)
    assert found[0].label == label


@pytest.mark.parametrize(
    'damage',
    [
        missing,
        cut_video,
        cut_off,
        no_bytes,
        no_bytes_frame,
        no_frames,
        missing_number,
        text_as_image,
        copy_in_train,
    ],
)
def test_trouble_without_decoding(data, damage):
    root, config = data
    path, what, _, _ = damage(root)
    found = findings(config, decode='none')
    assert len(found) == 1 and path in found[0].path


@pytest.mark.parametrize('decode', ['all', 'ends', 'none'])
def test_a_clip_that_is_slow_to_read_is_a_note(data, decode, capfd):
    root, config = data
    to_another(root, '.mpg', 'mpeg2video')
    assert verify.main([config, '--decode', decode, '--workers', '0']) == 0
    out = capfd.readouterr().out
    assert '1 of 3 clips of train video are decoded from their first frame' in out
    assert re.search(r'clips/1.mpg .*\(\d+\.\d\d s here for 11 frames\)', out)


def test_all_bad_lines_and_all_files(data, tmp_path, capfd):
    """Several troubles at once, by the command, in processes."""
    root, config = data
    missing(root), cut_frame(root), cut_image(root), copy_in_train(root)
    append(root / 'train.csv', 'a,3', 'b,-1', 'c,joy', '=1\x1b[2J.mp4,0')
    out = str(tmp_path / 'found' / 'list.csv')
    assert verify.main([config, '--workers', '2', '--out', out]) == 1
    text = capfd.readouterr().out
    assert '8 troubles' in text and '\x1b' not in text
    for number, label in ((6, '3'), (7, '-1'), (8, 'joy')):
        assert f"train.csv:{number}: unknown label '{label}'" in text
    assert 'unreadable                3' in text
    with open(out, newline='') as f:
        rows = list(csv.DictReader(f))
    assert sum(r['level'] == 'trouble' for r in rows) == 8
    assert any(r['path'].endswith('=1\x1b[2J.mp4') for r in rows)
    assert {r['split'] for r in rows} == {'train video', 'train image', 'val/test video'}


def test_report_begins_with_a_line_for_each_kind(data, capfd):
    root, config = data
    shutil.rmtree(root / 'images')
    missing(root), cut_frame(root), no_bytes_frame(root)
    append(root / 'train.csv', 'a,3', 'b,-1')
    for i in range(11):
        append(root / 'test.csv', f'none/{i}.mp4,0')
    os.remove(root / 'clips/2.mp4')
    assert verify.main([config, '--workers', '0']) == 1
    out = capfd.readouterr().out
    summary, *groups = out.split('\n\n')
    assert summary.splitlines() == [
        '23 troubles',
        '  2 of 5 lines of train video cannot be read',
        '  1 of 3 files of train video are missing',
        '  1 of 3 files of train video cannot be read',
        '  7 of 7 files of train image are missing: is data_root right?',
        '  12 of 13 files of val/test video are missing',
        '1 note',
        '  val/test video: no sample of sad',
    ]
    # then the findings of each kind, and the tables at last
    titles = [line.strip() for line in summary.splitlines() if line.startswith(' ')]
    assert [g.splitlines()[0] for g in groups[:-3]] == titles
    assert groups[3].count('does not exist') == 7
    assert groups[4].splitlines()[-1] == '  ... and 2 more; --out FILE.csv writes all'
    assert [g.split(':')[0] for g in groups[-3:]] == [
        'train video',
        'train image',
        'val/test video',
    ]


def test_missing_list_in_one_line(data, capfd):
    root, config = data
    no_annotation(root)
    assert verify.main([config, '--workers', '0']) == 1
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == '1 trouble' and lines[2] == '1 note'
    assert 'the annotation file of train image cannot be used' in lines[1]
    assert 'test.csv, train.csv' in lines[1]  # which are there


@pytest.mark.parametrize('terminal', [True, False])
def test_progress_on_a_terminal_only(data, capsys, monkeypatch, terminal):
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: terminal, raising=False)
    assert verify.main([data[1], '--workers', '0', '--decode', 'none']) == 0
    assert ('12/12' in capsys.readouterr().err) == terminal


def test_fold(tmp_path, capfd):
    """``fold=3`` chooses the lists, as for a training."""
    lists = dict(train_set_1='0', train_set_3='1', test_set_1='0', test_set_3='2')
    for name, clip in lists.items():
        write_text(tmp_path / f'{name}.csv', f'{clip},0')
        write_frames(str(tmp_path / clip), 2)
    dataset = f"dict(type='DFEW', data_root={str(tmp_path)!r}, ann_file='{{}}_set_1.csv')"
    config = tmp_path / 'config.py'
    config.write_text(
        f'train_dataloader = dict(dataset={dataset.format("train")})\n'
        f'test_dataloader = dict(dataset={dataset.format("test")})\n'
    )
    arguments = [str(config), '--workers', '0', '--cfg-options', 'fold=3']
    verify.main(arguments)
    out = capfd.readouterr().out
    assert 'train_set_3.csv' in out and 'test_set_3.csv' in out and 'set_1.csv' not in out


def test_labels_are_those_of_the_map(data):
    root, config = data
    cfg = Config.fromfile(config)
    cfg.train_dataloader.dataset.video.merge(
        dict(
            label_map=dict(calm='still', glad=None, sad='sad'),
            metainfo=dict(classes=('sad', 'still', 'x')),
        )
    )
    split = verify.find_splits(cfg)[0]
    assert [split.class_name(s.label) for s in split.samples] == ['1 still', '0 sad']


def test_notes(data):
    """What may be meant: short clips, like clips, sizes."""
    root, config = data
    write_frames(str(root / 'frames/short'), 3, pattern='{}.png')
    write_image(root / 'frames/short/3.png', 20, 20)
    shutil.copytree(root / 'frames/a', root / 'frames/longer')
    write_image(root / 'frames/longer/00012.jpg', 40, 50, 13)
    shutil.copy(root / 'clips/0.mp4', root / 'clips/copy.mp4')
    append(root / 'train.csv', 'frames/short,0', 'clips/copy.mp4,0')
    append(root / 'test.csv', 'frames/longer,2')
    assert not findings(config)
    notes = [(osp.basename(f.path), f.what) for f in findings(config, 'note')]
    for path, what in (
        ('short', '4 frames, fewer than clip_len=8'),
        ('short', 'frames differ in size'),
        ('copy.mp4', 'the same content as'),
        ('longer', 'begins with the same frame as'),
    ):
        assert any(p == path and what in w for p, w in notes), notes


def test_train_and_test_are_one_file(data):
    _, config = data
    cfg = Config.fromfile(config)
    cfg.test_dataloader.dataset.ann_file = 'train.csv'
    splits, _ = verify.verify(cfg)
    found = [f for s in splits for f in s.findings if f.level == 'trouble']
    assert len(found) == 1 and 'train and test are the same' in found[0].what


def test_names_without_labels(tmp_path):
    write_video(tmp_path / 'a.mp4')
    config = tmp_path / 'config.py'
    write_text(tmp_path / 'list.txt', 'path', '', 'a.mp4', 'b.mp4')
    config.write_text(
        'train_dataloader = dict(dataset=dict(type="VoxCeleb2", '
        f'data_root={str(tmp_path)!r}, ann_file="list.txt"))'
    )
    found = findings(str(config))
    assert len(found) == 1 and found[0].line.endswith('list.txt:4')
    assert found[0].label == ''


def test_a_crashing_decoder_ends_one_file_only(data, monkeypatch, capfd):
    check = verify.check_media

    def crash(job):
        if job[0].endswith('1.mp4'):
            os.kill(os.getpid(), signal.SIGKILL)
        return check(job)

    crash.__qualname__ = 'check_media'
    crash.__module__ = 'verify'
    monkeypatch.setattr(verify, 'check_media', crash)
    _, config = data
    found = findings(config, workers=2)
    assert [osp.basename(f.path) for f in found] == ['1.mp4']
    assert 'decoder crashes' in found[0].what


def test_recipe(tmp_path, monkeypatch):
    """A recipe, whose lists lie in data/: both modalities, validation and test once."""
    mafw, affectnet = tmp_path / 'data' / 'MAFW', tmp_path / 'data' / 'AffectNet'
    for i in range(3):
        write_frames(str(mafw / 'frames' / f'{i:05d}'), 20 + i, pattern='{:05d}.png')
        write_image(affectnet / 'images' / f'{i}.jpg', number=i)
    write_text(mafw / 'annotations' / 'set_1_train.csv', '00000,0', '00001,1')
    write_text(mafw / 'annotations' / 'set_1_test.csv', '00002,2', '00001,1')
    write_text(affectnet / 'annotations' / 'train_7.txt', '0.jpg 0', '1.jpg 1')
    write_text(affectnet / 'annotations' / 'test_7.txt', '2.jpg 2')
    monkeypatch.chdir(tmp_path)
    splits, media = verify.verify(
        Config.fromfile(osp.join(ROOT, 'configs', 's4d_finetune_mafw.py')), decode='ends'
    )
    assert {s.name: len(s.samples) for s in splits} == {
        'train video': 2,
        'train image': 2,
        'val/test video': 2,
        'val/test image': 1,
    }
    assert all(m.readable for m in media.values())
    troubles = [f for s in splits for f in s.findings if f.level == 'trouble']
    assert len(troubles) == 1 and 'test data in the training data' in troubles[0].what


@pytest.mark.parametrize(
    'name, lines, samples, lines_in_trouble',
    [
        ('CREMAD', ['1001_DFA_ANG_XX', 'a', '1001_DFA_ANG_XX,8', '1002_DFA_FEA_HI'], 1, [2, 3]),
        ('RAFDB', ['train_1.jpg 1', 'test_1.jpg 1', 'train_2.jpg 8'], 1, [3]),
        (
            'FERPlus',
            ['Training,a.png,9' + ',0' * 9, 'Training,b.png', 'Training,c,x' + ',0' * 9],
            1,
            [2, 3],
        ),
    ],
)
def test_lines_of_public_lists(tmp_path, name, lines, samples, lines_in_trouble):
    """Every bad line is found, also where the dataset takes only a part of the file."""
    part = dict(
        CREMAD=dict(subjects=[1001]), RAFDB=dict(split='train'), FERPlus=dict(split='train')
    )[name]
    dataset = dict(type=name, ann_file=write_text(tmp_path / 'list.txt', *lines), **part)
    (split,) = verify.find_splits(Config(dict(train_dataloader=dict(dataset=dataset))))
    assert len(split.samples) == samples
    assert [f.line for f in split.findings] == [
        f'{tmp_path}/list.txt:{i}' for i in lines_in_trouble
    ]


@pytest.mark.parametrize('indices, labels', [(2, [0, 1]), (-1, [2]), ([2, 0], [2, 0])])
def test_indices(data, indices, labels):
    """Only the samples that the config takes are opened."""
    _, config = data
    cfg = Config.fromfile(config)
    cfg.train_dataloader.dataset.video.indices = indices
    assert [s.label for s in verify.find_splits(cfg)[0].samples] == labels


def test_dataset_of_the_toolbox(data):
    """A dataset that is not ours is read as well."""
    root, _ = data
    write_text(root / 'toolbox.txt', 'clips/0.mp4 1', 'clips/1.mp4 2')
    dataset = dict(
        type='VideoDataset',
        ann_file=str(root / 'toolbox.txt'),
        data_prefix=dict(video=str(root)),
        metainfo=dict(classes=('calm', 'glad')),
    )
    splits, _ = verify.verify(Config(dict(train_dataloader=dict(dataset=dataset))))
    assert [osp.basename(s.path) for s in splits[0].samples] == ['0.mp4', '1.mp4']
    troubles = [f for f in splits[0].findings if f.level == 'trouble']
    assert [f.what for f in troubles] == ['label 2 is not one of 0 to 1']


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['none.py'], 'none.py does not exist'),
        ([__file__, '--workers', '-1'], 'must be 0 or more'),
    ],
)
def test_bad_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit):
        verify.parse_args(arguments)
    assert message in capsys.readouterr().err


def test_config_without_data(tmp_path):
    config = tmp_path / 'config.py'
    config.write_text('model = None')
    with pytest.raises(ValueError, match='config.py has no dataset'):
        verify.verify(Config.fromfile(str(config)))


@pytest.mark.parametrize('recipe', ['s2d_finetune_dfew', 's4d_finetune_dfew'])
@pytest.mark.parametrize('frames', [16, 70])
def test_which_dfew_it_is(recipe, frames, tmp_path, monkeypatch):
    """S2D reads the clips of 16 frames, S4D those of all; the other ones are trouble."""
    dfew = tmp_path / 'data' / 'DFEW'
    for i in range(2):
        for folder in ('frames', 'frames_16f'):
            write_frames(str(dfew / folder / f'{i:05d}'), frames)
    for part, i in (('train', 0), ('test', 1)):
        write_text(dfew / 'annotations' / f'set_1_{part}.csv', f'{i:05d},{i}')
    monkeypatch.chdir(tmp_path)
    cfg = Config.fromfile(osp.join(ROOT, 'configs', f'{recipe}.py'))
    splits, media = verify.verify(cfg, decode='none')
    clips = [s for s in splits if s.modality == 'video']
    variant = 'clip_224x224_16f' if frames == 16 else 'clip_224x224'
    found = [f for s in clips for f in s.findings if f.kind == 'variant']
    right = (recipe[:3] == 's2d') == (frames == 16)
    assert len(found) == (0 if right else 2)
    assert all(f.level == 'trouble' and 'clip_224x224_16f' in f.what for f in found)
    for split in clips:
        assert f'  variant                   {variant}, by' in verify.table(split, media)


def test_ids_in_another_order(tmp_path):
    """By the folder that a clip lies in, and by the counts of DFEW."""
    for folder in ('Crime/Angry/1', 'Crime/Happy/2', 'Daily/Sad/3', 'Daily/street/4'):
        write_frames(str(tmp_path / 'frames' / folder), 2)
    # as DFEW counts: 0 happiness, 1 sadness; FERV39k has 0 anger, 3 happiness, 5 sadness
    lines = ['Crime/Angry/1,0', 'Crime/Happy/2,0', 'Daily/Sad/3,1', 'Daily/street/4,0']
    data = dict(data_root=str(tmp_path), data_prefix=dict(video='frames'))
    write_text(tmp_path / 'train.csv', *lines)
    dataset = dict(type='FERV39k', ann_file='train.csv', **data)
    (split,), _ = verify.verify(Config(dict(train_dataloader=dict(dataset=dataset))))
    found = [f for f in split.findings if f.kind == 'order']
    assert [(f.level, f.label) for f in found] == [('trouble', '0 anger'), ('trouble', '1 disgust')]
    assert 'happy, which is label 3' in found[0].what and 'sad, which is label 5' in found[1].what

    ids = [i for i, count in enumerate(DFEW.COUNTS) for _ in range(count // 10)]
    for order, kinds in ((range(7), []), ((1, 4, 0, 6, 5, 3, 2), ['shares'])):
        write_text(tmp_path / 'dfew.csv', *[f'{i:05d},{order[n]}' for i, n in enumerate(ids)])
        dataset = dict(type='DFEW', ann_file='dfew.csv', **data)
        (split,) = verify.find_splits(Config(dict(train_dataloader=dict(dataset=dataset))))
        verify.check_order(split)
        assert [f.kind for f in split.findings] == kinds
