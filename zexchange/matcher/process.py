"""The matcher process: one shard, one thread, one batch in flight.

    ingress workers ==ipc==> ROUTER -> MatcherCore.drain -> XADD ... reply -> releases -> ROUTER ==ipc==>
    ingress workers

While the store syncs a batch to disk, ZeroMQ's own thread collects what arrives; that becomes the next
batch. There is no timer and nothing to tune: the batch grows with the load. Everything the process decides
is in `MatcherCore`, `recover` and `LogWriter`; this shell owns the sockets, the clock and the lock.
"""

from __future__ import annotations

import fcntl
import gc
import logging
import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import zmq

from zexchange.limits import LINK_MESSAGE_BYTES_MAX
from zexchange.log.stream import StoreRefused, StoreUnavailable, one_connection
from zexchange.log.writer import Fenced, LogEmpty, LogWriter, Retry
from zexchange.matcher.core import Drain, MatcherCore
from zexchange.matcher.link import LinkMessageInvalid
from zexchange.matcher.recovery import LogUnusable, recover
from zexchange.runtime.process import EXIT_FENCED, EXIT_STORE, ProcessContext, Refused, process_context
from zexchange.runtime.store import check_store, durability, open_store

_QUEUE_MESSAGES = 4_096
"""High-water mark of the socket, per ingress and direction. Ingress workers stop well before, by bytes not
acknowledged."""

_RECEIVES_PER_DRAIN = 256
"""Messages taken from the socket before the next drain: a batch is full long before, unless they hold
queries only."""


class _Stopping(Exception):
    """Asked to stop while waiting for the store."""


def run(shard: int, data: Path, config_file: Path | None, overrides: dict[str, str]) -> None:
    """Run the matcher of one shard until it is asked to stop. Raises SystemExit with the reason's exit
    status."""
    with process_context(f"matcher-{shard}", data, config_file, overrides) as context:
        if not 0 <= shard < context.genesis.shards:
            raise Refused(f"shard {shard}: the genesis file has the shards 0 to {context.genesis.shards - 1}")
        try:
            _run(context, shard)
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


def _run(context: ProcessContext, shard: int) -> None:
    with _lock(context.paths.lock(f"matcher-{shard}"), shard):
        core, writer = _take_over(context, shard)
        _commit(writer, core.open_epoch(time.time_ns()))
        context.paths.init_token(shard).unlink(missing_ok=True)
        with _router(context.paths.matcher_address(shard)) as router:
            context.ready(shard=shard, epoch=writer.epoch)
            _serve(context, core, writer, router)


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


def _take_over(context: ProcessContext, shard: int) -> tuple[MatcherCore, LogWriter]:
    from zexchange.engine import Engine
    from zexchange.frames import check_frame

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
        check_frame=check_frame,
        durability=durability(context.config),
        max_batch_bytes=context.config.matcher.max_batch_bytes,
    )
    return core, writer


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


@contextmanager
def _router(address: str) -> Iterator[zmq.Socket[bytes]]:
    """The socket that ingress workers connect to; its folder is private, and the lock was taken before."""
    context = zmq.Context(io_threads=1)
    socket: zmq.Socket[bytes] = context.socket(zmq.ROUTER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, _QUEUE_MESSAGES)
    socket.setsockopt(zmq.RCVHWM, _QUEUE_MESSAGES)
    socket.setsockopt(zmq.SNDTIMEO, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, LINK_MESSAGE_BYTES_MAX)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
    try:
        socket.bind(address)
        yield socket
    finally:
        socket.close()
        context.term()


def _serve(context: ProcessContext, core: MatcherCore, writer: LogWriter, router: zmq.Socket[bytes]) -> None:
    """Receive, drain, append, release, until asked to stop."""
    poller = zmq.Poller()
    poller.register(router, zmq.POLLIN)
    poller.register(context.stop_fd, zmq.POLLIN)
    max_queued = context.config.matcher.max_queued_frames
    # The loop makes no reference cycles; a collection in the middle of a burst would only stop the shard.
    gc.collect()
    gc.freeze()
    gc.disable()
    more = False
    while not context.stopping:
        if not more:
            poller.poll()
        if core.queued < max_queued:
            _receive(context.log, core, router)
        drained = core.drain(time.time_ns())
        _commit(writer, drained)
        _release(context.log, core, router, drained)
        more = drained.more


def _receive(log: logging.Logger, core: MatcherCore, router: zmq.Socket[bytes]) -> None:
    for _ in range(_RECEIVES_PER_DRAIN):
        try:
            parts = router.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return
        try:
            identity, message = parts
            core.receive(identity, message)
        except (LinkMessageInvalid, ValueError) as error:
            log.error("a link message was dropped", extra={"zx": {"error": str(error)}})


def _commit(writer: LogWriter, drained: Drain) -> None:
    """Make the drain's batch durable; only after this may its releases be seen by anyone."""
    if drained.batch is not None:
        writer.append(drained.first_record_no, drained.batch)


def _release(log: logging.Logger, core: MatcherCore, router: zmq.Socket[bytes], drained: Drain) -> None:
    for identity, message in drained.releases:
        try:
            router.send_multipart((identity, message), zmq.NOBLOCK)
        except zmq.Again:
            # The ingress does not take its messages. It will see the gap in their numbers and end its
            # sessions.
            log.error("an ingress does not keep up", extra={"zx": {"ingress": repr(identity)}})
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            core.lost(identity)
            log.warning("an ingress is gone", extra={"zx": {"ingress": repr(identity)}})
