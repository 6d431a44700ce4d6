# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Make a checkpoint smaller, to publish it: without the state of training, named by date and hash.

    python tools/model_converters/publish_model.py IN_FILE OUT_FILE

As mmaction2's tool of this name, which cannot read mmengine's checkpoints on torch 2.6 and later;
``weights_only`` stays on here.
"""

import argparse
import os.path as osp
from collections.abc import Sequence
from typing import Optional

from s4d_mm.converters.io import publish


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Write the file and print its name and size."""
    parser = argparse.ArgumentParser(description='Process a checkpoint to be published')
    parser.add_argument('in_file', help='input checkpoint filename')
    parser.add_argument('out_file', help='output checkpoint filename')
    args = parser.parse_args(argv)
    if not osp.isfile(args.in_file):
        parser.error(f'checkpoint {args.in_file} does not exist')
    final = publish(args.in_file, args.out_file)
    print(
        f'{final}: {osp.getsize(final) / 2**20:.1f} MiB of '
        f'{osp.getsize(args.in_file) / 2**20:.1f} MiB. The config of the training, with its '
        'paths, is in it.'
    )


if __name__ == '__main__':
    main()
