# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Which commands of the pages are run by a test, and what the others need.

    python docs/marked_blocks.py

The line before each block of shell or Python is a mark: ``<!-- tested -->`` where
``tests/test_docs_commands.py`` runs the block, ``<!-- needs: REASON -->`` where a user must have
something that a test has not, such as a data set, a GPU or a network.
"""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
LANGUAGES = ('bash', 'console', 'csv', 'python', 'sh', 'shell')
FENCE = re.compile(r'^([ \t]*)```(\w*)[^\n]*\n(.*?)^\1```[ \t]*$', re.M | re.S)
MARK = re.compile(r'<!-- (?:(tested)(?:: (\S+))?|needs: (\S.*)) -->$')


class Block(NamedTuple):
    """A block of code of a page.

    Attributes:
        page (str): Path of the page from the root of the repository.
        line (int): Where the block begins, from 1.
        language (str): The word after the fence.
        text (str): What is in the block.
        tested (bool): Whether a test runs the block.
        file (str): File whose first line the block shows, or empty.
        needs (str): What a user must have for the block; empty for tested blocks and for blocks
            without a mark.
    """

    page: str
    line: int
    language: str
    text: str
    tested: bool
    file: str
    needs: str


def pages() -> list[Path]:
    """README, CONTRIBUTING and every page below docs."""
    return [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').rglob('*.md'))]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page that are to have a mark, in order."""
    text = page.read_text(encoding='utf-8')
    found = []
    for fence in FENCE.finditer(text):
        if fence.group(2) not in LANGUAGES:
            continue
        above = text[: fence.start()].rstrip('\n').rsplit('\n', 1)[-1].strip()
        mark = MARK.match(above)
        tested, file, needs = mark.groups() if mark else (None, None, None)
        found.append(
            Block(
                page=page.relative_to(ROOT).as_posix(),
                line=text.count('\n', 0, fence.start()) + 1,
                language=fence.group(2),
                text=fence.group(3),
                tested=bool(tested),
                file=file or '',
                needs=needs or '',
            )
        )
    return found


def first_command(text: str) -> str:
    """The first line of a block that is no comment."""
    lines = (line.strip() for line in text.splitlines())
    return next((line for line in lines if line and not line.startswith('#')), '')


def table() -> str:
    """All blocks as a table in Markdown, by page."""
    rows = ['| page | line | begins with | run by a test |', '| --- | --- | --- | --- |']
    for page in pages():
        for block in blocks(page):
            answer = 'yes' if block.tested else f'no, needs {block.needs}'
            command = first_command(block.text).replace('|', '\\|')
            rows.append(f'| {block.page} | {block.line} | `{command}` | {answer} |')
    return '\n'.join(rows) + '\n'


if __name__ == '__main__':
    print(table(), end='')
