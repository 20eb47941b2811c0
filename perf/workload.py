"""What the traders of a load run send: signed ahead, from a fixed seed, with the time each frame is to leave.

Limit orders of one lot, good till cancelled, on both sides of each market, priced evenly within a band around a fixed
middle: about a third of them trade when they arrive. One command in sixteen, by chance, cancels all that its trader
has in the market, so books stay as deep as they are however long a run takes. To fill a book beforehand there are
orders far from the middle, which nothing reaches.
"""

from __future__ import annotations

import os
import random
import struct
from array import array
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor

import msgspec
from nacl.bindings import crypto_sign
from nacl.signing import SigningKey

from zexchange.limits import COMMAND_BYTES
from zexchange.wire.messages import (
    Command,
    CommandKind,
    OrderType,
    SelfTradePrevention,
    Side,
    SignedBatch,
    TimeInForce,
)

MIDDLE_TICKS = 5_000_000
BAND_TICKS = 50
CANCEL_ALL_EVERY = 16
RESTING_LEVELS = 10_000
_TAG = b"zx.v1/batch".ljust(16, b"\0")
_COMMAND = struct.Struct("<6BHIIQQqQ40x")
"""What plain orders use of a command; the rest is zero."""
_FRAME_HEADER_BYTES = 6
_SIGNATURE = slice(14, 78)
_AFTER_SIGNATURE = 78
_NONCE_OFFSET = 110
_COMMANDS_OFFSET = 126
_SIGN_CHUNK = 2_000
assert _COMMAND.size == COMMAND_BYTES


class Plan(msgspec.Struct):
    """Frames, when each is due, and who sends it. Arrays are packed: `Q`, `I` and `H` of the array module."""

    frames: bytes
    offsets: bytes
    lengths: bytes
    due_ns: bytes
    traders: bytes
    first_nonce: int
    commands: int
    """In each frame."""

    @property
    def count(self) -> int:
        """Frames."""
        return len(self.lengths) // 4


def due_times_ns(count: int, frames_per_s: float, poisson: bool, seed: int) -> array[int]:
    """When each frame is to leave: evenly, or as independent arrivals."""
    generator = random.Random(seed)
    interval_ns = 1e9 / frames_per_s
    due = array("Q")
    at_ns = 0.0
    for _ in range(count):
        at_ns += generator.expovariate(1.0) * interval_ns if poisson else interval_ns
        due.append(round(at_ns))
    return due


def trading_commands(
    count: int, markets: Sequence[int], seed: int, middles: Mapping[int, int] | None = None
) -> Iterator[bytes]:
    """`count` encoded commands of one trader. `middles`: in ticks, of the markets that have another than
    MIDDLE_TICKS."""
    middles = middles or {}
    generator = random.Random(seed)
    for _ in range(count):
        market_id = markets[generator.randrange(len(markets))]
        # By chance, not by turns: else traders that send in bursts would cancel everything at the end of each.
        if generator.randrange(CANCEL_ALL_EVERY) == 0:
            yield _COMMAND.pack(CommandKind.CANCEL_ALL, 0, 0, 0, 0, 0, 0, market_id, 0, 0, 0, 0, 0)
            continue
        side = Side.BUY if generator.getrandbits(1) else Side.SELL
        price_ticks = middles.get(market_id, MIDDLE_TICKS) + generator.randint(-BAND_TICKS, BAND_TICKS)
        yield _new(side, market_id, price_ticks)


def resting_commands(
    count: int, markets: Sequence[int], first: int, middles: Mapping[int, int] | None = None
) -> Iterator[bytes]:
    """Orders that rest, spread over markets, sides and price levels; `first` numbers them across traders."""
    middles = middles or {}
    for number in range(first, first + count):
        market_id = markets[number % len(markets)]
        side = Side.BUY if number // len(markets) % 2 == 0 else Side.SELL
        away_ticks = 2 * BAND_TICKS + number // (2 * len(markets)) % RESTING_LEVELS
        middle_ticks = middles.get(market_id, MIDDLE_TICKS)
        yield _new(side, market_id, middle_ticks + (away_ticks if side == Side.SELL else -away_ticks))


