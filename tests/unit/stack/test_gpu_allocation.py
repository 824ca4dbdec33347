from freehold.fleet.gpus.pools import NodeGpus
from freehold.spec.load import load_text
from freehold.spec.model import Spec
from freehold.stack.decide.gpu_allocation import unseen

SHA = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def spec(gpus: str) -> Spec:
    text = (
        f"version: 1\nmodels:\n- {{name: m, engine: vllm, source: file:///w/, sha256: {SHA}, gpus: {gpus}}}\n"
    )
    found = load_text(text, name="f", engines=("vllm",), env={}).spec
    assert found is not None
    return found


def test_a_model_that_requests_invisible_gpus_is_noted() -> None:
    nothing = NodeGpus(why="nvidia-smi is not installed here")
    (said,) = unseen(spec("2"), nothing)
    assert said.startswith("m asks for 2 GPUs (gpus)")
    assert "nvidia-smi is not installed" in said
    assert "GPU 0, 1" in unseen(spec("[0, 1]"), nothing)[0]
    assert unseen(spec("auto"), nothing) == unseen(spec("0"), nothing) == ()
    assert unseen(spec("2"), NodeGpus(gpus=())) == ()
