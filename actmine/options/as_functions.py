"""Writes `actmine/library.py`: each command as a function of Python, with its options as typed keyword arguments.

    python -m actmine.options.as_functions

The records of options are the only place that says what there is; a test says that the functions are theirs.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

from actmine.options.records import options_of

FILE = Path(__file__).parents[1] / "library.py"
_NOT_FROM_PYTHON = frozenset(("as_json", "trust"))
_RUN, _ADDS = "str | Path | Run", "Run"
_LIVE = {
    "model": ("nn.Module | None", "None", "The network, where the run was mined from one that has no name."),
    "transform": ("Transform | None", "None", "What makes its input of an image, likewise."),
    "dictionary": ("Mapping[str, Any] | None", "None", "Its dictionaries by LAYER:NAME, where they were objects."),
}


@dataclass(frozen=True, slots=True)
class _Function:
    """How a command is called from Python: arguments by place, what it gives, further live arguments, an example."""

    first: tuple[str, ...]
    gives: str
    what: str
    body: str
    example: str
    live: bool = False


_AFTER = 'run_after("{0}", locals())'
_SAME_RUN = "The run, opened again."


def _on_a_run(example: str, live: bool = True) -> _Function:
    return _Function(("run",), "Run", _SAME_RUN, _AFTER, example, live)


FUNCTIONS = {
    "mine": _Function(
        ("model", "dataset"), "Run", "The run, which remembers the network and the dataset.", _AFTER,
        'run = actmine.mine(net, dataset, layers="layer4.*", transform=preprocess, run="runs/mine")',
    ),
    "layers": _Function(
        ("model",), "pd.DataFrame", "A row per layer with the columns of layers.parquet.",
        'pd.DataFrame(call("layers", locals()))', 'actmine.layers(net)[["layer", "units", "height", "width"]]',
    ),
    "visualize": _on_a_run('actmine.visualize(run, preset="lucid", layers="layer4.*", units=[3, 7])'),
    "views": _on_a_run('actmine.views(run, layers="layer3.*", method="guided")'),
    "focus": _on_a_run('actmine.focus(run, layers="layer4.*", most=3)'),
    "check": _on_a_run('actmine.check(run, layers="layer4.*", units=range(10))'),
    "facets": _on_a_run('actmine.facets(run, layers="layer4.*")'),
    "score": _on_a_run('actmine.score(run, layers="layer4.*")'),
    "activation_atlas": _Function(
        ("run", "layer"), "Run", _SAME_RUN, _AFTER,
        'actmine.activation_atlas(run, "layer4.1.relu").activation_atlas("layer4.1.relu").cells', True,
    ),
    "dictionary": _Function(
        ("run", "layer"), "Path", "The folder of the dictionary.", 'Path(call("dictionary", locals())["folder"])',
        'actmine.dictionary(run, "layer4.1.add", latents=4096)', True,
    ),
    "compare": _Function(
        ("run", "other"), "pd.DataFrame", "The matches, a row per unit and rank, as in RUN/matches/.",
        'pd.read_parquet(call("compare", locals())["table"])', "actmine.compare(run, other).head()",
    ),
    "map": _Function(
        ("run",), "Run", _SAME_RUN, _AFTER, 'actmine.map(run, layers="layer4.*").map()',
    ),
    "inspect": _Function(
        ("image",), "Inspection", "The pictures, the page that shows them, and which units stand out in each layer.",
        'Inspection(**call("inspect", locals()))', 'actmine.inspect("dog.jpg", model=net, layers="layer4.*")', True,
    ),
    "notes": _Function(
        ("run",), "pd.DataFrame", "What is noted: a row per unit, layer or image.",
        'open_run(call("notes", locals())["run"]).notes()', "actmine.notes(run)",
    ),
    "sheets": _Function(
        ("run",), "list[Path]", "The files that were written.", 'list(call("sheets", locals())["sheets"])',
        'actmine.sheets(run, layers="layer4.*", units=range(10), format="pdf")',
    ),
    "atlas_export": _Function(
        ("run", "out"), "Path", "The page to open.", 'Path(call("atlas_export", locals())["page"])',
        'actmine.atlas_export(run, "site")',
    ),
    "publish": _Function(
        ("run", "to"), "str", "Where it is.", 'str(call("publish", locals())["place"])',
        'actmine.publish(run, "published", license="cc-by-4.0")',
    ),
    "shards": _Function(
        ("source", "out"), "Path", "The folder of the shards.", 'Path(call("shards", locals())["folder"])',
        'actmine.shards("photos", "photos-shards")',
    ),
}  # fmt: skip
_HEAD = '''"""What people call from Python: every command as a function, with the words of its options.

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
'''


def library() -> str:
    """The text of `actmine/library.py`."""
    return _HEAD + "".join(f"\n\n{_function(name, about)}" for name, about in FUNCTIONS.items())


def _function(name: str, about: _Function) -> str:
    record = options_of(name.replace("_", "-"))
    hints = get_type_hints(record, include_extras=True)
    known = {each.name: each for each in fields(record)}
    arguments = {word: _argument(name, known[word], hints[word]) for word in about.first if word in known}
    if name == "mine":
        arguments = {
            "model": ("str | nn.Module", "", f"{_help(hints['model'])} Or a module of your own."),
            "dataset": ("Any", "", f"{_help(hints['dataset'])} Or a torch Dataset, or one of Hugging Face."),
        }
    if name == "layers":
        arguments = {"model": ("str | nn.Module", "", f"{_help(hints['model'])} Or a module of your own.")}
    more = {
        word: _argument(name, each, hints[word])
        for word, each in known.items()
        if word not in arguments and word not in _NOT_FROM_PYTHON
    }
    if name in ("mine", "layers"):
        more["transform"] = ("Transform | None", "None", "What makes a tensor of a PIL image, for a module.")
    elif name == "inspect":
        more["model"] = ("str | nn.Module", '""', f"{_help(hints['model'])} Or a module of your own.")
        more["transform"] = ("Transform | None", "None", "What makes a tensor of a PIL image, for a module.")
    elif about.live:
        more |= _LIVE
    lines = [f"def {name}("]
    lines += [
        f"    {word}: {kind}{f' = {default}' if default else ''}," for word, (kind, default, _) in arguments.items()
    ]
    lines += ["    *,"] if more else []
    lines += [f"    {word}: {kind}{f' = {default}' if default else ''}," for word, (kind, default, _) in more.items()]
    lines += [f") -> {about.gives}:"]
    doc = [*_description(record), "", "Args:"]
    for word, (_, _, told) in {**arguments, **more}.items():
        doc += textwrap.wrap(f"{word}: {told}", 110, initial_indent="    ", subsequent_indent="        ",
                             break_on_hyphens=False)  # fmt: skip
    doc += ["", "Returns:", f"    {about.what}", "", f">>> {about.example}  # doctest: +SKIP"]
    lines += ['    """' + doc[0], *(f"    {line}".rstrip() for line in doc[1:]), '    """']
    return "\n".join([*lines, f"    return {about.body.format(name)}", ""])


def _argument(command: str, option: Field[Any], hint: Any) -> tuple[str, str, str]:
    """An option as an argument: its type, its default, what it is for."""
    kind = get_args(hint)[0]
    default = "" if option.default is MISSING else _shown(option.default)
    return _type(option.name, kind), default, _help(hint)


def _type(word: str, kind: Any) -> str:
    several = {"layers": "str", "units": "int", "bands": "float", "mean": "float", "std": "float"}
    if word in ("run", "other"):
        return _RUN
    if word == "dictionary":
        return "str | Mapping[str, Any]"
    if word in several and kind is str:
        return f"str | Sequence[{several[word]}]"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return f"Literal[{', '.join(repr(str(each)).replace(chr(39), chr(34)) for each in kind)}]"
    if kind is Path or word in ("out", "weights", "source", "data"):
        return "str | Path"
    return kind.__name__ if isinstance(kind, type) else str(kind)


def _shown(default: Any) -> str:
    if isinstance(default, Enum | Path | str):
        return '"' + str(default).replace('"', '\\"') + '"'
    return repr(default)


def _help(hint: Any) -> str:
    told = re.sub(r"\s+", " ", get_args(hint)[1].help or "").strip()
    return told.replace("\\", "\\\\")


def _description(record: type) -> Iterator[str]:
    """What a command is for, without the examples of its command line."""
    text = textwrap.dedent(f"    {record.__doc__}").strip().split("Examples:")[0].strip()
    yield from text.splitlines()


if __name__ == "__main__":
    FILE.write_text(library(), encoding="utf-8")
