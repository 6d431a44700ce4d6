# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Make a checkpoint smaller, to publish it: without the state of training, named by date and hash.

    python tools/model_converters/publish_model.py IN_FILE OUT_FILE

OUT_FILE ends in .pth or .safetensors; the latter holds the names of the classes and the config as
texts. IN_FILE may be an address (docs/weights.md).
"""

import argparse
import os.path as osp
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> None:
    """Write the file and print its name and size."""
    parser = argparse.ArgumentParser(description='Process a checkpoint to be published')
    parser.add_argument('in_file', help='checkpoint to read')
    parser.add_argument('out_file', help='file to write: .pth or .safetensors')
    args = parser.parse_args(argv)

    import s4d_mm.guard  # noqa: F401
    from s4d_mm.files.download import local_file
    from s4d_mm.files.errors import weights_errors_as_messages
    from s4d_mm.weights.io import publish

    with weights_errors_as_messages():
        final = publish(args.in_file, args.out_file)
        source = local_file(args.in_file)
    sizes = ' of '.join(f'{osp.getsize(path) / 2**20:.1f} MiB' for path in (final, source))
    print(f'{final}: {sizes}. The config of the training, with its paths, is in it.')


if __name__ == '__main__':
    main()
