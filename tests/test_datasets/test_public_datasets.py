# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Public datasets: miniature copies of what is distributed, read from file to
batch."""

import os
import os.path as osp

import pytest
from helpers import ROOT, write_frames, write_image, write_text, write_video
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from s4d_mm import datasets
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

META = ('input_type', 'sample_id')
CLIP = [
    dict(type='ClipInit'),
    dict(type='SampleFrames', clip_len=2, frame_interval=1, num_clips=1),
    dict(type='ClipDecode'),
    dict(type='Resize', scale=(32, 32), keep_ratio=False),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs', meta_keys=META),
]
IMAGE = [
    dict(type='ImageLoad'),
    dict(type='Resize', scale=(32, 32), keep_ratio=False),
    dict(type='FormatShape', input_format='NCHW'),
    dict(type='PackActionInputs', meta_keys=META),
]
VIDEOS = ('CAER', 'CREMAD', 'DFEW', 'ENTERFACE05', 'MAFW', 'RAVDESS', 'FERV39k', 'VoxCeleb2')
IMAGES = ('CAERS', 'RAFDB', 'AffectNet', 'FERPlus')


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmaction')


def clips(root, *names, suffix=''):
    """A clip for each name, in the layout that the suffix says."""
    for name in names:
        if suffix:
            write_video(root / (name + suffix), 3, 32, 32)
        else:
            write_frames(root / name, 3, 32, 32)


def images(root, *names):
    for name in names:
        write_image(root / name, 32, 32)


def read(dataset, root, folder='', **kwargs):
    """Read all samples through the pipeline.

    Returns:
        list[tuple[str, str]]: Name and class of each.
    """
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
        shape = (1, 3, 2, 32, 32) if video else (1, 3, 32, 32)
        assert item['inputs'].shape == shape
        sample = item['data_samples']
        name = built.metainfo['classes'][sample.gt_label.item()] if built.has_labels else None
        found.append((sample.sample_id, name))
    return found


@pytest.mark.parametrize('name', VIDEOS + IMAGES)
def test_metainfo(name):
    dataset = DATASETS.get(name)
    assert name in datasets.__all__
    assert ('video' if name in VIDEOS else 'image') == dataset.INPUT_TYPE
    info = dataset.METAINFO
    assert set(info['paper']) == {'title', 'venue', 'url'}
    assert info['paper']['url'].startswith('https://')
    assert isinstance(info['split_files'], dict)
    assert bool(info['split_files']) != dataset.FROM_FOLDER
    if name != 'VoxCeleb2':
        assert len(set(info['classes'])) == len(info['classes'])


@pytest.mark.parametrize(
    'name, num_classes, input_type, first_and_last',
    [
        ('DFEW', 7, 'video', ('happiness', 'fear')),
        ('FERV39k', 7, 'video', ('anger', 'surprise')),
        ('MAFW', 11, 'video', ('anger', 'surprise')),
        ('AffectNet', 7, 'image', ('neutral', 'anger')),
        ('RAFDB', 7, 'image', ('surprise', 'neutral')),
        ('FERPlus', 8, 'image', ('neutral', 'contempt')),
    ],
)
@pytest.mark.parametrize('scope', ['mmaction', 'mmpretrain', 'mmengine'])
def test_public_datasets(tmp_path, scope, name, num_classes, input_type, first_and_last):
    ann_file = write_text(tmp_path / 'a.txt', 'a.jpg 1', 'b.jpg 2')
    dataset = DATASETS.build(dict(type=name, _scope_=scope, ann_file=ann_file))
    classes = dataset.metainfo['classes']
    assert len(set(classes)) == len(classes) == num_classes
    assert (classes[0], classes[-1]) == first_and_last
    assert dataset.get_data_info(0)['num_classes'] == num_classes
    assert dataset.get_data_info(0)['input_type'] == input_type
    first = 1 if name == 'RAFDB' else 0
    assert dataset.get_gt_labels().tolist() == [1 - first, 2 - first]


def test_label_order_as_published(tmp_path):
    ann_file = write_text(tmp_path / 'a.csv', 'video_name,label', '02522,5')
    dataset = DFEW(ann_file=ann_file)
    (label,) = dataset.get_cat_ids(0)
    assert dataset.metainfo['classes'][label] == 'disgust'
    ann_file = write_text(tmp_path / 'b.csv', 'video_name,labels', '03747,7')
    dataset = MAFW(ann_file=ann_file)
    assert dataset.get_data_info(0)['sample_id'] == '03747'
    assert dataset.metainfo['classes'][dataset.get_cat_ids(0)[0]] == ('helplessness')


def test_affectnet_with_and_without_contempt(tmp_path):
    ann_file = write_text(tmp_path / 'a.txt', 'a.bmp 7')
    dataset = AffectNet(ann_file=ann_file, num_classes=8)
    assert dataset.metainfo['classes'][7] == 'contempt'
    with pytest.raises(ValueError, match='0 to 6'):
        AffectNet(ann_file=ann_file, num_classes=7)
    with pytest.raises(ValueError, match='num_classes'):
        AffectNet(ann_file=ann_file, num_classes=6)


def test_rafdb_names_the_aligned_file(tmp_path):
    ann_file = write_text(tmp_path / 'a.txt', 'train_00001.jpg 5', 'train_00002_aligned.jpg 1')
    dataset = RAFDB(ann_file=ann_file, data_prefix=dict(img='img'))
    names = [dataset.get_data_info(i)['filename'] for i in range(2)]
    assert names == ['img/train_00001_aligned.jpg', 'img/train_00002_aligned.jpg']
    assert dataset.get_data_info(0)['sample_id'] == 'train_00001.jpg'


# --------------------------------------------------- official annotation files
@pytest.mark.parametrize(
    'folder, suffix, names',
    [
        ('clip_224x224', '', ('00007', '02522', '16000')),
        ('clip_224x224_avi', '.avi', ('00007', '02522', '16000')),
        ('original', '.mp4', ('7', '2522', '16000')),
    ],
)
def test_dfew(tmp_path, folder, suffix, names):
    split = 'EmoLabel_DataSplit/train(single-labeled)/set_1.csv'
    assert split == DFEW.METAINFO['split_files']['train'].format(fold=1)
    write_text(tmp_path / split, 'video_name,label', '7,1', '2522,6', '16000,7')
    clips(tmp_path / 'Clip' / folder, *names, suffix=suffix)
    assert read(DFEW, tmp_path, f'Clip/{folder}', ann_file=split, suffix=suffix) == [
        ('7', 'happiness'),
        ('2522', 'disgust'),
        ('16000', 'fear'),
    ]


def test_dfew_ids(tmp_path):
    def labels(*lines, **kwargs):
        ann_file = write_text(tmp_path / 'a.csv', 'video_name,label', *lines)
        return DFEW(ann_file=ann_file, **kwargs).get_gt_labels().tolist()

    assert labels('00001,1', '00002,6') == [1, 6]  # ours, from 0
    assert labels('1,1', '2,7') == [0, 6]  # official, from 1
    assert labels('1,1', '2,6', label_start=1) == [0, 5]
    with pytest.raises(ValueError, match=r'a.csv:3.*7'):
        labels('1,0', '2,7')  # neither
    with pytest.raises(ValueError, match=r'a.csv:3.*7'):
        labels('1,1', '2,7', label_start=0)


def test_ferv39k(tmp_path):
    split = FERV39k.METAINFO['split_files']['train']
    write_text(
        tmp_path / split,
        'Action/Happy/0267 Happy',
        'Crime/Angry/0063 Angry',
        'Daily_Life/Sad/0001 Sad',
    )
    names = ('Action/Happy/0267', 'Crime/Angry/0063', 'Daily_Life/Sad/0001')
    clips(tmp_path / '2_ClipsforFaceCrop', *names)
    assert read(FERV39k, tmp_path, '2_ClipsforFaceCrop', ann_file=split) == list(
        zip(names, ('happiness', 'anger', 'sadness'))
    )
    write_text(tmp_path / 'bad.csv', 'Action/Happy/0267 Happy', 'Crime/Bored/0063 Bored')
    with pytest.raises(ValueError, match="bad.csv:2.*'Bored'"):
        FERV39k(ann_file=str(tmp_path / 'bad.csv'))


@pytest.mark.parametrize('folder, suffix', [('frames', ''), ('clips', '.mp4')])
def test_mafw(tmp_path, folder, suffix):
    split = MAFW.METAINFO['split_files']['test'].format(fold=1)
    write_text(tmp_path / split, '03747.mp4 anger', '00002.mp4 helplessness')
    clips(tmp_path / folder, '03747', '00002', suffix=suffix)
    expected = [('03747.mp4', 'anger'), ('00002.mp4', 'helplessness')]
    assert read(MAFW, tmp_path, folder, ann_file=split, suffix=suffix) == expected
    # without suffix, the names that end in it are files
    assert read(MAFW, tmp_path, folder, ann_file=split) == expected
    info = MAFW(ann_file=str(tmp_path / split)).get_data_info(0)
    assert info['filename'] == '03747.mp4'  # what an error would name


@pytest.mark.parametrize(
    'dataset, ann_file, lines, expected',
    [
        (
            DFEW,
            'EmoLabel_DataSplit/train(single-labeled)/train_set_1.csv',
            'video_name,label\n02522,5\n00007,0\n16000,6\n',
            [('02522', 'disgust'), ('00007', 'happiness'), ('16000', 'fear')],
        ),
        (
            FERV39k,
            'FERV39K/Annotation/test.csv',
            'path,id\nCrime/Angry/0063,0\nAction/Happy/0267,3\n',
            [('Crime/Angry/0063', 'anger'), ('Action/Happy/0267', 'happiness')],
        ),
        (
            MAFW,
            'MAFW/anno/single/no_caption/set_1/train.csv',
            'video_name,labels\n03747,0\n00025,10\n',
            [('03747', 'anger'), ('00025', 'surprise')],
        ),
        (
            MAFW,
            'MAFW/anno/single/no_caption/set_1/train.txt',
            '00025.mp4 happiness\r\n03747.mp4 anxiety\r\n',
            [('00025.mp4', 'happiness'), ('03747.mp4', 'anxiety')],
        ),
    ],
)
def test_lists_of_the_authors(tmp_path, dataset, ann_file, lines, expected):
    """By their names and with their ids, as they are."""
    path = tmp_path / ann_file
    path.parent.mkdir(parents=True)
    path.write_bytes(lines.encode())
    clips(tmp_path / 'frames', *[name.replace('.mp4', '') for name, _ in expected])
    assert read(dataset, tmp_path, 'frames', ann_file=ann_file) == expected


def test_mafw_compound(tmp_path):
    """The names of both lists of the fold, in alphabetical order."""
    folder = tmp_path / 'compound' / 'no_caption' / 'set_1'
    write_text(folder / 'train.txt', '2.mp4 fear_sadness', '1.mp4 anger_disgust', '3.mp4 fear')
    write_text(folder / 'test.txt', '4.mp4 anger', '5.mp4 fear')
    train, test = (
        MAFW(compound=True, data_root=str(folder), ann_file=f'{part}.txt')
        for part in ('train', 'test')
    )
    names = ('anger', 'anger_disgust', 'fear', 'fear_sadness')
    assert train.metainfo['classes'] == test.metainfo['classes'] == names
    assert train.get_gt_labels().tolist() == [3, 1, 2]
    assert test.get_gt_labels().tolist() == [0, 2]
    # names that are given count, and so does a map to them
    kwargs = dict(compound=True, ann_file=str(folder / 'test.txt'))
    dataset = MAFW(metainfo=dict(classes=('fear', 'x', 'anger')), **kwargs)
    assert dataset.get_gt_labels().tolist() == [2, 0]
    dataset = MAFW(
        metainfo=dict(classes=('fear', 'x')),
        label_map=dict(anger='x', anger_disgust=None, fear_sadness=None),
        **kwargs,
    )
    assert dataset.get_gt_labels().tolist() == [1, 0]


def test_mafw_compound_names_are_not_invented(tmp_path):
    write_text(tmp_path / 'train.csv', 'video_name,labels', '1,12')
    write_text(tmp_path / 'set_1.txt', '1.mp4 anger')
    kwargs = dict(compound=True, data_root=str(tmp_path))
    with pytest.raises(ValueError, match='train.csv:2: label 12 is an id.*metainfo'):
        MAFW(ann_file='train.csv', **kwargs)
    with pytest.raises(ValueError, match='set_1.txt.*must have train or test in its name'):
        MAFW(ann_file='set_1.txt', **kwargs)
    write_text(tmp_path / 'train.csv', 'video_name,labels', '1,anger_fear')
    with pytest.raises(FileNotFoundError, match='test.csv does not exist.*train and test lists'):
        MAFW(ann_file='train.csv', **kwargs)
    write_text(tmp_path / 'test.csv', 'video_name,labels', '1,anger')
    assert MAFW(ann_file='train.csv', **kwargs).metainfo['classes'] == ('anger', 'anger_fear')


def test_label_map_of_other_files(tmp_path):
    """Also where the labels are not of a simple list: official columns, names of clips."""
    target = dict(classes=('fear', 'angry', 'happiness'))
    label_map = dict.fromkeys(AffectNet.METAINFO['classes'])
    label_map.update(fear='fear', anger='angry', happiness='happiness')
    rows = [f'{i}/a.jpg,1,1,30,30,1.5;2.5,{i},0.1,-0.2' for i in range(11)]
    ann_file = write_text(tmp_path / 'training.csv', *rows)
    dataset = AffectNet(8, ann_file=ann_file, label_map=label_map, metainfo=target)
    assert dataset.get_gt_labels().tolist() == [2, 0, 1]
    assert dataset.get_data_info(1)['sample_id'] == '4/a.jpg'
    label_map = dict(anger='angry', disgust=None, neutral=None, sadness=None)
    ann_file = write_text(tmp_path / 'list.txt', '1001_DFA_ANG_XX', '1001_DFA_SAD_XX')
    dataset = CREMAD(ann_file=ann_file, label_map=label_map, metainfo=target)
    assert dataset.get_gt_labels().tolist() == [1]
    # a word of another data set is read with the dataset's own names
    label_map = dict.fromkeys(FERV39k.METAINFO['classes'])
    ann_file = write_text(tmp_path / 'words.txt', 'a Happy')
    kwargs = dict(ann_file=ann_file, metainfo=dict(classes=('x', 'Happy')))
    dataset = FERV39k(label_map=dict(label_map, happiness='Happy'), **kwargs)
    assert dataset.get_gt_labels().tolist() == [1]


def test_affectnet_csv(tmp_path):
    header = (
        'subDirectory_filePath,face_x,face_y,face_width,face_height,'
        'facial_landmarks,expression,valence,arousal'
    )
    rows = [f'{i}/a.jpg,1,1,30,30,1.5;2.5,{i},0.1,-0.2' for i in range(11)]
    images(tmp_path / 'images', *[f'{i}/a.jpg' for i in range(8)])
    classes = AffectNet.METAINFO['classes']
    expected = [(f'{i}/a.jpg', classes[i]) for i in range(8)]
    for name, lines in (('training.csv', [header, *rows]), ('validation.csv', rows)):
        write_text(tmp_path / name, *lines)
        assert read(AffectNet, tmp_path, 'images', ann_file=name, num_classes=8) == expected
        assert read(AffectNet, tmp_path, 'images', ann_file=name) == expected[:7]
    for bad in (
        rows[0].replace(',0,0.1', ',11,0.1'),
        rows[0] + ',1',
        rows[0].replace(',0,0.1', ',x,0.1'),
    ):
        write_text(tmp_path / 'bad.csv', header, rows[1], bad)
        with pytest.raises(ValueError, match='bad.csv:3'):
            read(AffectNet, tmp_path, ann_file='bad.csv')
    write_text(tmp_path / 'none.csv', header, rows[9])
    with pytest.raises(ValueError, match='none.csv has no samples'):
        read(AffectNet, tmp_path, ann_file='none.csv')


def test_rafdb(tmp_path):
    split = RAFDB.METAINFO['split_files']['train']
    write_text(tmp_path / split, 'train_00001.jpg 5', 'train_00002.jpg 1', 'test_0001.jpg 7')
    images(
        tmp_path / 'Image/aligned',
        'train_00001_aligned.jpg',
        'train_00002_aligned.jpg',
        'test_0001_aligned.jpg',
    )
    kwargs = dict(folder='Image/aligned', ann_file=split)
    assert read(RAFDB, tmp_path, split='train', **kwargs) == [
        ('train_00001.jpg', 'sadness'),
        ('train_00002.jpg', 'surprise'),
    ]
    assert read(RAFDB, tmp_path, split='test', **kwargs) == [('test_0001.jpg', 'neutral')]
    with pytest.raises(ValueError, match='both splits'):
        read(RAFDB, tmp_path, **kwargs)
    with pytest.raises(ValueError, match="split of RAFDB.*'val'"):
        read(RAFDB, tmp_path, split='val', **kwargs)


def test_ferplus_votes(tmp_path):
    header = (
        'Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF'
    )
    rows = [
        'Training,fer0000000.png,4,0,0,1,3,2,0,0,0,0',
        'Training,fer0000001.png,0,0,0,0,0,0,1,9,0,0',
        'Training,fer0000002.png,4,0,0,4,1,0,0,0,1,0',  # a tie
        'Training,fer0000003.png,3,0,0,2,0,0,0,0,5,0',  # unknown
        'Training,,0,0,0,0,0,0,0,0,0,10',  # no face
        'PublicTest,fer0028638.png,0,9,1,0,0,0,0,0,0,0',
        'PrivateTest,fer0032220.png,0,0,0,0,10,0,0,0,0,0',
    ]
    write_text(tmp_path / 'fer2013new.csv', header, *rows)
    images(
        tmp_path / 'images',
        'FER2013Train/fer0000000.png',
        'FER2013Train/fer0000001.png',
        'FER2013Valid/fer0028638.png',
        'FER2013Test/fer0032220.png',
    )
    kwargs = dict(folder='images', ann_file='fer2013new.csv')
    assert read(FERPlus, tmp_path, split='train', **kwargs) == [
        ('FER2013Train/fer0000000.png', 'neutral'),
        ('FER2013Train/fer0000001.png', 'contempt'),
    ]
    assert read(FERPlus, tmp_path, split='valid', **kwargs) == [
        ('FER2013Valid/fer0028638.png', 'happiness')
    ]
    assert read(FERPlus, tmp_path, split='test', **kwargs) == [
        ('FER2013Test/fer0032220.png', 'anger')
    ]
    with pytest.raises(ValueError, match='all splits'):
        read(FERPlus, tmp_path, **kwargs)
    with pytest.raises(ValueError, match="split of FERPlus.*'val'"):
        read(FERPlus, tmp_path, split='val', **kwargs)
    write_text(tmp_path / 'bad.csv', header, rows[0], rows[1].replace('9', 'nine'))
    with pytest.raises(ValueError, match="bad.csv:3.*'nine'"):
        read(FERPlus, tmp_path, ann_file='bad.csv', split='train')
    write_text(tmp_path / 'list.txt', 'a.png 1')
    with pytest.raises(ValueError, match='simple list'):
        read(FERPlus, tmp_path, ann_file='list.txt', split='train')


def test_ferplus_says_what_it_leaves_out(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(
        's4d_mm.datasets.official_csv.print_log', lambda text, **_: said.append(text)
    )
    write_text(
        tmp_path / 'fer2013new.csv',
        'Training,a.png,5,5' + ',0' * 8,
        'Training,b.png' + ',0' * 9 + ',9',
        'Training,c.png,9' + ',0' * 9,
        'Training,,9' + ',0' * 9,
    )
    images(tmp_path, 'FER2013Train/c.png')
    assert len(read(FERPlus, tmp_path, ann_file='fer2013new.csv', split='train')) == 1
    assert '1 images' in said[-1]
    for reason in ('with a tie', 'with most votes for unknown or NF', 'without an image'):
        assert f'1 {reason}' in said[-1]


# ------------------------------------------------------------- labels in names
CREMAD_NAMES = {
    '1001_DFA_ANG_XX': 'anger',
    '1001_IEO_DIS_HI': 'disgust',
    '1002_IEO_FEA_LO': 'fear',
    '1002_IEO_HAP_MD': 'happiness',
    '1091_TIE_NEU_XX': 'neutral',
    '1091_ITH_SAD_X': 'sadness',  # one file is called so
}
RAVDESS_NAMES = {
    f'Actor_{a:02d}/01-01-{e:02d}-01-02-01-{a:02d}': label
    for a, e, label in [
        (1, 1, 'neutral'),
        (1, 2, 'calm'),
        (1, 3, 'happiness'),
        (1, 4, 'sadness'),
        (12, 5, 'anger'),
        (12, 6, 'fear'),
        (12, 7, 'disgust'),
        (24, 8, 'surprise'),
    ]
}
ENTERFACE_NAMES = {
    'subject 1/anger/sentence 1/s1_an_1': 'anger',
    'subject 1/sadness/sentence 5/s1_sa_5': 'sadness',
    'subject 11/disgust/sentence 2/s12_di_2': 'disgust',
    'subject 3/happiness/sentence 1/s_3_ha_1': 'happiness',
    'subject 6/fear/s6_fe': 'fear',
    'subject_44/surprise/sentence_1/s44_su_1': 'surprise',
}
CAER_NAMES = {
    'train/Anger/0001': 'anger',
    'train/Disgust/0001': 'disgust',
    'train/Fear/0001': 'fear',
    'train/Happy/0001': 'happiness',
    'train/Neutral/0001': 'neutral',
    'train/Sad/0001': 'sadness',
    'train/Surprise/0002': 'surprise',
}
IN_NAMES = [
    (CREMAD, CREMAD_NAMES, '.mp4'),
    (RAVDESS, RAVDESS_NAMES, '.mp4'),
    (ENTERFACE05, ENTERFACE_NAMES, '.avi'),
    (CAER, CAER_NAMES, '.avi'),
]


@pytest.mark.parametrize('layout', ['frames', 'files'])
@pytest.mark.parametrize('dataset, names, suffix', IN_NAMES)
def test_labels_in_names(tmp_path, dataset, names, suffix, layout):
    assert set(names.values()) == set(dataset.METAINFO['classes'])
    suffix = suffix if layout == 'files' else ''
    clips(tmp_path / 'clips', *names, suffix=suffix)
    write_text(tmp_path / 'clips' / 'README.txt', 'not a clip')
    write_text(tmp_path / 'clips' / '.hidden' / f'x{suffix}', 'not a clip')
    # the folder itself
    assert read(dataset, tmp_path, 'clips', suffix=suffix) == sorted(names.items())
    # a list of names, with and without suffix, with and without header
    for end, header in (('', []), (suffix or '.mp4', ['path'])):
        write_text(tmp_path / 'list.txt', *header, *[n + end for n in names])
        assert read(dataset, tmp_path, 'clips', ann_file='list.txt', suffix=suffix) == [
            (n + end, c) for n, c in names.items()
        ]
    # a CSV with labels: these count, not the names
    first = next(iter(names))
    write_text(tmp_path / 'list.csv', 'path,label', f'{first},Sad')
    assert read(dataset, tmp_path, 'clips', ann_file='list.csv', suffix=suffix) == [
        (first, 'sadness')
    ]


def test_caers(tmp_path):
    names = {f'{name}.png': label for name, label in CAER_NAMES.items()}
    images(tmp_path, *names)
    assert read(CAERS, tmp_path) == sorted(names.items())
    assert read(CAERS, tmp_path, 'train') == [(n[6:], c) for n, c in sorted(names.items())]
    write_text(tmp_path / 'list.txt', *names)
    assert read(CAERS, tmp_path, ann_file='list.txt') == list(names.items())
    images(tmp_path, 'train/Bored/0001.png')
    with pytest.raises(ValueError, match="train/Bored/0001.png.*'Bored'"):
        read(CAERS, tmp_path)


@pytest.mark.parametrize(
    'dataset, bad',
    [
        (CREMAD, '1001_DFA_BAD_XX.mp4'),
        (CREMAD, 'clip_DFA_ANG_XX.mp4'),
        (RAVDESS, '01-01-09-01-02-01-12.mp4'),
        (RAVDESS, '01-01-03-01-02-01.mp4'),
        (ENTERFACE05, 's1_an_1.avi'),
        (ENTERFACE05, 'subject 1/boredom/sentence 1/s1_bo_1.avi'),
        (CAER, '0001.avi'),
        (CAERS, '0001.png'),
    ],
)
def test_names_that_cannot_be_read(tmp_path, dataset, bad):
    good = next(n for d, n, _ in [*IN_NAMES, (CAERS, CAER_NAMES, '')] if d is dataset)
    ann_file = write_text(tmp_path / 'list.txt', next(iter(good)), '', bad)
    with pytest.raises(ValueError) as error:
        dataset(ann_file=ann_file)
    assert f'list.txt:3: cannot read {bad!r}' in str(error.value)
    assert dataset.NAME_FORMAT in str(error.value)
    # in a folder, the path is named
    path = tmp_path / 'clips' / bad
    write_text(path, 'never opened')
    with pytest.raises(ValueError) as error:
        read(dataset, tmp_path, 'clips', suffix=osp.splitext(bad)[1])
    assert osp.splitext(str(path))[0] in str(error.value)


@pytest.mark.parametrize(
    'dataset, names, some',
    [
        (CREMAD, CREMAD_NAMES, [1001, 1091]),
        (RAVDESS, RAVDESS_NAMES, range(12, 25, 12)),
        (ENTERFACE05, ENTERFACE_NAMES, [11, 3]),
    ],
)
def test_subjects(tmp_path, dataset, names, some):
    for name in names:
        write_text(tmp_path / 'clips' / f'{name}.mp4', 'never opened')
    for ann_file in (
        '',
        write_text(tmp_path / 'list.txt', *names),
        write_text(tmp_path / 'list.csv', *[f'{n},{c}' for n, c in names.items()]),
    ):

        def load(subjects, ann_file=ann_file):
            return dataset(
                ann_file=ann_file,
                data_root=str(tmp_path),
                data_prefix=dict(video='clips'),
                suffix='.mp4',
                serialize_data=False,
                subjects=subjects,
            )

        chosen = load(some)
        infos = [chosen.get_data_info(i) for i in range(len(chosen))]
        people = {chosen.get_subject(info['sample_id']) for info in infos}
        assert people == set(some)
        everyone = {chosen.get_subject(n) for n in names}
        others = load(everyone - set(some))
        assert len(chosen) + len(others) == len(load(None)) == len(names)
        with pytest.raises(ValueError, match=r'subjects.*\[999\].*not in'):
            load([999])


def test_ravdess_has_each_picture_once(tmp_path):
    for name in ('01-01-03-01-02-01-12', '02-01-03-01-02-01-12', '01-02-03-01-02-01-12'):
        write_text(tmp_path / f'{name}.mp4', 'never opened')
    dataset = RAVDESS(data_root=str(tmp_path), suffix='.mp4')
    assert len(dataset) == 1
    assert dataset.get_data_info(0)['sample_id'] == '01-01-03-01-02-01-12'


def test_what_is_listed_of_a_folder(tmp_path):
    images(tmp_path / 'elsewhere', 'Sad/2.png')
    images(tmp_path / 'faces', 'Anger/1.PNG', 'Anger/contact_sheet.jpg', '__MACOSX/Anger/3.png')
    os.symlink(tmp_path / 'elsewhere' / 'Sad', tmp_path / 'faces' / 'Sad')
    assert read(CAERS, tmp_path, 'faces') == [('Anger/1.PNG', 'anger'), ('Sad/2.png', 'sadness')]


def test_labels_in_names_are_not_needed(tmp_path):
    """For pre-training, clips of any class are taken."""
    write_text(tmp_path / 'Bored' / '1.avi', 'never opened')
    dataset = CAER(data_root=str(tmp_path), suffix='.avi', has_labels=False)
    assert dataset.get_data_info(0)['sample_id'] == 'Bored/1'


def test_suffix_of_names_is_dropped(tmp_path):
    """Where ``suffix`` says what the files have, the one in the list does not count."""
    ann_file = write_text(tmp_path / 'a.txt', '03747.mp4 anger')
    info = MAFW(ann_file=ann_file, suffix='.avi').get_data_info(0)
    assert info['filename'] == '03747.avi'


def test_names_of_own_classes_come_first(tmp_path):
    """The names that other datasets use are tried where the classes have no such name."""
    ann_file = write_text(tmp_path / 'a.txt', 'a Happy', 'b Sad')
    dataset = FERV39k(ann_file=ann_file, metainfo=dict(classes=('Sadness', 'Happy')))
    assert dataset.get_gt_labels().tolist() == [1, 0]


def test_voxceleb2(tmp_path):
    names = ['id00012/_joJsjFkmdo/00001', 'id00015/21Uxsk56VDQ/00002']
    clips(tmp_path / 'dev/mp4', *names, suffix='.mp4')
    kwargs = dict(folder='dev/mp4', suffix='.mp4')

    def found(**kwargs):
        dataset = VoxCeleb2(
            data_root=str(tmp_path),
            data_prefix=dict(video='dev/mp4'),
            pipeline=CLIP,
            test_mode=True,
            **kwargs,
        )
        return [dataset[i]['data_samples'].sample_id for i in range(2)]

    assert found(suffix='.mp4') == names
    write_text(tmp_path / 'list.txt', *[f'{n}.mp4' for n in names])
    assert found(ann_file='list.txt') == [f'{n}.mp4' for n in names]
    assert read(VoxCeleb2, tmp_path, **kwargs) == [(n, None) for n in names]


def test_no_annotation_file(tmp_path):
    with pytest.raises(ValueError, match='DFEW needs ann_file.*set_{fold}'):
        DFEW()
    with pytest.raises(FileNotFoundError, match='nowhere.*does not exist'):
        CREMAD(data_root=str(tmp_path), data_prefix=dict(video='nowhere'))
    with pytest.raises(ValueError, match="no folders of frames.*suffix='.mp4"):
        CREMAD(data_root=str(tmp_path))
    with pytest.raises(ValueError, match="no files that end in '.flv'"):
        CREMAD(data_root=str(tmp_path), suffix='.flv')
    with pytest.raises(ValueError, match='no image files'):
        CAERS(data_root=str(tmp_path))


def test_affectnet_reads_a_part_if_it_is_there(tmp_path, caplog):
    """The recipe's: the authors' list first, then one of make_lists.py, then all images."""
    cfg = Config.fromfile(osp.join(ROOT, 'configs', 's4d_finetune_dfew.py'))
    recipe = cfg.train_dataloader.dataset.image
    wanted = ['train_affectnet7_2w.txt', 'train_7_20000.txt', 'train_7.txt']
    names = (*recipe.subsets, recipe.ann_file)
    assert [osp.basename(name) for name in names] == wanted
    for images, name in reversed(list(enumerate(names, 1))):
        write_text(tmp_path / name, *[f'{i}.jpg 3' for i in range(images)])
        dataset = AffectNet(
            data_root=str(tmp_path), ann_file=recipe.ann_file, subsets=recipe.subsets
        )
        assert len(dataset) == images and dataset.ann_file.endswith(name)
    for image in (cfg.val_dataloader.dataset.image, cfg.test_dataloader.dataset.image):
        assert 'subsets' not in image


@pytest.mark.parametrize('part', ['single', 'compound'])
def test_mafw_lists_with_captions_are_refused_by_name(tmp_path, part):
    """Also if they were copied to another name, in their own encoding."""
    folder = tmp_path / part / 'with_caption'
    line = '00025.mp4\thappiness\t\u4e00\u4e2a\u7537\u4eba\tA man smiles, and nods.\n'
    for copy in (folder / 'train.txt', tmp_path / 'set_1_train.csv'):
        copy.parent.mkdir(parents=True, exist_ok=True)
        for name in ('train', 'test'):
            copy.with_name(copy.name.replace('train', name)).write_text(line, 'gb18030')
        with pytest.raises(ValueError, match='with captions.*Give the list .*no_caption'):
            MAFW(ann_file=str(copy), encoding='gb18030', compound=part == 'compound')
