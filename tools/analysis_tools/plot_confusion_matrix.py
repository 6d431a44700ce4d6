# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
