"""Every limit of the protocol and of the processes, each with the reason for its value.

Numbers that an operator may tune are settings (`config.toml`); numbers of one deployment are in its genesis
file. What is here is fixed: changing one changes the protocol, a stored format or an argument that some code
relies on. The relations between them are checked when this module is imported, so an inconsistent edit cannot
start.
"""

from typing import Final

# --- numbers of the engine (docs/rules.md section 1) --------------------------------------------------------

PRICE_TICKS_MAX: Final = 2**53 - 1
"""Largest price. Up to here every JSON reader, a browser's included, holds the integer exactly."""

QTY_LOTS_MAX: Final = 2**53 - 1
"""Largest quantity; same reason as for prices."""

TIME_NS_MAX: Final = 2**64 - 1
"""The last log time; as a time at which something ends it is never."""

AMOUNT_MAX: Final = 2**63 - 1
"""Largest amount or supply in base units: a signed 64-bit column of any database can store it."""

PPM: Final = 1_000_000
"""One, in parts per million."""

FEE_PPM_MAX: Final = PPM
"""Largest fee in parts per million of the notional: at 100 % the seller's proceeds are still not negative."""

ACCOUNT_NONE: Final = 2**64 - 1
"""Account id of reports to a key that is not registered."""

OPERATOR_ACCOUNT_ID: Final = 0
"""The operator's account: owns the genesis key, collects the fees, cannot trade."""

NONCE_WINDOW: Final = 1024
"""How far below the highest accepted nonce one may still be: ample for reordering, 128 bytes of state per
key."""

NONCE_AHEAD_US: Final = 10_000_000
"""How far a nonce may run ahead of log time: a client's clock may be wrong by ten seconds; a stray 2^64
cannot lock a key."""

MAKERS_PER_COMMAND_MAX: Final = 1024
"""Resting orders that one command may fill or cancel: bounds the events, and so the time, of one command."""

TRIGGERED_PER_COMMAND_MAX: Final = 64
"""Waiting orders that are triggered after one command, and none once they have used MAKERS_PER_COMMAND_MAX resting
orders between them, or moved as many trailing ones; the rest follows with the next command or record."""

EXPIRIES_PER_RECORD_MAX: Final = 1024
"""Orders that expire at the start of one record; the rest follows with the next, and does not trade meanwhile."""

TRAILING_PER_MARKET_MAX: Final = 1024
"""Trailing orders of a market: each is looked at when the price moves, so their number bounds the work of a trade."""

INTERRUPTION_NS_MAX: Final = 86_400 * 10**9
"""Longest interruption of a market by its price band: a day."""

MARKET_ENDS_PER_RECORD_MAX: Final = 64
"""Markets whose state ends by itself at the start of one record; the rest follows with the next."""

AUCTION_STEPS_PER_COMMAND_MAX: Final = 1024
"""Fills and ends of orders of auctions that are executed after one command; the rest follows with the next command or
record, and until then the market takes only cancels."""

DEPTH_SKIPPED_MAX: Final = 1024
"""Price levels that hold only hidden orders which a depth passes over on each side; what is behind them is left out, so
that a query costs what it lists."""

ALL_OR_NOTHING_REPORTS_MAX: Final = 4096
"""Reports that the commands of an all-or-nothing batch may cause together."""

REPORTS_PER_COMMAND_MAX: Final = (
    (3 * MAKERS_PER_COMMAND_MAX + 4)
    + 3 * (2 * MAKERS_PER_COMMAND_MAX - 1)
    + 4 * TRIGGERED_PER_COMMAND_MAX
    + 4 * AUCTION_STEPS_PER_COMMAND_MAX
)
"""Reports that one command may cause: of itself, three for each maker (two of a trade, and the end of the maker's
pair), the answer, the end of its own pair and of the remainder, and a market that is interrupted; then the same of what
it triggers; then of each step of an auction two of a trade and the ends of both pairs."""

