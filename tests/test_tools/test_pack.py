# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""tools/data/pack.py: packed clips and images are read like those that they were made of."""

import os
import random
import resource
import shutil
import signal
import struct
from pathlib import Path

import lmdb
import numpy as np
import pack as tool
import pytest
import torch
import verify
from helpers import (
    make_frame,
    read_config,
    truncate,
    write_frames,
    write_image,
    write_text,
    write_video,
)
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image
from runs import Training, run_ranks
from torch.utils.data import DataLoader

from s4d_mm.datasets import (
    DFEW,
    DualModalBatchSampler,
    DualModalDataset,
    DualModalSampler,
    ExpressionImageDataset,
    ExpressionVideoDataset,
    VoxCeleb2,
)
from s4d_mm.media import MediaReadError, read_image, read_video
from s4d_mm.packed import HEAD, find_packed, open_folder, part_of

CLIP = [
    dict(type='ClipInit'),
    dict(type='SampleClipWindow', clip_len=4, frame_interval=2),
    dict(type='ClipDecode'),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs', meta_keys=('input_type', 'sample_id')),
]
IMAGE = [dict(type='ImageLoad'), dict(type='FormatShape', input_format='NCHW'), CLIP[-1]]
CLASSES = dict(metainfo=dict(classes=('neutral', 'happiness')))


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmaction')


def pack(dataset, src, dst, **options):
    return tool.pack(dataset, str(src), str(dst), **dict(dict(workers=1), **options))


def damage_last_frame(folder, key, frames):
    path = f'{folder}/part-00000-of-00001.lmdb'
    with lmdb.open(path, subdir=False, lock=False) as env, env.begin(write=True) as txn:
        record = txn.get(key)
        (size,) = struct.unpack_from('<I', record, HEAD.size + 4 * (frames - 1))
        txn.put(key, record[:-size] + bytes(size))


def frames_of(folder):
    return [read_image(str(path)) for path in sorted(Path(folder).iterdir())]


def test_frames_stay_to_the_bit(tmp_path):
    """JPEG frames are not encoded again; the list and the config stay, but for data_prefix."""
    for name in ('00001', '00002'):
        write_frames(tmp_path / 'frames' / name, 12)
    assert pack('DFEW', tmp_path / 'frames', tmp_path / 'packed') == []
    options = dict(data_root=str(tmp_path), ann_file='a.csv', pipeline=CLIP)
    write_text(tmp_path / 'a.csv', 'name,label', '1,7', '2,1')  # as in the official lists
    sets = [DFEW(data_prefix=dict(video=v), **options) for v in ('frames', 'packed')]
    for number in (0, 1):
        found = []
        for data in sets:
            np.random.seed(3)
            found.append(data[number])
        assert torch.equal(found[0]['inputs'], found[1]['inputs'])
        assert found[0]['data_samples'].gt_label == found[1]['data_samples'].gt_label


@pytest.mark.parametrize('keep', [False, True])
def test_other_pictures_are_encoded_or_kept(keep, tmp_path):
    src = write_frames(tmp_path / 'src' / 'a', 3, pattern='{}.png')
    assert pack('MAFW', tmp_path / 'src', tmp_path / 'packed', keep=keep) == []
    clip = find_packed(str(tmp_path / 'packed' / 'a.mp4'))  # the official lists have suffixes
    difference = np.abs(np.stack(list(clip.read(range(3)))).astype(int) - np.stack(frames_of(src)))
    assert difference.max() == 0 if keep else 0 < difference.mean() < 2
    (frame,) = clip.read([2])
    assert np.array_equal(frame, list(clip.read(range(3)))[2])


def test_images_of_all_kinds(tmp_path):
    """JPEG files that turbojpeg would decode otherwise are read by Pillow, as before."""
    os.makedirs(tmp_path / 'src' / '1')
    picture, turned = Image.fromarray(make_frame(5)), Image.Exif()
    turned[0x0112] = 6
    picture.save(tmp_path / 'src' / '1' / 'plain.jpg')
    picture.save(tmp_path / 'src' / '1' / 'turned.jpg', exif=turned)
    picture.convert('L').save(tmp_path / 'src' / '1' / 'grey.jpg')
    picture.convert('CMYK').save(tmp_path / 'src' / '1' / 'cmyk.jpg')
    shutil.copy(tmp_path / 'src' / '1' / 'plain.jpg', tmp_path / 'src' / 'cut.jpg')
    truncate(tmp_path / 'src' / 'cut.jpg')
    (wrong,) = pack('AffectNet', tmp_path / 'src', tmp_path / 'packed')
    assert wrong.startswith('cut.jpg: Cannot decode image')
    names = [f'1/{kind}.jpg' for kind in ('plain', 'turned', 'grey', 'cmyk')]
    write_text(tmp_path / 'a.txt', *(f'{name} 1' for name in names), 'cut.jpg 0')
    data = ExpressionImageDataset(
        'a.txt', str(tmp_path), dict(img='packed'), pipeline=IMAGE, test_mode=True, **CLASSES
    )
    for number, name in enumerate(names):
        image = data[number]['inputs'][0].permute(1, 2, 0).numpy()
        assert np.array_equal(image, read_image(str(tmp_path / 'src' / name)))
    with pytest.raises(FileNotFoundError, match='cut.jpg is not in the packed data'):
        data[4]


