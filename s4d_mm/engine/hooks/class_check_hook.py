# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Before training and testing: the head has as many classes as the data."""
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class ClassCheckHook(Hook):
    """Compare the classes of each dataset with ``num_classes`` of the head
    before the first iteration."""

    def before_train(self, runner: Runner) -> None:
        """Check the training data, and the validation data if there are."""
        self._check(runner, runner.train_dataloader, 'train_dataloader')

    def before_val(self, runner: Runner) -> None:
        """Check the validation data."""
        self._check(runner, runner.val_dataloader, 'val_dataloader')

    def before_test(self, runner: Runner) -> None:
        """Check the test data."""
        self._check(runner, runner.test_dataloader, 'test_dataloader')

    @staticmethod
    def _check(runner: Runner, dataloader, name: str) -> None:
        model = runner.model
        model = model.module if is_model_wrapper(model) else model
        expected = getattr(
            getattr(model, 'cls_head', None), 'num_classes', None)
        dataset = getattr(dataloader, 'dataset', None)
        classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
        if expected is None or classes is None:
            return
        if not isinstance(classes, dict):
            classes = {getattr(dataset, 'INPUT_TYPE', None): classes}
        for input_type, names in classes.items():
            count = expected
            if isinstance(expected, dict):
                if input_type not in expected:
                    raise ValueError(
                        f'{name} has {input_type} data, but the head has '
                        f'num_classes={expected}. Add {input_type!r} to '
                        'model.cls_head.num_classes.')
                count = expected[input_type]
            if len(names) != count:
                raise ValueError(
                    f'{name} has {len(names)} {input_type or ""} classes '
                    f'{tuple(names)}, but model.cls_head.num_classes is '
                    f'{expected}. Make them agree.')
