# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The command ``s4d``, also ``python -m s4d_mm``.

It ends with 0; with 1 if an input could not be read; with 2 if the call, the model or the weights
are wrong; with 130 after Ctrl-C.

``tools/s4d`` runs this file by its path, without ``s4d_mm/__init__.py``, which imports torch. So it
imports the package in functions only, after the arguments were read.
"""

import argparse
import logging
import os
import os.path as osp
import platform
import runpy
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from typing import Any

HERE = osp.dirname(__file__)
__version__ = runpy.run_path(osp.join(HERE, 'version.py'))['__version__']
printable = runpy.run_path(osp.join(HERE, 'files', 'text.py'))['printable']
# whose versions `s4d version` prints where they are installed
DISTRIBUTIONS = ('torch', 'torchvision', 'mmengine', 'onedl-mmengine', 'mmcv', 'mmcv-lite')
DISTRIBUTIONS += ('onedl-mmcv', 'mmaction2', 'mmpretrain', 'onedl-mmpretrain')
EXAMPLES = """examples:
  s4d predict interview.mp4 --model s2d_dfew --out out
  s4d models
  s4d version
  s4d demo --model configs/s4d_finetune_dfew.py --weights epoch_100.pth

s4d COMMAND --help lists the options of a command.
"""
PREDICT_EXAMPLES = """examples:
  s4d predict interview.mp4 --model s2d_dfew --out out
  s4d predict interview.mp4 --model configs/s4d_finetune_dfew.py --weights epoch_100.pth --out out
  s4d predict photos/ party.mp4 --model model.onnx --out out
  s4d predict --camera 0 --model configs/s4d_finetune_dfew.py --weights epoch_100.pth --out out

