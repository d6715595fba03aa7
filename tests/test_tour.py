"""The notebook runs from top to bottom on a run of the demo, and shows what it promises."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from PIL import Image, ImageColor

from actmine.pipeline.sheets.drawing import PAPER
from actmine.pipeline.sheets.figures import figure_style
from actmine.pipeline.sheets.fonts import font

TOUR = Path(__file__).parents[1] / "docs" / "tour.ipynb"


def test_every_cell_of_the_tour_runs_and_it_shows_pictures_tables_and_plots(demo_run, tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("matplotlib")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo-demo").symlink_to(demo_run, target_is_directory=True)
    tour = nbformat.read(TOUR, as_version=4)
    nbclient.NotebookClient(tour, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    kinds = [kind for cell in tour.cells for output in cell.get("outputs", ()) for kind in output.get("data", ())]
    assert kinds.count("image/png") >= 5 and kinds.count("text/html") >= 5


def test_its_figures_have_the_paper_of_sheets_and_their_font():
    nbformat, matplotlib = pytest.importorskip("nbformat"), pytest.importorskip("matplotlib")
    outputs = [output for cell in nbformat.read(TOUR, as_version=4).cells for output in cell.get("outputs", ())]
    figures = [output.data["image/png"] for output in outputs if output.output_type == "display_data"]
    assert len(figures) == 2
    for each in figures:
        image = Image.open(io.BytesIO(base64.b64decode(each))).convert("RGB")
        assert {image.getpixel((x, y)) for x in (0, image.width - 1) for y in (0, image.height - 1)} == {
            ImageColor.getrgb(PAPER)
        }
    with matplotlib.rc_context(figure_style()):
        assert matplotlib.font_manager.FontProperties().get_name() == font(12).getname()[0]
        assert not matplotlib.rcParams["axes.spines.top"]


def test_it_is_kept_as_it_runs():
    nbformat = pytest.importorskip("nbformat")
    tour = nbformat.read(TOUR, as_version=4)
    nbformat.validate(tour)
    cells = [cell for cell in tour.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not any(output.output_type == "error" for cell in cells for output in cell.outputs)
