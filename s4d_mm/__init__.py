# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""S4D (Static-for-Dynamic) facial expression recognition for OpenMMLab.

Importing the package checks the versions of the toolbox, repairs what its
published wheels lack (:mod:`s4d_mm.compat`), and registers every part, so
``custom_imports = dict(imports=['s4d_mm'])`` is all that a config needs.
"""

from importlib import metadata

from .version import __version__

# distribution names that provide the package, lowest version, first version
# that is too new, and how to get a fitting one
_REQUIRED = {
    'mmengine': (('mmengine',), '0.10.4', '1.0.0', 'pip install "mmengine>=0.10.4,<1.0.0"'),
    'mmcv': (
        ('mmcv', 'mmcv-lite'),
        '2.1.0',
        '2.2.0',
        'pip install "mmcv-lite>=2.1.0,<2.2.0" (or, for the compiled '
        'operators, mim install "mmcv>=2.1.0,<2.2.0"; never both)',
    ),
    'mmaction2': (('mmaction2',), '1.2.0', '2.0.0', 'pip install "mmaction2>=1.2.0,<2.0.0"'),
    'mmpretrain': (('mmpretrain',), '1.2.0', '2.0.0', 'pip install "mmpretrain>=1.2.0,<2.0.0"'),
}


def _installed(distribution: str):
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def check_versions() -> None:
    """Check that the toolbox packages are there, in versions that fit.

    Raises:
        ImportError: If one is missing or out of range, or if ``mmcv`` and
            ``mmcv-lite`` are both installed (they overwrite each other).
    """
    for package, (names, low, high, advice) in _REQUIRED.items():
        found = {n: v for n in names if (v := _installed(n)) is not None}
        if not found:
            raise ImportError(
                f's4d_mm needs {package} >={low}, <{high}, but it is not installed: {advice}.'
            )
        if len(found) > 1:
            raise ImportError(
                f'{" and ".join(found)} are both installed and overwrite each '
                'other. Uninstall both, then install one of them: '
                f'{advice}.'
            )
        from mmengine.utils import digit_version

        ((name, version),) = found.items()
        if not (digit_version(low) <= digit_version(version) < digit_version(high)):
            raise ImportError(
                f's4d_mm {__version__} needs {package} >={low}, '
                f'<{high}, but {name}=={version} is installed: '
                f'{advice}.'
            )


check_versions()

from . import compat  # noqa: E402

compat.apply()

from . import apis, datasets, engine, evaluation, models  # noqa: E402,F401

__all__ = ['__version__', 'check_versions']
