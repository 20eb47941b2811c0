"""The genesis file: what it defines, what it refuses, and that its bytes are the deployment."""

import hashlib
from decimal import Decimal
from pathlib import Path

import pytest

from zexchange.genesis import (
    DEFAULT_ASSETS,
    DEFAULT_MARKETS,
    Asset,
    AssetSpec,
    EngineLimits,
    GenesisError,
    MarketSpec,
    build_genesis,
    decode_symbol,
    encode_symbol,
    load_genesis,
    load_markets,
    parse_genesis,
    sizes_of,
    units_of,
)
from zexchange.runtime.deployment import DeploymentExists, create_deployment
from zexchange.runtime.paths import DataPaths

OPERATOR, SETTLEMENT = b"\x01" * 32, b"\x02" * 32


def default_text() -> str:
    return build_genesis("demo", OPERATOR, SETTLEMENT).decode()


def test_defaults() -> None:
    genesis = parse_genesis(default_text().encode())
    assert (genesis.name, genesis.version, genesis.shards) == ("demo", 1, 1)
    assert (genesis.operator_public_key, genesis.settlement_public_key) == (OPERATOR, SETTLEMENT)
    assert genesis.limits == EngineLimits()
    assert [(one.asset_id, one.symbol, one.decimals) for one in genesis.assets] == [
        (1, "USD", 6),
        (2, "BTC", 8),
        (3, "ETH", 8),
        (4, "AAPL", 0),
    ]
    units = {one.symbol: (one.base_units_per_lot, one.quote_units_per_tick_lot) for one in genesis.markets}
    assert units == {"BTC-USD": (10_000, 1), "ETH-USD": (100_000, 10), "AAPL-USD": (1, 10_000)}
    assert {(one.maker_fee_ppm, one.taker_fee_ppm) for one in genesis.markets} == {(200, 500)}


def test_the_bytes_are_the_deployment() -> None:
    raw = default_text().encode()
    genesis = parse_genesis(raw)
    assert genesis.raw == raw
    assert genesis.deployment_id == hashlib.sha256(b"zx.v1/genesis\0" + raw).digest()
    assert parse_genesis(raw + b"\n").deployment_id != genesis.deployment_id


def test_lookup_by_symbol_and_id() -> None:
    genesis = parse_genesis(default_text().encode())
    assert genesis.market("ETH-USD") is genesis.market(2)
    assert genesis.asset("BTC") is genesis.asset(2)
    with pytest.raises(KeyError, match="no market 'XRP-USD'"):
        genesis.market("XRP-USD")
    with pytest.raises(KeyError, match="no asset 9"):
        genesis.asset(9)


def test_markets_of_a_shard_keep_the_order_of_the_file() -> None:
    raw = build_genesis(
        "two",
        OPERATOR,
        SETTLEMENT,
        shards=2,
        markets=[
            MarketSpec(
                id=9, symbol="ETH-USD", base="ETH", quote="USD", tick_size="0.01", lot_size="0.001", shard=1
            ),
            MarketSpec(id=3, symbol="BTC-USD", base="BTC", quote="USD", tick_size="0.01", lot_size="0.0001"),
            MarketSpec(
                id=1, symbol="AAPL-USD", base="AAPL", quote="USD", tick_size="0.01", lot_size="1", shard=1
            ),
        ],
    )
    genesis = parse_genesis(raw)
    assert [market.market_id for market in genesis.markets_of(1)] == [9, 1]
    assert [market.market_id for market in genesis.markets_of(0)] == [3]


