# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""S2D's numbers are the authors' numbers: tensors that their code computed, compared with ours.

``S2D_REFERENCE_DIR`` names a folder with other ``s2d_*.pt`` files to check.
"""

import glob
import os
import os.path as osp

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS, init_default_scope
from s2d_made_up import made_up_reference

from s4d_mm.converters.landmarks import cut_tail, landmark_settings
from s4d_mm.converters.s2d import from_s2d_authors
from s4d_mm.models.layers.emotion_anchors import EmotionAnchors

FOLDER = os.environ.get('S2D_REFERENCE_DIR', osp.join(osp.dirname(__file__), 'data'))
FILES = sorted(glob.glob(osp.join(FOLDER, 's2d_*.pt'))) or [osp.join(FOLDER, 's2d_*.pt')]


@pytest.fixture(params=FILES, ids=osp.basename)
def ref(request):
    return torch.load(request.param, map_location='cpu', weights_only=True)


def assert_same(name, ours, theirs):
    assert ours.shape == theirs.shape, name
    error = (ours - theirs).abs().max().item()
    # float32 has 7 digits, and the tokens of deep layers are above 1
    scale = max(1.0, theirs.abs().max().item())
    assert error <= 1e-5 * scale, f'{name} differs by {error:.2e}, its largest value is {scale:.3g}'


def compare_network(ref):
    arch = ref['arch']
    grid = arch['img_size'] // arch['patch_size']
    landmark = cut_tail(ref['landmark_state_dict'], 'the reference file')
    weights, unplaced = from_s2d_authors(ref['vit_state_dict'])
    last = f'prompt_norms.{arch["depth"] - 1}'
    # the only layer's is used
    unused = [f'{last}.bias', f'{last}.weight'] if arch['depth'] > 1 else []
    assert sorted(unplaced) == unused
    init_default_scope('mmaction')
    model = MODELS.build(
        dict(
            type='S2DViT',
            arch=dict(
                embed_dims=arch['embed_dim'],
                num_layers=arch['depth'],
                num_heads=arch['num_heads'],
                feedforward_channels=int(arch['embed_dim'] * arch['mlp_ratio']),
            ),
            img_size=arch['img_size'],
            patch_size=arch['patch_size'],
            num_frames=arch['num_frames'],
            landmark=dict(
                type='LandmarkMobileFaceNet', input_size=8 * grid, **landmark_settings(landmark)
            ),
            prompt_dims=arch['hidden_dim'],
            adapter_ratio=arch['adapter_scale'],
            adapter_heads=arch['adapter_num_heads'],
            qkv_bias=arch['qkv_bias'],
            norm_eps=arch['norm_eps'],
        )
    ).eval()
    own = {k[9:]: v for k, v in weights.items() if k.startswith('backbone.')}
    own.update({f'landmark.{k}': v for k, v in landmark.items()})
    model.load_state_dict(own, strict=True)

    got = {}

    def keep(name, module, form):
        module.register_forward_hook(lambda m, i, out: got.update({name: form(out)}))

    def as_map(x):
        return x.transpose(1, 2).unflatten(2, (grid, grid))

    for block in model.prompt_blocks:
        block.temporal.norm.eps = arch['tma_norm_eps']
    keep('landmark_feat', model.landmark, lambda x: x)
    keep('landmark_tokens', model.landmark_embed, lambda x: x)
    keep('patch_tokens', model.patch_embed, lambda x: x[0])
    for i, block in enumerate(model.prompt_blocks):
        keep(f'fovea.{i}', block.prompter.fovea, as_map)
        keep(f'mcp.{i}', block.prompter, as_map)
        keep(f'tma.{i}', block.temporal, lambda x: x)
        keep(f'block.{i}', model.layers[i], lambda x: x)
    with torch.no_grad():
        features = model(ref['video'].float())[..., 0, 0].transpose(1, 2)  # B T C
    pooled = features.mean(dim=1)
    logits = F.linear(pooled, weights['cls_head.fc_cls.weight'], weights['cls_head.fc_cls.bias'])
    got.update(frame_feat=features.flatten(0, 1), pooled=pooled, logits=logits)
    for name, ours in got.items():
        if name in ref['stages']:
            assert_same(name, ours, ref['stages'][name])
        else:
            assert_same(name, ours[ref['frames_part']], ref['stages_part'][name])


def test_network(ref):
    compare_network(ref)


OTHER = dict(
    img_size=40,
    patch_size=8,
    embed_dim=48,
    depth=4,
    num_heads=6,
    mlp_ratio=3.0,
    num_frames=5,
    num_classes=11,
    hidden_dim=6,
    adapter_scale=0.25,
    adapter_num_heads=3,
    qkv_bias=False,
    norm_eps=1e-5,
    tma_norm_eps=1e-6,
)


@pytest.mark.parametrize('more', [{}, dict(depth=1, num_frames=3, qkv_bias=True)])
def test_network_of_other_sizes(more, tmp_path):
    """Loading and shapes: a plain S2D, whose landmark network has other sizes and its last layers.

    Its numbers are no proof beside the authors', which the other files hold.
    """
    sizes = dict(channels=(8, 12, 20), widths=(16, 18, 22, 24), depths=(2, 3))
    path = tmp_path / 's2d_other.pt'
    torch.save(made_up_reference({**OTHER, **more}, sizes), path)
    compare_network(torch.load(path, map_location='cpu', weights_only=True))


def samples_of(after, features, labels):
    """In which order the samples of each class were stored, read off the banks of features.

    A reference file does not say in which order it gave its batch.
    """
    order, classes = [], []
    for number, count in enumerate(labels.bincount(minlength=len(after)).tolist()):
        kept = min(count, after.shape[1])
        stored = after[number, after.shape[1] - kept :]
        found = torch.cdist(stored, features).argmin(dim=1).tolist()
        assert len(set(found)) == kept, f'class {number} has a sample twice'
        order += found
        classes += [number] * kept
    return torch.tensor(order), torch.tensor(classes)


def test_anchors(ref):
    sdl = ref['sdl']
    queue, probs = sdl['step0']['queue'], sdl['step0']['probe']
    anchors = EmotionAnchors(len(queue), queue.shape[2], queue.shape[1], sdl['k'], False)
    anchors.load_state_dict(dict(features=queue, probs=probs))
    features, probs = sdl['feat'], sdl['logits'].softmax(dim=1)
    steps = [sdl[f'step{i}'] for i in range(3)]
    later = [*(step['queue'] for step in steps[1:]), sdl['queue_final']]
    for step, after in zip(steps, later):
        assert_same('features', anchors.features, step['queue'])
        assert_same('probabilities', anchors.probs, step['probe'])
        logits = sdl['logits'].clone().requires_grad_()
        targets = anchors.soft_targets(features)
        loss = F.binary_cross_entropy_with_logits(logits, targets)
        loss.backward()
        assert_same('soft targets', targets, step['soft_targets'])
        assert_same('loss', loss.detach(), step['bce'])
        assert_same('gradient', logits.grad, step['grad_logits'])
        order, classes = samples_of(after, features, sdl['label'])
        anchors.update(features[order], probs[order], classes)
    assert_same('features', anchors.features, sdl['queue_final'])
    assert_same('probabilities', anchors.probs, sdl['probe_final'])
