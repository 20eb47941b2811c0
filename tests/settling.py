"""A settlement in memory time: real files, a store in memory, a clock that the test moves."""

from __future__ import annotations

from typing import Any

from tests.fakes import FakeClock
from tests.log_builder import SETTLEMENT, StreamsStore
from tests.model.kit import EngineClass
from zexchange.config import SettlementSection
from zexchange.genesis import Genesis
from zexchange.reference import ReferenceEngine
from zexchange.runtime.paths import DataPaths
from zexchange.settlement.process import Settlement
from zexchange.verification.verifier import verify_signatures_plainly

SETTINGS = SettlementSection(
    checkpoint_interval_ms=1_000,
    snapshot_every_records=10,
    segment_every_records=10,
    kept_snapshots=2,
    kept_log_records=3,
    published_checkpoints=1_000,
)


class Settling:
    """Settlement of one data folder through starts, ticks and stops."""

    def __init__(
        self,
        paths: DataPaths,
        genesis: Genesis,
        store: StreamsStore,
        settings: SettlementSection = SETTINGS,
        engine_class: EngineClass = ReferenceEngine,
        **options: Any,
    ) -> None:
        self.paths = paths
        self.genesis = genesis
        self.store = store
        self.settings = settings
        self.engine_class = engine_class
        self.options = options
        self.clock = FakeClock()
        self.process: Settlement | None = None

    @property
    def now(self) -> Settlement:
        """The running settlement."""
        assert self.process is not None, "start() comes first"
        return self.process

    def start(self) -> Settlement:
        """Opens the files and recovers."""
        self.process = Settlement(
            self.paths,
            self.genesis,
            SETTLEMENT,
            self.settings,
            self.store,
            self.engine_class,
            check_signatures=verify_signatures_plainly,
            now_ns=self.clock.ns,
            monotonic_ms=self.clock.ms,
            **self.options,
        )
        try:
            assert self.process.recover()
        except BaseException:
            self.kill()
            raise
        return self.process

    def second(self) -> int:
        """Follows the log to its end, then a second passes and what is due is signed; returns how many."""
        while self.now.follow(1):
            pass
        self.clock.pause_ms(1_000)
        signed = self.now.tick()
        self.now.keep()
        return signed

    def kill(self) -> None:
        """The process is gone, without a last word."""
        if self.process is not None:
            self.process.close()
            self.process = None

    def stop(self) -> None:
        """A clean stop."""
        self.now.finish()
        self.kill()
