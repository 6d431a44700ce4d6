# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Fully sharded data parallel training (FSDP), for mmengine's ``FlexibleRunner``."""

import re
from collections.abc import Sequence
from typing import Optional, Union

import torch
from mmengine._strategy import FSDPStrategy
from mmengine.device import get_device
from mmengine.optim import BaseOptimWrapper
from mmengine.registry import FUNCTIONS, STRATEGIES
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP

from ..converters.fit import Fit, report_fit
from ..models.layers import TransformerBlock

# what FSDP and activation checkpointing put into a parameter's name
WRAPPER_NAMES = re.compile(r'_fsdp_wrapped_module\.|_checkpoint_wrapped_module\.')
# what an optimizer wrapper has in its state beside that of the optimizer
WRAPPER_STATE = ('base_param_settings', 'loss_scaler')


@FUNCTIONS.register_module()
def is_transformer_block(module: nn.Module) -> bool:
    """Say whether a module is a block of encoder, decoder or MoAE neck.

    This is the ``check_fn`` of ``activation_checkpointing``: blocks are recomputed.

    Args:
        module (nn.Module): Any part of a model.

    Returns:
        bool: Whether it is one.
    """
    return isinstance(module, TransformerBlock)


@FUNCTIONS.register_module()
def wrap_transformer_blocks(module: nn.Module, recurse: bool, nonwrapped_numel: int) -> bool:
    """Make each block a unit that is sharded and gathered as a whole.

    This is the ``auto_wrap_policy``. What is left (embedding, norms, heads) belongs to the
    unit of the whole model.

    Args:
        module (nn.Module): Any part of a model.
        recurse (bool): Whether FSDP asks for the children of ``module``, not for itself.
        nonwrapped_numel (int): Parameters that have no unit yet. Not used.

    Returns:
        bool: Whether to look at the children, or to make ``module`` a unit.
    """
    return recurse or is_transformer_block(module)


