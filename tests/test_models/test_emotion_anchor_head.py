# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""S2D's emotion anchors, against the definition in plain loops."""

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from mmaction.structures import ActionDataSample
from mmengine.logging import MessageHub
from processes import run_ranks
from small_models import build

from s4d_mm.models.heads.emotion_anchor_head import hard_labels
from s4d_mm.models.layers.emotion_anchors import LEAST_WEIGHT, EmotionAnchors

CLASSES, DIMS = 3, 5


@pytest.fixture(autouse=True)
def hub():
    hub = MessageHub.get_instance('anchors')
    hub.update_info('epoch', 0)
    return hub


def head(**options):
    cfg = dict(type='EmotionAnchorHead', num_classes=CLASSES, in_channels=DIMS, topk=(1,))
    cfg.update(dict(anchors_per_class=4, init_std=0.5), **options)
    built = build(cfg)
    built.init_weights()
    return built.train()


def batch(size=6, seed=0, labels=None):
    generator = torch.Generator().manual_seed(seed)
    feats = torch.randn(size, DIMS, 2, 1, 1, generator=generator)
    labels = torch.randint(CLASSES, (size,), generator=generator) if labels is None else labels
    samples = []
    for label in labels:
        sample = ActionDataSample()
        sample.set_gt_label(label)
        samples.append(sample)
    return feats, samples, labels


def plain_targets(x, features, probs, top_k, clip):
    targets = []
    for row in x:
        total, weights = torch.zeros(CLASSES), 0.0
        for bank, table in zip(features, probs):
            cosine = torch.stack([F.cosine_similarity(row, anchor, dim=0) for anchor in bank])
            for j in cosine.argsort(descending=True)[:top_k]:
                weight = max(cosine[j].item(), LEAST_WEIGHT) if clip else cosine[j].item()
                total, weights = total + weight * table[j], weights + weight
        targets.append(total / weights)
    return torch.stack(targets)


@pytest.mark.parametrize('clip', [True, False])
def test_soft_targets(clip):
    torch.manual_seed(0)
    anchors = EmotionAnchors(CLASSES, DIMS, 4, 2, clip)
    anchors.features.normal_()  # with negative cosines
    x = torch.randn(7, DIMS)
    plain = plain_targets(x, anchors.features, anchors.probs, 2, clip)
    torch.testing.assert_close(anchors.soft_targets(x), plain, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize('size', [3, 6, 20])
def test_first_in_first_out(size):
    """Sample by sample; more samples of a class than it has anchors, too."""
    torch.manual_seed(0)
    anchors = EmotionAnchors(CLASSES, DIMS, 4, 2, True)
    features, probs = list(anchors.features.clone()), list(anchors.probs.clone())
    x, p = torch.randn(size, DIMS), torch.rand(size, CLASSES)
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
    feats, samples, _ = batch()
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


def test_the_default_schedule_is_the_authors():
    module = head()
    found = [module.weight_of(epoch) for epoch in (0, 29, 30, 49, 50, 59, 60, 79, 80, 99)]
    assert found == [0, 0, 0.01, 0.01, 0.1, 0.1, 0.5, 0.5, 1, 1]


@pytest.mark.parametrize('after', [True, False])
def test_dropout(after, hub):
    hub.update_info('epoch', 21)
    module = head(after_dropout=after, dropout_ratio=0.5)
    feats, samples, labels = batch(3, labels=torch.tensor([0, 1, 2]))
    module.loss(feats, samples)
    stored = module.anchors.features[:, -1]
    whole = torch.equal(stored, feats.mean(dim=(2, 3, 4)))
    assert whole != after
    assert bool((stored == 0).any()) == after


def test_testing_and_blended_samples_store_nothing(hub):
    hub.update_info('epoch', 50)
    assert hard_labels(torch.tensor([[2], [0]])).tolist() == [2, 0]
    soft = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    assert hard_labels(soft).tolist() == [1, -1, 2]
    module = head(dropout_ratio=0)
    feats, samples, _ = batch(3, labels=soft)
    before = module.anchors.features.clone()
    assert torch.isfinite(module.loss(feats, samples)['loss_anchors'])
    new = [not torch.equal(a, b) for a, b in zip(before, module.anchors.features)]
    assert new == [False, True, True]
    stored = module.anchors.features.clone()
    module.eval().loss(feats, samples)
    assert torch.equal(stored, module.anchors.features)


def test_processes_store_the_samples_of_all(tmp_path, hub):
    hub.update_info('epoch', 21)
    feats, samples, labels = batch(8)

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


def test_a_checkpoint_keeps_the_banks(hub):
    hub.update_info('epoch', 21)
    module = head()
    module.loss(*batch()[:2])
    state = module.state_dict()
    other = head()
    assert not torch.equal(other.anchors.features, module.anchors.features)
    other.load_state_dict(state)
    assert torch.equal(other.anchors.features, module.anchors.features)
    assert torch.equal(other.anchors.probs, module.anchors.probs)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(top_k=5), 'top_k=5 .* anchors_per_class=4'),
        (dict(update_interval=0), 'update_interval'),
        (dict(loss_weights=((5, 0.1), (2, 1.0))), 'loss_weights'),
        (dict(loss_weights=((5, -1.0),)), 'loss_weights'),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        head(**options)
