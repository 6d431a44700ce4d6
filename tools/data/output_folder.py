# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Before files are made: whose folder is it, and what was it made with?"""

import json
import os
import os.path as osp


def claim_folder(out: str, marker: str, settings: dict) -> None:
    """Make sure that ``out`` is ours to write to, and write the settings there.

    Args:
        out: The folder; it is made if it is not there.
        marker: Name of the file in it that holds the settings.
        settings: What the content of the folder depends on.

    Raises:
        ValueError: If the folder holds files that the script with this marker
            did not make, or was made with other settings.
    """
    path = osp.join(out, marker)
    if osp.isfile(path):
        try:
            with open(path, encoding='utf-8') as f:
                found = dict(json.load(f))
        except (ValueError, TypeError) as e:
            raise ValueError(
                f'{path} is not readable ({e}); delete the folder or choose another one'
            ) from e
        changes = [
            f'{k} was {found.get(k)!r} and now is {settings.get(k)!r}'
            for k in sorted({*found, *settings})
            if found.get(k) != settings.get(k)
        ]
        if changes:
            raise ValueError(
                f'{out} was made with other settings: {"; ".join(changes)}. '
                'Delete the folder or choose another one'
            )
        return
    if osp.exists(out) and not osp.isdir(out):
        raise ValueError(f'{out} is a file; name a folder')
    if osp.isdir(out) and os.listdir(out):
        raise ValueError(
            f'{out} is not empty and was not made by this script (it has no '
            f'{marker}); choose a new or empty folder'
        )
    os.makedirs(out, exist_ok=True)
    write_text(path, json.dumps(settings, indent=1) + '\n')


def write_text(path: str, text: str) -> None:
    """Write a file whole or not at all."""
    with open(f'{path}.part', 'w', encoding='utf-8') as f:
        f.write(text)
    os.replace(f'{path}.part', path)
