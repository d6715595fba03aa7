"""A finished run takes further layers and more exemplars, and is then the run that had them from the start."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import actmine
import actmine.pipeline.stages.growth as growing
from actmine.pipeline.record import read_record
from tests.making import encoded, picture, write_folder
from tests.test_library import Small

QUICK = {"visualize": False, "sheets": False, "quiet": True, "batch_size": 8, "resize": "32", "crop": "28",
         "min_support": 2}  # fmt: skip
TABLES = ("images", "pictures", "crops", "neighbors", "layers", "shards", "skipped")
OF_LAYERS = ("exemplars", "units", "labels", "maps", "sketches")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("growth") / "photos"
    return write_folder(root, {f"{'abc'[n % 3]}/{n:02d}.png": encoded(picture(70, 60, n), "PNG") for n in range(40)})


def mined(photos: Path, run: Path, layers: str, topk: int = 3, **words: Any) -> actmine.Run:
    return actmine.mine(Small(), str(photos), layers=layers, topk=topk, run=run, **{**QUICK, **words})


@pytest.fixture(scope="module")
def whole(photos: Path) -> actmine.Run:
    return mined(photos, photos.parent / "whole", "first.*,second.*,head")


@pytest.fixture(scope="module")
def begun(photos: Path) -> Path:
    return mined(photos, photos.parent / "begun", "second.*").path


def rows(run: Path, table: str) -> pd.DataFrame:
    place = run / f"{table}.parquet"
    found = pd.read_parquet(place if place.is_file() else run / table)
    keys = [name for name in ("layer", "unit", "band", "rank", "label", "image_id", "left") if name in found]
    return found.sort_values(keys, kind="stable").reset_index(drop=True)


def same(grown: Path, wanted: Path, without: tuple[str, ...] = ()) -> None:
    for table in (*TABLES, *OF_LAYERS):
        left, right = (rows(run, table).drop(columns=list(without), errors="ignore") for run in (grown, wanted))
        pd.testing.assert_frame_equal(left, right, obj=table)
    ours, theirs = read_record(grown), read_record(wanted)
    for word in ("layers", "topk", "fingerprint", "units", "counts", "labels_account", "tables", "weights_hash"):
        assert ours[word] == theirs[word], word
    assert not (grown / growing.PART).exists() or not [*(grown / growing.PART).rglob("*.parquet")]


def test_further_layers_make_it_the_run_that_had_them_from_the_start(photos, whole, begun, tmp_path, capsys):
    run = shutil.copytree(begun, tmp_path / "run")
    mined(photos, run, "first.*,head", quiet=False)
    assert "Adding 2 layers to" in capsys.readouterr().err
    same(run, whole.path)
    assert actmine.open_run(run).layers.layer.tolist() == ["first.1", "second.1", "head"]


def test_what_it_holds_is_not_mined_again(photos, whole, tmp_path, monkeypatch):
    run = shutil.copytree(whole.path, tmp_path / "run")
    monkeypatch.setattr("actmine.pipeline.stages.mine.Mining", None)
    before = {path: path.read_bytes() for path in run.rglob("*.parquet")}
    for layers, topk in (("second.*", 3), ("head,first.*", 3), ("second.*", 2), ("", 1)):
        mined(photos, run, layers, topk)
    assert before == {path: path.read_bytes() for path in run.rglob("*.parquet")}


def test_more_exemplars_and_layers_at_once(photos, begun, tmp_path):
    wanted = mined(photos, tmp_path / "wanted", "second.*,head", 6)
    run = shutil.copytree(begun, tmp_path / "run")
    same(mined(photos, run, "head", 6).path, wanted.path)


def test_what_stages_had_added_stays(photos, begun, tmp_path):
    run = shutil.copytree(begun, tmp_path / "run")
    opened = actmine.open_run(run)
    net = Small()
    words = {"model": net, "quiet": True}
    opened = actmine.focus(actmine.check(opened, most=2, **words), most=2, **words)
    opened = actmine.visualize(opened, preset="noise", units=[1, 2], **words)
    before, drawn = rows(run, "exemplars"), rows(run, "units")
    grown = mined(photos, run, "second.*,head", 5)
    after = grown.exemplars("second.1")
    both = after.merge(before, on=["unit", "rank", "image_id"], suffixes=("", "_before"))
    assert len(both) == len(before) and before.crop_activation.notna().any()
    for name in ("crop_activation", "focus_left", "focus_bottom"):
        pd.testing.assert_series_equal(both[name], both[f"{name}_before"], check_names=False, check_dtype=False)
    units = grown.units("second.1")
    assert (units.visualization_ratio.fillna(-1) == drawn.visualization_ratio.fillna(-1)).all()
    assert grown["second.1"][1].visualization is not None and len(grown.record["visualizations"]) == 1


@pytest.mark.parametrize("words", [{"direction": "both"}, {"crop": "24"}, {"sketch": 64}, {"maps": 2}])
def test_what_cannot_be_added_is_refused_with_what_differs(photos, begun, tmp_path, words):
    run = shutil.copytree(begun, tmp_path / "run")
    with pytest.raises(actmine.UserError, match=r"was begun with other settings: .* Choose another RUN"):
        mined(photos, run, "first.*", **words)


def test_a_run_that_keeps_all_activations_says_that_it_cannot_grow(photos, tmp_path):
    mined(photos, tmp_path / "run", "second.*", keep_maxima="1")
    with pytest.raises(actmine.UserError, match="layers was"):
        mined(photos, tmp_path / "run", "first.*", keep_maxima="1")


class Killed(BaseException):
    """As by the system: nothing that is under way gets to its end."""


class Stop:
    """Kills whoever renames a file for the `at`-th time; 0: never."""

    def __init__(self) -> None:
        self.at = self.renames = 0

    def rename(self, path: Path, *about: Any) -> Path:
        self.renames += 1
        if self.renames == self.at:
            raise Killed
        return REPLACE(path, *about)


REPLACE, FOLD = Path.replace, growing.fold


@pytest.mark.slow
def test_killed_at_any_write_the_run_is_whole_and_the_same_command_ends_it(photos, whole, begun, tmp_path, monkeypatch):
    stop = Stop()

    def fold(*about: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "replace", lambda path, *target: stop.rename(path, *target))
            return FOLD(*about)

    monkeypatch.setattr("actmine.pipeline.stages.mine.fold", fold)
    ready = shutil.copytree(begun, tmp_path / "ready")
    stop.at = 1
    with pytest.raises(Killed):  # all but the folding is done
        mined(photos, ready, "first.*,head")
    for stop.at in range(1, 99):
        stop.renames = 0
        run = shutil.copytree(ready, tmp_path / f"run{stop.at}")
        try:
            mined(photos, run, "first.*,head")
        except Killed:
            opened = actmine.open_run(run)
            kept = opened.exemplars("second.1")
            assert len(kept) == 18 and {*kept.image_id} <= {*opened.images.image_id} and opened.crop(kept.iloc[0]).size
            assert {"second.1"} <= {*opened.layers.layer} == {*opened.record["layers"]} or len(opened.layers) == 3
        else:
            break
        stop.renames = -(10**9)
        mined(photos, run, "first.*,head")
        same(run, whole.path)
        shutil.rmtree(run)
    assert stop.at > 12, "so many files there are"