def test_the_window_of_voxceleb2(tmp_path):
    """The recipe reads packed clips and videos; the store holds what it would cut out."""
    write_video(tmp_path / 'src' / 'id1' / 'x' / '1.mp4', 30, 224, 224)
    write_video(tmp_path / 'src' / 'id2' / 'x' / '1.mp4', 30, 100, 224)  # too small
    (wrong,) = pack('VoxCeleb2', tmp_path / 'src', tmp_path / 'packed')
    assert wrong.startswith('id2/x/1.mp4: frames of 100 x 224 pixels')
    clip = find_packed(str(tmp_path / 'packed' / 'id1' / 'x' / '1.mp4'))
    video = list(read_video(str(tmp_path / 'src' / 'id1' / 'x' / '1.mp4')))
    assert len(clip) == 30 and clip.fps == 25
    for frame, packed in zip(video, clip.read(range(30))):
        assert packed.shape == (160, 160, 3)
        assert np.abs(packed.astype(int) - frame[:160, 32:192]).mean() < 1
    pipeline = read_config('s4d_pretrain').train_dataloader.dataset.video.pipeline
    found = []
    for prefix in ('src', 'packed'):
        data = VoxCeleb2('', str(tmp_path), dict(video=prefix), None, '.mp4', pipeline=pipeline)
        assert data.get_data_info(0)['sample_id'] == 'id1/x/1'
        np.random.seed(1)
        random.seed(1)
        found.append(data[0]['inputs'].float())
    assert found[0].shape == (4, 3, 16, 160, 160) and (found[0] - found[1]).abs().mean() < 1


def test_a_killed_run_is_resumed(tmp_path, capsys, monkeypatch):
    """What was written stays; the rest is packed by the next run, and verified."""
    for i in range(30):
        write_video(tmp_path / 'src' / f'{i}.mp4', 20)
    arguments = ['ExpressionVideoDataset', tmp_path / 'src', tmp_path / 'packed']
    monkeypatch.setattr(tool, 'COMMIT_BYTES', 1)
    commit, steps = tool.Writer.commit, tmp_path / 'steps'

    def commit_and_tell(self):
        commit(self)
        with open(steps, 'a') as f:
            f.write(f'{len(self.keys())}\n')

    def run():
        tool.Writer.commit = commit_and_tell
        pack(*arguments, parts=2)

    process = Training(run, tmp_path)
    process.wait_for('9')
    process.signal(signal.SIGKILL)
    assert process.end() == -signal.SIGKILL
    assert pack(*arguments, parts=2) == []
    done = int(capsys.readouterr().out.split(' of 30 are done')[0])
    assert 9 <= done < 30
    assert pack(*arguments, parts=2, verify=True) == []
    with pytest.raises(ValueError, match='parts was 2 and now is 3'):
        pack(*arguments, parts=3)


def test_verify_finds_what_differs(tmp_path, capsys):
    for i in range(3):
        write_frames(tmp_path / 'src' / f'{i}', 3)
    arguments = ['DFEW', str(tmp_path / 'src'), str(tmp_path / 'packed')]
    assert tool.main([*arguments, '--workers', '2']) == 0
    write_image(tmp_path / 'src' / '1' / '00001.jpg', number=9)
    path = str(tmp_path / 'packed' / 'part-00000-of-00001.lmdb')
    with lmdb.open(path, subdir=False, lock=False) as env, env.begin(write=True) as txn:
        assert txn.delete(b'2')
    assert tool.main([*arguments, '--workers', '1', '--verify']) == 1
    shown = capsys.readouterr().out
    assert '1: differs' in shown and '2 is not in the packed data' in shown
    shutil.rmtree(tmp_path / 'src' / '0')
    (tmp_path / 'packed' / 'part-00000-of-00001.lmdb').unlink()
    assert tool.main([*arguments, '--workers', '1', '--verify']) == 1
    assert '1 lies in part-00000-of-00001.lmdb, which is not in' in capsys.readouterr().out
    assert len(os.listdir(tmp_path / 'packed')) == 2  # it writes nothing: settings, and LMDB's lock
    with pytest.raises(ValueError, match='other is no packed folder'):
        pack('DFEW', tmp_path / 'src', tmp_path / 'other', verify=True)


