"""No password and no signature of an address is printed, however the address was mistyped."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from actmine.jobs.__main__ import application
from actmine.pipeline.errors import UserError, without_secrets

SECRET = "geheim"
MISTYPED = [
    f"https://someone:{SECRET}@host/a.tar", f"https://someone:{SECRET}@", f"https:/someone:{SECRET}@host/a.tar",
    f"https:someone:{SECRET}@host/a.tar", f"//someone:{SECRET}@host/a.tar", f"someone:{SECRET}@host/a.tar",
    f"https//someone:{SECRET}@host/a.tar", f"htps://someone:{SECRET}@host/a.tar", f"HTTPS://someone:{SECRET}@h/a",
    f"https://someone:{SECRET}@@host/a.tar", f"https://someone:x/{SECRET}@host/a.tar", f"https://{SECRET}@host/a.tar",
    f"https://someone:x#{SECRET}@host/a.tar", f"https://someone:x?{SECRET}@host/a.tar", f"ftp://a:{SECRET}@host/a.tar",
    f"https://someone:my {SECRET}@host/a.tar", f"https://someone:'{SECRET}@host/a", f"https://a:\n{SECRET}@host/a.tar",
    f"https://someone:{SECRET}@host:port/a.tar", f"https://someone:{SECRET}@[::1/a.tar", f"https://a:{SECRET}@h℀/a.tar",
    f"https://someone:{SECRET}%40host/a.tar", f"https:\\\\someone:{SECRET}@host\\a.tar", f" https://a:{SECRET}@host/a",
    f"https://someone:{SECRET}/a.tar", f"https://someone:{SECRET}", f"https://a:{SECRET}@host/{{0..x.tar",
    f"s3://KEY:x/{SECRET}@bucket/a.tar", f"s3:/KEY:{SECRET}@bucket/a", f"file://a:{SECRET}@h/a",
    f"pipe:curl https://a:{SECRET}@host/a.tar", f"https:/host/a.tar?token={SECRET}", f"host/a.tar?b=c&token={SECRET}",
    f"htps://host/a.tar?X-Amz-Signature={SECRET}", f"htps://host/a.tar#access_token={SECRET}",
]  # fmt: skip
HARMLESS = [
    "There is nothing in s3://bucket/user@example.com/run. Check its name.",
    "https://host:8080/a.tar, http://127.0.0.1:8420 and https://[::1]:80/a.tar cannot be reached",
    "a folder of images (class/image or flat), or tars (shards/{0000..0063}.tar, also https:// or s3://).",
    "MODEL is package.module:factory; write to someone@example.com.",
    "nothing is called s3://bucket/a?.tar: Shard C:\\data\\b.tar; LAYERS='layer4.*'",
    "actmine mine --dataset 's3://bucket/images-shards' --run …",
]


@pytest.mark.parametrize("word", MISTYPED)
def test_no_secret_is_left_in_a_sentence(word):
    for sentence in (f"DATASET={word!r} is none.", f"RUN={word} cannot hold a run.", word, f"{word}: see https://h/b"):
        assert SECRET not in without_secrets(sentence) and SECRET not in str(UserError(sentence))


@pytest.mark.parametrize("sentence", HARMLESS)
def test_other_sentences_stay_as_they_are(sentence):
    assert without_secrets(sentence) == sentence == str(UserError(sentence))


def test_what_is_no_secret_can_still_be_read():
    told = without_secrets(f"https:/someone:{SECRET}@host/a.tar?X-Amz-Signature={SECRET}&x=1 is not there")
    assert told == "https:/…@host/a.tar?X-Amz-Signature=…&x=… is not there"


@pytest.mark.parametrize("word", MISTYPED[::3])
def test_no_command_prints_a_secret(word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shards, sheets, mine = (application([command]) for command in ("shards", "sheets", "mine"))
    for app, words in (
        (shards, ["shards", "--source", "nowhere", "--out", word]), (sheets, ["sheets", "--run", word]),
        (mine, ["mine", "--dataset", "nowhere", "--run", word]), (mine, ["mine", word]),
    ):  # fmt: skip
        done = CliRunner().invoke(app, words)
        assert done.exit_code in (1, 2) and isinstance(done.exception, SystemExit), (words, done.exception)
        assert done.stderr and SECRET not in done.output, words


@pytest.mark.parametrize("word", [word for word in MISTYPED if not word.lower().startswith(("https://", "s3://"))])
def test_no_dataset_that_is_not_there_is_named_with_its_secret(word, tmp_path):
    words = ["mine", "--dataset", word, "--data", str(tmp_path), "--run", str(tmp_path / "run"), "--model", "demo"]
    done = CliRunner().invoke(application(["mine"]), words)
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit) and SECRET not in done.output
