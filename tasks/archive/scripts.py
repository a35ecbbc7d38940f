"""The scripts of restoring, see ``lua``: each with the shared parts that stand in front of it."""

from chat.store.scripts import Script

__all__ = ["BEGIN", "FOLLOW", "PEEK_BEGIN", "PEEK_FOLLOW", "STORED"]


def _script(name: str, *shared: str) -> Script:
    return Script(name, "unkept", "stored", *shared, package=__name__.rpartition(".")[0])


STORED = _script("stored")
BEGIN, FOLLOW = (_script("restore", "time", gone, "joining") for gone in ("begins", "follows"))
PEEK_BEGIN, PEEK_FOLLOW = (_script("peek_restore", gone, "joining") for gone in ("begins", "follows"))
