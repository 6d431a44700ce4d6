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
    long_description=read('README.md'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    keywords='facial expression recognition, masked autoencoder, mixture of experts, OpenMMLab',
    packages=find_packages(include=['s4d_mm', 's4d_mm.*']),
    python_requires='>=3.9,<3.13',
    # mmcv and mmcv-lite provide the same module, so neither is forced on an
    # environment that may hold the other: see the extra `lite`.
    install_requires=requirements('runtime.txt'),
    extras_require={
        'demo': requirements('demo.txt'),
        'export': requirements('export.txt'),
        'faces': requirements('faces.txt'),
        'hub': requirements('hub.txt'),
        'lite': requirements('lite.txt'),
        'mim': requirements('mminstall.txt'),
        'tests': requirements('tests.txt'),
    },
    entry_points=dict(console_scripts=['s4d = s4d_mm.cli:main']),
    classifiers=[
        'License :: OSI Approved :: Apache Software License',
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    cmdclass=dict(build_py=BuildPy),
    zip_safe=False,
)
