"""An archive that is a reference to a snapshot of the server; every InstaVM provider writes and reads the same."""

from __future__ import annotations

import json
import secrets

_PREFIX = b"__INSTAVM_SNAPSHOT__"


def snapshot_reference(snapshot_id: str) -> bytes:
    return _PREFIX + json.dumps({"snapshot_id": snapshot_id}, separators=(",", ":")).encode()


def referenced_snapshot(archive: bytes) -> str | None:
    """None when the bytes are something else. Raises ValueError for a reference to nothing."""
    if not archive.startswith(_PREFIX):
        return None
    snapshot_id = json.loads(archive[len(_PREFIX) :]).get("snapshot_id")
    if not isinstance(snapshot_id, str):
        raise ValueError("the reference to a snapshot has no snapshot_id")
    return snapshot_id


def run_snapshot_name() -> str:
    """As the SDKs call those that nobody asked for by name; the server deletes them when nobody uses them."""
    return f"sandbox-{secrets.token_hex(6)}"
