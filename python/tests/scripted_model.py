"""A model that follows a script, and what it says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from agents import ModelResponse, Usage
from agents.models.interface import Model
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText


class ScriptedModel(Model):
    """Answers with one prepared step after another, each made from what the tools said so far."""

    def __init__(self, steps: list[Callable[[list[Any]], list[Any]]]) -> None:
        self._steps = steps

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> ModelResponse:
        outputs = [item for item in input if isinstance(item, dict) and str(item.get("type", "")).endswith("_output")]
        return ModelResponse(output=self._steps.pop(0)(outputs), usage=Usage(), response_id=None)

    def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the script is not streamed")


def call(name: str, call_id: str, **arguments: Any) -> ResponseFunctionToolCall:
    return ResponseFunctionToolCall(
        type="function_call", id=call_id, call_id=call_id, name=name, arguments=json.dumps(arguments)
    )


def say(text: str) -> ResponseOutputMessage:
    content = ResponseOutputText(type="output_text", text=text, annotations=[])
    return ResponseOutputMessage(id="m", type="message", role="assistant", status="completed", content=[content])


#: Of five seconds each: only a hang takes as many.
LOOKS = 60


class Typist(Model):
    """Works at one terminal after another. Goes on when it sees what it waits for, else looks again.

    A turn is `("runs", a command, what it waits for)` or `("types", keys, what it waits for)`, a regular expression.
    """

    def __init__(self, *turns: tuple[str, str, str]) -> None:
        self._turns = list(turns)
        self._terminal = 0
        self._calls = 0
        self._looks = 0
        #: Of every turn what was run or typed, and all that was seen then.
        self.transcript: list[tuple[str, str]] = []

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> ModelResponse:
        outputs = [item for item in input if isinstance(item, dict) and item.get("type") == "function_call_output"]
        if self.transcript:
            self._see(outputs[-1]["output"])
        return ModelResponse(output=[self._next()], usage=Usage(), response_id=None)

    def _see(self, answer: str) -> None:
        did, seen = self.transcript[-1]
        head, output = answer.split("Output:\n", 1)
        running, exited = re.search(r"running with session ID (\d+)", head), re.search(r"exited with code \d+", head)
        if running:
            self._terminal = int(running[1])
        self.transcript[-1] = (did, seen + output + (f"[{exited[0]}]" if exited else ""))

    def _next(self) -> ResponseFunctionToolCall | ResponseOutputMessage:
        self._calls += 1
        if self.transcript:
            _, did, awaited = self._turns[len(self.transcript) - 1]
            seen = self.transcript[-1][1]
            if not re.search(awaited, seen, re.DOTALL):
                self._looks += 1
                is_over = "[exited" in seen or self._looks > LOOKS
                assert not is_over, f"{did!r} did not bring {awaited!r} but {seen!r}"
                return self._types("")
        self._looks = 0
        if len(self.transcript) == len(self._turns):
            return say("done")
        does, text, _ = self._turns[len(self.transcript)]
        self.transcript.append((text, ""))
        if does == "types":
            return self._types(text)
        return call("exec_command", f"c{self._calls}", cmd=text, tty=True, yield_time_ms=700)

    def _types(self, keys: str) -> ResponseFunctionToolCall:
        return call("write_stdin", f"c{self._calls}", session_id=self._terminal, chars=keys, yield_time_ms=700)

    def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the typist is not streamed")
