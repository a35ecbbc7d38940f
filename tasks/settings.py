"""Every setting of the daemon."""

from chat.settings import QUEUE, Settings, unknown_names

__all__ = ["QUEUE", "Settings", "unknown_names"]
