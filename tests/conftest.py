# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What all tests share: few threads, and the package's registrations."""

import gc
import os
import os.path as osp

os.environ.setdefault('OMP_NUM_THREADS', '1')
# processes that tests start run the same tree, wherever pytest was called
ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, (ROOT, os.environ.get('PYTHONPATH'))))

import pytest  # noqa: E402
import torch  # noqa: E402
from mmengine.logging import MessageHub, MMLogger  # noqa: E402
from mmengine.runner import Runner  # noqa: E402

import s4d_mm.guard  # noqa: E402,F401

torch.set_num_threads(1)
# mmengine's datasets call gc.collect(), which would look at all that was imported each time
gc.freeze()


def pytest_collection_modifyitems(items):
    """Tests that fork this process come first, while it has no threads of autograd."""
    forks = ('test_engine', 'test_atomic_write', 'test_end_to_end')
    items.sort(key=lambda item: not any(name in str(item.path) for name in forks))


@pytest.fixture(scope='session', autouse=True)
def plain_configs():
    """Save the configs of runs unformatted: formatting takes most of the time of a short run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            'mmengine.config.config.FormatCode', lambda text, **_: (text, True), raising=False
        )  # the fork onedl-mmengine does not have it
        yield


@pytest.fixture(scope='session', autouse=True)
def message_hubs():
    """Give each Runner a message hub and a logger of its own: mmengine names both by the second."""

    def renewed(build, kind):
        def build_new(self, *args, **kwargs):
            kind._instance_dict.pop(self.experiment_name, None)
            return build(self, *args, **kwargs)

        return build_new

    with pytest.MonkeyPatch.context() as patch:
        for name, kind in (('build_message_hub', MessageHub), ('build_logger', MMLogger)):
            patch.setattr(Runner, name, renewed(getattr(Runner, name), kind))
        yield


@pytest.fixture(scope='session')
def quickstart_data(tmp_path_factory):
    """A small set of drawn faces: the folder that holds ``data``."""
    from make_quickstart import make_set

    folder = tmp_path_factory.mktemp('quickstart_data')
    make_set(str(folder / 'data'), images=28, clips=21, size=80, workers=1)
    return folder


@pytest.fixture(scope='module')
def quickstart(quickstart_data, tmp_path_factory):
    """A folder of one's own with that data, which the quickstart's configs use."""
    folder = tmp_path_factory.mktemp('quickstart')
    os.symlink(quickstart_data / 'data', folder / 'data')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('QUICKSTART_DIR', str(folder))
        yield folder


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server of files, and an empty cache of downloads."""
    from file_server import FileServer

    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    with FileServer() as server:
        yield server


@pytest.fixture(scope='session')
def toolbox_run(quickstart_data, tmp_path_factory):
    """A short run with mmaction2's own tools."""
    from runs import ToolboxRun

    return ToolboxRun(tmp_path_factory.mktemp('toolbox_run'), quickstart_data)
