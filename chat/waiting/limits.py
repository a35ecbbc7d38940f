"""How many calls go to Redis at a time, so that neither waiters nor threads exhaust a client's pool."""

from __future__ import annotations

from typing import Any

__all__ = ["CLOSING", "PATIENCE", "connections_of", "share_of_waiters"]

CONNECTIONS = 96  # of the 100 of redis-py's pool; the others are for subscriptions
PATIENCE = 5  # seconds that a call waits for a free connection
CLOSING = 1  # seconds that calls under way may take to end once the chat is closed


def connections_of(client: Any) -> int:
    """Return how many calls a client's pool can serve at a time."""
    most = getattr(getattr(client, "connection_pool", None), "max_connections", None)
    if not isinstance(most, int):  # a cluster's client, with a pool for each server; or a wrapper
        return CONNECTIONS
    return max(1, min(CONNECTIONS, most - 2))


def share_of_waiters(client: Any) -> int:
    """Return how many of these may be checks of waiters, so that other calls do not queue behind them."""
    return max(1, connections_of(client) // 3)
