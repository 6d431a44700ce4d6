# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""``--cfg-options`` that would change nothing are errors, which name what to set."""

import difflib
import inspect
from collections.abc import Collection, Iterable

from mmengine.config import Config
from mmengine.runner import FlexibleRunner, Runner

from .config_variables import find_uses

# beside what the runners take: what mmengine, mmaction2 and launch.py read of a config
ALSO_READ = (
    *('runner_type', 'model_wrapper_cfg', 'find_unused_parameters', 'sync_bn'),
    *('activation_checkpointing', 'efficient_conv_bn_eval', 'compile', 'fold'),
    *('init_weights_for_test_or_val', 'extra_options'),
)
# what prediction reads
PIPELINES = ('test_pipeline', 'image_test_pipeline')
# dicts of which mmengine takes what it knows, and does not look at the rest
OPEN_DICTS = {
    'env_cfg': ('cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'),
    'env_cfg.mp_cfg': ('mp_start_method', 'opencv_num_threads'),
    'auto_scale_lr': ('enable', 'base_batch_size'),
}
MOST_PLACES = 8  # named in a message


class OptionError(ValueError):
    """An option of the command line that nothing reads."""


def settings_of_run() -> set[str]:
    """Names at the top of a config that a training or a test reads."""
    known = set(ALSO_READ)
    for runner in (Runner, FlexibleRunner):
        known |= set(inspect.signature(runner.__init__).parameters) - {'self', 'cfg'}
    return known


def check_options(cfg: Config, options: dict, also: Collection[str] = ()) -> None:
    """Refuse options that nothing would read.

    A name of one's own passes if the config, or another option, lists it in ``extra_options``.
    What a class does not know is refused by the class when it is built.

    Args:
        cfg (Config): The config before the options are put in.
        options (dict): Parsed ``--cfg-options``: key and value.
        also (Collection[str]): Names that the tool reads beside those of a run.

    Raises:
        OptionError: For the first one, with the nearest key, or the keys where a variable of the
            config file went.
    """
    extra = [*as_list(cfg.get('extra_options')), *as_list(options.get('extra_options'))]
    known = settings_of_run() | set(also)
    for key, value in options.items():
        top = key.split('.')[0]
        if top in extra:
            continue
        option = f'--cfg-options {key}={value}'
        if top not in known and top in cfg:
            raise OptionError(f'{option}: {about_variable(cfg, key, known)} {how_to_allow(top)}')
        if top not in known:
            raise OptionError(
                f'{option}: nothing reads {top!r}.{nearest(top, known)} {how_to_allow(top)}'
            )
        check_inner_keys(cfg, key, option)


def as_list(names: object) -> list[str]:
    """``extra_options`` as a list: it may be one name, several, or None."""
    if names is None:
        return []
    return [names] if isinstance(names, str) else list(names)


def about_variable(cfg: Config, key: str, known: Collection[str]) -> str:
    """Say that a key is one of a variable, and which settings were made of it."""
    top, _, rest = key.partition('.')
    text = (
        f'{top} is a variable of {cfg.filename}. It was used up when the file was read, so that '
        'changing it now changes nothing.'
    )
    places = find_uses(cfg.filename, top, known) if str(cfg.filename).endswith('.py') else []
    if rest:
        places = [f'{place}.{rest}' for place in places]
    texts = []
    for place in places:
        found, value = look_up(cfg, place)
        if found:
            texts.append(f'{place} (now {shorten(value)})')
    if not texts:
        return f'{text} Change it in the file.'
    more = f' and {len(texts) - MOST_PLACES} more' if len(texts) > MOST_PLACES else ''
    return f'{text} Set what was made of it: {", ".join(texts[:MOST_PLACES])}{more}.'


def shorten(value: object) -> str:
    """A value for a message, not too long."""
    text = repr(value)
    return text if len(text) <= 60 else f'{text[:57]}...'


def how_to_allow(name: str) -> str:
    """Say how a name of one's own passes."""
    return f'If code of yours reads it, add extra_options={name} to the options.'


def nearest(name: str, known: Iterable[str]) -> str:
    """Name what was probably meant, as a sentence with a space before it; '' if nothing is near."""
    found = difflib.get_close_matches(name, list(known), 1)
    return f' Did you mean {found[0]}?' if found else ''


def look_up(cfg: Config, key: str) -> tuple[bool, object]:
    """Find a value of a config.

    Args:
        cfg (Config): The config.
        key (str): Key, such as ``a.b.0``.

    Returns:
        tuple[bool, object]: Whether it is there, and the value.
    """
    node = cfg
    for part in key.split('.'):
        if isinstance(node, (list, tuple)) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        elif isinstance(node, (dict, Config)) and part in node:
            node = node[part]
        else:
            return False, None
    return True, node


def check_inner_keys(cfg: Config, key: str, option: str) -> None:
    """Refuse a misspelt part of a key, where no class would see it.

    Args:
        cfg (Config): The config before the options are put in.
        key (str): The key.
        option (str): The option, for the message.

    Raises:
        OptionError: If mmengine would not look at the part, or if it would make a new dict beside
            one of nearly the same name.
    """
    parts = key.split('.')
    for i in range(1, len(parts)):
        above, part = '.'.join(parts[:i]), parts[i]
        allowed: Collection[str] | None = OPEN_DICTS.get(above)
        if allowed is not None and part not in allowed:
            raise OptionError(
                f'{option}: nothing reads {part!r} of {above}.{nearest(part, allowed)} It has '
                f'{", ".join(allowed)}.'
            )
        found, node = look_up(cfg, above)
        is_last = i == len(parts) - 1
        if not found or not isinstance(node, dict) or part in node or is_last:
            continue
        near = nearest(part, node)
        if near:
            raise OptionError(f'{option}: {above} has no {part!r}.{near}')
