from pathlib import Path

from freehold.fleet.decisions.plan import log_path


def test_any_id_is_one_file_name_and_no_two_share_it() -> None:
    ids = ["m-0", "meta/llama-3-0", "meta%2Fllama-3-0", "../../etc/passwd", "ä b"]
    paths = [log_path(Path("/logs"), replica_id) for replica_id in ids]
    assert len(set(paths)) == len(ids)
    assert all(path.parent == Path("/logs") for path in paths)
    assert paths[0] == Path("/logs/m-0.log")
