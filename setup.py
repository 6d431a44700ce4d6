# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Package definition. What is installed where is written in
``requirements/``."""
import os.path as osp
import re

from setuptools import find_packages, setup

ROOT = osp.dirname(osp.abspath(__file__))


def read(*path: str) -> str:
    with open(osp.join(ROOT, *path), encoding='utf-8') as f:
        return f.read()


def requirements(name: str) -> list:
    lines = (ln.split('#')[0].strip()
             for ln in read('requirements', name).splitlines())
    return [ln for ln in lines if ln]


setup(
    name='s4d_mm',
    version=re.search(r"__version__ = '([^']+)'",
                      read('s4d_mm', 'version.py')).group(1),
    description='S4D (Static-for-Dynamic) facial expression recognition in '
    'video, for OpenMMLab',
    long_description=read('README.md'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    keywords='facial expression recognition, masked autoencoder, '
    'mixture of experts, OpenMMLab',
    packages=find_packages(include=['s4d_mm', 's4d_mm.*']),
    python_requires='>=3.9,<3.13',
    # mmcv and mmcv-lite provide the same module, so neither is forced on an
    # environment that may hold the other: see the extra `lite`.
    install_requires=requirements('runtime.txt'),
    extras_require={
        'lite': requirements('lite.txt'),
        'mim': requirements('mminstall.txt'),
        'prepare': requirements('prepare.txt'),
        'tests': requirements('tests.txt'),
    },
    classifiers=[
        'License :: OSI Approved :: Apache Software License',
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    zip_safe=False)
