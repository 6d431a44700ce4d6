# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""A local web page: drop a video or an image, see which expression each face has.

``answer.py`` turns one file into what is shown, ``page.py`` lays it out with gradio, and
``server.py`` serves the page. gradio (``pip install s4d_mm[demo]``) is imported only there.
"""

import argparse

from .page import build
from .server import check_gradio, serve

__all__ = ['add_arguments', 'build', 'main', 'serve']


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of :func:`main` to a parser.

    Args:
        parser (argparse.ArgumentParser): The parser.
    """
    parser.add_argument(
        '--model', required=True, help='config, name of model-index.yml, or .onnx file'
    )
    parser.add_argument('--weights', help='checkpoint; none for an .onnx file')
    parser.add_argument('--fold', type=int, help='of s2d_dfew and s2d_mafw, 1 to 5; default: 1')
    parser.add_argument('--device', help='default: a GPU if there is one')
    parser.add_argument('--host', default='127.0.0.1', help='default: this machine only')
    parser.add_argument('--port', type=int, default=7860, help='default: 7860')
    parser.add_argument(
        '--max-seconds', type=float, default=60, help='longest video that is taken; default: 60'
    )
    parser.add_argument(
        '--max-mb', type=float, default=100, help='largest file that is taken; default: 100'
    )


def main(args: argparse.Namespace) -> int:
    """Load the model and serve the page until Ctrl-C.

    Args:
        args (argparse.Namespace): With the attributes that :func:`add_arguments` gives.

    Returns:
        int: 0.

    Raises:
        ValueError: If a limit is not positive, or the model cannot be used.
        ImportError: If gradio is not there.
        OSError: If a file of the model cannot be read, or the port cannot be used.
    """
    for name in ('max_seconds', 'max_mb'):
        value = getattr(args, name)
        if not value > 0:
            raise ValueError(f'--{name.replace("_", "-")} is {value:g}, but must be above 0.')
    check_gradio()  # before the model is loaded, which takes longer
    from ..apis import ExpressionInferencer

    inferencer = ExpressionInferencer(
        args.model, args.weights, args.device, show_progress=False, fold=args.fold
    )
    serve(inferencer, args.host, args.port, args.max_seconds, args.max_mb)
    return 0
