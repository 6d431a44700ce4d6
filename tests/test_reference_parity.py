# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""S4D's and S2D's numbers are the authors': tensors that their code computed, compared with ours.

``S4D_REFERENCE_DIR`` names a folder with other ``pretrain_*.pt``, ``finetune_*.pt`` and
``s2d_*.pt`` files to check.
"""

import glob
import os
import os.path as osp
import re

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS, init_default_scope

from s4d_mm.models.landmark_net import cut_tail
from s4d_mm.models.s2d import EmotionAnchors
from s4d_mm.weights.s2d import from_s2d_authors
from s4d_mm.weights.s4d import from_authors

FOLDER = os.environ.get('S4D_REFERENCE_DIR', osp.join(osp.dirname(__file__), 'data'))


def files(stage):
    """Parameters of a test: a path that does not exist where there is no file of this stage."""
    pattern = osp.join(FOLDER, f'{stage}_*.pt')
    paths = sorted(glob.glob(pattern)) or [pattern]
    return pytest.mark.parametrize('path', paths, ids=osp.basename)


def load(path):
    assert osp.isfile(path), f'no reference file {path}'
    return torch.load(path, map_location='cpu', weights_only=True)


def build(cfg, state_dict):
    init_default_scope('mmaction')
    model = MODELS.build(cfg)
    model.load_state_dict(state_dict, strict=True)
    return model.eval()


def assert_same(name, ours, theirs):
    assert ours.shape == theirs.shape, name
    error = (ours - theirs).abs().max().item()
    # float32 has 7 digits, and the tokens of S2D's deep layers are above 1
    scale = max(1.0, theirs.abs().max().item())
    print(f'{name}: max abs difference {error:.2e}')
    assert error <= 1e-5 * scale, f'{name} differs by {error:.2e}, its largest value is {scale:.3g}'


def encoder_arch(arch):
    return dict(embed_dims=arch['dim'], num_layers=arch['depth'], num_heads=arch['heads'])


@files('pretrain')
def test_pretrain(path):
    ref = load(path)
    arch, img = ref['arch'], ref['arch']['img']
    state_dict, unplaced = from_authors(ref['state_dict'], 'pretrain')
    assert unplaced == []
    model = build(
        dict(
            type='mmpretrain.MAE',
            data_preprocessor=dict(type='mmpretrain.SelfSupDataPreprocessor'),
            backbone=dict(type='S4DMAEViT', arch=encoder_arch(arch), img_size=img),
            neck=dict(
                type='S4DMAEDecoder',
                in_channels=arch['dim'],
                img_size=img,
                arch=dict(
                    embed_dims=arch['ddim'], num_layers=arch['ddepth'], num_heads=arch['dheads']
                ),
            ),
            head=dict(type='S4DMAEHead'),
        ),
        state_dict,
    )
    for kind in ('video', 'image'):
        mask = ref[f'{kind}_mask']
        with torch.no_grad():
            latent, out_mask, ids = model.backbone(ref[kind], mask)
            pred = model.neck(latent, ids)
            loss = model.head.loss(pred, ref[kind], out_mask)
        assert torch.equal(out_mask.bool(), mask.bool())
        assert_same(f'{kind}_encoded', latent, ref[f'{kind}_encoded'])
        assert_same(f'{kind}_pred', pred, ref[f'{kind}_pred'])
        assert_same(f'{kind}_loss', loss, ref[f'{kind}_loss'])


@files('finetune')
def test_finetune(path):
    ref = load(path)
    arch, img = ref['arch'], ref['arch']['img']
    layers = len(arch['layers'])
    state_dict, unplaced = from_authors(ref['state_dict'], 'finetune')
    assert unplaced == []
    model = build(
        dict(
            type='Recognizer3D',
            backbone=dict(
                type='S4DViT', arch=encoder_arch(arch), img_size=img, depth=arch['depth'] - layers
            ),
            neck=dict(
                type='MoAENeck',
                arch=encoder_arch(arch),
                num_layers=layers,
                num_experts=arch['E'],
                top_k=arch['k'],
            ),
            cls_head=dict(
                type='DualModalHead',
                in_channels=arch['dim'],
                num_classes=dict(video=arch['nvid'], image=arch['nimg']),
            ),
        ),
        state_dict,
    )
    for kind in ('video', 'image'):
        with torch.no_grad():
            tokens, _ = model.extract_feat(ref[kind][:, None], test_mode=True)
            feature = model.cls_head.features(tokens)
            logits = model.cls_head(tokens, input_types=kind)
        assert_same(f'{kind}_feature', feature, ref[f'{kind}_feature'])
        assert_same(f'{kind}_logits', logits, ref[f'{kind}_logits'])


def landmark_settings(state_dict: dict) -> dict:
    """``channels``, ``widths`` and ``depths`` of ``LandmarkMobileFaceNet`` for these weights."""

    def rows(*keys: str) -> tuple[int, ...]:
        return tuple(len(state_dict[f'{key}.conv.weight']) for key in keys)

    def depth(stage: str) -> int:
        pattern = re.compile(rf'{stage}\.model\.(\d+)\.')
        return 1 + max(int(m[1]) for m in map(pattern.match, state_dict) if m)

    return dict(
        channels=rows('conv1', 'conv_23.project', 'conv_34.project'),
        widths=rows('conv_23.conv', 'conv_3.model.0.conv', 'conv_34.conv', 'conv_4.model.0.conv'),
        depths=(depth('conv_3'), depth('conv_4')),
    )


@files('s2d')
def test_s2d(path):
    ref = load(path)
    arch = ref['arch']
    grid = arch['img_size'] // arch['patch_size']
    landmark = cut_tail(ref['landmark_state_dict'], 'the reference file')
    weights, unplaced = from_s2d_authors(ref['vit_state_dict'])
    last = f'prompt_norms.{arch["depth"] - 1}'
    # the only layer's is used
    unused = [f'{last}.bias', f'{last}.weight'] if arch['depth'] > 1 else []
    assert sorted(unplaced) == unused
    own = {k[9:]: v for k, v in weights.items() if k.startswith('backbone.')}
    own.update({f'landmark.{k}': v for k, v in landmark.items()})
    model = build(
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
        ),
        own,
    )

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


@files('s2d')
def test_anchors_of_s2d(path):
    ref = load(path)
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
