"""Commands and files through the official client."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from instavm.exceptions import ExecutionError, InstaVMError

from instavm import InstaVM


def bash(client: InstaVM, command: str, timeout: int | None = None) -> dict:
    return client.execute(command, language="bash", timeout=timeout)


def test_a_command_answers_with_its_output_apart_and_its_exit_code(client: InstaVM) -> None:
    result = bash(client, "echo out; echo err >&2; exit 7")
    assert (result["stdout"], result["stderr"], result["exit_code"]) == ("out\n", "err\n", 7)
    assert result["execution_time"] > 0 and result["created_at"]


def test_a_script_has_many_lines_an_empty_stdin_and_a_shell_of_its_own(client: InstaVM) -> None:
    assert bash(client, "LEFT=1\ncat\nfor i in 1 2; do\n  echo $i\ndone")["stdout"] == "1\n2\n"
    assert bash(client, 'echo "<$LEFT>"')["stdout"] == "<>\n"


def test_a_command_starts_in_the_workspace_as_root(client: InstaVM) -> None:
    assert bash(client, "pwd; id -un")["stdout"] == "/workspace\nroot\n"


def test_files_stay_from_one_command_to_the_next(client: InstaVM) -> None:
    bash(client, "echo kept > /root/kept")
    assert bash(client, "cat /root/kept")["stdout"] == "kept\n"


def test_an_argument_of_ninety_kilobytes_arrives_whole(client: InstaVM) -> None:
    text = "x" * 90_000
    assert bash(client, f"sh -c 'printf %s {text} | wc -c'")["stdout"].strip() == "90000"


def test_megabytes_of_output_are_not_cut(client: InstaVM) -> None:
    result = bash(client, "seq 1 500000")
    assert result["stdout"] == "".join(f"{number}\n" for number in range(1, 500_001))


def test_text_beyond_ascii_comes_back_as_it_was(client: InstaVM) -> None:
    assert bash(client, "printf 'žlutý \\t\"kůň\" 🐎\\n'")["stdout"] == 'žlutý \t"kůň" 🐎\n'


@pytest.mark.parametrize("command", ["echo begun; sleep 60", "trap '' TERM; echo begun; while :; do sleep 0.2; done"])
def test_a_command_out_of_time_is_answered_before_the_client_gives_up(client: InstaVM, command: str) -> None:
    result = bash(client, command, timeout=6)
    assert (result["exit_code"], result["stdout"]) == (124, "begun\n")
    assert bash(client, "echo fine")["stdout"] == "fine\n"


def test_python_keeps_its_state_from_call_to_call(client: InstaVM) -> None:
    client.execute("import math\nanswer = 6 * 7")
    assert client.execute("print(answer, math.floor(2.5))")["stdout"] == "42 2\n"


def test_python_shows_the_last_expression_and_runs_shell_lines(client: InstaVM) -> None:
    assert "42" in client.execute("40 + 2", language="python")["stdout"]
    assert "from the shell" in client.execute("!echo from the shell")["stdout"]
    assert client.execute("names = !printf 'a\\nb'\nprint(list(names))")["stdout"] == "['a', 'b']\n"


def test_a_python_error_is_a_result(client: InstaVM) -> None:
    result = client.execute("1 / 0")
    assert result["exit_code"] != 0
    assert "ZeroDivisionError" in result["stdout"] + result["stderr"]
    assert client.execute("print('still here')")["stdout"] == "still here\n"


def test_a_python_cell_out_of_time_keeps_what_it_printed_and_the_session_goes_on(client: InstaVM) -> None:
    result = client.execute("import time\nprint('begun', flush=True)\ntime.sleep(60)", timeout=8)
    assert (result["exit_code"], result["stdout"]) == (124, "begun\n")
    assert client.execute("print('on')")["stdout"] == "on\n"


def test_commands_of_one_session_run_at_the_same_time(client: InstaVM) -> None:
    # Each waits for the other's file, so that one after the other they would never end.
    meet = "touch /tmp/{0}; for i in $(seq 3000); do [ -e /tmp/{1} ] && echo met && exit; sleep 0.1; done; exit 1"
    with ThreadPoolExecutor(2) as threads:
        answers = threads.map(lambda names: bash(client, meet.format(*names)), [("one", "two"), ("two", "one")])
    assert [answer["stdout"] for answer in answers] == ["met\n", "met\n"]


def test_many_callers_get_their_own_answers(client: InstaVM) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda number: bash(client, f"echo {number}")["stdout"], range(24)))
    assert answers == [f"{number}\n" for number in range(24)]


def test_a_background_execution_is_polled_to_its_end(client: InstaVM) -> None:
    waits = "until [ -e /root/go ]; do sleep 0.1; done"
    task = client.execute_async(f"{waits}; echo out; echo err >&2", language="bash")
    bash(client, "touch /root/go")
    result = client.get_task_result(task["task_id"], timeout=300)
    assert (result["stdout"], result["stderr"]) == ("out\n", "err\n")
    python = client.execute_async("print(6 * 7)")
    assert client.get_task_result(python["task_id"], timeout=300)["stdout"] == "42\n"


def test_an_unknown_task_is_waited_for_in_vain(client: InstaVM) -> None:
    with pytest.raises(TimeoutError):
        client.get_task_result("no-such-task", timeout=2)


@pytest.mark.parametrize("content", [b"", b"\x00\xff\n", os.urandom(3_000_001)], ids=["empty", "binary", "large"])
def test_a_file_goes_up_and_comes_down_unchanged(client: InstaVM, tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(content)
    client.upload_file(str(source), "/root/new/place.bin")
    assert bash(client, "stat -c %s /root/new/place.bin")["stdout"] == f"{len(content)}\n"
    assert client.download_file("/root/new/place.bin")["content"] == content
    target = tmp_path / "target.bin"
    assert client.download_file("/root/new/place.bin", str(target))["size"] == len(content)
    assert target.read_bytes() == content


def test_a_missing_file_is_an_error(client: InstaVM) -> None:
    with pytest.raises(InstaVMError):
        client.download_file("/root/missing")


def test_a_command_for_a_session_that_never_was_is_an_execution_error(connect: Callable[..., InstaVM]) -> None:
    stranger = connect(auto_start_session=False)
    stranger.session_id = "550e8400-e29b-41d4-a716-446655440000"
    with pytest.raises(ExecutionError):
        bash(stranger, "true")
    stranger.session_id = None


def test_a_language_that_is_not_spoken_is_an_execution_error(client: InstaVM) -> None:
    with pytest.raises(ExecutionError):
        client.execute("puts 1", language="ruby")
