"""The Hugging Face hub, asked once whether it answers: its own client waits half a minute before it gives up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

ADVICE = (
    "Is the name right, and the machine online? What was downloaded before is looked for in the folder that HF_HOME "
    "names; a private repository takes a token (HF_TOKEN)."
)
_SECONDS = 10.0


@contextmanager
def asked_once(repository: str, file: str, revision: str = "") -> Iterator[None]:
    """A block in which the hub's client makes do with what was downloaded before, if the hub does not answer now.

    Whether it does shows a question for `file` of `repository`; that it has no such file is an answer too.
    """
    import huggingface_hub as hub
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _answers(hub.hf_hub_url(repository, file, revision=revision or None))
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _answers(url: str) -> bool:
    import huggingface_hub as hub
    from huggingface_hub.errors import HfHubHTTPError

    try:
        hub.get_hf_file_metadata(url, timeout=_SECONDS)
    except HfHubHTTPError:
        return True
    except Exception:  # of several libraries for http, which change with their versions: no answer, whatever it is
        return False
    return True
