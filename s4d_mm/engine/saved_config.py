# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The config that a checkpoint was trained with, read without running it.

mmengine writes it into ``meta.cfg`` as Python code; the code of a file is never run here.
"""

import ast
from collections.abc import Iterator
from typing import Any

MISSING = '(not set)'


def saved_config(checkpoint: dict) -> dict:
    """The config of the training that wrote a checkpoint.

    Args:
        checkpoint (dict): The checkpoint.

    Returns:
        dict: Its settings as plain values; {} if there are none. A value that is more than a
        literal is left out.
    """
    text = (checkpoint.get('meta') or {}).get('cfg')
    try:
        tree = ast.parse(text if isinstance(text, str) else '')
    except SyntaxError:
        return {}
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = plain_value(node.value)
            except ValueError:
                continue
    return found


def plain_value(node: ast.expr) -> object:
    """The value of a literal, of which ``dict(a=1)`` is one too.

    Args:
        node (ast.expr): The expression.

    Returns:
        object: The value.

    Raises:
        ValueError: If it is no literal.
    """
    if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'dict':
        given = [plain_value(part) for part in node.args]  # dict({'1': 2}), for names that are none
        named = {word.arg: plain_value(word.value) for word in node.keywords}
        return {k: v for part in (*given, named) for k, v in dict(part).items()}
    if isinstance(node, ast.Dict):
        return {plain_value(k): plain_value(v) for k, v in zip(node.keys, node.values)}
    if isinstance(node, (ast.List, ast.Tuple)):
        kind = list if isinstance(node, ast.List) else tuple
        return kind(map(plain_value, node.elts))
    return ast.literal_eval(node)


def changed_settings(before: object, now: object, key: str) -> Iterator[str]:
    """Where two parts of a config differ.

    Args:
        before (object): The part that was saved.
        now (object): The part of the config in use.
        key (str): Its key.

    Yields:
        str: ``model.backbone.depth is 4, in the checkpoint 6`` for each setting.
    """
    if isinstance(before, dict) and isinstance(now, dict):
        for name in [*before, *(n for n in now if n not in before)]:
            yield from changed_settings(
                before.get(name, MISSING), now.get(name, MISSING), f'{key}.{name}'
            )
    elif isinstance(before, (list, tuple)) and isinstance(now, (list, tuple)):
        if len(before) != len(now):
            yield f'{key} has {len(now)} entries, in the checkpoint {len(before)}'
            return
        for i, (old, new) in enumerate(zip(before, now)):
            yield from changed_settings(old, new, f'{key}.{i}')
    elif before != now:
        yield f'{key} is {now!r}, in the checkpoint {before!r}'


def flat(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    """All settings of a nested config, each with its key, such as ``a.b.0``.

    Args:
        node (Any): The config, or a part of it.
        key (str): What precedes the keys.

    Yields:
        tuple[str, Any]: Key and value; an empty dict or list is a value.
    """
    if isinstance(node, (dict, list)) and node:
        pairs = node.items() if isinstance(node, dict) else enumerate(node)
        for name, value in pairs:
            yield from flat(value, f'{key}.{name}' if key else str(name))
    else:
        yield key, node
