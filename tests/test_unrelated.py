"""What unrelated units reach by chance: against permuted images and other libraries; what is found beyond it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from typer.testing import CliRunner

from actmine.jobs.__main__ import application
from actmine.pipeline.datasets.sources import Dataset
from actmine.pipeline.exemplars.crops import NONE
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import load_network
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.relations import unrelated
from actmine.pipeline.relations.compare import best_pairs, compare_runs
from actmine.pipeline.relations.nearest import Nearest
from actmine.pipeline.relations.neighbors import Pairs
from actmine.pipeline.relations.unrelated import DRAWN, Unrelated
from actmine.pipeline.run import open_run
from actmine.pipeline.stages.mine import MineSettings, mine
from actmine.pipeline.tables.evidence import false_discovery_rates
from actmine.pipeline.tables.sketch_tables import UnitSketches, UnitVariance
from actmine.schemas.chance import LEVEL
from tests.test_sketches import activations, vectors

IMAGES, LENGTH = 600, 256


def side(values: np.ndarray) -> tuple[UnitSketches, UnitVariance]:
    """Units that did `values` `[N, U]` on images."""
    units = np.arange(values.shape[1])
    around = np.square(values - values.mean(0, dtype=np.float64))
    variance = UnitVariance(np.full(len(units), len(values)), around.max(0) / around.sum(0))
    return UnitSketches(("a",), 0 * units, units, vectors(values, length=LENGTH)), variance


def compared(ours: np.ndarray, theirs: np.ndarray, most: int = 2) -> tuple[Pairs, Unrelated]:
    (one, variance), (two, other) = side(ours), side(theirs)
    known = Unrelated(one, variance, two, other)
    return Pairs.of(Nearest(two.vectors)(one.vectors, most)).beside(known), known


def test_units_of_permuted_images_are_beyond_chance_in_one_table_of_twenty_at_most():
    random, wrong, above = np.random.default_rng(0), 0, []
    for trial in range(40):  # tails as long as those of networks
        ours, theirs = activations(IMAGES, 60, seed=trial), activations(IMAGES, 80, seed=1000 + trial)
        pairs, _ = compared(ours[random.permutation(IMAGES)], theirs)
        wrong += bool((pairs.q_value < LEVEL).any())
        above.append((pairs.similarity > pairs.chance)[pairs.rank == 0].mean())
    assert wrong <= 5  # 2 are to be expected at the level itself
    assert 0.002 < np.mean(above) < LEVEL


@pytest.mark.parametrize("images", [30, 600])
def test_the_closed_form_is_what_permuted_images_reach(images):
    random = np.random.default_rng(0)
    reached = []
    for _ in range(20):
        ours, theirs = random.standard_normal((2, images, 100)).astype(np.float32)
        pairs, known = compared(ours, theirs, most=1)
        reached.append(pairs.similarity)
    assert np.quantile(reached, 1 - LEVEL) == pytest.approx(known.permuted, rel=0.04)


def test_units_that_a_single_image_drives_are_not_alike_because_it_is_the_same():
    random = np.random.default_rng(0)
    spikes = 0.01 * random.standard_normal((2, 100, 80)) + np.eye(100)[random.integers(0, 100, (2, 80))].transpose(
        0, 2, 1
    )
    pairs, _ = compared(*spikes.astype(np.float32))
    assert (pairs.similarity > 0.9).sum() > 20
    assert (pairs.q_value >= LEVEL).all()


@pytest.fixture(scope="module")
def bright() -> np.ndarray:
    """Two networks of 200 units `[2, N, U]`, which have nothing in common but brightness."""
    random = np.random.default_rng(3)
    brightness = random.standard_normal(IMAGES)
    own = random.standard_normal((2, IMAGES, 200))
    return (own + brightness[:, None] * random.uniform(0, 1.5, (2, 1, 200))).astype(np.float32)


def test_what_the_images_do_to_all_units_makes_none_alike_and_copies_are_found(bright):
    ours, theirs = bright
    pairs, known = compared(ours, theirs)
    assert np.median(pairs.similarity) > 1.5 * known.permuted  # so permuted images alone would find most of them
    assert (pairs.q_value < LEVEL).mean() < 0.02
    copied = theirs.copy()
    noise = 0.3 * np.random.default_rng(5).standard_normal((IMAGES, 50)).astype(np.float32)
    copied[:, :50] = 2 * ours[:, :50] + noise
    pairs, _ = compared(ours, copied)
    first = pairs.rank == 0
    found = first & (pairs.q_value < LEVEL)
    assert (found & (pairs.own < 50) & (pairs.other == pairs.own)).sum() >= 48
    assert (found & (pairs.own >= 50)).sum() <= 3
    beyond = pairs.similarity[first] > pairs.chance[first]
    assert (beyond == found[first]).mean() > 0.95  # chance and q-value say the same


def test_no_unit_is_among_the_crowd_that_it_is_compared_with(bright):
    sketched, variance = side(bright[0])
    known = Unrelated(sketched, variance)
    z = np.arctanh(np.clip(sketched.vectors.astype(np.float64) @ sketched.vectors.T.astype(np.float64), -0.999, 0.999))
    without = [np.delete(z[0], [0, other]) for other in (5, 9)]
    number, mean, spread = known._rows.without(np.array([0, 0]), np.array([5, 9]), z[0, [5, 9]])
    assert number.tolist() == [198, 198]
    np.testing.assert_allclose(mean, [each.mean() for each in without], atol=1e-6)
    np.testing.assert_allclose(spread, [each.std(ddof=1) for each in without], atol=1e-6)


def test_few_units_are_measured_by_permuted_images_alone():
    values = np.random.default_rng(0).standard_normal((IMAGES, 4)).astype(np.float32)
    pairs, known = compared(values, values, most=1)
    np.testing.assert_allclose(pairs.chance, known.permuted, rtol=1e-5)
    assert (pairs.q_value < 1e-6).all()


def test_of_many_units_some_are_drawn_always_the_same(bright, monkeypatch):
    monkeypatch.setattr(unrelated, "DRAWN", 64)
    monkeypatch.setattr(unrelated, "_TOGETHER", 7)
    one, two = compared(*bright)[0], compared(*bright)[0]
    assert one.about["drawn"] == 64 < DRAWN
    np.testing.assert_array_equal(one.q_value, two.q_value)
    np.testing.assert_array_equal(one.chance, two.chance)


def test_q_values_and_distributions_are_those_of_scipy():
    random = np.random.default_rng(0)
    p = np.concatenate([random.uniform(size=300), random.uniform(size=60) * 1e-3, [0, 1, 1]])
    np.testing.assert_allclose(false_discovery_rates(p), stats.false_discovery_control(p), rtol=1e-12)
    for free in (8, 30, 1000):
        t, degrees = np.array([0.5, 2, 4, 6]), np.full(4, free)
        z = unrelated._normal(t, degrees)
        np.testing.assert_allclose(z, stats.norm.isf(stats.t.sf(t, free)), rtol=0.02)
        np.testing.assert_allclose([unrelated._student(each, degrees)[0] for each in z], t, rtol=1e-9)


def test_a_trained_network_hardly_matches_a_random_one(demo_run: Path, demo_dataset: Dataset, tmp_path):
    network = load_network("demo", "random")
    traced = Traced(network.module, network.input_shape)
    how = MineSettings(StatisticsOptions(2, labels=False), pictures=NONE)
    mine(demo_dataset, network, traced, traced.choose(""), tmp_path / "random", torch.device("cpu"), how)
    best = best_pairs(compare_runs(open_run(demo_run), open_run(tmp_path / "random")), 496)
    assert np.median(best.pairs["similarity"]) > 0.3  # they look at the same images
    assert len(best.beyond) <= 0.03 * len(best.pairs)
    about = open_run(demo_run).record["matches"]["random"]["chance"]
    assert about["beyond"] == len(best.beyond) and about["units"] == len(best.pairs) and about["images"] == 4096


@pytest.mark.slow
def test_trained_squeezenet_matches_itself_at_another_size_and_hardly_a_random_one(
    photographs, squeezenet_weights, tmp_path
):
    how = ["mine", "--dataset", str(photographs), "--model", "squeezenet1_1", "--layers", "features.*", "--topk", "5"]
    how += ["--no-visualize", "--no-sheets", "--pictures", "none", "--quiet", "--device", "cpu"]
    for name, words in {
        "trained": ["--weights", str(squeezenet_weights)],
        "smaller": ["--weights", str(squeezenet_weights), "--resize", "192", "--crop", "160"],
        "random": ["--weights", "random"],
    }.items():
        done = CliRunner().invoke(application(["mine"]), [*how, *words, "--run", str(tmp_path / name)])
        assert done.exit_code == 0, done.output
    trained, smaller, random = (open_run(tmp_path / name) for name in ("trained", "smaller", "random"))
    best = best_pairs(compare_runs(trained, smaller, most=1), 2944)
    assert len(best.beyond) >= 0.95 * len(best.pairs)
    for one, two in ((trained, random), (random, trained)):
        best = best_pairs(compare_runs(one, two, most=1), 2944)
        assert len(best.beyond) <= 0.02 * len(best.pairs)
