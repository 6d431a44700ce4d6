# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""docs/config_guide.md names every key, part and argument of the two recipes that it explains."""

import re
from pathlib import Path

import pytest
from helpers import ROOT
from mmengine.config import Config

RECIPES = ('s4d_finetune_dfew', 's4d_pretrain')
NAMES = set(re.findall(r'`([^`]+)`', Path(ROOT, 'docs', 'config_guide.md').read_text()))
# of dicts, and mmengine's own, which the page explains in words
IN_WORDS = {'type', '_scope_'}


def parts(value):
    """Type and arguments of each part below a value."""
    if isinstance(value, dict):
        if 'type' in value:
            yield value['type'].split('.')[-1], set(value) - IN_WORDS
        for below in value.values():
            yield from parts(below)
    elif isinstance(value, (list, tuple)):
        for below in value:
            yield from parts(below)


@pytest.mark.parametrize('recipe', RECIPES)
def test_every_key_and_argument_is_on_the_page(recipe):
    cfg = Config.fromfile(Path(ROOT, 'configs', f'{recipe}.py')).to_dict()
    assert set(cfg) - NAMES == set()
    missing = {
        (name, argument)
        for name, arguments in parts(cfg)
        for argument in (name, *arguments)
        if argument not in NAMES
    }
    assert missing == set()
