# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The host never waits for the GPU in the data preprocessor, the forward and
the backward pass of training.

Checked without a GPU: the step runs on fake tensors, which have a shape and
the device 'cuda' but no values, so that whatever needs a value fails. What
kernels do inside needs a real GPU: ``count_syncs`` in benchmarks/timing.py.
"""

import copy
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS, init_default_scope
from small_models import FINETUNE, IMAGES, PRETRAIN, VIDEOS, samples
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode

needs_fake_gpu = pytest.mark.skipif(
    not hasattr(torch._C, '_ensureCUDADeviceGuardSet') and not torch.cuda.is_available(),
    reason='fake tensors of a GPU need a GPU or a newer torch',
)
pytestmark = needs_fake_gpu
SHAPES = dict(image=IMAGES, video=VIDEOS)
KINDS = [('image',), ('video',)]
# compute capability of the GPU: without and with grouped matrix products
CAPABILITY = {torch.float32: (8, 0), torch.bfloat16: (9, 0)}


class HostWaits(RuntimeError):
    """The host would wait for a copy."""


class Watch(TorchDispatchMode):
    """Refuse copies between host and GPU that are not ``non_blocking``, and
    masks whose true values must be counted; count the operators."""

    def __init__(self):
        super().__init__()
        self.ops = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = str(func.overloadpacket)
        self.ops[name] += 1
        if name == 'aten._to_copy' and not kwargs.get('non_blocking'):
            self.same_device(name, args[0], out)
        elif name == 'aten.copy_' and not (*args, False)[2]:
            self.same_device(name, *args[:2])
        elif name in ('aten.index', 'aten.index_put_', 'aten.index_put'):
            index = [i for i in args[1] if i is not None]
            self.same_device(name, args[0], *index)
            if name != 'aten.index' and args[2].ndim and any(i.dtype == torch.bool for i in index):
                raise HostWaits(f'{name} of a mask')
        return out

    @staticmethod
    def same_device(name, *tensors):
        devices = {x.device.type for x in tensors}
        if len(devices) > 1:
            raise HostWaits(f'{name} between {sorted(devices)}')


def to_fake_gpu(model):
    """Fake parameters and buffers on 'cuda' in the place of the real ones."""
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, x in tensors.items():
                if x is None:
                    continue
                fake = torch.empty(x.shape, dtype=x.dtype, device='cuda')
                if isinstance(x, nn.Parameter):
                    fake = nn.Parameter(fake)
                tensors[name] = fake
    model.data_preprocessor.to('cuda')  # its device
    return model


@torch.no_grad()
def backward(loss):
    """``loss.backward()`` node by node, because autograd itself starts a
    thread for the device."""
    nodes, missing = [loss.grad_fn], Counter()
    for node in nodes:  # grows
        for child, _ in node.next_functions:
            if child is not None:
                if child not in missing:
                    nodes.append(child)
                missing[child] += 1
    grads, ready = {node: {} for node in nodes}, nodes[:1]
    grads[loss.grad_fn][0] = torch.ones_like(loss)
    while ready:
        node = ready.pop()
        given = grads[node]
        if hasattr(node, 'variable'):  # a parameter
            node.variable.grad = given[0]
            continue
        run = getattr(node, 'apply', node)
        out = run(*map(given.get, range(len(node._input_metadata))))
        out = out if isinstance(out, tuple) else (out,)
        for (child, i), grad in zip(node.next_functions, out):
            if child is None:
                continue
            if grad is not None:
                # what was broadcast
                grad = grad.sum_to_size(child._input_metadata[i].shape)
                sums = grads[child]
                sums[i] = sums[i] + grad if i in sums else grad
            missing[child] -= 1
            if not missing[child]:
                ready.append(child)


def config(stage):
    init_default_scope('mmaction')
    cfg = copy.deepcopy(dict(pretrain=PRETRAIN, finetune=FINETUNE)[stage])
    cfg['data_preprocessor'] = dict(
        type='DualModalDataPreprocessor',
        mean=[0.0] * 3,
        std=[1.0] * 3,
        merge_views=stage == 'pretrain',
    )
    if stage == 'finetune':
        cfg['type'] = 'DualModalRecognizer'
        cfg['neck'].update(drop_path_rate=0.1, capacity_factor=1.25)
    return cfg


def train_step(model, kinds, dtype=torch.float32):
    """Forward and backward pass, from a batch of the data loader.

    Returns:
        Counter: The operators that were called.
    """
    with FakeTensorMode(), Watch() as watch:
        to_fake_gpu(model.train())
        data = dict(inputs=[], data_samples=[])
        for kind in kinds:
            batch, *shape = SHAPES[kind]
            data['inputs'] += torch.zeros(batch, 1, *shape, dtype=torch.uint8).unbind()
            data['data_samples'] += samples(kind, range(batch))
        data = model.data_preprocessor(data, training=True)
        with torch.autocast('cuda', dtype, enabled=dtype != torch.float32):
            loss, _ = model.parse_losses(model(**data, mode='loss'))
        assert loss.device.type == 'cuda'
        backward(loss)
    for name, param in model.named_parameters():
        assert param.grad.shape == param.shape, name
        assert param.grad.device.type == 'cuda', name
    return watch.ops


@pytest.fixture
def gpu(monkeypatch):
    """A function that makes torch believe in a GPU of this capability."""

    def pretend(capability):
        for place, name, value in [
            (torch.cuda, 'get_device_capability', capability),
            (torch.cuda, 'is_bf16_supported', True),
            (torch.cuda.amp.common, 'amp_definitely_not_available', False),
        ]:
            monkeypatch.setattr(place, name, lambda *args, v=value: v)

    return pretend


@pytest.mark.parametrize('stage', ['pretrain', 'finetune'])
@pytest.mark.parametrize('kinds', KINDS, ids='+'.join)
@pytest.mark.parametrize('dtype', CAPABILITY, ids=str)
def test_no_training_step_waits(stage, kinds, dtype, gpu):
    gpu(CAPABILITY[dtype])
    ops = train_step(MODELS.build(config(stage)), kinds, dtype)
    grouped = stage == 'finetune' and dtype == torch.bfloat16 and hasattr(F, 'grouped_mm')
    assert (ops['aten._grouped_mm'] > 0) == grouped
    assert not any(name.startswith('s4d_mm') for name in ops)  # of a CPU


class WaitsInBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * grad.max().item()


@pytest.mark.parametrize(
    'wait',
    [
        lambda x: x * x.detach().max().item(),
        lambda x: x if x.detach().sum() > 0 else -x,
        lambda x: x[x.detach()[..., 0].nonzero().shape[0] :],
        lambda x: x + torch.tensor([1.0], device=x.device),
        WaitsInBackward.apply,
    ],
)
def test_one_wait_in_a_model_is_found(wait, gpu):
    gpu((8, 0))
    model = MODELS.build(config('finetune'))
    model.backbone.blocks[1].mlp.register_forward_hook(lambda module, args, out: wait(out))
    with pytest.raises((DataDependentOutputException, DynamicOutputShapeException, HostWaits)):
        train_step(model, ['video'])


@pytest.mark.parametrize(
    'name, call, waits',
    [
        ('item', lambda x: x[0, 0].item(), True),
        ('tolist', lambda x: x.tolist(), True),
        ('bool', lambda x: bool(x.any()), True),
        ('unique', lambda x: x.unique(), True),
        ('mask', lambda x: x[x > 0], True),
        ('list', lambda x: x[[0, 1]], True),
        ('index of the host', lambda x: x[torch.arange(2)], True),
        ('values by a mask', lambda x: x.index_put_((x > 0,), x[0]), True),
        ('one value by a mask', lambda x: x.index_put_((x > 0,), x[0, 0]), False),
        ('index of the GPU', lambda x: x[torch.arange(2, device='cuda')], False),
        ('to the host', lambda x: x.cpu(), True),
        ('to the GPU', lambda x: torch.ones(3).to('cuda'), True),
        ('over the GPU', lambda x: x.copy_(torch.ones(4, 3)), True),
        ('over, at once', lambda x: x.copy_(torch.ones(4, 3), True), False),
        ('at once', lambda x: torch.ones(3).to('cuda', non_blocking=True), False),
        ('number', lambda x: x * torch.tensor(2.0) + 1, False),
        ('slice', lambda x: x[1:3].masked_fill(x[1:3] > 0, 0.0), False),
    ],
)
def test_what_waits(name, call, waits):
    with FakeTensorMode(), Watch():
        x = torch.zeros(4, 3, device='cuda')
        if not waits:
            call(x)
            return
        with pytest.raises((DataDependentOutputException, DynamicOutputShapeException, HostWaits)):
            call(x)
