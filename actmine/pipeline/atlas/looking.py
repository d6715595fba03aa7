"""Pictures of one's own on their way through the network: one at a time, kept in memory for a while, never on disk."""

from __future__ import annotations

import queue
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from actmine.pipeline.atlas.looked import Eye, Looked
from actmine.pipeline.errors import UserError, first_line
from actmine.pipeline.run import Run

MOST_BYTES = 32 << 20
"""Of a picture's file."""
MOST_PIXELS = 50_000_000
"""Of a picture: what is larger would take hundreds of megabytes to decode."""
WAITING = 3
"""How many pictures wait at most."""
KEPT, KEPT_BYTES = 8, 512 << 20
"""How many of the last pictures are kept, and in about how much memory (one at least)."""
WAITS, LOADS, LOOKS, DONE, FAILED = "waits", "loads", "looks", "done", "failed"


class Busy(Exception):
    """So many pictures wait that no more is taken now."""


@dataclass(slots=True)
class Job:
    """A picture under way or done: its `state`, then what was `looked` at, or the `error` in a sentence."""

    name: str
    run: Run
    version: str
    data: bytes
    state: str = WAITS
    looked: Looked | None = None
    error: str = ""
    token: str = field(default_factory=lambda: secrets.token_urlsafe(12))


class Looking:
    """Has pictures looked at by a thread of its own, which loads the network when the first one comes.

    `open_eye` makes of a run what looks: it is called once for each state of the run. A form carries the `token`.
    """

    def __init__(self, open_eye: Callable[[Run], Eye]) -> None:
        self._open_eye = open_eye
        self.token = secrets.token_urlsafe(24)
        self._lock = threading.Lock()
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._waiting: queue.Queue[Job] = queue.Queue(WAITING)
        self._thread: threading.Thread | None = None
        self._eye: tuple[str, Eye] | None = None

    @property
    def ready(self) -> bool:
        """Whether the network is loaded."""
        return self._eye is not None

    def offer(self, run: Run, version: str, name: str, data: bytes) -> str:
        """Takes a picture, of which the state `version` of a `run` is to see; its token. Raises `Busy`."""
        job = Job(name, run, version, data)
        try:
            self._waiting.put_nowait(job)
        except queue.Full:
            raise Busy from None
        with self._lock:
            self._jobs[job.token] = job
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="look", daemon=True)
                self._thread.start()
        return job.token

    def get(self, token: str, version: str) -> Job | None:
        """A picture by its token; None for one that is no longer kept, or that another state of the run was shown."""
        with self._lock:
            job = self._jobs.get(token)
        return job if job is not None and job.version == version else None

    def recent(self, version: str) -> list[Job]:
        """The pictures that are kept, the latest first."""
        with self._lock:
            return [job for job in reversed(self._jobs.values()) if job.version == version]

    def _work(self) -> None:
        while True:
            job = self._waiting.get()
            try:
                job.state = LOADS
                eye = self._eye_of(job)
                job.state = LOOKS
                job.looked = eye(job.data, job.name)
                job.state = DONE
            except UserError as error:
                job.error, job.state = str(error), FAILED
            except Exception as error:  # of whatever a network does: the page says it, and the next picture may go
                job.error = f"The network ended with {type(error).__name__}: {first_line(error)}."
                job.state = FAILED
            job.data = b""
            self._forget()

    def _eye_of(self, job: Job) -> Eye:
        if self._eye is None or self._eye[0] != job.version:
            self._eye = None
            self._eye = job.version, self._open_eye(job.run)
        return self._eye[1]

    def _forget(self) -> None:
        """Lets the oldest go that are done, beyond what is kept."""
        with self._lock:
            done = [job for job in self._jobs.values() if job.state in (DONE, FAILED)]
            total = sum(job.looked.nbytes for job in done if job.looked)
            while len(done) > 1 and (len(done) > KEPT or total > KEPT_BYTES):
                oldest = done.pop(0)
                total -= oldest.looked.nbytes if oldest.looked else 0
                del self._jobs[oldest.token]


def looking_with(eye: Callable[[Run], Eye] | None, host: str, allowed: bool) -> Looking | None:
    """Who looks at pictures at an address that others can reach only if that is `allowed`; None without an `eye`.

    Raises `UserError` where it is not.
    """
    if eye is None:
        return None
    if not allowed:
        raise UserError(
            f"HOST={host} can be reached by others, who could send pictures to the network as well. If they may, "
            "say --upload-by-others; otherwise leave --host or --allow-upload out."
        )
    return Looking(eye)
