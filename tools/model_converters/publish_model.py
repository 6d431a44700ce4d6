# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Make a checkpoint smaller, to publish it: without the state of training, named by date and hash.

    python tools/model_converters/publish_model.py IN_FILE OUT_FILE

OUT_FILE ends in .pth or .safetensors; the latter holds the names of the classes and the config as
texts. IN_FILE may be an address (docs/weights.md).

As mmaction2's tool of this name, which cannot read mmengine's checkpoints on torch 2.6 and later;
``weights_only`` stays on here.
"""

import argparse
import os.path as osp
from collections.abc import Sequence


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description='Process a checkpoint to be published')
    parser.add_argument('in_file', help='checkpoint to read')
    parser.add_argument('out_file', help='file to write: .pth or .safetensors')
    args = parser.parse_args(argv)
    from s4d_mm.files.download import may_exist

    if not may_exist(args.in_file):
        parser.error(f'checkpoint {args.in_file} does not exist')
    return args


if __name__ == '__main__':
    parse_args()  # -h and mistakes end here, before the slow imports

import s4d_mm.guard  # noqa: F401
from s4d_mm.converters.io import publish
from s4d_mm.files.download import local_file
from s4d_mm.files.errors import weights_errors_as_messages


def main(argv: Sequence[str] | None = None) -> None:
    """Write the file and print its name and size."""
    args = parse_args(argv)
    with weights_errors_as_messages():
        final = publish(args.in_file, args.out_file)
        source = local_file(args.in_file)
    print(
        f'{final}: {osp.getsize(final) / 2**20:.1f} MiB of '
        f'{osp.getsize(source) / 2**20:.1f} MiB. The config of the training, with its '
        'paths, is in it.'
    )


if __name__ == '__main__':
    main()
