"""Request ids: random, all different, and in no order."""

from itertools import pairwise

from freehold.core.ids import request_ids_in


def test_ids_do_not_count_up() -> None:
    fresh = request_ids_in(b"x-request-id: ", b"\r\n")
    ids = [fresh() for _ in range(2000)]
    assert len(set(ids)) == 2000
    assert ids != sorted(ids)
    assert all(each.startswith(b"x-request-id: req-") and each.endswith(b"\r\n") for each in ids)
    assert {len(each) for each in ids} == {len(b"x-request-id: req-\r\n") + 24}
    shared = sum(a[18:30] == b[18:30] for a, b in pairwise(ids))
    assert not shared  # two in a row have no prefix in common that counts requests
