"""Credit through the official client and its command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon import Daemon, running_daemon
from instavm.exceptions import ForbiddenError, RateLimitError
from official_cli import Cli, answer, cli_of

from instavm import InstaVM


@pytest.fixture
def cli(daemon: Daemon, tmp_path: Path) -> Cli:
    return cli_of(daemon, tmp_path)


def test_what_ran_is_billed(client: InstaVM, cli: Cli) -> None:
    client.execute("sleep 1", language="bash")
    dollars = client.credits.summary()["dollars"]
    assert dollars["used"] > 0 and dollars["allocated"] == pytest.approx(dollars["used"] + dollars["remaining"])
    breakdown = client.get_usage_breakdown(days=7)
    assert breakdown["total_days"] == 7 and len(breakdown["daily_breakdown"]) == 7
    assert breakdown["totals"]["cpu_hours"] > 0 and breakdown["totals"]["cost_dollars"] >= dollars["used"]
    assert client.credits.check("vm_execution", 1)["available"] is True
    assert isinstance(client.credits.usage(period="all", limit=10), list)
    assert answer(cli("billing", "usage", "--days", "2", "--json"))["total_days"] == 2


def test_every_command_of_billing_prints_numbers(cli: Cli) -> None:
    status = cli("billing", "status")
    assert status.returncode == 0, status.stderr
    assert "Period: current_month" in status.stdout and "Remaining: $" in status.stdout
    assert answer(cli("billing", "status", "--period", "all", "--json"))["dollars"]["remaining"] > 0
    allocation = answer(cli("billing", "allocation", "--json"))
    assert allocation["id"] and allocation["allocation_period_start"] < allocation["allocation_period_end"]
    assert "CPU rate:" in cli("billing", "rates").stdout
    assert answer(cli("billing", "rates", "--json"))["vm_execution"]["cpu_rate_per_second_per_core"] > 0
    assert isinstance(answer(cli("billing", "usage-history", "--json"))["rows"], list)
    assert len(answer(cli("billing", "trends", "--period", "7d", "--json"))["series"]) == 7
    assert "7 buckets" in cli("billing", "trends", "--period", "7d").stdout
    assert "projected_this_month" in answer(cli("billing", "forecast", "--json"))
    check = cli("billing", "check", "--usage-type", "browser_automation", "--required-credits", "5")
    assert "Available: no" in check.stdout and "not available" in check.stdout
    for command in ("usage", "usage-history", "allocation", "forecast"):
        done = cli("billing", command)
        assert done.returncode == 0, done.stderr
    assert "admin@localhost" in cli("whoami").stdout


@pytest.fixture(scope="module")
def poor() -> Iterator[Daemon]:
    """A server on which nobody has anything; it needs no microVM to refuse one."""
    yield from running_daemon(INSTAVM_VMM="fake", INSTAVM_CREDIT="enforce", INSTAVM_CREDIT_WELCOME="0")


def test_an_account_without_credit_is_told_so_in_words(poor: Daemon, tmp_path: Path) -> None:
    with pytest.raises(ForbiddenError, match="credit of the account is used up"):
        InstaVM(api_key=poor.api_key, base_url=poor.base_url)
    cli = cli_of(poor, tmp_path)
    refused = cli("create")
    assert (refused.returncode, "credit of the account is used up" in refused.stderr) == (1, True)
    assert answer(cli("billing", "status", "--json"))["dollars"]["remaining"] == 0


@pytest.fixture(scope="module")
def narrow() -> Iterator[Daemon]:
    """A server on which everyone may have one sandbox."""
    yield from running_daemon(INSTAVM_VMM="fake", INSTAVM_MAX_SANDBOXES="1", INSTAVM_CREATES_PER_MINUTE="2")


def test_an_account_at_its_limits_is_told_which_and_when_to_come_back(narrow: Daemon, tmp_path: Path) -> None:
    connection = {"api_key": narrow.api_key, "base_url": narrow.base_url}
    InstaVM(**connection)
    with pytest.raises(RateLimitError, match="1 sandboxes run, and this account may have 1"):
        InstaVM(**connection)
    with pytest.raises(RateLimitError, match="too many sandboxes made: 2 a minute are allowed"):
        InstaVM(**connection)
    refused = cli_of(narrow, tmp_path)("create")
    assert (refused.returncode, "too many sandboxes made" in refused.stderr) == (1, True)
