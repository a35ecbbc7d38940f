"""Replay a chat log against real processes, with time compressed, and hold the chat to its promises.

A private server, a real worker and beat. Sending processes send each channel's messages in the log's order and at
the log's times; checking processes let each sender check its channel just before it speaks. What a client was given
is compared with the log itself at once, and with the ids of the senders at the end: each client's account must
balance to the message. Then traffic stops, and everything in Redis is audited by an own reading of its keys.
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import time
from array import array
from bisect import bisect_right
from collections import Counter, defaultdict
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, fields
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from zlib import crc32
from zlib import error as ZlibError  # noqa: N812  it is one

sys.path.insert(0, str(Path(__file__).resolve().parent / "support"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # it also runs where nothing is installed

import celery
import redis
from servers import BINARIES, Program, Server, beat, eventually, worker
from tqdm import tqdm

from chat import Chat
from chat.store.connect import connect
from chat.store.keys import decode_text, encode_text
from tasks import app
from tasks.settings import Settings
from tasks.stats.figures import read_stats

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

    from chat import Check

ENGINES = {"embedded": "valkey", "redis-server": "redis"}
SERVER_OPTIONS = {"maxmemory": "256mb", "maxmemory-policy": "noeviction", "appendonly": "yes"}  # as deploy/embedded.py
SHORTEST_INTERVAL = 0.02  # seconds: 150 runs a second; beyond that one worker on two cores lets most expire unrun
CLOCK_MS = 2  # the server truncates its time to ms, twice
MINUTES = 24 * 60
FORMAT = f"with channel and sender (1 to 200 characters), minute (0 to {MINUTES - 1}, sorted) and text"
SWEEPS = ("clean_backlog", "clean_channels", "clean_clients")
EXAMPLES = 3  # of each broken rule
OK, BROKEN, BAD_INPUT = 0, 1, 2

SWEPT = re.compile(r"(clean_\w+): removed (.*?) in ([0-9.]+) s\b")
COUNT = re.compile(r"(\d+) (channels|messages|clients)")
TROUBLE = re.compile(r".*(?:ERROR|CRITICAL|Traceback).*")


class Entry(NamedTuple):
    """One message: the n-th of its channel, due so many minutes after the start."""

    channel: str
    n: int
    due: float


class Broken(NamedTuple):
    """A rule that did not hold, and where."""

    rule: str
    example: str


@dataclass(frozen=True)
class Log:
    """What is sent, in order, and what is in each channel then."""

    entries: list[Entry]
    bodies: dict[str, list[dict[str, Any]]]  # of each channel, by n


def read_log(path: Path) -> Log:
    """Return the log of a JSONL file, gzipped if it is named so."""
    bodies: dict[str, list[dict[str, Any]]] = defaultdict(list)
    said: list[tuple[str, int, int]] = []  # channel, n, minute
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                channel, minute, sender, text = parse(line)
            except ValueError:
                message = f"line {number} must be a JSON object, {FORMAT}"
                raise ValueError(message) from None
            if said and minute < said[-1][2]:
                message = f"line {number} has minute {minute} after {said[-1][2]}, must be sorted by minute"
                raise ValueError(message)
            said.append((channel, len(bodies[channel]), minute))
            bodies[channel].append({"sender": sender, "text": text, "n": len(bodies[channel])})
    if not said:
        message = "there is no message in it"
        raise ValueError(message)
    in_minute = Counter(minute for _, _, minute in said)
    first = {minute: index for index, (_, _, minute) in reversed(list(enumerate(said)))}
    due = (minute + (index - first[minute]) / in_minute[minute] for index, (_, _, minute) in enumerate(said))
    return Log([Entry(channel, n, at) for (channel, n, _), at in zip(said, due, strict=True)], dict(bodies))


def parse(line: str) -> tuple[str, int, str, str]:
    """Return channel, minute, sender and text of a line."""
    match json.loads(line):
        case {"channel": str(channel), "minute": int(minute), "sender": str(sender), "text": str(text)} if (
            0 < len(channel) <= 200 and 0 < len(sender) <= 200 and 0 <= minute < MINUTES
        ):
            return channel, minute, sender, text
    raise ValueError


# The processes that send and check


@dataclass
class Work:
    """What one process did, or all of its kind."""

    seconds: array[float] = field(default_factory=lambda: array("d"))  # each call took
    ended: float = 0.0  # seconds after the start
    late: float = 0.0  # seconds behind the log's clock at the end

    def add(self, other: Self) -> None:
        """Take over what another process did, with other channels or clients."""
        for name in (item.name for item in fields(self)):
            mine, theirs = getattr(self, name), getattr(other, name)
            both = (
                max(mine, theirs)
                if isinstance(mine, float)
                else mine | theirs
                if isinstance(mine, dict)
                else mine + theirs
            )
            setattr(self, name, both)


@dataclass
class Sent(Work):
    """The ids and times (ms) of each channel's messages, by n."""

    ids: dict[str, array[int]] = field(default_factory=lambda: defaultdict(partial(array, "q")))
    times: dict[str, array[int]] = field(default_factory=lambda: defaultdict(partial(array, "q")))

    def do(self, chat: Chat, log: Log, entry: Entry) -> None:
        """Send a message of the log."""
        began = time.monotonic()
        message = chat.send_message(entry.channel, log.bodies[entry.channel][entry.n])
        self.seconds.append(time.monotonic() - began)
        self.ids[entry.channel].append(message.id)
        self.times[entry.channel].append(round(message.sent_at.timestamp() * 1000))


