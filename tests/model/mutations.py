"""What the scripts do for a promise, taken away one at a time. A search must find which promise is broken then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chat.store import scripts as chatting
from tasks.cleaning import scripts as cleaning

if TYPE_CHECKING:
    from chat.store.scripts import Script

SEND, CHECK, LEAVE = (chatting.SEND,), (chatting.CHECK,), (chatting.LEAVE,)
REMOVE, FORGET = (cleaning.REMOVE_CHANNELS,), (cleaning.FORGET_CLIENTS,)
TRIM, TRIM_OLD = (cleaning.TRIM_BACKLOGS,), (cleaning.TRIM_OLD,)
NEXT = (cleaning.NEXT_BY_AGE, cleaning.NEXT_BY_SIZE)


@dataclass(frozen=True)
class Mutation:
    """A protection that is taken away.

    Attributes:
        name: what is taken away.
        of: the scripts, of which each has the text once.
        text: of the protection.
        instead: what stands there then.
        model: where that is seen.
        breaks: the promise that is broken.
    """

    name: str
    of: tuple[Script, ...]
    text: str
    instead: str = ""
    model: str = ""
    breaks: str = ""

    def __call__(self, source: str) -> str:
        """Return the text of a script without the protection, if it is one of these."""
        if source not in {script.source for script in self.of}:
            return source
        if source.count(self.text) != 1:
            problem = f"{self.name}: {self.text!r} stands {source.count(self.text)} times in a script, must be once"
            raise LookupError(problem)
        return source.replace(self.text, self.instead)


M = Mutation
MUTATIONS = (
    # send
    M("a repeated token is not looked up", SEND, "if sent then return sent end"),
    M("a token is not noted", SEND, "local id = base + size\nnote_token(token, id, digest, dedupe_ms)", "local id = base + size"),
    M("only one hash of tokens is read", SEND, "first[1] or second[1]", "first[1]"),
    M("a hash of tokens ends a window early", SEND, "(number + 2) * dedupe_ms", "(number + 1) * dedupe_ms"),
    M("a hash of tokens has no end", SEND, "redis.call('PEXPIREAT', KEYS[i], moment)"),
    M("the last hash is not prolonged", SEND, "set_end(last, ends[other] + dedupe_ms, ends[other] + dedupe_ms - now_ms)"),
    M("tokens of a wrong clock live on", SEND, "ends[last] > now_ms + AHEAD_MS then", "false then"),
    M("the digest is not stored", SEND, "(digest ~= '' and ':' .. digest or '')", "''"),
    M("the digest is not returned", SEND, "sent_ms > 0 and sent_ms or now_ms, digest }", "sent_ms > 0 and sent_ms or now_ms }"),
    M("the log is not capped", SEND, "redis.call('LTRIM', log, excess, -1)"),
    M("a capped message is not counted", SEND, "count_removed(trimmed, meta, channel, base, excess)", "base + excess"),
    M("a send leaves a wrong size", SEND, "if size ~= known_size then redis.call('ZADD', sizes, size, channel) end"),
    M("a sent message is not counted", SEND, "redis.call('HINCRBY', meta, 'sent', 1)"),
    M("a first message is not noted as oldest", SEND, "if size == 1 then redis.call('ZADD', heads, sent_ms, channel) end"),
    M("a clock that stepped back is believed", SEND, "sent_ms = credible(updated_ms)", "sent_ms = now_ms"),
    M("a stamp of a wrong clock stays", SEND, "if sent_ms < updated_ms then redis.call('ZADD', updated, sent_ms, channel) end"),
    M("ids begin below the floor", SEND, "or tonumber(floor or 0)", "or 0"),
    M("traces of lost ids are not seen in sizes and polled", SEND, "traces or size > 1", "size > 1"),
    M("traces of lost ids are not seen in the log", SEND, "traces or size > 1", "traces"),
    M("ids after a loss do not jump", SEND, "return math.max(tonumber(floor or 0), now_ms)", "return tonumber(floor or 0)"),
    M("a lost log is not counted by a send", SEND, "elseif known_size > size then", "elseif false then"),
    # check
    M("a repeated check is not known", CHECK, "if last_token == token then", "if false then"),
    M("a repeated check gives what came since", CHECK, "math.min(math.max(from, base), last)\n", "last\n"),
    M("a cursor is not read", CHECK, "elseif cursor ~= '' and", "elseif false and"),
    M("a cursor of another epoch is believed", CHECK, "of_epoch == epoch and after <= last", "after <= last"),
    M("a cursor from beyond the log is believed", CHECK, "of_epoch == epoch and after <= last", "of_epoch == epoch"),
    M("the epoch is not kept", CHECK, "redis.call('HSET', meta, 'epoch', epoch)"),
    M("a position from before lost ids is believed", CHECK, " or base - from > FORGOTTEN", ""),
    M("a position beyond the log is believed", CHECK, " or from > last", ""),
    M("history is not given", CHECK, "last - math.min(history, size)", "last"),
    M("missed is not counted", CHECK, "local missed = math.max(base - from, 0)", "local missed = 0"),
    M("a limit does not hold", CHECK, "if limit > 0 then stop = math.min(stop, first + limit) end"),
    M("more is not told", CHECK, "stop < last and 1 or 0", "0"),
    M("clients are not counted", CHECK, "if not state then redis.call('HINCRBY', meta, 'clients', 1) end"),
    M("a position is not kept", CHECK, "if stop ~= tonumber(position) then", "if false then"),
    M("a check is not seen", CHECK, "redis.call('ZADD', seen, now_ms, client)"),
    M("a channel with clients is not noted", CHECK, "redis.call('ZADD', polled, 'NX', now_ms, ARGV[6])"),
    M("a check makes the oldest one younger", CHECK, "redis.call('ZADD', polled, 'NX', now_ms, ARGV[6])", "redis.call('ZADD', polled, now_ms, ARGV[6])"),
    M("several channels with clients are not noted", CHECK, "redis.call('ZADD', polled, 'NX', unpack(polls))"),
    M("lost ids are not seen by a check", CHECK, "local traces = size > 0 or redis.call('EXISTS', seen, read) > 0 or redis.call('ZSCORE', updated, channel)", "local traces = false"),
    M("a lost log is not seen by a check", CHECK, "if lost > 0 then", "if false then"),
    M("a lost log leaves a wrong size", CHECK, "redis.call('ZADD', sizes, 0, channel)"),
    M("a lost index is not put back", CHECK, "if size > 0 then mend_index(log, channel, size) end"),
    # leave
    M("leaving does not raise the floor", LEAVE, "if last > floor then redis.call('HSET', meta, 'floor', last) end"),
    M("leaving keeps the ids of a channel that is gone", LEAVE, "redis.call('HDEL', trimmed, channel)"),
    M("leaving takes the ids of any channel", LEAVE, "if redis.call('EXISTS', log) == 0 and not redis.call('ZSCORE', updated, channel) then", "if true then"),
    M("leaving takes the ids of an empty channel", LEAVE, "if redis.call('EXISTS', log) == 0 and not redis.call('ZSCORE', updated, channel) then", "if redis.call('EXISTS', log) == 0 then"),
    M("leaving keeps the position", LEAVE, "redis.call('UNLINK', seen, read)"),
    M("leaving keeps the channel among those with clients", LEAVE, "redis.call('ZREM', polled, channel)"),
    M("leaving is not counted", LEAVE, "if count > 0 then redis.call('HINCRBY', meta, 'clients', -count) end"),
    M("leaving takes the others along", LEAVE, "if other_ms then", "if false then"),
    # removing channels
    M("channels go without the lease", REMOVE, "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {} end"),
    M("the lease is not renewed", REMOVE, "redis.call('PEXPIRE', KEYS[1], ARGV[2])"),
    M("a channel that was sent to goes", REMOVE, "if updated_ms and now_ms - updated_ms >= timeout then", "if updated_ms then"),
    M("the ids of a channel with clients go", REMOVE, "if connected then", "if false then"),
    M("the ids of a channel without clients stay", REMOVE, "if connected then", "if true then"),
    M("a removed channel lowers the floor", REMOVE, "floor = math.max(floor, last)", "floor = last"),
    M("a removed channel does not raise the floor", REMOVE, "if floor > floor_before then redis.call('HSET', KEYS[2], 'floor', floor) end"),
    M("more of a channel goes than was archived", REMOVE, "if handed and handed < base + size then", "if false then"),
    M("what went without an archive is not noted", REMOVE, "if traceless or stored > (handed and size or 0) then unkept = math.max(unkept, base + stored) end"),
    M("removed messages are not counted", REMOVE, "if removed > 0 then redis.call('HINCRBY', meta, 'removed', removed) end"),
    M("a removed channel stays in updated", REMOVE, "redis.call('ZREM', updated, unpack(gone))"),
    M("a removed channel stays in sizes", REMOVE, "redis.call('ZREM', sizes, unpack(gone))"),
    M("the log of a removed channel stays", REMOVE, "redis.call('UNLINK', unpack(unlinked))"),
    M("an empty shard is not counted as empty", REMOVE, "if redis.call('EXISTS', sizes) == 0 then", "if false then"),
    M("a lost log is not counted by a removal", REMOVE, "math.max(size, known_size or 0)", "size"),
    M("lost ids are not made anew by a removal", REMOVE, "known_base or above_all(floor)", "known_base or 0"),
    # trimming
    M("messages go without the lease", TRIM, "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {} end"),
    M("more of a backlog goes than was archived", TRIM, "if handed then drop = math.max(0, math.min(drop, handed - base)) end"),
    M("more than the backlog goes", TRIM, "return math.max(size - backlog, 0), 0", "return size, 0"),
    M("young messages go", TRIM_OLD, "return now_ms - stamp >= message_timeout", "return true"),
    M("trimmed messages are not counted", TRIM, "if messages + lost > 0 then redis.call('HINCRBY', meta, 'removed', messages + lost) end"),
    M("a trim leaves a wrong size", TRIM, "set_size(channel, size - drop)"),
    M("a trim leaves the oldest message", TRIM, "if #oldest > 0 then redis.call('ZADD', heads, unpack(oldest)) end"),
    M("an emptied channel stays in heads", TRIM, "if #headless > 0 then redis.call('ZREM', heads, unpack(headless)) end"),
    M("a trim does not move the ids", TRIM, "if #bases > 0 then redis.call('HSET', trimmed, unpack(bases)) end"),
    M("an emptied channel without an archive is not noted", TRIM, "if unkept > 0 then note_unkept(meta, unkept) end"),
    M("a lost log is not counted by a trim", TRIM, "local gone = math.max((known_size or 0) - size, 0)", "local gone = 0"),
    M("a channel that was removed comes back", TRIM, "if size == 0 and not known_size then", "if false then"),
    # forgetting
    M("clients go without the lease", FORGET, "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {} end"),
    M("a client that checked goes", FORGET, "if now_ms - checked_ms >= timeout and", "if"),
    M("ids of an empty channel go with its last client", FORGET, "if not updated_ms and redis.call('EXISTS', log) == 0 then", "if redis.call('EXISTS', log) == 0 then"),
    M("ids of any channel go with its last client", FORGET, "if not updated_ms and redis.call('EXISTS', log) == 0 then", "if true then"),
    M("ids of a channel that is gone stay", FORGET, "if not updated_ms and redis.call('EXISTS', log) == 0 then", "if false then"),
    M("forgotten clients are not counted", FORGET, "count_forgotten(meta, polled, clients + orphans)"),
    M("clients whose presence was lost are not counted", FORGET, "count_forgotten(meta, polled, clients + orphans)", "count_forgotten(meta, polled, clients)"),
    M("the oldest check is not corrected", FORGET, "if #oldest > 0 then redis.call('ZADD', polled, unpack(oldest)) end"),
    M("a lost presence hides a channel's ids", FORGET, "last_id(last, positions > 0 or #gone > 0 or polled_ms, floor)", "last or 0"),
    # leases, epoch
    M("the lease is not given back", NEXT, "if due == 0 then redis.call('DEL', lease) end"),
    M("the lease of another is taken", (cleaning.TAKE,), "'NX', "),
    M("the lease of another is given back", (cleaning.RELEASE,), "if redis.call('GET', lease) == owner then redis.call('DEL', lease) end", "redis.call('DEL', lease)"),
    M("next names without the lease", NEXT, "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {} end"),
    M("an archive makes a new epoch", (cleaning.EPOCH,), "'HSETNX'", "'HSET'"),
    M("times of a wrong clock stay in the indexes", (cleaning.SURVEY_BY_AGE, *NEXT[:1]), "correct_times(index)\nlocal", "local"),
)  # fmt: skip
