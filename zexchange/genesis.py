"""The genesis file: what a deployment is.

Markets, assets, fees, limits of the engine, and the operator's and settlement's public keys. Its bytes define
the deployment: `deployment_id = SHA-256("zx.v1/genesis\\0" || bytes)`, and everything that is signed names
that id. So the file is never edited; another file is another deployment.

Amounts per lot are derived here once, exactly: `base_units_per_lot = lot_size * 10^decimals(base)` and
`quote_units_per_tick_lot = tick_size * lot_size * 10^decimals(quote)`, and both must be whole numbers of at
least 1.
"""

import hashlib
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from zexchange import limits
from zexchange.strict_toml import SettingError, build, read_toml, read_toml_file

GENESIS_TAG = b"zx.v1/genesis\0"
GENESIS_VERSION = 1

GenesisError = SettingError
"""Raised for every wrong genesis file; the message names file, key and what is allowed."""

_Hex32 = Annotated[
    str,
    Meta(
        pattern="^[0-9a-f]{64}$",
        extra_json_schema={"description": "an Ed25519 public key as 64 lower-case hex digits"},
    ),
]
SYMBOL_PATTERN = rf"^[A-Z0-9][A-Z0-9._-]{{0,{limits.SYMBOL_CHARS_MAX - 1}}}$"
"""What a symbol of an asset or a market looks like."""
_Symbol = Annotated[
    str,
    Meta(
        pattern=SYMBOL_PATTERN,
        extra_json_schema={
            "description": f"1 to {limits.SYMBOL_CHARS_MAX} of A-Z, 0-9, '.', '_', '-', letter or digit first"
        },
    ),
]
_Name = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9][a-z0-9./-]{0,62}$",
        extra_json_schema={"description": "1 to 63 of a-z, 0-9, '.', '/' and '-', letter or digit first"},
    ),
]
_Id = Annotated[int, Meta(ge=1, le=limits.ID_MAX)]
_Size = Annotated[
    str,
    Meta(
        pattern=r"^(0|[1-9][0-9]{0,17})(\.[0-9]{1,18})?$",
        extra_json_schema={"description": 'a positive decimal number as a string, such as "0.01"'},
    ),
]


class EngineLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes of a shard's tables; memory is reserved up front and touched only when used."""

    max_accounts: Annotated[int, Meta(ge=2, le=limits.ACCOUNTS_MAX)] = 1_048_576
    max_keys: Annotated[int, Meta(ge=2, le=limits.KEYS_MAX)] = 1_048_576
    max_balances: Annotated[int, Meta(ge=2, le=limits.BALANCES_MAX)] = 4_194_304
    max_orders: Annotated[int, Meta(ge=1, le=limits.ORDERS_MAX)] = 4_194_304
    max_outcomes: Annotated[int, Meta(ge=limits.COMMANDS_PER_BATCH_MAX, le=limits.OUTCOMES_MAX)] = 65_536
    max_markets: Annotated[int, Meta(ge=0, le=limits.MARKETS_MAX)] = 0
    """With those that are added later; 0: room for MARKETS_ADDED more than the file has on the shard."""
    max_assets: Annotated[int, Meta(ge=0, le=limits.ASSETS_MAX)] = 0
    """Likewise."""


