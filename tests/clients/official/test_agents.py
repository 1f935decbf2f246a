"""The official client's Agents SDK provider, unmodified, on the one pairing of versions in which it works."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from agents import ModelResponse, Runner, Usage, set_tracing_disabled
from agents.models.interface import Model
from agents.run import RunConfig
from agents.sandbox import Manifest, SandboxAgent, SandboxRunConfig
from agents.sandbox.entries import Dir, File
from agents.sandbox.errors import ExposedPortUnavailableError
from agents.sandbox.snapshot import LocalSnapshotSpec
from agents.sandbox.types import Permissions, User
from daemon import Daemon
from openai.types.responses import (
    ResponseCustomToolCall,
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
)
from visitor import visit

from instavm import InstaVM
from instavm.integrations.openai_agents import InstaVMSandboxClient, InstaVMSandboxClientOptions

set_tracing_disabled(True)


def provider_of(daemon: Daemon) -> InstaVMSandboxClient:
    return InstaVMSandboxClient(api_key=daemon.api_key, base_url=daemon.base_url)


def client_of(daemon: Daemon) -> InstaVM:
    return InstaVM(api_key=daemon.api_key, base_url=daemon.base_url, auto_start_session=False)


async def test_a_session_is_made_filled_used_and_ended(daemon: Daemon) -> None:
    provider = provider_of(daemon)
    manifest = Manifest(entries={"a.txt": File(content=b"alpha"), "d": Dir(children={"b": File(content=b"beta")})})
    session = await provider.create(manifest=manifest, options=InstaVMSandboxClientOptions())
    await session.start()
    assert (await session.exec("cat a.txt d/b")).stdout == b"alphabeta"
    assert (await session.exec("exit 9")).exit_code == 9
    data = bytes(range(256)) * 600
    await session.write(Path("big.bin"), io.BytesIO(data))
    assert (await session.read(Path("big.bin"))).read() == data
    await session.mkdir(Path("made/deep"), parents=True)
    assert {entry.path.rsplit("/", 1)[-1] for entry in await session.ls(Path("."))} >= {"a.txt", "d", "big.bin", "made"}
    await session.rm(Path("made"), recursive=True)
    assert await session.running() is True
    await session.stop()
    await session.shutdown()
    await provider.delete(session)
    assert await session.running() is False


async def test_a_stored_session_finds_its_living_sandbox(daemon: Daemon) -> None:
    provider = provider_of(daemon)
    session = await provider.create(manifest=Manifest(), options=InstaVMSandboxClientOptions())
    await session.start()
    await session.exec("echo kept > kept")
    stored = json.loads(json.dumps(provider.serialize_session_state(session._inner.state)))
    again = await provider.resume(provider.deserialize_session_state(stored))
    await again.start()
    assert (await again.exec("cat kept")).stdout == b"kept\n"
    await provider.delete(again)


async def test_a_restricted_session_is_accepted(daemon: Daemon) -> None:
    provider = provider_of(daemon)
    options = InstaVMSandboxClientOptions(allow_internet_access=False, allowed_domains=["example.org"])
    session = await provider.create(manifest=Manifest(), options=options)
    await session.start()
    assert (await session.exec("true")).exit_code == 0
    await provider.delete(session)


@pytest.mark.usefixtures("trusted")
async def test_a_declared_port_is_a_public_share_with_a_host_of_its_own(daemon: Daemon) -> None:
    provider = provider_of(daemon)
    options = InstaVMSandboxClientOptions(exposed_ports=(8000, 8001))
    session = await provider.create(manifest=Manifest(), options=options)
    first, again, other = [await session.resolve_exposed_port(port) for port in (8000, 8000, 8001)]
    assert first.tls and first == again and first.host != other.host
    share = client_of(daemon).shares.create(8000, session._inner.state.instavm_session_id, is_public=True)
    assert first.url_for("http") == share["url"].rstrip("/") + "/"
    await session.write(Path("www/index.html"), io.BytesIO(b"from the agent"))
    serve = "setsid python3 -m http.server 8000 --directory /workspace/www >/dev/null 2>&1 &"
    await session.exec(f"{serve} until curl -sf -o /dev/null http://127.0.0.1:8000/; do sleep 0.1; done")
    assert visit(first.url_for("http")) == (200, "from the agent")
    with pytest.raises(ExposedPortUnavailableError):
        await session.resolve_exposed_port(8002)
    await provider.delete(session)


async def test_a_workspace_comes_back_in_another_sandbox_through_a_tar(daemon: Daemon, tmp_path: Path) -> None:
    provider = provider_of(daemon)
    manifest = Manifest(entries={"a.txt": File(content=b"alpha")})
    snapshot = LocalSnapshotSpec(base_path=tmp_path)
    session = await provider.create(manifest=manifest, options=InstaVMSandboxClientOptions(), snapshot=snapshot)
    await session.start()
    await session.exec("cd /workspace && rm a.txt && mkdir d && head -c 300000 /dev/urandom > d/data && cp d/data /tmp")
    digest = (await session.exec("sha256sum < /workspace/d/data")).stdout
    await session.stop()
    stored = json.loads(json.dumps(provider.serialize_session_state(session._inner.state)))
    await provider.delete(session)
    again = await provider.resume(provider.deserialize_session_state(stored))
    await again.start()
    assert again._inner.state.instavm_session_id != stored["instavm_session_id"]
    assert (await again.exec("ls /workspace; sha256sum < /workspace/d/data")).stdout == b"d\n" + digest
    await provider.delete(again)


async def test_users_act_with_their_own_rights_and_links_out_are_refused(daemon: Daemon) -> None:
    provider = provider_of(daemon)
    secret = File(content=b"root's", permissions=Permissions.from_mode(0o600))
    manifest = Manifest(users=[User(name="ada")], entries={"secret": secret})
    session = await provider.create(manifest=manifest, options=InstaVMSandboxClientOptions())
    await session.start()
    assert (await session.exec("id -un", user="ada")).stdout == b"ada\n"
    assert (await session.exec("cat /workspace/secret", user="ada")).exit_code != 0
    await session.exec("ln -s /etc/passwd /workspace/leak")
    with pytest.raises(Exception, match="escape"):
        await session.read(Path("leak"))
    await provider.delete(session)


class ScriptedModel(Model):
    def __init__(self, steps: list[Any]) -> None:
        self._steps = steps

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> ModelResponse:
        return ModelResponse(output=[self._steps.pop(0)(input)], usage=Usage(), response_id=None)

    def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the script is not streamed")


async def test_a_run_patches_a_file_sees_an_image_and_polls_a_slow_command(daemon: Daemon) -> None:
    outputs: dict[str, Any] = {}

    def call(name: str, call_id: str, **arguments: Any) -> ResponseFunctionToolCall:
        return ResponseFunctionToolCall(
            type="function_call", id=call_id, call_id=call_id, name=name, arguments=json.dumps(arguments)
        )

    def patch(_: Any) -> ResponseCustomToolCall:
        text = "*** Begin Patch\n*** Update File: a.txt\n@@\n-alpha\n+omega\n*** End Patch\n"
        return ResponseCustomToolCall(type="custom_tool_call", id="p", call_id="p", name="apply_patch", input=text)

    def slow(_: Any) -> ResponseFunctionToolCall:
        command = "until [ -e /workspace/go ]; do sleep 0.1; done; cat /workspace/a.txt"
        return call("exec_command", "slow", cmd=command, yield_time_ms=250)

    def go(_: Any) -> ResponseFunctionToolCall:
        return call("exec_command", "go", cmd="touch /workspace/go")

    def poll(items: Any) -> ResponseFunctionToolCall:
        answers = {i["call_id"]: i["output"] for i in items if isinstance(i, dict) and "output" in i}
        session_id = int(answers["slow"].split("session ID ")[1].split()[0])
        return call("write_stdin", "poll", session_id=session_id, chars="", yield_time_ms=30_000)

    def finish(items: Any) -> ResponseOutputMessage:
        outputs.update((i["call_id"], json.dumps(i["output"])) for i in items if isinstance(i, dict) and "output" in i)
        text = ResponseOutputText(type="output_text", text="done", annotations=[])
        return ResponseOutputMessage(id="m", type="message", role="assistant", status="completed", content=[text])

    # This version of the SDK cannot store a manifest with binary contents, so the image is made in the sandbox.
    gif = "echo R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7 | base64 -d > /workspace/dot.gif"
    draw, look = call("exec_command", "draw", cmd=gif), call("view_image", "image", path="dot.gif")
    agent = SandboxAgent(
        name="A",
        model=ScriptedModel([patch, lambda _: draw, lambda _: look, slow, go, poll, finish]),
        instructions="Follow the script.",
        default_manifest=Manifest(entries={"a.txt": File(content=b"alpha\n")}),
    )
    sandbox = SandboxRunConfig(client=provider_of(daemon), options=InstaVMSandboxClientOptions())
    assert (await Runner.run(agent, "go", run_config=RunConfig(sandbox=sandbox))).final_output == "done"
    assert "data:image/gif;base64" in outputs["image"]
    assert "running with session ID" in outputs["slow"] and "omega" in outputs["poll"]


async def test_a_whole_run_with_the_announcements_manifest(daemon: Daemon) -> None:
    def command(_: Any) -> ResponseFunctionToolCall:
        arguments = json.dumps({"cmd": "awk -F, '$2 > 500 {print $1}' /workspace/sales.csv"})
        return ResponseFunctionToolCall(
            type="function_call", id="c", call_id="c", name="exec_command", arguments=arguments
        )

    def answer(items: Any) -> ResponseOutputMessage:
        output = next(
            item["output"] for item in items if isinstance(item, dict) and item.get("type") == "function_call_output"
        )
        text = ResponseOutputText(
            type="output_text", text=f"outlier: {output.split('Output:')[-1].strip()}", annotations=[]
        )
        return ResponseOutputMessage(id="m", type="message", role="assistant", status="completed", content=[text])

    agent = SandboxAgent(
        name="Data analyst",
        model=ScriptedModel([command, answer]),
        instructions="Inspect sales.csv and summarize the outliers.",
        default_manifest=Manifest(entries={"sales.csv": File(content=b"region,revenue\nus,120\nin,980\nuk,140\n")}),
    )
    sandbox = SandboxRunConfig(client=provider_of(daemon), options=InstaVMSandboxClientOptions())
    result = await Runner.run(agent, "Analyze the dataset.", run_config=RunConfig(sandbox=sandbox))
    assert result.final_output.startswith("outlier: ") and "in" in result.final_output
