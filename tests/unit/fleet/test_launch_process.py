import socket

from freehold.fleet.processes.cage_rules import MARK, engine_env
from freehold.fleet.processes.launch_process import Ports, minder_argv


def test_an_engine_inherits_what_it_may_and_nothing_else() -> None:
    base = {
        "PATH": "/bin",
        "LC_ALL": "C",
        "CUDA_VISIBLE_DEVICES": "0",
        "LD_LIBRARY_PATH": "/lib",
        "VLLM_USE_V1": "1",
        "VLLM_API_KEY": "k",
        "RAY": "x",
        "GGML_CUDA": "1",
        "FREEHOLD_GATEWAY__LISTEN": "x",
        "OPENAI_API_KEY": "sk",
        "HF_TOKEN": "hf",
        "DATABASE_URL": "postgres://u:p@h/d",
        "PGPASSWORD": "p",
        "GITHUB_PAT": "ghp",
        "HOME": "/root",
        "PYTHONPATH": "/x",
    }
    env = engine_env(
        base, {"HF_TOKEN": "wanted", "PATH": "/opt/bin"}, token="t0k", variables=("VLLM_", "HF_", "RAY")
    )
    env.pop("PYTHONUSERBASE", "")
    assert env == {
        "PATH": "/opt/bin",
        "LC_ALL": "C",
        "CUDA_VISIBLE_DEVICES": "0",
        "LD_LIBRARY_PATH": "/lib",
        "VLLM_USE_V1": "1",
        "RAY": "x",
        "HF_TOKEN": "wanted",
        MARK: "t0k",
    }


def test_ports_are_bindable_and_each_is_handed_out_once() -> None:
    ports = Ports()
    taken = [ports.take() for _ in range(300)]
    assert len(set(taken)) == 300
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", taken[-1]))


def test_a_port_in_use_is_passed_over() -> None:
    ports = Ports()
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        used = squatter.getsockname()[1]
        ports._range = range(used, used + 50)
        assert used < ports.take() < used + 50


def test_a_minders_command_names_its_replica() -> None:
    assert minder_argv("m-0")[1:3] == ["-I", "-S"]
    assert minder_argv("m-0")[-1] == "m-0"
