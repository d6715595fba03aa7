"""Pages of the site that are made of the code, so that none can drift: commands, tables, functions, and the tour."""

from __future__ import annotations

import base64
import html
import importlib
import json
import pkgutil
import re
from dataclasses import MISSING, fields
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pyarrow as pa
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import actmine.schemas
from actmine.jobs.make_words import flags_of
from actmine.options.as_functions import FUNCTIONS
from actmine.options.records import COMMANDS, options_of

ROOT = Path(__file__).parents[1]
REPOSITORY = re.compile(r"\]\((?:\.\./)*(ARCHITECTURE|CONTRIBUTING|CHANGELOG|LICENSE|README)(\.md)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made here."""
    tour, pictures = _tour()
    pages = {"reference/commands.md": _commands(), "reference/tables.md": _tables(), "reference/python.md": _python(),
             "tour.md": tour, **pictures}  # fmt: skip
    for place, content in pages.items():
        files.append(File.generated(config, place, content=content))
    return files


def _commands() -> str:
    """Every command with all that it may be asked, of the records of options."""
    parts = ["# Commands", "", "Each option is a flag of `actmine COMMAND` and a word of `make COMMAND`.", ""]
    for command in COMMANDS:
        record = options_of(command)
        text, _, examples = (record.__doc__ or "").partition("Examples:")
        hints = get_type_hints(record, include_extras=True)
        flags = {flag: word for word, (flag, _, _) in flags_of(record).items()}
        parts += [f"## {command}", "", *(line.strip() for line in text.strip().splitlines()), ""]
        lines = [line.strip() for line in re.split(r"\n|\s\|\s", examples) if line.strip()]
        parts += ["```sh", *(f"actmine {line}" for line in lines), "```", ""] if lines else []
        parts += ["| flag | word of make | default | |", "| --- | --- | --- | --- |"]
        for option, (flag, word) in zip(fields(record), flags.items(), strict=True):
            told = re.sub(r"\s+", " ", get_args(hints[option.name])[1].help or "")
            default = "required" if option.default is MISSING else _default(option.default)
            parts.append(f"| `{flag}` | `{word}` | {default} | {_cell(told)} |")
        parts.append("")
    return "\n".join(parts)


def _default(value: Any) -> str:
    said = str(value) if isinstance(value, Enum | Path) else value
    return "" if said in ("", None) else f"`{said}`"


def _cell(text: str) -> str:
    return html.escape(text, quote=False).replace("|", "\\|")


def _tables() -> str:
    """Every table with its columns, of the schemas."""
    parts = ["# Tables", "", "Every column carries its description in its Arrow metadata.", ""]
    for module in sorted(each.name for each in pkgutil.iter_modules(actmine.schemas.__path__)):
        found = importlib.import_module(f"actmine.schemas.{module}")
        schemas = [value for value in vars(found).values() if isinstance(value, pa.Schema)]
        about = re.match(r"`([^`]+)`", found.__doc__ or "")
        if not schemas or about is None:
            continue
        parts += [
            f"## {about[1]}",
            "",
            (found.__doc__ or "").splitlines()[0],
            "",
            "| column | type | |",
            "| --- | --- | --- |",
        ]
        for column in schemas[0]:
            told = (column.metadata or {}).get(b"description", b"").decode()
            parts.append(f"| `{column.name}` | `{_cell(str(column.type))}` | {_cell(told)} |")
        parts.append("")
    return "\n".join(parts)


def _python() -> str:
    """The functions and classes that `import actmine` gives."""
    names = [*FUNCTIONS, "open_run", "atlas", "picture"]
    classes = ["Run", "Layer", "Unit", "Atlas", "Inspection"]
    place = {"open_run": "runs", "atlas": "runs", "picture": "pipeline.run", **dict.fromkeys(classes[:4], "runs"),
             "Inspection": "inspection"}  # fmt: skip
    parts = ["# Python", "", "Everything here is `actmine.NAME`. What is wrong raises `actmine.UserError`.", ""]
    for name in (*names, *classes):
        at = f"actmine.{place.get(name, 'library')}.{name}"
        parts += [f"## {name}", "", f"::: {at}", "    options:", "      heading_level: 3"]
        parts += ["      inherited_members: true"] * (name == "Run") + [""]
    return "\n".join(parts)


def _tour() -> tuple[str, dict[str, bytes]]:
    """The notebook as a page, with the pictures of its outputs."""
    book = json.loads((ROOT / "docs" / "tour.ipynb").read_text(encoding="utf-8"))
    parts, pictures = [], {}
    for cell in book["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts += [source, ""]
            continue
        parts += ["```python", source, "```", ""]
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                name = f"tour-{len(pictures)}.png"
                pictures[name] = base64.b64decode("".join(data["image/png"]))
                parts += [f"![What the cell shows]({name})", ""]
            elif "text/html" in data:
                shown = "".join(data["text/html"])
                parts += [re.sub(r"\n\s*", "\n", re.sub(r"<style.*?</style>", "", shown, flags=re.S)).strip(), ""]
            elif "text" in output:
                parts += ["```text", "".join(output["text"]).rstrip(), "```", ""]
    return "\n".join(parts), pictures


def on_page_markdown(markdown: str, **about: Any) -> str:
    """Files of the repository that are no pages are named, not linked."""
    return REPOSITORY.sub("]", markdown)
