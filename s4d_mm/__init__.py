# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""S4D (Static-for-Dynamic) facial expression recognition for OpenMMLab.

Importing the package checks the versions of the toolbox, repairs what its
published wheels lack (:mod:`s4d_mm.compat`), and registers every part, so
``custom_imports = dict(imports=['s4d_mm'])`` is all that a config needs.
Prediction (:mod:`s4d_mm.apis`) is imported by who wants it.
"""

from importlib import metadata
from typing import NamedTuple

from .version import __version__


class Requirement(NamedTuple):
    """A package of the toolbox, and the versions of it that fit."""

    package: str
    distributions: tuple[str, ...]  # names on PyPI; each of them provides the package
    lowest: str
    too_new: str  # the first version that is
    remedy: str  # how to get one that fits


REQUIREMENTS = (
    Requirement(
        'mmengine',
        ('mmengine', 'onedl-mmengine'),
        '0.10.4',
        '1.0.0',
        'pip install "mmengine>=0.10.4,<1.0.0"',
    ),
    Requirement(
        'mmcv',
        ('mmcv', 'mmcv-lite', 'onedl-mmcv'),
        '2.1.0',
        '2.2.0',
        'pip install "mmcv-lite>=2.1.0,<2.2.0" (or, for the compiled '
        'operators, mim install "mmcv>=2.1.0,<2.2.0"; never both)',
    ),
    Requirement(
        'mmaction2', ('mmaction2',), '1.2.0', '2.0.0', 'pip install "mmaction2>=1.2.0,<2.0.0"'
    ),
    Requirement(
        'mmpretrain',
        ('mmpretrain', 'onedl-mmpretrain'),
        '1.2.0',
        '2.0.0',
        'pip install "mmpretrain>=1.2.0,<2.0.0"',
    ),
)


def check_versions() -> None:
    """Check that the toolbox packages are there, in versions that fit.

    Raises:
        ImportError: If one is missing or out of range, or if ``mmcv`` and
            ``mmcv-lite`` are both installed (they overwrite each other).
    """
    for required in REQUIREMENTS:
        wanted = f'{required.package} >={required.lowest}, <{required.too_new}'
        found = {
            name: version
            for name in required.distributions
            if (version := installed_version(name)) is not None
        }
        if not found:
            raise ImportError(f's4d_mm needs {wanted}, but it is not installed: {required.remedy}.')
        if len(found) > 1:
            raise ImportError(
                f'{" and ".join(found)} are both installed and overwrite each '
                'other. Uninstall both, then install one of them: '
                f'{required.remedy}.'
            )
        from mmengine.utils import digit_version  # is there: it is the first requirement

        ((name, version),) = found.items()
        lowest, too_new = digit_version(required.lowest), digit_version(required.too_new)
        if not lowest <= digit_version(version) < too_new:
            raise ImportError(
                f's4d_mm {__version__} needs {wanted}, but {name}=={version} is installed: '
                f'{required.remedy}.'
            )


def installed_version(distribution: str) -> str | None:
    """Version of an installed distribution, None if it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


check_versions()

# the order matters: what the parts import must be checked and repaired first
from . import compat  # noqa: E402

compat.apply()

from . import datasets, engine, evaluation, models  # noqa: E402

__all__ = ['__version__', 'check_versions', 'datasets', 'engine', 'evaluation', 'models']
