"""The search over all orders of a model's actions, breadth first: the first trace to a broken promise is a shortest."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.settings import Settings
from tests.model import states
from tests.model.actions import ImpossibleError, World, read_history
from tests.model.promises import BrokenError, Told
from tests.model.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.model.actions import Action, Snapshot

START_MS = 1_700_000_000_000


@dataclass(frozen=True)
class Model:
    """A small alphabet of actions.

    Attributes:
        name: of the model.
        actions: what may happen.
        budgets: how often at most, by name of a budget.
        settings: of everybody.
        channels: names.
        begin: actions that come first, once.
    """

    name: str
    actions: tuple[Action, ...]
    budgets: Mapping[str, int]
    settings: Settings = field(default_factory=lambda: Settings(shards=1))
    channels: tuple[str, ...] = ("a",)
    begin: tuple[Action, ...] = ()


class State(NamedTuple):
    """A state that was reached.

    Attributes:
        values, expires, now_ms: of the store.
        told: what callers know.
        full, sweeps, saved: of the world.
        left: what is left of each budget.
    """

    values: dict[bytes, Any]
    expires: dict[bytes, int]
    now_ms: int
    told: Told
    full: bool
    sweeps: dict[int, Any]
    saved: Snapshot | None
    left: tuple[int, ...]

    def key(self) -> int:
        stored = frozenset(self.values.items()), frozenset(self.expires.items()), self.now_ms
        sweeps, saved = frozenset(self.sweeps.items()), self.saved and self.saved.key()
        return hash((stored, self.told.key(), self.full, sweeps, saved, self.left))


@dataclass
class Result:
    """What a search found.

    Attributes:
        states, transitions, depth: how far it went.
        complete: whether that was all there is.
        seconds: of this process's time.
        broken: the promise that was broken, if one was.
        why: what was seen then.
        trace: the actions that lead there.
    """

    model: str
    states: int = 0
    transitions: int = 0
    depth: int = 0
    complete: bool = True
    seconds: float = 0.0
    broken: str = ""
    why: str = ""
    trace: list[str] = field(default_factory=list)


class Search:
    """A search of one model.

    Args:
        model: what may happen.
        mutate: what to make of the scripts.
    """

    def __init__(self, model: Model, mutate: Callable[[str], str] | None = None) -> None:
        self._model, self._mutate = model, mutate
        self._budgets = [*model.budgets]

    def run(self, most: int, until: Callable[[], bool] = lambda: False) -> Result:
        """Search until there are `most` states, `until` says so, or a promise is broken."""
        began, result = time.process_time(), Result(self._model.name)
        parents: list[tuple[int, str]] = []
        try:
            self._search(result, parents, most, until)
        except BrokenError as error:
            result.broken, result.why, result.complete = error.name, str(error), False
            at, label = parents.pop()
            result.trace = [label]
            while at > 0:
                at, label = parents[at]
                result.trace.insert(0, label)
        result.seconds = time.process_time() - began
        return result

    def _search(self, result: Result, parents: list[tuple[int, str]], most: int, until: Callable[[], bool]) -> None:
        first = self._first(parents)
        seen, level = {first.key()}, [(0, first)]
        parents[:] = [(-1, "")]
        result.states = 1
        while level:
            following = []
            for at, state in level:
                for action in self._model.actions:
                    parents.append((at, action.label))
                    reached = self._next(state, action)
                    parents.pop()
                    if reached is None:
                        continue
                    result.transitions += 1
                    key = reached.key()
                    if key not in seen:
                        if len(seen) >= most or until():
                            result.complete = False
                            return
                        parents.append((at, action.label))
                        self._confirm(reached)
                        seen.add(key)
                        following.append((len(parents) - 1, reached))
                        result.states = len(seen)
            result.depth += bool(following)
            level = following

    def _first(self, parents: list[tuple[int, str]]) -> State:
        state = State(
            {}, {}, START_MS, Told(), full=False, sweeps={}, saved=None, left=(*self._model.budgets.values(),)
        )
        for action in self._model.begin:
            parents.append((0, action.label))
            state = self._next(state, replace(action, budget="")) or state
        return state

    def _next(self, state: State, action: Action) -> State | None:
        left = state.left
        if action.budget:
            place = self._budgets.index(action.budget)
            if not left[place]:
                return None
            left = (*left[:place], left[place] - 1, *left[place + 1 :])
        world = self._world(state)
        try:
            action.run(world)
        except ImpossibleError:
            return None
        store = world.store
        stored = store.values, store.expires, store.now_ms
        return State(*stored, world.told, world.full, world.sweeps, world.saved, left)

    def _world(self, state: State) -> World:
        store = Store(state.values, state.expires, state.now_ms)
        model = self._model
        return World(
            store,
            state.told.copy(),
            model.settings,
            model.channels,
            state.full,
            dict(state.sweeps),
            state.saved,
            self._mutate,
        )

    def _confirm(self, state: State) -> None:
        world = self._world(state)
        states.confirm(world.store, world.told, world.channels, world.settings)
        read_history(world)
