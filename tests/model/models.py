"""The models: which calls may come in any order."""

from __future__ import annotations

from tasks.settings import Settings
from tests.model.actions import (
    check,
    clock,
    leave,
    send,
    send_again,
    sweep,
)
from tests.model.explore import Model

SECOND, HOUR = 1000, 3_600_000


def settings(**options: object) -> Settings:
    given = {
        "shards": 1,
        "backlog": 1,
        "hard_backlog": 3,
        "dedupe_seconds": 10,
        "channel_timeout": 20,
        "client_timeout": 20,
    }
    return Settings(**given | options)


BASIC = (
    send("a"),
    send_again("a"),
    check("bob", "a"),
    check("bob", "a", again=True),
    check("bob", "a", limit=1),
    check("bob", "a", after="now"),
    check("bob", "a", after="before"),
    leave("bob", "a"),
)

MODELS = {
    model.name: model
    for model in (
        Model("one reader", BASIC, {"send": 5, "check": 6, "leave": 1}, settings()),
        Model(
            "two readers",
            (*BASIC, check("eve", "a", history=1), check("eve", "a", again=True), leave("eve", "a")),
            {"send": 4, "check": 4, "leave": 2},
            settings(),
        ),
        Model(
            "sweeps",
            (
                send("a"),
                send_again("a"),
                check("bob", "a"),
                check("bob", "a", after="before"),
                leave("bob", "a"),
                clock("+20 s", 20 * SECOND),
                sweep("clean_channels"),
                sweep("clean_backlog"),
                sweep("clean_clients"),
            ),
            {"send": 4, "check": 3, "leave": 1, "clock": 2, "sweep": 4},
            settings(),
        ),
    )
}
