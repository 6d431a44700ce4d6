# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Prediction with an exported model, run by onnxruntime."""

import os.path as osp
from typing import Any

import numpy as np

from .export_info import ExportInfo
from .frame_steps import FrameSteps
from .scorer import Scorer


class OnnxScorer(Scorer):
    """A model of ``tools/deployment/export.py``.

    It takes one input type, and gives the scores of the model in PyTorch to 1e-4. A file with
    8-bit integers gives what ``export.py --int8`` says; its samples run one by one, since in a
    batch each would change the rounding of the others.

    Args:
        path (str): The ``.onnx`` file.
        device (str, optional): 'cpu', 'cuda' or 'cuda:N'. Defaults to None, which means the first
            GPU if this onnxruntime can use one, else the CPU.

    Attributes:
        info (ExportInfo): What the file says about itself.

    Raises:
        ImportError: If onnxruntime is not installed.
        FileNotFoundError: If there is no such file.
        ValueError: If it is no model of ours, or onnxruntime cannot run it, or not there.
    """

    def __init__(self, path: str, device: str | None = None) -> None:
        self.name = path
        self.session = open_session(path, device)
        metadata = self.session.get_modelmeta().custom_metadata_map
        self.info = ExportInfo.from_strings(metadata, path)
        self.classes = {self.info.input_type: self.info.classes}
        self.window, self.trained_on = self.info.window, self.info.trained_on
        self.frame_steps = FrameSteps(self.info.steps)

    def prepare(self, images: list[np.ndarray], input_type: str) -> np.ndarray:
        """See :meth:`Scorer.prepare`. The sample is (3, T, H, W) or (3, H, W), uint8."""
        self._check_input_type(input_type)
        frames = self.frame_steps(images)  # T H W 3
        sample = (
            np.moveaxis(frames, -1, 0) if input_type == 'video' else frames[0].transpose(2, 0, 1)
        )
        if sample.shape != self.info.input_shape:
            raise ValueError(
                f'{self.name} takes samples of the shape {self.info.input_shape} (channels, '
                f'frames, height, width), but {len(images)} frames gave {sample.shape}.'
            )
        return sample

    def score(
        self, samples: list, input_type: str, features: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """See :meth:`Scorer.score`."""
        self._check_input_type(input_type)
        if features and 'features' not in [out.name for out in self.session.get_outputs()]:
            raise ValueError(
                f'{self.name} gives no features, since the head of its model has no name for them. '
                'DualModalHead has.'
            )
        names = ['probabilities', 'features'] if features else ['probabilities']
        size = 1 if self.info.int8 else len(samples)
        batches = [np.stack(samples[i : i + size]) for i in range(0, len(samples), size)]
        parts = [self.session.run(names, {'pixels': batch}) for batch in batches]
        outputs = [np.concatenate(part) for part in zip(*parts)]
        return outputs[0], outputs[1] if features else None

    def _check_input_type(self, input_type: str) -> None:
        if input_type not in self.classes:
            raise ValueError(
                f'{self.name} was exported for the input type {self.info.input_type!r}, but this '
                f'input is of type {input_type!r}. Export the model with --input-type '
                f'{input_type}, too.'
            )


def open_session(path: str, device: str | None) -> Any:
    """Open a file with onnxruntime.

    Args:
        path (str): The file.
        device (str, optional): See :class:`OnnxScorer`.

    Returns:
        onnxruntime.InferenceSession: The session.

    Raises:
        ImportError, FileNotFoundError, ValueError: See :class:`OnnxScorer`.
    """
    try:
        import onnxruntime
    except ImportError as e:
        raise ImportError(
            f'To run {path}, onnxruntime is missing: pip install onnxruntime (part of the extra '
            '`export`).'
        ) from e
    if not osp.isfile(path):
        raise FileNotFoundError(f'There is no file {path}.')
    providers = choose_providers(device, onnxruntime.get_available_providers())
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    try:
        return onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as e:  # it raises a type of its own for each fault
        raise ValueError(f'onnxruntime cannot run {path}: {e}') from e


def choose_providers(device: str | None, available: list[str]) -> list:
    """What runs the model.

    Args:
        device (str, optional): See :class:`OnnxScorer`.
        available (list[str]): What this onnxruntime has.

    Returns:
        list: For ``onnxruntime.InferenceSession``.

    Raises:
        ValueError: If the device is unknown or onnxruntime cannot use it.
    """
    has_cuda = 'CUDAExecutionProvider' in available
    kind, _, number = str(device or ('cuda' if has_cuda else 'cpu')).partition(':')
    if kind == 'cpu':
        return ['CPUExecutionProvider']
    if kind != 'cuda' or not (number or '0').isdigit():
        raise ValueError(f"device must be 'cpu', 'cuda' or 'cuda:N' for ONNX, but is {device!r}.")
    if not has_cuda:
        raise ValueError(
            f'device={device!r} needs another onnxruntime, since this one has {available}: pip '
            'install onnxruntime-gpu in the place of onnxruntime.'
        )
    return [('CUDAExecutionProvider', dict(device_id=int(number or 0))), 'CPUExecutionProvider']
