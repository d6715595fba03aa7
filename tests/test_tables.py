"""Tables as other readers find them: described, with pictures that Hugging Face's layout names, whole or not there."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actmine.pipeline.errors import UserError
from actmine.pipeline.storage.files import safe_name, table_file, written_aside
from actmine.pipeline.storage.parquet import image_column, write_rows, write_table
from actmine.schemas.exemplars import EXEMPLARS
from actmine.schemas.fields import IMAGE
from actmine.schemas.skipped import SKIPPED

SCHEMAS = {
    name: getattr(importlib.import_module(f"actmine.schemas.{name}"), name.upper())
    for name in (
        "layers units exemplars visualizations views images pictures crops shards skipped neighbors matches "
        "directions".split()
    )
}

PUBLIC = {
    "layers": "layer kind units height width rf_height rf_width stride_y stride_x rf_global",
    "units": "layer unit images_seen activation_max activation_mean activation_std firing_rate top_label label_purity "
    "visualization visualization_activation visualization_ratio visualization_preset visualization_seed",
    "directions": "layer unit rank neighbor_unit cosine chance",
    "exemplars": "layer unit rank activation image_id key label label_name y x left top right bottom clipped crop",
    "visualizations": "layer unit facet preset seed attempts visualization activation ratio rank",
    "views": "layer unit rank image_id method view scale input_left input_top input_right input_bottom recipe",
    "images": "image_id key shard offset nbytes width height label label_name",
    "pictures": "image_id width height picture",
    "crops": "image_id left top right bottom crop",
    "shards": "shard url members seen skipped",
    "skipped": "shard position key error",
    "neighbors": "layer unit rank neighbor_layer neighbor_unit similarity",
    "matches": "layer unit rank other_layer other_unit similarity",
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_table_has_its_public_columns_and_describes_each(name):
    assert set(PUBLIC[name].split()) <= set(SCHEMAS[name].names)
    for column in SCHEMAS[name]:
        assert len(column.metadata[b"description"]) > 10, column.name


def example(schema: pa.Schema, count: int) -> pa.Table:
    def values(column: pa.Field) -> pa.Array:
        if column.type == IMAGE:
            return image_column(
                [b"\x89PNG" + bytes([i % 256]) if i % 2 or not column.nullable else None for i in range(count)]
            )
        lists = {pa.list_(kind): [3, 1] for kind in (pa.int32(), pa.int64(), pa.float32())}
        made = ({pa.string(): "words", pa.bool_(): True} | lists).get(column.type, 3)
        return pa.array([made] * count, column.type)

    return pa.table([values(column) for column in schema], schema=schema)


@pytest.mark.parametrize("name", SCHEMAS)
def test_what_is_written_is_what_is_read(name, tmp_path):
    table = example(SCHEMAS[name], 1000)
    write_table(tmp_path / "t.parquet", SCHEMAS[name], (table.slice(at, 400) for at in (0, 400, 800)))
    back = pq.read_table(tmp_path / "t.parquet")
    assert back.schema.equals(SCHEMAS[name], check_metadata=False)
    assert back.equals(table)
    for column in back.schema:
        assert column.metadata[b"description"] == SCHEMAS[name].field(column.name).metadata[b"description"]
    assert len(pd.read_parquet(tmp_path / "t.parquet")) == 1000


@pytest.mark.parametrize("name", SCHEMAS)
def test_everything_but_pictures_is_compressed_lists_too(name, tmp_path):
    write_table(tmp_path / "t.parquet", SCHEMAS[name], [example(SCHEMAS[name], 100)])
    group = pq.ParquetFile(tmp_path / "t.parquet").metadata.row_group(0)
    for column in map(group.column, range(group.num_columns)):
        picture = column.path_in_schema.endswith(".bytes")
        assert column.compression == ("UNCOMPRESSED" if picture else "ZSTD"), column.path_in_schema


def test_pictures_are_stored_as_they_are_and_named_for_hugging_face(tmp_path):
    write_table(tmp_path / "t.parquet", EXEMPLARS, [example(EXEMPLARS, 100)])
    file = pq.ParquetFile(tmp_path / "t.parquet")
    group = file.metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert columns["crop.bytes"].compression == "UNCOMPRESSED"
    assert columns["activation"].compression == "ZSTD"
    features = json.loads(file.schema_arrow.metadata[b"huggingface"])["info"]["features"]
    assert features["crop"] == {"_type": "Image"}
    assert features["activation"] == {"dtype": "float32", "_type": "Value"}
    assert list(features) == EXEMPLARS.names


def pictured(rows: int, size: int) -> pa.Table:
    """A part of `exemplars/` whose pictures have so many bytes each."""
    crops = image_column([bytes(size)] * rows)
    return example(EXEMPLARS, rows).set_column(EXEMPLARS.get_field_index("crop"), EXEMPLARS.field("crop"), crops)


def row_groups(path: Path) -> list[int]:
    metadata = pq.ParquetFile(path).metadata
    return [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]


@pytest.mark.parametrize(
    ("parts", "groups"),
    [
        ([(450, 10)] * 9, [1800, 1800, 450]),
        ([(450, 20_000)] * 3, [450, 450, 450]),
        ([(400, 10_000)] * 5, [800, 800, 400]),
        ([(2000, 10)], [1800, 200]),
        ([(1800, 20_000)], [450] * 4),
        ([(300, 50_000), (10, 10), (400, 10_000)], [300, 410]),
        ([(0, 0)], [0]),
    ],
)
def test_a_row_group_has_at_most_1800_rows_and_9_mb_of_pictures_unless_it_is_one_part(parts, groups, tmp_path):
    write_table(tmp_path / "t.parquet", EXEMPLARS, (pictured(*part) for part in parts))
    assert row_groups(tmp_path / "t.parquet") == groups


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(1, 450), st.sampled_from([0, 900, 9_000, 40_000])), min_size=1, max_size=9))
def test_parts_are_never_divided_and_a_table_written_again_keeps_its_row_groups(tmp_path, parts):
    path = tmp_path / "t.parquet"
    write_table(path, EXEMPLARS, (pictured(*part) for part in parts))
    before = row_groups(path)
    assert {0, *np.cumsum(before)} <= {0, *np.cumsum([rows for rows, _ in parts])}
    file = pq.ParquetFile(path)
    write_table(path, EXEMPLARS, [file.read_row_group(group) for group in range(file.num_row_groups)])
    assert row_groups(path) == before


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "skipped.parquet"
    write_rows(path, SKIPPED, [{"shard": 0, "position": 1, "key": "a", "error": "bad"}])
    before = path.read_bytes()

    def broken():
        yield example(SKIPPED, 3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_table(path, SKIPPED, broken())
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["skipped.parquet"]


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"cannot be written .* choose another RUN"),
        written_aside(tmp_path / "file" / "x"),
    ):
        pass


@pytest.mark.parametrize("name", ["a/b", "../up", ".hidden", "layer:1", "ümlaut", "", "x" * 400, "字" * 200, "\ud83d"])
def test_a_layer_name_becomes_one_plain_file_name(name):
    made = safe_name(name)
    assert made == Path(made).name and not made.startswith(".") and len(made.encode()) < 240


@given(st.lists(st.text("aAbB_ .~/-?é1", max_size=6), unique=True, max_size=8))
def test_different_layers_have_different_files_even_where_case_does_not_count(names):
    assert len({safe_name(name).casefold() for name in names}) == len(names)


@pytest.mark.parametrize("name", ["layer4.2.relu", "features.12.expand1x1_activation", "encoder.layers.0.mlp-1"])
def test_plain_names_stay_as_they_are(name):
    assert safe_name(name) == name


def test_a_table_by_the_name_that_versions_before_gave_it_is_found(tmp_path):
    path = tmp_path / "units" / "Mixed_5b.branch1x1.relu.parquet"
    assert table_file(tmp_path, "units", "Mixed_5b.branch1x1.relu") != path
    path.parent.mkdir()
    path.touch()
    assert table_file(tmp_path, "units", "Mixed_5b.branch1x1.relu") == path
    assert table_file(tmp_path, "units", "Mixed_5b.branch1x1.relu", new=True) != path
