# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Prediction without files: the steps of a test pipeline that change decoded frames."""

from collections.abc import Sequence

import numpy as np
from mmaction.registry import TRANSFORMS

from .pipelines import step_name
from .scorer import Window

# Steps that give the same frames each time and need nothing but frames. The list is closed, since
# the steps may come from the file of a stranger.
FRAME_STEPS = ('CenterCrop', 'ClipResize', 'FixedCrop', 'Resize')
LAST_STEPS = ('FormatShape', 'PackActionInputs')
TRIAL_SIZES = ((224, 224), (190, 334))  # height, width


def frame_steps(pipeline: Sequence[dict]) -> list[dict]:
    """The steps of a test pipeline between decoding and packing.

    Args:
        pipeline (Sequence[dict]): Configs of its steps.

    Returns:
        list[dict]: Those of ``FRAME_STEPS``, as plain types.

    Raises:
        ValueError: If nothing decodes, or a step changes frames in another way.
    """
    names = [step_name(step) for step in pipeline]
    decoders = [i for i, name in enumerate(names) if name.endswith('Decode') or name == 'ImageLoad']
    if not decoders:
        raise ValueError(
            'The test pipeline has no step that decodes (ClipDecode, ImageLoad), but the steps '
            f'{names}.'
        )
    steps = []
    for name, step in zip(names[decoders[-1] + 1 :], pipeline[decoders[-1] + 1 :]):
        if name in LAST_STEPS:
            continue
        if name not in FRAME_STEPS:
            raise ValueError(
                f'The test pipeline has the step {name}, which cannot be done outside of it. '
                f'Between decoding and FormatShape it may have {", ".join(FRAME_STEPS)}.'
            )
        steps.append({**step, 'type': name})
    return steps


def sampled_window(pipeline: Sequence[dict]) -> Window:
    """How a test pipeline samples a clip.

    Args:
        pipeline (Sequence[dict]): Configs of its steps.

    Returns:
        Window: Of its first sampling step.

    Raises:
        ValueError: If there is none with a distance of frames.
    """
    for step in pipeline:
        if 'Sample' in step_name(step):
            sampler = build_step(step)
            if hasattr(sampler, 'frame_interval'):
                return Window.of_sampler(sampler)
    raise ValueError(
        'The test pipeline has no step that samples every n-th frame (SampleClipViews, '
        f'SampleFrames), but the steps {[step_name(step) for step in pipeline]}.'
    )


def build_step(step: dict):
    """Build a step of mmaction2 or of this package, whatever the default scope is."""
    arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in step.items()}
    return TRANSFORMS.build(dict(arguments, type=step_name(step), _scope_='mmaction'))


class FrameSteps:
    """Do the steps of :func:`frame_steps` to frames.

    Args:
        steps (Sequence[dict]): Their configs; lists stand for tuples, as after JSON.

    Raises:
        ValueError: If one is not in ``FRAME_STEPS``.
    """

    def __init__(self, steps: Sequence[dict]) -> None:
        unknown = [step_name(step) for step in steps if step_name(step) not in FRAME_STEPS]
        if unknown:
            raise ValueError(f'The steps {unknown} are not among {FRAME_STEPS}.')
        self.steps = [build_step(step) for step in steps]

    def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Resize and cut frames.

        Args:
            images (Sequence[np.ndarray]): RGB, uint8, (height, width, 3), all of one size.

        Returns:
            np.ndarray: (T, H, W, 3), uint8.
        """
        shape = images[0].shape[:2]
        results = dict(
            imgs=list(images),
            original_shape=shape,
            img_shape=shape,
            modality='RGB',
            filename='the input',
        )
        for step in self.steps:
            results = step(results)
        return np.stack(results['imgs'])

    def size(self) -> tuple[int, int]:
        """Height and width of the frames that come out.

        Raises:
            ValueError: If they depend on the frames that go in.
        """
        sizes = [self([np.zeros((*size, 3), np.uint8)]).shape[1:3] for size in TRIAL_SIZES]
        if sizes[0] != sizes[1]:
            raise ValueError(
                f'The steps {self.steps} of the test pipeline make frames of '
                f'{" and ".join(map(str, sizes))} pixels (height, width) out of '
                f'{" and ".join(map(str, TRIAL_SIZES))}, but the exported model takes one size. '
                'Resize with keep_ratio=False, or add CenterCrop.'
            )
        return tuple(sizes[0])
