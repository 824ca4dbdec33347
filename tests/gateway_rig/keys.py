"""A keys file for a gateway under test, and the keys that go with it."""

import os
import secrets
from pathlib import Path
from typing import Any

from freehold.gateway.callers.keys import KEY_BYTES, KeyLimits, KeyRecord, hash_of, key_from
from freehold.gateway.storage.key_store import KeyStore

APPLIED_S = 1.0
"""By when a change of the keys file holds: what docs/keys.md promises."""


class Keys:
    """One keys file; `key_of` has the key of each name, as only its holder would."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "keys.json"
        self.store = KeyStore(self.path)
        self.key_of: dict[str, str] = {}
        self.settings = {"keys_path": str(self.path), "budgets_path": str(folder / "budgets.json")}
        self.store.change(lambda before: before)

    def add(self, name: str, *, expires_s: int | None = None, **limits: Any) -> str:
        """Make a key with the id `id-<name>` and return it."""
        key = key_from(secrets.token_bytes(KEY_BYTES))
        record = KeyRecord(id=f"id-{name}", name=name, hash=hash_of(key.encode()).hex(), created_s=1,
                           expires_s=expires_s, limits=KeyLimits(**limits))  # fmt: skip
        self.store.change(lambda before: (*before, record))
        self.key_of[name] = key
        return key

    def change(self, name: str, **fields: Any) -> None:
        """Replace fields of a key's record."""

        def edit(before: tuple[KeyRecord, ...]) -> tuple[KeyRecord, ...]:
            return tuple(
                KeyRecord(**({f: getattr(r, f) for f in r.__struct_fields__} | fields))
                if r.name == name
                else r
                for r in before
            )

        self.store.change(edit)

    def put(self, data: bytes, *, mode: int = 0o600) -> None:
        """Replace the file by any bytes, as an editor or a broken tool would."""
        fresh = self.path.with_suffix(".new")
        fresh.write_bytes(data)
        fresh.chmod(mode)
        os.replace(fresh, self.path)  # noqa: PTH105 - both names are said

    def bearer(self, name: str) -> str:
        """Return the header line of a key."""
        return f"Authorization: Bearer {self.key_of[name]}\r\n"
