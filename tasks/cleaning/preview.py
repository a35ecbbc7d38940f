"""The dry run: what a sweep would remove, by scripts that only read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chat.store.nodes import raise_first
from chat.store.scripts import call_all

if TYPE_CHECKING:
    from tasks.cleaning.calls import Calls
    from tasks.cleaning.run import Run

__all__ = ["preview"]


def preview(run: Run, calls: Calls) -> None:
    """Count what a rule would remove in a shard. Each round trip looks at one page and names the next."""
    tally, offset = run.tally, 0
    (page,) = raise_first(call_all(run.client, [calls.due(offset, run.candidates())]))
    while names := page[2:]:
        offset += len(names)
        look, page = raise_first(
            call_all(run.client, [calls.look(calls.rule.peek, names), calls.due(offset, run.candidates())])
        )
        counts, of_names, errors = look
        tally.refuse_places(names, errors)
        tally.add(names, calls.rule.counted(counts))
        tally.keep_examples(names, of_names)
        run.tell()
    tally.note_rest(max(0, page[0] - offset), page[1])  # of the pages before, some may be gone meanwhile