@STRATEGIES.register_module()
class S4DFSDPStrategy(FSDPStrategy):
    """mmengine's ``FSDPStrategy``, with what S4D's runs need from it.

    - It also runs without GPUs (gloo backend).
    - The optimizer's groups are made before the model is sharded. mmengine makes them
      afterwards, when the parameters are pieces of one dimension whose names have further
      parts, so that layer-wise decay and ``custom_keys`` would not find them.
    - ``auto_scale_lr`` works with a batch size for each modality.
    - Loading says which weights were missing. Resuming works with torch >= 2.1, which
      changed the order of the arguments that mmengine (0.10.7) passes, and with more than
      one parameter group.
    - Checkpoints are whole by default, as those of an ordinary run.

    Args:
        batch_size (int, optional): Samples of a step in one process, for ``auto_scale_lr``.
            ``tools/train.py`` fills it in from ``train_dataloader.batch_size``. Defaults to
            None.
        state_dict_cfg (str | dict): See mmengine's ``FSDPStrategy``. Defaults to 'full'.
        **kwargs: As mmengine's ``FSDPStrategy``.
    """

    def __init__(
        self,
        *,
        batch_size: Optional[int] = None,
        state_dict_cfg: Union[str, dict] = 'full',
        **kwargs,
    ) -> None:
        super().__init__(state_dict_cfg=state_dict_cfg, **kwargs)
        self.batch_size = batch_size

    def prepare(
        self,
        model: Union[nn.Module, dict],
        *,
        optim_wrapper: Union[BaseOptimWrapper, dict, None] = None,
        dispatch_kwargs: Optional[dict] = None,
        **kwargs,
    ) -> Union[tuple, nn.Module]:
        """Build model and optimizer, then shard them.

        Args:
            model (nn.Module | dict): The model or its config.
            optim_wrapper (BaseOptimWrapper | dict, optional): The optimizer wrapper or its
                config. Defaults to None.
            dispatch_kwargs (dict, optional): What the runner knows, such as the batch size.
                Defaults to None.
            **kwargs: As mmengine's ``FSDPStrategy``.

        Returns:
            tuple | nn.Module: What was prepared, as mmengine returns it.

        Raises:
            ValueError: If ``clip_grad`` is set, or the batch size for ``auto_scale_lr`` is
                not known.
        """
        if not self._prepared:
            dispatch_kwargs = self._with_one_batch_size(dispatch_kwargs)
            model = self.build_model(model)
            if isinstance(optim_wrapper, dict):
                if optim_wrapper.get('clip_grad'):
                    raise ValueError(
                        f'optim_wrapper.clip_grad={optim_wrapper["clip_grad"]} is not supported '
                        'with FSDP: each process would clip by the norm of its own shard. '
                        'Remove it.'
                    )
                optim_wrapper = super().build_optim_wrapper(optim_wrapper, model)
        return super().prepare(
            model, optim_wrapper=optim_wrapper, dispatch_kwargs=dispatch_kwargs, **kwargs
        )

    def _with_one_batch_size(self, dispatch_kwargs: Optional[dict]) -> dict:
        """Put one number where the runner has the sampler's batch size of each modality."""
        key, kwargs = 'train_micro_batch_size_per_gpu', dict(dispatch_kwargs or {})
        if self.batch_size is not None:
            kwargs[key] = self.batch_size
        elif (self._auto_scale_lr or {}).get('enable') and isinstance(kwargs.get(key), dict):
            raise ValueError(
                f'auto_scale_lr needs one batch size, but the sampler has {dict(kwargs[key])}. '
                'Set strategy.batch_size to the one that auto_scale_lr.base_batch_size counts.'
            )
        return kwargs

    def _wrap_model(self, model: nn.Module) -> nn.Module:
        for param in model.parameters():
            param.whole_numel = param.numel()  # for RunSummaryHook
        if get_device() == 'cpu':
            # mmengine passes the number of a GPU
            self.model_wrapper = dict(self.model_wrapper or {}, device_id=torch.device('cpu'))
            # "moved to the CPU" is not copied there, and the gathered memory is freed before
            # the checkpoint is written
            for cfg in (self.state_dict_config, self.optim_state_dict_config):
                cfg.offload_to_cpu = False
        return super()._wrap_model(model)

    def build_optim_wrapper(
        self, optim_wrapper: BaseOptimWrapper, model: Optional[nn.Module] = None
    ) -> BaseOptimWrapper:
        """Let the groups that were made of whole parameters hold their shards.

        Args:
            optim_wrapper (BaseOptimWrapper): Made by :meth:`prepare`.
            model (nn.Module, optional): The sharded model.

        Returns:
            BaseOptimWrapper: The same, changed in place.
        """
        shards = {WRAPPER_NAMES.sub('', name): param for name, param in model.named_parameters()}
        for group in optim_wrapper.optimizer.param_groups:
            group['params'] = [shards[self.id_to_name[id(param)]] for param in group['params']]
        return optim_wrapper

    def load_model_state_dict(
        self,
        state_dict: dict,
        *,
        strict: bool = False,
        revise_keys: Sequence[tuple[str, str]] = ((r'^module\.', ''),),
    ) -> None:
        """Load weights and log which were missing or left over.

        Args:
            state_dict (dict): Whole weights, on all processes.
            strict (bool): Whether all names must match. Defaults to False.
            revise_keys (Sequence[tuple[str, str]]): Pattern and replacement for the names.
                Defaults to removing ``module.``.

        Raises:
            ValueError: If none of them has a place in the model.
        """
        for pattern, new in revise_keys:
            state_dict = {re.sub(pattern, new, k): v for k, v in state_dict.items()}
        found = self.model.load_state_dict(state_dict, strict=strict)
        missing, left_over = (
            [WRAPPER_NAMES.sub('', key) for key in keys]
            for keys in (found.missing_keys, found.unexpected_keys)
        )
        placed = [key for key in state_dict if key not in set(left_over)]
        fit = Fit(placed, missing, left_over)
        report_fit(fit, type(self.model.module).__name__, state_dict, self.logger)

    def optim_state_dict(self) -> dict:
        """Collect the state of the optimizer.

        Returns:
            dict: With the parameters' names, whole in the first process.
        """
        state = FSDP.optim_state_dict(self.model, self.optim_wrapper.optimizer)
        of_wrapper = self.optim_wrapper.state_dict()
        return state | {key: of_wrapper[key] for key in WRAPPER_STATE if key in of_wrapper}

    def load_optim_state_dict(self, state_dict: dict) -> None:
        """Load the state of the optimizer.

        Args:
            state_dict (dict): What :meth:`optim_state_dict` returned.
        """
        of_wrapper = {key: state_dict.pop(key) for key in WRAPPER_STATE if key in state_dict}
        shards = FSDP.optim_state_dict_to_load(
            model=self.model, optim=self.optim_wrapper.optimizer, optim_state_dict=state_dict
        )
        self.optim_wrapper.load_state_dict(shards | of_wrapper)
