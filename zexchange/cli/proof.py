"""`zexchange proof`: checks what a signed checkpoint says about one account, without the exchange."""

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from zexchange.cli import exits
from zexchange.cli.options import common_options, json_option
from zexchange.cli.output import print_json, print_table

if TYPE_CHECKING:
    from zexchange.genesis import Genesis
    from zexchange.verification.balance_proof import ProvenAccount


@click.command()
@click.argument("file", type=click.File("rb"))
@click.option("--account", "account_id", type=click.IntRange(0), required=True, help="Your account.")
@json_option
@common_options
def proof(file: BinaryIO, account_id: int, data: Path, config_file: Path | None, as_json: bool) -> int:
    """Check a proof of balances, as GET /api/v1/proofs/balance gives it, and show what it proves.

    \b
    zexchange proof balance.json --account 7
    zexchange proof - --account 7 --data ./mine < balance.json

    Needs nothing but the genesis file, which names the settlement key. Exits with 5 if the proof is wrong.
    """
    from zexchange.genesis import load_genesis
    from zexchange.runtime.paths import DataPaths
    from zexchange.verification.balance_proof import BalanceProofInvalid, verify_balance_proof
    from zexchange.verification.checkpoint import origin_of
    from zexchange.verification.note import NoteKey

    paths = DataPaths(data)
    if not paths.genesis.is_file():
        raise exits.CommandFailed(f"there is no genesis file in {paths.root}: it names the settlement key")
    genesis = load_genesis(paths.genesis)
    key = NoteKey(origin_of(genesis.name), genesis.settlement_public_key)
    try:
        proven = verify_balance_proof(file.read(), key, account_id)
    except BalanceProofInvalid as error:
        raise exits.CommandFailed(f"the proof proves nothing: {error}", exits.MISMATCH) from None
    _show(proven, genesis, as_json)
    return exits.OK


def _show(proven: "ProvenAccount", genesis: "Genesis", as_json: bool) -> None:
    from datetime import UTC, datetime

    from zexchange.client.units import units_to_amount

    assets = {asset.asset_id: asset for asset in genesis.assets}
    rows = [
        (
            assets[asset_id].symbol,
            *(
                units_to_amount(assets[asset_id], units)
                for units in (one.available, one.held, one.available + one.held)
            ),
        )
        for asset_id, one in proven.balances().items()
    ]
    at = datetime.fromtimestamp(proven.time_ns // 1_000_000_000, UTC)
    if as_json:
        print_json(
            {
                "account_id": proven.account_id,
                "checkpoint": proven.checkpoint,
                "time": at.isoformat(),
                "is_open": any(one.is_open for one in proven.shards),
                "balances": [
                    {"asset": asset, "available": available, "held": held, "total": total}
                    for asset, available, held, total in rows
                ],
            }
        )
        return
    click.echo(
        f"account {proven.account_id} at checkpoint {proven.checkpoint}, signed {at:%Y-%m-%d %H:%M:%S} UTC"
    )
    if not any(one.is_open for one in proven.shards):
        click.echo("it is not open")
        return
    print_table(
        ("ASSET", "AVAILABLE", "HELD", "TOTAL"),
        [(asset, *(format(one, "f") for one in amounts)) for asset, *amounts in rows],
        right=(1, 2, 3),
    )
