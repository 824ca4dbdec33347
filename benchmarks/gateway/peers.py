"""The gateways that are compared, one function each: write its configuration, return its command.

Every one runs on one core with one worker, keeps connections to the engine, does not buffer answers and writes no
access log, so that they do the same work. A peer that cannot be had here is skipped with its reason. Deliberately
no tuning beyond that: a peer stands with the settings its own manual recommends for a streaming proxy.
"""

import hashlib
import json
import os
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from build import BIN, CannotMeasureError
from processes import API_KEY, Running, free_port, need_tool, pinned, spawn, stop, wait_ready

ROOT = Path(__file__).resolve().parents[2]
INSTALL_LIMIT_S, INSIDE_LIMIT_S = 300, 60

NGINX = """
daemon off;
master_process off;
worker_processes 1;
worker_rlimit_nofile 16384;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 8192; use epoll; multi_accept on; }}
http {{
    access_log off;
    tcp_nodelay on;
    keepalive_requests 100000000;
    client_body_buffer_size 64k;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream engines {{
        {servers}
        keepalive 1024;
        keepalive_requests 100000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096{tls};
        location / {{
            proxy_pass http://engines;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_next_upstream error timeout http_503 non_idempotent;
        }}
    }}
}}
"""


@dataclass(kw_only=True, slots=True)
class Setting:
    """What a peer is told: where to listen, which engines, where its files go, which Python environment to use."""

    port: int
    engines: list[int]
    folder: Path
    venv: Path
    may_install: bool
    features: tuple[str, ...] = ()  # of FEATURES and IN_MODEL, for our own gateway
    tls: tuple[str, str] | None = None  # files of a certificate and its key; None: plain HTTP


@dataclass(kw_only=True, slots=True)
class Launch:
    """How to start a peer: its command, and what it needs in its environment."""

    command: list[str]
    env: dict[str, str]


def urls(ports: list[int]) -> list[str]:
    return [f"http://127.0.0.1:{port}" for port in ports]


def relay(setting: Setting) -> Launch:
    """Give the floor: bytes passed on by epoll, no HTTP. Knows one engine."""
    return Launch(command=[str(BIN / "relay"), str(setting.port), str(setting.engines[0])], env={})


def nginx(setting: Setting) -> Launch:
    program = need_tool("nginx", "nginx-light")
    servers = " ".join(f"server 127.0.0.1:{port};" for port in setting.engines)
    config = setting.folder / "nginx.conf"
    tls = " ssl; ssl_certificate {}; ssl_certificate_key {}".format(*setting.tls) if setting.tls else ""
    config.write_text(NGINX.format(folder=setting.folder, port=setting.port, servers=servers, tls=tls))
    return Launch(command=[program, "-p", str(setting.folder), "-c", str(config)], env={})


