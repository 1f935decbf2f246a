"""The sandbox's Python kernel: an IPython shell that runs cells for the guest agent.

Requests and verdicts cross an inherited socket as JSON behind a 4-byte big-endian length; output goes to
file descriptors 1 and 2, which are pipes to the agent, so children of a cell write to the same place.
A request is {"id", "code", "env", "reseed"}; a verdict is {"id", "exit_code", "cpu_time_us"}, sent after all output.
"""

import json
import os
import random
import resource
import signal
import socket
import struct
import sys
import warnings

from IPython.core.displayhook import DisplayHook
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config


class PlainDisplayHook(DisplayHook):
    """Shows the value of a cell's last expression as its bare representation."""

    # There is no prompt to keep a representation of several lines apart from with a line break.
    prompt_end_newline = True

    def write_output_prompt(self):
        pass


class KernelShell(InteractiveShell):
    """IPython's shell with tracebacks on stderr and `sys.exit()` as the end of a cell, not of the kernel."""

    displayhook_class = PlainDisplayHook

    def system(self, command):
        """`!command`: shares the kernel's own output pipes, after what the cell printed before."""
        flush_output()
        return self.system_raw(command)

    def _showtraceback(self, etype, evalue, stb):
        print(self.InteractiveTB.stb2text(stb), file=sys.stderr)

    def showtraceback(self, *args, **kwargs):
        if not isinstance(sys.exc_info()[1], SystemExit):
            super().showtraceback(*args, **kwargs)

    def ask_exit(self):
        raise SystemExit(0)


def exit_code_of(result):
    """0, the argument of sys.exit(), or 1 when the cell raised."""
    error = result.error_before_exec or result.error_in_exec
    if error is None:
        return 0
    if not isinstance(error, SystemExit):
        return 1
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def run_cell(shell, code):
    """The exit code. One interrupt, whenever it comes, ends the cell and not the kernel."""
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return exit_code_of(shell.run_cell(code, store_history=True))
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    except KeyboardInterrupt:
        # Perhaps in place of what would have ignored it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("KeyboardInterrupt", file=sys.stderr)
        return 1


def cpu_time_us():
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return int(sum(usage.ru_utime + usage.ru_stime for usage in used) * 1_000_000)


def receive_exactly(channel, length):
    """That many bytes, or None when the agent closed the channel first."""
    data = bytearray()
    while len(data) < length:
        piece = channel.recv(length - len(data))
        if not piece:
            return None
        data += piece
    return bytes(data)


def receive(channel):
    """The next request, or None when the agent closed the channel."""
    header = receive_exactly(channel, 4)
    body = header and receive_exactly(channel, struct.unpack(">I", header)[0])
    return body and json.loads(body)


def send(channel, message):
    body = json.dumps(message).encode()
    channel.sendall(struct.pack(">I", len(body)) + body)


class SandboxEnvironment:
    """What the host gives the sandbox, over the kernel's own; a cell's changes last until the host's change."""

    def __init__(self):
        self.base = dict(os.environ)
        self.applied = {}

    def apply(self, env):
        if env == self.applied:
            return
        for name in self.applied.keys() - env.keys():
            if name in self.base:
                os.environ[name] = self.base[name]
            else:
                os.environ.pop(name, None)
        os.environ.update(env)
        self.applied = env


def reseed():
    """Takes new seeds from the operating system: clones of one template must not draw the same numbers."""
    random.seed()
    numpy_random = sys.modules.get("numpy.random")
    if hasattr(numpy_random, "seed"):
        numpy_random.seed()


def flush_output():
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            # A cell may have closed or replaced the stream; the next cell gets a working one.
            pass


def main():
    channel = socket.socket(fileno=int(os.environ.pop("INSTAVM_KERNEL_FD")))
    channel.set_inheritable(False)
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    streams = (sys.stdout, sys.stderr)
    sys.argv = [""]
    sys.path[0] = ""
    config = Config()
    config.InteractiveShell.colors = "NoColor"
    config.HistoryManager.enabled = False
    shell = KernelShell.instance(config=config)
    warnings.filterwarnings("ignore", message="To exit: use")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    send(channel, {"id": 0, "exit_code": 0, "cpu_time_us": 0})
    environment = SandboxEnvironment()
    while (request := receive(channel)) is not None:
        if request["reseed"]:
            reseed()
        environment.apply(request["env"])
        before = cpu_time_us()
        code = run_cell(shell, request["code"])
        flush_output()
        sys.stdout, sys.stderr = streams
        flush_output()
        send(channel, {"id": request["id"], "exit_code": code, "cpu_time_us": cpu_time_us() - before})


if __name__ == "__main__":
    main()
