# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Where a variable of a config file went.

``base_lr = 1e-3`` is used up while the file is read: ``--cfg-options base_lr=0.5`` changes the
variable and nothing that was made of it. The places are found in the text of the files, which is
not run for it.
"""

import ast
from collections.abc import Collection, Iterator

from mmengine.config import Config

MOST_STEPS = 10  # from one variable to the next


def find_uses(path: str, variable: str, settings: Collection[str]) -> list[str]:
    """The settings that a variable of a config file became a part of.

    Args:
        path (str): The config file. Those that it is based on are read too.
        variable (str): Name of the variable.
        settings (Collection[str]): The names at the top of a config that are settings; all others
            are variables, and are followed further.

    Returns:
        list[str]: Keys such as ``optim_wrapper.optimizer.lr``, in the order of the files.
    """
    uses = {}
    for file in config_files(path):
        with open(file, encoding='utf-8') as f:
            tree = ast.parse(f.read())
        for target, value in assignments(tree):
            for name, place in names_in(value, target):
                uses.setdefault(name, []).append(place)
    found = {}

    def follow(name: str, rest: str, steps: int) -> None:
        for place in uses.get(name, ()) if steps else ():
            top = place.split('.')[0]
            if top in settings:
                found[place + rest] = None
            # also a setting may be the value of another one: val_dataloader = test_dataloader
            follow(top, place[len(top) :] + rest, steps - 1)

    follow(variable, '', MOST_STEPS)
    return list(found)


def config_files(path: str) -> list[str]:
    """A config file and those that it is based on, the bases first.

    Args:
        path (str): The file.

    Returns:
        list[str]: Paths of Python files, each once.
    """
    found = {}

    def visit(file: str) -> None:
        for base in Config._get_base_files(file):
            visit(Config._get_cfg_path(base, file)[0])
        found[file] = None

    visit(path)
    return [file for file in found if file.endswith('.py')]


def assignments(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """Names and values that the top of a file assigns; ``a, b = 1, 2`` gives two."""
    for node in tree.body:
        for target in node.targets if isinstance(node, ast.Assign) else ():
            pairs = [(target, node.value)]
            if isinstance(target, ast.Tuple):
                values = getattr(node.value, 'elts', [node.value] * len(target.elts))
                pairs = list(zip(target.elts, values))
            yield from ((t.id, value) for t, value in pairs if isinstance(t, ast.Name))


def names_in(node: ast.expr, place: str) -> Iterator[tuple[str, str]]:
    """The variables in an expression.

    Args:
        node (ast.expr): The expression.
        place (str): Key of its value.

    Yields:
        tuple[str, str]: Name, and the key of what is computed of it: that of a keyword of
        ``dict``, or of an element of a list.
    """
    if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'dict':
        for keyword in node.keywords:  # **size has no name
            yield from names_in(keyword.value, f'{place}.{keyword.arg}' if keyword.arg else place)
    elif isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values):
            name = getattr(key, 'value', None)
            yield from names_in(value, f'{place}.{name}' if isinstance(name, str) else place)
    elif isinstance(node, ast.List):
        for i, value in enumerate(node.elts):
            yield from names_in(value, f'{place}.{i}')
    elif isinstance(node, ast.Attribute) and getattr(node.value, 'id', '') == '_base_':
        yield node.attr, place
    elif isinstance(node, ast.Name):
        yield node.id, place
    else:
        for child in ast.iter_child_nodes(node):
            yield from names_in(child, place)
