# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""From a fine-tuned model to a file that runs without this package.

The graph takes pixels (B, 3, [T, ]H, W), uint8, RGB, as the steps of the test pipeline leave
them, and normalises them itself. B is free, all else is fixed. It gives ``probabilities`` and
``logits`` (B, classes), and of a :class:`~s4d_mm.models.heads.DualModalHead` also ``features``
(B, C), what the classifier sees.
"""

import json
import logging
import os
import os.path as osp
import tempfile
import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from mmaction.models.recognizers import Recognizer3D
from mmaction.structures import ActionDataSample
from torch import Tensor, nn

from ..models.heads import DualModalHead, classification_head
from ..version import __version__
from .export_info import ExportInfo, interpolations
from .frame_steps import FrameSteps, frame_steps, sampled_window
from .inference import class_names, init_model
from .onnx_scorer import open_session

SUFFIXES = ('.onnx', '.pt2')
TOLERANCE = 1e-4  # largest difference of an output from PyTorch's
OLDEST_OPSET = 18  # of torch.onnx's exporter
PT2_INFO = 's4d_mm.json'  # extra file of a .pt2 with the metadata
PIPELINES = dict(video='test_pipeline', image='image_test_pipeline')


class ExportReport(NamedTuple):
    """What :func:`export_model` did.

    Attributes:
        info (ExportInfo): The metadata of the file.
        size (int): Bytes of the file.
        differences (dict[str, float]): Of each output the largest difference from PyTorch, on
            random pixels.
    """

    info: ExportInfo
    size: int
    differences: dict


class PixelsToScores(nn.Module):
    """The graph that is exported: normalisation, backbone, neck, head, softmax.

    Args:
        model (Recognizer3D): In evaluation mode.
        input_type (str): 'video' or 'image'.
    """

    def __init__(self, model: Recognizer3D, input_type: str) -> None:
        super().__init__()
        self.model = model
        self.input_type = input_type
        self.image_frames = getattr(model.data_preprocessor, 'image_frames', None)
        mean, std = normalisation(model)
        per_channel = (-1,) + (1,) * (3 if input_type == 'video' else 2)
        self.register_buffer('mean', torch.tensor(mean).view(per_channel))
        self.register_buffer('std', torch.tensor(std).view(per_channel))

    @property
    def output_names(self) -> list[str]:
        """Names of what :meth:`forward` gives."""
        has_features = isinstance(self.model.cls_head, DualModalHead)
        return ['probabilities', 'logits', *(['features'] if has_features else [])]

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Classify pixels (B, 3, [T, ]H, W), 0..255."""
        x = (pixels.float() - self.mean) / self.std
        if self.input_type == 'image' and self.image_frames is not None:
            x = x[:, :, None].expand(-1, -1, self.image_frames, -1, -1)
        x = self.model.backbone(x)
        if self.model.with_neck:
            x, _ = self.model.neck(x)
        return classify(self.model.cls_head, x, self.input_type)


def classify(head: nn.Module, x: Tensor, input_type: str) -> tuple[Tensor, ...]:
    """Probabilities, logits and, where the head has a name for them, features."""
    if not isinstance(head, DualModalHead):
        logits = head(x)
        return logits.softmax(dim=-1), logits
    features = head.features(x)
    logits = head.classifiers[input_type](features)
    return logits.softmax(dim=-1), logits, features


def normalisation(model: nn.Module) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, of the model's data preprocessor."""
    preprocessor = model.data_preprocessor
    if not hasattr(preprocessor, 'mean'):
        return [0.0] * 3, [1.0] * 3
    return preprocessor.mean.flatten().tolist(), preprocessor.std.flatten().tolist()


def count_classes(model: nn.Module, input_type: str, config: str) -> int:
    """Number of classes of a modality.

    Args:
        model (nn.Module): The model.
        input_type (str): 'video' or 'image'.
        config (str): Its name, for messages.

    Returns:
        int: The number.

    Raises:
        ValueError: If the model cannot be exported, or not for this modality.
    """
    _, head = classification_head(model)
    if not isinstance(model, Recognizer3D):
        raise ValueError(
            f'{config} builds a {type(model).__name__}, but only mmaction2 recognizers with '
            'backbone, neck and cls_head (DualModalRecognizer, Recognizer3D) can be exported.'
        )
    counts = head.num_classes
    if not isinstance(counts, dict):
        counts = dict(video=counts)
    if input_type not in counts:
        raise ValueError(
            f'The model of {config} has no classifier for the input type {input_type!r}, but for '
            f'{", ".join(map(repr, counts))} (model.cls_head.num_classes).'
        )
    return counts[input_type]


