# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Version of the package, in one place for ``setup.py`` and the runtime."""

__version__ = '0.2.0'
