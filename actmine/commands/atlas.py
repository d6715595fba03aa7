"""`atlas`: a run in the browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actmine.console import Display
from actmine.options.atlas import Atlas
from actmine.pipeline.atlas.extra import atlas_extra

if TYPE_CHECKING:
    from actmine.pipeline.atlas.looked import Eye
    from actmine.pipeline.run import Run


def atlas(options: Atlas, display: Display) -> None:
    """Carries out `atlas`."""
    with atlas_extra():
        from actmine.pipeline.atlas.hosts import LOOPBACK
        from actmine.pipeline.atlas.server import serve

    def say(address: str) -> None:
        if options.as_json:
            display.answer({"run": options.run, "address": address})
        else:
            print(address, flush=True)
        display.say("Open it in a browser; Ctrl-C ends.")

    try:
        serve(
            options.run, options.port, say, options.trust,
            host=options.host or LOOPBACK, allowed=options.allow_host or (), note=display.say,
            read_only=options.read_only, author=options.author, shared=options.allow_origin or (),
            eye=_eye if options.allow_upload else None, for_others=options.upload_by_others,
        )  # fmt: skip
    except KeyboardInterrupt:
        display.say("Ended.")


def _eye(run: Run) -> Eye:
    """The network of a run; torch comes with the first picture."""
    from actmine.pipeline.inspect import eye

    return eye.Eye(run)
