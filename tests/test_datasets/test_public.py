# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Public data sets: miniature copies of what is distributed, read from file to batch."""

import os
import os.path as osp

import pytest
from helpers import read_config, write_frames, write_image, write_text, write_video
from mmengine.registry import init_default_scope

from s4d_mm.datasets import (
    CAER,
    CAERS,
    CREMAD,
    DFEW,
    ENTERFACE05,
    MAFW,
    RAFDB,
    RAVDESS,
    AffectNet,
    FERPlus,
    FERV39k,
    VoxCeleb2,
)

PACK = dict(type='PackActionInputs', meta_keys=('input_type', 'sample_id'))
RESIZE = dict(type='Resize', scale=(32, 32), keep_ratio=False)
CLIP = [
    dict(type='ClipInit'),
    dict(type='SampleFrames', clip_len=2, frame_interval=1, num_clips=1),
    dict(type='ClipDecode'),
    RESIZE,
    dict(type='FormatShape', input_format='NCTHW'),
    PACK,
]
IMAGE = [dict(type='ImageLoad'), RESIZE, dict(type='FormatShape', input_format='NCHW'), PACK]


def clips(root, *names, suffix=''):
    for name in names:
        if suffix:
            write_video(root / (name + suffix), 3, 32, 32)
        else:
            write_frames(root / name, 3, 32, 32)


def images(root, *names):
    for name in names:
        write_image(root / name, 32, 32)


def read(dataset, root, folder='', **kwargs):
    """Name and class of all samples, read through the pipeline."""
    init_default_scope('mmaction')
    video = dataset.INPUT_TYPE == 'video'
    built = dataset(
        data_root=str(root),
        data_prefix={dataset.PREFIX_KEY: folder},
        pipeline=CLIP if video else IMAGE,
        test_mode=True,
        serialize_data=False,  # which would take most of the time here
        **kwargs,
    )
    found = []
    for i in range(len(built)):
        item = built[i]
        assert item['inputs'].shape == ((1, 3, 2, 32, 32) if video else (1, 3, 32, 32))
        sample = item['data_samples']
        name = built.metainfo['classes'][sample.gt_label.item()] if built.has_labels else None
        found.append((sample.sample_id, name))
    return found


# --------------------------------------------------- official annotation files
def test_dfew(tmp_path):
    split = DFEW.METAINFO['split_files']['train'].format(fold=1)
    write_text(tmp_path / split, 'video_name,label', '7,1', '2522,6', '16000,7')
    clips(tmp_path / 'frames', '00007', '02522', '16000')
    found = read(DFEW, tmp_path, 'frames', ann_file=split)
    assert found == [('7', 'happiness'), ('2522', 'disgust'), ('16000', 'fear')]


def test_dfew_ids(tmp_path):
    def labels(*lines, **kwargs):
        ann_file = write_text(tmp_path / 'a.csv', 'video_name,label', *lines)
        return DFEW(ann_file=ann_file, **kwargs).get_gt_labels().tolist()

    assert labels('00001,1', '00002,6') == [1, 6]  # ours, from 0
    assert labels('1,1', '2,7') == [0, 6]  # official, from 1
    assert labels('1,1', '2,6', label_start=1) == [0, 5]
    for lines, start in ((('1,0', '2,7'), None), (('1,1', '2,7'), 0)):
        with pytest.raises(ValueError, match=r'a.csv:3.*7'):
            labels(*lines, label_start=start)


