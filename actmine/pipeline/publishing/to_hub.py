"""A publication on its way to a dataset repository of the Hugging Face hub: commits of what is not there yet."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from actmine.pipeline.errors import GO_ON, UserError, first_line
from actmine.pipeline.progress import Progress
from actmine.pipeline.publishing.card import FILE as CARD
from actmine.pipeline.publishing.manifest import FILE, Manifest, is_safe, sum_of
from actmine.pipeline.spoken import install

BEGINS = "hf://datasets/"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
FILES_A_COMMIT, BYTES_A_COMMIT = 200, 500_000_000
_OF_THE_HUB = (".gitattributes",)
_LIBRARIES_OF_HTTP = ("httpx", "httpcore", "requests", "urllib3")


def repository(word: str) -> str:
    """OWNER/NAME of `hf://datasets/OWNER/NAME`. Raises `UserError` for anything else, and without the hub's client."""
    name = word[len(BEGINS) :].strip("/") if word.startswith(BEGINS) else ""
    if not _REPOSITORY.fullmatch(name) or ".." in name or "--" in name:
        raise UserError(f"TO={word} names no dataset of the hub. Write {BEGINS}OWNER/NAME.")
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        raise UserError(f"TO={word} needs {error.name}: {install('hf')}.") from error
    return name


class Hub:
    """A dataset repository `name`, asked by the hub's own client; the token is that of `hf auth login` or HF_TOKEN.

    Every method raises `UserError` without a token, where the hub refuses or does not answer.
    """

    def __init__(self, name: str) -> None:
        from huggingface_hub import HfApi, get_token

        token = get_token()
        if not token:
            raise UserError(f"{BEGINS}{name} takes a token that may write: `hf auth login` keeps one, or set HF_TOKEN.")
        self.name, self._api = name, HfApi(token=token)
        with self._asked():
            self._api.whoami()  # whether the hub answers and knows the token, asked once

    def check_card(self, text: str) -> None:
        """Has the hub judge a card. Raises `UserError` where it does not take it."""
        from huggingface_hub import DatasetCard

        with self._asked():
            try:
                DatasetCard(text).validate()
            except ValueError as error:
                raise UserError(f"The hub does not take the card: {first_line(error)}") from error

    def files(self) -> dict[str, Any]:
        """What is there, by name; nothing where there is no such repository."""
        from huggingface_hub.errors import RepositoryNotFoundError

        with self._asked():
            try:
                tree = self._api.list_repo_tree(self.name, recursive=True, repo_type="dataset")
                return {each.path: each for each in tree if hasattr(each, "blob_id")}
            except RepositoryNotFoundError:
                return {}

    def before(self, there: dict[str, Any]) -> Manifest | None:
        """The list of files of a publication that is there. Raises `UserError` where something else is."""
        if FILE not in there:
            others = [name for name in there if name not in _OF_THE_HUB]
            if others:
                raise UserError(f"{BEGINS}{self.name} holds other things than a publication ({others[0]}). "
                                "Say a new repository as TO.")  # fmt: skip
            return None
        with self._asked():
            path = self._api.hf_hub_download(self.name, FILE, repo_type="dataset")
        return Manifest.of(Path(path).read_bytes(), f"{BEGINS}{self.name}/{FILE}")

    def make(self, private: bool) -> None:
        """Makes the repository, if there is none; one that is there stays as private as it is."""
        with self._asked():
            self._api.create_repo(self.name, repo_type="dataset", private=private, exist_ok=True)

    def commit(self, add: dict[str, Path | bytes], remove: list[str], said: str) -> None:
        """One commit, whole or not at all."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete
        from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

        shown = not are_progress_bars_disabled()
        disable_progress_bars()
        try:
            with self._asked():
                each = [
                    CommitOperationAdd(name, str(data) if isinstance(data, Path) else data)
                    for name, data in add.items()
                ]
                gone = [CommitOperationDelete(name) for name in remove]
                self._api.create_commit(self.name, [*each, *gone], commit_message=said, repo_type="dataset")
        finally:
            if shown:
                enable_progress_bars()

    @contextmanager
    def _asked(self) -> Iterator[None]:
        from huggingface_hub.errors import HfHubHTTPError

        try:
            yield
        except UserError:
            raise
        except HfHubHTTPError as error:
            raise UserError(self._refused(error)) from error
        except Exception as error:
            cause = next((each for each in _causes(error) if isinstance(each, HfHubHTTPError)), None)
            if cause is not None:
                raise UserError(self._refused(cause)) from error
            if not any(_of_a_connection(each) for each in _causes(error)):
                raise
            raise UserError(f"The hub does not answer for {BEGINS}{self.name} ({first_line(error)}). Is the machine "
                            f"online? {GO_ON[0].upper()}{GO_ON[1:]}") from error  # fmt: skip

    def _refused(self, error: Any) -> str:
        status = getattr(getattr(error, "response", None), "status_code", None)
        place = f"{BEGINS}{self.name}"
        if status in (401, 403, 404):
            owner = self.name.partition("/")[0]
            return (
                f"The hub refuses {place} ({status}: {first_line(error)}). Check that the token is right and may "
                f"write to repositories of {owner}; {GO_ON}"
            )
        return f"The hub failed at {place} ({status}: {first_line(error)}). Try again later; {GO_ON}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _of_a_connection(error: BaseException) -> bool:
    """Whether it comes of a library for http, or of the system's network; the client has used several."""
    return type(error).__module__.split(".")[0] in _LIBRARIES_OF_HTTP or isinstance(
        error, ConnectionError | TimeoutError
    )


