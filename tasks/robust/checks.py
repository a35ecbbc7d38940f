"""Checks at the start of worker and beat: an error of one line for what cannot work, a warning for what is risky."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.signals import beat_init, celeryd_after_setup, celeryd_init, worker_ready
from celery.utils.log import get_logger
from redis.exceptions import RedisError

from chat import InvalidArgumentError, SettingsError
from chat.settings import unknown_names
from chat.store.nodes import nodes
from tasks.archive.destinations import archive_at
from tasks.archive.folder import Folder
from tasks.functions import hook_at
from tasks.periodic import chat_redis
from tasks.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["try_destinations", "write_into"]

log = get_logger(__name__)


def try_destinations(**_: Any) -> None:
    """Refuse to start when the archive or the hook cannot work here, because then cleaning removes nothing.

    Beat needs both too, because it cleans in its own process while Redis is full.
    """
    settings = Settings.from_env()
    try:
        hook_at(settings.on_expire)
        archive = archive_at(settings.archive)
        if isinstance(archive, Folder):
            write_into(archive.path)
    except SettingsError as error:
        if isinstance(error.__cause__, RedisError):  # the module uses Redis when it is imported; outages end
            log.warning("not tried: %s", error)
            return
        message = f"pollchat: {error}"
        raise SystemExit(message) from None


def write_into(folder: Path) -> None:
    """Create the archive's folder if it is missing, and try to write there.

    Raises:
        SettingsError: the folder cannot be written.
    """
    try:
        Folder(folder).try_to_write()
    except (OSError, InvalidArgumentError) as error:
        message = f"CHAT_ARCHIVE is {str(folder)!r}, must be a folder that can be written here: {error}"
        raise SettingsError(message) from error


def _warn_of_names(**_: Any) -> None:
    """Warn of misspelt settings."""
    for line in unknown_names():
        log.warning("%s", line)


def _warn_of_eviction(**_: Any) -> None:
    """Warn if Redis may evict messages and queued tasks. A managed service may not tell its policy."""
    try:
        client, _settings = chat_redis()
        policies = {node.info("memory").get("maxmemory_policy", "") for node in nodes(client)}
    except RedisError:
        return
    for policy in policies - {"", "noeviction"}:
        log.warning(
            "maxmemory-policy is %s: when Redis is full it evicts tasks and messages; set it to noeviction", policy
        )


celeryd_init.connect(try_destinations)
celeryd_after_setup.connect(_warn_of_names)
worker_ready.connect(_warn_of_eviction)
for check in (try_destinations, _warn_of_names, _warn_of_eviction):
    beat_init.connect(check)
