"""Carries out a command for whoever calls it from Python: words become options, live objects stay what they are."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from enum import Enum
from inspect import signature
from pathlib import Path
from typing import Any, get_args, get_type_hints

from actmine.commands.live import Live
from actmine.console import Display
from actmine.options.records import options_of
from actmine.pipeline.errors import UserError, sentences
from actmine.pipeline.spoken import from_python, said
from actmine.runs import Run, held, open_run

_INTERRUPTED = "Interrupted. What was done is kept: the same call goes on from there."


def call(command: str, given: Mapping[str, Any]) -> Any:
    """What a command answers to the arguments of a function: options by their names, and live objects.

    Raises `UserError` as the command does.
    """
    return _answer(command, given, _live(given))


def run_after(command: str, given: Mapping[str, Any]) -> Run:
    """The run that a command made or added to. Raises `UserError` as the command does."""
    live = _live(given)
    told = _answer(command, given, live)
    return held(open_run(told["run"], _trusted(given)), live)


def options(record: type, words: Mapping[str, Any]) -> Any:
    """A `record` of options of what a caller said: lists become what a command line takes, a run its folder.

    Raises `UserError` for a value that the option cannot have.
    """
    hints = get_type_hints(record, include_extras=True)
    return record(**{word: _value(word, value, *get_args(hints[word])[:2]) for word, value in words.items()})


def _answer(command: str, given: Mapping[str, Any], live: Live) -> Any:
    record = options_of(command.replace("_", "-"))
    known = {each.name for each in fields(record)}
    words = {word: value for word, value in given.items() if word in known and not _is_live(word, value)}
    if "trust" in known:
        words["trust"] = _trusted(given)
    words["as_json"] = True  # the answer is for the caller, not for a screen
    with from_python(), _torch_as_before(command):
        its = options(record, words)
        display = Display(getattr(its, "quiet", False))
        carry_out = getattr(importlib.import_module(f"actmine.commands.{command}"), command)
        try:
            with sentences():
                return carry_out(its, display, *([live] if "live" in signature(carry_out).parameters else []))
        except UserError as error:
            error.args = tuple(said(word) if isinstance(word, str) else word for word in error.args)
            raise
        except KeyboardInterrupt:
            display.say(_INTERRUPTED)
            raise


def _is_live(word: str, value: Any) -> bool:
    """Whether an argument is an object in place of a name."""
    if word == "dictionary":
        return isinstance(value, Mapping)
    return (word == "model" and not isinstance(value, str)) or (word == "dataset" and not isinstance(value, str | Path))


def _live(given: Mapping[str, Any]) -> Live:
    """The objects among the arguments; without any, those that the run remembers."""
    words = ("model", "dataset", "dictionary")
    own = {word: given[word] for word in words if word in given and _is_live(word, given[word])}
    transform, run = given.get("transform"), given.get("run")
    if own.get("model") is None and own.get("dictionary") is None and transform is None and isinstance(run, Run):
        return run.live
    if own.get("dataset") is not None:
        from actmine.pipeline.datasets.live import dataset_of

        own["dataset"] = dataset_of(own["dataset"])  # once: its first items are looked at
    return Live(own.get("model"), transform, own.get("dataset"), own.get("dictionary"))


def _trusted(given: Mapping[str, Any]) -> bool:
    run = given.get("run")
    return bool(given.get("trust")) or (isinstance(run, Run) and run.trusted)


def _value(word: str, value: Any, kind: Any, about: Any) -> Any:
    if isinstance(value, Run):
        return str(value.path)
    if isinstance(kind, type) and issubclass(kind, Enum):
        known = [str(each) for each in kind]
        if str(value) not in known:
            raise UserError(f"{word}={value!r}: it is one of {', '.join(known)}.")
        return kind(str(value))
    if kind is Path:
        return Path(value)
    if kind is str:
        several = isinstance(value, list | tuple | range | set)
        if several:
            return ",".join(str(each.path if isinstance(each, Run) else each) for each in value)
        return "" if value is None else str(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = about.min, about.max
        if (low is not None and value < low) or (high is not None and value > high):
            raise UserError(f"{word}={value}: it is at least {low}{'' if high is None else f' and at most {high}'}.")
    return value


@contextmanager
def _torch_as_before(command: str) -> Iterator[None]:
    """A block after which torch computes as its caller had it; commands that need no torch do not import it."""
    if command in ("sheets", "atlas_export", "publish", "shards"):
        yield
        return
    import torch

    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = cuda.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic
    try:
        yield
    finally:
        cuda.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic = before
