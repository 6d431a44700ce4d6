# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""S2D: what is trained, images and clips, and emotion anchors against plain loops."""

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from mmaction.structures import ActionDataSample
from mmengine.logging import MessageHub
from runs import run_ranks
from small_models import S2D, build

from s4d_mm.files.errors import WeightsError
from s4d_mm.models.s2d import LEAST_WEIGHT, EmotionAnchors

FRAMES, DIMS = S2D['num_frames'], S2D['arch']['embed_dims']
CLIPS, IMAGES = (2, 3, FRAMES, 32, 32), (2, 3, 32, 32)
FROZEN = ('patch_embed.', 'cls_token', 'pos_embed', 'layers.', 'landmark.')
PROMPTS = ('landmark_embed.', 'prompt_norms.', '.prompter.', '.temporal.norm.')
CLASSES, FEATURES = 3, 5


def backbone(scope='mmaction', **options):
    model = build({**S2D, **options}, scope)
    model.landmark.load_state_dict(model.landmark.state_dict())  # counts as trained
    return model


@pytest.mark.parametrize('scope', ['mmaction', 'mmpretrain'])
def test_shapes_in_both_scopes(scope):
    clips, model = torch.randn(CLIPS), backbone(scope).eval()
    assert model(clips).shape == (2, DIMS, FRAMES, 1, 1)
    assert backbone(scope, out_type='raw').eval()(clips).shape == (2, FRAMES * 17, DIMS)


def test_an_image_is_a_clip_of_one_frame_without_temporal_modules():
    model, images = backbone().eval(), torch.randn(IMAGES)
    with torch.no_grad():
        out = model(images)
        assert torch.equal(out, model(images[:, :, None]))
        for block in model.prompt_blocks:
            block.temporal.s_adapter.up.bias.add_(1)
        model.temporal_embedding.add_(1)
        assert torch.equal(out, model(images))
        # the frames of a clip are related
        clips = torch.randn(CLIPS)
        before = model(clips)
        clips[:, :, -1] = 0
        assert not torch.allclose(before[:, :, 0], model(clips)[:, :, 0])


@pytest.mark.parametrize('freeze_prompts', [False, True])
@pytest.mark.parametrize('shape', [CLIPS, IMAGES])
def test_what_is_trained(shape, freeze_prompts):
    model = backbone(freeze_prompts=freeze_prompts).train()
    names = {name for name, _ in model.named_parameters() if not name.startswith(FROZEN)}
    if freeze_prompts:
        names = {name for name in names if not any(part in name for part in PROMPTS)}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(torch.randn(shape)).square().sum().backward()
    # of images too, so that distributed training finds a gradient for each
    assert {name for name, p in model.named_parameters() if p.grad is not None} == names
    optimizer.step()
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed <= names and {'temporal_embedding', 'ln1.weight'} <= changed
    # frozen parts stay in evaluation
    for part in (model.patch_embed, model.layers, model.landmark):
        assert not any(module.training for module in part.modules())
    assert model.training and model.prompt_blocks[0].training


def test_landmark_weights_are_never_random():
    """They come with a checkpoint of the whole model; some of them are not enough."""
    model, other, clips = backbone().eval(), build(S2D, seed=1).eval(), torch.randn(CLIPS)
    weights = model.state_dict()
    partly = {k: v for k, v in weights.items() if not k.startswith('landmark.conv_4.')}
    other.load_state_dict(partly, strict=False)
    with pytest.raises(WeightsError, match='no trained weights.*mobilefacenet_model_best'):
        other(clips)
    other.load_state_dict(weights)
    with torch.no_grad():
        assert torch.equal(model(clips), other(clips))


@pytest.fixture(autouse=True)
def hub():
    hub = MessageHub.get_instance('anchors')
    hub.update_info('epoch', 0)
    return hub


def head(**options):
    cfg = dict(type='EmotionAnchorHead', num_classes=CLASSES, in_channels=FEATURES, topk=(1,))
    return build(dict(cfg, anchors_per_class=4, init_std=0.5, **options)).train()


def batch(size=6, labels=None):
    generator = torch.Generator().manual_seed(0)
    feats = torch.randn(size, FEATURES, 2, 1, 1, generator=generator)
    labels = torch.randint(CLASSES, (size,), generator=generator) if labels is None else labels
    return feats, [ActionDataSample().set_gt_label(label) for label in labels]


