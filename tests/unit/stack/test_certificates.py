"""Certificates as texts: what is made is what is read, and what a name may be."""

import pytest

from freehold.stack.ca.ca_folder import is_node_name
from freehold.stack.ca.certificates import Certificate, is_host, new_ca, new_node, read_certificate

CA = Certificate(name="one", hosts=(), signed_by="one", starts_s=1_700_000_000, ends_s=1_900_000_000)
HOSTS = ("node-1", "node-1.lan", "10.0.0.1", "2001:db8::1")
NODE = Certificate(name="node-1", hosts=HOSTS, signed_by="one", starts_s=1_750_000_000, ends_s=1_760_000_000)


def test_what_is_read_is_what_was_made():
    ca = new_ca(CA, b"")
    assert read_certificate(ca) == CA
    assert read_certificate(new_node(NODE, ca)) == NODE


def test_each_certificate_has_a_key_of_its_own():
    ca = new_ca(CA, b"")
    one, two = (new_node(NODE, ca).partition(b"-----BEGIN CERT")[0] for _ in range(2))
    assert b"PRIVATE KEY" in one
    assert one != two


@pytest.mark.parametrize("text", [*HOSTS, "a", "gpu_1", "::1", "key-137268cd", "xn--bcher-kva.example"])
def test_a_host(text: str):
    assert is_host(text)
    assert is_node_name(text) == (":" not in text)


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", "a/b", "../a", "a b", "a\n", "-a", "a-", "a..b", "b\u00fccher", "*.lan", "fe80::1%eth0", "a:1", "x" * 64,
     "\x00", "http://a"],
)  # fmt: skip
def test_no_host(text: str):
    assert not is_host(text)
    assert not is_node_name(text)


def test_a_name_is_no_longer_than_x509_allows():
    assert is_node_name("a." * 31 + "aa")
    assert is_host("a." * 32 + "a")
    assert not is_node_name("a." * 32 + "a")
