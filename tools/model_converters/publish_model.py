# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Make a checkpoint smaller, to publish it: without the state of training, and
named by date and hash.

    python tools/model_converters/publish_model.py IN_FILE OUT_FILE

As mmaction2's tool of this name, which cannot read mmengine's checkpoints on
torch 2.6 and later; ``weights_only`` stays on here.
"""

import argparse
import datetime
import hashlib
import os
import os.path as osp

import torch

from s4d_mm.converters.io import save_checkpoint

# what only the training needs
UNNECESSARY = ('message_hub', 'optimizer', 'param_schedulers', 'hook_msgs')


def process_checkpoint(in_file: str, out_file: str) -> str:
    """Strip a checkpoint.

    Args:
        in_file (str): Checkpoint of mmengine.
        out_file (str): Where to; ``_{date}-{hash}`` is put before the suffix.

    Returns:
        str: Name of the file that was written.
    """
    checkpoint = torch.load(in_file, map_location='cpu', weights_only=True)
    for key in UNNECESSARY:
        checkpoint.pop(key, None)
    unnamed = f'{out_file}.tmp'
    save_checkpoint(checkpoint, unnamed)
    with open(unnamed, 'rb') as f:
        sha = hashlib.sha256(f.read()).hexdigest()[:8]
    stem = out_file[: -len('.pth')] if out_file.endswith('.pth') else out_file
    final = f'{stem}_{datetime.date.today():%Y%m%d}-{sha}.pth'
    os.replace(unnamed, final)
    return final


def main() -> None:
    parser = argparse.ArgumentParser(description='Process a checkpoint to be published')
    parser.add_argument('in_file', help='input checkpoint filename')
    parser.add_argument('out_file', help='output checkpoint filename')
    args = parser.parse_args()
    if not osp.isfile(args.in_file):
        parser.error(f'checkpoint {args.in_file} does not exist')
    final = process_checkpoint(args.in_file, args.out_file)
    print(
        f'{final}: {osp.getsize(final) / 2**20:.1f} MiB of '
        f'{osp.getsize(args.in_file) / 2**20:.1f} MiB. The config of the '
        'training, with its paths, is in it.'
    )


if __name__ == '__main__':
    main()
