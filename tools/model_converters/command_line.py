# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What the commands of this folder share: SRC and DST, and the classes of ``--config``."""

import argparse
import os.path as osp


def make_parser(doc: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument('src', help='checkpoint to read: a path or an address (docs/weights.md)')
    parser.add_argument('dst', help='checkpoint to write: .pth or .safetensors')
    return parser


def add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--config', help='config whose datasets give the names of the classes')


def read_classes(parser: argparse.ArgumentParser, path: str | None) -> dict | None:
    """Names of the classes by modality; None without a config."""
    if path is None:
        return None
    if not osp.isfile(path):
        parser.error(f'config file {path} does not exist')
    from mmengine.config import Config

    from s4d_mm.datasets.config import config_classes

    return config_classes(Config.fromfile(path))
