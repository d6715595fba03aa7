"""The kinds of files that dictionaries come in: a further one is a file with `is_one` and `read`, and a line here."""

from __future__ import annotations

from pathlib import Path

from actmine.pipeline.dictionaries import dictionary_learning, plain, saelens, saev
from actmine.pipeline.dictionaries.dictionary import Dictionary, pieces
from actmine.pipeline.errors import UserError

_KINDS = (saelens, dictionary_learning, saev, plain)


def read_dictionary(path: Path) -> Dictionary:
    """The dictionary in a file or folder. Raises `UserError` for what is not there, damaged or of no known kind."""
    if not path.exists():
        raise UserError(f"DICTIONARY: there is no {str(path)!r}. It is a file or folder, or package.module:factory.")
    for kind in _KINDS:
        if kind.is_one(path):
            made = kind.read(path)
            _check(path, made)
            return made
    raise UserError(
        f"DICTIONARY: {path} is of no known kind: SAELens ({saelens.CONFIG} and {saelens.WEIGHTS}), "
        f"dictionary_learning ({dictionary_learning.WEIGHTS} and {dictionary_learning.CONFIG}), a checkpoint of saev, "
        f"or one file ({', '.join(plain.SUFFIXES)}) with W_enc or a matrix of directions."
    )


def _check(path: Path, made: Dictionary) -> None:
    if not made.latents or not made.width:
        raise UserError(f"DICTIONARY: {path} is empty.")
    for name, tensor in made.named_buffers():
        if not all(bool(part.isfinite().all()) for part in pieces(tensor)):
            raise UserError(f"DICTIONARY: {name} of {path} holds values that are no numbers, or infinite.")
