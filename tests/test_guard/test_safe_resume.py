# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Checkpoints of strangers that are resumed: no code of theirs runs, no other file is removed."""

import os

import pytest
import torch
from runs import config, train

from s4d_mm.guard import keep_to_folder

HOOKS = ('SafeCheckpointHook', 'CheckpointHook')


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    run = tmp_path_factory.mktemp('finished') / 'run'
    train(config(run, epochs=1, scores=[1, 2, 3], save=dict(save_best='WAR', rule='greater')))
    return torch.load(run / 'epoch_1.pth', weights_only=True)


def resume(content, folder, options=None, **save):
    """Three epochs in all, with checkpoints that replace what the file says."""
    torch.save(content, folder / 'strange.pth')
    options = dict(options or {}, resume=True, load_from=str(folder / 'strange.pth'))
    train(config(folder / 'run', epochs=3, scores=[2, 3], save=save, **options))
    assert list((folder / 'run').glob('*3.pth'))


@pytest.mark.parametrize('runner_type', ['Runner', 'FlexibleRunner'])
@pytest.mark.parametrize('hook', HOOKS)
def test_no_code_of_the_config_runs(hook, runner_type, finished, tmp_path):
    marker = tmp_path / 'ran'
    code = f'import os\nos.mknod({str(marker)!r})\ngpu_ids = [0]\n'
    content = {**finished, 'meta': {**finished['meta'], 'config': code}}
    strategy = dict(type='SingleDeviceStrategy')
    runner = dict(runner_type=runner_type, strategy=strategy, env_cfg=dict())
    resume(content, tmp_path, runner if runner_type == 'FlexibleRunner' else {}, type=hook)
    assert not marker.exists()


@pytest.mark.parametrize('hook', HOOKS)
@pytest.mark.parametrize('how', ['absolute', 'relative'])
def test_nothing_outside_the_folder_is_removed(hook, how, finished, tmp_path):
    outside = tmp_path / 'outside'
    (outside / 'folder.pth').mkdir(parents=True)
    names = ['thesis.txt', 'best_WAR_epoch_7.pth', 'folder.pth/x']
    for name in names:
        (outside / name).write_text('x')
    paths = [str(outside / name) for name in (*names, 'folder.pth', '')]
    if how == 'relative':
        paths = [os.path.relpath(path, tmp_path / 'run') for path in paths]
    for path in paths:
        infos = dict(finished['message_hub']['runtime_info'])
        infos.update(outdated_ckpts=[path], best_ckpt=path, last_ckpt=path)
        infos['keep_ckpt_ids'] = [path.removesuffix('.pth')]
        hub = {**finished['message_hub'], 'runtime_info': infos}
        content = {**finished, 'message_hub': hub}
        save = dict(type=hook, max_keep_ckpts=1, save_best='WAR', rule='greater')
        if hook == 'CheckpointHook':  # it formats ids into names
            save['filename_tmpl'] = '{}.pth'
        resume(content, tmp_path, **save)
        assert all((outside / name).is_file() for name in names), path


def test_own_names_stay_and_a_moved_folder_is_followed():
    def kept(**infos):
        hub = dict(runtime_info=dict(infos, epoch=3))
        keep_to_folder(hub, ['/a/run', '/b/run'])
        assert hub['runtime_info'].pop('epoch') == 3
        return hub['runtime_info']

    own = dict(
        best_ckpt_WAR='/b/run/best.pth',
        last_ckpt='/a/run/epoch_2.pth',
        best_ckpt=None,
        outdated_ckpts=['iter_5.pth'],
        keep_ckpt_ids=[1, 2],
    )
    assert kept(**own) == own
    moved = kept(best_ckpt='/old/run/best_WAR_epoch_2.pth', outdated_ckpts=['../x.pth', 'y.pth'])
    assert moved == dict(best_ckpt='/a/run/best_WAR_epoch_2.pth', outdated_ckpts=['y.pth'])
    assert kept(last_ckpt='/etc/passwd', keep_ckpt_ids=['../1', 2]) == dict(
        last_ckpt=None, keep_ckpt_ids=[2]
    )
