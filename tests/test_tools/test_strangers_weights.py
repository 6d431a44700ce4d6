# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""A stranger's file of weights runs no code, by whatever way and from wherever it is read."""

import os
import pickle

import pytest
import torch
from helpers import ONE_PROCESS, run_script, write_image
from runs import FINETUNE as FINE
from runs import PRETRAIN as PRE

from s4d_mm.apis import init_model

TRAIN = ('tools/train.py', FINE, '--work-dir', '{work}', '--cfg-options', *ONE_PROCESS)
TEST = ('tools/test.py', FINE, '{file}', '--work-dir', '{work}', '--cfg-options', *ONE_PROCESS[2:])
INIT = [f'model.backbone.init_cfg.{option}' for option in ('type=Pretrained', 'checkpoint={file}')]
PICTURES, CONVERTERS = 'tools/analysis_tools', 'tools/model_converters'
OUT, ON_CPU = '{work}/out.pth', ('--device', 'cpu')
# every command that reads weights; {file} is where they lie
WAYS = dict(
    load_from=(*TRAIN, 'load_from={file}'),
    resume=(*TRAIN, 'resume=True', 'load_from={file}'),
    init_cfg=(*TRAIN, *INIT),
    test=TEST,
    predict=('tools/predict.py', '{image}', '--model', FINE, '--weights', '{file}', *ON_CPU),
    reconstruction=(f'{PICTURES}/visualize_reconstruction.py', PRE, '{file}'),
    publish=(f'{CONVERTERS}/publish_model.py', '{file}', OUT),
    from_authors=(f'{CONVERTERS}/s4d_to_mm.py', '{file}', OUT, '--stage', 'finetune'),
    from_vit=(f'{CONVERTERS}/vit_to_mm.py', '{file}', OUT),
)


class Harm:
    """Makes a folder where it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def write_harm(path, harm, form: str) -> None:
    content = dict(state_dict=dict(a=torch.ones(1)), meta=dict(epoch=1), hook=Harm(harm))
    if form == 'pickle':
        with open(path, 'wb') as f:
            pickle.dump(content['hook'], f, protocol=4)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == 'zip')


def run_way(way: str, file: str, work, capsys) -> str:
    """Run one of the commands on a file of weights; what it says where it ends."""
    image = write_image(str(work / 'image.jpg'), 80, 80)
    command = [part.format(file=file, work=work, image=image) for part in WAYS[way]]
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run_script(*command)
    if isinstance(ended.value.code, str):
        return ended.value.code
    assert ended.value.code in (1, 2)
    lines = capsys.readouterr().err.splitlines()
    return '\n'.join(line for line in lines if not line.startswith('Downloading '))


@pytest.mark.parametrize('way', WAYS)
def test_no_way_runs_the_code_of_a_file(way, quickstart, server, tmp_path, capsys):
    harm = tmp_path / 'harm'
    forms = ('zip', 'legacy', 'pickle') if way in ('load_from', 'predict') else ('zip',)
    for form in forms:
        path = tmp_path / f'{form}.pth'
        write_harm(path, harm, form)
        address = server.url(f'/{form}.pth', path.read_bytes())
        for place in (str(path), address):
            text = run_way(way, place, tmp_path, capsys)
            assert place in text and 'weights_only=True' in text
            assert '\n' not in text and 'Traceback' not in text
        assert not harm.exists() and not (tmp_path / 'out.pth').exists()
        # it would have worked
        if form == 'pickle':
            pickle.loads(path.read_bytes())
        else:
            torch.load(path, weights_only=False)
        harm.rmdir()


@pytest.mark.parametrize('way', ['test', 'predict', 'load_from'])
def test_weights_that_are_not_finite_are_named(way, quickstart, tmp_path, capsys):
    weights = init_model(FINE, device='cpu').state_dict()
    weights[list(weights)[3]].view(-1)[1:3] = torch.nan
    weights[list(weights)[5]].fill_(torch.inf)
    path = str(tmp_path / 'x.pth')
    torch.save(dict(state_dict=weights, meta={}), path)
    text = run_way(way, path, tmp_path, capsys)
    assert f'The weights of {path} are not finite: 2 of ' in text
    assert f'numbers of {list(weights)[3]} are NaN or infinite' in text