def install(folder: Path) -> None:
    """Make the environment of the Python peers from the hash-pinned requirements; it ignores itself in git."""
    venv.EnvBuilder(with_pip=True).create(folder)
    (folder / ".gitignore").write_text("*\n")
    wanted = str(ROOT / "requirements" / "bench.txt")
    command = [
        str(folder / "bin" / "python"),
        "-m",
        "pip",
        "install",
        "-q",
        "--no-input",
        "--require-hashes",
        "-r",
    ]
    try:
        done = subprocess.run(
            [*command, wanted], capture_output=True, text=True, timeout=INSTALL_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise CannotMeasureError(
            f"pip took over {INSTALL_LIMIT_S} s to install requirements/bench.txt"
        ) from exc
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise CannotMeasureError(f"pip could not install requirements/bench.txt: {reason}")


def vllm_router(setting: Setting) -> Launch:
    program = setting.venv / "bin" / "vllm-router"
    if not program.exists():
        if not setting.may_install:
            raise CannotMeasureError(f"{program} is missing and --no-install was given")
        install(setting.venv)
    command = [
        str(program),
        "--host",
        "127.0.0.1",
        "--port",
        str(setting.port),
        "--worker-urls",
        *urls(setting.engines),
    ]
    command += [
        "--policy",
        "round_robin",
        "--log-level",
        "error",
        "--rate-limit-tokens-per-second",
        "1000000",
    ]
    return Launch(command=[*command, "--prometheus-port", str(free_port())], env={})


def freehold_python() -> str:
    own = ROOT / ".venv" / "bin" / "python"
    return str(own) if own.exists() else sys.executable


def freehold_env(root: Path = ROOT) -> dict[str, str]:
    """Give what makes Python import the package of this checkout, or of another one."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))}


def metering(folder: Path) -> dict[str, object]:
    """Write every request into a spool. Nobody drains it: that is another process's work, on another core."""
    spool = folder / "spool"
    spool.mkdir(mode=0o700)
    return {"spool_path": str(spool), "spool_max_bytes": 2 << 30}


def keys(folder: Path) -> dict[str, object]:
    """Ask for a key that has every kind of limit, none of which is ever reached."""
    digest = hashlib.blake2b(API_KEY.encode(), digest_size=32, person=b"freehold-key-v1").hexdigest()
    named = ("requests_per_minute", "tokens_per_minute", "concurrency", "monthly_tokens")
    record = {"id": "bench", "name": "bench", "hash": digest, "created_s": 1}
    record["limits"] = dict.fromkeys(named, 10**12)
    path = folder / "keys.json"
    path.write_text(json.dumps({"version": 1, "keys": [record]}))
    path.chmod(0o600)
    return {"keys_path": str(path), "budgets_path": str(folder / "budgets.json")}


def access_log(folder: Path) -> dict[str, object]:
    """Write one line per request."""
    return {"access_log": {"path": str(folder / "access.log")}}


FEATURES: dict[str, Callable[[Path], dict[str, object]]] = {
    "metering": metering,
    "keys": keys,
    "access log": access_log,
}
"""What can be switched on beyond routing, pooling, failover, admission and metrics, which are always on."""
IN_MODEL: dict[str, dict[str, str]] = {"continuation": {"resume": "final-message"}}
"""What can be switched on under a model. As delivered, streams of llama-cpp are continued and those of `external` servers,
as the mock is one, are not."""


def freehold(setting: Setting, root: Path = ROOT) -> Launch:
    """Give this repository's gateway, without a controller: it reads its listening address and endpoints from a file."""
    if not (root / "freehold" / "gateway" / "run.py").exists():
        raise CannotMeasureError(f"{root} has no freehold/gateway/run.py")
    # The engine's slots are told, since what is measured is the gateway and not how it finds them out.
    model: dict[str, object] = {"name": "m", "engine": "external", "endpoints": urls(setting.engines)}
    model["slots"] = 4096
    config = setting.folder / "gateway.json"
    settings: dict[str, object] = {"log_level": "warning"}
    for name in setting.features:
        settings |= FEATURES[name](setting.folder) if name in FEATURES else {}
        model |= IN_MODEL.get(name, {})
    if setting.tls is not None:
        settings["tls"] = dict(zip(("certificate", "key"), setting.tls, strict=True))
    listen = f"127.0.0.1:{setting.port}"
    config.write_text(json.dumps({"listen": listen, "models": [model], "settings": settings}))
    alone = root / "tests" / "gateway_rig" / "standalone.py"
    # Older checkouts have this start in the program itself; -P, since the current folder would be imported before theirs.
    start = ["-P", str(alone)] if alone.exists() else ["-P", "-m", "freehold.gateway.run", "--standalone"]
    return Launch(command=[freehold_python(), *start, str(config)], env=freehold_env(root))


def before(setting: Setting) -> Launch:
    """Give the gateway of the older checkout that FREEHOLD_BEFORE names, in this checkout's environment."""
    return freehold(setting, Path(os.environ["FREEHOLD_BEFORE"]))


PEERS: dict[str, Callable[[Setting], Launch]] = {
    "tcp-relay": relay,
    "nginx": nginx,
    "vllm-router": vllm_router,
    "freehold": freehold,
}

BEFORE = "freehold before"
"""An older checkout's gateway: started only where it is asked for."""
EVERYTHING = (*FEATURES, *IN_MODEL)
STAGES = {
    "freehold plain": (),
    "+ metering": ("metering",),
    "+ keys, limits": ("metering", "keys"),
    "+ access log": ("metering", "keys", "access log"),
    "+ continuation": EVERYTHING,
}
"""Our gateway with one part after another switched on."""


def certificate(folder: Path) -> tuple[str, str]:
    """Make the kind of certificate that most have now, by a key on P-256, and return its file and its key's."""
    files = str(folder / "tls.pem"), str(folder / "tls.key")
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost"]
    command = [need_tool("openssl", "openssl"), "req", "-x509", *kind, "-out", files[0], "-keyout", files[1]]
    subprocess.run(command, capture_output=True, check=True)
    return files


def inside(core: int) -> dict[str, float]:
    """Measure our gateway's own code with inside.py; microseconds by what was measured."""
    command = pinned(core, [freehold_python(), str(Path(__file__).with_name("inside.py"))])
    env = {**os.environ, **freehold_env()}
    done = subprocess.run(
        command, capture_output=True, text=True, env=env, timeout=INSIDE_LIMIT_S, check=False
    )
    if done.returncode:
        raise CannotMeasureError(f"inside.py: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def start(name: str, setting: Setting, core: int) -> Running:
    """Start a peer or a stage and wait for a completion through it; raises CannotMeasureError with the reason."""
    setting.folder.mkdir(parents=True, exist_ok=True)
    known = {**PEERS, BEFORE: before, **dict.fromkeys(STAGES, freehold)}
    launch = known[name](setting)
    log = setting.folder / "log"
    process = spawn(launch.command, log=log, core=core, env=launch.env)
    try:
        wait_ready(process, setting.port, log, tls=setting.tls is not None)
    except CannotMeasureError:
        stop(process)
        raise
    return Running(name=name, port=setting.port, process=process, log=log)
