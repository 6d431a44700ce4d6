# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""A local web page: drop a video or an image, see which expression each face has.

``answer.py`` turns one file into what is shown, ``page.py`` lays it out with gradio, and
``server.py`` serves the page. gradio (``pip install s4d_mm[demo]``) is imported only there.
"""

import argparse

from .page import build
from .server import check_gradio, serve

__all__ = ['build', 'main', 'serve']


def main(args: argparse.Namespace) -> int:
    """Load the model and serve the page until Ctrl-C.

    Args:
        args (argparse.Namespace): Of ``s4d demo``.

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
