"""Decoding on the device, tried on the CPU, whose decoder and resize of tensors stand behind the same calls."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from actmine.pipeline.datasets.batches import read_batches
from actmine.pipeline.datasets.sources import blocks_of, find_dataset
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import load_network
from actmine.pipeline.preprocessing.device_decode import DeviceDecoder
from actmine.pipeline.preprocessing.images import Preprocessing, decode, jpeg_size, network_pixels
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.readings.taps import TappedNetwork
from actmine.pipeline.scanning.compute import Compute, Runner
from actmine.pipeline.scanning.scan import BlockState, ScanSettings, scan
from actmine.pipeline.stages.mine import MineSettings, mine
from tests.making import encoded, jpeg, picture

CPU = torch.device("cpu")
HOW = Preprocessing.usual(24, (20, 20))


def test_pixels_are_those_of_pillow_up_to_a_few_levels():
    images = [np.frombuffer(jpeg(seed, 60 + seed, 47), np.uint8) for seed in range(6)]
    pixels, lost = DeviceDecoder(HOW, CPU)(images)
    wanted = np.stack([network_pixels(decode(image.tobytes()), HOW) for image in images])
    assert not lost and pixels.shape == (6, 20, 20, 3) and pixels.dtype is torch.uint8
    assert np.abs(pixels.numpy().astype(int) - wanted.astype(int)).max() <= 3


def test_one_broken_image_does_not_spoil_the_others_and_pixels_pass_through():
    good, other = (np.frombuffer(jpeg(seed), np.uint8) for seed in (1, 2))
    broken = good[: len(good) // 2]
    ready = np.full((20, 20, 3), 7, np.uint8)
    pixels, lost = DeviceDecoder(HOW, CPU)([good, broken, ready, other])
    assert list(lost) == [1] and "truncated" in lost[1].lower()
    alone, _ = DeviceDecoder(HOW, CPU)([good])
    assert len(pixels) == 3 and torch.equal(pixels[0], alone[0]) and (pixels[1] == 7).all()


def test_only_jpegs_in_rgb_or_grey_are_left_to_the_device():
    assert jpeg_size(encoded(picture(31, 22))) == (31, 22)
    assert jpeg_size(encoded(picture(mode="L"))) is not None
    assert jpeg_size(encoded(picture().convert("CMYK"))) is None
    assert jpeg_size(encoded(picture(), "PNG")) is None
    assert jpeg_size(b"\xff\xd8 no header") is None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """JPEGs, PNGs, one of either broken, one that is CMYK."""
    for number in range(40):
        kind = "PNG" if number % 5 == 4 else "JPEG"
        data = encoded(picture(50, 44, number, "CMYK" if number == 7 else "RGB"), kind)
        path = tmp_path / f"{number:02d}.{'png' if kind == 'PNG' else 'jpg'}"
        path.write_bytes(data[: len(data) // 2] if number in (3, 14) else data)
    return tmp_path


def scanned(folder: Path, decoder: str) -> BlockState:
    network = load_network("demo")
    traced = Traced(network.module, network.input_shape)
    tapped = TappedNetwork(traced, traced.choose("stem.*"))
    how = Compute(CPU, batch_size=8)
    runner = Runner(tapped, network.preprocessing, how, 2)
    settings = ScanSettings(network.preprocessing, StatisticsOptions(40), how, decoder)
    (state,) = scan(blocks_of(find_dataset(str(folder))), runner, settings)
    return state


def test_a_scan_with_it_accounts_for_every_image_and_finds_nearly_the_same(folder):
    exact, near = scanned(folder, "pillow"), scanned(folder, "nvjpeg")
    assert near.shards.equals(exact.shards) and near.skipped.equals(exact.skipped)
    assert near.skipped["position"].to_pylist() == [3, 14]
    assert near.members.equals(exact.members)
    one, other = (state.accumulators["statistics"].state()["sum"] for state in (exact, near))
    torch.testing.assert_close(other, one, rtol=0.02, atol=0.1)


def test_batches_of_encoded_images_hold_the_same_members(folder):
    shards = find_dataset(str(folder)).shards
    plain = [member for batch in read_batches(shards, HOW, 8, 2) for member in batch.members]
    kept = list(read_batches(shards, HOW, 8, 2, encoded=True))
    assert [m.position for m in plain] == [m.position for batch in kept for m in batch.members if m.position != 3]
    assert all(len(batch.encoded) == len(batch.members) and not len(batch.pixels) for batch in kept)


def test_without_a_gpu_it_is_refused_by_name(folder, tmp_path):
    network = load_network("demo")
    traced = Traced(network.module, network.input_shape)
    with pytest.raises(UserError, match="nvjpeg decodes on an NVIDIA GPU, not on cpu"):
        mine(
            find_dataset(str(folder)), network, traced, traced.choose("stem.*"), tmp_path / "run", CPU,
            MineSettings(decoder="nvjpeg"),
        )  # fmt: skip
