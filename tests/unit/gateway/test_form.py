"""A form names the model as the engine knows it, and all else in it stays as it is."""

import pytest

from freehold.gateway.wire.form import Form, read_form, with_model

KIND = b"multipart/form-data; boundary=b"
BODY = (
    b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nmine\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="model"\r\n\r\n\r\n--B\r\nmine\r\n--b--\r\n'
)


def test_the_model_is_renamed() -> None:
    renamed = with_model(BODY, KIND, "theirs/model-1")
    assert renamed == BODY.replace(b"mine", b"theirs/model-1", 1)
    form = read_form(renamed, KIND)
    assert isinstance(form, Form)
    assert (form.model, form.names, form.stream) == ("theirs/model-1", {"model", "file"}, False)


@pytest.mark.parametrize("cut", range(len(BODY) - 4))
def test_a_form_that_was_cut_is_none(cut: int) -> None:
    assert not isinstance(read_form(BODY[:cut], KIND), Form)
