# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Names that a stranger chose, made harmless where they are shown."""

from typing import Any


def printable(text: Any) -> str:
    """A text on one line; what prints nothing, such as a terminal's escape code, is spelt out."""
    return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in str(text))


def safe_cell(value: Any) -> Any:
    """A cell of a CSV file: a text that a spreadsheet would compute gets a ``'`` in front of it."""
    computed = isinstance(value, str) and value.startswith(('=', '+', '-', '@', '\t', '\r'))
    return f"'{value}" if computed else value
