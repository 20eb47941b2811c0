"""Creating a deployment: genesis file, operator's and settlement's keys, and the one-time tokens for empty
logs."""

from collections.abc import Iterable

from zexchange.genesis import (
    DEFAULT_ASSETS,
    DEFAULT_MARKETS,
    AssetSpec,
    EngineLimits,
    Genesis,
    MarketSpec,
    build_genesis,
    parse_genesis,
)
from zexchange.runtime.durable import write_file
from zexchange.runtime.paths import DataPaths, private_dir


class DeploymentExists(FileExistsError):
    """The folder holds a deployment already; it is never overwritten."""


def create_deployment(
    paths: DataPaths,
    *,
    name: str = "demo",
    assets: Iterable[AssetSpec] = DEFAULT_ASSETS,
    markets: Iterable[MarketSpec] = DEFAULT_MARKETS,
    shards: int = 1,
    engine_limits: EngineLimits | None = None,
) -> Genesis:
    """Make a new deployment in the folder, with fresh keys (0600).

    The genesis file is written last: a folder that has one is complete. Keys that an interrupted attempt left
    behind are used. Raises DeploymentExists, GenesisError, and OSError when the folder cannot be written.
    """
    from zexchange.client.keys import load_key, new_key

    if paths.genesis.exists():
        raise DeploymentExists(f"{paths.genesis} exists already; a deployment is never overwritten")
    paths.create()
    public = [
        bytes((load_key(path) if path.exists() else new_key(path)).verify_key)
        for path in (paths.operator_key, paths.settlement_key)
    ]
    raw = build_genesis(
        name, public[0], public[1], assets=assets, markets=markets, shards=shards, engine_limits=engine_limits
    )
    for shard in range(shards):
        token = paths.init_token(shard)
        private_dir(token.parent)
        token.write_text("The log of this shard may be empty, once.\n", encoding="ascii")
    write_file(paths.genesis, [raw])
    return parse_genesis(raw, str(paths.genesis))
