"""Run programs side by side until one ends, a signal comes, or nobody reads the output. Used by supervise.py.

Each is in a session of its own: a terminal's Ctrl-C, or its closing, reaches only this process, which stops them in
order. Should this process itself be killed, a shell that waits for its end stops them.
"""

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from select import PIPE_BUF, select
from typing import IO, Any, NamedTuple

GRACE = 10  # seconds that a program has after SIGTERM
LOOK = 0.1  # seconds between two looks at signals and at what has ended
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
GUARD = """
while read -r pid; do all="$pid $all"; done
kill -s TERM $all
sleep 5
for pid in $all; do kill -s KILL -- "-$pid"; done
"""


class Program(NamedTuple):
    """One that was started; for the others see `Programs.start`."""

    process: subprocess.Popen[bytes]
    ready: bytes
    last: bool
    log: Path | None


class Programs:
    """Programs that run for as long as all of them do."""

    def __init__(self) -> None:
        self._running: dict[str, Program] = {}
        self._output = selectors.DefaultSelector()
        self._begun: dict[str, bytes] = {}  # of each program the line that is not yet whole
        self._latest: dict[str, bytes] = {}  # of each program the line before it
        self._ready: set[str] = set()
        self._reasons: list[bytes] = []
        self._signals: list[int] = []
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
                signal.signal(number, lambda number, _: self._signals.append(number))
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD],
            bufsize=0,
            stdin=subprocess.PIPE,  # its end is the end of this process
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def start(
        self,
        name: str,
        command: list[str],
        *,
        ready: bytes = b"",
        last: bool = False,
        log: Path | None = None,
        **options: Any,
    ) -> None:
        """Start a program, and pass on what it prints with its name before each line.

        Args:
            name: of at most six letters.
            command: its words.
            ready: stands in the line that it prints when it is ready, if it prints one.
            last: stop it after the others, which use it; a second Ctrl-C does not kill it.
            log: where it says why it ended, if not in what it prints.
            options: of subprocess.Popen.
        """
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **options,
        )
        self._running[name] = Program(process, ready, last, log)
        if process.stdout and self._guard.stdin:
            self._output.register(process.stdout, selectors.EVENT_READ, name)
            self._guard.stdin.write(b"%d\n" % process.pid)

    def why_end(self) -> tuple[str, int] | None:
        """Return why all must end, and the exit code; None while they may run."""
        if self._signals:
            number = self._signals[0]
            name = signal.Signals(number).name
            return "nobody reads the output" if number == signal.SIGPIPE else name, 128 + number
        for name, program in self._running.items():
            if (code := program.process.poll()) is not None:
                how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
                where = f", its log is {program.log}" if program.log else ""
                return f"{name} {how}{where}", 128 - code if code < 0 else code or 1
        return None

    def are_ready(self) -> bool:
        """Return whether all that print a line when they are ready have done so."""
        return self._ready >= {name for name, program in self._running.items() if program.ready}

    def look_until(self, done: Callable[[], bool]) -> None:
        """Pass on what is printed until something is so, or all must end."""
        while not (self.why_end() or done()):
            self.look()

    def wait(self) -> int:
        """Pass on what is printed until all must end; say why, and return the exit code."""
        while not (why := self.why_end()):
            self.look()
        ended = [name for name, program in self._running.items() if (program.process.poll() or 0) > 0]
        for _ in range(2):  # the last words, and a last line that has no end
            self.look()
        self._reasons = [
            b"./deploy/up: last line of %s: %s\n" % (name.encode(), self._latest[name])
            for name in ended
            if name in self._latest
        ]
        self._write(sys.stderr, f"./deploy/up: {why[0]}: stopping all; Ctrl-C again kills what is left\n".encode())
        return why[1]

    def say(self, text: str) -> None:
        """Print as the programs do."""
        self._write(sys.stdout, text.encode())

    def look(self) -> None:
        """Pass on what is printed, and wait a moment for it."""
        for key, _ in self._output.select(LOOK):
            got = os.read(key.fd, 65536)
            *lines, self._begun[key.data] = (self._begun.get(key.data, b"") + got).split(b"\n")
            if not got:
                self._output.unregister(key.fileobj)
                lines = [line for line in [self._begun.pop(key.data)] if line]
            self._note(key.data, lines)
            self._write(sys.stdout, b"".join(b"%-6s | %s\n" % (key.data.encode(), line) for line in lines))

    def _note(self, name: str, lines: list[bytes]) -> None:
        """Note whether a program has become ready, and its latest line that is not empty."""
        ready = self._running[name].ready
        for line in filter(bytes.strip, lines):
            self._latest[name] = line
            if ready and ready in line:
                self._ready.add(name)

    def stop(self) -> None:
        """Stop all of them, and what they have left behind; say once more what ended them."""
        for last in (False, True):
            these = [program.process for program in self._running.values() if program.last is last]
            for process in these:
                process.terminate()
            deadline = time.monotonic() + GRACE
            while time.monotonic() < deadline and any(process.poll() is None for process in these):
                if not last and self._signals.count(signal.SIGINT) > 1:
                    break
                self.look()
            for process in these:
                with suppress(OSError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            self.look()
        self._guard.kill()
        self._guard.wait()
        for reason in self._reasons:
            self._write(sys.stderr, reason)

    def _write(self, file: IO[str], data: bytes) -> None:
        """Write without being held by a reader that does not read: then a signal ends it, and the rest is lost."""
        try:
            for start in range(0, len(data), PIPE_BUF):  # so much fits when there is room
                while not select([], [file], [], LOOK)[1]:
                    if self._signals:
                        return
                os.write(file.fileno(), data[start : start + PIPE_BUF])
        except OSError:  # the reader, or the terminal, is gone
            self._signals.append(signal.SIGPIPE)
