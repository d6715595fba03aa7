"""Passwords and signatures of addresses are not said, however an address is misspelt."""

from __future__ import annotations

import pickle
from contextlib import suppress

import pytest
from typer.testing import CliRunner

from actmine.jobs.__main__ import application
from actmine.pipeline.datasets.shards import Replaced
from actmine.pipeline.errors import UserError, without_secrets
from actmine.pipeline.storage.files import run_folder
from tests.making import refusal

FORMS = (
    "https://someone:geheim@host/x.tar", "https:/someone:geheim@host/x.tar", "https//someone:geheim@host/x.tar",
    "https:someone:geheim@host/x.tar", "someone:geheim@host/x.tar", "//someone:geheim@host/x.tar",
    "https:///someone:geheim@host/x.tar", "HTTPS://someone:geheim@host/*.tar", "https://geheim@host",
    "https://someone:ge@geheim@host/[0-9].tar", "https://someone:geheim/geheim@host/x/", "gs://someone:geheim@host/a.tar",
    "https://host/x.tar?X-Amz-Signature=geheim", "https:/host/x.tar?a=1&sig=geheim", "host/x.tar?sig=geheim",
    "https://host/x.tar#token=geheim", "s3://key:geheim@bucket/x.tar", "ftp://host/{a,b}.tar?sig=geheim",
    "https://host/x/*.tar?sig=geheim", "pipe:curl https://someone:geheim@host/x.tar",
)  # fmt: skip


@pytest.mark.parametrize("word", FORMS)
def test_no_form_of_dataset_or_run_shows_them(word, monkeypatch):
    monkeypatch.setattr("actmine.pipeline.datasets.remote.ATTEMPTS", 1)
    assert "geheim" not in without_secrets(f"DATASET={word!r} is none")
    if not word.startswith(("https://host/x.tar", "https://someone:geheim@host/x.tar", "s3://")):  # would be asked for
        assert "geheim" not in refusal(word)
    with suppress(UserError):
        run_folder(word)  # a folder of this name
        return
    with pytest.raises(UserError) as caught:
        run_folder(word)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("word", FORMS[:5])
def test_no_command_prints_them(word, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("actmine.pipeline.datasets.remote.ATTEMPTS", 1)
    words = [["mine", "--dataset", word.replace("host", "localhost:1")], ["atlas", "--run", word],
             ["shards", "--source", word.replace("host", "localhost:1"), "--out", "out"]]  # fmt: skip
    for command in words:
        result = CliRunner().invoke(application(command[:1]), command)
        assert result.exit_code == 1 and result.output.strip() and "geheim" not in result.output


@pytest.mark.parametrize(
    "text",
    [
        "shard 3, photo@2x.jpg: empty file",
        "The table /data/a/units/x.parquet cannot be read (Unexpected end of stream).",
        "There is no layer 'features.3:relu'. Did you mean features.3?",
        "MODEL=mine.networks:digits failed when it was called without arguments: ValueError: no (x.py, line 3).",
        "Say TOPK=50 BANDS=5 ARGS='--band-images 40'.",
    ],
)
def test_other_sentences_stay_as_they_are(text):
    assert without_secrets(text) == text


def test_errors_of_images_travel():
    back = pickle.loads(pickle.dumps(Replaced("a.jpg is longer.", "is longer")))
    assert str(back) == "a.jpg is longer." and back.how == "is longer"
