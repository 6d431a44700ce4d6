# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Write a fine-tuned model as ONNX, to run it without this package.

python tools/deployment/export.py CONFIG CHECKPOINT OUT.onnx --input-type video
"""

import argparse
import os.path as osp
import sys


def parse_args(argv: list | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config of fine-tuning')
    parser.add_argument('checkpoint', help='its checkpoint')
    parser.add_argument('out', help='file to write: .onnx')
    parser.add_argument('--input-type', choices=('video', 'image'), required=True)
    parser.add_argument('--opset', type=int, help="ONNX operator set; torch's choice if not given")
    args = parser.parse_args(argv)
    for path in (args.config, args.checkpoint):
        if not osp.isfile(path):
            parser.error(f'there is no file {path}')
    return args


if __name__ == '__main__':
    parse_args()  # -h and mistakes end here, before the slow imports

import s4d_mm.guard  # noqa: F401
from s4d_mm.predict.export import TOLERANCE, export_model


def main(argv: list | None = None) -> int:
    args = parse_args(argv)
    try:
        info, differences = export_model(
            args.config, args.checkpoint, args.out, args.input_type, args.opset
        )
    except (ImportError, OSError, RuntimeError, ValueError) as e:
        print(f'export.py: error: {e}', file=sys.stderr)
        return 2
    height, width = info['size']
    window = f'{info["clip_len"]} frames of ' if info['clip_len'] else ''
    found = ', '.join(f'{name} {value:.1e}' for name, value in differences.items())
    print(
        f'{args.out}: {osp.getsize(args.out) / 1e6:.1f} MB\n'
        f'{args.input_type}, {window}{width} x {height} pixels, {len(info["classes"])} classes: '
        f'{", ".join(info["classes"])}\n'
        f'largest difference from PyTorch (limit {TOLERANCE:.0e}): {found}'
    )
    return 0


if __name__ == '__main__':
    sys.exit(main())
