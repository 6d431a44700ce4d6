# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, its end: the predictions of a run as a file that other tools read."""

import json
import os
import os.path as osp
from collections.abc import Sequence
from typing import Any

from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmengine.registry import METRICS
from torch import Tensor

FIELDS = ('sample_id', 'input_type', 'gt_label', 'pred_label', 'pred_score', 'unreadable')


@METRICS.register_module()
class PredictionsFile(BaseMetric):
    """Write the predictions as JSON, a list with an object for each sample.

    mmengine's ``DumpResults`` writes a pickle, which may run code where it is read.
    :func:`~s4d_mm.evaluation.predictions.read_predictions` reads both.

    Args:
        out_file_path (str): The file. Its objects have those of :data:`FIELDS` that the samples
            have; labels and scores are lists of numbers.
        collect_device (str): 'cpu' or 'gpu', where the results of all processes come together.
            Defaults to 'cpu'.
    """

    default_prefix = ''

    def __init__(self, out_file_path: str, collect_device: str = 'cpu') -> None:
        super().__init__(collect_device=collect_device)
        self.out_file_path = out_file_path

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep what is to be written of each sample."""
        for sample in data_samples:
            kept = {name: sample[name] for name in FIELDS if name in sample}
            self.results.append(
                {k: v.tolist() if isinstance(v, Tensor) else v for k, v in kept.items()}
            )

    def compute_metrics(self, results: list) -> dict:
        """Write the file, whole or not at all, in the main process."""
        os.makedirs(osp.dirname(osp.abspath(self.out_file_path)), exist_ok=True)
        part = f'{self.out_file_path}.part'
        with open(part, 'w', encoding='utf-8') as f:
            json.dump(results, f, ensure_ascii=False)
        os.replace(part, self.out_file_path)
        print_log(f'Predictions are saved to {self.out_file_path}.', logger='current')
        return {}
