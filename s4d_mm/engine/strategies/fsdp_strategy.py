# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Fully sharded data parallel training (FSDP)."""

import re
from typing import Optional, Union

import torch
from mmengine._strategy import FSDPStrategy
from mmengine.device import get_device
from mmengine.optim import BaseOptimWrapper
from mmengine.registry import STRATEGIES
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP

from .common import check_auto_scale_lr

# what FSDP and activation checkpointing put into a parameter's name
WRAPPER_NAMES = re.compile(r'_fsdp_wrapped_module\.|_checkpoint_wrapped_module\.')


@STRATEGIES.register_module()
class S4DFSDPStrategy(FSDPStrategy):
    """mmengine's ``FSDPStrategy``, with what S4D's runs need from it.

    - It also runs without GPUs (gloo backend).
    - The optimizer's groups are made before the model is sharded. mmengine
      makes them afterwards, when the parameters are pieces of one dimension
      whose names have further parts, so that layer-wise decay and
      ``custom_keys`` would not find them.
    - ``auto_scale_lr`` works with a batch size for each modality.
    - Loading says which weights were missing; resuming works with torch >=
      2.1, which changed the order of the arguments that mmengine (0.10.7)
      passes, and with more than one parameter group.
    - Checkpoints are whole by default, as those of an ordinary run.

    Args:
        batch_size (int, optional): Samples of a step in one process, for
            ``auto_scale_lr``. ``tools/train.py`` fills it in from
            ``train_dataloader.batch_size``. Defaults to None.
        state_dict_cfg (str | dict): See mmengine's ``FSDPStrategy``. Defaults
            to 'full'.
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
    ):
        """Build model and optimizer, then shard them."""
        if not self._prepared:
            dispatch_kwargs = check_auto_scale_lr(
                dispatch_kwargs, self._auto_scale_lr, self.batch_size
            )
            model = self.build_model(model)
            if isinstance(optim_wrapper, dict):
                if optim_wrapper.get('clip_grad'):
                    raise ValueError(
                        'optim_wrapper.clip_grad is not supported with FSDP: '
                        'each process would clip by the norm of its own '
                        'shard. Remove it.'
                    )
                optim_wrapper = super().build_optim_wrapper(optim_wrapper, model)
        return super().prepare(
            model, optim_wrapper=optim_wrapper, dispatch_kwargs=dispatch_kwargs, **kwargs
        )

    def _wrap_model(self, model: nn.Module) -> nn.Module:
        for param in model.parameters():
            param.whole_numel = param.numel()  # for RunSummaryHook
        if get_device() == 'cpu':
            # mmengine passes the number of a GPU
            self.model_wrapper = dict(self.model_wrapper or {}, device_id=torch.device('cpu'))
            # "moved to the CPU" is not copied there, and the gathered memory
            # is freed before the checkpoint is written
            for cfg in (self.state_dict_config, self.optim_state_dict_config):
                cfg.offload_to_cpu = False
        return super()._wrap_model(model)

    def build_optim_wrapper(
        self, optim_wrapper: Union[BaseOptimWrapper, dict], model: Optional[nn.Module] = None
    ) -> BaseOptimWrapper:
        """Let the groups that were made of whole parameters hold their
        shards.
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
        revise_keys: list[tuple[str, str]] = [(r'^module\.', '')],
    ) -> None:
        """Load weights and log which were missing or not used."""
        for pattern, new in revise_keys:
            state_dict = {re.sub(pattern, new, k): v for k, v in state_dict.items()}
        found = self.model.load_state_dict(state_dict, strict=strict)
        for what, keys in (
            ('missing in', found.missing_keys),
            ('not used of', found.unexpected_keys),
        ):
            if keys:
                names = ', '.join(WRAPPER_NAMES.sub('', k) for k in keys)
                self.logger.warning(f'Keys {what} the checkpoint: {names}')

    def optim_state_dict(self) -> dict:
        """State of the optimizer, whole in the first process."""
        state = FSDP.optim_state_dict(self.model, self.optim_wrapper.optimizer)
        extra = self.optim_wrapper.state_dict()
        for key in ('base_param_settings', 'loss_scaler'):
            if key in extra:
                state[key] = extra[key]
        return state

    def load_optim_state_dict(self, state_dict: dict) -> None:
        """Load what :meth:`optim_state_dict` returned."""
        extra = {
            key: state_dict.pop(key)
            for key in ('base_param_settings', 'loss_scaler')
            if key in state_dict
        }
        shards = FSDP.optim_state_dict_to_load(
            model=self.model, optim=self.optim_wrapper.optimizer, optim_state_dict=state_dict
        )
        self.optim_wrapper.load_state_dict({**shards, **extra})