@pytest.mark.parametrize('clip', [True, False])
def test_soft_targets(clip):
    torch.manual_seed(0)
    anchors = EmotionAnchors(CLASSES, FEATURES, 4, 2, clip)
    anchors.features.normal_()  # with negative cosines
    x, targets = torch.randn(7, FEATURES), []
    for row in x:
        total, weights = torch.zeros(CLASSES), 0.0
        for bank, table in zip(anchors.features, anchors.probs):
            cosine = torch.stack([F.cosine_similarity(row, anchor, dim=0) for anchor in bank])
            for j in cosine.argsort(descending=True)[:2]:
                weight = max(cosine[j].item(), LEAST_WEIGHT) if clip else cosine[j].item()
                total, weights = total + weight * table[j], weights + weight
        targets.append(total / weights)
    torch.testing.assert_close(anchors.soft_targets(x), torch.stack(targets), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize('size', [3, 6, 20])
def test_first_in_first_out(size):
    """Sample by sample; more samples of a class than it has anchors, too."""
    torch.manual_seed(0)
    anchors = EmotionAnchors(CLASSES, FEATURES, 4, 2, True)
    features, probs = list(anchors.features.clone()), list(anchors.probs.clone())
    x, p = torch.randn(size, FEATURES), torch.rand(size, CLASSES)
    labels = torch.randint(-1, CLASSES, (size,))
    for i, label in enumerate(labels.tolist()):
        if label >= 0:
            features[label] = torch.cat((features[label][1:], x[i : i + 1]))
            probs[label] = torch.cat((probs[label][1:], p[i : i + 1]))
    anchors.update(x, p, labels)
    assert torch.equal(anchors.features, torch.stack(features))
    assert torch.equal(anchors.probs, torch.stack(probs))


def test_the_schedule(hub):
    module = head(loss_weights=((2, 0.1), (4, 1.0)), start_epoch=1, update_interval=2)
    feats, samples = batch()
    changes, weights = [], []
    for epoch in range(6):
        hub.update_info('epoch', epoch)
        before = module.anchors.features.clone()
        targets = module.anchors.soft_targets(feats.mean(dim=(2, 3, 4)))
        torch.manual_seed(epoch)
        losses = module.loss(feats, samples)
        changes.append(not torch.equal(before, module.anchors.features))
        torch.manual_seed(epoch)
        scores = module(feats)
        plain = F.binary_cross_entropy_with_logits(scores, targets).item()
        weights.append(losses['loss_anchors'].item() / plain if 'loss_anchors' in losses else 0)
        assert torch.isclose(losses['loss_cls'], module.loss_by_feat(scores, samples)['loss_cls'])
    assert changes == [False, False, True, False, True, False]
    assert weights == pytest.approx([0, 0, 0.1, 0.1, 1, 1])
    # the authors'
    found = [head().weight_of(epoch) for epoch in (0, 29, 30, 49, 50, 59, 60, 79, 80, 99)]
    assert found == [0, 0, 0.01, 0.01, 0.1, 0.1, 0.5, 0.5, 1, 1]


@pytest.mark.parametrize('after', [True, False])
def test_dropout(after, hub):
    hub.update_info('epoch', 21)
    module = head(after_dropout=after, dropout_ratio=0.5)
    feats, samples = batch(3, labels=torch.tensor([0, 1, 2]))
    module.loss(feats, samples)
    stored = module.anchors.features[:, -1]
    assert torch.equal(stored, feats.mean(dim=(2, 3, 4))) != after
    assert bool((stored == 0).any()) == after


def test_testing_and_blended_samples_store_nothing(hub):
    hub.update_info('epoch', 50)
    soft = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    module = head(dropout_ratio=0)
    feats, samples = batch(3, labels=soft)
    before = module.anchors.features.clone()
    assert torch.isfinite(module.loss(feats, samples)['loss_anchors'])
    new = [not torch.equal(a, b) for a, b in zip(before, module.anchors.features)]
    assert new == [False, True, True]
    stored = module.anchors.features.clone()
    module.eval().loss(feats, samples)
    assert torch.equal(stored, module.anchors.features)
    assert {'anchors.features', 'anchors.probs'} <= set(module.state_dict())


def test_processes_store_the_samples_of_all(tmp_path, hub):
    hub.update_info('epoch', 21)
    feats, samples = batch(8)

    def store(sync, own=slice(None)):
        torch.manual_seed(5)
        module = head(sync=sync, dropout_ratio=0)
        module.loss(feats[own], samples[own])
        return module.anchors.features.tolist(), module.anchors.probs.tolist()

    def in_processes():
        rank = dist.get_rank()
        return [store(sync, slice(rank, None, 2)) for sync in (True, False)]

    (both0, own0), (both1, own1) = run_ranks(in_processes, tmp_path)
    assert both0 == both1 and own0 != own1
    for found, expected in zip(both0, store(True)):
        torch.testing.assert_close(torch.tensor(found), torch.tensor(expected))


def test_each_part_of_the_landmark_network_has_its_width():
    sizes = dict(channels=(2, 4, 8), widths=(6, 10, 12, 14), depths=(1, 1))
    weights = build(dict(type='LandmarkMobileFaceNet', **sizes)).state_dict()
    parts = ('conv_23', 'conv_3.model.0', 'conv_34', 'conv_4.model.0')
    assert tuple(len(weights[f'{part}.conv.conv.weight']) for part in parts) == sizes['widths']
