# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Print the expression probabilities of a video, a folder of frames or an image.

python tools/predict.py CONFIG CHECKPOINT CLIP
"""

import argparse
from typing import Optional

from s4d_mm.apis import init_model, predict_expression
from s4d_mm.converters.errors import weights_errors_as_messages
from s4d_mm.engine.messages import config_errors_as_messages


def main(argv: Optional[list] = None) -> None:
    """Run the tool."""
    parser = argparse.ArgumentParser(
        description='Print the expression probabilities of a clip or image.'
    )
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('input', help='video, folder of frames, or image')
    parser.add_argument('--device', help='default: a GPU if there is one')
    args = parser.parse_args(argv)
    with config_errors_as_messages(), weights_errors_as_messages():
        model = init_model(args.config, args.checkpoint, args.device)
    scores = predict_expression(model, args.input)
    print(args.input)
    for name, score in sorted(scores.items(), key=lambda x: -x[1]):
        print(f'  {name:<16} {100 * score:5.1f} %  {"#" * round(40 * score)}')


if __name__ == '__main__':
    main()
