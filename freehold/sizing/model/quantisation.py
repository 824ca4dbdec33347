"""How a checkpoint's weights are stored, from its config's `quantization_config`. It does not say what is left unquantised."""

from collections.abc import Mapping
from typing import Any

from freehold.core.problems import Problem

# By quant_method, those that name one format. Source: transformers' QuantizationMethod and vLLM's list of quantisations.
_PLAIN: Mapping[str, str] = {
    "fp8": "fp8",
    "fbgemm_fp8": "fp8",
    "mxfp4": "mxfp4",
    "nvfp4": "fp4",
    "gguf": "gguf",
}


def read_quant(said: object, where: str) -> str | Problem:
    """Return fp8, fp4, mxfp4, int8, int4, gguf, or empty for 16 bit; a Problem for a method that is not known."""
    if not isinstance(said, Mapping) or not said:
        return ""
    method = str(said.get("quant_method", "")).lower()
    found = _PLAIN.get(method) or _by_bits(method, said)
    if found:
        return found
    message = f"quantization_config: method {method or 'missing'!r} is not known"
    return Problem(where=where, message=message, hint="give the quantisation with --quant")


def _by_bits(method: str, said: Mapping[str, Any]) -> str:
    if method in {"awq", "gptq", "auto-round", "autoround", "hqq"}:
        return _whole(said.get("bits") or said.get("w_bit"))
    if method == "bitsandbytes":
        return "int4" if said.get("load_in_4bit") else "int8"
    if method in {"modelopt", ""}:  # ModelOpt leaves its own name out in some files
        return {"FP8": "fp8", "NVFP4": "fp4"}.get(str(said.get("quant_algo", "")).upper(), "")
    return _compressed(said) if method == "compressed-tensors" else ""


def _whole(bits: object) -> str:
    return {4: "int4", 8: "int8"}.get(bits, "") if isinstance(bits, int) else ""


def _compressed(said: Mapping[str, Any]) -> str:
    """Return it for compressed-tensors, whose groups each say their number format; the first group is what counts."""
    groups = said.get("config_groups")
    first = next(iter(groups.values()), None) if isinstance(groups, Mapping) else None
    weights = first.get("weights") if isinstance(first, Mapping) else None
    if not isinstance(weights, Mapping):
        return ""
    bits = weights.get("num_bits")
    if weights.get("type") == "float":
        return {8: "fp8", 4: "fp4"}.get(bits, "") if isinstance(bits, int) else ""
    return _whole(bits)
