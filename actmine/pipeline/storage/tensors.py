"""Tensors to safetensors files and back: written without a copy, checked by a sum, read by mapping into memory."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor, float16, float32, float64, int16, int32, int64, uint8

from actmine.pipeline.errors import Damaged

_NAMES = {float64: "F64", int64: "I64", float32: "F32", int32: "I32", float16: "F16", int16: "I16", uint8: "U8"}


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
    """Writes contiguous CPU `tensors` and the words `about` them to `path`; equal ones give equal bytes.

    The library's own writer goes through a file of random name, which stays if it is killed. Raises `OSError`.
    """
    views = _views(tensors)
    header: dict[str, object] = {"__metadata__": {**about, "crc32": _sum(tensors, about)}}
    end = 0
    for name, view in views.items():
        begin, end = end, end + len(view)
        header[name] = {
            "dtype": _NAMES[tensors[name].dtype], "shape": list(tensors[name].shape), "data_offsets": [begin, end],
        }  # fmt: skip
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for view in views.values():
            file.write(view)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file, mapped into memory, and the words about them.

    Raises `Damaged` where they are not those that were written, `OSError` where the file cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            about = dict(file.metadata() or {})
    except SafetensorError as error:
        raise Damaged(str(error)) from error
    if about.pop("crc32", None) != _sum(tensors, about):
        raise Damaged("its checksum is another")
    return tensors, about


def _views(tensors: Mapping[str, Tensor]) -> dict[str, memoryview]:
    """The bytes of each, those with the largest elements first, so that every one is aligned in its file."""
    ordered = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    return {name: _view(tensors[name]) for name in ordered}


def _view(tensor: Tensor) -> memoryview:
    if not tensor.numel():  # whose strides may be anything
        return memoryview(b"")
    return memoryview(tensor.flatten().view(uint8).numpy().data)


def _sum(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> str:
    kinds = [(name, _NAMES.get(tensor.dtype), list(tensor.shape)) for name, tensor in sorted(tensors.items())]
    total = zlib.crc32(json.dumps([kinds, sorted(about.items())]).encode())
    for view in _views(tensors).values():
        total = zlib.crc32(view, total)
    return f"{total:08x}"
