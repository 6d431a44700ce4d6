# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Write a fine-tuned model as ONNX, or by torch.export, to run it without this package.

python tools/deployment/export.py CONFIG CHECKPOINT OUT.onnx --input-type video
"""

import argparse
import os.path as osp
import sys
from collections.abc import Sequence


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config of fine-tuning')
    parser.add_argument('checkpoint', help='its checkpoint')
    parser.add_argument('out', help='file to write: .onnx, or .pt2 for torch.export')
    parser.add_argument('--input-type', choices=('video', 'image'), required=True)
    parser.add_argument('--opset', type=int, help="ONNX operator set; torch's choice if not given")
    parser.add_argument(
        '--int8',
        action='store_true',
        help='8-bit weights for ONNX on a CPU: a quarter of the size, faster, other scores',
    )
    args = parser.parse_args(argv)
    for path in (args.config, args.checkpoint):
        if not osp.isfile(path):
            parser.error(f'there is no file {path}')
    return args


if __name__ == '__main__':
    parse_args()  # -h and mistakes end here, before the slow imports

import s4d_mm.guard  # noqa: F401
from s4d_mm.apis.export import TOLERANCE, ExportReport, export_model


def summary(out: str, report: ExportReport) -> str:
    """What was written, in a few lines."""
    info = report.info
    window = f'{info.clip_len} frames of ' if info.window else ''
    lines = [
        f'{out}: {report.size / 1e6:.1f} MB',
        f'{info.input_type}, {window}{info.size[1]} x {info.size[0]} pixels, '
        f'{len(info.classes)} classes: {", ".join(info.classes)}',
    ]
    differences = ', '.join(f'{name} {d:.1e}' for name, d in report.differences.items())
    limit = 'not limited, because of --int8' if info.int8 else f'limit {TOLERANCE:.0e}'
    return '\n'.join([*lines, f'largest difference from PyTorch ({limit}): {differences}'])


def main(argv: Sequence[str] | None = None) -> int:
    """Export a model; returns the exit code."""
    args = parse_args(argv)
    try:
        report = export_model(
            args.config, args.checkpoint, args.out, args.input_type, args.opset, args.int8
        )
    except (ImportError, OSError, RuntimeError, ValueError) as e:
        print(f'export.py: error: {e}', file=sys.stderr)
        return 2
    print(summary(args.out, report))
    return 0


if __name__ == '__main__':
    sys.exit(main())
