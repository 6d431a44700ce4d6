# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Prediction from real files to records, with a model in a size for tests."""

import logging
import os
import shutil

import numpy as np
import pytest
import torch
from face_scenes import find_white, scene
from helpers import encode, make_frame, truncate, write_frames, write_image, write_video
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.logging import MMLogger
from mmengine.registry import INFERENCERS
from small_models import CLASSES, PREDICT, save_checkpoint

from s4d_mm import apis  # noqa: F401
from s4d_mm.files.errors import NonFiniteError
from s4d_mm.media import MediaReadError, read_timed, read_video
from s4d_mm.predict.faces import FaceSettings, crop_square
from s4d_mm.predict.outputs import ENDINGS
from s4d_mm.predict.tracking import follow_faces

SPAN = 8  # frames of a window of PREDICT


@pytest.fixture(scope='module')
def inferencer(tmp_path_factory):
    path = save_checkpoint(tmp_path_factory.mktemp('checkpoint') / 'epoch_1.pth')
    build = INFERENCERS.build
    inferencer = build(dict(type='ExpressionInferencer', model=Config(PREDICT), weights=path))
    inferencer.detector = find_white
    return inferencer


@pytest.fixture
def log():
    """Warnings of mmengine's logger."""
    lines, logger = [], MMLogger.get_current_instance()
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: lines.append((record.levelname, record.getMessage()))
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


def by_test_py(inferencer, path, pipeline='test_pipeline'):
    """The probabilities that tools/test.py gives."""
    data = dict(filename=str(path), label=-1, start_index=0, modality='RGB', sample_id='x')
    sample = Compose(inferencer.scorer.cfg[pipeline])(data)
    sample['data_samples'].set_metainfo(
        dict(input_type='image' if 'image' in pipeline else 'video')
    )
    with torch.no_grad():
        return inferencer.scorer.model.test_step(pseudo_collate([sample]))[0].pred_score.numpy()


def scores(records):
    return np.array([list(record.probabilities.values()) for record in records])


def assert_close(found, expected, tolerance=1e-6):
    np.testing.assert_allclose(scores(found), scores(expected), atol=tolerance)


@pytest.mark.parametrize('count', [1, 5, 8])
def test_a_short_clip_gets_the_scores_of_the_test(inferencer, tmp_path, count):
    path = write_video(tmp_path / 'x.mp4', count)
    (record,) = inferencer(path, faces='none')
    expected = by_test_py(inferencer, path)
    np.testing.assert_allclose(scores([record])[0], expected, atol=1e-6)
    assert tuple(record.probabilities) == CLASSES['video']
    assert record.label == CLASSES['video'][expected.argmax()]
    assert (record.start_frame, record.end_frame, record.face, record.box) == (0, count, None, None)
    assert (record.start, record.end) == (0, pytest.approx(count / 25))


def test_an_image_gets_the_scores_of_the_test(inferencer, tmp_path):
    path = write_image(tmp_path / 'x.JPG', number=77)
    (record,) = inferencer(path, faces='none')
    expected = by_test_py(inferencer, path, 'image_test_pipeline')
    np.testing.assert_allclose(scores([record])[0], expected, atol=1e-6)
    assert tuple(record.probabilities) == CLASSES['image']
    assert (record.start, record.end, record.start_frame, record.end_frame) == (None, None, 0, 1)


def test_a_long_clip_is_windows_that_are_clips(inferencer, tmp_path):
    path = write_video(tmp_path / 'x.mp4', 27, fps=10)
    records = inferencer(path, faces='none', batch_size=2)
    assert [(r.start_frame, r.end_frame) for r in records] == [(0, 8), (8, 16), (16, 24), (24, 27)]
    assert [r.start for r in records] == pytest.approx([0, 0.8, 1.6, 2.4])
    assert records[-1].end == pytest.approx(2.7)
    frames = np.stack(list(read_video(path)))
    windows = [frames[0:8], frames[8:16], frames[16:24], frames[20:27]]
    assert_close(records, [inferencer(window, faces='none')[0] for window in windows])
    assert np.ptp(scores(records), axis=0).max() > 1e-3  # the windows differ
    assert [len(inferencer(path, faces='none', window_stride=s)) for s in (4, 8, 27)] == [6, 4, 1]
    assert [len(inferencer(path, faces='none', max_frames=n)) for n in (8, 9)] == [1, 2]


