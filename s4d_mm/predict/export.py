# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""From a fine-tuned model to an ONNX file, which runs without this package.

The graph takes pixels (B, 3, [T, ]H, W), uint8, RGB, as the steps of the test pipeline leave
them, and normalises them itself. Only B is free. It gives ``probabilities`` and ``logits``
(B, classes), and of a :class:`~s4d_mm.models.DualModalHead` also ``features`` (B, C), the
input of the classifier.
"""

import json
import os
import os.path as osp
import tempfile
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from mmaction.models.recognizers import Recognizer3D
from mmaction.structures import ActionDataSample
from torch import Tensor, nn

from ..models import DualModalHead
from ..version import __version__
from .scorers import TorchScorer, build_frame_steps, open_session, run_frame_steps, step_name
from .windows import Window

TOLERANCE = 1e-4  # largest difference of an output from PyTorch's
RESIZED_BY = dict(ClipResize='Pillow, bilinear, antialiased', Resize='OpenCV, {}')


class PixelsToScores(nn.Module):
    """The graph that is exported: normalisation, backbone, neck, head, softmax.

    Args:
        model (Recognizer3D): In evaluation mode.
        input_type (str): 'video' or 'image'.
    """

    def __init__(self, model: Recognizer3D, input_type: str) -> None:
        super().__init__()
        self.model, self.input_type = model, input_type
        self.image_frames = getattr(model.data_preprocessor, 'image_frames', None)
        has_features = isinstance(model.cls_head, DualModalHead)
        self.output_names = ['probabilities', 'logits', *(['features'] if has_features else [])]
        per_channel = (-1,) + (1,) * (3 if input_type == 'video' else 2)
        for name, default in (('mean', torch.zeros(3)), ('std', torch.ones(3))):
            value = getattr(model.data_preprocessor, name, default)
            self.register_buffer(name, value.detach().view(per_channel))

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Classify pixels (B, 3, [T, ]H, W), 0..255."""
        x = (pixels.float() - self.mean) / self.std
        if self.input_type == 'image' and self.image_frames is not None:
            x = x[:, :, None].expand(-1, -1, self.image_frames, -1, -1)
        x = self.model.backbone(x)
        if self.model.with_neck:
            x, _ = self.model.neck(x)
        return self.classify(x)

    def classify(self, x: Tensor) -> tuple[Tensor, ...]:
        """The outputs, of what comes out of backbone and neck."""
        head = self.model.cls_head
        if not isinstance(head, DualModalHead):
            logits = head(x)
            return logits.softmax(dim=-1), logits
        features = head.features(x)
        logits = head.classifiers[self.input_type](features)
        return logits.softmax(dim=-1), logits, features


def describe_model(scorer: TorchScorer, graph: PixelsToScores) -> dict[str, Any]:
    """The metadata of a model's file, see docs/export.md."""
    kind = graph.input_type
    window = scorer.window if kind == 'video' else Window(None, None)
    steps = [dict(step, type=step_name(step)) for step in scorer.pipelines[kind].steps]
    steps = [step for step in steps if step['type'] not in ('FormatShape', 'PackActionInputs')]
    square = np.zeros((224, 224, 3), np.uint8)  # as a face crop
    words = [
        RESIZED_BY.get(s['type'], '').format(s.get('interpolation', 'bilinear')) for s in steps
    ]
    return dict(
        s4d_mm_version=__version__,
        config=osp.basename(scorer.name),
        input_type=kind,
        classes=scorer.classes[kind],
        **window._asdict(),
        size=list(run_frame_steps(build_frame_steps(steps), [square])[0].shape[:2]),
        channel_order='RGB',
        mean=graph.mean.flatten().tolist(),
        std=graph.std.flatten().tolist(),
        steps=steps,
        interpolation=[text for text in words if text],
        trained_on=scorer.trained_on,
    )