@pytest.mark.parametrize(
    'dataset, lines, expected',
    [
        (
            FERV39k,
            ['Action/Happy/0267 Happy', 'Crime/Angry/0063 Angry'],
            [('Action/Happy/0267', 'happiness'), ('Crime/Angry/0063', 'anger')],
        ),
        (
            MAFW,
            ['video_name,labels', '03747,0', '00025,10', '00002,7'],
            [('03747', 'anger'), ('00025', 'surprise'), ('00002', 'helplessness')],
        ),
        (
            MAFW,
            ['00025.mp4 happiness\r', '03747.mp4 anxiety\r'],
            [('00025.mp4', 'happiness'), ('03747.mp4', 'anxiety')],
        ),
    ],
)
def test_official_lists_and_those_of_the_authors(tmp_path, dataset, lines, expected):
    write_text(tmp_path / 'a.csv', *lines)
    clips(tmp_path / 'frames', *[name.replace('.mp4', '') for name, _ in expected])
    assert read(dataset, tmp_path, 'frames', ann_file='a.csv') == expected


def test_mafw_compound(tmp_path):
    """The names of both lists of the fold, in alphabetical order."""
    train = write_text(tmp_path / 'train.txt', '2.mp4 fear_sadness', '1.mp4 anger_disgust')
    test = write_text(tmp_path / 'test.txt', '4.mp4 anger', '5.mp4 fear')
    train, test = (MAFW(compound=True, ann_file=path) for path in (train, test))
    names = ('anger', 'anger_disgust', 'fear', 'fear_sadness')
    assert train.metainfo['classes'] == test.metainfo['classes'] == names
    assert train.get_gt_labels().tolist() == [3, 1] and test.get_gt_labels().tolist() == [0, 2]
    captions = '00025.mp4\thappiness\t-\tA man smiles, and nods.'
    for line, error in (('1.mp4 12', "'12'.*are ids.*metainfo"), (captions, ':1: .*no_caption')):
        for part in ('train', 'test'):
            write_text(tmp_path / f'{part}.txt', line)
        with pytest.raises(ValueError, match=error):
            MAFW(compound=True, ann_file=str(tmp_path / 'train.txt'))


def test_affectnet_csv(tmp_path):
    header = AffectNet.HEADER
    rows = [f'{i}/a.jpg,1,1,30,30,1.5;2.5,{i},0.1,-0.2' for i in range(11)]
    images(tmp_path / 'images', *[f'{i}/a.jpg' for i in range(8)])
    classes = AffectNet.METAINFO['classes']
    expected = [(f'{i}/a.jpg', classes[i]) for i in range(8)]
    for name, lines in (('training.csv', [header, *rows]), ('validation.csv', rows)):
        write_text(tmp_path / name, *lines)
        assert read(AffectNet, tmp_path, 'images', ann_file=name, num_classes=8) == expected
        assert read(AffectNet, tmp_path, 'images', ann_file=name) == expected[:7]
    for bad in (rows[0] + ',1', rows[0].replace(',0,0.1', ',x,0.1')):
        write_text(tmp_path / 'bad.csv', header, rows[1], bad)
        with pytest.raises(ValueError, match='bad.csv:3'):
            read(AffectNet, tmp_path, ann_file='bad.csv')
    with pytest.raises(ValueError, match='0 to 6'):
        AffectNet(ann_file=write_text(tmp_path / 'a.txt', 'a.bmp 7'), num_classes=7)


def test_affectnet_reads_a_part_if_it_is_there(tmp_path):
    """The recipe's: the authors' list first, then a drawn one, then all images."""
    cfg = read_config('s4d_finetune_dfew')
    recipe = cfg.train_dataloader.dataset.image
    wanted = ['train_affectnet7_2w.txt', 'train_7_20000.txt', 'train_7.txt']
    names = (*recipe.subsets, recipe.ann_file)
    assert [osp.basename(name) for name in names] == wanted
    for number, name in reversed(list(enumerate(names, 1))):
        write_text(tmp_path / name, *[f'{i}.jpg 3' for i in range(number)])
        dataset = AffectNet(7, recipe.ann_file, str(tmp_path), recipe.subsets)
        assert len(dataset) == number and dataset.ann_file.endswith(name)