@dataclass
class Session:
    """What a client was given from one `new` check to before the next."""

    start: int  # position
    checked: float  # when its last check began
    checks: array[int] = field(default_factory=partial(array, "q"))  # missed, first n, count, position after; ...

    @property
    def position(self) -> int:
        """Where the client stands."""
        return self.checks[-1] if self.checks else self.start


@dataclass
class Checked(Work):
    """The sessions of each (channel, client), and what was wrong at sight."""

    client_timeout: float = 0.0
    sessions: dict[tuple[str, str], list[Session]] = field(default_factory=dict)
    broken: list[Broken] = field(default_factory=list)

    def do(self, chat: Chat, log: Log, entry: Entry) -> None:
        """Let the sender of a message look at the channel."""
        self.check(chat, log, entry.channel, log.bodies[entry.channel][entry.n]["sender"])

    def check(self, chat: Chat, log: Log, channel: str, client: str) -> None:
        """Check, hold the answer against the log, and enter it in the client's account."""
        began = time.monotonic()
        check = chat.check_messages(client, channel)
        ended = time.monotonic()
        self.seconds.append(ended - began)
        sessions = self.sessions.setdefault((channel, client), [])
        position, count = int(check.cursor.rpartition("-")[2]), len(check)
        wrong = list(self.faults(check, position, sessions, ended))
        first = check.messages[0].body["n"] if check else 0
        if [message.body for message in check] != log.bodies[channel][first : first + count]:
            wrong.append("the messages of a check are consecutive messages of the log")
        self.broken += [Broken(rule, f"{client} in {channel} at {position}: {check}"[:300]) for rule in wrong]
        if check.new or not sessions:
            sessions.append(Session(position, began))
            return
        sessions[-1].checked = began
        if count or check.missed or position != sessions[-1].position:
            sessions[-1].checks.extend((check.missed, first, count, position))

    def faults(self, check: Check, position: int, sessions: list[Session], ended: float) -> Iterator[str]:
        """Yield the rules that a check breaks, as far as one can tell without the senders' ids."""
        if [message.id for message in check] != list(range(position - len(check) + 1, position + 1)):
            yield "the ids of a check are consecutive and end at its cursor"
        if check.more:
            yield "a check without a limit leaves nothing"
        if check.new and (check or check.missed):
            yield "a new client starts at the end"
        if not check.new and not sessions:
            yield "the first check of a client is new"
        if sessions and position < sessions[-1].position:
            yield "the position of a client never goes back"
        if sessions and check.new and ended - sessions[-1].checked < self.client_timeout - CLOCK_MS / 1000:
            yield "no client is forgotten before its timeout"