def test_verify_names_what_has_no_source(tmp_path):
    for i in range(2):
        write_frames(tmp_path / 'src' / f'{i}', 3)
    pack('DFEW', tmp_path / 'src', tmp_path / 'packed')
    shutil.rmtree(tmp_path / 'src' / '0')
    (wrong,) = pack('DFEW', tmp_path / 'src', tmp_path / 'packed', verify=True)
    assert wrong.startswith('0: is packed, but not in')


def test_names_lose_a_suffix_once(tmp_path):
    write_video(tmp_path / 'src' / 'a.avi.mp4', 5)
    assert pack('DFEW', tmp_path / 'src', tmp_path / 'packed') == []
    for name in ('a.avi.mp4', './a.avi.mp4', '/a.avi.mp4', '../packed/a.avi.mp4'):
        assert len(find_packed(f'{tmp_path}/packed/{name}')) == 5
    write_frames(tmp_path / 'src' / 'b.mp4', 3)
    write_frames(tmp_path / 'src' / 'b', 3)
    with pytest.raises(ValueError, match='b and b.mp4 would have one name'):
        pack('DFEW', tmp_path / 'src', tmp_path / 'packed')


def test_what_training_would_refuse_is_not_packed(tmp_path):
    write_video(tmp_path / 'src' / 'cut.mkv', 40)
    truncate(tmp_path / 'src' / 'cut.mkv')
    write_frames(tmp_path / 'src' / 'sizes', 3)
    write_image(tmp_path / 'src' / 'sizes' / '00002.jpg', height=64)
    wrong = pack('DFEW', tmp_path / 'src', tmp_path / 'packed')
    assert 'it is cut off' in wrong[0] and 'must have one size' in wrong[1]


def test_one_folder_by_several_names(tmp_path):
    """It is opened once: LMDB forbids more."""
    write_frames(tmp_path / 'src' / 'a', 3, 224, 224)
    pack('VoxCeleb2', tmp_path / 'src', tmp_path / 'packed')
    os.symlink('packed', tmp_path / 'link')
    for prefix in ('packed/', 'packed', './src/../packed//', 'link'):
        data = VoxCeleb2('', str(tmp_path), dict(video=prefix), pipeline=CLIP)
        assert data[0]['inputs'].shape == (1, 3, 4, 160, 160)


@pytest.mark.parametrize('left', [100, 5000, 20000])
def test_a_part_that_was_copied_in_part(left, tmp_path):
    for i in range(9):
        write_frames(tmp_path / 'src' / f'{i}', 3)
    arguments = ['DFEW', tmp_path / 'src', tmp_path / 'packed']
    pack(*arguments)
    path = tmp_path / 'packed' / 'part-00000-of-00001.lmdb'
    assert path.stat().st_size > left
    os.truncate(path, left)
    with pytest.raises(MediaReadError, match='Copy it anew'):
        find_packed(f'{tmp_path}/packed/1')
    for verify_it in (False, True):
        with pytest.raises(OSError, match='Copy it anew'):
            pack(*arguments, verify=verify_it)
    (tmp_path / 'packed' / 'packed.json').write_text('[3]')
    for read in (lambda: find_packed(f'{tmp_path}/packed/1'), lambda: pack(*arguments)):
        with pytest.raises((MediaReadError, ValueError), match='packed.json is damaged'):
            read()


def test_a_full_disk_loses_nothing(tmp_path, capsys):
    for i in range(20):
        write_frames(tmp_path / 'src' / f'{i}', 3)
    arguments = ['DFEW', str(tmp_path / 'src'), str(tmp_path / 'packed'), '--workers', '1']
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50000, limits[1]))
    try:
        assert tool.main(arguments) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert 'is the disk full? Make room, then run this again' in capsys.readouterr().err
    assert tool.main(arguments) == tool.main([*arguments, '--verify']) == 0


