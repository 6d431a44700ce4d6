# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
import cv2
import numpy as np
import pytest
from made_up_results import CLASSES, record, result, still_track

from s4d_mm.visualization import annotate_image
from s4d_mm.visualization.colors import NAMES, class_color, class_labels
from s4d_mm.visualization.overlay import Overlay
from s4d_mm.visualization.panel import ProbabilityPanel
from s4d_mm.visualization.plates import place_plates

GREY = 90


def picture(height=240, width=320):
    return np.full((height, width, 3), GREY, np.uint8)


def image_result(*labels, squares=(), **more):
    """A result of an image with one face for each label and square."""
    faces = range(1, len(labels) + 1) if squares else [None]
    records = [record(k, face, (0, 1), None, **more) for k, face in zip(labels, faces)]
    tracks = {face: still_track(square, 1) for face, square in zip(faces, squares)}
    return result(records, tracks, 'image', frames=1)


def changed(out, image):
    """Where the picture is not as it was."""
    return (out[: image.shape[0], : image.shape[1]] != image).any(-1)


def placed_plates(monkeypatch):
    """x, y, width, height of the plates that are placed from now on."""
    placed = []

    def place(sizes, *args):
        found = place_plates(sizes, *args)
        placed.extend((x, y, *sizes[i][plate]) for i, (_, plate, x, y) in enumerate(found))
        return found

    monkeypatch.setattr('s4d_mm.visualization.overlay.place_plates', place)
    return placed


def plate_rows(mask):
    return np.flatnonzero(mask.any(1))


@pytest.mark.parametrize('angle', [0.0, 0.3])
def test_box_is_the_square_in_the_color_of_the_label(angle):
    image = picture()
    out = annotate_image(image, image_result(2, squares=[(160, 130, 100, angle)]))
    right = np.array([np.cos(angle), np.sin(angle)]) * 50
    down = np.array([-right[1], right[0]])
    for edge in (right, -right, down, -down):
        x, y = np.round(np.array([160, 130]) + edge - 0.5).astype(int)
        assert np.abs(out[y, x].astype(int) - class_color(2)).max() < 40
    assert (image == GREY).all()


def test_picture_is_untouched_but_for_box_and_plate():
    image = picture()
    out = annotate_image(image, image_result(0, squares=[(160, 130, 100, 0)]))
    mask = changed(out, image)
    assert out.shape[0] == 240 and out.shape[1] > 320
    assert not mask[85:175, 115:205].any()  # the face
    mask[74:186, 104:216] = False  # the box and its rim
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    assert rows.min() > 50 and rows.max() < 80  # the plate is above the box
    assert columns.min() > 100 and columns.max() < 260


@pytest.mark.parametrize(
    'square', [(160, 20, 100, 0), (310, 230, 60, 0), (-5, 120, 60, 0), (160, 120, 500, 0)]
)
def test_plate_is_inside_the_picture(square):
    out = annotate_image(picture(), image_result(0, squares=[square]))
    plate = (out[:, :320] == class_color(0)).all(-1)
    assert plate.sum() > 800  # of it and the box; the letters on it are black


def test_plates_do_not_cover_each_other(monkeypatch):
    squares = [(150, 120, 80, 0), (160, 124, 80, 0), (170, 120, 80, 0), (140, 126, 80, 0)]
    overlay = Overlay(image_result(0, 1, 2, 3, squares=squares), 320, 240)
    placed = placed_plates(monkeypatch)
    overlay.draw(picture(), 0)
    cover = np.zeros((240, 320), int)
    for x, y, width, height in placed:
        assert x >= 0 and y >= 0 and x + width <= 320 and y + height <= 240
        cover[y : y + height, x : x + width] += 1
    assert len(placed) == 4 and cover.max() == 1


