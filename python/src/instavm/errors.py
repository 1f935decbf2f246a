"""What the server said went wrong, or what kept it from answering."""

from __future__ import annotations

import json
from typing import Any


class InstaVMError(Exception):
    """A failed call.

    `code` is a word of the server's catalog (a newer server may send others; they are kept), or one of ours:
    `connection_failed` (no answer), `connection_lost` (it broke off in the middle), `unexpected_answer`,
    `wait_timeout` or `client_closed`.
    `retryable` is "no", "yes" or "unknown" (the command may have run). `status` is None without an HTTP answer.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int | None = None,
        retryable: str = "no",
        hint: str | None = None,
        request_id: str | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.retryable = retryable
        self.hint = hint
        self.request_id = request_id
        self.details = details


def error_from_body(status: int | None, text: str) -> InstaVMError:
    """From an error body; one that is not ours (a proxy's, say) keeps its text."""
    try:
        body = json.loads(text)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        return InstaVMError("unexpected_answer", f"the server answered {status}: {text[:200]}", status=status)
    return InstaVMError(
        str(body.get("code", "unexpected_answer")),
        str(body.get("detail", f"the server answered {status}")),
        status=status,
        retryable=str(body.get("retryable", "no")),
        hint=body.get("hint"),
        request_id=body.get("request_id"),
        details=body.get("details"),
    )
