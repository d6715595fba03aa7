"""Has torchvision unpack the official archives: aside first, so that interrupted work never looks whole."""

from __future__ import annotations

import shutil
import tarfile
from http.client import HTTPException
from pathlib import Path

from actmine.pipeline.errors import UserError
from actmine.pipeline.spoken import install_package

DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"


def extract_imagenet(root: Path, split: str, official: str) -> Path:
    """The folder of `class/image` made from the archive `official` in `root`; takes minutes.

    Raises `UserError` if an archive is missing or damaged, or the disk is full.
    """
    from torchvision.datasets import ImageNet

    aside = root / "unfinished"
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        for archive in (root / official, root / DEVKIT):
            if archive.exists():
                (aside / archive.name).symlink_to(archive.resolve())
        ImageNet(str(aside), split=split)
        (aside / split).replace(root / split)
        shutil.rmtree(aside)
    except ModuleNotFoundError as error:
        raise UserError(f"Reading ImageNet's devkit needs {error.name}: {install_package(str(error.name))}") from error
    except (OSError, RuntimeError, EOFError, tarfile.TarError) as error:
        reason = str(error).replace(str(aside), str(root))
        raise UserError(f"{root / official} cannot be extracted: {reason}") from error
    return root / split


def fetch_imagenette(root: Path) -> dict[str, str]:
    """Downloads Imagenette below `root` unless it is there; its classes in words by synset.

    Raises `UserError` with what to do if that fails.
    """
    from torchvision.datasets import Imagenette

    aside, tree = root / "unfinished", root / "imagenette2"
    try:
        if not tree.is_dir():
            shutil.rmtree(aside / tree.name, ignore_errors=True)
            Imagenette(str(aside), split="val", size="full", download=True)
            (aside / tree.name).replace(tree)
            shutil.rmtree(aside)
        found = Imagenette(str(root), split="val", size="full")
    except (OSError, RuntimeError, LookupError, EOFError, HTTPException, tarfile.TarError) as error:
        raise UserError(
            f"DATASET=imagenette is not whole, or could not be downloaded ({error}).\n"
            f"Download imagenette2.tgz elsewhere (its address is in torchvision.datasets.Imagenette)\n"
            f"and extract it so that {tree}/val/ exists."
        ) from error
    return {wnid: names[0] for wnid, names in zip(found.wnids, found.classes, strict=True)}
