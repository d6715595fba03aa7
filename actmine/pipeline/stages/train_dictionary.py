"""Trains a top-k dictionary on a layer's vectors over a dataset, and writes it as SAELens does; resumable."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from actmine.pipeline.datasets.shards import Shard
from actmine.pipeline.dictionaries.saelens import CONFIG, WEIGHTS, written_as
from actmine.pipeline.dictionaries.training import Training
from actmine.pipeline.errors import Damaged, UserError
from actmine.pipeline.network.layer import Latents
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import Network
from actmine.pipeline.progress import Progress, Silent
from actmine.pipeline.stages.layer_vectors import Chunk, LayerVectors
from actmine.pipeline.storage.files import alone, remove_files, write_bytes, written_aside
from actmine.pipeline.storage.fingerprint import fingerprint
from actmine.pipeline.storage.tensors import read_tensors, write_tensors

STATE = "training.safetensors"
_BATCH = 2048
_CHUNK_BYTES = 1 << 30  # of vectors held in memory
_LEAST_OF_AN_IMAGE = 16  # positions, before a pass over the dataset falls into several chunks
_SECONDS = 30.0  # between states that are kept
_FIRST = 1 << 16  # vectors whose mean it begins with
_LEAST_HELD, _MOST_HELD = 256, 1 << 16  # vectors held out that are measured


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """`latents` of which `k` are active at a position, learned from `vectors` of them."""

    latents: int
    k: int
    vectors: int
    seed: int = 0


def train_dictionary(
    network: Network,
    traced: Traced,
    its: Latents,
    shards: Sequence[Shard],
    images: int,
    out: Path,
    settings: TrainingSettings,
    about: Mapping[str, Any],
    progress: Progress = Silent(),
) -> dict[str, Any]:
    """Writes a dictionary of the vectors that `its` says into the folder `out`; returns what is known of it.

    `images` is about how many there are, `about` is recorded beside it. An interrupted call goes on where it stopped.
    Raises `UserError` for a folder that holds another dictionary, and where no image can be read.
    """
    its_own = [settings.latents, settings.k, settings.vectors, settings.seed]
    known = fingerprint({"about": dict(about), "settings": its_own, "batch": _BATCH})
    with alone(out, progress.say):
        if (out / CONFIG).is_file():
            said = json.loads((out / CONFIG).read_bytes()).get("metadata", {})
            if said.get("training") != known:
                raise UserError(f"{out} holds another dictionary. Say another OUT, or remove it.")
            progress.say(f"{out} holds this dictionary already.")
            return dict(said["measured"])
        measured = _Trainer(network, traced, its, shards, images, out, settings, known, progress).go(about)
    shutil.rmtree(out / "state", ignore_errors=True)  # the lock
    return measured


class _Trainer:
    def __init__(
        self, network: Network, traced: Traced, its: Latents, shards: Sequence[Shard], images: int, out: Path,
        settings: TrainingSettings, known: str, progress: Progress,
    ) -> None:  # fmt: skip
        self.out, self.settings, self.known, self.progress = out, settings, known, progress
        layer = its.of
        positions = its.count or (layer.height or 1) * (layer.width or 1)
        most = max(_CHUNK_BYTES // (4 * layer.units), 4 * _BATCH)
        of_an_image = max(most // max(images, 1), _LEAST_OF_AN_IMAGE)
        self.vectors = LayerVectors(
            network, traced, its, shards, most, None if of_an_image >= positions else of_an_image, settings.seed
        )
        self.whole: Chunk | None = None
        """All vectors there are, where memory holds them."""
        self.turn, self.begin, self.done, self.all_held = 0, (0, 0), 0, False

    def go(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """Chunk after chunk until enough vectors were seen."""
        state, its = self._read_state(), self.settings
        chunk = self._chunk()
        first = chunk.learned[:: max(len(chunk.learned) // _FIRST, 1)]
        training = Training(first, its.latents, its.k, its.vectors, its.seed)
        if state:
            training.go_on_from(state)
        with self.progress.stage("Training", its.vectors, "vectors", training.seen) as advance:
            while training.seen < its.vectors:
                self._learn(training, chunk, advance)
                if training.seen < its.vectors:
                    chunk = self._chunk()
        return self._write(training, chunk, about)

    def _chunk(self) -> Chunk:
        """The vectors that are learned from now."""
        if self.whole is not None:
            return self.whole
        found = self.vectors.chunk(0, (0, 0)) if self.all_held else self.vectors.chunk(self.turn, self.begin)
        if len(found.learned) < 2:
            raise UserError("No image of the dataset could be read: there is nothing to learn from.")
        if self.all_held or (self.begin == (0, 0) and self.vectors.ends(found.after)):
            self.whole, self.all_held = found, True
        return found

    def _learn(self, training: Training, chunk: Chunk, advance: Callable[..., None]) -> None:
        """Learns from every vector of a chunk once, in random order."""
        learned = chunk.learned
        drawn = int(fingerprint({"order": [self.settings.seed, self.turn, *self.begin]})[:15], 16)
        order = torch.randperm(len(learned), generator=torch.Generator().manual_seed(drawn))
        size, kept = min(_BATCH, len(learned)), time.monotonic()
        for at in range(self.done, len(learned) - size + 1, size):
            left = training.step(learned[order[at : at + size]])
            self.done = at + size
            advance(size, f"{1 - left:.1%} of the variance explained")
            if training.seen >= self.settings.vectors:
                break
            if time.monotonic() - kept > _SECONDS:
                self._keep(training)
                kept = time.monotonic()
        else:
            self.done, self.begin = 0, chunk.after
            if self.vectors.ends(self.begin):
                self.turn, self.begin = self.turn + 1, (0, 0)
        self._keep(training)

    def _keep(self, training: Training) -> None:
        place = torch.tensor([self.turn, *self.begin, self.done, int(self.all_held)], dtype=torch.int64)
        tensors = {name: tensor.contiguous() for name, tensor in training.state().items()}
        with written_aside(self.out / STATE) as aside:
            write_tensors(aside, {**tensors, "place": place}, {"training": self.known})

    def _read_state(self) -> dict[str, torch.Tensor] | None:
        """What an interrupted call had kept, if it is of the same training."""
        try:
            tensors, about = read_tensors(self.out / STATE)
        except (OSError, Damaged):
            return None
        if about.get("training") != self.known:
            raise UserError(f"{self.out} holds the beginnings of another dictionary. Say another OUT, or remove it.")
        self.turn, row, batch, self.done, all_held = tensors.pop("place").tolist()
        self.begin, self.all_held = (row, batch), bool(all_held)
        self.progress.say(f"Going on after {int(tensors['numbers'][0]):,} vectors.")
        return tensors

    def _write(self, training: Training, chunk: Chunk, about: Mapping[str, Any]) -> dict[str, Any]:
        made = training.made()
        held = chunk.held if len(chunk.held) >= _LEAST_HELD else chunk.learned
        some = held[:: max(len(held) // _MOST_HELD, 1)]
        error = spread = count = 0.0
        mean = some.double().mean(0)
        for part in some.split(_BATCH):
            again, latents = made.reconstructed(part)
            error += float((again.double() - part.double()).square().sum())
            spread += float((part.double() - mean).square().sum())
            count += float(latents.sum())
        measured = {
            "explained_variance": 1 - error / max(spread, 1e-30), "latents_per_position": count / len(some),
            "dead_share": len(training.dead) / made.latents, "vectors_measured": len(some),
            "held_out": held is chunk.held, "vectors_seen": training.seen,
        }  # fmt: skip
        config, tensors = written_as(made, {**about, "training": self.known, "measured": measured})
        with written_aside(self.out / WEIGHTS) as aside:
            write_tensors(aside, {name: tensor.contiguous() for name, tensor in tensors.items()}, {})
        write_bytes(self.out / CONFIG, json.dumps(config, indent=1).encode() + b"\n")
        remove_files([self.out / STATE])
        return measured
