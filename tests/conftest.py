"""What all tests share: one thread, and the real photographs where they are at hand."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if not Path("/dev/nvidiactl").exists():
    os.environ["TRITON_INTERPRET"] = "1"  # without a GPU kernels run by Triton's interpreter alone

import pytest
import torch

from actmine.pipeline.ascent.presets import find_preset
from actmine.pipeline.datasets.sources import Dataset, find_dataset
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import load_network
from actmine.pipeline.relations.neighbors import find_neighbors
from actmine.pipeline.stages.mine import MineSettings, mine
from actmine.pipeline.stages.visualize import visualize_run
from tests import atlas_of_activations

torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="actmine-tests-")  # never the user's own cache
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)
SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def photographs() -> Path:
    """A folder of 622 photographs of ImageNet's classes."""
    folder = SHARED / "imagenet-sample" / "val"
    if not folder.is_dir():
        pytest.skip("needs shared/imagenet-sample, real photographs that are not part of the project")
    return folder


@pytest.fixture(scope="session")
def squeezenet_weights() -> Path:
    """SqueezeNet 1.1 weights trained on ImageNet (its features only)."""
    file = SHARED / "models" / "squeezenet1_1-imagenet-features.safetensors"
    if not file.is_file():
        pytest.skip("needs shared/models, trained weights that are not part of the project")
    return file


@pytest.fixture(scope="session")
def bare_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one layer over 180 pictures of three kinds, not to be changed."""
    return atlas_of_activations.mined(tmp_path_factory.mktemp("bare"))


@pytest.fixture(scope="session")
def mapped_run(bare_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with an activation atlas, not to be changed either."""
    copy = shutil.copytree(bare_run, tmp_path_factory.mktemp("mapped") / "run")
    atlas_of_activations.make(copy)
    return copy


@pytest.fixture(scope="session")
def demo_dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The embedded demo, whole: 4,096 images in tar shards, rendered once per test session."""
    return find_dataset("demo", tmp_path_factory.getbasetemp() / "data")


@pytest.fixture(scope="session")
def demo_run(demo_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the demo: every layer mined, the first one visualized."""
    run = tmp_path_factory.mktemp("runs") / "demo-demo"
    network = load_network("demo")
    traced = Traced(network.module, network.input_shape)
    device = torch.device("cpu")
    mine(demo_dataset, network, traced, traced.choose(""), run, device, MineSettings(workers=2))
    find_neighbors(run)
    visualize_run(run, network, traced, traced.choose("stem.*"), find_preset("default"), device)
    return run


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from tests.in_browser import CHROMIUM

    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    safe = ["--no-sandbox"] if os.getuid() == 0 else []  # a sandbox of root's is refused
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=safe, timeout=60_000)
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Any]:
    """Opens pages that must neither complain nor ask any other host; `opened(**options)` gives one."""
    from tests.in_browser import DESK, PATIENCE_MS, is_own

    contexts, complaints = [], []

    def new(**options: Any) -> Any:
        context = browser.new_context(**({"viewport": DESK} | options))
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda asked: complaints.append(asked.url) if not is_own(asked.url) else None)
        return page

    yield new
    for context in contexts:
        context.close()
    assert complaints == []
