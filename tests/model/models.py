"""The models: which calls may come in any order. Each is small enough to be searched far."""

from __future__ import annotations

from tasks.settings import Settings
from tests.model.actions import (
    Action,
    begin,
    check,
    clock,
    come_back,
    crash,
    fill,
    leave,
    lose,
    retry,
    save,
    send,
    send_again,
    send_other,
    settle,
    step,
    sweep,
)
from tests.model.explore import Model

SECOND, HOUR = 1000, 3_600_000
TIMES = {"dedupe_seconds": 10, "channel_timeout": 20, "client_timeout": 20}


def model(name: str, *actions: Action, begin: tuple[Action, ...] = (), channels: str = "a", **budgets: int) -> Model:
    """Return a model whose channels keep one message when cleaned, and never have more than three."""
    settings = Settings(**{"shards": 1, "backlog": 1, "hard_backlog": 3} | TIMES)
    return Model(name, actions, budgets, settings, tuple(channels), begin)


LATER = clock("+20 s", 20 * SECOND)  # all is due; a lease is over after two
REMOVE, TRIM, FORGET = sweep("clean_channels"), sweep("clean_backlog"), sweep("clean_clients")
EMPTY, OLD = sweep("clean_backlog", backlog=0), sweep("clean_backlog", backlog=3, message_timeout=20)
SEND, BOB, EVE = send("a"), check("bob", "a"), check("eve", "a", history=1)
BEFORE = check("bob", "a", after="before")
LEAVE = leave("bob", "a")
FIRST = (SEND, BOB, SEND)
ARCHIVE = "archive"
STEPS = {"begin 1": 1, "begin 2": 1, "crash": 1, "retry": 1}


def steps(name: str, **options: object) -> tuple[Action, ...]:
    """Return the steps of two sweeps of a kind, of which the first may be killed or lose a reply."""
    first, second = begin(name, 1, **options), begin(name, 2, **options)
    return first, step(1), crash(1), retry(1), second, step(2)


def lost(name: str, *losses: Action, **budgets: int) -> Model:
    """Return a model in which one of these keys is lost once, at any moment."""
    calls = (SEND, BOB, check("bob", "a", after="now"), EVE, LATER, REMOVE, EMPTY, FORGET, settle("bob"))
    return model(
        name, *losses, *calls, **{"send": 3, "check": 3, "clock": 1, "sweep": 2, "loss": 1, "settle": 1} | budgets
    )


