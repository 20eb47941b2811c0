/*
 * definitions.h: what an asset and a market are, from the genesis file or by an operator's command (docs/rules.md
 * section 8).
 *
 *     engine_config ──┐                        ┌──▶ ledger: ids, symbols, decimals, supplies
 *     addAsset        ├──▶ refusal? ──▶ add ───┤
 *     addMarket     ──┘                        └──▶ engine.markets, its maps, a balance for its fees
 *
 * Both tables only grow, up to what the configuration has reserved. A symbol is 32 bytes: 1 to 32 of A-Z, 0-9, '.',
 * '_', '-', letter or digit first, the rest zero. What is checked here is a standing truth of every shard.
 *
 * Cost: everything O(1), but for the tick of a market, which takes 36 divisions.
 */
#ifndef ZX_DEFINITIONS_H
#define ZX_DEFINITIONS_H

#include "engine.h"

#define DEFINITIONS_DECIMALS_MAX 18u
#define DEFINITIONS_TICK_DECIMALS_MAX 18u
#define DEFINITIONS_TABLE_MAX 65536u /* assets of a shard, and markets */

bool definitions_symbol_is_sound(const uint8_t symbol[ENGINE_SYMBOL_BYTES]);

/* Whether both amounts are in range, and the tick size that follows from them, quote_units / base_units in units of the
 * assets, is a decimal number of at most DEFINITIONS_TICK_DECIMALS_MAX decimals. */
bool definitions_sizes_are_sound(
    uint32_t base_decimals, uint32_t quote_decimals, uint64_t base_units_per_lot, uint64_t quote_units_per_tick_lot
);

bool definitions_fees_are_sound(int32_t maker_fee_ppm, uint32_t taker_fee_ppm);

/* Reason why the asset cannot be added, or ZX_REASON_NONE. */
int definitions_asset_refusal(const engine *self, const engine_asset_config *asset);

/* Adds an asset that is not refused. */
void definitions_add_asset(engine *self, const engine_asset_config *asset);

/* Reason why the market cannot be added, or ZX_REASON_NONE. An asset that is not there is ZX_NONE in `market`. */
int definitions_market_refusal(const engine *self, const engine_market_config *market);

/* Adds a market that is not refused, in this state, and account 0's balance for its fees. */
engine_market *definitions_add_market(engine *self, const engine_market_config *market, uint32_t state);

/* Gives a market other sizes, which are sound. */
void definitions_set_sizes(engine_market *market, uint64_t base_units_per_lot, uint64_t quote_units_per_tick_lot);

/* Position of the market with this symbol, or ZX_NONE. */
uint32_t definitions_find_symbol(const engine *self, const uint8_t symbol[ENGINE_SYMBOL_BYTES]);

/* NULL, or a sentence about what does not hold of the definitions. */
const char *definitions_check(const engine *self);

#endif
