"""Read a server's answer as a JSON object. It knows no page and no engine."""

import json


def json_object(body: bytes | str) -> dict[str, object]:
    """Return a JSON object; {} for anything else."""
    try:
        decoded = json.loads(body)
    except (ValueError, RecursionError):  # not JSON, not UTF-8, or nested deeper than Python goes
        return {}
    return decoded if isinstance(decoded, dict) else {}
