"""GGUF to a Hugging Face folder: run by path, with the Python of an engine's environment, never imported by Freehold.

`PYTHON -I THIS versions` prints what the result depends on; `PYTHON -I THIS convert GGUF FOLDER DTYPE` writes the folder. It
speaks one JSON object a line on its first standard output, which it keeps for that alone; libraries' words go to stderr.

transformers reads the file, unpacks every tensor and saves it. What it does not take from the file is set here: how text is
cut before the merges (`tokenizer.ggml.pre`), and whether a text begins with a BOS token. A cut that is not known here or to
transformers is refused: such a tokenizer would work and be wrong. It fetches nothing and runs no code of the model's.
"""

import importlib
import json
import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

DEPENDS = ("transformers", "tokenizers", "safetensors", "torch", "gguf", "numpy")
"""Distributions that the bytes of the result may depend on."""

MAX_SHARD = "4GB"
"""Largest file of weights. Source: transformers' own choice was 5 GB for years; file systems and line cuts prefer less."""

DIGIT_BY_DIGIT = frozenset(
    {"starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b"}
)
"""Values of `tokenizer.ggml.pre` that part digits and then cut as GPT-2 does. Source: llama.cpp, llama-vocab.cpp."""

AS_GPT2 = frozenset(
    {"gpt-2", "gpt2", "mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4", "phi-2"}
)
"""Those that cut as GPT-2 does. Source: the same."""

AS_LLAMA3 = frozenset(
    {"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "tekken"}
)
"""Those that take a word which is a token without looking at merges, and whose texts begin with a BOS token where the file
does not say. Source: the same, `ignore_merges` and `add_bos`."""

_say_to = sys.stdout


def say(**words: object) -> None:
    """Tell the parent one thing."""
    _say_to.write(json.dumps(words) + "\n")
    _say_to.flush()


def versions() -> dict[str, str]:
    """Return what is installed of what the result depends on; raises PackageNotFoundError."""
    return {name: metadata.version(name) for name in DEPENDS}


def _load(name: str) -> Any:
    """Return a library when it is needed: `versions` needs none, and they take seconds to import."""
    return importlib.import_module(name)


def convert(gguf_file: Path, folder: Path, dtype: str) -> None:
    """Write weights, config, tokenizer and chat template of a GGUF file into an empty folder."""
    say(doing="starting")
    torch, transformers = _load("torch"), _load("transformers")
    place: dict[str, Any] = {
        "gguf_file": gguf_file.name,
        "local_files_only": True,
        "trust_remote_code": False,
    }
    said = read_metadata(gguf_file)
    say(doing="tokenizer")
    tokenizer = transformers.AutoTokenizer.from_pretrained(gguf_file.parent, **place)
    set_cut(tokenizer, said)
    set_bos(tokenizer, said)
    tokenizer.save_pretrained(folder)
    say(doing="unpacking")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        gguf_file.parent,
        dtype=getattr(torch, dtype),
        quantization_config=transformers.GgufConfig(dequantize=True),
        **place,
    )
    say(doing="writing")
    model.save_pretrained(folder, max_shard_size=MAX_SHARD)
    write_template(folder, said)
    plain(folder)
    say(done=True)


def read_metadata(gguf_file: Path) -> dict[str, Any]:
    """Return what the file says of its tokenizer, by key without `tokenizer.`; long lists are left out."""
    wanted = ("chat_template", "ggml.model", "ggml.pre", "ggml.add_bos_token", "ggml.add_eos_token")
    fields = _load("gguf").GGUFReader(gguf_file).fields
    keys = {key: f"tokenizer.{key}" for key in wanted}
    return {key: fields[full].contents() for key, full in keys.items() if full in fields}


def set_cut(tokenizer: Any, said: dict[str, Any]) -> None:
    """Cut text as the vocabulary was made for; raises ValueError for a way that is not known."""
    if said.get("ggml.model") != "gpt2":
        return  # others have no such step, or transformers builds theirs from the kind of tokenizer
    pre_tokenizers = _load("tokenizers.pre_tokenizers")
    known = _load("transformers.integrations.gguf.gguf_tokenizer_mapping").GGUF_PRE_TOKENIZER_SPLITS
    name = said.get("ggml.pre", "")
    as_gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if name in DIGIT_BY_DIGIT:
        steps = [pre_tokenizers.Digits(individual_digits=True), as_gpt2]
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    elif name in AS_GPT2:
        tokenizer.backend_tokenizer.pre_tokenizer = as_gpt2
    elif name in AS_LLAMA3:
        tokenizer.backend_tokenizer.model.ignore_merges = True
    elif name not in known:
        message = f"its tokenizer cuts text in the way {name!r}, which is not known here"
        raise ValueError(message)


def set_bos(tokenizer: Any, said: dict[str, Any]) -> None:
    """Have texts begin with a BOS token, and end with an EOS token, exactly where the file says so."""
    processors = _load("tokenizers.processors")
    usual = said.get("ggml.model") == "llama" or said.get("ggml.pre", "") in AS_LLAMA3
    bos = tokenizer.bos_token if said.get("ggml.add_bos_token", usual) else None
    eos = tokenizer.eos_token if said.get("ggml.add_eos_token", False) else None
    around = [token for token in (bos, eos) if token is not None]
    one = [*([f"{bos}:0"] if bos else []), "$A:0", *([f"{eos}:0"] if eos else [])]
    two = [*one, *([f"{bos}:1"] if bos else []), "$B:1", *([f"{eos}:1"] if eos else [])]
    special = [(token, tokenizer.convert_tokens_to_ids(token)) for token in dict.fromkeys(around)]
    steps = [processors.ByteLevel(trim_offsets=False)] if said.get("ggml.model") == "gpt2" else []
    steps.append(processors.TemplateProcessing(single=one, pair=two, special_tokens=special))
    tokenizer.backend_tokenizer.post_processor = processors.Sequence(steps)


def write_template(folder: Path, said: dict[str, Any]) -> None:
    """Write the chat template as it stands in the file, byte for byte."""
    template = said.get("chat_template")
    if template:
        (folder / "chat_template.jinja").write_bytes(str(template).encode())


def plain(folder: Path) -> None:
    """Leave out of the small files what is of this machine or this library alone, so that others read them, and each run alike."""
    config = folder / "tokenizer_config.json"
    fields = json.loads(config.read_bytes())
    for name in ("backend", "is_local", "local_files_only", "name_or_path", "chat_template"):
        fields.pop(name, None)
    if fields.get("tokenizer_class") == "TokenizersBackend":
        fields["tokenizer_class"] = "PreTrainedTokenizerFast"  # its name before transformers 5, known to all
    config.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n")


def main(arguments: list[str]) -> int:
    """Do what is asked; return 0, or 1 with the reason told."""
    global _say_to  # noqa: PLW0603 - set once, before anything is said
    _say_to = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is not an answer
    try:
        if arguments[:1] == ["versions"]:
            say(versions=versions())
        else:
            convert(Path(arguments[1]), Path(arguments[2]), arguments[3])
    except metadata.PackageNotFoundError as error:
        say(error=f"{error.name} is not installed beside {sys.executable}")
        return 1
    except (ImportError, ValueError, KeyError, AttributeError, OSError, RuntimeError, MemoryError) as error:
        say(error=f"{type(error).__name__}: {error}", errno=getattr(error, "errno", None))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
