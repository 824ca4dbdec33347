"""What llama.cpp's options do, on the real model: a quantised KV cache, adapters, slots on disk, drafts."""

from pathlib import Path

import pytest
from gguf import GGUFReader

from freehold.engines.base import ExitKind, Placement, Value
from freehold.engines.llama_cpp import ENGINE
from freehold.gateway.wire.request_tokens import TOKEN_BYTES_MAX
from freehold.testing.check_running_engine import EngineChild, start_child
from lora_adapter import write_adapter
from small_projector import write_projector
from waiting import wait_until

STORY = "Once upon a time there was a small lighthouse. Every evening"


def placed(weights: Path, port: int, **options: Value) -> Placement:
    return Placement(
        model="smollm2-135m", weights=weights, host="127.0.0.1", port=port, options=options, threads=1
    )


def told(child: EngineChild, **more: object) -> str:
    body = {"prompt": STORY, "max_tokens": 24, "temperature": 0, "cache_prompt": False, **more}
    answer = child.client.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["text"])


def kv_log(child: EngineChild) -> str:
    child.log.seek(0)
    lines = child.log.read().decode("utf-8", "replace").splitlines()
    return next(line for line in lines if "llama_kv_cache: size" in line)


@pytest.fixture
def plain(weights_path: Path, free_port: int) -> str:
    with start_child(ENGINE, placed(weights_path, free_port)) as child:
        child.wait_ready()
        return told(child)


def test_a_quantised_kv_cache_is_smaller_and_answers(weights_path: Path, free_port: int) -> None:
    sizes = {}
    for kind in ("f16", "q8_0"):
        options = {"cache_type_k": kind, "cache_type_v": kind, "flash_attn": "on", "verbosity": 4}
        with start_child(ENGINE, placed(weights_path, free_port, **options)) as child:
            child.wait_ready()
            assert len(told(child)) > 20
            assert f"K ({kind})" in kv_log(child)
            sizes[kind] = float(kv_log(child).partition("size =")[2].split()[0])
    assert sizes["q8_0"] == pytest.approx(
        sizes["f16"] * 34 / 64, rel=0.01
    )  # 32 bytes and a scale instead of 64


def test_a_quantised_value_cache_without_flash_attention_ends_as_it_was_foretold(
    weights_path: Path, free_port: int
) -> None:
    placement = placed(weights_path, free_port, cache_type_v="q8_0", flash_attn="off")
    with start_child(ENGINE, placement) as child:
        wait_until(lambda: child.process.poll() is not None, timeout_s=30, what="its end")
        cause = ENGINE.explain_exit(child.process.returncode, child.log_lines)
    assert (cause.kind, cause.restart) == (ExitKind.BAD_OPTION, False)
    assert "flash" in cause.summary


def test_an_adapter_of_nothing_changes_nothing_and_one_of_noise_does(
    weights_path: Path, free_port: int, tmp_path: Path, plain: str
) -> None:
    nothing = write_adapter(tmp_path / "nothing.gguf", strength=0)
    noise = write_adapter(tmp_path / "noise.gguf", strength=1)
    placement = placed(weights_path, free_port, lora=f"{nothing}", lora_scaled=f"{noise}:0")
    with start_child(ENGINE, placement) as child:
        child.wait_ready()
        adapters = child.client.get("/lora-adapters").json()
        assert [(Path(one["path"]).name, one["scale"]) for one in adapters] == [
            ("noise.gguf", 0.0),
            ("nothing.gguf", 1.0),
        ]
        assert told(child) == plain
        assert told(child, lora=[{"id": 0, "scale": 1.0}]) != plain  # by the request
        child.client.post("/lora-adapters", json=[{"id": 0, "scale": 1.0}])  # for all
        assert told(child) != plain


@pytest.mark.parametrize("option", ["lora", "mmproj", "spec_draft_model"])
def test_a_file_beside_the_weights_that_is_none_is_bad_weights(
    weights_path: Path, free_port: int, tmp_path: Path, option: str
) -> None:
    (tmp_path / "no.gguf").write_bytes(b"GGUF no")
    with start_child(ENGINE, placed(weights_path, free_port, **{option: str(tmp_path / "no.gguf")})) as child:
        wait_until(lambda: child.process.poll() is not None, timeout_s=30, what="its end")
        cause = ENGINE.explain_exit(child.process.returncode, child.log_lines)
    assert (cause.kind, cause.restart) == (ExitKind.BAD_WEIGHTS, False)


def test_a_projector_for_another_model_is_bad_weights(
    weights_path: Path, free_port: int, tmp_path: Path
) -> None:
    projector = write_projector(tmp_path / "wide.gguf", embedding=640)
    with start_child(ENGINE, placed(weights_path, free_port, mmproj=str(projector))) as child:
        wait_until(lambda: child.process.poll() is not None, timeout_s=30, what="its end")
        cause = ENGINE.explain_exit(child.process.returncode, child.log_lines)
    assert (cause.kind, cause.restart) == (ExitKind.BAD_WEIGHTS, False), cause


def test_a_slot_is_saved_and_restored(weights_path: Path, free_port: int, tmp_path: Path) -> None:
    with start_child(ENGINE, placed(weights_path, free_port, slot_save_path=str(tmp_path))) as child:
        child.wait_ready()
        first = told(child, id_slot=1, cache_prompt=True)
        saved = child.client.post("/slots/1?action=save", json={"filename": "tale.bin"}).json()
        assert saved["n_saved"] > 20
        assert (tmp_path / "tale.bin").stat().st_size == saved["n_written"]
        child.client.post("/slots/1?action=erase")
        restored = child.client.post("/slots/1?action=restore", json={"filename": "tale.bin"}).json()
        assert restored["n_restored"] == saved["n_saved"]
        assert told(child, id_slot=1, cache_prompt=True) == first


def test_a_drafting_model_changes_the_work_and_not_the_answer(
    weights_path: Path, free_port: int, plain: str
) -> None:
    placement = placed(weights_path, free_port, spec_draft_model=str(weights_path), spec_draft_n_max=4)
    with start_child(ENGINE, placement) as child:
        child.wait_ready()
        before = child.metrics()["decode_steps_total"]
        assert told(child) == plain
        assert child.metrics()["decode_steps_total"] - before < 24


def test_defaults_of_sampling_hold_for_requests_that_bring_none(weights_path: Path, free_port: int) -> None:
    with start_child(ENGINE, placed(weights_path, free_port, temp=0, n_predict=5)) as child:
        child.wait_ready()
        answers = [child.client.post("/v1/completions", json={"prompt": STORY}).json() for _ in range(2)]
    assert answers[0]["choices"][0]["text"] == answers[1]["choices"][0]["text"]
    assert [answer["usage"]["completion_tokens"] for answer in answers] == [5, 5]


def test_no_piece_of_its_vocabulary_is_longer_than_the_gateway_counts_with(weights_path: Path) -> None:
    pieces = GGUFReader(weights_path).fields["tokenizer.ggml.tokens"]
    assert max(len(bytes(pieces.parts[index])) for index in pieces.data) < TOKEN_BYTES_MAX