def export_model(
    config: str, checkpoint: str, out: str, input_type: str, opset: int | None = None
) -> tuple[dict[str, Any], dict[str, float]]:
    """Write a model to a file and compare what the file computes with PyTorch.

    Args:
        config (str): Config of fine-tuning.
        checkpoint (str): Its checkpoint.
        out (str): File to write, ``.onnx``. It appears when it is whole and has been compared.
        input_type (str): 'video' or 'image'.
        opset (int, optional): ONNX operator set. Defaults to None, torch's choice.

    Returns:
        tuple: The metadata of the file, and of each output the largest difference from PyTorch.

    Raises:
        RuntimeError: If the file computes something else than PyTorch.
    """
    if not out.lower().endswith('.onnx'):
        raise ValueError(f'{out} must end with .onnx.')
    if not all(map(find_spec, ('onnx', 'onnxruntime', 'onnxscript'))):
        raise ImportError(f'To write {out}: pip install onnx onnxruntime onnxscript.')
    scorer = TorchScorer(config, checkpoint, 'cpu')
    model = scorer.model
    if not isinstance(model, Recognizer3D):
        raise ValueError(f'{config} builds a {type(model).__name__}, not a Recognizer3D.')
    if input_type not in scorer.classes:
        known = ', '.join(map(repr, scorer.classes))
        raise ValueError(f'{config} is not for the input type {input_type!r}, but for {known}.')
    graph = PixelsToScores(model, input_type).eval().requires_grad_(False)
    info = describe_model(scorer, graph)
    folder = osp.dirname(osp.abspath(out))
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix='.export_', dir=folder) as temporary:
        path = osp.join(temporary, osp.basename(out))
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of torch to itself
            differences = compare(graph, info, write_onnx(graph, info, path, opset))
        if not max(differences.values()) <= TOLERANCE:
            preprocessor = type(model.data_preprocessor).__name__
            raise RuntimeError(
                f'The exported model gives other numbers than PyTorch: {differences}. It was not '
                f'written. Does {preprocessor} do more than normalise?'
            )
        os.replace(path, out)
    return info, differences


def sample_pixels(info: dict, count: int) -> Tensor:
    """Random pixels for some samples, always the same: (count, 3, [T, ]H, W), uint8."""
    generator = torch.Generator().manual_seed(0)
    frames = () if info['clip_len'] is None else (info['clip_len'],)
    shape = (count, 3, *frames, *info['size'])
    return torch.randint(256, shape, dtype=torch.uint8, generator=generator)


def write_onnx(graph: PixelsToScores, info: dict, path: str, opset: int | None) -> Callable:
    """Write a graph and its metadata as ONNX; give a function from pixels to the outputs."""
    import onnx

    onnx_model = torch.onnx.export(
        graph,
        (sample_pixels(info, 2),),
        dynamo=True,
        input_names=['pixels'],
        output_names=graph.output_names,
        dynamic_shapes=({0: torch.export.Dim('batch')},),
        opset_version=opset,
        verbose=False,
    ).model_proto
    strings = {key: json.dumps(value, ensure_ascii=False) for key, value in info.items()}
    onnx.helper.set_model_props(onnx_model, strings)
    onnx.save(onnx_model, path)
    session = open_session(path, 'cpu')
    return lambda pixels: map(torch.from_numpy, session.run(None, {'pixels': pixels.numpy()}))


def compare(graph: PixelsToScores, info: dict, run: Callable) -> dict[str, float]:
    """Largest differences between an exported file and the model as it is tested, by output.

    They are those of a batch of 3 and one of 1; the graph was traced with 2.
    """
    model, pixels = graph.model, sample_pixels(info, 3)
    samples = [ActionDataSample(metainfo=dict(input_type=graph.input_type)) for _ in pixels]
    batch = dict(inputs=list(pixels[:, None]), data_samples=samples)  # one view each
    inputs = model.data_preprocessor(batch, training=False)['inputs']
    expected = graph.classify(model.extract_feat(inputs, test_mode=True)[0])
    differences = dict.fromkeys(graph.output_names, 0.0)
    for count in (3, 1):
        for name, right, found in zip(differences, expected, run(pixels[:count])):
            largest = (right[:count] - found).abs().max().item()
            differences[name] = max(differences[name], largest)
    return differences
