import socket

from freehold.fleet.processes.launch_process import MARK, Ports, engine_env, minder_argv


def test_an_engine_does_not_see_freeholds_settings_nor_secrets() -> None:
    base = {
        "PATH": "/bin",
        "CUDA_VISIBLE_DEVICES": "0",
        "LD_LIBRARY_PATH": "/lib",
        "FREEHOLD_GATEWAY__LISTEN": "x",
        "OPENAI_API_KEY": "sk",
        "HF_TOKEN": "hf",
        "aws_secret_access_key": "s",
        "DB_PASSWORD": "p",
    }
    env = engine_env(base, {"HF_TOKEN": "wanted", "PATH": "/opt/bin"}, "t0k")
    assert env == {
        "PATH": "/opt/bin",
        "CUDA_VISIBLE_DEVICES": "0",
        "LD_LIBRARY_PATH": "/lib",
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
