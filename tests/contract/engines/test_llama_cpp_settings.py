"""What more of llama.cpp's options do, on the real model: templates, reasoning, what is kept of prompts, one cache for all slots.

Two servers with many options each, since a start is most of what a test costs.
"""

import asyncio
from pathlib import Path
from typing import Any

from freehold.engines.base import Placement, Value
from freehold.engines.llama_cpp import ENGINE
from freehold.fleet.decisions.plan import FleetSettings, ReplicaPlan
from freehold.fleet.probe import HttpProber, ReadinessAnswer
from freehold.testing.check_running_engine import EngineChild, start_child
from small_reranker import write_reranker
from waiting import wait_until

TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }} ({{ tone }})
{{ message.content }}
{%- if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>{% endif %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif -%}"""
ONE, OTHER = (
    "The lighthouse keeper counted ships all night. " * 3,
    "A recipe for soup begins with an onion. " * 3,
)


def placed(weights: Path, port: int, **options: Value) -> Placement:
    return Placement(model="m", weights=weights, host="127.0.0.1", port=port, options=options, threads=1)


def told(child: EngineChild, path: str, **body: object) -> Any:
    answer = child.client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_templates_reasoning_and_a_context_that_moves_on(
    weights_path: Path, free_port: int, tmp_path: Path
) -> None:
    template = tmp_path / "template.jinja"
    template.write_text(TEMPLATE)
    options: dict[str, Value] = {
        "n_ctx": 256,
        "n_parallel": 1,
        "chat_template_file": str(template),
        "chat_template_kwargs": '{"tone": "kindly"}',
        "reasoning_format": "deepseek",
        "context_shift": True,
        "cache_ram": 0,
    }
    with start_child(ENGINE, placed(weights_path, free_port, **options)) as child:
        child.wait_ready()
        asked = [{"role": "user", "content": "hi"}]
        prompt = told(child, "/apply-template", messages=asked)["prompt"]
        assert prompt == "<|im_start|>user (kindly)\nhi<|im_end|>\n<|im_start|>assistant\n"

        grammar = 'root ::= "<think>because</think>yes"'
        answer = told(child, "/v1/chat/completions", messages=asked, grammar=grammar, max_tokens=40)
        message = answer["choices"][0]["message"]
        assert (message["reasoning_content"], message["content"]) == ("because", "yes")

        # The slot's 256 tokens are full after fifteen or so, and the answer goes on.
        long = told(child, "/v1/completions", prompt="word " * 240, max_tokens=40, ignore_eos=True)
        assert long["usage"]["completion_tokens"] == 40

        # With no room for caches of earlier prompts, only what the slot itself still has is used again.
        assert kept_of_an_earlier_prompt(child) < 5


def test_one_cache_for_all_slots_and_what_is_kept_of_earlier_prompts(
    weights_path: Path, free_port: int
) -> None:
    options: dict[str, Value] = {
        "n_ctx": 512,
        "n_parallel": 2,
        "kv_unified": True,
        "slot_prompt_similarity": 0.9,
        "spec_type": "ngram-cache",
        "embeddings": True,
        "pooling": "mean",
        "embd_normalize": -1,
        "load_mode": "none",
        "check_tensors": True,
        "warmup": False,
    }
    placement = placed(weights_path, free_port, **options)
    with start_child(ENGINE, placement) as child:
        child.wait_ready()
        slots = child.client.get("/slots").json()
        assert [slot["n_ctx"] for slot in slots] == [ENGINE.max_context_tokens(options)] * 2 == [512, 512]
        whole = told(child, "/v1/completions", prompt="word " * 270, max_tokens=1)
        assert whole["usage"]["prompt_tokens"] > 256

        assert kept_of_an_earlier_prompt(child) > 20

        vector = told(child, "/v1/embeddings", input="hello")["data"][0]["embedding"]
        assert sum(x * x for x in vector) > 4  # by itself it has the length 1

        before = child.metrics()["decode_steps_total"]
        count = "one two three four five six seven eight nine ten, "
        again = f'root ::= "{count * 2}"'
        made = told(child, "/v1/completions", prompt=count * 2, max_tokens=40, temperature=0, grammar=again)
        assert made["choices"][0]["text"].startswith(count)
        steps = child.metrics()["decode_steps_total"] - before
        assert steps < made["usage"]["completion_tokens"] - 5


def test_an_encoder_is_ready_with_embeddings_and_says_which_option_is_missing_without(
    free_port: int, tmp_path: Path
) -> None:
    weights = write_reranker(tmp_path / "encoder.gguf")
    for options in ({"embeddings": True}, {"embeddings": True, "pooling": "rank"}):
        with start_child(ENGINE, placed(weights, free_port, n_ctx=512, **options)) as child:
            child.wait_ready()

    async def ask(url: str) -> ReadinessAnswer:
        prober = HttpProber(FleetSettings(log_dir=tmp_path))
        try:
            return await prober.ask(ReplicaPlan(id="m-0", model="m", engine=ENGINE), url)
        finally:
            await prober.close()

    with start_child(ENGINE, placed(weights, free_port, n_ctx=512)) as child:
        url = f"http://127.0.0.1:{free_port}"
        answer = wait_until(
            lambda: (said := asyncio.run(ask(url))).reason.startswith("HTTP 500") and said, timeout_s=20
        )
    assert not answer.ok
    assert "embeddings: true" in answer.reason


def kept_of_an_earlier_prompt(child: EngineChild) -> int:
    """Return how many tokens of a prompt are used again after another one was in its slot."""
    for prompt in (ONE, OTHER, ONE):
        last = told(child, "/completion", prompt=prompt, n_predict=1, id_slot=0, cache_prompt=True)
    return int(last["tokens_cached"] and last["timings"]["cache_n"])