def upload(folder: Path, manifest: Manifest, hub: Hub, private: bool, progress: Progress) -> tuple[int, int, int]:
    """Makes a repository hold what a folder does: how many files were sent, were there already, and were removed.

    It goes in commits of up to 200 files: a stop leaves those that were made, and the same command sends the rest. The
    card comes last. Raises `UserError` as `Hub` does.
    """
    hub.check_card((folder / CARD).read_text("utf-8"))
    there = hub.files()
    before = hub.before(there)
    hub.make(private)
    listed = {**(before.files if before else {}), **manifest.files}
    gone = [name for name in listed if name not in manifest.files and name in there and is_safe(name)]
    missing = [name for name in manifest.files if not _same(folder / name, there.get(name))]
    sizes = {name: found[0] for name, found in manifest.files.items() if found}
    whole = manifest.text()
    done = sum(size for name, size in sizes.items() if name not in {*missing}) // 1000
    under_way = Manifest(listed, False, manifest.atlas).text()
    with progress.stage(f"Uploading to {BEGINS}{hub.name}", sum(sizes.values()) // 1000, "kB", done) as advance:
        for names in _batches([name for name in missing if name != CARD], sizes):
            add: dict[str, Path | bytes] = {FILE: under_way, **{name: folder / name for name in names}}
            hub.commit(add, [], f"{len(names)} files of a run mined with actmine")
            advance(sum(sizes[name] for name in names) // 1000)
    is_whole = FILE in there and _is_blob(whole, there[FILE])
    if missing or gone or not is_whole:
        last: dict[str, Path | bytes] = {FILE: whole}
        if CARD in missing:
            last[CARD] = folder / CARD
        hub.commit(last, gone, "The card and the list of files")
    return len(missing), len(manifest.files) - len(missing), len(gone)


def _batches(names: list[str], sizes: dict[str, int]) -> Iterator[list[str]]:
    batch: list[str] = []
    for name in names:
        if batch and (
            len(batch) == FILES_A_COMMIT or sum(sizes[each] for each in batch) + sizes[name] > BYTES_A_COMMIT
        ):
            yield batch
            batch = []
        batch.append(name)
    if batch:
        yield batch


def _same(path: Path, there: Any) -> bool:
    """Whether what the hub has by a name is a file: by its SHA-256, or as git hashes it."""
    if there is None or there.size != path.stat().st_size:
        return False
    if there.lfs is not None:
        return bool(there.lfs.sha256 == sum_of(path)[1])
    return _is_blob(path.read_bytes(), there)


def _is_blob(data: bytes, there: Any) -> bool:
    return bool(there.blob_id == hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest())
