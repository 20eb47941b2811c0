"""A real log in a store in memory: signed frames, applied by an engine, written as a matcher writes them."""

from __future__ import annotations

from typing import Any

from nacl.signing import SigningKey

from tests.fakes import FakeStore
from tests.model.kit import START_NS, EngineClass, deposit, open_account, order
from zexchange.genesis import AssetSpec, EngineLimits, Genesis, MarketSpec, build_genesis, parse_genesis
from zexchange.log import journal
from zexchange.log.journal import ChainState, EntryId, log_key
from zexchange.reference import ReferenceEngine
from zexchange.wire.messages import Command, EpochOpen, OperatorBatch, OperatorCommand, Side, SignedBatch
from zexchange.wire.signing import sign_batch

OPERATOR = SigningKey(bytes([1]) * 32)
SETTLEMENT = SigningKey(bytes([2]) * 32)
TRADERS = [SigningKey(bytes([10 + number]) * 32) for number in range(3)]
DISTRIBUTION = 1_000_000


def signed_genesis(shards: int = 1) -> Genesis:
    """A deployment with the keys above and one market per shard; one lot costs one unit per tick."""
    markets = [
        MarketSpec(
            id=1 + shard,
            symbol=f"BTC{shard}-USD",
            base="BTC",
            quote="USD",
            tick_size="1",
            lot_size="1",
            maker_fee_ppm=1_000,
            taker_fee_ppm=2_500,
            shard=shard,
        )
        for shard in range(shards)
    ]
    raw = build_genesis(
        "test",
        bytes(OPERATOR.verify_key),
        bytes(SETTLEMENT.verify_key),
        assets=[AssetSpec(id=1, symbol="USD", decimals=0), AssetSpec(id=2, symbol="BTC", decimals=0)],
        markets=markets,
        shards=shards,
        engine_limits=EngineLimits(
            max_accounts=16, max_keys=32, max_balances=64, max_orders=256, max_outcomes=64
        ),
    )
    return parse_genesis(raw)


class StreamsStore(FakeStore):
    """The store in memory, also answering XREAD over several streams."""

    def _xread(self, *args: Any) -> list[list[Any]]:
        options = list(args)
        at = options.index("STREAMS")
        count = int(options[options.index("COUNT") + 1])
        names = options[at + 1 :]
        half = len(names) // 2
        found = []
        for key, after in zip(names[:half], names[half:], strict=True):
            rows = self._rows(key, f"({after}", "+")[:count]
            if rows:
                found.append([key.encode(), rows])
        return found

    def raw(self, shard: int, entry_id: EntryId | str) -> bytes:
        """The batch in an entry of a shard's log."""
        return dict(self.entries(log_key(shard)))[str(entry_id)][b"b"]

    def set_raw(self, shard: int, entry_id: EntryId | str, raw: bytes) -> None:
        """Tampers with an entry of a shard's log."""
        self.replace(log_key(shard), str(entry_id), b"b", raw)

    def drop(self, shard: int, entry_id: EntryId | str) -> None:
        """Makes an entry of a shard's log disappear."""
        stream = self.streams[log_key(shard)]
        wanted = EntryId.parse(str(entry_id))
        self.streams[log_key(shard)] = [row for row in stream if row[0] != wanted]


class LogBuilder:
    """Writes the log of one shard. `ids` are the IDs of its batches, in order."""

    def __init__(
        self,
        genesis: Genesis,
        store: StreamsStore,
        shard: int = 0,
        engine_class: EngineClass = ReferenceEngine,
    ) -> None:
        self.genesis = genesis
        self.store = store
        self.shard = shard
        self.engine = engine_class(genesis, shard)
        self.state = ChainState.genesis(genesis.deployment_id)
        self.epoch = 0
        self.ids: list[EntryId] = []
        self._nonce = 0
        self._now_ns = START_NS

    def open_epoch(self) -> None:
        """A new writer takes over: marker and opening record."""
        self.epoch += 1
        self.store.execute_command("XADD", log_key(self.shard), f"{self.epoch}-0", "m", str(self.epoch))
        opening = EpochOpen(
            epoch=self.epoch,
            tip_epoch=self.state.epoch,
            tip_record_no=self.state.next_record_no - 1,
            tip_chain=self.state.chain,
        )
        self.append(opening.encode())

    def append(self, *frames: bytes) -> EntryId:
        """Applies the frames and writes them as one batch."""
        body = b"".join(frames)
        self._now_ns += 1_000_000
        first_seq = self.engine.next_seq
        applied = self.engine.apply(body, self._now_ns)
        assert applied.records == len(frames)
        raw = journal.encode_batch(
            shard=self.shard,
            epoch=self.epoch,
            first_record_no=self.state.next_record_no,
            first_seq=first_seq,
            count=len(frames),
            log_time_ns=self._now_ns,
            chain_before=self.state.chain,
            body=body,
            events_hash=journal.events_hash(applied.events),
        )
        return self.append_raw(raw)

    def append_raw(self, raw: bytes) -> EntryId:
        """Writes a batch as it is."""
        batch = journal.decode_batch(raw)
        self.state = self.state.after(batch, self.engine.next_seq)
        self.ids.append(batch.id)
        self.store.execute_command("XADD", log_key(self.shard), str(batch.id), "b", raw)
        return batch.id

    def operator(self, *commands: OperatorCommand) -> bytes:
        """A frame signed by the operator."""
        batch = OperatorBatch(nonce=self._next_nonce(), shard=self.shard, commands=list(commands))
        return sign_batch(batch, OPERATOR, self.genesis.deployment_id)

    def trader(self, number: int, *commands: Command) -> bytes:
        """A frame signed by a trader."""
        batch = SignedBatch(nonce=self._next_nonce(), shard=self.shard, commands=list(commands))
        return sign_batch(batch, TRADERS[number], self.genesis.deployment_id)

    def fund(self) -> None:
        """Accounts 1 to 3 with both assets: one batch."""
        self.append(
            *(
                self.operator(
                    open_account(bytes(key.verify_key), number),
                    deposit(number, 1, DISTRIBUTION),
                    deposit(number, 2, DISTRIBUTION),
                )
                for number, key in enumerate(TRADERS, 1)
            )
        )

    def trade(self, batches: int = 1) -> None:
        """So many batches of three frames: two orders that rest, one that trades."""
        market_id = self.shard + 1
        for step in range(batches):
            price = 100 + step % 7
            self.append(
                self.trader(0, order(Side.SELL, 5, price + 10, market_id=market_id)),
                self.trader(1, order(Side.BUY, 3, price, market_id=market_id)),
                self.trader(2, order(Side.SELL, 2, price, market_id=market_id)),
            )

    def _next_nonce(self) -> int:
        self._nonce += 1
        return self._nonce


def built_log(genesis: Genesis, store: StreamsStore, batches: int = 4, shard: int = 0) -> LogBuilder:
    """A log with one epoch, funded accounts and some trades: 1 + 3 + 3 * batches records."""
    builder = LogBuilder(genesis, store, shard)
    builder.open_epoch()
    builder.fund()
    builder.trade(batches)
    return builder
