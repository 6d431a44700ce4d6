# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""S2D's backbone: what is trained, what is frozen, images and clips, and wrong input."""

import pytest
import torch
from small_models import build

from s4d_mm.files.errors import WeightsError

LANDMARK = dict(
    type='LandmarkMobileFaceNet',
    input_size=32,
    channels=(8, 8, 16),
    widths=(16, 16, 16, 16),
    depths=(1, 1),
)
FRAMES, DIMS = 3, 32
BACKBONE = dict(
    type='S2DViT',
    arch=dict(embed_dims=DIMS, num_layers=3, num_heads=4, feedforward_channels=64),
    img_size=32,
    patch_size=8,
    num_frames=FRAMES,
    prompt_dims=4,
    landmark=LANDMARK,
)
CLIPS, IMAGES = (2, 3, FRAMES, 32, 32), (2, 3, 32, 32)
FROZEN = ('patch_embed.', 'cls_token', 'pos_embed', 'layers.', 'landmark.')
PROMPTS = ('landmark_embed.', 'prompt_norms.', '.prompter.', '.temporal.norm.')


def backbone(scope='mmaction', **options):
    model = build({**BACKBONE, **options}, scope)
    model.landmark.load_state_dict(model.landmark.state_dict())  # counts as trained
    return model


def trained(model):
    return {name for name, value in model.named_parameters() if value.requires_grad}


@pytest.mark.parametrize('scope', ['mmaction', 'mmpretrain'])
def test_shapes_in_both_scopes(scope):
    model = backbone(scope).eval()
    assert model(torch.randn(CLIPS)).shape == (2, DIMS, FRAMES, 1, 1)
    assert model(torch.randn(IMAGES)).shape == (2, DIMS, 1, 1, 1)
    model = backbone(scope, out_type='raw').eval()
    assert model(torch.randn(CLIPS)).shape == (2, FRAMES * 17, DIMS)
    assert model(torch.randn(IMAGES)).shape == (2, 17, DIMS)


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
    frozen = FROZEN + (PROMPTS if freeze_prompts else ())
    wanted = {
        name
        for name, _ in model.named_parameters()
        if not name.startswith(FROZEN) and not any(part in name for part in frozen[len(FROZEN) :])
    }
    assert trained(model) == wanted
    before = {name: value.clone() for name, value in model.state_dict().items()}
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.1)
    model(torch.randn(shape)).square().sum().backward()
    # of images too, so that distributed training finds a gradient for each
    assert {name for name, p in model.named_parameters() if p.grad is not None} == wanted
    optimizer.step()
    after = model.state_dict()
    for name, value in before.items():
        if name not in wanted:
            assert torch.equal(value, after[name]), name
    moved = {name for name in wanted if not torch.equal(before[name], after[name])}
    assert 'temporal_embedding' in moved and 'ln1.weight' in moved


def test_frozen_parts_stay_in_evaluation():
    model = backbone()
    for mode in (True, False, True):
        model.train(mode)
        for part in (model.patch_embed, model.layers, model.landmark):
            assert not any(module.training for module in part.modules())
        assert model.training == mode == model.prompt_blocks[0].training


def test_frozen_inputs_keep_no_tensors_for_gradients():
    """Neither pixels nor anything of the landmark network's widths."""
    model, saved = backbone().train(), []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: saved.append(tuple(x.shape)) or x, lambda x: x
    ):
        model(torch.randn(CLIPS, requires_grad=True))
    assert saved
    # maps and kernels have 4 dimensions; attention has the number of heads in the second
    heads = {4, BACKBONE['arch']['num_heads'], 8}
    assert not [shape for shape in saved if len(shape) == 4 and shape[1] not in heads]


def test_a_checkpoint_brings_all():
    model = backbone().eval()
    other = build(BACKBONE, seed=1).eval()
    assert not other.landmark.has_weights
    missing, unexpected = other.load_state_dict(model.state_dict())
    assert not missing and not unexpected
    clips = torch.randn(CLIPS)
    with torch.no_grad():
        assert torch.equal(model(clips), other(clips))


def test_bfloat16():
    model, clips = backbone().train(), torch.randn(CLIPS)
    wanted = model(clips)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = model(clips)
    out.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    assert torch.allclose(out.float(), wanted, atol=0.2)
    model.to(torch.bfloat16).eval()
    assert model(clips.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ('shape', 'message'),
    [
        ((2, 3, 2, 32, 32), 'num_frames=3, but got clips of 2 frames'),
        ((2, 3, FRAMES, 32, 40), 'img_size=32, but got frames of 32 x 40'),
    ],
)
def test_wrong_input(shape, message):
    with pytest.raises(ValueError, match=message):
        backbone()(torch.randn(shape))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(patch_size=16), '2 x 2 patches .* Set landmark.input_size=16'),
        (dict(adapter_ratio=0.3), 'adapter_heads=8 divides, but 0.3 of embed_dims=32 gives 9'),
        (dict(adapter_ratio=0), 'adapter_ratio of S2DViT'),
        (dict(num_frames=0), 'num_frames'),
        (dict(prompt_dims=2.5), 'prompt_dims'),
        (dict(landmark=dict(LANDMARK, input_size=30)), 'multiple of 8, but is 30'),
        (dict(landmark=dict(LANDMARK, widths=(8, 8))), 'widths of .* must have 4 numbers'),
        (dict(landmark=dict(LANDMARK, depths=(0, 1))), r'depths\[0\]'),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        build({**BACKBONE, **options})


def test_weights_of_another_width_are_named():
    weights = backbone().state_dict()
    other = build({**BACKBONE, 'prompt_dims': 8})
    with pytest.raises((ValueError, RuntimeError), match='prompt_blocks.0.prompter'):
        other.load_state_dict(weights)


def test_landmark_weights_are_never_random():
    model = build(BACKBONE)
    with pytest.raises(WeightsError, match='no trained weights.*mobilefacenet_model_best'):
        model(torch.randn(CLIPS))
    # some of the weights are not enough
    partly = {k: v for k, v in model.state_dict().items() if not k.startswith('landmark.conv_4.')}
    model.load_state_dict(partly, strict=False)
    with pytest.raises(WeightsError):
        model(torch.randn(CLIPS))
