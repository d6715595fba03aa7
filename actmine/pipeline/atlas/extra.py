"""What the atlas needs beyond the core, and the sentence that says so where it is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from actmine.pipeline.errors import UserError
from actmine.pipeline.spoken import install


@contextmanager
def atlas_extra() -> Iterator[None]:
    """Imports of what needs the extra go inside. Raises `UserError` for a package that is not installed."""
    try:
        yield
    except ImportError as error:
        raise UserError(f"The atlas needs {error.name}: {install('atlas')}.") from error
