# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""How long a run may stand still, as its config says."""

import datetime
from typing import Optional

from mmengine.config import Config

HANG_TIMEOUT = 600.0  # seconds
# The watchdog names who stands still, torch's process group does not: it comes second
GROUP_GRACE = 60.0


def check_seconds(name: str, value: float) -> float:
    """Make sure that a setting is a number of seconds.

    Args:
        name (str): Key of the setting.
        value (float): The setting.

    Returns:
        float: ``value``.

    Raises:
        ValueError: If it is none, or below 0.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise ValueError(
            f'{name} must be a number of seconds, 0 for no limit, but is {value!r}. '
            'Write, for example, 1800.'
        )
    return float(value)


def hang_timeout(cfg: Config) -> float:
    """The limit of a config.

    Args:
        cfg (Config): Config of a run.

    Returns:
        float: Seconds, ``default_hooks.hang.timeout``; 0 if there is no limit.

    Raises:
        ValueError: If the setting is no number of seconds.
    """
    hook = (cfg.get('default_hooks') or {}).get('hang')
    if hook is None:
        return 0.0
    return check_seconds('default_hooks.hang.timeout', hook.get('timeout', HANG_TIMEOUT))


def group_timeout(cfg: Config) -> Optional[datetime.timedelta]:
    """How long a process waits for the others in torch's process group.

    Args:
        cfg (Config): Config of a run.

    Returns:
        datetime.timedelta | None: ``env_cfg.dist_cfg.timeout`` seconds if the config has it, else
        a minute more than the limit of the watchdog; None, torch's own, if there is no limit.
    """
    own = ((cfg.get('env_cfg') or {}).get('dist_cfg') or {}).get('timeout')
    limit = hang_timeout(cfg)
    if own is None and limit == 0:
        return None
    seconds = limit + GROUP_GRACE if own is None else own
    return datetime.timedelta(seconds=check_seconds('env_cfg.dist_cfg.timeout', seconds))
