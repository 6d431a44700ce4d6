# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Weights of other code, read and renamed: tables and files side by side."""