def describe_model(model: nn.Module, input_type: str) -> ExportInfo:
    """The metadata of a model's file.

    Args:
        model (nn.Module): From :func:`~s4d_mm.apis.init_model`.
        input_type (str): 'video' or 'image'.

    Returns:
        ExportInfo: The metadata.

    Raises:
        ValueError: If the model cannot be exported, or not for this input type.
    """
    config = model.cfg.filename or 'the config'
    count = count_classes(model, input_type, config)
    name = PIPELINES[input_type]
    if not model.cfg.get(name):
        raise ValueError(f'{config} has no `{name}`, which says how a {input_type} is resized.')
    window = sampled_window(model.cfg[name]) if input_type == 'video' else None
    steps = frame_steps(model.cfg[name])
    mean, std = normalisation(model)
    return ExportInfo(
        s4d_mm_version=__version__,
        config=osp.basename(config),
        input_type=input_type,
        classes=class_names(model, input_type, count),
        clip_len=window and window.clip_len,
        frame_interval=window and window.frame_interval,
        size=list(FrameSteps(steps).size()),
        channel_order='RGB',
        mean=mean,
        std=std,
        steps=steps,
        interpolation=interpolations(steps),
        spread=bool(window and window.spread),
        trained_on=model.trained_on,
    )


def export_model(
    config: str,
    checkpoint: str,
    out: str,
    input_type: str,
    opset: int | None = None,
    int8: bool = False,
) -> ExportReport:
    """Write a model to a file and compare what the file computes with PyTorch.

    Args:
        config (str): Config of fine-tuning.
        checkpoint (str): Its checkpoint.
        out (str): File to write, ``.onnx`` or ``.pt2``. Its folder is made. It appears when it is
            whole and has been compared.
        input_type (str): 'video' or 'image'.
        opset (int, optional): ONNX operator set. Defaults to None, which means torch's choice.
        int8 (bool): Whether to make the weights of the matrix products 8-bit integers, for
            ONNX. Such a file is not compared against ``TOLERANCE``. Defaults to False.

    Returns:
        ExportReport: What was written, and how far it is from PyTorch.

    Raises:
        ImportError: If a package is missing that ONNX needs.
        ValueError: If the model cannot be exported, or the options do not fit each other.
        RuntimeError: If the file computes something else than PyTorch.
    """
    suffix = check_options(out, opset, int8)
    model = init_model(config, checkpoint, 'cpu')
    info = describe_model(model, input_type)._replace(int8=int8)
    graph = PixelsToScores(model, input_type).eval().requires_grad_(False)
    folder = osp.dirname(osp.abspath(out))
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix='.export_', dir=folder) as temporary:
        path = osp.join(temporary, osp.basename(out))
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of torch to itself
            if suffix == '.onnx':
                write_onnx(graph, info, path, opset)
            else:
                write_pt2(graph, info, path)
            differences = compare(graph, info, load_runner(path))
        worst = max(differences.values())
        if not int8 and not worst <= TOLERANCE:
            raise RuntimeError(
                f'The exported model gives other numbers than PyTorch: {differences}, more than '
                f'{TOLERANCE}. {out} was not written. Does '
                f'{type(model.data_preprocessor).__name__} of {config} do more than normalise?'
            )
        size = osp.getsize(path)
        os.replace(path, out)
    return ExportReport(info, size, differences)


def check_options(out: str, opset: int | None, int8: bool) -> str:
    """Check what :func:`export_model` is asked for; return the suffix of the file."""
    suffix = osp.splitext(out)[1].lower()
    if suffix not in SUFFIXES:
        raise ValueError(f'{out} must end with {" or ".join(SUFFIXES)}, which says the format.')
    if suffix != '.onnx' and (opset is not None or int8):
        raise ValueError(f'opset and int8 are for .onnx files, but {out} is asked for.')
    if suffix == '.onnx':
        require_onnx()
    if opset is None:
        return suffix
    import onnx

    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise ValueError(f'opset must be in {OLDEST_OPSET}..{newest}, but is {opset}.')
    return suffix