MODELS = {
    each.name: each
    for each in (
        model(
            "reader",
            SEND, send_again("a"), BOB, check("bob", "a", again=True), check("bob", "a", limit=1),
            check("bob", "a", after="now"), BEFORE, check("bob", "a", after="before", limit=1), LEAVE,
            send=5, check=5, leave=1,
        ),
        model(
            "readers",
            SEND, BOB, check("bob", "a", again=True), BEFORE, LEAVE, EVE, check("eve", "a", again=True),
            leave("eve", "a"),
            send=4, check=5, leave=2,
        ),
        model(
            "tokens",
            SEND, send_again("a"), send("a", dedupe_seconds=25), clock("+9 s", 9 * SECOND),
            clock("+4 s", 4 * SECOND), clock("-2 h", -2 * HOUR),
            send=4, clock=6,
        ),
        model(
            "tokens of two settings", SEND, send("a", dedupe_seconds=25), send_again("a"), clock("+9 s", 9 * SECOND),
            begin=(SEND, clock("+9 s", 9 * SECOND), clock("+4 s", 4 * SECOND), SEND), send=3, clock=3,
        ),
        model(
            "keys",
            send("a", "k"), send_again("a", "k"), send_other("a", "k"), send("b", "k"), send_again("b", "k"),
            SEND, BOB, check("bob", "a", again=True), clock("+9 s", 9 * SECOND), TRIM, REMOVE,
            channels="ab", send=4, check=2, clock=3, sweep=2,
        ),
        model(
            "channels",
            SEND, send("b"), check("bob", "a", "b"), check("bob", "a", "b", again=True), check("bob", "b", limit=1),
            check("bob", "a", "b", after="before", limit=1), LEAVE,
            channels="ab", send=5, check=4, leave=1,
        ),
        model(
            "removal", SEND, send_again("a"), BOB, BEFORE, LEAVE, LATER, REMOVE,
            send=3, check=4, leave=1, clock=2, sweep=2,
        ),
        model(
            "backlog", SEND, BOB, BEFORE, LATER, TRIM, EMPTY, OLD, REMOVE, LEAVE,
            send=4, check=2, leave=1, clock=2, sweep=3,
        ),
        model("oldest messages", SEND, LATER, TRIM, OLD, send=3, clock=2, sweep=2),
        model("emptied", SEND, BOB, EMPTY, LATER, FORGET, LEAVE, send=2, check=1, leave=1, clock=2, sweep=2),
        model(
            "clients",
            SEND, BOB, EVE, leave("eve", "a"), clock("+10 s", 10 * SECOND), REMOVE, EMPTY, FORGET,
            send=2, check=3, leave=1, clock=4, sweep=4,
        ),
        model(
            "two channels",
            SEND, send("b"), BOB, check("bob", "a", "b"), check("bob", "b", after="before"), leave("bob", "b"), LATER,
            REMOVE, FORGET, TRIM,
            channels="ab", send=4, check=2, leave=1, clock=2, sweep=3,
        ),
        model(
            "floors", SEND, send("b"), BOB, LEAVE, LATER, REMOVE, FORGET,
            channels="ab", send=4, check=1, leave=1, clock=2, sweep=2,
        ),
        model(
            "leases of channels", *steps("clean_channels"), SEND, LATER,
            begin=(SEND, LATER), send=1, clock=3, **STEPS,
        ),
        model("leases of backlogs", *steps("clean_backlog"), LATER, begin=(SEND, SEND), clock=2, **STEPS),
        model("leases of clients", *steps("clean_clients"), BOB, LATER, begin=(BOB, LATER), check=1, clock=3, **STEPS),
        model(
            "lease after a refusal", step(1), begin("clean_channels", 2), step(2), LATER,
            begin=(SEND, LATER, begin("clean_channels", 1, archives="broken_archive"), *[step(1)] * 4), clock=3,
            **STEPS,
        ),
        model(
            "backlog beside a removal", begin("clean_backlog", 1), step(1), SEND, LATER, REMOVE,
            begin=(SEND, SEND), send=1, clock=1, sweep=1, **STEPS,
        ),
        model(
            "channels in steps", *steps("clean_channels"), SEND, BOB, LEAVE, LATER,
            begin=FIRST, send=1, check=1, leave=1, clock=3, **STEPS,
        ),
        model(
            "backlog in steps", *steps("clean_backlog"), SEND, BOB, LATER,
            begin=FIRST, send=2, check=1, clock=2, **STEPS,
        ),
        model(
            "old messages in steps", *steps("clean_backlog", backlog=3, message_timeout=20), SEND, EMPTY, LATER,
            begin=FIRST, send=2, clock=3, sweep=1, **STEPS,
        ),
        model(
            "clients in steps", *steps("clean_clients"), SEND, BOB, EVE, LATER, REMOVE,
            begin=FIRST, send=1, check=2, clock=2, sweep=1, **STEPS,
        ),
        model(
            "all sweeps in steps",
            begin("clean_channels", 1), step(1), begin("clean_backlog", 2, backlog=0), step(2),
            begin("clean_clients", 3),
            step(3), SEND, BOB, LEAVE, LATER,
            begin=FIRST, **{"send": 1, "check": 1, "leave": 1, "clock": 2, "begin 1": 1, "begin 2": 1, "begin 3": 1},
        ),
        model(
            "archive of channels", *steps("clean_channels", archives=ARCHIVE), SEND, LATER,
            begin=(SEND, LATER), send=1, clock=3, **STEPS,
        ),
        model(
            "archive of backlogs", *steps("clean_backlog", archives=ARCHIVE, backlog=0), SEND, TRIM, EMPTY,
            begin=FIRST, send=2, sweep=1, **STEPS,
        ),
        model(
            "archive and a cursor", begin("clean_channels", 1, archives=ARCHIVE), step(1), crash(1), SEND,
            check("bob", "a", after="now"), begin=(SEND, BOB, LATER), send=1, check=2, **STEPS,
        ),
        model(
            "archives and readers", *steps("clean_channels", archives=ARCHIVE), SEND, BOB, BEFORE, LEAVE, LATER,
            begin=(SEND, BOB, SEND), send=1, check=2, leave=1, clock=3, **STEPS,
        ),
        model(
            "archive of two channels", *steps("clean_channels", archives=ARCHIVE), SEND, send("b"), LATER,
            channels="ab", begin=(SEND, send("b"), SEND), send=2, clock=3, **STEPS,
        ),
        model(
            "clock",
            SEND, BOB, EVE, LATER, clock("-10 s", -10 * SECOND), clock("+2 h", 2 * HOUR), clock("-2 h", -2 * HOUR),
            REMOVE, FORGET, OLD,
            send=3, check=2, clock=4, sweep=2,
        ),
        model(
            "full",
            SEND, send("b"), BOB, check("bob", "a", "b"), check("bob", "a", again=True), LEAVE, fill(), LATER,
            REMOVE, TRIM,
            channels="ab", send=3, check=3, leave=1, full=2, clock=1, sweep=2,
        ),
        lost("loss of indexes", lose("updated"), lose("sizes"), lose("heads"), lose("polled")),
        lost("loss of tokens", lose("sent:0"), lose("sent:1")),
        lost("loss of a channel's keys", lose("log", "a"), lose("seen", "a"), lose("read", "a")),
        model(
            "loss of trimmed", lose("trimmed"), SEND, BOB, LATER, REMOVE, EMPTY, settle("bob"),
            send=3, check=2, clock=1, sweep=2, loss=1, settle=1,
        ),
        model(
            "loss of meta", lose("meta"), SEND, BOB, check("bob", "a", after="now"), LEAVE, LATER, REMOVE, EMPTY,
            settle("bob"),
            send=3, check=2, leave=1, clock=1, sweep=2, loss=1, settle=1,
        ),
        model(
            "loss of meta of a channel that is gone", lose("meta"), SEND, BOB, check("bob", "a", after="now"), EMPTY,
            begin=(SEND, BOB, LEAVE, LATER, REMOVE), send=3, check=2, sweep=1, loss=1,
        ),
        model(
            "loss of trimmed of a channel that is gone", lose("trimmed"), SEND, BOB, LATER, FORGET, LEAVE,
            begin=(SEND, BOB, LATER, REMOVE), send=2, check=1, leave=1, clock=1, sweep=1, loss=1,
        ),
        model(
            "loss of two indexes of ids", lose("trimmed"), lose("sizes", budget="other loss"), SEND, TRIM,
            send=4, sweep=1, loss=1, **{"other loss": 1},
        ),
        model(
            "snapshot of an empty channel", come_back(), SEND, BOB, check("bob", "a", after="now"),
            begin=(BOB, save()), send=3, check=2, loss=1,
        ),
        model(
            "snapshot", save(), come_back(), SEND, BOB, check("bob", "a", after="now"), EMPTY,
            send=3, check=3, sweep=1, loss=1,
        ),
    )
}  # fmt: skip
