# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Prediction in the user's own media; nothing else of the package imports it."""
