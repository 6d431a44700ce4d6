# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Hooks of mkdocs: pages that link to files of the repository work in the site as they do in it.

A link such as ``../configs/mix/README.md`` or ``../s4d_mm/compat.py`` leaves the folder ``docs``.
The file is then added to the site below ``repository/``: pages as they are, other files as code.
The site is whole without the address of a repository.
"""

import os.path as osp
import re
from posixpath import dirname, join, normpath, relpath

import marked_blocks
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, InclusionLevel

ROOT = str(marked_blocks.ROOT)
LINK = re.compile(r'(\]\()([^)\s#:]+)(#[^)\s]*)?(\))')
ALWAYS = ('CHANGELOG.md', 'CONTRIBUTING.md')
FOLDER = 'repository'
LANGUAGES = {'.py': 'python', '.sh': 'bash', '.yml': 'yaml', '.toml': 'toml', '.txt': 'text'}


def read(path: str) -> str:
    """Text of a file of the repository."""
    with open(osp.join(ROOT, path), encoding='utf-8') as f:
        return f.read()


def in_docs(path: str) -> bool:
    """Whether a file is in the site anyway."""
    return path.startswith('docs/') and not path.endswith('.py')


def site_path(path: str) -> str:
    """Where a file of the repository lies in the site, as the source of a page."""
    if in_docs(path):
        return path[len('docs/') :]
    if path == 'README.md':
        return 'index.md'
    if osp.isdir(osp.join(ROOT, path)):
        path = join(path, 'README.md')
    return join(FOLDER, path if path.endswith('.md') else f'{path}.md')


def links(path: str) -> list[str]:
    """Files and folders of the repository that a page links to; both paths are from its root.

    Raises:
        PluginError: If a link leads to nothing, with page and link.
    """
    found = []
    for match in LINK.finditer(read(path)):
        target = normpath(join(dirname(path), match.group(2)))
        if not osp.exists(osp.join(ROOT, target)):
            raise PluginError(f'{path}: the link {match.group(2)} leads to nothing')
        found.append(target)
    return found


def as_page(path: str) -> str:
    """A file of the repository as text of a page."""
    if path.endswith('.md'):
        return read(path)
    return f'# {path}\n\n````{LANGUAGES.get(osp.splitext(path)[1], "text")}\n{read(path)}\n````\n'


def rewritten(text: str, path: str) -> str:
    """Text of a page whose links into the repository are links into the site."""

    def link(match: re.Match) -> str:
        target = normpath(join(dirname(path), match.group(2)))
        if not osp.exists(osp.join(ROOT, target)):
            return match.group(0)
        new = relpath(site_path(target), dirname(site_path(path)) or '.')
        return f'{match.group(1)}{new}{match.group(3) or ""}{match.group(4)}'

    return LINK.sub(link, text)


def on_files(files, config):
    """Add the files that pages link to, those that these link to, and the list of commands."""
    todo = [f'docs/{file.src_uri}' for file in files if file.src_uri.endswith('.md')]
    todo += ALWAYS
    seen = set(todo)
    while todo:
        path = todo.pop()
        page = path if path.endswith('.md') else ''
        if osp.isdir(osp.join(ROOT, path)):
            page = join(path, 'README.md')
            if not osp.isfile(osp.join(ROOT, page)):
                raise PluginError(f'a page links to the folder {path}, which has no README.md')
        if not in_docs(path) and path != 'README.md':
            source = page or path
            if not files.get_file_from_path(site_path(source)):
                file = File.generated(config, site_path(source), content=as_page(source))
                if path not in ALWAYS:
                    file.inclusion = InclusionLevel.NOT_IN_NAV
                files.append(file)
        for target in links(page) if page else ():
            if target not in seen:
                seen.add(target)
                todo.append(target)
    text = '# Commands that tests run\n\nEvery block of shell or Python in these pages.\n\n'
    files.append(File.generated(config, 'commands.md', content=text + marked_blocks.table()))
    return files


def on_page_markdown(markdown, page, **_):
    """Turn links into the repository into links into the site."""
    uri = page.file.src_uri
    if uri == 'commands.md':
        return markdown
    if uri.startswith(f'{FOLDER}/'):
        path = uri[len(FOLDER) + 1 :]
        if not osp.isfile(osp.join(ROOT, path)):
            return markdown  # code, in which nothing is a link
        return rewritten(markdown, path)
    return rewritten(markdown, f'docs/{uri}')
