"""The facts on GPU faults: all of them there, each with a place, and quick to read."""

import time
from collections import Counter

import pytest

from freehold.catalog import load_xids
from freehold.catalog.xid_facts import XidClass
from freehold.core.findings import Action

FILES = (
    "xids",
    "xid_classes",
    "sxids",
    "throttle_bits",
    "recovery_actions",
    "rdma_counters",
    "pcie_replay",
    "nvlink_registers",
    "nvlink5",
    "evidence_findings",
)
LAST_XID = 173
"""The highest number in any catalogue that the file's head names."""
LOAD_MOST_S = 0.05


def test_every_number_up_to_the_last_is_there_once():
    assert list(load_xids.xids()) == list(range(1, LAST_XID + 1))
    rows = load_xids.fact_file("xids").rows
    numbers = [number for row in rows for number in load_xids._numbers(row[0])]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("name", FILES)
def test_every_file_says_its_sources_and_its_date(name: str) -> None:
    file = load_xids.fact_file(name)
    assert file.rows
    assert file.sources
    assert file.as_of.startswith("20")
    assert file.verified == "read"


@pytest.mark.parametrize(
    ("number", "mnemonic", "kind"),
    [
        (13, "ROBUST_CHANNEL_GR_EXCEPTION", XidClass.APP),
        (39, "ROBUST_CHANNEL_CE0_ERROR", XidClass.UNIT),
        (85, "ROBUST_CHANNEL_CE9_ERROR", XidClass.UNIT),
        (126, "ROBUST_CHANNEL_CE10_ERROR", XidClass.UNIT),
        (135, "ROBUST_CHANNEL_CE19_ERROR", XidClass.UNIT),
        (68, "ROBUST_CHANNEL_NVDEC0_ERROR", XidClass.UNIT),
        (89, "ROBUST_CHANNEL_NVDEC4_ERROR", XidClass.UNIT),
        (98, "ROBUST_CHANNEL_NVDEC7_ERROR", XidClass.UNIT),
        (105, "ROBUST_CHANNEL_NVJPG7_ERROR", XidClass.UNIT),
        (139, "ROBUST_CHANNEL_OFA1_ERROR", XidClass.UNIT),
        (45, "ROBUST_CHANNEL_PREEMPTIVE_REMOVAL", XidClass.SYMPATHETIC),
        (79, "ROBUST_CHANNEL_GPU_HAS_FALLEN_OFF_THE_BUS", XidClass.BUS),
        (109, "ROBUST_CHANNEL_CTXSW_TIMEOUT_ERROR", XidClass.AMBIGUOUS),
        (119, "GSP_RPC_TIMEOUT", XidClass.FIRMWARE),
        (149, "NVLINK_NETIR_ERROR", XidClass.LINK),
        (154, "GPU_RECOVERY_ACTION_CHANGED", XidClass.VERDICT),
        (24, "", XidClass.UNKNOWN),
    ],
)
def test_numbers_have_the_names_and_places_of_their_source(
    number: int, mnemonic: str, kind: XidClass
) -> None:
    fact = load_xids.xid(number)
    assert (fact.mnemonic, fact.kind) == (mnemonic, kind)


@pytest.mark.parametrize("number", [38, 43, 44, 63, 68, 69, 80, 92, 94, 109, 119, 120])
def test_what_sources_dispute_says_how(number: int) -> None:
    fact = load_xids.xid(number)
    assert fact.disputed
    assert ";" in fact.disagreement


@pytest.mark.parametrize("number", [13, 31, 43, 69, 80, 109])
def test_an_application_s_error_never_starts_with_the_hardware(number: int) -> None:
    assert load_xids.xid(number).action is Action.RESTART_ENGINE


def test_a_number_of_no_catalogue_is_never_acted_on_alone():
    fact = load_xids.xid(9999)
    assert fact.kind is XidClass.UNKNOWN
    assert fact.action is Action.NONE


def test_small_tables():
    assert load_xids.sxids()[20034].fatal
    assert load_xids.sxids()[22013].fatal is False
    assert load_xids.sxids()[22012].fatal is None
    assert len(load_xids.sxids()) == 93
    assert [bit.bit for bit in load_xids.throttle_bits()] == [1 << n for n in range(11)]
    assert next(bit.name for bit in load_xids.throttle_bits() if not bit.normal) == "hw_slowdown"
    assert load_xids.recovery_actions()[2].action is Action.REBOOT
    assert load_xids.rdma_counters()["symbol_error"].fatal_per_s == pytest.approx(120 / 3600, rel=1e-3)
    assert load_xids.rdma_counters()["link_downed"].fatal_per_s == 0
    assert load_xids.pcie_replays()[5].per_lane_per_minute == 1.92
    assert any(21 in rule.bits and rule.leads_to == "signal_integrity" for rule in load_xids.nvlink_bits())


def test_reading_all_of_it_is_quick():
    load_xids.fact_file.cache_clear()
    load_xids.xids.cache_clear()
    before_s = time.process_time()
    load_xids.xids()
    for name in FILES:
        load_xids.fact_file(name)
    assert time.process_time() - before_s < LOAD_MOST_S


def test_every_row_of_nvidias_nvlink_table_is_there_with_its_label():
    rules = [rule for rules in load_xids.nvlink5_rules().values() for rule in rules]
    assert set(load_xids.nvlink5_rules()) == set(range(144, 151))
    # Rows of the source: one per status and reason; a promoted row is its column "action 2". MSE_WATCHDOG and MSE Degraded
    # stand here as one row of two statuses, in gpud's copy as one row of one.
    labels = Counter(
        " ".join(sorted(rule.blames))
        for rule in rules
        if rule.promoted is not True
        for _ in range(len(rule.down) * len(rule.status or {0}))
    )
    assert labels == {"HW": 45, "SW": 29, "HW SW": 18, "FW": 2, "": 1}
    assert {rule.immediate for rule in rules} == {"RESET_GPU", "IGNORE", "XID_154_EVAL"}
    assert {rule.severity for rule in rules} == {"fatal", "link fatal", "non-fatal"}


def test_no_word_of_one_nvlink_layout_means_anything_in_the_other():
    for rules in load_xids.nvlink5_rules().values():
        for one in rules:
            for other in rules:
                # As V2 the low seven bits of a V1 word; as V1 any word whose low seven bits are a V2 unit.
                same = one.v1 == other.v2 == 0  # XID 150: both layouts have the same word, and the same row
                assert (one.v1 & 0x7F) != other.v2 or same, (one, other)
