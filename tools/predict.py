# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Print the expression probabilities of a video, a folder of frames or an image.

python tools/predict.py CONFIG CHECKPOINT CLIP
"""

import argparse
from typing import Optional

from s4d_mm.apis import ExpressionInferencer
from s4d_mm.converters.errors import weights_errors_as_messages


def main(argv: Optional[list] = None) -> None:
    """Run the tool."""
    parser = argparse.ArgumentParser(
        description='Print the expression probabilities of a clip or image.'
    )
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('input', help='video, folder of frames, or image')
    parser.add_argument('--device', help='default: a GPU if there is one')
    parser.add_argument(
        '--faces',
        default='auto',
        choices=('auto', 'largest', 'none'),
        help='none: the faces are cut out already; default: auto',
    )
    args = parser.parse_args(argv)
    with weights_errors_as_messages():
        inferencer = ExpressionInferencer(args.config, args.checkpoint, args.device)
    result = inferencer(args.input, faces=args.faces)
    for record in result.summary():
        print(record.media if record.face is None else f'{record.media}, face {record.face}')
        for name, score in sorted(record.probabilities.items(), key=lambda x: -x[1]):
            print(f'  {name:<16} {100 * score:5.1f} %  {"#" * round(40 * score)}')


if __name__ == '__main__':
    main()
