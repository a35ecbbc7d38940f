"""The scripts of cleaning, see ``lua``."""

from chat.store.scripts import Script

__all__ = ["DUE", "EPOCH", "FORGET_CLIENTS", "NOTE_RUN", "RELEASE", "REMOVE_CHANNELS", "TRIM_BACKLOGS"]

PACKAGE = __name__.rpartition(".")[0]

DUE = Script("due", package=PACKAGE)
EPOCH = Script("epoch", package=PACKAGE)
FORGET_CLIENTS = Script("forget_clients", package=PACKAGE)
NOTE_RUN = Script("note_run", package=PACKAGE)
RELEASE = Script("release", package=PACKAGE)
REMOVE_CHANNELS = Script("remove_channels", package=PACKAGE)
TRIM_BACKLOGS = Script("trim_backlogs", package=PACKAGE)
