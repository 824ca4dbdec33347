"""X.509 certificates as PEM texts: made, signed and read. The one importer of `cryptography`.

Keys are EC P-256: every TLS library accepts them, and signing takes less time than with RSA. It touches no file and has no clock.
"""

import inspect
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DNS = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\Z")
"""A name of DNS (RFC 1035, 2.3.4), with the underscore that many local names have."""
_NO_USAGES = dict.fromkeys(inspect.signature(x509.KeyUsage).parameters, False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What a certificate states. Times are Unix seconds."""

    name: str
    """Its common name."""
    hosts: tuple[str, ...]
    """The DNS names and IP addresses of a node; empty: it is a CA's."""
    signed_by: str = ""
    starts_s: int
    ends_s: int


def is_host(text: str) -> bool:
    """Return whether a certificate can be for this: an IP address without a zone, or a DNS name."""
    return _address(text) is not None or bool(_DNS.match(text))


def read_certificate(pem: bytes) -> Certificate:
    """Return the first certificate of a PEM text; raise ValueError if there is none."""
    found = x509.load_pem_x509_certificate(pem)
    names = [each.value for each in found.extensions if isinstance(each.value, x509.SubjectAlternativeName)]
    return Certificate(
        name=_common_name(found.subject),
        hosts=tuple(str(host.value) for each in names for host in each),
        signed_by=_common_name(found.issuer),
        starts_s=int(found.not_valid_before_utc.timestamp()),
        ends_s=int(found.not_valid_after_utc.timestamp()),
    )


def new_ca(wanted: Certificate, older: bytes) -> bytes:
    """Return a new CA as PEM: key, certificate, and one for the same key that the `older` CA (empty: there is none) signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = _key_pem(key) + _sign(wanted, key, (wanted.name, key))
    if not older:
        return pem
    # If it outlived the older CA, OpenSSL could go on to that expired one, with a good one at hand.
    crossed = replace(wanted, ends_s=min(wanted.ends_s, read_certificate(older).ends_s))
    return pem + _sign(crossed, key, _signer(older))


def new_node(wanted: Certificate, ca: bytes) -> bytes:
    """Return a node's new key and certificate as PEM, signed by this CA; raise ValueError if the CA's PEM is damaged."""
    key = ec.generate_private_key(ec.SECP256R1())
    return _key_pem(key) + _sign(wanted, key, _signer(ca))


def _sign(
    wanted: Certificate, key: ec.EllipticCurvePrivateKey, signer: tuple[str, ec.EllipticCurvePrivateKey]
) -> bytes:
    is_ca, (by, by_key) = not wanted.hosts, signer
    usages = {"key_cert_sign": True, "crl_sign": True} if is_ca else {"digital_signature": True}
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=is_ca, path_length=None), True),
        (x509.KeyUsage(**_NO_USAGES | usages), True),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(by_key.public_key()), False),
    ]
    if not is_ca:
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        names = [
            x509.IPAddress(at) if (at := _address(each)) else x509.DNSName(each) for each in wanted.hosts
        ]
        extensions += [(x509.ExtendedKeyUsage(both), False), (x509.SubjectAlternativeName(names), False)]
    built = x509.CertificateBuilder(
        issuer_name=_x500(by),
        subject_name=_x500(wanted.name),
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=datetime.fromtimestamp(wanted.starts_s, UTC),
        not_valid_after=datetime.fromtimestamp(wanted.ends_s, UTC),
    )
    for extension, is_critical in extensions:
        built = built.add_extension(extension, critical=is_critical)
    return built.sign(by_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return None if "%" in host else ip_address(host)
    except ValueError:
        return None


def _x500(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _common_name(name: x509.Name) -> str:
    return "".join(str(each.value) for each in name.get_attributes_for_oid(NameOID.COMMON_NAME))


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _signer(ca: bytes) -> tuple[str, ec.EllipticCurvePrivateKey]:
    key = serialization.load_pem_private_key(ca, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)  # as `new_ca` made it
    return read_certificate(ca).name, key