class Asset(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is held: its base unit is 10^-decimals."""

    asset_id: int
    symbol: str
    decimals: int


class Market(msgspec.Struct, frozen=True, kw_only=True):
    """A pair of assets that is traded on one shard."""

    market_id: int
    symbol: str
    base_asset_id: int
    quote_asset_id: int
    tick_size: Decimal
    """Smallest price step, in the quote asset per one base asset."""
    lot_size: Decimal
    """Smallest quantity step, in the base asset."""
    base_units_per_lot: int
    quote_units_per_tick_lot: int
    maker_fee_ppm: int
    taker_fee_ppm: int
    shard: int
    sizes_no: int = 0
    """How often tick and lot size have changed."""


class Genesis(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed genesis file. `raw` are its bytes; tuples keep the order of the file."""

    name: str
    version: int
    operator_public_key: bytes
    settlement_public_key: bytes
    shards: int
    limits: EngineLimits
    assets: tuple[Asset, ...]
    markets: tuple[Market, ...]
    raw: bytes
    deployment_id: bytes

    def markets_of(self, shard: int) -> tuple[Market, ...]:
        """The markets of one shard, in the order of the file."""
        return tuple(market for market in self.markets if market.shard == shard)

    def markets_max(self, shard: int) -> int:
        """How many markets the shard has room for."""
        room = len(self.markets_of(shard)) + limits.MARKETS_ADDED
        return self.limits.max_markets or min(room, limits.MARKETS_MAX)

    @property
    def assets_max(self) -> int:
        """How many assets each shard has room for."""
        return self.limits.max_assets or min(len(self.assets) + limits.ASSETS_ADDED, limits.ASSETS_MAX)

    def market(self, key: str | int) -> Market:
        """The market with this symbol or id. Raises KeyError."""
        for market in self.markets:
            if key in (market.symbol, market.market_id):
                return market
        raise KeyError(f"no market {key!r} (there are {', '.join(market.symbol for market in self.markets)})")

    def asset(self, key: str | int) -> Asset:
        """The asset with this symbol or id. Raises KeyError."""
        for asset in self.assets:
            if key in (asset.symbol, asset.asset_id):
                return asset
        raise KeyError(f"no asset {key!r} (there are {', '.join(asset.symbol for asset in self.assets)})")


class AssetSpec(msgspec.Struct, frozen=True, kw_only=True):
    """An [[assets]] table of the file."""

    id: _Id
    symbol: _Symbol
    decimals: Annotated[int, Meta(ge=0, le=limits.ASSET_DECIMALS_MAX)]


class MarketSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A [[markets]] table of the file."""

    id: _Id
    symbol: _Symbol
    base: _Symbol
    quote: _Symbol
    tick_size: _Size
    lot_size: _Size
    maker_fee_ppm: Annotated[int, Meta(ge=-limits.FEE_PPM_MAX, le=limits.FEE_PPM_MAX)] = 0
    """Negative: a rebate, which is not larger than the taker's fee."""
    taker_fee_ppm: Annotated[int, Meta(ge=0, le=limits.FEE_PPM_MAX)] = 0
    shard: Annotated[int, Meta(ge=0, le=limits.SHARDS_MAX - 1)] = 0


class MarketsFile(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody who makes a deployment chooses: these tables of the genesis file, in its syntax."""

    assets: tuple[AssetSpec, ...]
    markets: tuple[MarketSpec, ...]
    limits: EngineLimits = EngineLimits()


class _File(msgspec.Struct, frozen=True, kw_only=True):
    name: _Name
    version: Annotated[int, Meta(ge=GENESIS_VERSION, le=GENESIS_VERSION)]
    operator_public_key: _Hex32
    settlement_public_key: _Hex32
    shards: Annotated[int, Meta(ge=1, le=limits.SHARDS_MAX)]
    limits: EngineLimits
    assets: tuple[AssetSpec, ...]
    markets: tuple[MarketSpec, ...]


DEFAULT_ASSETS = (
    AssetSpec(id=1, symbol="USD", decimals=6),
    AssetSpec(id=2, symbol="BTC", decimals=8),
    AssetSpec(id=3, symbol="ETH", decimals=8),
    AssetSpec(id=4, symbol="AAPL", decimals=0),
)
"""Decimals are such that one lot at one tick is a whole number of micro-dollars."""

DEFAULT_MARKETS = (
    MarketSpec(
        id=1,
        symbol="BTC-USD",
        base="BTC",
        quote="USD",
        tick_size="0.01",
        lot_size="0.0001",
        maker_fee_ppm=200,
        taker_fee_ppm=500,
    ),
    MarketSpec(
        id=2,
        symbol="ETH-USD",
        base="ETH",
        quote="USD",
        tick_size="0.01",
        lot_size="0.001",
        maker_fee_ppm=200,
        taker_fee_ppm=500,
    ),
    MarketSpec(
        id=3,
        symbol="AAPL-USD",
        base="AAPL",
        quote="USD",
        tick_size="0.01",
        lot_size="1",
        maker_fee_ppm=200,
        taker_fee_ppm=500,
    ),
)


def encode_symbol(symbol: str) -> bytes:
    """A symbol in its field: padded with zeros. ValueError if it is too long or not ASCII."""
    raw = symbol.encode("ascii")
    if len(raw) > limits.SYMBOL_CHARS_MAX:
        raise ValueError(f"a symbol has at most {limits.SYMBOL_CHARS_MAX} characters, not {len(raw)}")
    return raw.ljust(limits.SYMBOL_CHARS_MAX, b"\0")


def decode_symbol(field: bytes) -> str:
    """The symbol in a field. UnicodeDecodeError, a ValueError, if it is not ASCII."""
    return field.rstrip(b"\0").decode("ascii")


def sizes_of(base: Asset, quote: Asset, base_units: int, quote_units: int) -> tuple[Decimal, Decimal] | None:
    """(tick size, lot size) of a market of these amounts per lot, and per tick and lot; None if it cannot be.

    The tick must be a decimal number of at most TICK_DECIMALS_MAX decimals.
    """
    if not (1 <= base_units <= limits.AMOUNT_MAX and 1 <= quote_units <= limits.AMOUNT_MAX):
        return None
    divisor: int = base_units * 10**quote.decimals
    wanted: int = quote_units * 10 ** (base.decimals + limits.TICK_DECIMALS_MAX)
    digits, rest = divmod(wanted, divisor)
    if rest:
        return None
    return _decimal(digits, limits.TICK_DECIMALS_MAX), _decimal(base_units, base.decimals)


def units_of(base: Asset, quote: Asset, tick_size: Decimal, lot_size: Decimal) -> tuple[int, int]:
    """(base units per lot, quote units per tick and lot) of a market. Raises GenesisError."""
    return (
        _whole("market", "lot_size", lot_size, base),
        _whole("market", "tick_size", _times(tick_size, lot_size), quote),
    )


def _decimal(digits: int, places: int) -> Decimal:
    """`digits` / 10^places, without trailing zeros behind the point."""
    while places and digits % 10 == 0:
        digits, places = digits // 10, places - 1
    return Decimal((0, tuple(int(digit) for digit in str(digits)), -places))


def deployment_id(raw: bytes) -> bytes:
    """SHA-256 that names the deployment of this genesis file."""
    return hashlib.sha256(GENESIS_TAG + raw).digest()


def load_genesis(path: Path) -> Genesis:
    """Read and check a genesis file. Raises GenesisError."""
    raw, table = read_toml_file(path)
    return _parse(raw, table, str(path))


def parse_genesis(raw: bytes, source: str = "genesis") -> Genesis:
    """Check the bytes of a genesis file. Raises GenesisError."""
    return _parse(raw, read_toml(raw, source), source)


def load_markets(path: Path, shards: int) -> MarketsFile:
    """Read and check a file of assets, markets and limits for a new deployment with this number of shards.

    Markets that name no shard go to the shards in turn. Raises GenesisError.
    """
    source = str(path)
    _raw, table = read_toml_file(path)
    file = build(MarketsFile, table, source)
    markets = tuple(
        spec if "shard" in given else msgspec.structs.replace(spec, shard=index % shards)
        for index, (spec, given) in enumerate(zip(file.markets, table["markets"], strict=True))
    )
    _assets_and_markets(source, file.assets, markets, shards)
    return msgspec.structs.replace(file, markets=markets)


def build_genesis(
    name: str,
    operator_public_key: bytes,
    settlement_public_key: bytes,
    *,
    assets: Iterable[AssetSpec] = DEFAULT_ASSETS,
    markets: Iterable[MarketSpec] = DEFAULT_MARKETS,
    shards: int = 1,
    engine_limits: EngineLimits | None = None,
) -> bytes:
    """The bytes of a new genesis file, checked. Raises GenesisError."""
    sizes = engine_limits or EngineLimits()
    lines = [
        "# Defines a deployment of zexchange. Its hash is part of everything that is signed: never edit it.",
        "",
        f'name = "{name}"',
        f"version = {GENESIS_VERSION}",
        f'operator_public_key = "{operator_public_key.hex()}"',
        f'settlement_public_key = "{settlement_public_key.hex()}"',
        f"shards = {shards}",
        "",
        "# Sizes of each shard's tables.",
        "[limits]",
        *(f"{field.name} = {getattr(sizes, field.name)}" for field in msgspec.structs.fields(EngineLimits)),
        "",
        "# One base unit of an asset is 10^-decimals.",
    ]
    for asset in assets:
        lines += ["[[assets]]", *_toml_lines(asset), ""]
    lines += [
        "# Fees are in parts per million of the traded value: the maker's order rested, the taker's came in.",
    ]
    for market in markets:
        lines += ["[[markets]]", *_toml_lines(market), ""]
    raw = ("\n".join(lines).rstrip("\n") + "\n").encode()
    parse_genesis(raw, "new genesis")
    return raw


def _toml_lines(spec: msgspec.Struct) -> list[str]:
    pairs = ((field.name, getattr(spec, field.name)) for field in msgspec.structs.fields(spec))
    return [f'{name} = "{value}"' if isinstance(value, str) else f"{name} = {value}" for name, value in pairs]


def _parse(raw: bytes, table: dict[str, object], source: str) -> Genesis:
    if len(raw) > limits.GENESIS_BYTES_MAX:
        raise GenesisError(
            source, "", f"is {len(raw):,} bytes long; at most {limits.GENESIS_BYTES_MAX:,} are allowed"
        )
    file = build(_File, table, source)
    if file.operator_public_key == "0" * 64:
        raise GenesisError(source, "operator_public_key", "key 'operator_public_key' cannot be all zero")
    assets, markets = _assets_and_markets(source, file.assets, file.markets, file.shards)
    _check_room(source, file)
    return Genesis(
        name=file.name,
        version=file.version,
        operator_public_key=bytes.fromhex(file.operator_public_key),
        settlement_public_key=bytes.fromhex(file.settlement_public_key),
        shards=file.shards,
        limits=file.limits,
        assets=assets,
        markets=markets,
        raw=raw,
        deployment_id=deployment_id(raw),
    )


def _assets_and_markets(
    source: str, assets: tuple[AssetSpec, ...], markets: tuple[MarketSpec, ...], shards: int
) -> tuple[tuple[Asset, ...], tuple[Market, ...]]:
    """The tables of a file with everything derived. Raises GenesisError."""
    if not assets or len(assets) > limits.ASSETS_MAX:
        raise GenesisError(source, "assets", f"there must be 1 to {limits.ASSETS_MAX:,} assets")
    if not markets or len(markets) > limits.MARKETS_MAX:
        raise GenesisError(source, "markets", f"there must be 1 to {limits.MARKETS_MAX:,} markets")
    _check_unique(source, "assets", "id", [asset.id for asset in assets])
    _check_unique(source, "assets", "symbol", [asset.symbol for asset in assets])
    _check_unique(source, "markets", "id", [market.id for market in markets])
    _check_unique(source, "markets", "symbol", [market.symbol for market in markets])
    by_symbol = {
        spec.symbol: Asset(asset_id=spec.id, symbol=spec.symbol, decimals=spec.decimals) for spec in assets
    }
    return tuple(by_symbol.values()), tuple(
        _market(source, index, spec, by_symbol, shards) for index, spec in enumerate(markets)
    )


def _check_room(source: str, file: _File) -> None:
    """The tables of each shard hold at least what the file says."""
    most = max(sum(market.shard == shard for market in file.markets) for shard in range(file.shards))
    for key, count in (("max_markets", most), ("max_assets", len(file.assets))):
        value = getattr(file.limits, key)
        if value and value < count:
            raise GenesisError(
                source,
                f"limits.{key}",
                f"key 'limits.{key}' cannot be {value} (allowed: 0 and {count} or more)",
            )


def _market(source: str, index: int, spec: MarketSpec, assets: dict[str, Asset], shards: int) -> Market:
    where = f"markets[{index}]"
    for key in ("base", "quote"):
        symbol = getattr(spec, key)
        if symbol not in assets:
            raise GenesisError(
                source,
                f"{where}.{key}",
                f"key '{where}.{key}' cannot be {symbol!r} (allowed: {', '.join(assets)})",
            )
    if spec.base == spec.quote:
        raise GenesisError(
            source, f"{where}.quote", f"key '{where}.quote' cannot be the base asset {spec.base!r}"
        )
    if spec.shard >= shards:
        raise GenesisError(
            source,
            f"{where}.shard",
            f"key '{where}.shard' cannot be {spec.shard} (allowed: 0 to {shards - 1})",
        )
    if spec.maker_fee_ppm < -spec.taker_fee_ppm:
        raise GenesisError(
            source,
            f"{where}.maker_fee_ppm",
            f"key '{where}.maker_fee_ppm' cannot be {spec.maker_fee_ppm}: a rebate is at most the taker's fee "
            f"(allowed: {-spec.taker_fee_ppm} and above)",
        )
    tick_size, lot_size = Decimal(spec.tick_size), Decimal(spec.lot_size)
    base, quote = assets[spec.base], assets[spec.quote]
    return Market(
        market_id=spec.id,
        symbol=spec.symbol,
        base_asset_id=base.asset_id,
        quote_asset_id=quote.asset_id,
        tick_size=tick_size,
        lot_size=lot_size,
        base_units_per_lot=_whole(source, f"{where}.lot_size", lot_size, base),
        quote_units_per_tick_lot=_whole(source, f"{where}.tick_size", _times(tick_size, lot_size), quote),
        maker_fee_ppm=spec.maker_fee_ppm,
        taker_fee_ppm=spec.taker_fee_ppm,
        shard=spec.shard,
    )


def _times(first: Decimal, second: Decimal) -> Decimal:
    """The exact product: through integers, so that no context precision can round it."""
    first_digits, first_exponent = _integer_and_exponent(first)
    second_digits, second_exponent = _integer_and_exponent(second)
    return Decimal(
        (
            0,
            tuple(int(digit) for digit in str(first_digits * second_digits)),
            first_exponent + second_exponent,
        )
    )


def _integer_and_exponent(value: Decimal) -> tuple[int, int]:
    _sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int), "the pattern of a size admits finite numbers only"
    return int("".join(map(str, digits))), exponent


def _whole(source: str, key: str, size: Decimal, asset: Asset) -> int:
    """`size` of the asset in base units: a whole number in 1 to AMOUNT_MAX, or GenesisError."""
    digits, exponent = _integer_and_exponent(size)
    power = exponent + asset.decimals
    above: int = 10 ** max(power, 0)
    below: int = 10 ** max(-power, 0)
    units, remainder = divmod(digits * above, below)
    if remainder or not 1 <= units <= limits.AMOUNT_MAX:
        raise GenesisError(
            source,
            key,
            f"key {key!r}: {size} {asset.symbol} must be a whole number of base units from 1 to 2^63-1 "
            f"({asset.symbol} has {asset.decimals} decimals)",
        )
    return units


def _check_unique(source: str, table: str, key: str, values: list[object]) -> None:
    seen: set[object] = set()
    for index, value in enumerate(values):
        if value in seen:
            raise GenesisError(
                source, f"{table}[{index}].{key}", f"key '{table}[{index}].{key}' cannot be {value!r} twice"
            )
        seen.add(value)