def _new(side: Side, market_id: int, price_ticks: int) -> bytes:
    return _COMMAND.pack(
        CommandKind.NEW,
        side,
        OrderType.LIMIT,
        TimeInForce.GTC,
        SelfTradePrevention.CANCEL_NEWEST,
        0,
        0,
        market_id,
        0,
        0,
        0,
        price_ticks,
        1,
    )


class SigningJob(msgspec.Struct):
    """Frames to be signed with one key: (nonce, commands) each."""

    key: bytes
    deployment_id: bytes
    shard: int
    frames: list[tuple[int, bytes]]
    commands: int
    signed: bool = True
    """False: leave the signatures zero, for those that do not look at them."""


def sign_frames(job: SigningJob) -> list[bytes]:
    """Signed frames, in order."""
    key = SigningKey(job.key)
    placeholder = Command(
        kind=CommandKind.NEW, side=Side.BUY, order_type=OrderType.LIMIT, time_in_force=TimeInForce.GTC
    )
    batch = SignedBatch(
        public_key=bytes(key.verify_key), shard=job.shard, commands=[placeholder] * job.commands
    )
    template = bytearray(batch.encode())
    secret = key._signing_key
    signed = []
    for nonce, commands in job.frames:
        template[_NONCE_OFFSET : _NONCE_OFFSET + 8] = nonce.to_bytes(8, "little")
        template[_COMMANDS_OFFSET:] = commands
        if job.signed:
            message = b"".join(
                (_TAG, job.deployment_id, template[_FRAME_HEADER_BYTES:14], template[_AFTER_SIGNATURE:])
            )
            template[_SIGNATURE] = crypto_sign(message, secret)[:64]
        signed.append(bytes(template))
    return signed


def build_plan(
    keys: Sequence[SigningKey],
    deployment_id: bytes,
    commands: Sequence[Iterator[bytes]],
    due_ns: array[int],
    *,
    shard: int,
    batch: int,
    first_nonce: int,
    processes: int | None = None,
) -> Plan:
    """Frame n is trader n % len(keys)'s and holds its next `batch` commands. Signs on all cores.

    Nonces count up from `first_nonce` (microseconds): never ahead of the time of sending as long as fewer than a
    million frames a second are sent.
    """
    count = len(due_ns)
    per_trader: list[list[tuple[int, bytes]]] = [[] for _ in keys]
    for number in range(count):
        trader = number % len(keys)
        per_trader[trader].append(
            (first_nonce + number, b"".join(next(commands[trader]) for _ in range(batch)))
        )
    jobs = [
        SigningJob(bytes(key), deployment_id, shard, frames[at : at + _SIGN_CHUNK], batch)
        for key, frames in zip(keys, per_trader, strict=True)
        for at in range(0, len(frames), _SIGN_CHUNK)
    ]
    if count < _SIGN_CHUNK:
        parts = [sign_frames(job) for job in jobs]
    else:
        with ProcessPoolExecutor(processes or os.cpu_count()) as pool:
            parts = list(pool.map(sign_frames, jobs))
    signed: list[list[bytes]] = [[] for _ in keys]
    by_key = {bytes(key): number for number, key in enumerate(keys)}
    for job, part in zip(jobs, parts, strict=True):
        signed[by_key[job.key]] += part
    frames = [signed[number % len(keys)][number // len(keys)] for number in range(count)]
    offsets = array("Q")
    at = 0
    for frame in frames:
        offsets.append(at)
        at += len(frame)
    return Plan(
        frames=b"".join(frames),
        offsets=offsets.tobytes(),
        lengths=array("I", [len(frame) for frame in frames]).tobytes(),
        due_ns=due_ns.tobytes(),
        traders=array("H", [number % len(keys) for number in range(count)]).tobytes(),
        first_nonce=first_nonce,
        commands=batch,
    )