def test_verify_of_a_config_reads_packed_data(tmp_path):
    for name in ('1', '2', '4'):
        write_frames(tmp_path / 'src' / name, 5)
    pack('ExpressionVideoDataset', tmp_path / 'src', tmp_path / 'packed')
    damage_last_frame(tmp_path / 'packed', b'4', 5)
    write_text(tmp_path / 'a.txt', '1 0', '2 1', '3 1', '4 0')
    data = dict(type='ExpressionVideoDataset', data_root=str(tmp_path), ann_file='a.txt')
    data.update(data_prefix=dict(video='packed'), **CLASSES)
    cfg, kinds = Config(dict(train_dataloader=dict(dataset=data))), {}
    for decode in ('all', 'none'):
        (split,) = verify.verify(cfg, decode=decode)
        kinds[decode] = [finding.kind for finding in split.findings]
    assert [split.media[s.path].frames for s in split.samples] == [5, 5, 0, 5]
    # two have the same frames and other labels
    assert kinds == dict(all=['missing', 'unreadable', 'twice'], none=['missing', 'twice'])


def test_workers_and_their_parent_read_at_once(tmp_path):
    """A forked worker opens the files anew."""
    for i in range(8):
        write_frames(tmp_path / 'src' / f'{i}', 3 + i)
    pack('ExpressionVideoDataset', tmp_path / 'src', tmp_path / 'packed', parts=2)
    write_text(tmp_path / 'a.txt', *(f'{i} 0' for i in range(8)))
    data = ExpressionVideoDataset(
        'a.txt', str(tmp_path), dict(video='packed'), pipeline=CLIP, **CLASSES
    )
    wanted = [data[i]['data_samples'].sample_id for i in range(8)]
    mine = open_folder(str(tmp_path / 'packed'))

    def collate(samples):
        assert open_folder(str(tmp_path / 'packed')) is not mine
        return samples

    loader = DataLoader(data, num_workers=2, collate_fn=collate, multiprocessing_context='fork')
    assert [batch[0]['data_samples'].sample_id for batch in loader] == wanted
    assert open_folder(str(tmp_path / 'packed')) is mine
    assert data[0]['inputs'].shape == (1, 3, 4, 48, 64)


@pytest.fixture
def two_parts(tmp_path):
    """Clips in two parts, of which each of two nodes has one, and images."""
    for i in range(21):
        write_frames(tmp_path / 'src' / f'{i}', 4)
    pack('ExpressionVideoDataset', tmp_path / 'src', tmp_path / 'node0', parts=2)
    os.makedirs(tmp_path / 'node1')
    shutil.copy(tmp_path / 'node0' / 'packed.json', tmp_path / 'node1')
    shutil.move(tmp_path / 'node0' / 'part-00001-of-00002.lmdb', tmp_path / 'node1')
    write_text(tmp_path / 'a.txt', *(f'{i}.mp4 {i % 2}' for i in range(21)))
    write_image(tmp_path / 'img' / '1.jpg')
    write_text(tmp_path / 'b.txt', *['1.jpg 0'] * 6)
    return tmp_path


def dataset_of(root, rank):
    options = dict(data_root=str(root), **CLASSES)
    return DualModalDataset(
        ExpressionVideoDataset(
            'a.txt', data_prefix=dict(video=f'node{rank}'), pipeline=CLIP, **options
        ),
        ExpressionImageDataset('b.txt', data_prefix=dict(img='img'), pipeline=IMAGE, **options),
    )


def test_each_node_reads_its_own_part(two_parts):
    """Two processes with a part each read all they draw, other samples in the next epoch."""

    def read():
        rank = int(os.environ['RANK'])
        data = dataset_of(two_parts, rank)
        sampler = DualModalSampler(data, seed=0, node_parts=('video',))
        batches = DualModalBatchSampler(
            sampler, total_batch_size=dict(video=4, image=2), drop_last=True
        )
        drawn = []
        for epoch in range(8):
            sampler.set_epoch(epoch)
            for batch in batches:
                items = [data[index] for index in batch]
                drawn.append([item['data_samples'].sample_id for item in items])
        return drawn

    found = run_ranks(read, two_parts / 'run')
    steps = [len({batch[0] == '1.jpg' for batch in step}) for step in zip(*found)]
    assert set(steps) == {1}  # one modality in each step
    keys = [{name[:-4] for batch in run for name in batch if name.endswith('mp4')} for run in found]
    assert keys == [{str(i) for i in range(21) if part_of(str(i), 2) == part} for part in (0, 1)]


def test_parts_and_processes_must_fit(two_parts):
    data = dataset_of(two_parts, 0)
    with pytest.raises(FileNotFoundError, match='part-00001-of-00002.lmdb, which is not in'):
        for index in range(21):
            data.datasets[0].pipeline(data.datasets[0].get_data_info(index))
    with pytest.raises(ValueError, match='parts of .* samples, but the job has 1 processes'):
        DualModalSampler(data, node_parts='video')
    with pytest.raises(ValueError, match='is not in a packed folder'):
        DualModalSampler(data, node_parts='image')