REPORTS_OF_TIME_MAX: Final = 2 * EXPIRIES_PER_RECORD_MAX + MARKET_ENDS_PER_RECORD_MAX
"""Reports of the orders that expire at the start of a record, of their pairs, and of markets whose state ends."""

EVENTS_BYTES_MAX: Final = 192 * 1024 * 1024
"""Events of one batch of the log: what the engine in C reserves for them. A batch ends before a frame for whose
worst case there is no room, so the reference ends it there too."""

# --- frames (docs/protocol.md) ------------------------------------------------------------------------------

FRAME_HEADER_BYTES: Final = 6
"""Simple Open Framing Header: u32 length, u16 encoding type."""

SBE_HEADER_BYTES: Final = 8
"""SBE message header: four u16."""

COMMANDS_PER_BATCH_MAX: Final = 64
"""Commands under one signature: spreads the 60 us of a verification without letting one frame hold the
matcher long."""

BATCH_ROOT_BYTES: Final = 108
"""Root block of SignedBatch and OperatorBatch."""

GROUP_HEADER_BYTES: Final = 4
"""Dimensions of a repeating group."""

COMMAND_BYTES: Final = 88
"""One command of a SignedBatch."""

OPERATOR_COMMAND_BYTES: Final = 176
"""One command of an OperatorBatch."""

LARGEST_BATCH_FRAME_BYTES: Final = (
    FRAME_HEADER_BYTES
    + SBE_HEADER_BYTES
    + BATCH_ROOT_BYTES
    + GROUP_HEADER_BYTES
    + COMMANDS_PER_BATCH_MAX * OPERATOR_COMMAND_BYTES
)
"""A full OperatorBatch: the largest frame that a client may send."""

MAX_FRAME_BYTES: Final = 11_776
"""Largest frame from a client: the largest batch rounded up to a multiple of 512. A longer one is refused at
its header."""

EXECUTION_REPORT_BYTES: Final = 168
"""Root block of ExecutionReport, which is also one event of the engine."""

QUERY_LIMIT_MAX: Final = 500
"""Entries of one page of a query: the answer stays below 32 KiB."""

HEARTBEAT_INTERVAL_MS_MIN: Final = 100
"""Shortest heartbeat: ten a second are enough to notice a dead peer, and cost nothing."""

HEARTBEAT_INTERVAL_MS_MAX: Final = 60_000
"""Longest heartbeat: middle boxes forget an idle connection after minutes."""

# --- log (docs/formats.md section 2) ------------------------------------------------------------------------

LOG_BATCH_BYTES_MAX: Final = 65_536
"""Largest batch of the log: a write of few pages, so that a kill in the middle of it is rare, and one tile
entry."""

LOG_BATCH_HEADER_BYTES: Final = 80
"""From the magic to chain_before, inclusive."""

LOG_BATCH_TRAILER_BYTES: Final = 68
"""events_hash, chain_after and CRC-32."""

LOG_BODY_BYTES_MAX: Final = LOG_BATCH_BYTES_MAX - LOG_BATCH_HEADER_BYTES - LOG_BATCH_TRAILER_BYTES
"""Room for frames in one batch."""

# --- deployment (the genesis file) --------------------------------------------------------------------------

GENESIS_BYTES_MAX: Final = 8 * 1024 * 1024
"""Largest genesis file: 21,000 markets take about 5 MiB, and it travels in one message."""

SHARDS_MAX: Final = 1024
"""Most shards: far more than one deployment needs, few enough that a session can list them all in one
message."""

MARKETS_MAX: Final = 65_536
"""Most markets of one deployment's genesis file, and of one shard."""

ASSETS_MAX: Final = 65_536
"""Most assets of one deployment's genesis file, and of one shard."""

MARKETS_ADDED: Final = 256
"""Markets that a shard has room for besides those of the genesis file, unless that says otherwise: more than a venue
lists in a year, and so few that the windows of the books stay as large as they are without (csrc/book.h)."""

ASSETS_ADDED: Final = 256
"""Likewise of assets."""