def test_scores_depend_neither_on_the_batch_nor_on_the_kind_of_input(inferencer, tmp_path):
    folder = write_frames(tmp_path / 'clip', 20, pattern='{:03d}.png')
    frames = np.stack([make_frame(i) for i in range(20)])
    image = write_image(tmp_path / 'a.png', number=9)
    inputs = [folder, image, frames, iter(frames), make_frame(9), image]
    one = inferencer(inputs, faces='none', batch_size=1)
    assert [m.media for m in one.media] == [folder, image, 'array_3', 'frames_4', 'array_5', image]
    assert [m.kind for m in one.media] == ['video', 'image', 'video', 'video', 'image', 'image']
    assert [m.frames for m in one.media] == [20, 1, 20, 20, 1, 1]
    assert [len(m.records) for m in one.media] == [3, 1, 3, 3, 1, 1]
    assert_close(one[:3], one.media[2].records)
    assert_close(one[:3], one.media[3].records)
    inputs[3] = iter(frames)
    many = inferencer(inputs, faces='none', batch_size=16)
    for a, b in zip(one.media, many.media):
        assert_close(a.records, b.records)
    assert one.media[0].size == (64, 48) and one.media[0].fps == 25


def two_faces(count=30, leaves=30):
    """A large square that moves, and a small one that leaves."""
    small = [(90, 50, 24)]
    return [
        scene((8 + t // 3, 10, 40), *(small if t < leaves else []), height=96, width=128)
        for t in range(count)
    ]


def test_every_face_has_its_own_records(inferencer, tmp_path):
    path = encode(tmp_path / 'x.mp4', two_faces(leaves=12), crf=8)
    result = inferencer(path)
    (media,) = result.media
    assert sorted(media.tracks) == [1, 2] and media.status == 'ok'
    assert media.tracks[1].squares.shape == (30, 4)
    first = [(r.start_frame, r.end_frame) for r in result if r.face == 1]
    assert first == [(0, 8), (8, 16), (16, 24), (24, 30)]
    last = [r.end_frame for r in result if r.face == 2][-1]
    assert last == len(media.tracks[2].squares) and 12 <= last < 30
    x1, y1, x2, y2 = result[0].box
    assert x1 < 8 and x2 > 50 and y1 < 10 and y2 > 50 and x2 - x1 < 60
    assert [r.face for r in result.summary()] == [1, 2]
    assert {r.face for r in inferencer(path, faces='largest')} == {1}


def test_a_face_is_cropped_as_for_training(inferencer, tmp_path):
    path = encode(tmp_path / 'x.mp4', two_faces(8))
    settings = FaceSettings(size=64, margin=0.5)
    crops = [[], []]
    for _, frame, faces in follow_faces(read_video(path), find_white, settings):
        for face in faces:
            crops[face.face - 1].append(crop_square(frame, face.square, 64))
    records = inferencer(path, face_settings=settings)
    assert_close(records, [inferencer(np.stack(clip), faces='none')[0] for clip in crops])


def test_faces_of_an_image(inferencer):
    result = inferencer(two_faces(1)[0], features=True)
    assert [r.face for r in result] == [1, 2]
    assert result[0].box[2] - result[0].box[0] == pytest.approx(40 * 1.3, abs=1)
    logits = inferencer.scorer.model.cls_head.classifiers['image'](
        torch.from_numpy(result[0].features)
    )
    np.testing.assert_allclose(scores(result)[0], logits.softmax(0).detach(), atol=1e-6)


def test_images_and_videos_have_the_columns_of_all_classes(inferencer, tmp_path, monkeypatch):
    monkeypatch.setitem(inferencer.scorer.classes, 'image', list('gXbYacde'))
    image = write_image(tmp_path / 'x.png')
    result = inferencer([image, write_video(tmp_path / 'x.mp4', 8)], faces='none')
    assert [m.classes for m in result.media] == [list('abcdefgXY')] * 2
    photo = dict(zip('gXbYacde', by_test_py(inferencer, image, 'image_test_pipeline')))
    assert list(result[0].probabilities) == list('abcdegXY')
    assert result[0].probabilities == pytest.approx(photo, abs=1e-6)
    assert result[0].label == max(photo, key=photo.get)


def test_no_face_is_said(inferencer, log, tmp_path):
    path = encode(tmp_path / 'empty.mp4', [scene() for _ in range(9)])
    result = inferencer([path, scene()])
    assert list(result) == [] and [m.status for m in result.media] == ['no_face'] * 2
    assert ('INFO', f'{path}: no face was found in its 9 frames') in log
    assert result.to_csv().strip().split(',')[11:] == list('abcdefgABCDEFGH')


def test_whole_frames_with_a_small_face_are_warned_of(inferencer, log):
    inferencer([scene((10, 10, 40)), scene((10, 10, 40))], faces='none')
    ((level, text),) = log
    assert level == 'WARNING' and 'fills 42 %' in text and "faces='auto'" in text
    log.clear()
    inferencer([scene((10, 10, 60)), scene()], faces='none')
    assert not log


def test_one_unreadable_input_is_an_error(inferencer, tmp_path):
    path = truncate(write_video(tmp_path / 'x.mp4', 60, faststart=True), 0.6)
    with pytest.raises(MediaReadError, match='x.mp4'):
        inferencer(path, faces='none', out_dir=str(tmp_path / 'out'), draw=False)
    assert os.listdir(tmp_path / 'out') == []
    with pytest.raises(FileNotFoundError, match='no file or folder nowhere.mp4'):
        inferencer('nowhere.mp4', faces='none')


def test_of_several_the_others_are_predicted(inferencer, tmp_path, log):
    """Also with names of 251 letters, and bytes that are not UTF-8."""
    clip, names = write_video(tmp_path / 'a.mp4', 9), ['l' * 251 + '.mp4']
    names.append(os.fsdecode(b'caf\xe9.mp4'))
    for name in names:
        shutil.copy(clip, tmp_path / name)
    truncate(write_video(tmp_path / 'broken.mp4', 60, faststart=True), 0.6)
    for name in ('notes.txt', 'empty.mp4'):
        (tmp_path / name).touch()
    out, bad = tmp_path / 'out', ('broken.mp4', 'empty.mp4', 'nowhere.jpg')
    inputs = [str(tmp_path / name) for name in ('notes.txt', *names, *bad)]
    result = inferencer(inputs, faces='none', out_dir=str(out))
    assert [m.status for m in result.media] == ['ok'] * 2 + ['unreadable'] * 3
    assert [bool(m.records) for m in result.media] == [True] * 3 + [False] * 2
    assert result.media[2].records[-1].end_frame == result.media[2].frames < 60
    written = {stem + e for stem in ('l' * 200, 'caf\\udce9') for e in ENDINGS['video']}
    written |= {'broken.csv', 'broken.json', 'broken_timeline.png'}
    assert set(os.listdir(out)) == written == set(map(os.path.basename, result.files))
    result.to_json(str(tmp_path / 'all.json')), result.to_csv(str(tmp_path / 'all.csv'))
    for media in result.media[2:]:
        assert media.media in media.message
        assert ('WARNING', media.message) in log
    assert any('notes.txt' in text and level == 'WARNING' for level, text in log)


def test_scores_that_are_not_finite_name_the_input(inferencer, tmp_path, monkeypatch):
    path = write_video(tmp_path / 'x.mp4', 5)
    bias = inferencer.scorer.model.cls_head.classifiers['video'].bias
    monkeypatch.setattr(bias, 'data', torch.full_like(bias, torch.nan))
    with pytest.raises(NonFiniteError, match=f'{path} .frames 0 to 4. are not finite: .nan'):
        inferencer(path, faces='none')


def test_pictures_of_every_kind_of_input(inferencer, tmp_path):
    """Also of those that cannot be read twice, with odd sides."""
    frames = [np.ascontiguousarray(frame[:95, :127]) for frame in two_faces(10)]
    encode(tmp_path / 'video.mp4', two_faces(10), fps=10, crf=8)
    write_frames(tmp_path / 'empty', 3, pattern='{}.png')  # without a face
    write_image(tmp_path / 'other' / 'empty.jpg')
    out, folders = tmp_path / 'out', [tmp_path / 'empty', tmp_path / 'other']
    inputs = [tmp_path / 'video.mp4', iter(frames), frames[0], *folders]
    inferencer(inputs, out_dir=str(out))
    expected = {'array_3': ENDINGS['image']}
    expected |= dict.fromkeys(('empty', 'empty_2'), ('.csv', '.json'))
    expected |= dict.fromkeys(('frames_2', 'video'), ENDINGS['video'])
    assert sorted(os.listdir(out)) == sorted(n + e for n, ends in expected.items() for e in ends)
    for name, rate in (('frames_2', 25), ('video', 10)):
        times = [frame.time for frame in read_timed(str(out / f'{name}.mp4'))]
        assert times == pytest.approx([t / rate for t in range(10)], abs=0.01)


def test_inputs_are_not_overwritten(inferencer, tmp_path):
    path = write_video(tmp_path / 'x.mp4', 3)
    before = (tmp_path / 'x.mp4').read_bytes()
    with pytest.raises(ValueError, match='x.mp4 is an input and would be overwritten'):
        inferencer(path, faces='none', out_dir=tmp_path)
    assert (tmp_path / 'x.mp4').read_bytes() == before
