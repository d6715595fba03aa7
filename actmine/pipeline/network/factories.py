"""Networks of one's own: `package.module:factory` gives a module, or a module and its transform."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from actmine.pipeline.errors import UserError, first_line, near_matches
from actmine.pipeline.network.evaluated import PROGRAM, complete, evaluated, is_program, preprocessing_of
from actmine.pipeline.network.loaded_model import LoadedModel
from actmine.pipeline.network.weights import RANDOM_SEED, fill, kind_of, looks_like_a_file, read_weights
from actmine.pipeline.preprocessing.options import PreprocessingOptions

AS_MADE = "as the factory made them"


def check(spec: str, word: str = "MODEL") -> None:
    """Raises `UserError` for a `package.module:factory` that cannot be one; imports nothing of it.

    `word` is what the user said it by.
    """
    top = _split(spec, word)[0].partition(".")[0]
    with _working_directory():
        found: Any = sys.modules.get(top)
        with suppress(ValueError):  # of a module without a spec, as __main__
            found = found or importlib.util.find_spec(top)
        if not found:
            raise _no_module(spec, top, word)


def is_factory(name: str) -> bool:
    """Whether MODEL is a `package.module:factory`, whose code is imported."""
    return ":" in name


def refuse_inside(spec: str, folder: Path) -> None:
    """Raises `UserError` where the module of a factory, or anything else that is imported by name, is below `folder`.

    Parents of the module are imported to find it.
    """
    below = Path(folder).resolve()
    name = _split(spec, "MODEL")[0]
    with _working_directory():
        places = [Path(place) for place in sys.path if Path(place).resolve().is_relative_to(below)]
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            if places:
                break
            with suppress(ValueError, ImportError):  # whoever imports it says what is wrong
                found = importlib.util.find_spec(".".join(parts[:end]))
                files = [found.origin or "", *(found.submodule_search_locations or ())] if found else []
                places = [Path(file) for file in files if file and Path(file).resolve().is_relative_to(below)]
    if places:
        raise UserError(
            f"MODEL={spec}: {places[0]} lies inside the run {folder}, and code that comes with a run is never "
            "imported. If it is yours, move it elsewhere and start the command there."
        )


def make(spec: str, weights: str, overrides: PreprocessingOptions) -> LoadedModel:
    """The network that the factory `spec` makes, called without arguments, under a fixed seed.

    `weights`: empty or `random` for the network as it is, or a file. A factory may give a transform too, which makes a
    tensor of an RGB image; else it is ImageNet's usual one. Raises `UserError` for a factory that is not there, fails
    or gives something else.
    """
    if weights not in ("", "random") and not looks_like_a_file(weights):
        raise UserError(
            f"{spec} has no weights {weights!r}. WEIGHTS is empty for the network {AS_MADE}, random, "
            "or a .safetensors/.pth file."
        )
    read = read_weights(Path(weights)) if looks_like_a_file(weights) and weights != "random" else None
    module, transform = _called(spec, "MODEL")
    how, assumed = preprocessing_of(transform, overrides, module)
    notices = []
    if assumed:
        notices.append(f"{spec} gives no transform: {assumed} Let it return (network, transform), or say --resize, "
                       "--crop, --mean and --std.")  # fmt: skip
    if weights == "random":
        notices.append(
            f"{spec} is called under seed {RANDOM_SEED}; what it loads itself stays, with WEIGHTS=random too."
        )
    complete(spec, module, how)
    if read is None:
        label = AS_MADE if not weights else f"{AS_MADE} (seed {RANDOM_SEED})"
        return LoadedModel(module, how, label, notices=tuple(notices))
    filled = fill(module, read)
    return LoadedModel(module, how, read.origin, None, filled.missing, (*notices, *filled.notices))


def make_module(spec: str, word: str) -> nn.Module:
    """The module that the factory `spec` makes, called without arguments, under a fixed seed, in evaluation mode.

    `word` is what the user said it by. Raises `UserError` for a factory that is not there, fails or gives something
    else.
    """
    return _called(spec, word)[0]


def _split(spec: str, word: str) -> tuple[str, str]:
    """The module's name and the factory's, which may have dots of its own."""
    module, colon, name = spec.partition(":")
    if not colon or not all(part.isidentifier() for part in [*module.split("."), *name.split(".")]):
        raise UserError(f"{word}={spec} cannot be imported. Write package.module:factory, with names of Python.")
    return module, name


@contextmanager
def _working_directory() -> Iterator[None]:
    """Modules of the working directory can be imported: first inside, as for a script, and last from then on.

    Never first for long, as a name there could hide one that is imported later.
    """
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
        if here not in sys.path and "" not in sys.path:
            sys.path.append(here)


def _no_module(spec: str, name: str, word: str) -> UserError:
    local = sorted(path.stem for path in Path.cwd().glob("*.py"))
    return UserError(
        f"{word}={spec}: there is no module {name!r}.{near_matches(name, local)} It was looked for in {os.getcwd()} "
        "and among the installed packages; PYTHONPATH=folder adds another place."
    )


def _called(spec: str, word: str) -> tuple[nn.Module, Callable[..., Any] | None]:
    """The network and the transform that the factory gives."""
    with _working_directory(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        factory = _found(spec, word)
        if isinstance(factory, nn.Module):
            return evaluated(factory, f"{word}={spec}"), None
        if not callable(factory):
            raise UserError(f"{word}={spec} is {kind_of(factory)}, not a function or class that makes a network.")
        torch.manual_seed(RANDOM_SEED)  # again: the import may have drawn numbers
        try:
            given = factory()
        except (Exception, SystemExit) as error:  # it is anyone's code, and the user's to mend
            told = _told(error, sys.modules[_split(spec, word)[0]])
            raise UserError(f"{word}={spec} failed when it was called without arguments: {told}.") from error
    network, transform = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
    if is_program(network):
        raise UserError(f"{word}={spec} gives {PROGRAM}")
    if not isinstance(network, nn.Module) or not (transform is None or callable(transform)):
        kinds = ", ".join(map(kind_of, given)) if isinstance(given, tuple) else kind_of(given)
        raise UserError(f"{word}={spec} gives {kinds}. It should give a torch.nn.Module, or (module, transform).")
    return evaluated(network, f"{word}={spec}"), transform


def _found(spec: str, word: str) -> Any:
    """Whatever the spec names, imported."""
    name, attribute = _split(spec, word)
    try:
        found: Any = importlib.import_module(name)
    except (Exception, SystemExit) as error:  # any code may stand in a module
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            raise _no_module(spec, error.name, word) from error
        raise UserError(f"{word}={spec}: importing {name} failed: {_told(error, None)}.") from error
    at = name
    for part in attribute.split("."):
        if not hasattr(found, part):
            known = [each for each, value in vars(found).items() if not each.startswith("_") and callable(value)]
            raise UserError(f"{word}={spec}: {at} has no {part!r}.{near_matches(part, known)}")
        found, at = getattr(found, part), f"{at}.{part}"
    return found


def _told(error: BaseException, module: ModuleType | None) -> str:
    """The kind and first line of an error, and the line of the module's own file, or of any, that it came from."""
    if isinstance(error, SyntaxError):
        file, line = error.filename or "", error.lineno
    else:
        frames = [
            frame for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename != __file__ and not frame.filename.startswith("<frozen")
        ]  # fmt: skip
        own = [frame for frame in frames if module is not None and frame.filename == module.__file__]
        last = (own or frames)[-1:]
        file, line = (last[0].filename, last[0].lineno) if last else ("", None)
    place = f" ({Path(file).name}, line {line})" if file else ""
    return f"{type(error).__name__}: {first_line(error).rstrip('.')}{place}"
