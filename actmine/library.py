"""What people call from Python: every command as a function, with the words of its options.

Written by `python -m actmine.options.as_functions` of the records in `actmine/options/`: change those.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from actmine.calls import call, run_after
from actmine.inspection import Inspection
from actmine.runs import Run, open_run

if TYPE_CHECKING:
    from torch import nn

    Transform = Callable[..., Any]


def mine(
    model: str | nn.Module,
    dataset: Any,
    *,
    weights: str | Path = "",
    layers: str | Sequence[str] = "",
    dictionary: str | Mapping[str, Any] = "",
    tokens: str = "",
    pool: str = "max",
    least_explained: float = 0.0,
    topk: int = 50,
    direction: str = "max",
    bands: str | Sequence[float] = "",
    band_images: int = 9,
    random_images: int = 0,
    run: str | Path | Run = "",
    device: str = "auto",
    engine: Literal["local", "ray"] = "local",
    focus: int = 0,
    check_crops: int = 0,
    views: int = 0,
    unit_map: bool | None = None,
    facets: bool = False,
    labels: bool = True,
    min_support: int = 5,
    label_tree: str = "auto",
    sketch: int = 1024,
    positions: str = "none",
    ignore_norm: float = 0.0,
    unique: bool = False,
    keep_maxima: str = "auto",
    pictures: str = "256",
    maps: int = 9,
    resize: str = "",
    crop: str = "",
    interpolation: str = "",
    mean: str | Sequence[float] = "",
    std: str | Sequence[float] = "",
    channels: int = 0,
    orientation: str = "",
    preset: str = "default",
    generator: str = "",
    visualize: bool | None = None,
    sheets: bool = True,
    seed: int = 0,
    precision: Literal["fp32", "bf16", "fp16"] = "fp32",
    compile: str = "auto",
    decoder: Literal["pillow", "nvjpeg"] = "pillow",
    allow_dependent: bool = False,
    batch_size: int = 0,
    workers: int = 0,
    worker_cores: int = 0,
    block_seconds: float = 1800.0,
    max_skipped: float = 0.01,
    data: str | Path = "data",
    quiet: bool = False,
    transform: Transform | None = None,
) -> Run:
    """Finds what every unit of a network responds to.

    One pass over the dataset keeps each unit's strongest images with the exact place; their receptive-field crops are
    cut from the originals; gradient ascent draws what the unit itself prefers. All of it becomes Parquet tables in RUN.

    Interrupt it at any time: the same command goes on where it stopped.

    Args:
        model: demo, a name of torchvision's, timm/NAME, hf/OWNER/NAME (transformers), open_clip/NAME,TAG, or
            package.module:factory (of your own). Default: demo for the demo, googlenet otherwise. Or a module of
            your own.
        dataset: demo, imagenet-val, imagenet-train, imagenette, a folder of images, tars or Parquet files (disk,
            https://, s3://), or hf://datasets/OWNER/NAME (gs://, az:// likewise). Or a torch Dataset, or one of
            Hugging Face.
        weights: Empty: the model's own. 'random'; the name of some that come with it (IMAGENET1K_V2, timm's
            a1_in1k); or a .safetensors/.pth file; FILE#part where it holds several (#teacher, #state.model).
        layers: Comma-separated globs or exact names. Default: every unit-bearing layer.
        dictionary: LAYER=PATH, several behind commas: the latents of a sparse autoencoder, or the rows of a
            matrix of directions, on that layer's tensor are units of a further layer LAYER:NAME
            (docs/guides/directions.md).
        tokens: Tokens that dictionaries encode: all, patch or cls; as they were trained.
        pool: Of a latent's positions: max, the largest, with its place; or mean, sum, or cls.
        least_explained: Share of a layer's variance that a dictionary has to explain, on first images.
        topk: Exemplars kept of each unit.
        direction: max, the strongest activations; min, the most negative; or both.
        bands: Percentiles, as 50,90,99: images drawn at random from around them are exemplars as well.
        band_images: Images of each unit drawn for each of BANDS.
        random_images: Images of each unit drawn at random from the whole dataset as well.
        run: Folder of the run, or s3://bucket/prefix. Default: runs/DATASET-MODEL.
        device: auto, cpu, cuda, cuda:1 or mps.
        engine: Where the work runs: local, or ray (every node of a Ray cluster; docs/cluster.md).
        focus: Exemplars of each unit whose focus is measured, as `focus` does; many times the scan.
        check_crops: Exemplars of each unit whose crop is checked, as `check` does. Costs many scans.
        views: Exemplars of each unit that are projected back to pixels by a deconvnet.
        unit_map: Lay out all units on a map, as `map` does. Default: if that takes at most a fifth of the scan
            and the extra map is installed.
        facets: Sort each unit's exemplars into the kinds of images that it answers to.
        labels: Statistics of each unit by label, and its selectivity.
        min_support: Images that a label has in each half of the dataset before units are said to tell it.
        label_tree: Kinds of labels, of which units are told as well: a CSV file with the columns label and
            parent, or JSON, {"beagle": "dog", "dog": "animal"}; auto: WordNet's above ImageNet's classes; none.
        sketch: Length of each unit's sketch, by which units alike are found (docs/units.md); 0: none.
        positions: none; or histograms of what units do at positions, beside those of maxima: at one of each map,
            drawn at random (sample, which costs nothing), or at all (all: 1.6 times as long on a CPU).
        ignore_norm: Leave out tokens of vision transformers whose vector is so many times as long as the median
            one of their image, as 10; 0: none (docs/guides/directions.md).
        unique: Of images that are nearly the same, keep one among a unit's exemplars.
        keep_maxima: 1 (float32) or float16: every image activation stays, in RUN/maxima. auto: for a while, where
            small.
        pictures: What is kept of images that win: a picture whose shorter side has so many pixels, with crops of
            what it does not show sharply; original, the file's own bytes; or none.
        maps: Exemplars of each unit whose activation map is kept, to show where it is active.
        resize: The short side's pixels; HEIGHTxWIDTH; or none: pictures stay as they are, and if all have one
            size, that is the network's input.
        crop: What is cut from the middle: pixels of a square, HEIGHTxWIDTH, or none.
        interpolation: Of the resize: bilinear, bicubic, nearest, lanczos, box or hamming.
        mean: Subtracted from pixels in 0..1: a number a channel, as 0.5,0.5,0.5.
        std: What they are then divided by: a number a channel.
        channels: 3, colour, or 1, grey. timm's networks are built for it.
        orientation: stored, or exif: turns images as their EXIF orientation says.
        preset: Recipe of the visualizations.
        generator: Of gan-prior: package.module:factory, or package.module:factory,weights.safetensors.
        visualize: Draw every unit by gradient ascent, or none. Default: all if that is estimated at ten minutes
            or less, else the most selective of each layer.
        sheets: Draw overviews, and contact sheets of 12 units of each layer; fewer, spread over the layers, where
            that would take more than about 120 seconds.
        seed: Seed of the visualizations.
        precision: Of the scan. bf16 is faster and shifts some top-k; ascent is always fp32.
        compile: 0, 1, or auto: compile the network where the scan is long enough to pay for it.
        decoder: pillow, exact; or nvjpeg, on the GPU, a few levels off: for hosts with few cores.
        allow_dependent: Mine layers that depend on the other images of a batch, or on chance, all the same;
            run.json says so.
        batch_size: Images a batch. Default: 16 on a CPU, 256 or what fits on a GPU.
        workers: Threads that decode and compute. Default: one per core. No table depends on it.
        worker_cores: Ray: cores of a worker. Default: 4, or a GPU's share of its node.
        block_seconds: Ray: a worker that gives no sign of getting on for so long is replaced.
        max_skipped: Share of samples that may be skipped before the run fails.
        data: Where named datasets live.
        quiet: Say nothing but errors.
        transform: What makes a tensor of a PIL image, for a module.

    Returns:
        The run, which remembers the network and the dataset.

    >>> run = actmine.mine(net, dataset, layers="layer4.*", transform=preprocess, run="runs/mine")  # doctest: +SKIP
    """
    return run_after("mine", locals())


def layers(
    model: str | nn.Module,
    *,
    weights: str | Path = "random",
    layers: str | Sequence[str] = "",
    resize: str = "",
    crop: str = "",
    interpolation: str = "",
    mean: str | Sequence[float] = "",
    std: str | Sequence[float] = "",
    channels: int = 0,
    transform: Transform | None = None,
) -> pd.DataFrame:
    """Lists layers with their units, map sizes and receptive fields.

    A glob selects among the unit-bearing layers: convolutions and linear maps after the normalization and activation
    that directly follow them, and residual sums. An exact name may be any node or module of the network.

    Args:
        model: demo, a name of torchvision's, timm/NAME, hf/OWNER/NAME (transformers), open_clip/NAME,TAG, or
            package.module:factory (of your own). Or a module of your own.
        weights: Empty: the model's own. 'random'; the name of some that come with it (IMAGENET1K_V2, timm's
            a1_in1k); or a .safetensors/.pth file; FILE#part where it holds several (#teacher, #state.model).
        layers: Comma-separated globs or exact names; all unit-bearing layers if empty.
        resize: The short side's pixels; HEIGHTxWIDTH; or none: pictures stay as they are, and if all have one
            size, that is the network's input.
        crop: What is cut from the middle: pixels of a square, HEIGHTxWIDTH, or none.
        interpolation: Of the resize: bilinear, bicubic, nearest, lanczos, box or hamming.
        mean: Subtracted from pixels in 0..1: a number a channel, as 0.5,0.5,0.5.
        std: What they are then divided by: a number a channel.
        channels: 3, colour, or 1, grey. timm's networks are built for it.
        transform: What makes a tensor of a PIL image, for a module.

    Returns:
        A row per layer with the columns of layers.parquet.

    >>> actmine.layers(net)[["layer", "units", "height", "width"]]  # doctest: +SKIP
    """
    return pd.DataFrame(call("layers", locals()))


def visualize(
    run: str | Path | Run,
    *,
    device: str = "auto",
    engine: Literal["local", "ray"] = "local",
    worker_cores: int = 0,
    block_seconds: float = 1800.0,
    quiet: bool = False,
    preset: str = "default",
    layers: str | Sequence[str] = "",
    units: str | Sequence[int] = "",
    generator: str = "",
    weights: str | Path = "",
    seed: int = 0,
    model: nn.Module | None = None,
    transform: Transform | None = None,
    dictionary: Mapping[str, Any] | None = None,
) -> Run:
    """Draws what units of a finished run prefer, by gradient ascent.

    Its network and weights are loaded again as run.json names them. RUN/visualizations/ holds a file for each layer and
    preset, so that presets stand side by side; the units table, sheets and overviews show the best of them.
    Units, layers and presets that are not named stay as they are; what the same recipe has drawn is not drawn again.

    Interrupt it at any time: the same command goes on where it stopped.

    Args:
        run: Folder of a finished run, or s3://bucket/prefix.
        device: auto, cpu, cuda, cuda:1 or mps.
        engine: Where the work runs: local, or ray (every node of a Ray cluster; docs/cluster.md).
        worker_cores: Ray: cores of a worker. Default: 4, or a GPU's share of its node.
        block_seconds: Ray: a worker that gives no sign of getting on for so long is replaced.
        quiet: Say nothing but errors.
        preset: The recipe: default, filter-max, noise, oygard-googlenet, oygard-vgg, oygard-class, yosinski-1,
            yosinski-2, yosinski-3, yosinski-4, deepdream, lucid, maco, mean-image, vital, gan-prior.
        layers: Comma-separated names or globs; all layers if empty.
        units: Numbers and spans such as 3,7,10-20; all units if empty.
        generator: Of gan-prior: package.module:factory, or package.module:factory,weights.safetensors.
        weights: Where the run's weights are now. Default: where they were when it was mined.
        seed: Another seed draws other pictures.
        model: The network, where the run was mined from one that has no name.
        transform: What makes its input of an image, likewise.
        dictionary: Its dictionaries by LAYER:NAME, where they were objects.

    Returns:
        The run, opened again.

    >>> actmine.visualize(run, preset="lucid", layers="layer4.*", units=[3, 7])  # doctest: +SKIP
    """
    return run_after("visualize", locals())


def views(
    run: str | Path | Run,
    *,
    device: str = "auto",
    engine: Literal["local", "ray"] = "local",
    worker_cores: int = 0,
    block_seconds: float = 1800.0,
    quiet: bool = False,
    method: str = "deconvnet",
    layers: str | Sequence[str] = "",
    most: int = 9,
    weights: str | Path = "",
    model: nn.Module | None = None,
    transform: Transform | None = None,
    dictionary: Mapping[str, Any] | None = None,
) -> Run:
    """Shows what of each exemplar drives its unit: the activation projected back to pixels.

    deconvnet (Zeiler and Fergus 2014) unpools with the switches of the forward pass, rectifies and convolves with
    transposed filters; guided (Springenberg et al. 2015) also closes the ReLUs that were closed on the way forward.
    Both are about ReLUs: other activations keep their own gradient. RUN/views/ holds a file for each layer and method;
    contact sheets show them below the crops, and `sheets --grids` draws them as Zeiler and Fergus did.

    The images are read again where they were mined. Interrupt it at any time: the same command goes on where it
    stopped.

    Args:
        run: Folder of a finished run, or s3://bucket/prefix.
        device: auto, cpu, cuda, cuda:1 or mps.
        engine: Where the work runs: local, or ray (every node of a Ray cluster; docs/cluster.md).
        worker_cores: Ray: cores of a worker. Default: 4, or a GPU's share of its node.
        block_seconds: Ray: a worker that gives no sign of getting on for so long is replaced.
        quiet: Say nothing but errors.
        method: deconvnet or guided.
        layers: Comma-separated names or globs; all layers if empty.
        most: Exemplars of each unit that get views.
        weights: Where the run's weights are now. Default: where they were when it was mined.
        model: The network, where the run was mined from one that has no name.
        transform: What makes its input of an image, likewise.
        dictionary: Its dictionaries by LAYER:NAME, where they were objects.

    Returns:
        The run, opened again.

    >>> actmine.views(run, layers="layer3.*", method="guided")  # doctest: +SKIP
    """
    return run_after("views", locals())


def focus(
    run: str | Path | Run,
    *,
    device: str = "auto",
    engine: Literal["local", "ray"] = "local",
    worker_cores: int = 0,
    block_seconds: float = 1800.0,
    quiet: bool = False,
    layers: str | Sequence[str] = "",
    units: str | Sequence[int] = "",
    most: int = 9,
    weights: str | Path = "",
    model: nn.Module | None = None,
    transform: Transform | None = None,
    dictionary: Mapping[str, Any] | None = None,
) -> Run:
    """Measures the focus of exemplars: the part of the receptive field that the activation truly depends on.

    It is the smallest box with 95% of the unit's squared input gradient (Luo et al. 2016), for layers whose field is
    larger than half of the input. Columns focus_left to focus_bottom of RUN/exemplars/ hold it; sheets show it with
    `--field focus`, the atlas outlines it. An image goes forward once, and back for each exemplar: many times the scan.

    What other calls have measured stays: calls for further layers, units and exemplars add up. The images are read
    again where they were mined. Interrupt it at any time: the same command goes on where it stopped.

    Args:
        run: Folder of a finished run, or s3://bucket/prefix.
        device: auto, cpu, cuda, cuda:1 or mps.
        engine: Where the work runs: local, or ray (every node of a Ray cluster; docs/cluster.md).
        worker_cores: Ray: cores of a worker. Default: 4, or a GPU's share of its node.
        block_seconds: Ray: a worker that gives no sign of getting on for so long is replaced.
        quiet: Say nothing but errors.
        layers: Comma-separated names or globs; all layers if empty.
        units: Numbers and spans such as 3,7,10-20; all units if empty.
        most: Exemplars of each unit that are measured.
        weights: Where the run's weights are now. Default: where they were when it was mined.
        model: The network, where the run was mined from one that has no name.
        transform: What makes its input of an image, likewise.
        dictionary: Its dictionaries by LAYER:NAME, where they were objects.

    Returns:
        The run, opened again.

    >>> actmine.focus(run, layers="layer4.*", most=3)  # doctest: +SKIP
    """
    return run_after("focus", locals())


def check(
    run: str | Path | Run,
    *,
    device: str = "auto",
    engine: Literal["local", "ray"] = "local",
    worker_cores: int = 0,
    block_seconds: float = 1800.0,
    quiet: bool = False,
    layers: str | Sequence[str] = "",
    units: str | Sequence[int] = "",
    most: int = 9,
    weights: str | Path = "",
    model: nn.Module | None = None,
    transform: Transform | None = None,
    dictionary: Mapping[str, Any] | None = None,
) -> Run:
    """Checks crops: what the pixels inside an exemplar's box drive its unit to when the network sees nothing else.

    They are put back at their place in a picture that has the network's mean colour everywhere else. An activation
    close to that of the whole image says that box, crop and position are right. Column crop_activation of
    RUN/exemplars/ holds it. Every box of an image is a forward pass of its own, as far as its units depend on it: many
    times the scan.

    What other calls have checked stays: calls for further layers, units and exemplars add up. Images of which the run
    holds a reduced picture are read again. Interrupt it at any time: the same command goes on where it stopped.

    Args:
        run: Folder of a finished run, or s3://bucket/prefix.
        device: auto, cpu, cuda, cuda:1 or mps.
        engine: Where the work runs: local, or ray (every node of a Ray cluster; docs/cluster.md).
        worker_cores: Ray: cores of a worker. Default: 4, or a GPU's share of its node.
        block_seconds: Ray: a worker that gives no sign of getting on for so long is replaced.
        quiet: Say nothing but errors.
        layers: Comma-separated names or globs; all layers if empty.
        units: Numbers and spans such as 3,7,10-20; all units if empty.
        most: Exemplars of each unit whose crop is checked.
        weights: Where the run's weights are now. Default: where they were when it was mined.
        model: The network, where the run was mined from one that has no name.
        transform: What makes its input of an image, likewise.
        dictionary: Its dictionaries by LAYER:NAME, where they were objects.

    Returns:
        The run, opened again.

    >>> actmine.check(run, layers="layer4.*", units=range(10))  # doctest: +SKIP
    """
    return run_after("check", locals())


def facets(
    run: str | Path | Run,
    *,
    device: str = "auto",
    engine: Literal["local", "ray"] = "local",
    worker_cores: int = 0,
    block_seconds: float = 1800.0,
    quiet: bool = False,
    layers: str | Sequence[str] = "",
    units: str | Sequence[int] = "",
    weights: str | Path = "",
    model: nn.Module | None = None,
    transform: Transform | None = None,
    dictionary: Mapping[str, Any] | None = None,
) -> Run:
    """Sorts each unit's exemplars into facets: the kinds of images that it answers to.

    The network's own last layer says which images are alike. A unit has one facet unless its exemplars fall into groups
    that stand further apart than any cut through one cloud; up to four. Column facet of exemplars/, facets of units/.

    The images are read again where they were mined. Interrupt it at any time: the same command goes on where it
    stopped.

    Args:
        run: Folder of a finished run, or s3://bucket/prefix.
        device: auto, cpu, cuda, cuda:1 or mps.
        engine: Where the work runs: local, or ray (every node of a Ray cluster; docs/cluster.md).
        worker_cores: Ray: cores of a worker. Default: 4, or a GPU's share of its node.
        block_seconds: Ray: a worker that gives no sign of getting on for so long is replaced.
        quiet: Say nothing but errors.
        layers: Comma-separated names or globs; all layers if empty.
        units: Numbers and spans such as 3,7,10-20; all units if empty.
        weights: Where the run's weights are now. Default: where they were when it was mined.
        model: The network, where the run was mined from one that has no name.
        transform: What makes its input of an image, likewise.
        dictionary: Its dictionaries by LAYER:NAME, where they were objects.

    Returns:
        The run, opened again.

    >>> actmine.facets(run, layers="layer4.*")  # doctest: +SKIP
    """
    return run_after("facets", locals())


def score(
    run: str | Path | Run,
    *,
    device: str = "auto",
    engine: Literal["local", "ray"] = "local",
    worker_cores: int = 0,
    block_seconds: float = 1800.0,
    quiet: bool = False,
    layers: str | Sequence[str] = "",
    units: str | Sequence[int] = "",
    similarity: str = "builtin",
    weights: str | Path = "",
    model: nn.Module | None = None,
    transform: Transform | None = None,
    dictionary: Mapping[str, Any] | None = None,
) -> Run:
    """Scores how well units can be understood from their exemplars, and from their visualizations.

    The machine interpretability score (Zimmermann, Klindt, Brendel 2024) puts a task to a measure of similarity: of two
    images that were not shown, which is more like those that drive the unit hardest? 0.5 is chance, 1 certainty. The
    run must hold weak images as well: mine it with --bands 5 --band-images 40. docs/units.md says more.

    The images are read again where they were mined. Interrupt it at any time: the same command goes on where it
    stopped.

    Args:
        run: Folder of a finished run, or s3://bucket/prefix.
        device: auto, cpu, cuda, cuda:1 or mps.
        engine: Where the work runs: local, or ray (every node of a Ray cluster; docs/cluster.md).
        worker_cores: Ray: cores of a worker. Default: 4, or a GPU's share of its node.
        block_seconds: Ray: a worker that gives no sign of getting on for so long is replaced.
        quiet: Say nothing but errors.
        layers: Comma-separated names or globs; all layers if empty.
        units: Numbers and spans such as 3,7,10-20; all units if empty.
        similarity: builtin (the run's own network), dreamsim, lpips, or package.module:factory (of your own).
        weights: Where the run's weights are now. Default: where they were when it was mined.
        model: The network, where the run was mined from one that has no name.
        transform: What makes its input of an image, likewise.
        dictionary: Its dictionaries by LAYER:NAME, where they were objects.

    Returns:
        The run, opened again.

    >>> actmine.score(run, layers="layer4.*")  # doctest: +SKIP
    """
    return run_after("score", locals())


def activation_atlas(
    run: str | Path | Run,
    layer: str,
    *,
    device: str = "auto",
    engine: Literal["local", "ray"] = "local",
    worker_cores: int = 0,
    block_seconds: float = 1800.0,
    quiet: bool = False,
    grids: str = "",
    images: int = 100000,
    least: int = 4,
    preset: str = "default",
    generator: str = "",
    label_tree: str = "auto",
    weights: str | Path = "",
    dataset: str = "",
    data: str | Path = "data",
    seed: int = 0,
    model: nn.Module | None = None,
    transform: Transform | None = None,
    dictionary: Mapping[str, Any] | None = None,
) -> Run:
    """Makes the activation atlas of a layer of a finished run: what the network sees, combinations of units and all.

    Of each image one position is drawn; the layer's vectors there are laid out on a map, so that alike ones lie side by
    side; and for each cell of a grid over it ascent draws the mean direction. RUN/atlas_points/ has the positions,
    atlas_cells/ cells with their drawings, labels and units, atlas_crops/ crops of images; the atlas shows them as a
    map.
    After Carter et al., Exploring Neural Networks with Activation Atlases (Distill 2019).

    Interrupt it at any time: the same command goes on where it stopped.

    Args:
        run: Folder of a finished run, or s3://bucket/prefix.
        layer: The layer: its name.
        device: auto, cpu, cuda, cuda:1 or mps.
        engine: Where the work runs: local, or ray (every node of a Ray cluster; docs/cluster.md).
        worker_cores: Ray: cores of a worker. Default: 4, or a GPU's share of its node.
        block_seconds: Ray: a worker that gives no sign of getting on for so long is replaced.
        quiet: Say nothing but errors.
        grids: Cells a side, one number a zoom level, as 10,20,40. Default: fitted to the images.
        images: Images at most, drawn at random where there are more.
        least: Images of a cell, at least; with fewer it stays empty.
        preset: The recipe of ascent: default, filter-max, noise, oygard-googlenet, oygard-vgg, oygard-class,
            yosinski-1, yosinski-2, yosinski-3, yosinski-4, lucid, maco, gan-prior.
        generator: Of gan-prior: package.module:factory, or package.module:factory,weights.safetensors.
        label_tree: Kinds of labels, as of mine: a CSV or JSON file, auto or none.
        weights: Where the run's weights are now. Default: where they were when it was mined.
        dataset: Where the run's dataset is now. Default: where it was mined.
        data: Where named datasets live.
        seed: Of the positions, the layout and the drawings.
        model: The network, where the run was mined from one that has no name.
        transform: What makes its input of an image, likewise.
        dictionary: Its dictionaries by LAYER:NAME, where they were objects.

    Returns:
        The run, opened again.

    >>> actmine.activation_atlas(run, "layer4.1.relu").activation_atlas("layer4.1.relu").cells  # doctest: +SKIP
    """
    return run_after("activation_atlas", locals())


def dictionary(
    run: str | Path | Run,
    layer: str,
    *,
    latents: int = 0,
    k: int = 16,
    vectors: int = 4000000,
    tokens: str = "",
    out: str | Path = "",
    seed: int = 0,
    dataset: str = "",
    data: str | Path = "data",
    weights: str | Path = "",
    quiet: bool = False,
    model: nn.Module | None = None,
    transform: Transform | None = None,
    dictionary: Mapping[str, Any] | None = None,
) -> Path:
    """Trains a sparse dictionary on the vectors of a layer: directions whose combinations, a few at a time, make them.

    A top-k autoencoder (Gao et al. 2024), on the images that the run was mined over, which go through the network
    again; no activation is written. OUT is in the layout of SAELens. Its latents are units for `mine`.

    Interrupt it at any time: the same command goes on where it stopped.

    Args:
        run: Folder of a finished run, or s3://bucket/prefix.
        layer: The layer: its name.
        latents: How many. Default: 8 times the layer's units.
        k: Latents that are active at a position.
        vectors: Vectors to learn from, each as often as it takes.
        tokens: Tokens to learn from: all, patch or cls.
        out: Folder to write to. Default: RUN/dictionaries/LAYER/LATENTS.
        seed: Of its beginnings and of the order of vectors.
        dataset: Where the run's dataset is now. Default: where it was mined.
        data: Where named datasets live.
        weights: Where the run's weights are now. Default: where they were when it was mined.
        quiet: Say nothing but errors.
        model: The network, where the run was mined from one that has no name.
        transform: What makes its input of an image, likewise.
        dictionary: Its dictionaries by LAYER:NAME, where they were objects.

    Returns:
        The folder of the dictionary.

    >>> actmine.dictionary(run, "layer4.1.add", latents=4096)  # doctest: +SKIP
    """
    return Path(call("dictionary", locals())["folder"])


def compare(
    run: str | Path | Run,
    other: str | Path | Run,
    *,
    layers: str | Sequence[str] = "",
    most: int = 5,
    search: str = "exact",
    both: bool = False,
    checkpoints: bool = False,
    device: str = "auto",
    quiet: bool = False,
) -> pd.DataFrame:
    """Finds for each unit of RUN the units of OTHER that respond to the same images.

    Both runs were mined over the same dataset, with sketches of the same length (what `mine` does by default).
    RUN/matches/ gets a table named after OTHER's folder; it replaces the one of the same run. A similarity is the
    estimated correlation of image activations over the whole dataset; docs/units.md says how good the estimate is.

    OTHER may name several runs, by commas or a pattern: each is compared with RUN. With `--checkpoints` they are
    checkpoints of RUN's network in training, the oldest first (a pattern's in the order of the numbers in their names),
    and RUN is the last: RUN/checkpoints/ says of every unit when it came to be, how it drifted and what was lost.

    Args:
        run: Folder of a finished run, or s3://bucket/prefix.
        other: Another run over the same dataset, as a rule of another network; several by commas or *.
        layers: Comma-separated names or globs of RUN's layers; all if empty.
        most: Matches of each unit.
        search: exact or faiss (which needs faiss): both find the same.
        both: The other way round as well: OTHER's matches in RUN, into OTHER/matches/.
        checkpoints: OTHER are checkpoints of RUN's network: follow its units.
        device: auto, cpu, cuda, cuda:1 or mps.
        quiet: Say nothing but errors.

    Returns:
        The matches, a row per unit and rank, as in RUN/matches/.

    >>> actmine.compare(run, other).head()  # doctest: +SKIP
    """
    return pd.read_parquet(call("compare", locals())["table"])


def map(
    run: str | Path | Run,
    *,
    layers: str | Sequence[str] = "",
    by: Literal["units", "images"] = "units",
    seed: int = 0,
    out: str | Path = "",
    quiet: bool = False,
) -> Run:
    """Lays out all units of RUN in a plane, so that those that respond to the same images lie together.

    t-SNE of the sketches of RUN, or, of images, of the units that each drives. RUN/map.parquet (or map_images.parquet)
    holds the places, the atlas shows them, and both say how much of what is near is near on the map: no plane can hold
    all of it. The same run gives the same map.

    Args:
        run: Folder of a finished run, or s3://bucket/prefix.
        layers: Comma-separated names or globs; all layers if empty.
        by: What lies on it: units, or images by the units that they drive.
        seed: Another seed, another layout of the same neighbours.
        out: Also a picture of it: a file .png, .svg or .pdf.
        quiet: Say nothing but errors.

    Returns:
        The run, opened again.

    >>> actmine.map(run, layers="layer4.*").map()  # doctest: +SKIP
    """
    return run_after("map", locals())


def inspect(
    image: str | Path,
    *,
    other: str | Path | Run = "",
    run: str | Path | Run = "",
    model: str | nn.Module = "",
    weights: str | Path = "",
    layers: str | Sequence[str] = "",
    most: int = 24,
    attention: bool = True,
    class_: str = "",
    out: str | Path = "",
    quiet: bool = False,
    transform: Transform | None = None,
) -> Inspection:
    """Shows a picture to a network, and what every layer makes of it: the units that stand out, lit where they fire.

    With a run, units are chosen by how far they are above their mean over its dataset, and stand beside their own
    visualization and strongest images. One PNG for each layer, and a page with all of them: OUT/index.html.

    Args:
        image: The picture.
        other: Another one, to compare: the same units of both, side by side.
        run: A finished run: its network, its units' own pictures and strongest images.
        model: Without a run. demo, a name of torchvision's, timm/NAME, hf/OWNER/NAME (transformers),
            open_clip/NAME,TAG, or package.module:factory (of your own). Or a module of your own.
        weights: Empty: the model's own. 'random'; the name of some that come with it (IMAGENET1K_V2, timm's
            a1_in1k); or a .safetensors/.pth file; FILE#part where it holds several (#teacher, #state.model).
        layers: Comma-separated names or globs; all layers if empty.
        most: Units shown of each layer.
        attention: Grad-CAM: where in the picture a class is decided.
        class_: Whose: a name or a number. Default: the class that the network predicts.
        out: Folder to write to. Default: inspections/IMAGE-MODEL.
        quiet: Say nothing but errors.
        transform: What makes a tensor of a PIL image, for a module.

    Returns:
        The pictures, the page that shows them, and which units stand out in each layer.

    >>> actmine.inspect("dog.jpg", model=net, layers="layer4.*")  # doctest: +SKIP
    """
    return Inspection(**call("inspect", locals()))


def notes(
    run: str | Path | Run,
    *,
    to: str = "",
    take: str = "",
    quiet: bool = False,
) -> pd.DataFrame:
    """Shows what is noted of a run's units, layers and images; writes it to a file, or takes another run's notes in.

    Notes are typed in the atlas, and kept in RUN/notes.jsonl: a line for each thing that was said, in order, with its
    time and author. Files of several people are taken in one after the other; what was said last holds.

    Args:
        run: Folder of a finished run, or s3://bucket/prefix.
        to: File to write to: .jsonl, all that was said; .csv, .json or .parquet, what holds.
        take: A notes.jsonl whose lines are taken in; those that are there already stay.
        quiet: Say nothing but errors.

    Returns:
        What is noted: a row per unit, layer or image.

    >>> actmine.notes(run)  # doctest: +SKIP
    """
    return open_run(call("notes", locals())["run"]).notes()


def sheets(
    run: str | Path | Run,
    *,
    layers: str | Sequence[str] = "",
    units: str | Sequence[int] = "",
    most: int | None = None,
    field: Literal["box", "focus"] = "box",
    views: bool = True,
    method: str = "",
    maps: bool = True,
    preset: str = "",
    grids: bool = False,
    cells: bool = False,
    overviews: bool = True,
    format: Literal["png", "pdf", "svg"] = "png",
    paper: Literal["a4", "letter"] = "a4",
    large: int = 5,
    columns: int = 9,
    crops: int = 50,
    quiet: bool = False,
) -> list[Path]:
    """Draws contact sheets: one picture per unit and an overview of each layer.

    A sheet shows what the unit itself prefers, its numbers, and the image regions that drive it hardest, the first
    few within their whole image. Files: RUN/sheets/LAYER/UNIT.png, RUN/sheets/LAYER/overview.png and, with --grids,
    RUN/sheets/LAYER/views.png.

    The most selective units fire, and their exemplars share a label more than others' do.

    Args:
        run: Folder of a finished run, or s3://bucket/prefix.
        layers: Comma-separated names or globs; all layers if empty.
        units: Numbers and spans such as 3,7,10-20; all units if empty.
        most: Only the N most selective units of each layer; 0: none.
        field: What crops show: box, all that a unit sees; or focus, the part that matters, if measured.
        views: Below large crops what of them drives the unit, where `views` projected them.
        method: Which views: deconvnet or guided. Default: whichever there are.
        maps: Heat maps over large crops and their whole images: where the unit is active.
        preset: Whose visualizations: of what `visualize` drew. Default: each unit's best of all.
        grids: Also views of units beside the patches they are of, as Zeiler and Fergus drew them.
        cells: Also the map of each level of activation atlases.
        overviews: Also one overview of each layer.
        format: png for screens; pdf or svg for paper, with text and lines sharp.
        paper: Pages of a PDF: a4 or letter.
        large: How many crops of a unit are large, above their whole images.
        columns: Columns of the smaller crops.
        crops: How many crops of a unit there are in all, at most.
        quiet: Say nothing but errors.

    Returns:
        The files that were written.

    >>> actmine.sheets(run, layers="layer4.*", units=range(10), format="pdf")  # doctest: +SKIP
    """
    return list(call("sheets", locals())["sheets"])


def atlas_export(
    run: str | Path | Run,
    out: str | Path,
    *,
    layers: str | Sequence[str] = "",
    quiet: bool = False,
) -> Path:
    """Writes the atlas as plain files, which open from the folder or from any web host.

    They hold every picture that they show, the whole images reduced: look at the dataset's licence before you put
    them where others see them.

    Example:  atlas-export --run runs/demo-demo --out site --layers 'block5.*'

    Args:
        run: Folder of a finished run, or s3://bucket/prefix.
        out: Folder for the pages: new, empty, or of an export before.
        layers: Comma-separated names or globs; all layers if empty.
        quiet: Say nothing but errors.

    Returns:
        The page to open.

    >>> actmine.atlas_export(run, "site")  # doctest: +SKIP
    """
    return Path(call("atlas_export", locals())["page"])


def publish(
    run: str | Path | Run,
    to: str,
    *,
    license: str = "",
    title: str = "",
    pictures: bool = True,
    notes: bool = False,
    layers: str | Sequence[str] = "",
    exemplars: int = 9,
    image_pages: bool = False,
    public: bool = False,
    plan: bool = False,
    quiet: bool = False,
) -> str:
    """Publishes a run: its tables, its atlas as plain files, and a dataset card, in a folder, on S3 or on the hub.

    What would go out and how much it is, is said first. Tables name no folder of this machine. What is there already is
    not sent again, so that the same command goes on after a stop, and brings what has changed later.

    Args:
        run: Folder of a finished run, or s3://bucket/prefix.
        to: A new, an empty or a published folder; s3://bucket/prefix; or hf://datasets/OWNER/NAME.
        license: As the hub calls it, cc-by-4.0 say. Empty: the card says that none was stated.
        title: Of the card. Default: the network and the dataset.
        pictures: Pictures of the dataset's images, in tables and pages; those drawn by ascent stay.
        notes: What people noted, too, with their names.
        layers: Comma-separated names or globs: layers that have pages. The tables are whole.
        exemplars: Exemplars on a unit's page; 0: all. The tables hold all.
        image_pages: A page for each image, with the units that it drives hardest.
        public: A repository that is made on the hub is public; else private.
        plan: Only say what would go out.
        quiet: Say nothing but errors.

    Returns:
        Where it is.

    >>> actmine.publish(run, "published", license="cc-by-4.0")  # doctest: +SKIP
    """
    return str(call("publish", locals())["place"])


def shards(
    source: str | Path,
    out: str | Path,
    *,
    samples_per_shard: int = 1000,
    name: str = "",
    workers: int = 0,
    data: str | Path = "data",
    quiet: bool = False,
) -> Path:
    """Writes any dataset as WebDataset shards, image bytes untouched.

    Each image goes in as it is, with its label as `.cls` and its class in words as `.json`; beside each shard lies an
    index (NAME-000000.index.parquet) by which mining notices any damage. Other files (captions, masks) stay behind.
    What cannot be read is counted, and named in OUT/skipped.parquet.

    A dot in an image's name becomes %2E, since a shard's keys end at their first dot; the index keeps the old name.

    Interrupt it at any time: the same command goes on where it stopped, and ends with the same bytes.

    Args:
        source: What `mine --dataset` takes: a folder of images, tars (also https://, s3://), a name.
        out: Folder of the shards, or s3://bucket/folder.
        samples_per_shard: Images in each shard.
        name: What the shards are called. Default: the source's name.
        workers: Threads. Default: eight. No shard depends on it.
        data: Where named datasets live.
        quiet: Say nothing but errors.

    Returns:
        The folder of the shards.

    >>> actmine.shards("photos", "photos-shards")  # doctest: +SKIP
    """
    return Path(call("shards", locals())["folder"])
