# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Package definition. What is installed where is written in ``requirements/``."""

import os
import os.path as osp
import re
import shutil
import sys

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = osp.dirname(osp.abspath(__file__))


def read(*path: str) -> str:
    """Text of a file of the repository."""
    with open(osp.join(ROOT, *path), encoding='utf-8') as f:
        return f.read()


# The only place of this address; CITATION.cff repeats it, and a test compares the two.
REPOSITORY = 'https://github.com/s4d-mm/s4d_mm'


def absolute_links(markdown: str) -> str:
    """Let the links of a page in the root of the repository work on another site, such as PyPI.

    Links to files become addresses of their page in the repository, pictures those of the file
    itself, and links within the page those of the page in the repository. Blocks of code, code
    within a line and links that are absolute stay as they are.

    Args:
        markdown (str): The page, with links of Markdown or of HTML.

    Returns:
        str: The page with absolute links.
    """

    def absolute(target: str, picture: bool) -> str:
        if re.match(r'[a-z][a-z0-9+.-]*:|//', target, re.I):
            return target
        if target.startswith('#'):
            return f'{REPOSITORY}{target}'
        view = 'raw' if picture or target.endswith(('.png', '.jpg', '.gif', '.svg')) else 'blob'
        return f'{REPOSITORY}/{view}/main/{re.sub(r"^(?:[.]?/)+", "", target)}'

    def mend(text: str) -> str:
        text = re.sub(  # ![text](file), also within [ ](file)
            r'(!\[[^\]]*\]\(\s*)([^\s)]+)', lambda m: m[1] + absolute(m[2], True), text
        )
        text = re.sub(r'(?<=\])(\(\s*)([^\s)]+)', lambda m: m[1] + absolute(m[2], False), text)
        text = re.sub(  # [name]: file
            r'^( {0,3}\[[^\]]+\]:\s+)(\S+)',
            lambda m: m[1] + absolute(m[2], False),
            text,
            flags=re.M,
        )
        return re.sub(
            r'(\b(src|srcset|href)=["\'])([^"\']+)',
            lambda m: m[1] + absolute(m[3], m[2] != 'href'),
            text,
        )

    # blocks of code and code within a line are the odd parts
    parts = re.split(r'(^```.*?^```|^~~~.*?^~~~|`[^`\n]+`)', markdown, flags=re.M | re.S)
    return ''.join(part if i % 2 else mend(part) for i, part in enumerate(parts))


def requirements(name: str) -> list[str]:
    """Lines of a file of ``requirements/``, without comments."""
    lines = (ln.split('#')[0].strip() for ln in read('requirements', name).splitlines())
    return [ln for ln in lines if ln]


# What ``mim`` looks for in the folder ``.mim`` of a package, and the files
# of it that are packed.
MIM_PARTS = ('configs', 'tools', 'model-index.yml')
MIM_SUFFIXES = ('.md', '.py', '.sh', '.yml')


def link_mim(package: str) -> None:
    """Fill ``.mim`` of the source tree with links, for an editable install."""
    folder = osp.join(ROOT, package, '.mim')
    shutil.rmtree(folder, ignore_errors=True)  # of links, not what they show
    os.makedirs(folder)
    for part in MIM_PARTS:
        try:
            os.symlink(osp.join('..', '..', part), osp.join(folder, part))
        except OSError:  # such as Windows without the right to do so
            copy_mim(package, ROOT)
            return


def copy_mim(package: str, target: str) -> list[str]:
    """Fill ``.mim`` of a package that is built in ``target`` with copies.

    Returns:
        list[str]: The files.
    """
    folder, copied = osp.join(target, package, '.mim'), []
    shutil.rmtree(folder, ignore_errors=True)
    for part in MIM_PARTS:
        source = osp.join(ROOT, part)
        files = (
            [source]
            if osp.isfile(source)
            else [
                osp.join(path, name)
                for path, _, names in os.walk(source)
                for name in names
                if name.endswith(MIM_SUFFIXES)
            ]
        )
        for file in files:
            copied.append(osp.join(folder, osp.relpath(file, ROOT)))
            os.makedirs(osp.dirname(copied[-1]), exist_ok=True)
            shutil.copy2(file, copied[-1])
    return copied


class BuildPy(build_py):
    """Adds ``.mim`` to what is built; to the source tree only in an editable install."""

    mim_files = ()

    def run(self) -> None:
        """Build, then add ``.mim``."""
        super().run()
        if getattr(self, 'editable_mode', False):
            link_mim('s4d_mm')
        else:
            self.mim_files = copy_mim('s4d_mm', self.build_lib)

    def get_outputs(self, *args, **kwargs) -> list[str]:
        """Files that are built, with those of ``.mim``."""
        return [*super().get_outputs(*args, **kwargs), *self.mim_files]


if 'develop' in sys.argv:  # an editable install by an old pip
    link_mim('s4d_mm')

setup(
    name='s4d_mm',
    version=re.search(r"__version__ = '([^']+)'", read('s4d_mm', 'version.py')).group(1),
    description='S4D (Static-for-Dynamic) facial expression recognition in video, for OpenMMLab',
    long_description=absolute_links(read('README.md')),
    long_description_content_type='text/markdown',
    author='s4d_mm contributors',
    url=REPOSITORY,
    project_urls={
        'Documentation': f'{REPOSITORY}/tree/main/docs',
        'Source': REPOSITORY,
        'Issues': f'{REPOSITORY}/issues',
        'Changelog': f'{REPOSITORY}/blob/main/CHANGELOG.md',
        'Paper': 'https://doi.org/10.1109/TAFFC.2025.3623135',
    },
    license='Apache-2.0',
    license_files=['LICENSE'],
    keywords='facial expression recognition, masked autoencoder, mixture of experts, OpenMMLab',
    packages=find_packages(include=['s4d_mm', 's4d_mm.*']),
    package_data={'s4d_mm.predict': ['*.safetensors']},
    # lets an editable install put the tree on the path (setuptools' `compat` mode, which is going):
    # a finder would lose against the clone `s4d_mm/` in the folder that Python is started in
    package_dir={'': '.'},
    python_requires='>=3.10,<3.14',
    # mmcv and mmcv-lite provide the same module, so neither is forced on an
    # environment that may hold the other: see the extra `lite`.
    install_requires=requirements('runtime.txt'),
    extras_require={
        'bench': requirements('bench.txt'),
        'demo': requirements('demo.txt'),
        'export': requirements('export.txt'),
        'faces': requirements('faces.txt'),
        'hub': requirements('hub.txt'),
        'lite': requirements('lite.txt'),
        'mim': requirements('mminstall.txt'),
        'pack': requirements('pack.txt'),
        'tests': requirements('tests.txt'),
    },
    scripts=['tools/s4d'],  # no entry point, which would import the package first
    classifiers=[
        'Development Status :: 4 - Beta',
        'Environment :: Console',
        'Intended Audience :: Developers',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3',
        *(f'Programming Language :: Python :: 3.{minor}' for minor in range(10, 14)),
        'Topic :: Multimedia :: Video',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
    cmdclass=dict(build_py=BuildPy),
    zip_safe=False,
)
