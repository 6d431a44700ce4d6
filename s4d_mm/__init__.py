# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""S4D (Static-for-Dynamic) facial expression recognition for OpenMMLab.

Importing the package checks the versions of the toolbox, repairs what its
published wheels lack (:mod:`s4d_mm.compat`), and registers every part, so
``custom_imports = dict(imports=['s4d_mm'])`` is all that a config needs.
Prediction (:mod:`s4d_mm.apis`) is imported on its own.
"""

import warnings
from importlib import metadata

from .version import __version__

# package, the names on PyPI that provide it, the lowest version, the first that is too new
REQUIREMENTS = (
    ('mmengine', ('mmengine', 'onedl-mmengine'), '0.10.4', '1.0.0'),
    ('mmcv', ('mmcv-lite', 'mmcv', 'onedl-mmcv'), '2.1.0', '2.2.0'),
    ('mmaction2', ('mmaction2',), '1.2.0', '2.0.0'),
    ('mmpretrain', ('mmpretrain', 'onedl-mmpretrain'), '1.2.0', '2.0.0'),
)


def check_versions() -> None:
    """Check that the toolbox packages are there, in versions that fit.

    Raises:
        ImportError: If one is missing or out of range, or if two packages that provide the same
            (``mmcv`` and ``mmcv-lite``) overwrite each other.
    """
    for package, names, lowest, too_new in REQUIREMENTS:
        found = {name: version for name in names if (version := installed_version(name))}
        remedy = f'pip install "{names[0]}>={lowest},<{too_new}"'
        if not found:
            raise ImportError(f's4d_mm needs {package}, but it is not installed: {remedy}')
        if len(found) > 1:
            raise ImportError(
                f'{" and ".join(found)} are both installed and overwrite each other. Uninstall '
                f'both, then install one of them: {remedy}'
            )
        from mmengine.utils import digit_version  # is there: it is the first requirement

        ((name, version),) = found.items()
        if not digit_version(lowest) <= digit_version(version) < digit_version(too_new):
            raise ImportError(
                f's4d_mm {__version__} needs {package} >={lowest}, <{too_new}, but '
                f'{name}=={version} is installed: {remedy}'
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

with warnings.catch_warnings():
    # mmcv-lite says so when it is imported (open-mmlab/mmcv#1975)
    warnings.filterwarnings('ignore', 'Fail to import ``MultiScaleDeformableAttention``')
    from . import datasets, engine, evaluation, models, weights  # noqa: F401
    from .former_names import keep_former_names

keep_former_names()

__all__ = ['__version__', 'check_versions', 'datasets', 'engine', 'evaluation', 'models']