def test_rafdb(tmp_path):
    split = RAFDB.METAINFO['split_files']['train']
    write_text(tmp_path / split, 'train_00001.jpg 5', 'train_00002_aligned.jpg 1', 'test_1.jpg 7')
    stems = ('train_00001', 'train_00002', 'test_1')
    images(tmp_path / 'Image/aligned', *[f'{stem}_aligned.jpg' for stem in stems])
    kwargs = dict(folder='Image/aligned', ann_file=split)
    assert read(RAFDB, tmp_path, split='train', **kwargs) == [
        ('train_00001.jpg', 'sadness'),
        ('train_00002_aligned.jpg', 'surprise'),
    ]
    assert read(RAFDB, tmp_path, split='test', **kwargs) == [('test_1.jpg', 'neutral')]
    for split in (None, 'val'):
        with pytest.raises(ValueError, match=f"split={split!r} of RAFDB.*'train' or 'test'"):
            read(RAFDB, tmp_path, split=split, **kwargs)


def test_ferplus_votes(tmp_path):
    rows = [
        'Training,fer0000000.png,4,0,0,1,3,2,0,0,0,0',
        'Training,fer0000001.png,0,0,0,0,0,0,1,9,0,0',
        'Training,fer0000002.png,4,0,0,4,1,0,0,0,1,0',  # a tie
        'Training,fer0000003.png,3,0,0,2,0,0,0,0,5,0',  # unknown
        'Training,,0,0,9,0,0,0,0,0,0,1',
        'PublicTest,fer0028638.png,0,9,1,0,0,0,0,0,0,0',
        'PrivateTest,fer0032220.png,0,0,0,0,10,0,0,0,0,0',
    ]
    expected = dict(
        train={'Train/fer0000000.png': 'neutral', 'Train/fer0000001.png': 'contempt'},
        valid={'Valid/fer0028638.png': 'happiness'},
        test={'Test/fer0032220.png': 'anger'},
    )
    write_text(tmp_path / 'fer2013new.csv', FERPlus.HEADER, *rows)
    for split, labels in expected.items():
        found = {f'FER2013{name}': label for name, label in labels.items()}
        images(tmp_path / 'images', *found)
        kwargs = dict(ann_file='fer2013new.csv', split=split)
        assert dict(read(FERPlus, tmp_path, 'images', **kwargs)) == found
    write_text(tmp_path / 'list.txt', 'a.png 1')
    for split, name in ((None, 'fer2013new.csv'), ('val', 'fer2013new.csv'), ('train', 'list.txt')):
        with pytest.raises(ValueError, match=f'{name}: split={split!r} of FERPlus'):
            read(FERPlus, tmp_path, ann_file=name, split=split)


# ------------------------------------------------------------- labels in names
IN_NAMES = [
    (
        CREMAD,
        '',
        {
            '1001_DFA_ANG_XX': 'anger',
            '1001_IEO_DIS_HI': 'disgust',
            '1002_IEO_FEA_LO': 'fear',
            '1091_ITH_SAD_X': 'sadness',  # one file is called so
        },
        ['1001_DFA_BAD_XX.mp4', 'clip_DFA_ANG_XX.mp4'],
        [1001, 1091],
    ),
    (
        RAVDESS,
        '.mp4',
        {
            f'Actor_{3 * i:02d}/01-01-{i:02d}-01-02-01-{3 * i:02d}': label
            for i, label in enumerate(RAVDESS.METAINFO['classes'], 1)
        },
        ['01-01-09-01-02-01-12.mp4', '01-01-03-01-02-01.mp4'],
        [12, 24],
    ),
    (
        ENTERFACE05,
        '',
        {
            'subject 1/anger/sentence 1/s1_an_1': 'anger',
            'subject 11/disgust/sentence 2/s12_di_2': 'disgust',
            'subject 3/happiness/sentence 1/s_3_ha_1': 'happiness',
            'subject_44/surprise/sentence_1/s44_su_1': 'surprise',
        },
        ['s1_an_1.avi', 'subject 1/boredom/sentence 1/s1_bo_1.avi'],
        [11, 3],
    ),
    (
        CAER,
        '.avi',
        {'train/Anger/0001': 'anger', 'train/Happy/0001': 'happiness', 'x/Sad/0001': 'sadness'},
        ['0001.avi'],
        None,
    ),
]


