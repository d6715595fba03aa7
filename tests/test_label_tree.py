"""Labels that form a tree: files, WordNet's above ImageNet's classes, and what units make of nodes by brute force."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from torchvision.models import SqueezeNet1_1_Weights

from actmine.pipeline.errors import UserError
from actmine.pipeline.readings.maxima import Matrix, Stored
from actmine.pipeline.tables.label_tree import BUILT_IN, CLASSES, NOTICE, find_tree, nodes_of, read_tree
from actmine.pipeline.tables.told_labels import Groups, Told
from actmine.pipeline.tables.wordnet import tree_of
from tests.test_evidence import kept, measuring

PARENTS = {
    "beagle": "dog",
    "pug": "dog",
    "dog": "animal",
    "toucan": "animal",
    "spoon": "tool",
    "animal": "",
    "tool": "",
}
LABELS = ["spoon", "Pug", "toucan", "dog", "beagle", "something else"]


def written(path: Path, parents: dict[str, str] = PARENTS) -> Path:
    path.write_text("label,parent\n" + "".join(f"{label},{parent}\n" for label, parent in parents.items()))
    return path


def held(names: list[str], labels: list[str], tree_names: list[str], groups: Groups) -> dict[str, set[str]]:
    return {
        node: {labels[row] for row in groups.order[begin:end]}
        for node, begin, end in zip(tree_names, groups.begin, groups.end, strict=True)
    }


def test_nodes_hold_the_labels_below_them_and_lower_ones_come_first(tmp_path):
    tree = find_tree(str(written(tmp_path / "tree.csv")))
    nodes = nodes_of(tree, range(6), LABELS)
    assert nodes.inside == 5 and tree.path("beagle") == "beagle < dog < animal"
    assert held(LABELS, LABELS, nodes.names, nodes.groups) == {
        "beagle": {"beagle"}, "pug": {"Pug"}, "dog": {"dog", "beagle", "Pug"}, "toucan": {"toucan"},
        "animal": {"dog", "beagle", "Pug", "toucan"}, "spoon": {"spoon"}, "tool": {"spoon"},
    }  # fmt: skip
    assert sorted(nodes.groups.order.tolist()) == list(range(6))
    values = np.random.default_rng(0).normal(size=(6, 2, 3))
    sums = dict(zip(nodes.names, nodes.groups.summed(values), strict=True))
    np.testing.assert_allclose(sums["animal"], values[[1, 2, 3, 4]].sum(0))
    np.testing.assert_allclose(sums["dog"], values[[1, 3, 4]].sum(0))
    assert (sums["tool"] == sums["spoon"]).all() and (sums["spoon"] == values[0]).all()
    assert [nodes.names.index(each) for each in ("beagle", "dog", "animal")] == sorted(
        nodes.names.index(each) for each in ("beagle", "dog", "animal")
    )
    assert nodes_of(tree, [0], ["nothing of it"]) is None


def test_json_says_the_same_as_csv(tmp_path):
    wanted = read_tree(written(tmp_path / "tree.csv"))
    (tmp_path / "a.json").write_text(json.dumps(PARENTS))
    (tmp_path / "b.json").write_text(json.dumps([{"label": a, "parent": b} for a, b in PARENTS.items()]))
    for name in ("a.json", "b.json"):
        assert read_tree(tmp_path / name).parent == wanted.parent


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("label,parent\na,b\na,c\n", "'a' has several parents"), ("label,parent\na,b\nb,a\n", "above itself"),
        ("a,b\nc,d\n", "no table of labels"), ("\xff", "no table of labels"), (None, "cannot be read"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_tree_is_refused_with_the_reason(tmp_path, text, said):
    path = tmp_path / "tree.csv"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=said):
        find_tree(str(path))


def test_what_units_make_of_nodes_is_a_brute_force_over_the_images_below(tmp_path):
    random = np.random.default_rng(7)
    nodes = nodes_of(read_tree(written(tmp_path / "tree.csv")), range(6), LABELS)
    labels = random.integers(0, 6, 400)
    values = random.normal(size=(400, 4)).astype(np.float32)
    dogs = np.isin(labels, [1, 3, 4])
    values[dogs, 0] += 2
    values[labels == 4, 1] += 3
    told, other = Told(kept(values, labels), nodes.groups, 5), measuring(400)
    assert nodes.names[told.row[0]] == "dog" and nodes.names[told.row[1]] == "beagle"
    assert (told.q[:2] < 0.001).all() and np.isnan(told.selectivity).all()
    own = {node: np.isin([LABELS[at] for at in labels], list(its)) for node, its in
           held(LABELS, LABELS, nodes.names, nodes.groups).items()}  # fmt: skip
    parts = [Stored(tmp_path, np.arange(400), labels)]
    area, low, high = told.areas(Matrix(parts, [values]), other.astype(int), slice(0, 4))
    for unit in range(4):
        scores = {node: np.corrcoef(its[~other], values[~other, unit])[0, 1] for node, its in own.items()}
        node = nodes.names[told.row[unit]]
        assert scores[node] == pytest.approx(max(scores.values()))
        its = own[node][other]
        assert told.support[unit] == its.sum()
        assert told.correlation[unit] == pytest.approx(np.corrcoef(its, values[other, unit])[0, 1])
        a, b = values[other, unit][its], values[other, unit][~its]
        assert area[unit] == pytest.approx((a[:, None] > b).mean()) and low[unit] < area[unit] < high[unit]
    shares = told.shares(np.array([0, 0, 0, 1]), np.array([1, 4, 0, 2]))
    assert shares[:2].tolist() == [pytest.approx(2 / 3), 0.0] and np.isnan(shares[2:]).all()


def test_the_tree_built_in_has_all_classes_by_their_synsets_names_and_numbers():
    tree = find_tree("auto")
    classes = list(tree.parent)[:CLASSES]
    assert classes == sorted(classes) and classes[0] == "n01440764" and not set(classes) & set(tree.parent.values())
    names = SqueezeNet1_1_Weights.IMAGENET1K_V1.meta["categories"]
    for said in (names, classes, [name.replace(" ", "_") for name in names]):
        nodes = nodes_of(tree, range(CLASSES), said)
        dogs = next(at for at, node in enumerate(nodes.names) if tree.words[node] == "dog")
        below = nodes.groups.order[nodes.groups.begin[dogs] : nodes.groups.end[dogs]]
        assert nodes.inside == CLASSES and sorted(below.tolist()) == list(range(151, 269))
    assert tree.path("n02096585").startswith("Boston bull < terrier < hunting dog < dog < canine < carnivore")
    assert nodes_of(tree, range(3), ["wheel", "stripes", "dots"]) is None
    some = nodes_of(tree, range(3), ["crane", "Boston_bull", "toucan"])
    assert some.inside == 2  # a crane is a bird or a machine
    assert NOTICE in BUILT_IN.read_text() and BUILT_IN.with_name("WORDNET-LICENSE").is_file()
    assert find_tree("none") is None


def test_the_table_is_made_of_lines_of_wordnet():
    lines = [
        "  1 This software and database",
        "02084071 05 n 03 dog 0 domestic_dog 0 Canis_familiaris 0 002 @ 02083346 n 0000 @ 01317541 n 0000 | a",
        "02083346 05 n 02 canine 0 canid 0 001 ~ 02084071 n 0000 | any",
    ]
    assert list(tree_of(["n02084071"], lines)) == [
        ("n02084071", "n02083346", "dog", "domestic dog|Canis familiaris"), ("n02083346", "", "canine", "canid"),
    ]  # fmt: skip
    shipped = list(csv.reader(io.StringIO(BUILT_IN.read_text().split("\n", 1)[1])))
    assert ["n02084071", "n02083346", "dog", "domestic dog|Canis familiaris"] in shipped
