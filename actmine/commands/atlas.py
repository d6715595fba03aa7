"""`atlas`: a run in the browser."""

from __future__ import annotations

from actmine.console import Display
from actmine.options.atlas import Atlas
from actmine.pipeline.atlas.extra import atlas_extra


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
        )  # fmt: skip
    except KeyboardInterrupt:
        display.say("Ended.")