--out gets NAME.csv, NAME.json and NAME.mp4 with NAME_timeline.png, or NAME.png, of each input.
"""


class CommandError(Exception):
    """Ends the command with one sentence.

    Args:
        message (str): The sentence.
        code (int): Exit code. Defaults to 2.
    """

    def __init__(self, message: str, code: int = 2) -> None:
        super().__init__(message)
        self.code = code


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv (Sequence[str], optional): Its arguments. Defaults to None, those of the process.

    Returns:
        int: Exit code.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    args = make_parser().parse_args(argv or ['--help'])
    # mmcv-lite says so when it is imported (open-mmlab/mmcv#1975)
    warnings.filterwarnings('ignore', 'Fail to import ``MultiScaleDeformableAttention``')
    try:
        return args.run(args)
    except CommandError as e:
        print(printable(f's4d {args.command}: error: {e}'), file=sys.stderr)
        return e.code
    except KeyboardInterrupt:
        print(f's4d {args.command}: stopped', file=sys.stderr)
        return 130


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command and its parts."""
    parser = argparse.ArgumentParser(
        prog='s4d',
        description='Facial expressions in videos and images.',
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--version', action='version', version=f's4d_mm {__version__}')
    commands = parser.add_subparsers(dest='command', metavar='COMMAND', required=True)
    add_predict(commands)
    models = commands.add_parser('models', help='list the models that have a name')
    models.set_defaults(run=run_models)
    version = commands.add_parser('version', help='print the versions of s4d_mm and its toolbox')
    version.set_defaults(run=run_version)
    add_demo(commands)
    return parser


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose a model."""
    parser.add_argument(
        '--model',
        required=True,
        metavar='CONFIG|NAME|X.onnx',
        help='config file, a name of `s4d models`, or an exported model',
    )
    parser.add_argument(
        '--weights',
        metavar='FILE|URL',
        help='checkpoint: a file, http(s)://... or hf://OWNER/REPO/FILE; none for X.onnx',
    )
    parser.add_argument('--fold', type=int, help='of s2d_dfew and s2d_mafw, 1 to 5; default: 1')
    parser.add_argument('--device', help='such as cpu or cuda:0; default: a GPU if there is one')


def add_predict(commands: Any) -> None:
    """Add ``s4d predict``."""
    parser = commands.add_parser(
        'predict',
        help='say which expressions the faces in videos and images have',
        description='Find the faces in videos and images, and say which expressions they have.',
        epilog=PREDICT_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('media', nargs='*', metavar='MEDIA', help='videos, images, and folders of them')
    add('--camera', type=int, metavar='N', help='in place of MEDIA: number of a camera')
    add_model_arguments(parser)
    add('--out', metavar='DIR', help='folder for tables and pictures; default: only print')
    add(
        '--faces',
        choices=('auto', 'largest', 'none'),
        default='auto',
        help='every face, the largest one, or the whole picture, if faces are cut out already; '
        'default: auto',
    )
    add(
        '--folder',
        choices=('auto', 'frames', 'images'),
        default='auto',
        help='whether images in a folder are the frames of one clip; default: auto, if their '
        'names are numbers and their sizes equal',
    )
    add('--fps', type=float, default=25, help='frames per second of such a folder; default: 25')
    add(
        '--window-stride',
        type=int,
        metavar='N',
        help='frames from one window to the next; default: the length of a window',
    )
    add('--batch-size', type=int, default=4, metavar='N', help='windows at once; default: 4')
    add('--detect-every', type=int, metavar='N', help='look for faces in every N-th frame')
    add('--no-pictures', action='store_true', help='write tables only')
    add(
        '--features',
        action='store_true',
        help='write what the classifier sees to NAME.json, too',
    )
    parser.set_defaults(run=run_predict, parser=parser)


def add_demo(commands: Any) -> None:
    """Add ``s4d demo``."""
    parser = commands.add_parser('demo', help='open a web page on this machine that does the same')
    add = parser.add_argument
    add_model_arguments(parser)
    add('--host', default='127.0.0.1', help='default: this machine only')
    add('--port', type=int, default=7860, help='default: 7860')
    add('--max-seconds', type=float, default=60, help='longest video that is taken; default: 60')
    add('--max-mb', type=float, default=100, help='largest file that is taken; default: 100')
    parser.set_defaults(run=run_demo)


def run_version(args: argparse.Namespace) -> int:
    """Print the versions of the package and of what it stands on."""
    found = {'s4d_mm': __version__, 'Python': platform.python_version()}
    for name in DISTRIBUTIONS:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    for name, version in found.items():
        print(f'{name:<12} {version}')
    return 0


def run_models(args: argparse.Namespace) -> int:
    """Print the table of the models that have a name."""
    from .apis.model_index import index_folder, list_models

    folder = index_folder()
    rows = [('name', 'config', 'trained on', 'weights', 'published figures')]
    for model in list_models():
        figures = ', '.join(f'{data} {metric} {value}' for data, metric, value in model.results)
        source = f' ({model.source})' if figures and model.source else ''
        alias = model.alias and f'fetched by --model {model.alias}'
        config, weights = osp.relpath(model.config, folder), model.weights or alias
        weights = weights or 'none published'
        rows.append((model.name, config, ', '.join(model.data), weights, figures + source or '-'))
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print('  '.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    print(f'\nThe configs are in {folder}.')
    return 0


def run_demo(args: argparse.Namespace) -> int:
    """Serve the web page."""
    try:
        from . import guard  # noqa: F401
        from .demo import main as serve

        return serve(args) or 0
    except (ImportError, OSError, ValueError) as e:
        raise CommandError(in_one_line(e)) from e


def run_predict(args: argparse.Namespace) -> int:
    """Predict, print what was found, and say where the files are."""
    inputs, options = predict_options(args)
    before = files_of(args.out)
    with kept_notes() as notes:
        result = predict(args, inputs, options)
    print_result(result, notes)
    written = sorted(name for name, time in files_of(args.out).items() if before.get(name) != time)
    if written:
        print(printable(f'written to {args.out}: {", ".join(written)}'))
    return int(any(item.status == 'unreadable' for item in result.media))


def predict(args: argparse.Namespace, inputs: Any, options: dict) -> Any:
    """Load the model and predict an ``ExpressionResult``; what goes wrong is a ``CommandError``."""
    try:
        from . import guard  # noqa: F401
        from .apis import ExpressionInferencer
        from .faces import FaceSettings
        from .files.errors import NonFiniteError

        inferencer = ExpressionInferencer(args.model, args.weights, args.device, fold=args.fold)
    except Exception as e:  # a config and a file of weights can raise anything
        raise CommandError(in_one_line(e)) from e
    if args.detect_every is not None:
        options['face_settings'] = FaceSettings(detect_every=args.detect_every)
    try:
        return inferencer(inputs, **options)
    except (OSError, NonFiniteError) as e:
        raise CommandError(in_one_line(e), code=1) from e
    except (ImportError, ValueError) as e:
        raise CommandError(in_one_line(e)) from e


def print_result(result: Any, notes: list[str]) -> None:
    """Print the faces of each input, and on stderr what was wrong or is worth knowing.

    Args:
        result (ExpressionResult): What was found.
        notes (list[str]): Warnings that were logged on the way.
    """
    from .apis.report import report_lines

    logged = [f'{item.media}: {item.message}' for item in result.media]
    for note in dict.fromkeys(notes):
        if note not in map(printable, logged):
            print(printable(f's4d predict: {note}'), file=sys.stderr)
    for item in result.media:
        for line in report_lines(item):
            print(line)
        if item.message and item.status != 'no_face':
            name = '' if item.media in item.message else f'{item.media}: '
            print(printable(f's4d predict: {name}{item.message}'), file=sys.stderr)
    for seen in {item.trained_on for item in result.media if item.records} - {''}:
        print(f'the model was trained on: {seen}')


def predict_options(args: argparse.Namespace) -> tuple[Any, dict]:
    """Check the options of ``s4d predict``.

    Returns:
        tuple: Inputs and keyword arguments of an ``ExpressionInferencer``.
    """
    error = args.parser.error
    if (args.camera is None) == (not args.media):
        error('give videos, images or folders, or --camera N')
    if args.features and args.out is None:
        error('--features are written to NAME.json: give --out DIR, too')
    if args.no_pictures and args.out is None:
        error('--no-pictures says what is written to --out DIR, which is not given')
    if args.detect_every is not None and args.faces == 'none':
        error('--detect-every has no meaning with --faces none')
    options = dict(
        faces=args.faces,
        folder=args.folder,
        fps=args.fps,
        window_stride=args.window_stride,
        batch_size=args.batch_size,
        features=args.features,
        out_dir=args.out,
        draw=not args.no_pictures,
    )
    if args.out is not None:
        try:
            os.makedirs(args.out, exist_ok=True)
        except OSError as e:
            error(f'--out {args.out} is no folder and cannot be made one: {e.strerror}')
    return args.media if args.camera is None else args.camera, options


@contextmanager
def kept_notes() -> Iterator[list[str]]:
    """Within the block, keep the toolbox's log from the terminal; the list gets its warnings."""
    from mmengine.logging import MMLogger

    notes, handler = [], logging.Handler(logging.WARNING)
    handler.emit = lambda record: notes.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    handlers, logger.handlers[:] = list(logger.handlers), [handler]
    try:
        yield notes
    finally:
        logger.handlers[:] = handlers


def files_of(folder: str | None) -> dict[str, int]:
    """Names of the files in a folder, and when each was written."""
    if folder is None:
        return {}
    with os.scandir(folder) as entries:
        return {entry.name: entry.stat().st_mtime_ns for entry in entries if entry.is_file()}


def in_one_line(error: Exception) -> str:
    """The message of an error, on one line; with its kind where that is not for users."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    text = ' '.join(str(text).split())
    plain = text and isinstance(error, (ImportError, OSError, ValueError))
    return text if plain else f'{type(error).__name__}: {text}'


if __name__ == '__main__':
    __package__ = 's4d_mm'  # run by its path, this file has none (PEP 366)
    sys.exit(main())