TICK_DECIMALS_MAX: Final = 18
"""Most decimals of a tick: as many as a size in the genesis file can have."""

ASSET_DECIMALS_MAX: Final = 18
"""Most decimals of an asset: as many as any token in use; 10^18 base units fit nine times into AMOUNT_MAX."""

SYMBOL_CHARS_MAX: Final = 32
"""Longest symbol of a market or asset."""

ID_MAX: Final = 2**32 - 1
"""Largest id of a market or asset (u32)."""

ACCOUNTS_MAX: Final = 2**24
"""Most accounts of a shard: the engine's tables are sized up front."""

KEYS_MAX: Final = 2**24
"""Most keys of a shard."""

BALANCES_MAX: Final = 2**26
"""Most balances of a shard."""

ORDERS_MAX: Final = 2**26
"""Most open orders of a shard."""

OUTCOMES_MAX: Final = 2**22
"""Most outcomes kept for duplicate answers: each is a leaf of the state tree."""

# --- processes ----------------------------------------------------------------------------------------------

PORT_OFFSET_TCP: Final = 0
"""Order entry listens on port_base + this."""

PORT_OFFSET_WEB: Final = 30
"""The page, REST and WebSockets, unless port_base is PORT_BASE."""

PORT_OFFSET_ADMIN: Final = 90
"""The admin API: 9090 with the default port_base."""

PORT_BASE: Final = 9000
"""Default of exchange.port_base."""

WEB_PORT: Final = 3000
"""The page's port with the default port_base: the one people type."""

PORTS_RESERVED: Final = 100
"""Ports from port_base on that belong to one deployment: neighbours keep this distance."""

PORT_BASE_MAX: Final = 65_536 - PORTS_RESERVED
"""Largest port_base: every port of the deployment still exists."""

INGRESS_WORKERS_MAX: Final = 256
"""Most ingress workers of one machine."""

SOCKET_DIR_CHARS_MAX: Final = 80
"""Longest folder for unix sockets: sun_path holds 108 bytes with the final NUL, and the longest name takes
27."""

LINK_MESSAGE_BYTES_MAX: Final = 1024 * 1024
"""Largest message between ingress and matcher: the receiver allocates what the peer announces, so it must be
bounded."""

VERIFY_THREADS_MAX: Final = 64
"""Most threads that help one ingress worker to verify; csrc/verifiers.h has the same number."""

STOP_GRACE_MS: Final = 5_000
"""How long a process may take to stop before it is killed: several times the slowest fsync seen on a busy
disk."""

assert (
    COMMANDS_PER_BATCH_MAX * REPORTS_PER_COMMAND_MAX + REPORTS_OF_TIME_MAX
) * EXECUTION_REPORT_BYTES <= EVENTS_BYTES_MAX, "the events of any one frame have room"
assert LARGEST_BATCH_FRAME_BYTES <= MAX_FRAME_BYTES, "the largest batch must fit in the largest frame"
assert MAX_FRAME_BYTES <= LOG_BODY_BYTES_MAX, "the largest frame must fit in one log batch"
assert MAX_FRAME_BYTES < LINK_MESSAGE_BYTES_MAX, "the largest frame must fit in one message to the matcher"
assert COMMAND_BYTES <= OPERATOR_COMMAND_BYTES, (
    "LARGEST_BATCH_FRAME_BYTES assumes the operator's batch is the larger"
)
assert PRICE_TICKS_MAX * QTY_LOTS_MAX < 2**127, "a notional is computed in 128 bits"
assert 10**ASSET_DECIMALS_MAX <= AMOUNT_MAX, "one whole unit of any asset must be an amount"
assert KEYS_MAX >= ACCOUNTS_MAX, "every account has at least one key"
assert HEARTBEAT_INTERVAL_MS_MIN < HEARTBEAT_INTERVAL_MS_MAX, "the range of heartbeats is not empty"
assert PORT_BASE_MAX > 1024, "there are unprivileged ports to choose from"
