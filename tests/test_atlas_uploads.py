"""Forms with pictures: read as another library writes them, and whatever else comes is refused."""

from __future__ import annotations

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actmine.pipeline.atlas.uploads import parts_of
from actmine.pipeline.errors import UserError


def form(data: dict[str, str], files: dict[str, tuple[str, bytes]]) -> tuple[str, bytes]:
    """A form as httpx writes it: its type and its bytes."""
    request = httpx2.Request("POST", "http://x/", data=data, files=files)
    return request.headers["content-type"], request.read()


NAMES = ("a.png", "日本 猫.jpg", 'q"uote.gif', "x;y=z.png")


@given(st.binary(max_size=400), st.text(max_size=40), st.sampled_from(NAMES))
def test_fields_and_files_come_back_byte_for_byte(data, text, name):
    kind, body = form({"token": text}, {"picture": (name, data)})
    found = parts_of(kind, body)
    assert found["token"].text == text.encode("utf-8", "replace").decode() and found["token"].filename == ""
    assert found["picture"].data == data and found["picture"].filename.replace("%22", '"') == name


def test_a_file_is_named_without_its_folder_and_the_first_of_a_name_counts():
    body = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="picture"; filename="%s"\r\nContent-Type: image/png\r\n\r\n%s\r\n'
        % pair for pair in ((rb"C:\\photos\\cat.png", b"first"), (b"../../etc/passwd", b"second"))
    ) + b"--b--\r\n"  # fmt: skip
    found = parts_of("multipart/form-data; boundary=b", body)
    assert (found["picture"].data, found["picture"].filename) == (b"first", "cat.png")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("", b""), ("text/plain", b"x"), ("multipart/form-data", b"--b--"), ("multipart/form-data; boundary=", b"----"),
        ("multipart/form-data; boundary=b", b""), ("multipart/form-data; boundary=b", b"--b\r\nx"),
        ("multipart/form-data; boundary=b", b"--b\r\nno gap\r\n--b--"),
        ("multipart/form-data; boundary=b", b"before--b\r\n\r\n\r\n--b--"),
        ("multipart/form-data; boundary=b", b"--b\r\nA: b\r\n\r\n1\r\n" * 40 + b"--b--"),
        ("multipart/form-data; boundary=b", b"--b\r\n" + b"A: b\r\n" * 4000 + b"\r\n1\r\n--b--"),
        ("multipart/form-data; boundary=" + "b" * 500, b"--b--"),
    ],
)  # fmt: skip
def test_what_is_no_whole_form_is_refused(kind, body):
    with pytest.raises(UserError, match="form"):
        parts_of(kind, body)


@given(st.binary(max_size=300))
def test_no_bytes_make_it_do_anything_but_refuse_or_read(data):
    try:
        found = parts_of("multipart/form-data; boundary=b", b"--b" + data + b"\r\n--b--")
    except UserError:
        return
    assert all(part.data in data for part in found.values())
