# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Turn a checkpoint of the S4D authors' code into one of s4d_mm, or back.

    python tools/model_converters/s4d_to_mm.py SRC DST --stage finetune
"""
import argparse
import os.path as osp
import sys

import torch

import s4d_mm
from s4d_mm.models.utils.s4d_keys import STAGES, from_authors, to_authors


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('src', help='checkpoint to read')
    parser.add_argument('dst', help='checkpoint to write')
    parser.add_argument(
        '--stage', choices=STAGES, required=True, help='what SRC was for')
    parser.add_argument(
        '--reverse',
        action='store_true',
        help="turn s4d_mm's checkpoint into the authors'")
    return parser.parse_args()


def load_weights(path: str) -> dict:
    """Read the weights of a checkpoint with ``weights_only=True``.

    Raises:
        ValueError: If the file holds no weights.
    """
    if not osp.isfile(path):
        raise FileNotFoundError(f'There is no checkpoint {path}.')
    # the authors' training scripts store their parsed arguments
    with torch.serialization.safe_globals([argparse.Namespace]):
        try:
            checkpoint = torch.load(
                path, map_location='cpu', weights_only=True)
        except Exception as e:  # torch raises many types
            reason = (str(e).splitlines() or [type(e).__name__])[0]
            raise ValueError('is no checkpoint that can be read with '
                             f'weights_only=True: {reason}') from e
    for key in ('state_dict', 'model', 'module'):
        if isinstance(checkpoint, dict) and isinstance(
                checkpoint.get(key), dict):
            checkpoint = checkpoint[key]
            break
    if not isinstance(checkpoint, dict) or not any(
            isinstance(v, torch.Tensor) for v in checkpoint.values()):
        raise ValueError(f'{path} holds no weights: it is a '
                         f'{type(checkpoint).__name__} without tensors.')
    # saved from a model that was wrapped for distributed training
    return {
        k[len('module.'):] if k.startswith('module.') else k: v
        for k, v in checkpoint.items()
    }


def main() -> int:
    args = parse_args()
    convert = to_authors if args.reverse else from_authors
    try:
        weights, unplaced = convert(load_weights(args.src), args.stage)
    except (ValueError, FileNotFoundError) as e:
        print(f'{args.src}: {e}', file=sys.stderr)
        return 1
    if args.reverse:
        checkpoint = dict(model=weights)
    else:
        checkpoint = dict(
            state_dict=weights,
            meta=dict(
                converted_from=osp.basename(args.src),
                s4d_mm_version=s4d_mm.__version__))
    torch.save(checkpoint, args.dst)
    print(f'{args.dst}: wrote {len(weights)} parameters.')
    if unplaced:
        print(f'{len(unplaced)} keys of {args.src} found no place:')
        print('\n'.join(f'  {key}' for key in unplaced))
    return 0


if __name__ == '__main__':
    sys.exit(main())
