"""Where a client goes on after it lost its place: centrifuge's recovery table, and what message_bus met."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from lab import Lab, bodies, keys
from servers import eventually

from tasks import cleaning

if TYPE_CHECKING:
    from redis import Redis

pytestmark = [pytest.mark.on_cluster, pytest.mark.on_asyncio]


@pytest.fixture
def lab(redis: Redis) -> Lab:
    return Lab(redis, backlog=5, hard_backlog=5)


def forget(lab: Lab, client: str, channel: str) -> None:
    lab.away(client, channel, 1000)
    assert cleaning.clean_clients(lab.redis, settings=lab.settings).clients >= 1


def remove(lab: Lab, channel: str) -> None:
    lab.idle(channel, 1000)
    assert cleaning.clean_channels(lab.redis, settings=lab.settings).channels == 1


@pytest.mark.parametrize("checked", [False, True])
def test_an_emptied_channel_that_lost_its_ids_goes_on_above_them(lab: Lab, *, checked: bool) -> None:
    lab.check("bob", "lobby")
    lab.send_all("lobby", 3)
    cursor = lab.check("bob", "lobby").cursor
    lab.chat.leave_channel("bob", "lobby")
    cleaning.clean_backlog(lab.redis, backlog=0, settings=lab.settings)
    lab.redis.hdel(lab.key("lobby", "trimmed"), "lobby")
    if checked:
        lab.check("carol", "lobby")
    sent = lab.send_all("lobby", 4, start=6)
    check = lab.check("bob", "lobby", after=cursor)
    assert bodies(check) == sent
    assert check.messages[0].id > 3


def test_an_empty_log_from_its_own_position_is_caught_up(lab: Lab) -> None:
    cursor = lab.check("bob", "lobby").cursor
    check = lab.check("bob", "lobby", after=cursor)
    assert (check.new, check.missed, bodies(check), check.cursor) == (False, 0, [], cursor)


def test_from_a_position_the_client_gets_what_came_after(lab: Lab) -> None:
    lab.send_all("lobby", 2)
    cursor = lab.check("bob", "lobby").cursor
    lab.send_all("lobby", 2, start=3)
    assert bodies(lab.check("bob", "lobby", after=cursor)) == ["m3", "m4"]


def test_from_a_position_with_a_limit_the_rest_is_waiting(lab: Lab) -> None:
    cursor = lab.check("bob", "lobby").cursor
    lab.send_all("lobby", 4)
    check = lab.check("bob", "lobby", after=cursor, limit=3)
    assert (bodies(check), check.more) == (["m1", "m2", "m3"], True)
    assert bodies(lab.check("bob", "lobby", after=check.cursor, limit=3)) == ["m4"]


def test_from_a_position_already_trimmed_the_loss_is_counted(lab: Lab) -> None:
    cursor = lab.check("bob", "lobby").cursor
    lab.send_all("lobby", 8)
    check = lab.check("bob", "lobby", after=cursor)
    assert (check.new, check.missed, bodies(check)) == (False, 3, ["m4", "m5", "m6", "m7", "m8"])


def test_from_a_position_that_does_not_exist_yet_the_client_gets_all_as_new(lab: Lab) -> None:
    lab.send_all("lobby", 2)
    epoch_and_channel = lab.check("bob", "lobby").cursor.rpartition("-")[0]
    check = lab.check("bob", "lobby", after=f"{epoch_and_channel}-99")
    assert (check.new, bodies(check)) == (True, ["m1", "m2"])


def snapshot(lab: Lab) -> dict[bytes, tuple[int, bytes]]:
    return {key: (max(0, lab.redis.pttl(key)), lab.redis.dump(key)) for key in keys(lab.redis)}


def restore(lab: Lab, saved: dict[bytes, tuple[int, bytes]]) -> None:
    lab.redis.flushdb()
    for key, (ttl, value) in saved.items():
        lab.redis.restore(key, ttl, value)


@pytest.mark.parametrize("sent_since", [0, 1, 2, 4])
@pytest.mark.parametrize("read_last", [True, False])
def test_a_cursor_from_after_an_old_snapshot_is_never_taken_for_caught_up(
    lab: Lab, sent_since: int, *, read_last: bool
) -> None:
    lab.check("bob", "lobby")
    lab.send_all("lobby", 1)
    saved = snapshot(lab)
    lab.send_all("lobby", 2, start=2)
    cursor = lab.check("bob", "lobby").cursor
    if read_last:
        cursor = lab.check("bob", "lobby").cursor  # nothing new: it still knows what it read last
    restore(lab, saved)
    lab.idle("lobby", -1)  # another moment
    sent = [lab.send("lobby", f"other {number}").body for number in range(sent_since)]
    check = lab.check("bob", "lobby", after=cursor)
    assert (check.new, bodies(check)) == (True, (["m1", *sent])[-5:])


def test_the_same_position_with_nothing_new_is_caught_up(lab: Lab) -> None:
    lab.send_all("lobby", 2)
    cursor = lab.check("bob", "lobby").cursor
    check = lab.check("bob", "lobby", after=cursor)
    assert (check.new, check.missed, bodies(check)) == (False, 0, [])


def test_a_cursor_of_a_lost_history_is_never_taken_for_caught_up(lab: Lab) -> None:
    lab.send_all("lobby", 3)
    cursor = lab.check("bob", "lobby").cursor
    lab.redis.flushdb()
    lab.send_all("lobby", 3)
    check = lab.check("bob", "lobby", after=cursor)
    assert (check.new, bodies(check)) == (True, ["m1", "m2", "m3"])


def test_a_flush_between_any_two_calls_is_survived(lab: Lab) -> None:
    calls = [
        lambda: lab.send("lobby", "x").id == 1,
        lambda: lab.check("bob", "lobby").new,
        lambda: cleaning.clean_channels(lab.redis, settings=lab.settings).completed,
        lambda: cleaning.clean_backlog(lab.redis, settings=lab.settings, message_timeout=1).completed,
        lambda: cleaning.clean_clients(lab.redis, settings=lab.settings).completed,
    ]
    for first in calls:
        for second in calls:
            lab.redis.flushall()
            assert first()
            lab.redis.flushall()
            assert second()


def test_a_cursor_of_another_channel_is_a_foreign_history(lab: Lab) -> None:
    same_shard = next(
        f"c{number}" for number in range(999) if lab.key(f"c{number}", "meta") == lab.key("lobby", "meta")
    )
    lab.send_all("lobby", 3)
    lab.send_all(same_shard, 3)
    cursor = lab.check("bob", "lobby").cursor
    check = lab.check("bob", same_shard, after=cursor)
    assert (check.new, bodies(check)) == (True, ["m1", "m2", "m3"])


def test_an_expired_client_that_comes_back_with_its_cursor_misses_nothing(lab: Lab) -> None:
    cursor = lab.check("bob", "lobby").cursor
    lab.send_all("lobby", 2)
    forget(lab, "bob", "lobby")
    check = lab.check("bob", "lobby", after=cursor)
    assert (check.new, check.missed, bodies(check)) == (False, 0, ["m1", "m2"])


def test_an_expired_client_without_a_cursor_is_new(lab: Lab) -> None:
    lab.check("bob", "lobby")
    lab.send_all("lobby", 2)
    forget(lab, "bob", "lobby")
    assert lab.check("bob", "lobby").new


@pytest.mark.parametrize("new_messages", [0, 2])
def test_a_removed_channel_counts_what_its_client_had_not_read(lab: Lab, new_messages: int) -> None:
    lab.send_all("lobby", 2)
    cursor = lab.check("bob", "lobby").cursor
    lab.send_all("lobby", 3, start=3)
    remove(lab, "lobby")
    sent = lab.send_all("lobby", new_messages, start=6)
    check = lab.check("bob", "lobby", after=cursor)
    assert (check.new, check.missed, bodies(check)) == (False, 3, sent)


def test_ids_go_on_in_a_channels_next_life_and_connected_clients_get_its_messages(lab: Lab) -> None:
    lab.check("bob", "lobby")
    lab.send_all("lobby", 3)
    lab.check("bob", "lobby")
    remove(lab, "lobby")
    assert lab.send("lobby", "again").id == 4
    check = lab.check("bob", "lobby")
    assert (check.new, check.missed, bodies(check)) == (False, 0, ["again"])


def test_ids_go_on_even_when_nothing_of_the_channel_stayed(lab: Lab) -> None:
    cursor = lab.check("bob", "lobby").cursor
    lab.send_all("lobby", 3)
    remove(lab, "lobby")
    forget(lab, "bob", "lobby")
    assert not lab.traces("lobby")
    assert lab.send("lobby", "again").id == 4
    check = lab.check("bob", "lobby", after=cursor)
    assert (check.new, bodies(check)) == (False, ["again"])
    assert check.missed >= 3


def test_a_client_that_waits_on_a_channel_not_begun_is_not_told_of_others_ids(lab: Lab) -> None:
    lab.check("bob", "quiet")
    busy = next(f"c{number}" for number in range(999) if lab.key(f"c{number}", "meta") == lab.key("quiet", "meta"))
    lab.send_all(busy, 9)
    remove(lab, busy)
    lab.send("quiet", "hello")
    check = lab.check("bob", "quiet")
    assert (check.new, check.missed, bodies(check)) == (False, 0, ["hello"])


def test_a_log_lost_alone_goes_on_with_the_next_id_and_counts_as_missed(lab: Lab) -> None:
    lab.check("bob", "lobby")
    lab.send_all("lobby", 3)
    lab.redis.delete(lab.key("lobby", "log:"))
    assert lab.send("lobby", "again").id == 4
    check = lab.check("bob", "lobby")
    assert (check.new, check.missed, bodies(check)) == (False, 3, ["again"])


def test_a_log_lost_alone_is_noticed_by_a_check_too(lab: Lab) -> None:
    lab.check("bob", "lobby")
    lab.send_all("lobby", 3)
    lab.redis.delete(lab.key("lobby", "log:"))
    assert lab.check("bob", "lobby").missed == 3
    assert lab.send("lobby", "again").id == 4
    assert bodies(lab.check("bob", "lobby")) == ["again"]


@pytest.mark.parametrize("name", ["sizes", "updated", "heads", "polled"])
def test_an_index_lost_alone_loses_no_message(lab: Lab, name: str) -> None:
    lab.check("bob", "lobby")
    lab.send_all("lobby", 2)
    lab.redis.delete(lab.key("lobby", name))
    assert lab.send("lobby", "m3").id == 3
    check = lab.check("bob", "lobby")
    assert (check.new, check.missed, bodies(check)) == (False, 0, ["m1", "m2", "m3"])
    assert lab.traces("lobby").get(name) is not None or name == "heads"


@pytest.mark.parametrize("name", ["sizes", "updated", "heads", "polled"])
@pytest.mark.parametrize("many", [False, True])
def test_checks_put_an_index_right_that_was_lost_alone(lab: Lab, name: str, *, many: bool) -> None:
    lab.check("bob", "lobby")
    lab.send_all("lobby", 2)
    lab.idle("lobby", 500)
    before = lab.traces("lobby")
    lab.redis.delete(lab.key("lobby", name))

    def mended() -> Any:
        lab.chat.check_many("bob", ["lobby", "a", "b"]) if many else lab.check("bob", "lobby")
        return lab.traces("lobby").get(name)

    eventually(mended)
    after = lab.traces("lobby")
    assert after.keys() == before.keys()
    if name == "updated":
        assert after[name] == before[name] + 500_000  # when its newest message was sent
    elif name != "polled":
        assert after[name] == before[name]


def test_a_channel_whose_stamp_was_lost_is_removed_when_its_clients_go_on_checking(lab: Lab) -> None:
    lab.check("bob", "lobby")
    lab.send("lobby", "x")
    lab.redis.delete(lab.key("lobby", "updated"))
    lab.aged("lobby", 1000)
    eventually(lambda: [lab.check("bob", "lobby")] and lab.traces("lobby").get("updated"))
    assert cleaning.clean_channels(lab.redis, settings=lab.settings).channels == 1


def test_a_channel_whose_stamp_was_lost_stays_sorted_when_the_clock_stepped_back(lab: Lab) -> None:
    lab.send("lobby", "x")
    lab.aged("lobby", -1800)  # that message came from a clock half an hour ahead
    lab.redis.delete(lab.key("lobby", "updated"))
    (first,) = lab.check("bob", "lobby", history=1)
    eventually(lambda: [lab.check("bob", "lobby")] and lab.traces("lobby").get("updated"))
    assert lab.send("lobby", "y").sent_at >= first.sent_at


def test_an_entry_that_is_none_of_ours_makes_no_channel_idle(lab: Lab) -> None:
    lab.check("bob", "lobby")
    lab.send("lobby", "x")
    lab.redis.rpush(lab.key("lobby", "log:"), "junk")
    lab.redis.delete(lab.key("lobby", "updated"))

    def mended() -> Any:
        with suppress(ValueError):
            lab.check("bob", "lobby")
        return lab.traces("lobby").get("updated")

    eventually(mended)
    assert cleaning.clean_channels(lab.redis, settings=lab.settings).channels == 0


@pytest.mark.parametrize("first", ["send", "check"])
def test_ids_lost_alone_jump_above_every_id_and_clients_are_new(lab: Lab, first: str) -> None:
    lab.check("bob", "lobby")
    lab.send_all("lobby", 3)
    cursor = lab.check("eve", "lobby").cursor
    lab.redis.delete(lab.key("lobby", "trimmed"))
    if first == "send":
        assert lab.send("lobby", "m4").id > 10**12
    check = lab.check("bob", "lobby")
    assert (check.new, bodies(check)[:3]) == (True, ["m1", "m2", "m3"])
    assert lab.check("eve", "lobby", after=cursor).new
    assert lab.send("lobby", "m5").id > 10**12
    assert bodies(lab.check("bob", "lobby")) == ["m5"]


@pytest.mark.parametrize("lost_too", ["log:", "removed"])
def test_ids_lost_together_with_the_messages_jump_all_the_same(lab: Lab, lost_too: str) -> None:
    if lost_too == "removed":
        lab.check("bob", "lobby")
    lab.send_all("lobby", 3)
    if lost_too == "removed":
        remove(lab, "lobby")
    lab.redis.delete(lab.key("lobby", "trimmed"), lab.key("lobby", "log:"))
    assert lab.send("lobby", "again").id > 10**12


@pytest.mark.parametrize("name", ["read:", "meta"])
def test_positions_lost_alone_are_reported_as_new(lab: Lab, name: str) -> None:
    cursor = lab.check("bob", "lobby").cursor
    lab.send_all("lobby", 3)
    lab.redis.delete(lab.key("lobby", name))
    assert lab.check("bob", "lobby", after=cursor if name == "meta" else None).new
    assert lab.send("lobby", "m4").id == 4
    assert bodies(lab.check("bob", "lobby")) == ["m4"]


def test_a_clock_that_was_far_ahead_leaves_no_channel_that_is_never_idle(lab: Lab) -> None:
    lab.send("lobby", "x")
    lab.idle("lobby", -365 * 86400)  # that message came from a clock a year ahead
    before = lab.traces("lobby")
    assert cleaning.clean_channels(lab.redis, settings=lab.settings, dry_run=True).channels == 0
    assert lab.traces("lobby") == before
    assert cleaning.clean_channels(lab.redis, settings=lab.settings).channels == 0
    lab.idle("lobby", 1000)
    assert cleaning.clean_channels(lab.redis, settings=lab.settings).channels == 1


def test_a_client_that_checked_by_a_clock_far_ahead_does_not_keep_others_from_expiring(lab: Lab) -> None:
    lab.check("bob", "lobby")
    lab.redis.zadd(lab.key("lobby", "polled"), {"lobby": 4e12})  # by a clock decades ahead, as that check once was
    lab.redis.zincrby(lab.key("lobby", "seen:"), -1_000_000, "bob")
    assert cleaning.clean_clients(lab.redis, settings=lab.settings).clients == 0
    lab.redis.zincrby(lab.key("lobby", "polled"), -1_000_000, "lobby")
    assert cleaning.clean_clients(lab.redis, settings=lab.settings).clients == 1


def test_presence_lost_alone_costs_nothing(lab: Lab) -> None:
    lab.check("bob", "lobby")
    lab.send("lobby", "m1")
    lab.redis.delete(lab.key("lobby", "seen:"))
    check = lab.check("bob", "lobby")
    assert (check.new, bodies(check)) == (False, ["m1"])
