"""The sandbox's Python kernel: an IPython shell that runs cells for the guest agent.

Requests and verdicts cross an inherited socket as JSON behind a 4-byte big-endian length; output goes to
file descriptors 1 and 2, which are pipes to the agent, so children of a cell write to the same place.
A request is {"id", "code", "env", "seed"}; a verdict is {"id", "exit_code", "cpu_time_us"}, sent after all output.
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

    def write_output_prompt(self):
        pass


class KernelShell(InteractiveShell):
    """IPython's shell with tracebacks on stderr and `sys.exit()` as the end of a cell, not of the kernel."""

    displayhook_class = PlainDisplayHook

    # `!command` shares the kernel's own output pipes instead of a pseudo-terminal.
    system = InteractiveShell.system_raw

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


def cpu_time_us():
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return int(sum(usage.ru_utime + usage.ru_stime for usage in used) * 1_000_000)


def receive(channel):
    """The next request, or None when the agent closed the channel."""
    header = channel.recv(4, socket.MSG_WAITALL)
    if len(header) < 4:
        return None
    (length,) = struct.unpack(">I", header)
    return json.loads(channel.recv(length, socket.MSG_WAITALL))


def send(channel, message):
    body = json.dumps(message).encode()
    channel.sendall(struct.pack(">I", len(body)) + body)


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
    injected = {}
    while (request := receive(channel)) is not None:
        if request.get("seed"):
            random.seed(bytes.fromhex(request["seed"]))
        env = request.get("env") or {}
        for name in injected.keys() - env.keys():
            os.environ.pop(name, None)
        os.environ.update(env)
        injected = env
        before = cpu_time_us()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            code = exit_code_of(shell.run_cell(request["code"], store_history=True))
        except KeyboardInterrupt:
            print("KeyboardInterrupt", file=sys.stderr)
            code = 1
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        flush_output()
        sys.stdout, sys.stderr = streams
        flush_output()
        send(channel, {"id": request["id"], "exit_code": code, "cpu_time_us": cpu_time_us() - before})


if __name__ == "__main__":
    main()