@pytest.mark.parametrize('dataset, suffix, names, bad, some', IN_NAMES)
def test_labels_in_names(tmp_path, dataset, names, suffix, bad, some):
    clips(tmp_path / 'clips', *names, suffix=suffix)
    write_text(tmp_path / 'clips' / 'README.txt', 'not a clip')
    write_text(tmp_path / 'clips' / '.hidden' / f'x{suffix}', 'not a clip')

    def found(ann_file='', **kwargs):
        return read(dataset, tmp_path, 'clips', suffix=suffix, ann_file=ann_file, **kwargs)

    assert found() == sorted(names.items())  # the folder itself
    # a list of names with suffix
    end = suffix or '.mp4'
    write_text(tmp_path / 'list.txt', 'path', *[n + end for n in names])
    assert found('list.txt') == [(n + end, c) for n, c in names.items()]
    # a CSV with labels: these count
    first = next(iter(names))
    write_text(tmp_path / 'list.csv', 'path,label', f'{first},Sad')
    assert found('list.csv') == [(first, 'sadness')]
    for name in bad:
        write_text(tmp_path / 'bad.txt', first, '', name)
        with pytest.raises(ValueError, match=f'bad.txt:3: cannot read {name!r}'):
            found('bad.txt')
    if some:
        write_text(tmp_path / 'all.csv', *[f'{n},{c}' for n, c in names.items()])
        parser = dataset(ann_file=str(tmp_path / 'list.txt'))
        for ann_file in ('', 'all.csv'):
            chosen = [name for name, _ in found(ann_file, subjects=some)]
            assert set(chosen) == {name for name in names if parser.get_subject(name) in some}


def test_what_is_listed_of_a_folder(tmp_path):
    images(tmp_path / 'elsewhere', 'Sad/2.png')
    images(tmp_path / 'faces', 'Anger/1.PNG', 'Anger/contact_sheet.jpg', '__MACOSX/Anger/3.png')
    os.symlink(tmp_path / 'elsewhere' / 'Sad', tmp_path / 'faces' / 'Sad')
    assert read(CAERS, tmp_path, 'faces') == [('Anger/1.PNG', 'anger'), ('Sad/2.png', 'sadness')]
    # of RAVDESS each picture once
    for name in ('01-01-03-01-02-01-12', '02-01-03-01-02-01-12', '01-02-03-01-02-01-12'):
        write_text(tmp_path / 'ravdess' / f'{name}.mp4', 'never opened')
    dataset = RAVDESS(data_root=str(tmp_path / 'ravdess'), suffix='.mp4')
    found = [dataset.get_data_info(i)['sample_id'] for i in range(len(dataset))]
    assert found == ['01-01-03-01-02-01-12']
    write_text(tmp_path / 'clips' / 'Bored' / '1.avi', 'never opened')
    with pytest.raises(ValueError, match="Bored/1: unknown label 'Bored'"):
        CAER(data_root=str(tmp_path / 'clips'), suffix='.avi')
    with pytest.raises(ValueError, match='clips/ has no samples.*data_prefix, suffix'):
        CAER(data_root=str(tmp_path / 'clips'))
    with pytest.raises(ValueError, match='DFEW needs ann_file.*set_{fold}'):
        DFEW()


def test_voxceleb2(tmp_path):
    names = ['id00012/_joJsjFkmdo/00001', 'id00015/21Uxsk56VDQ/00002']
    clips(tmp_path / 'dev/mp4', *names, suffix='.mp4')
    write_text(tmp_path / 'list.txt', *[f'{n}.mp4' for n in names])
    for kwargs, end in ((dict(suffix='.mp4'), ''), (dict(ann_file='list.txt'), '.mp4')):
        found = read(VoxCeleb2, tmp_path, 'dev/mp4', **kwargs)
        assert found == [(n + end, None) for n in names]
