"""What pages show, as plain records; a number that a run does not have is None, a list it does not have is empty."""

from __future__ import annotations

from dataclasses import dataclass

from actmine.pipeline.atlas.figures import percent
from actmine.pipeline.atlas.links import Picture
from actmine.pipeline.readings.statistics_options import TOP

Box = tuple[int, int, int, int]
"""left, top, right, bottom, half-open (pixels of the original image)."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer; sizes of its map in positions, of the field and the stride in pixels of the network's input."""

    name: str
    units: int
    kind: str
    map: tuple[int, int] | None
    field: tuple[int, int]
    whole: bool
    note: str | None
    stride: tuple[int, int] | None
    made: str = ""
    """Of latents of a dictionary: of what they are, and how well they make it again, in a sentence."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit's numbers, see actmine/schemas/units.py; `picture` is what its tile shows.

    `name` is that of a direction whose dictionary names it. `label` is the one to show; `shared`, `node` and
    `best_label` are those whose evidence is enough, see `naming`.
    """

    layer: str
    unit: int
    images: int | None = None
    nan: int = 0
    maximum: float | None = None
    minimum: float | None = None
    mean: float | None = None
    deviation: float | None = None
    rate: float | None = None
    density: float | None = None
    name: str | None = None
    label: str | None = None
    shared: str | None = None
    purity: float | None = None
    purity_q: float | None = None
    chance: float | None = None
    node: str | None = None
    node_path: str | None = None
    node_correlation: float | None = None
    node_q: float | None = None
    node_auc: float | None = None
    node_auc_low: float | None = None
    node_auc_high: float | None = None
    best_label: str | None = None
    correlation: float | None = None
    correlation_q: float | None = None
    selectivity: float | None = None
    auc: float | None = None
    auc_low: float | None = None
    auc_high: float | None = None
    understood: float | None = None
    understood_drawn: float | None = None
    reached: float | None = None
    ratio: float | None = None
    rank: int | None = None
    preset: str | None = None
    attempts: int | None = None
    drawn: bool = False
    picture: Picture | None = None

    @property
    def said(self) -> str:
        """Its name, all labels that may be named of it, and the nodes above, for what looks through them."""
        return " | ".join(filter(None, (self.name, self.shared, self.node_path or self.node, self.best_label)))

    @property
    def evidence(self) -> str:
        """How good the label to show is: the share of the exemplars that have it, or the correlation with it."""
        if self.shared:
            return percent(self.purity)
        told = self.node_correlation if self.node else self.correlation
        return "" if told is None else f"{told:.2f}"

    @property
    def fires(self) -> bool:
        """Whether any image drives it above zero."""
        return self.maximum is not None and self.maximum > 0


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One exemplar; `box` and `focus` are None where their place in the original is not known."""

    layer: str
    unit: int
    rank: int
    band: str
    activation: float
    image_id: int
    key: str
    label: str | None
    position: tuple[int, int] | None
    box: Box | None
    focus: Box | None
    clipped: bool
    crop: Picture | None
    crop_activation: float | None
    size: tuple[int, int] | None
    facet: int | None = None
    views: tuple[View, ...] = ()
    heat: Heat | None = None
    token: str = ""

    @property
    def note(self) -> str:
        """Which exemplar it is, how strong, and at which token where that has no place."""
        which = f"rank {self.rank}" if self.band == TOP else self.band
        return f"{which}, {self.token} token" if self.token not in ("", "patch") else which


@dataclass(frozen=True, slots=True)
class Heat:
    """Where an exemplar makes its unit active: a `picture` to lie over its image from `left` and `top` on (pixels)."""

    picture: Picture
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class View:
    """An exemplar's activation carried back to pixels by `method`."""

    method: str
    picture: Picture


@dataclass(frozen=True, slots=True)
class Drawing:
    """One picture that gradient ascent drew: of a preset, or of one facet of a unit."""

    preset: str
    facet: int | None
    picture: Picture
    activation: float | None
    ratio: float | None
    rank: int | None = None
    silhouette: float | None = None
    exemplars: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A unit that is alike: `beyond` chance or not, None where the run does not say."""

    unit: Unit
    similarity: float
    beyond: bool | None = None
    chance: float | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """A unit of another run that is alike, see `Neighbour`; its picture where that run is at hand, drawn or a crop, and
    whether its pixels are to be seen."""

    run: str
    layer: str
    unit: int
    similarity: float
    picture: Picture | None = None
    drawn: bool = False
    label: str | None = None
    beyond: bool | None = None
    chance: float | None = None
    crisp: bool = False
    place: str = ""
    address: str = ""
    """Where that run is, and which part of addresses stands for the layer."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A unit at a checkpoint of training: how like its last state it was, and how like the one `before`.

    `heir` is the unit of the end that is most like it, with their similarity, where that is beyond chance.
    """

    name: str
    checkpoint: int
    varies: bool
    similarity: float | None
    chance: float | None
    beyond: bool
    before: float | None
    born: bool
    lost: bool
    heir: tuple[str, int, float] | None
    picture: Picture | None = None
    crisp: bool = False
    place: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True)
class Share:
    """A label's part: how many of the exemplars that fire have it; or, over the dataset, what its images do."""

    label: str
    images: int
    mean: float | None = None
    maximum: float | None = None


@dataclass(frozen=True, slots=True)
class UnitPage:
    """All that a run holds about a unit."""

    unit: Unit
    top: tuple[Exemplar, ...]
    bands: tuple[tuple[str, tuple[Exemplar, ...]], ...] = ()
    drawings: tuple[Drawing, ...] = ()
    facets: tuple[Drawing, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    directions: tuple[Neighbour, ...] = ()
    shares: tuple[Share, ...] = ()
    labels: tuple[Share, ...] = ()
    counts: tuple[int, ...] = ()
    quantiles: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Image:
    """One image of the dataset."""

    image_id: int
    key: str
    label: str | None
    size: tuple[int, int]
    path: str
    shard: str


@dataclass(frozen=True, slots=True)
class Unkept:
    """An image of the dataset that no exemplar names: the sample at `position` of the `members` of its shard, from 0.

    `key` and `error` are known of one that was skipped.
    """

    image_id: int
    shard: str
    position: int
    members: int
    key: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found, each list cut at the most that a page shows; `near` are names like it, if nothing was."""

    text: str
    layers: tuple[Layer, ...] = ()
    units: tuple[Unit, ...] = ()
    labels: tuple[tuple[str, tuple[Unit, ...]], ...] = ()
    images: tuple[Image, ...] = ()
    cut: bool = False
    near: tuple[str, ...] = ()

    @property
    def any(self) -> bool:
        """Whether it found anything."""
        return bool(self.layers or self.units or self.labels or self.images)