def test_amounts_are_derived_exactly() -> None:
    """Eighteen digits each: a decimal context of 28 digits would round the product."""
    raw = build_genesis(
        "exact",
        OPERATOR,
        SETTLEMENT,
        assets=[AssetSpec(id=1, symbol="Q", decimals=18), AssetSpec(id=2, symbol="B", decimals=9)],
        markets=[
            MarketSpec(
                id=1, symbol="B-Q", base="B", quote="Q", tick_size="1.234567891", lot_size="3.987654321"
            )
        ],
    )
    market = parse_genesis(raw).market(1)
    assert market.tick_size == Decimal("1.234567891")
    assert market.base_units_per_lot == 3_987_654_321
    assert market.quote_units_per_tick_lot == 1_234_567_891 * 3_987_654_321


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "demo"', 'name = "De mo"', "key 'name' cannot be 'De mo'"),
        ("version = 1", "version = 2", "key 'version' cannot be 2"),
        ("version = 1", "", "key 'version' is missing"),
        ("shards = 1", "shards = 0", "key 'shards' cannot be 0"),
        ("shards = 1", "shardz = 1", "unknown key 'shardz'; did you mean 'shards'?"),
        (OPERATOR.hex(), "00" * 32, "key 'operator_public_key' cannot be all zero"),
        (
            OPERATOR.hex(),
            "0101",
            "key 'operator_public_key' cannot be '0101' (allowed: an Ed25519 public key",
        ),
        (OPERATOR.hex(), OPERATOR.hex().replace("1", "A"), "key 'operator_public_key' cannot be"),
        ("max_orders = 4194304", "max_orders = 0", "key 'limits.max_orders' cannot be 0"),
        ("max_orders = 4194304", "max_order = 1", "unknown key 'limits.max_order'"),
        ("decimals = 8", "decimals = 19", "key 'assets[1].decimals' cannot be 19"),
        ('symbol = "ETH"', 'symbol = "BTC"', "key 'assets[2].symbol' cannot be 'BTC' twice"),
        ('symbol = "ETH-USD"', 'symbol = "BTC-USD"', "key 'markets[1].symbol' cannot be 'BTC-USD' twice"),
        (
            'base = "ETH"',
            'base = "XRP"',
            "key 'markets[1].base' cannot be 'XRP' (allowed: USD, BTC, ETH, AAPL)",
        ),
        ('base = "ETH"', 'base = "USD"', "key 'markets[1].quote' cannot be the base asset 'USD'"),
        ('lot_size = "0.001"', 'lot_size = "0"', "key 'markets[1].lot_size': 0 ETH must be a whole number"),
        ('lot_size = "0.001"', 'lot_size = "-1"', "key 'markets[1].lot_size' cannot be '-1'"),
        ('lot_size = "0.001"', "lot_size = 0.001", "key 'markets[1].lot_size' cannot be 0.001"),
        (
            'lot_size = "0.001"',
            'lot_size = "0.000000001"',
            "key 'markets[1].lot_size': 1E-9 ETH must be a whole number",
        ),
        (
            'tick_size = "0.01"',
            'tick_size = "0.001"',
            "key 'markets[0].tick_size': 1E-7 USD must be a whole number",
        ),
        (
            "taker_fee_ppm = 500",
            "taker_fee_ppm = 1000001",
            "key 'markets[0].taker_fee_ppm' cannot be 1000001",
        ),
        ("shard = 0", "shard = 1", "key 'markets[0].shard' cannot be 1 (allowed: 0 to 0)"),
        ("[[assets]]", "[[asset]]", "unknown key 'asset'"),
    ],
)
def test_refusals_name_source_and_key(old: str, new: str, message: str) -> None:
    text = default_text()
    assert old in text
    with pytest.raises(GenesisError) as raised:
        parse_genesis(text.replace(old, new, 1).encode(), "venue.toml")
    assert str(raised.value).startswith(f"venue.toml: {message}")


@pytest.mark.parametrize("table", ["assets", "markets"])
def test_a_deployment_needs_assets_and_markets(table: str) -> None:
    kept = {"assets": DEFAULT_ASSETS, "markets": DEFAULT_MARKETS}
    kept[table] = ()
    with pytest.raises(GenesisError, match=f"key '{table}' is missing"):
        build_genesis("none", OPERATOR, SETTLEMENT, **kept)  # type: ignore[arg-type]


def test_create_makes_keys_tokens_and_a_file_that_stays(data: Path) -> None:
    paths = DataPaths(data)
    genesis = create_deployment(paths, shards=2)
    assert load_genesis(paths.genesis) == genesis
    for key in (paths.operator_key, paths.settlement_key):
        assert key.stat().st_mode & 0o777 == 0o600
    assert paths.keys.stat().st_mode & 0o777 == 0o700
    assert all(paths.init_token(shard).is_file() for shard in (0, 1))
    before = paths.genesis.read_bytes()
    with pytest.raises(DeploymentExists, match="never overwritten"):
        create_deployment(paths)
    assert paths.genesis.read_bytes() == before


def test_an_interrupted_init_can_be_repeated(data: Path) -> None:
    paths = DataPaths(data)
    first = create_deployment(paths)
    paths.genesis.unlink()
    assert create_deployment(paths) == first


VENUE = """
[limits]
max_orders = 1000

[[assets]]
id = 1
symbol = "EUR"
decimals = 6

[[assets]]
id = 2
symbol = "GOLD"
decimals = 3

[[markets]]
id = 1
symbol = "GOLD-EUR"
base = "GOLD"
quote = "EUR"
tick_size = "0.01"
lot_size = "0.001"

[[markets]]
id = 2
symbol = "GOLD-EUR.2"
base = "GOLD"
quote = "EUR"
tick_size = "0.01"
lot_size = "0.001"

[[markets]]
id = 3
symbol = "GOLD-EUR.3"
base = "GOLD"
quote = "EUR"
tick_size = "0.01"
lot_size = "0.001"
shard = 1
"""


