"""What the scripts do for a promise, taken away one at a time: a search must find the promise that is broken then.

``mutations.txt`` has them, by the names of the scripts::

    == SCRIPT...
    what is taken away | the model where that is seen | the promise that is broken
    - text that stands in each of the scripts, once
    + what stands there then, or nothing
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from chat.store import scripts as chatting
from tasks.cleaning import scripts as cleaning

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPTS = vars(chatting) | vars(cleaning)


@dataclass(frozen=True)
class Mutation:
    """A protection that is taken away.

    Attributes:
        name: what is taken away.
        of: sources of the scripts.
        text: of the protection.
        instead: what stands there then.
        model: name of the model where that is seen.
        breaks: the promise that is broken.
    """

    name: str
    of: frozenset[str]
    text: str
    instead: str
    model: str
    breaks: str

    def __call__(self, source: str) -> str:
        """Return the text of a script, without the protection if it is one of these.

        Raises:
            LookupError: the protection is not there, or more than once.
        """
        if source not in self.of:
            return source
        if source.count(self.text) != 1:
            problem = f"{self.name}: {self.text!r} stands {source.count(self.text)} times in a script, must be once"
            raise LookupError(problem)
        return source.replace(self.text, self.instead)


def read(path: Path) -> Iterator[Mutation]:
    """Yield the mutations of a file."""
    for section in re.split("^== ", path.read_text("utf-8"), flags=re.MULTILINE)[1:]:
        scripts, *blocks = section.strip().split("\n\n")
        of = frozenset(SCRIPTS[name].source for name in scripts.split())
        for block in blocks:
            head, *lines = block.splitlines()
            text, instead = ("\n".join(line[2:] for line in lines if line[:2] == sign) for sign in ("- ", "+ "))
            name, model, breaks = head.split(" | ")
            yield Mutation(name, of, text, instead, model, breaks)


MUTATIONS = tuple(read(Path(__file__).with_suffix(".txt")))
