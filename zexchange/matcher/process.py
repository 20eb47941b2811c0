"""The matcher process: one shard, one thread, one batch in flight.

    ingress workers ==ipc==> ROUTER -> MatcherLoop -> store ... reply -> releases -> ROUTER ==ipc==> ingress
    workers

On a machine with few cores the same thread also runs an ingress worker, as a `Companion`: it hands its messages
over by a call, and an order wakes one process less on its way in and one less on its way out. Everything the
process decides is in `MatcherCore`, `recover` and `LogWriter`; this shell owns the sockets, the clock and the
lock.
"""

from __future__ import annotations

import fcntl
import gc
import logging
import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from zexchange.log.stream import StoreRefused, StoreUnavailable, StreamClient, one_connection
from zexchange.log.writer import Fenced, LogEmpty, LogWriter, Retry
from zexchange.matcher.appender import Appender
from zexchange.matcher.core import MatcherCore
from zexchange.matcher.loop import MatcherLoop, RouterSocket
from zexchange.matcher.recovery import LogUnusable, recover
from zexchange.runtime.process import EXIT_FENCED, EXIT_STORE, ProcessContext, Refused, process_context
from zexchange.runtime.reactor import Reactor
from zexchange.runtime.store import check_store, durability, open_store


class _Stopping(Exception):
    """Asked to stop while waiting for the store."""


class Companion(Protocol):
    """An ingress worker in the matcher's own thread. `gateway` provides it; this package knows no more of it."""

    def wait_ms(self, now_ms: int) -> int:
        """How long it has nothing to do if nothing arrives; 0 if it has something at once."""

    def poll(self, wait_ms: int, *, accept: bool) -> None:
        """In place of `Reactor.poll`; batches may be begun if `accept`."""

    def turn(self) -> None:
        """Do what is to be done, after the handlers were called."""


MakeCompanion = Callable[[ProcessContext, Reactor, MatcherLoop, int], AbstractContextManager[Companion]]
"""From context, reactor, loop and shard; ends all sessions at the end of the context."""


def run(
    shard: int,
    data: Path,
    config_file: Path | None,
    overrides: dict[str, str],
    make_companion: MakeCompanion | None = None,
) -> None:
    """Run the matcher of one shard until it is asked to stop, with the companion if one is to be made.

    Raises SystemExit with the reason's exit status.
    """
    with process_context(f"matcher-{shard}", data, config_file, overrides) as context:
        if not 0 <= shard < context.genesis.shards:
            raise Refused(f"shard {shard}: the genesis file has the shards 0 to {context.genesis.shards - 1}")
        try:
            _run(context, shard, make_companion)
        except _Stopping:
            pass
        except Fenced as error:
            _leave(context.log, EXIT_FENCED, str(error))
        except (StoreUnavailable, StoreRefused) as error:
            _leave(context.log, EXIT_STORE, f"the store does not take the log: {error}")
        except (LogEmpty, LogUnusable) as error:
            raise Refused(str(error)) from error


def _leave(log: logging.Logger, status: int, message: str) -> None:
    log.error(message)
    print(message, file=sys.stderr, flush=True)
    raise SystemExit(status)


def _run(context: ProcessContext, shard: int, make_companion: MakeCompanion | None) -> None:
    with _lock(context.paths.lock(f"matcher-{shard}"), shard):
        core, writer, client = _take_over(context, shard)
        opening = core.open_epoch(time.time_ns())
        writer.append(opening.first_record_no, opening.raw)
        context.paths.init_token(shard).unlink(missing_ok=True)
        with ExitStack() as cleanup:
            times = context.times
            if times is not None:
                cleanup.callback(times.write, context.paths.stages(context.name), context.name)
            reactor = Reactor()
            cleanup.callback(reactor.close)
            reactor.watch(context.stop_fd, lambda _events: None)
            router = RouterSocket(context.paths.matcher_address(shard))
            cleanup.callback(router.close)
            max_queued = context.config.matcher.max_queued_frames
            loop = MatcherLoop(core, reactor, router, max_queued, context.log, context.figures, times)
            appender = Appender(reactor, writer, client, context.config.store.timeout_ms, loop.landed)
            cleanup.callback(appender.close)
            loop.append_with(appender)
            companion = None
            if make_companion is not None:
                companion = cleanup.enter_context(make_companion(context, reactor, loop, shard))
            else:
                context.ready(shard=shard, epoch=writer.epoch)
            _serve(context, loop, reactor, companion)


