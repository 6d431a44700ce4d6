# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Measurements of speed and memory; see README.md of this folder."""