def venue(tmp_path: Path, text: str = VENUE) -> Path:
    path = tmp_path / "venue.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_markets_of_ones_own(tmp_path: Path) -> None:
    chosen = load_markets(venue(tmp_path), shards=2)
    assert [asset.symbol for asset in chosen.assets] == ["EUR", "GOLD"]
    assert [market.shard for market in chosen.markets] == [0, 1, 1]
    assert chosen.limits == EngineLimits(max_orders=1000)
    one_shard = load_markets(venue(tmp_path, VENUE.rpartition("shard")[0]), shards=1)
    assert [market.shard for market in one_shard.markets] == [0, 0, 0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('base = "GOLD"', 'base = "LEAD"', "key 'markets[0].base' cannot be 'LEAD' (allowed: EUR, GOLD)"),
        ("shard = 1", "shard = 2", "key 'markets[2].shard' cannot be 2 (allowed: 0 to 1)"),
        ("decimals", "digits", "unknown key 'assets[0].digits'"),
        ("id = 2", "id = 1", "key 'assets[1].id' cannot be 1 twice"),
        ("max_orders = 1000", "max_orders = 0", "key 'limits.max_orders' cannot be 0"),
        ("[limits]", 'name = "x"\n[limits]', "unknown key 'name'"),
        ("[[markets]]", "[[market]]", "unknown key 'market'"),
        ('"0.001"', '"0.0001"', "key 'markets[0].lot_size': 0.0001 GOLD must be a whole number"),
    ],
)
def test_wrong_markets_are_named_with_their_file(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = venue(tmp_path, VENUE.replace(old, new))
    with pytest.raises(GenesisError) as raised:
        load_markets(path, shards=2)
    assert str(raised.value).startswith(f"{path}: {message}")


def test_room_for_what_is_added_later() -> None:
    genesis = parse_genesis(default_text().encode())
    assert (genesis.markets_max(0), genesis.assets_max) == (3 + 256, 4 + 256)
    text = (
        default_text()
        .replace("max_markets = 0", "max_markets = 3")
        .replace("max_assets = 0", "max_assets = 9")
    )
    genesis = parse_genesis(text.encode())
    assert (genesis.markets_max(0), genesis.assets_max) == (3, 9)
    old = "\n".join(
        line for line in default_text().splitlines() if not line.startswith(("max_markets", "max_assets"))
    )
    assert parse_genesis(old.encode()).markets_max(0) == 3 + 256, "a file from before has room too"
    for key, least in (("max_markets", 3), ("max_assets", 4)):
        with pytest.raises(GenesisError, match=f"limits.{key}' cannot be 2 .allowed: 0 and {least} or more"):
            parse_genesis(default_text().replace(f"{key} = 0", f"{key} = 2").encode())


@pytest.mark.parametrize(
    ("decimals", "units", "sizes"),
    [
        ((8, 6), (10_000, 1), ("0.01", "0.0001")),
        ((0, 0), (4, 2), ("0.5", "4")),
        ((0, 0), (3, 6), ("2", "3")),
        ((0, 0), (3, 1), None),
        ((18, 0), (2**36, 1), ("14551915.228366851806640625", "0.000000068719476736")),
        ((0, 18), (1, 1), ("0.000000000000000001", "1")),
        ((0, 18), (2, 1), None),
        ((0, 0), (0, 1), None),
        ((0, 0), (1, 2**63), None),
        ((0, 0), (2**63 - 1, 2**63 - 1), ("1", "9223372036854775807")),
    ],
)
def test_sizes_follow_from_units(
    decimals: tuple[int, int], units: tuple[int, int], sizes: tuple[str, str] | None
) -> None:
    base = Asset(asset_id=1, symbol="B", decimals=decimals[0])
    quote = Asset(asset_id=2, symbol="Q", decimals=decimals[1])
    found = sizes_of(base, quote, *units)
    assert found == (None if sizes is None else (Decimal(sizes[0]), Decimal(sizes[1])))
    if found is not None:
        assert units_of(base, quote, *found) == units
        assert [f"{one:f}" for one in found] == list(sizes or ())


def test_a_symbol_in_its_field() -> None:
    assert encode_symbol("BTC-USD") == b"BTC-USD" + bytes(25)
    assert decode_symbol(encode_symbol("A" * 32)) == "A" * 32
    with pytest.raises(ValueError, match="at most 32"):
        encode_symbol("A" * 33)