@dataclass
class Crew:
    """Processes that each work through their part of the log by one clock."""

    log: Log
    settings: Settings
    speed: float
    count: int  # of processes that send, and again of those that check

    def __post_init__(self) -> None:
        self.barrier = multiprocessing.Barrier(2 * self.count)
        self.done = multiprocessing.RawArray("q", 2 * self.count)  # entries, by process
        self.processes: dict[Connection, multiprocessing.Process] = {}

    def start(self, stack: ExitStack) -> None:
        """Start the processes; the stack ends them."""
        for index, (task, entries) in enumerate(self.parts()):
            ours, theirs = multiprocessing.Pipe(duplex=False)
            process = multiprocessing.Process(target=self.run, args=(index, task, entries, theirs), daemon=True)
            process.start()
            stack.callback(process.kill)
            theirs.close()  # so that a process that dies is an end of file
            self.processes[ours] = process

    def watch(self) -> None:
        """Show progress until everything is sent and checked, or a process has died."""
        total = 2 * len(self.log.entries)
        with tqdm(total=total, unit=" calls", disable=None, leave=False) as bar:
            while sum(self.done) < total and not any(process.exitcode for process in self.processes.values()):
                time.sleep(0.02)  # a poll; it ends with the work, or with a process
                bar.update(sum(self.done) - bar.n)

    def answers(self) -> tuple[Sent, Checked]:
        """Return what all processes did."""
        sent, checked = Sent(), Checked(client_timeout=self.settings.client_timeout)
        for connection in self.processes:
            work = connection.recv()
            (sent if isinstance(work, Sent) else checked).add(work)
        return sent, checked

    def parts(self) -> Iterator[tuple[Sent | Checked, list[Entry]]]:
        """Divide the log by channel among the senders, by client among the checkers: so they race."""
        senders: list[list[Entry]] = [[] for _ in range(self.count)]
        checkers: list[list[Entry]] = [[] for _ in range(self.count)]
        for entry in self.log.entries:
            client = self.log.bodies[entry.channel][entry.n]["sender"]
            senders[part_of(entry.channel, self.count)].append(entry)
            checkers[part_of(client, self.count)].append(entry)
        yield from ((Sent(), entries) for entries in senders)
        yield from ((Checked(client_timeout=self.settings.client_timeout), entries) for entries in checkers)

    def run(self, index: int, task: Sent | Checked, entries: list[Entry], answer: Connection) -> None:
        """Be one of the processes: do each entry at its time, or at once when behind."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its processes
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        chat = Chat.from_url(self.settings.redis_url, settings=self.settings)
        self.barrier.wait(60)
        start = time.monotonic()
        for entry in entries:
            early = start + entry.due * 60 / self.speed - time.monotonic()
            if early > 0:
                time.sleep(early)  # the pace of the log
            task.do(chat, self.log, entry)
            task.late = max(-early, 0.0)
            self.done[index] += 1
        task.ended = time.monotonic() - start
        answer.send(task)


def part_of(name: str, count: int) -> int:
    """Return which of so many processes a channel or client belongs to."""
    return crc32(encode_text(name)) % count


# The accounts


def id_faults(sent: Sent, settings: Settings) -> Iterator[Broken]:
    """Yield where the ids that the senders were given do not rise, or leave some out."""
    for channel, ids in sent.ids.items():
        for n, (before, after) in enumerate(pairwise(ids), 1):
            if after <= before:
                yield Broken("ids rise", f"{channel}: {before}, then {after}")
            elif after > before + 1 and not was_idle(sent.times[channel], n, settings):
                yield Broken("ids leave nothing out while a channel lives", f"{channel}: {before}, then {after}")


@dataclass
class Account:
    """What a client is to have got of a channel, by the ids and times of the channel's messages."""

    ids: array[int]
    times: array[int]
    settings: Settings
    sums: Counter[str]

    def audit(self, sessions: list[Session]) -> Iterator[tuple[str, str]]:
        """Yield the rules that do not hold."""
        for session in sessions:
            yield from self.walk(session)
        if bisect_right(self.ids, sessions[-1].position) != len(self.ids):
            yield "after its last check a client is at the end", f"at {sessions[-1].position} of {self.ids[-1]}"

    def walk(self, session: Session) -> Iterator[tuple[str, str]]:
        """Follow a client's position; `n` is how many messages had been sent up to it."""
        n, position = bisect_right(self.ids, session.start), session.start
        for at in range(0, len(session.checks), 4):
            missed, first, count, after = session.checks[at : at + 4]
            self.sums.update(delivered=count, missed=missed)
            where = f"at {position} (message {n}) missed {missed}, got {count} from message {first}, then at {after}"
            if after != position + missed + count:
                yield "a position moves by what was delivered and missed", where
            if count and first != n + missed:
                yield "nothing twice, nothing skipped, order kept", where
            n, position = n + missed + count, after
            if bisect_right(self.ids, position) != n:
                yield "messages sent = delivered + missed", where
            if missed and count < self.settings.backlog and not was_idle(self.times, n - count, self.settings):
                yield "a channel keeps its backlog until it is idle", where
        self.sums.update(sessions=1, due=bisect_right(self.ids, position) - bisect_right(self.ids, session.start))


