# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The command ``s4d``, also ``python -m s4d_mm``.

It ends with 0; with 1 if an input could not be read; with 2 if the call, the model or the weights
are wrong; with 130 after Ctrl-C.

``tools/s4d`` runs this file by its path, without ``s4d_mm/__init__.py``, which imports torch. So it
imports the package in functions only, after the arguments were read.
"""

import argparse
import logging
import os.path as osp
import runpy
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

PACKAGE = osp.dirname(osp.dirname(osp.abspath(__file__)))
__version__ = runpy.run_path(osp.join(PACKAGE, 'version.py'))['__version__']
printable = runpy.run_path(osp.join(PACKAGE, 'files', 'text.py'))['printable']


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, or those of the process; gives the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    args = make_parser().parse_args(argv or ['--help'])
    try:
        return args.run(args)
    except KeyboardInterrupt:
        print(f's4d {args.command}: stopped', file=sys.stderr)
        return 130
    except (ImportError, OSError, ValueError) as e:
        print(printable(f's4d {args.command}: error: {" ".join(str(e).split())}'), file=sys.stderr)
        # by its name: where the toolbox is missing nothing of the package can be imported
        of_input = isinstance(e, OSError) or type(e).__name__ == 'NonFiniteError'
        return 1 if args.command == 'predict' and of_input else 2


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command and its parts."""
    parser = argparse.ArgumentParser('s4d', description='Facial expressions in videos and images.')
    parser.add_argument('--version', action='version', version=f's4d_mm {__version__}')
    commands = parser.add_subparsers(dest='command', metavar='COMMAND', required=True)
    for name, text, run, add_options in (
        ('predict', 'find the faces in media and say what they express', run_predict, add_predict),
        ('models', 'list the models that have a name', run_models, None),
        ('demo', 'open a web page on this machine that does the same', run_demo, add_demo),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run, error=command.error)
        if add_options is not None:
            add_model(command.add_argument)
            add_options(command.add_argument)
    return parser


def add_model(add: Callable) -> None:
    """Add the options that choose a model."""
    model = 'config, name of `s4d models`, or exported model; default: rendered_people'
    weights = 'its checkpoint: a file, http(s)://... or hf://OWNER/REPO/FILE; none for X.onnx'
    add('--model', metavar='CONFIG|NAME|X.onnx', help=model)
    add('--weights', metavar='FILE|URL', help=weights)
    add('--fold', type=int, help='of s2d_dfew and s2d_mafw, 1 to 5; default: 1')
    add('--device', help='such as cpu or cuda:0; default: a GPU if there is one')


def add_predict(add: Callable) -> None:
    """Add the options of ``s4d predict``; their names are those of the inferencer's arguments."""
    faces = 'every face, the largest one, or the whole picture, if faces are cut out already'
    folder = 'whether images in a folder are the frames of one clip; default: by names and sizes'
    stride = 'frames from one window to the next; default: the length of a window'
    number = dict(type=int, metavar='N')
    add('media', nargs='*', metavar='MEDIA', help='videos, images, and folders of them')
    add('--camera', **number, help='in place of MEDIA: number of a camera')
    add('--out', dest='out_dir', metavar='DIR', help='folder for tables and pictures')
    add('--faces', choices=('auto', 'largest', 'none'), default='auto', help=faces)
    add('--folder', choices=('auto', 'frames', 'images'), default='auto', help=folder)
    add('--fps', type=float, default=25, help='frames per second of such a folder; default: 25')
    add('--window-stride', **number, help=stride)
    add('--batch-size', **number, default=4, help='windows at once; default: 4')
    every = 'look for faces in every N-th frame; default: 5'
    add('--detect-every', **number, default=5, help=every)
    add('--no-pictures', dest='draw', action='store_false', help='write tables only')
    add('--features', action='store_true', help="write the classifier's input to NAME.json, too")


def add_demo(add: Callable) -> None:
    """Add the options of ``s4d demo``."""
    add('--host', default='127.0.0.1', help='default: this machine only')
    add('--port', type=int, default=7860, help='default: 7860')
    add('--max-seconds', type=float, default=60, help='longest video that is taken; default: 60')
    add('--max-mb', type=float, default=100, help='largest file that is taken; default: 100')


def run_models(args: argparse.Namespace) -> int:
    """Print the table of the models that have a name."""
    from .models import index_folder, list_models

    for model in list_models():
        weights = f'fetched by --model {model["Alias"]}' if 'Alias' in model else 'none published'
        data, weights = ', '.join(model['Metadata']['Training Data']), model.get('Weights', weights)
        weights = 'in the package' if weights.startswith('s4d_mm/') else weights
        print(f'{model["Name"]:<22} trained on: {data:<28} weights: {weights}')
    print(f'The configs are in {osp.join(index_folder(), "configs")}.')
    return 0


def run_demo(args: argparse.Namespace) -> int:
    """Serve the web page."""
    if find_spec('gradio') is None:  # said before the model is loaded, which takes longer
        raise ImportError('The page needs gradio: pip install "s4d_mm[demo]".')
    from .page import serve

    serve(load_model(args), args.host, args.port, args.max_seconds, args.max_mb)
    return 0


def run_predict(args: argparse.Namespace) -> int:
    """Predict, print what was found, and say where the files are."""
    if (args.camera is None) == (not args.media):
        args.error('give videos, images or folders, or --camera N')
    names = ('faces', 'folder', 'fps', 'window_stride', 'batch_size', 'features', 'out_dir', 'draw')
    options = {name: getattr(args, name) for name in names}
    with logged_warnings() as notes:
        inferencer = load_model(args)
        from .faces import FaceSettings

        options['face_settings'] = FaceSettings(detect_every=args.detect_every)
        result = inferencer(args.media if args.camera is None else args.camera, **options)
    for note in dict.fromkeys(notes):
        print(printable(f's4d predict: {note}'), file=sys.stderr)
    for line in (line for item in result.media for line in item.report()):
        print(printable(line))
    for seen in {item.trained_on for item in result.media if item.records} - {''}:
        print(f'the model was trained on: {seen}')
    if result.files:
        names = ', '.join(sorted(map(osp.basename, result.files)))
        print(printable(f'written to {args.out_dir}: {names}'))
    return int(any(item.status == 'unreadable' for item in result.media))


def load_model(args: argparse.Namespace) -> Any:
    """The ``ExpressionInferencer`` that the options choose."""
    try:
        from .. import guard  # noqa: F401
        from .inferencer import ExpressionInferencer

        return ExpressionInferencer(args.model, args.weights, args.device, fold=args.fold)
    except Exception as e:  # a config and a file of weights can raise anything
        plain = isinstance(e, (ImportError, OSError, ValueError))
        raise ValueError(str(e) if plain else f'{type(e).__name__}: {e}') from e


@contextmanager
def logged_warnings() -> Iterator[list[str]]:
    """Keep the toolbox's log from the terminal; the list gets its warnings."""
    from mmengine.logging import MMLogger

    notes, handler = [], logging.Handler(logging.WARNING)
    handler.emit = lambda record: notes.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    handlers, logger.handlers[:] = list(logger.handlers), [handler]
    try:
        yield notes
    finally:
        logger.handlers[:] = handlers


if __name__ == '__main__':
    __package__ = 's4d_mm.predict'  # run by its path, this file has none (PEP 366)
    sys.exit(main())
