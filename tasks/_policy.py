"""A word at the start where Redis may throw away what it should keep."""

from __future__ import annotations

from typing import Any

from celery.signals import beat_init, worker_ready
from celery.utils.log import get_logger
from redis.exceptions import RedisError

from chat.connection import nodes
from tasks.cleaning import chat_redis

log = get_logger(__name__)


def warn(**_: Any) -> None:
    """Say it when the eviction policy takes queued tasks and messages. Managed services may not tell: no word then."""
    try:
        client, _settings = chat_redis()
        policies = {node.config_get("maxmemory-policy").get("maxmemory-policy", "") for node in nodes(client)}
    except RedisError:
        return
    for policy in policies - {"", "noeviction"}:
        log.warning(
            "maxmemory-policy is %s: when Redis is full it evicts tasks and messages; set it to noeviction", policy
        )


worker_ready.connect(warn)
beat_init.connect(warn)