def was_idle(times: array[int], n: int, settings: Settings) -> bool:
    """Return whether the channel may have been removed between its messages n - 1 and n."""
    return n >= len(times) or times[n] - times[n - 1] >= settings.channel_timeout * 1000 - CLOCK_MS


# What lies in Redis, read without the product's code


@dataclass
class Audit:
    """One reading of everything in Redis.

    With `swept_ms`, the server's time before the last sweeps, nothing may be left that was over its time then.
    """

    server: redis.Redis
    settings: Settings
    sent: Sent
    swept_ms: float | None = None
    channels: int = 0
    clients: int = 0

    def run(self) -> Iterator[Broken]:
        prefix = re.escape(self.settings.prefix)
        of_channel = re.compile(rf"{prefix}:\{{(\d+)\}}:(log|seen|read):(.+)".encode(), re.DOTALL)
        passing = re.compile(rf"{prefix}:\{{\d+\}}:(sent:[01]|lease:\w+)".encode())
        lasting = re.compile(
            rf"{prefix}:(shards|runs|celery:.+|\{{\d+\}}:(updated|sizes|heads|polled|trimmed|meta))".encode()
        )
        owned: dict[tuple[int, bytes], set[bytes]] = defaultdict(set)
        for key in self.server.scan_iter(count=1000):
            if match := of_channel.fullmatch(key):
                shard, kind, channel = int(match[1]), match[2], match[3]
                owned[shard, kind].add(channel)
                if crc32(channel) % self.settings.shards != shard:
                    yield Broken("a channel lies in its shard", str(key))
            elif passing.fullmatch(key):
                if self.server.ttl(key) == -1:
                    yield Broken("tokens and leases go by themselves", str(key))
            elif not lasting.fullmatch(key):
                yield Broken("no key belongs to nobody", str(key))
        for shard in range(self.settings.shards):
            logs, seen, read = (owned[shard, kind] for kind in (b"log", b"seen", b"read"))
            for rule, example in self.shard(f"{self.settings.prefix}:{{{shard}}}:".encode(), logs, seen, read):
                yield Broken(rule, f"shard {shard}: {example}"[:300])

    def shard(self, head: bytes, logs: set[bytes], seen: set[bytes], read: set[bytes]) -> Iterator[tuple[str, str]]:
        """Yield what is wrong in a shard, given the channels that have keys of each kind."""
        updated, sizes, heads, polled = (
            self.scores(head + index) for index in (b"updated", b"sizes", b"heads", b"polled")
        )
        trimmed = {channel: int(base) for channel, base in self.server.hgetall(head + b"trimmed").items()}
        self.channels += len(updated)
        for index, names in (("updated", updated), ("sizes", sizes), ("heads", heads)):
            if names.keys() != logs:
                yield f"logs and `{index}` name the same channels", str(names.keys() ^ logs)
        for what, those in (("seen:*", seen), ("read:*", read)):
            if polled.keys() != those:
                yield f"{what} and `polled` name the same channels", str(polled.keys() ^ those)
        if trimmed.keys() != updated.keys() | polled.keys():
            yield "`trimmed` has the channels that exist", str(trimmed.keys() ^ (updated.keys() | polled.keys()))
        if self.swept_ms is not None and (late := late_ones(updated, self.swept_ms, self.settings.channel_timeout)):
            yield "no idle channel after the last sweep", str(late)
        for channel in logs & updated.keys() & sizes.keys() & heads.keys() & trimmed.keys():
            yield from self.channel(head, channel, (updated[channel], sizes[channel], heads[channel], trimmed[channel]))
        sent, removed = (int(count or 0) for count in self.server.hmget(head + b"meta", "sent", "removed"))
        if sent - removed != sum(sizes.values()):
            yield "`sent` less `removed` is what is stored", f"{sent} - {removed}, stored {sum(sizes.values()):.0f}"
        yield from self.presence(head, seen | read, polled)

    def channel(self, head: bytes, channel: bytes, index: tuple[float, float, float, int]) -> Iterator[tuple[str, str]]:
        """Yield where the index entries of a channel do not fit its log."""
        updated, size, oldest, trimmed = index
        entries: Any = self.server.lrange(head + b"log:" + channel, 0, -1)
        times = [int(entry.partition(b":")[0]) for entry in entries]
        if len(entries) > self.settings.backlog:
            yield "no channel over the backlog after the last sweep", f"{channel!r}: {len(entries)}"
        if size != len(entries) or updated != times[-1] or oldest > times[0] or times != sorted(times):
            yield "`sizes`, `updated` and `heads` fit the log", f"{channel!r}: {index}"
        if trimmed + len(entries) != self.sent.ids[decode_text(channel)][-1]:
            yield "`trimmed` and the log end at the last id", f"{channel!r}: {trimmed} + {len(entries)}"

    def scores(self, key: bytes) -> dict[bytes, float]:
        reply: Any = self.server.zrange(key, 0, -1, withscores=True)
        return dict(reply)

    def presence(self, head: bytes, channels: set[bytes], polled: dict[bytes, float]) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with the clients of a shard."""
        clients = 0
        for channel in channels:
            seen = self.scores(head + b"seen:" + channel)
            read = self.server.hkeys(head + b"read:" + channel)
            clients += len(read)
            if seen.keys() != set(read):
                yield "seen:* and read:* have the same clients", f"{channel!r}: {seen.keys() ^ set(read)}"
            if polled.get(channel, 0) > min(seen.values(), default=0):
                yield "`polled` is no later than the eldest check", f"{channel!r}"
            if self.swept_ms is not None and (late := late_ones(seen, self.swept_ms, self.settings.client_timeout)):
                yield "no expired client after the last sweep", f"{channel!r}: {late}"
        if clients != int(self.server.hget(head + b"meta", "clients") or 0):
            yield "`clients` counts the clients of the shard", f"{clients} found"
        self.clients += clients


def late_ones(times: dict[bytes, float], now_ms: float, timeout: float) -> list[bytes]:
    return [name for name, ms in times.items() if now_ms - ms >= timeout * 1000]


# The run


@dataclass
class Replay:
    """One run: what it replays, what it found broken, and the lines of its summary."""

    log: Log
    speed: float
    processes: int
    engine: str
    broken: list[Broken] = field(default_factory=list)
    lines: list[tuple[str, str]] = field(default_factory=list)

    def run(self) -> None:
        """Start everything, replay, verify, stop everything."""
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="replay-")))
            server = Server(self.engine, folder, SERVER_OPTIONS)
            stack.callback(server.stop)
            server.start()
            settings = compressed(server.url, self.speed)
            environment = {item.metadata["name"]: str(getattr(settings, item.name)) for item in fields(settings)}
            os.environ.update(environment)  # before the first use of `app`
            daemon = Daemon(worker(folder, environment), beat(folder, environment))
            stack.callback(daemon.kill)
            daemon.start()
            client = stack.enter_context(connect(server.url))
            crew = Crew(self.log, settings, self.speed, self.processes)
            crew.start(stack)
            crew.watch()
            self.broken += daemon.end(daemon.beat)  # at once: what the last sweeps leave is audited
            sent, checked = crew.answers()
            eventually(lambda: daemon.is_idle(client))
            self.pace(sent, checked)
            self.accounts(settings, sent, checked)
            self.audits(client, settings, sent)
            self.broken += daemon.end(daemon.worker)
            self.lines += [*daemon.tell(settings), ("software", software(client))]

    def pace(self, *works: Work) -> None:
        """Note how fast it went."""
        for name, work in zip(("sends", "checks"), works, strict=True):
            seconds = sorted(work.seconds)
            p50, p99 = (1000 * seconds[int(len(seconds) * part)] for part in (0.5, 0.99))
            rate = f"{len(seconds):,} in {work.ended:.1f} s, {len(seconds) / work.ended:,.0f}/s"
            late = f"{work.late:.1f} s behind at the end"
            self.lines.append((name, f"{rate}, p50 {p50:.2f} ms, p99 {p99:.2f} ms, {late}"))

    def accounts(self, settings: Settings, sent: Sent, checked: Checked) -> None:
        """Let every client check once more, then balance."""
        chat = Chat.from_url(settings.redis_url, settings=settings)
        for channel, client in checked.sessions:
            checked.check(chat, self.log, channel, client)
        self.broken += checked.broken
        self.broken += id_faults(sent, settings)
        sums: Counter[str] = Counter()
        for (channel, client), sessions in checked.sessions.items():
            account = Account(sent.ids[channel], sent.times[channel], settings, sums)
            self.broken += [Broken(rule, f"{client} in {channel}: {where}") for rule, where in account.audit(sessions)]
        clients = f"{len(checked.sessions):,} in {len(sent.ids):,} channels, new {sums['sessions']:,} times"
        balance = f"{sums['due']:,} due to clients: {sums['delivered']:,} delivered, {sums['missed']:,} missed"
        self.lines += [("clients", clients), ("messages", balance)]

    def audits(self, client: redis.Redis, settings: Settings, sent: Sent) -> None:
        """Look at everything in Redis while it is full of life, and when all of it has lapsed."""
        sweep("clean_backlog")
        self.audit("audit after traffic", Audit(client, settings, sent))
        time.sleep(max(settings.channel_timeout, settings.client_timeout))  # everything is to be overdue
        seconds, micros = client.time()
        for name in SWEEPS:
            sweep(name)
        self.audit("audit after lapse", Audit(client, settings, sent, swept_ms=seconds * 1000 + micros / 1000))
        for stats in read_stats(client, settings=settings).shards:
            if stats.idle or stats.over_backlog or stats.expired:
                self.broken.append(Broken("nothing is due after the last sweep", str(stats)))

    def audit(self, name: str, audit: Audit) -> None:
        self.broken += audit.run()
        self.lines.append((name, f"{audit.channels:,} channels, {audit.clients:,} clients in Redis"))


@dataclass
class Daemon:
    """Worker and beat, and what they say."""

    worker: Program
    beat: Program

    def start(self) -> None:
        self.worker.start()
        sweep(SWEEPS[0])  # returns when the worker is up
        self.beat.start()
        eventually(lambda: "Sending due task" in self.beat.output)

    def end(self, program: Program) -> Iterator[Broken]:
        """Stop one as an operator would; it is to have lived until now, and to leave without a complaint."""
        died = program.process is None or program.process.poll() is not None
        code = program.stop()
        if died or code:
            yield Broken("worker and beat run to the end", f"{program.name} ended with code {code}")
        yield from (Broken("worker and beat log no errors", line) for line in TROUBLE.findall(program.output))

    def kill(self) -> None:
        """End what still runs, pool processes included."""
        for program in (self.beat, self.worker):
            if program.process:
                with suppress(ProcessLookupError):
                    os.killpg(program.process.pid, signal.SIGKILL)
                program.process.wait()

    def is_idle(self, client: redis.Redis) -> bool:
        prefix = app.conf.broker_transport_options["global_keyprefix"]
        return not client.exists(prefix + app.conf.task_default_queue, f"{prefix}unacked")

    def tell(self, settings: Settings) -> Iterator[tuple[str, str]]:
        """Yield what the logs say of each sweep."""
        runs = SWEPT.findall(self.worker.output)
        for name in SWEEPS:
            mine = [(what, float(seconds)) for sweep, what, seconds in runs if sweep == name]
            removed = Counter[str]()
            for what, _ in mine:
                removed.update({unit: int(count) for count, unit in COUNT.findall(what)})
            due = self.beat.output.count(f"(tasks.{name})")
            every = getattr(settings, f"{name}_every") * 1000
            gone = ", ".join(f"{count:,} {unit}" for unit, count in removed.items()) or "nothing"
            longest = 1000 * max((seconds for _, seconds in mine), default=0)
            told = f"every {every:.0f} ms: {due:,} due, {len(mine):,} runs, longest {longest:.0f} ms, removed {gone}"
            yield name, told


def compressed(url: str, speed: float) -> Settings:
    """Return the defaults with every time divided by the speed."""
    usual = Settings()
    every: dict[str, Any] = {
        f"{name}_every": max(float(getattr(usual, f"{name}_every")) / speed, SHORTEST_INTERVAL) for name in SWEEPS
    }
    return Settings(
        redis_url=url,
        channel_timeout=usual.channel_timeout / speed,
        client_timeout=usual.client_timeout / speed,
        dedupe_seconds=max(1, round(usual.dedupe_seconds / speed)),
        **every,
    )


def sweep(name: str) -> None:
    """Let the worker run one sweep."""
    app.send_task(f"tasks.{name}").get(60)


def software(client: redis.Redis) -> str:
    info = client.info("server")
    server = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info['redis_version']}"
    return f"{server}, Celery {celery.__version__}, redis-py {redis.__version__}, Python {sys.version.split()[0]}"


def main() -> int:
    """Run the command line and return its exit code."""
    options = parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that `finally` runs
    try:
        log = read_log(options.log)
    except (OSError, EOFError, ZlibError, ValueError) as error:
        sys.stderr.write(f"replay: {options.log}: {getattr(error, 'strerror', None) or error}\n")
        return BAD_INPUT
    replay = Replay(log, options.speed, options.processes, ENGINES[options.server])
    try:
        replay.run()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    sys.stdout.write("".join(f"{name:<20} {text}\n" for name, text in replay.lines))
    by_rule = Counter(broken.rule for broken in replay.broken)
    for rule, count in by_rule.items():
        sys.stdout.write(f"BROKEN {count:,} times: {rule}\n")
        examples = [broken.example for broken in replay.broken if broken.rule == rule]
        sys.stdout.write("".join(f"    {example}\n" for example in examples[:EXAMPLES]))
    sys.stdout.write("FAILED\n" if by_rule else "every invariant held\n")
    return BROKEN if by_rule else OK


def speed(text: str) -> float:
    """Return a speed; Redis counts in ms, so no timeout may become shorter than that."""
    fastest = 1000 * Settings().client_timeout
    if not 0 < float(text) <= fastest:
        message = f"is {text}, must be above 0 and at most {fastest:.0f}"
        raise argparse.ArgumentTypeError(message)
    return float(text)


def count(text: str) -> int:
    """Return a number of processes."""
    if int(text) < 1:
        message = f"is {text}, must be at least 1"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description="Replay a chat log against a private server, a real worker and beat, and verify every promise.",
        epilog="""\
example:
  python tests/replay.py chat.jsonl.gz --speed 1440 --server embedded

Each line of the log is a JSON object: channel, minute (0-1439, sorted), sender, text.
exit codes: 0 every invariant held, 1 one broke, 2 bad input""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("log", type=Path, help="JSONL file, gzipped if its name ends in .gz")
    parser.add_argument("--speed", type=speed, default=1440, help="1440, the default: a day in a minute")
    servers = [name for name, engine in ENGINES.items() if engine in BINARIES]
    parser.add_argument("--server", choices=servers, default="embedded", help="default: embedded (Valkey)")
    parser.add_argument("--processes", type=count, default=2, help="that send, and again that check (default: 2)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
