# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The fine-tuning model and its head."""

import pytest
import torch
import torch.nn.functional as F
from mmaction.structures import ActionDataSample
from small_models import FINETUNE, VIDEOS, build, inputs, run, samples


class TestRecognizer:
    def test_aux_loss_in_training_only(self):
        model = build(FINETUNE)
        out = run(model.train(), VIDEOS)
        # two blocks, each at least 1 (even load) and at most 4 (4 experts)
        assert 2e-3 <= out['loss_balance'].item() <= 8e-3
        tokens = model.backbone(inputs(VIDEOS))
        assert model.neck.eval()(tokens)[1] == {}

    def test_prediction_is_deterministic_and_independent(self):
        model = build(FINETUNE).eval()
        x = inputs((4, 2, *VIDEOS[1:]))  # two views
        with torch.no_grad():
            four = model(x, samples('video', [0] * 4), mode='predict')
            one = model(x[1:2], samples('video', [0]), mode='predict')[0]
        torch.testing.assert_close(four[1].pred_score, one.pred_score)
        assert one.pred_score.shape == (7,)
        assert one.pred_score.sum().item() == pytest.approx(1)
        views = [
            model(x[1:2, v : v + 1], samples('video', [0]), mode='predict')[0].pred_score
            for v in range(2)
        ]
        torch.testing.assert_close(one.pred_score, sum(views) / 2)

    def test_soft_and_hard_labels(self):
        head = build(FINETUNE).cls_head
        x = inputs((2, 4, 32))
        hard = head.loss(x, samples('image', [3, 0]))
        soft = [F.one_hot(torch.tensor(y), 8).float() for y in (3, 0)]
        assert torch.equal(head.loss(x, samples('image', soft))['loss_cls'], hard['loss_cls'])
        expected = F.cross_entropy(head(x, 'image'), torch.tensor([3, 0]), label_smoothing=0.1)
        torch.testing.assert_close(hard['loss_cls'], expected)

    def test_each_view_is_a_sample_of_the_loss(self):
        head = build(FINETUNE).cls_head
        x = inputs((4, 4, 32))  # two views of two samples
        loss = head.loss(x, samples('video', [1, 2]))['loss_cls']
        expected = F.cross_entropy(
            head(x, 'video'), torch.tensor([1, 1, 2, 2]), label_smoothing=0.1
        )
        torch.testing.assert_close(loss, expected)

    def test_samples_with_other_numbers_of_views(self):
        head = build(FINETUNE).cls_head.eval()
        x = inputs((4, 4, 32))
        packed = samples('video', [0, 1])
        for sample, views in zip(packed, (1, 3)):
            sample.set_metainfo(dict(num_views=views))
        head.predict(x, packed)
        probabilities = head(x, 'video').softmax(-1)
        torch.testing.assert_close(packed[0].pred_score, probabilities[0])
        torch.testing.assert_close(packed[1].pred_score, probabilities[1:].mean(0))

    def test_errors(self):
        head = build(FINETUNE).cls_head
        x = inputs((1, 4, 32))
        with pytest.raises(ValueError, match='needs `input_type`'):
            head.loss(x, [ActionDataSample().set_gt_label(1)])
        with pytest.raises(ValueError, match="modality 'audio'"):
            head.loss(x, samples('audio', [1]))
        with pytest.raises(ValueError, match=r"modalities \['image', 'video'\]"):
            head.loss(inputs((2, 4, 32)), samples('image', [1]) + samples('video', [1]))
        with pytest.raises(ValueError, match='have 9 classes'):
            head.loss(x, samples('image', [torch.full((9,), 1 / 9)]))
        with pytest.raises(ValueError, match='in_channels=32'):
            head.loss(inputs((1, 4, 16)), samples('image', [1]))
        with pytest.raises(ValueError, match='num_classes of DualModalHead'):
            build(dict(type='DualModalHead', in_channels=8, num_classes=7))
        with pytest.raises(ValueError, match='embed_dims=32, but the'):
            build(FINETUNE).neck(inputs((1, 4, 16)), [])