def test_labels_of_a_crowd_cover_no_face(monkeypatch):
    """Twenty faces of 54 pixels, so near that there is no room for most of the long labels."""
    squares = [(100 + 80 * (i % 5), 60 + 80 * (i // 5), 54, 0.1 * (i % 3)) for i in range(20)]
    overlay = Overlay(image_result(*[0] * 20, squares=squares), 520, 360)
    placed = placed_plates(monkeypatch)
    overlay.draw(picture(360, 520), 0)
    cover = np.zeros((360, 520), int)
    for x, y, width, height in placed:
        cover[y : y + height, x : x + width] += 1
    assert cover.max() == 1 and len({width for _, _, width, _ in placed}) > 2
    for x, y, *_ in squares:  # the middle half holds eyes, nose and mouth
        assert not cover[y - 14 : y + 14, x - 14 : x + 14].any()
    # numbers stand at their faces
    for (x, y, side, _), (left, top, width, height) in zip(squares, placed):
        assert left - 1 <= x + side * 0.7 and left + width + 1 >= x - side * 0.7
        assert top - 1 <= y + side * 0.7 and top + height + 1 >= y - side * 0.7


def test_labels_keep_their_places_from_frame_to_frame(monkeypatch):
    track = still_track((160, 130, 100, 0), 2)
    track.squares[1] = 160, 20, 100, 0  # no room above any more
    found = record(0, 1, (0, 3))
    overlay = Overlay(result([found], {1: track}), 320, 240)
    placed = placed_plates(monkeypatch)
    overlay.draw(picture(), 1)
    track.squares[1] = 160, 130, 100, 0
    overlay.draw(picture(), 1)
    assert placed[0][1] > 60 and placed[1][1] > 170


def test_strip_shows_all_probabilities():
    shares = [(3, 0.9), (1, 0.4)]
    outs = [annotate_image(picture(), image_result(k, share=share)) for k, share in shares]
    for (label, share), out in zip(shares, outs):
        strip = out[:, 320:]
        rest = (1 - share) / 3
        lengths = [int((strip == class_color(k)).all(-1).sum(1).max()) for k in range(len(CLASSES))]
        full = 5 * 12  # at this size of the picture
        for k, length in enumerate(lengths):
            expected = share if k == label else rest
            assert length == pytest.approx(expected * full, abs=1)


def test_strip_says_what_the_model_has_seen():
    for size, rows in (((240, 320), 0), ((240, 200), 15)):  # beside the picture, or below it
        answer = image_result(0, 1, 2, squares=[(60, y, 40, 0) for y in (40, 120, 200)])
        without = annotate_image(picture(*size), answer)
        answer.trained_on = 'drawn faces ' * 9
        out = annotate_image(picture(*size), answer)
        assert out.shape == (without.shape[0] + rows, *without.shape[1:])  # a line more, or none
        rest = out[:-20]
        assert np.array_equal(rest, without[: len(rest)])  # bars, names and shares as before
        line = out[-20:, -130:].max(-1)
        assert (line > 150).any() and (line[:, -5:] < 30).all()  # inside of the strip


def test_no_box_where_no_face_was_looked_for():
    image = picture()
    out = annotate_image(image, image_result(1))
    mask = changed(out, image)
    assert mask[0, 0] and not mask[40:].any() and not mask[:, 200:].any()


def test_no_record_leaves_the_picture_alone():
    image = picture(61, 83)
    out = annotate_image(image, result([], kind='image'))
    assert out.shape == (244, 332, 3) and (out == GREY).all()  # small: enlarged
    image = picture(241, 321)
    assert np.array_equal(annotate_image(image, result([], kind='image')), image)


def test_sizes_follow_the_picture():
    small = image_result(0, squares=[(160, 130, 100, 0)])
    large = image_result(0, squares=[(1920, 1560, 1200, 0)])
    outs = [
        annotate_image(picture(240, 320), small),
        annotate_image(picture(2880, 3840), large),
    ]
    shares = [changed(out, picture(out.shape[0], out.shape[1])).mean() for out in outs]
    assert shares[1] == pytest.approx(shares[0], rel=0.5)
    letters = [out[:, out.shape[0] * 4 // 3 :].max(-1) > 150 for out in outs]
    assert plate_rows(letters[1]).max() > 8 * plate_rows(letters[0]).max()


def test_tall_picture_has_the_strip_below():
    out = annotate_image(picture(640, 360), image_result(0))
    assert out.shape[1] == 360 and out.shape[0] > 640
    strip = out[640:]
    assert (strip == class_color(0)).all(-1).any()


@pytest.mark.parametrize(
    'classes',
    [
        ('Glück', 'Größe', 'été', '悲伤'),
        ('a\nb', '$x$', '_', ''),
        tuple(f'a rather long name of class {i}' for i in range(43)),
    ],
)
def test_any_names_of_classes(classes):
    out = annotate_image(picture(), image_result(0, classes=classes))
    assert out.shape[0] == 240
    assert (out[:, 320:] == class_color(0)).all(-1).any()


def test_letters_outside_ascii_are_drawn():
    outs = [annotate_image(picture(), image_result(0, classes=(n, 'b'))) for n in ('é', 'e', '?')]
    assert not np.array_equal(outs[0], outs[1]) and not np.array_equal(outs[0], outs[2])


def test_faces_without_room_in_the_strip_are_left_out():
    squares = [(30 * i + 20, 120, 20, 0) for i in range(9)]
    out = annotate_image(picture(), image_result(*[0] * 9, squares=squares))
    assert out.shape[0] == 240
    bars = cv2.connectedComponents((out[:, 320:] == class_color(0)).all(-1).astype(np.uint8))[0]
    assert 1 <= bars - 1 <= 3


def test_faces_without_room_in_the_strip_are_counted(monkeypatch):
    texts, write = [], ProbabilityPanel._write
    monkeypatch.setattr(
        ProbabilityPanel, '_write', lambda *args: texts.append(args[4]) or write(*args)
    )
    for count, more in ((3, []), (5, ['+2'])):
        texts.clear()
        squares = [(60 * i + 40, 120, 40, 0) for i in range(count)]
        annotate_image(picture(480, 640), image_result(*[0] * count, squares=squares))
        assert [text for text in texts if text.startswith('+')] == more
        assert sum(text.startswith('Face ') for text in texts) == 3


def test_a_class_has_one_color_in_photos_and_videos():
    known = dict(zip(NAMES, map(class_color, range(8))))
    shown = ('fear', 'own', 'neutral')  # what the photos know, in this order
    classes = ['neutral', 'fear', 'other', 'own', 'third']
    photo, clip = (
        dict(class_labels(result([record(0, classes=names)], classes=classes)))
        for names in (shown, classes)
    )
    assert clip | photo == clip and list(photo) == list(shown)
    assert {name: clip[name] for name in ('neutral', 'fear')} == {
        name: known[name] for name in ('neutral', 'fear')
    }
    assert len({*clip.values()}) == 5
    many = [f'class {i}' for i in range(20)]
    assert len({color for _, color in class_labels(result([record(0, classes=many)]))}) == 20