def require_onnx() -> None:
    """Raise an ``ImportError`` that says what to install, if a package for ONNX is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as e:
        raise ImportError(
            f'To write .onnx files, {e.name} is missing: pip install onnx onnxruntime onnxscript '
            '(the extra `export`). A .pt2 file needs none of them.'
        ) from e


def sample_pixels(info: ExportInfo, count: int) -> Tensor:
    """Random pixels for some samples, always the same: (count, 3, [T, ]H, W), uint8."""
    generator = torch.Generator().manual_seed(0)
    shape = (count, *info.input_shape)
    return torch.randint(256, shape, dtype=torch.uint8, generator=generator)


def write_onnx(graph: PixelsToScores, info: ExportInfo, path: str, opset: int | None) -> None:
    """Write a graph and its metadata as ONNX."""
    import onnx

    program = torch.onnx.export(
        graph,
        (sample_pixels(info, 2),),
        dynamo=True,
        input_names=['pixels'],
        output_names=graph.output_names,
        dynamic_shapes=({0: torch.export.Dim('batch')},),
        opset_version=opset,
        verbose=False,
    )
    onnx_model = program.model_proto
    if info.int8:
        onnx_model = quantize(onnx_model, osp.dirname(path))
    onnx.helper.set_model_props(onnx_model, info.to_strings())
    onnx.save(onnx_model, path)


def quantize(onnx_model, folder: str):
    """Make the constant factors of matrix products 8-bit integers (onnxruntime's dynamic way).

    Args:
        onnx_model (onnx.ModelProto): The model.
        folder (str): For files on the way.

    Returns:
        onnx.ModelProto: The model with integers. What comes in is rounded to 8 bits, in a range
        that is found anew for each batch.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    traced, plain, small = (osp.join(folder, f'{name}.onnx') for name in ('a', 'b', 'c'))
    onnx.save(onnx_model, traced)
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it reports each operator
    try:
        # it computes the constants, such as transposed weights, without which few are quantised
        quant_pre_process(traced, plain, skip_symbolic_shape=True)
        quantize_dynamic(plain, small, weight_type=QuantType.QInt8)
    finally:
        root.setLevel(level)
    return onnx.load(small)


def write_pt2(graph: PixelsToScores, info: ExportInfo, path: str) -> None:
    """Write a graph and its metadata by ``torch.export``."""
    program = torch.export.export(
        graph, (sample_pixels(info, 2),), dynamic_shapes=({0: torch.export.Dim('batch')},)
    )
    content = json.dumps(info._asdict(), ensure_ascii=False)
    torch.export.save(program, path, extra_files={PT2_INFO: content})


def load_runner(path: str) -> Callable[[Tensor], list[Tensor]]:
    """A function from pixels to the outputs of an exported file."""
    if path.lower().endswith('.pt2'):
        return torch.export.load(path).module()
    session = open_session(path, 'cpu')
    return lambda pixels: [
        torch.from_numpy(out) for out in session.run(None, {'pixels': pixels.numpy()})
    ]


def compare(
    graph: PixelsToScores, info: ExportInfo, run: Callable[[Tensor], list[Tensor]]
) -> dict[str, float]:
    """Largest differences between an exported file and the model as it is tested.

    Args:
        graph (PixelsToScores): Its model, head and data preprocessor give what is right.
        info (ExportInfo): The metadata.
        run (callable): From :func:`load_runner`.

    Returns:
        dict[str, float]: By name of the output, for a batch of 3 and one of 1; the graph was
        traced with 2.
    """
    model, pixels = graph.model, sample_pixels(info, 3)
    samples = [ActionDataSample(metainfo=dict(input_type=info.input_type)) for _ in pixels]
    batch = dict(inputs=list(pixels[:, None]), data_samples=samples)  # one view each
    inputs = model.data_preprocessor(batch, training=False)['inputs']
    feats, _ = model.extract_feat(inputs, test_mode=True)
    expected = classify(model.cls_head, feats, info.input_type)
    differences = dict.fromkeys(graph.output_names, 0.0)
    for count in (3, 1):
        for name, right, found in zip(differences, expected, run(pixels[:count])):
            largest = (right[:count] - found).abs().max().item()
            differences[name] = max(differences[name], largest)
    return differences
