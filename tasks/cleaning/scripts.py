"""The scripts of cleaning, see ``lua``: each with the shared parts that stand in front of it."""

from redis.exceptions import ResponseError

from chat.store.scripts import Script

__all__ = [
    "DUE_BY_AGE",
    "DUE_BY_SIZE",
    "EPOCH",
    "FORGET_CLIENTS",
    "NEXT_BY_AGE",
    "NEXT_BY_SIZE",
    "NOTE_RUN",
    "PEEK_BACKLOGS",
    "PEEK_CHANNELS",
    "PEEK_CLIENTS",
    "PEEK_OLD",
    "READ_BACKLOGS",
    "READ_CHANNELS",
    "READ_OLD",
    "RELEASE",
    "REMOVE_CHANNELS",
    "SURVEY_BY_AGE",
    "SURVEY_BY_SIZE",
    "TAKE",
    "TRIM_BACKLOGS",
    "TRIM_OLD",
    "is_of_data",
]


def is_of_data(reply: object) -> bool:
    """Whether it is an error in what is stored, as a key of another type: other shards and the chat may be fine.

    Errors of the server itself have classes of their own, below `ResponseError`.
    """
    return type(reply) is ResponseError


def _script(name: str, *shared: str) -> Script:
    return Script(name, *shared, package=__name__.rpartition(".")[0])


DUE_BY_AGE, DUE_BY_SIZE = _script("due", "time", "by_age"), _script("due", "by_size")
SURVEY_BY_AGE, SURVEY_BY_SIZE = _script("survey", "time", "by_age"), _script("survey", "time", "by_size")
NEXT_BY_AGE, NEXT_BY_SIZE = _script("next", "lease", "time", "by_age"), _script("next", "lease", "time", "by_size")

_LOOKING = ("errors", "numbers", "sound")
_TRIMMING = ("ids", "unkept", "account", "trims")
_REMOVING = (*_TRIMMING, "floor", "removals")

PEEK_CHANNELS = _script("peek_channels", "time", *_LOOKING, "idle")
READ_CHANNELS = _script("read_channels", "time", *_LOOKING, "idle", "slices")
REMOVE_CHANNELS = _script("remove_channels", "lease", "time", *_LOOKING, "idle", *_REMOVING)

PEEK_BACKLOGS = _script("peek_backlogs", *_LOOKING, "over_backlog")
READ_BACKLOGS = _script("read_backlogs", *_LOOKING, "over_backlog", "slices")
TRIM_BACKLOGS = _script("trim_backlogs", "lease", "time", *_LOOKING, "over_backlog", *_TRIMMING)
PEEK_OLD = _script("peek_backlogs", "time", *_LOOKING, "too_old")
READ_OLD = _script("read_backlogs", "time", *_LOOKING, "too_old", "slices")
TRIM_OLD = _script("trim_backlogs", "lease", "time", *_LOOKING, "too_old", *_TRIMMING)

_FORGETTING = ("expired", "ids", "unkept", "floor", "last_client", "forgetting")
PEEK_CLIENTS = _script("peek_clients", "time", "errors", "numbers")
FORGET_CLIENTS = _script("forget_clients", "lease", "time", "errors", "numbers", *_FORGETTING)

EPOCH = _script("epoch")
NOTE_RUN = _script("note_run", "time")
RELEASE = _script("release")
TAKE = _script("take")