@contextmanager
def _lock(path: Path, shard: int) -> Iterator[None]:
    """At most one matcher of a shard on this machine; the lock goes with the process, however it ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Refused(f"another matcher of shard {shard} is running on this data folder") from None
    try:
        yield
    finally:
        os.close(descriptor)


def _take_over(context: ProcessContext, shard: int) -> tuple[MatcherCore, LogWriter, StreamClient]:
    from zexchange.engine import Engine

    check_store(context.paths, context.config)
    client = one_connection(open_store(context.paths, context.config))
    writer = LogWriter(client, shard, _retry(context))
    token = context.paths.init_token(shard)
    try:
        marker = writer.take_over(allow_empty=token.exists())
    except LogEmpty as error:
        raise LogEmpty(
            f"{error}: an empty log is accepted only once, after `zexchange init` has left {token}; "
            "this is another store, or its files are gone"
        ) from None
    started_ns = time.monotonic_ns()
    try:
        recovered = recover(
            context.paths,
            context.genesis,
            shard,
            Engine,
            client,
            marker,
            ready_orders=context.config.matcher.ready_orders,
            stopping=lambda: context.stopping,
        )
    except InterruptedError:
        raise _Stopping from None
    if recovered.state.epoch == 0 and not token.exists():
        raise LogUnusable(f"shard {shard}: the log holds no record, and nothing allows to begin a new one")
    context.log.info(
        "recovered",
        extra={
            "zx": {
                "epoch": writer.epoch,
                "next_record_no": recovered.state.next_record_no,
                "replayed": recovered.replayed,
                "ms": (time.monotonic_ns() - started_ns) // 1_000_000,
            }
        },
    )
    core = MatcherCore(
        recovered.engine,
        recovered.state,
        writer.epoch,
        recovered.trades,
        accounts_max=context.genesis.limits.max_accounts,
        durability=durability(context.config),
        max_batch_bytes=context.config.matcher.max_batch_bytes,
        max_sessions_per_account=context.config.matcher.max_sessions_per_account,
    )
    return core, writer, client


def _retry(context: ProcessContext) -> Retry:
    def pause_ms(pause: int) -> None:
        context.log.warning("the store does not answer; trying again", extra={"zx": {"in_ms": pause}})
        select.select([context.stop_fd], [], [], pause / 1000)
        if context.stopping:
            raise _Stopping

    return Retry(
        clock_ms=lambda: time.monotonic_ns() // 1_000_000,
        pause_ms=pause_ms,
        give_up_after_ms=context.config.matcher.store_give_up_ms,
    )


def _serve(context: ProcessContext, loop: MatcherLoop, reactor: Reactor, companion: Companion | None) -> None:
    """Turn by turn until asked to stop, and then until the batch in flight is on disk."""
    # The loop makes no reference cycles; a collection in the middle of a burst would only stop the shard.
    gc.collect()
    gc.freeze()
    gc.disable()
    while not context.stopping or loop.busy:
        now_ms = _now_ms()
        wait_ms = loop.wait_ms(now_ms)
        if companion is not None:
            wait_ms = min(wait_ms, companion.wait_ms(now_ms))
            companion.poll(wait_ms, accept=not context.stopping)
        else:
            reactor.poll(wait_ms)
        # The disk first: it works while we verify.
        loop.turn(_now_ms(), accept=not context.stopping)
        if companion is not None:
            companion.turn()
            loop.turn(_now_ms(), accept=not context.stopping)


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
