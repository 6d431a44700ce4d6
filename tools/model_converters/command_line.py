# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What the commands of this folder share: SRC and DST, and the classes of ``--config``."""

import argparse
import os.path as osp


def make_parser(doc: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument('src', help='checkpoint to read: a path or an address (docs/weights.md)')
    parser.add_argument('dst', help='checkpoint to write: .pth or .safetensors')
    return parser


def classes_of(path: str) -> dict:
    """The type of ``--config``: names of the classes by modality."""
    if not osp.isfile(path):
        raise argparse.ArgumentTypeError(f'config file {path} does not exist')
    from mmengine.config import Config

    from s4d_mm.datasets.config import config_classes

    return config_classes(Config.fromfile(path))
