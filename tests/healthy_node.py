"""A node on which nothing is wrong, with every part of a view filled: what the probes' contract kit spoils, bit by bit.

The GPUs are the recorded H100 at full load, given NVLinks and a sibling that the recorded machine did not have; the rest is made up
of ordinary values. Nothing in it is read from the machine that runs it.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import msgspec

from freehold.health.agent.recording import load_recording
from freehold.health.model.view import (
    EngineView,
    Gpu,
    Gpus,
    Host,
    Interface,
    Kernel,
    Network,
    Peer,
    RdmaPort,
    Reading,
    View,
    Volume,
)

DATA = Path(__file__).with_name("h100")
STEP_S = 10.0
"""Between two views: the agent's own interval for GPUs. Our own choice."""
VIEWS = 30
"""Five minutes: as long as most windows need. Our own choice."""


def healthy_views(gpus: int = 2) -> list[View]:
    """Return five minutes of a healthy node with so many GPUs at full load."""
    return [healthy_view(number, gpus) for number in range(VIEWS)]


def healthy_view(number: int, gpus: int = 2) -> View:
    """Return one view of it, the `number`th from 0, ten seconds after the one before."""
    (card,) = _loaded().gpus
    return _view(number, tuple(_gpu(card, index, number) for index in range(gpus)))


@cache
def _loaded() -> Gpus:
    views = load_recording(DATA / "h100_healthy_full_load.jsonl").views
    assert views[-2].gpus is not None
    return views[-2].gpus


def _gpu(card: Gpu, index: int, number: int) -> Gpu:
    links = {
        "nvlink_up": Reading(value=18),
        "nvlink_down": Reading(value=""),
        **{name: Reading(value=0) for name in _LINK_ERRORS},
        "pcie_fatal_errors": Reading(value=0),
        "pcie_non_fatal_errors": Reading(value=0),
        **{name: Reading(value=0) for name in _NOT_RECORDED},
        "power_limit_default_w": Reading(value=700.0),
        "energy_mj": Reading(value=7_000_000 + 6_900_000 * number),
    }
    return msgspec.structs.replace(
        card,
        index=index,
        uuid=f"GPU-00000000-0000-0000-0000-{index + 1:012d}",
        serial=f"{index + 1:013d}",
        pci=f"00000000:00:{index + 6:02x}.0",
        readings={**card.readings, **links},
    )


_LINK_ERRORS = (
    "nvlink_replay_errors",
    "nvlink_recovery_errors",
    "nvlink_crc_errors",
    "nvlink_link_recoveries",
    "nvlink_failed_recoveries",
)


_NOT_RECORDED = (
    "ecc_dram_volatile_corrected",
    "ecc_sram_volatile_corrected",
    "ecc_sram_volatile_uncorrected",
    "sram_threshold_exceeded",
)
"""Readings that an H100 has and the recording does not."""


def _view(number: int, gpus: tuple[Gpu, ...]) -> View:
    return View(
        at_s=1_795_392_000.0 + number * STEP_S,
        monotonic_s=1000.0 + number * STEP_S,
        node="node-1",
        gpus=msgspec.structs.replace(
            _loaded(),
            source="nvml",
            gpus=gpus,
            pci_addresses=tuple(gpu.pci for gpu in gpus),
            driver={**_loaded().driver, "disk_version": Reading(value="580.159.04")},
        ),
        kernel=Kernel(),
        volumes=(_volume(),),
        network=_network(number),
        engines=tuple(_engines(number)),
        host=_host(),
    )


def _volume() -> Volume:
    smart = {
        "critical_warning": 0,
        "media_errors": 0,
        "percentage_used_pct": 3,
        "available_spare_pct": 100,
        "available_spare_threshold_pct": 10,
    }
    return Volume(
        path="/models",
        device="nvme0n1",
        file_system="ext4",
        reads_s=(0.00026, 0.00031, 0.00024, 0.00029, 0.00027, 0.00033, 0.00025, 0.0003, 0.00026, 0.00028),
        source="/dev/nvme0n1",
        writing=True,
        writes_s=(0.0021,),
        wrote=True,
        device_ticks_s=Reading(value=0.0002),
        pressure_full_s=Reading(value=0.0),
        throttled_s=Reading(value=0.0),
        total_bytes=Reading(value=2_000_000_000_000),
        free_bytes=Reading(value=1_200_000_000_000),
        total_inodes=Reading(value=120_000_000),
        free_inodes=Reading(value=100_000_000),
        smart={name: Reading(value=value) for name, value in smart.items()},
    )


def _network(number: int) -> Network:
    return Network(
        peers=tuple(_peer(name) for name in ("node-2", "node-3")),
        interfaces=(
            Interface(
                name="eth0",
                operstate="up",
                carrier=Reading(value=1),
                carrier_changes=Reading(value=2),
                speed_mbit_s=Reading(value=25_000),
                counters={
                    "rx_packets": 1000 * number,
                    "tx_packets": 1000 * number,
                    "rx_errors": 0,
                    "tx_errors": 0,
                },
            ),
        ),
        rdma=(RdmaPort(device="mlx5_0", port=1, state="ACTIVE", physical_state="LinkUp", counters=_RDMA),),
        tcp_retransmitted=Reading(value=2 * number),
        tcp_sent=Reading(value=100_000 * number),
    )


_RDMA = dict.fromkeys(
    ("symbol_error", "link_downed", "link_error_recovery", "port_rcv_errors", "port_xmit_discards"), 0
)


def _peer(name: str) -> Peer:
    return Peer(name=name, sent=100, rtt_s=(0.0002, 0.00021, 0.00019), silent_s=0.1)


def _engines(number: int) -> Iterator[EngineView]:
    for index in range(2):
        yield EngineView(
            replica=f"llama-{index}",
            engine="vllm",
            pid=4000 + index,
            tokens_total=Reading(value=1000 + 5000 * number),
            running=Reading(value=8),
            gateway_running=8,
            gateway_progress=100_000 * (number + 1),
            process_state="S",
            cpu_s=Reading(value=10.0 + 9.0 * number),
        )


def _host() -> Host:
    memory = {
        "total_bytes": 512_000_000_000,
        "available_bytes": 300_000_000_000,
        "swap_used_bytes": 0,
        "pressure_full_s": 0.0,
        "oom_kills": 0,
    }
    # 1,795,391,000 = at_s less monotonic_s: a clock that nobody set.
    clock = {
        "wall_minus_monotonic_s": 1_795_391_000.0,
        "synchronised": 1,
        "estimated_error_s": 0.0005,
        "maximum_error_s": 0.02,
    }
    return Host(
        memory={name: Reading(value=value) for name, value in memory.items()},
        clock={name: Reading(value=value) for name, value in clock.items()},
    )
