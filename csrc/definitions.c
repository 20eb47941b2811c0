/* definitions.c: assets and markets of a shard. */

#include "definitions.h"

/* ------------------------------------------------------------ what is sound */

static bool is_letter_or_digit(uint8_t character) {
    return (character >= 'A' && character <= 'Z') || (character >= '0' && character <= '9');
}

bool definitions_symbol_is_sound(const uint8_t symbol[ENGINE_SYMBOL_BYTES]) {
    if (!is_letter_or_digit(symbol[0])) return false;
    uint32_t length = 1;
    while (length < ENGINE_SYMBOL_BYTES &&
           (is_letter_or_digit(symbol[length]) || symbol[length] == '.' || symbol[length] == '_' ||
            symbol[length] == '-')) {
        length++;
    }
    while (length < ENGINE_SYMBOL_BYTES && symbol[length] == 0) length++;
    return length == ENGINE_SYMBOL_BYTES;
}

/* The tick is quote_units * 10^base_decimals / (base_units * 10^quote_decimals): a decimal number of so many decimals
 * if base_units * 10^quote_decimals divides quote_units * 10^(base_decimals + TICK_DECIMALS_MAX). */
bool definitions_sizes_are_sound(
    uint32_t base_decimals, uint32_t quote_decimals, uint64_t base_units_per_lot, uint64_t quote_units_per_tick_lot
) {
    if (base_units_per_lot < 1 || base_units_per_lot > ZX_AMOUNT_MAX) return false;
    if (quote_units_per_tick_lot < 1 || quote_units_per_tick_lot > ZX_AMOUNT_MAX) return false;
    zx_u128 divisor = base_units_per_lot; /* at most 2^63 * 10^18, so that ten times it fits */
    for (uint32_t place = 0; place < quote_decimals; place++) divisor *= 10;
    zx_u128 rest = quote_units_per_tick_lot % divisor;
    for (uint32_t place = 0; place < base_decimals + DEFINITIONS_TICK_DECIMALS_MAX && rest != 0; place++) {
        rest = rest * 10 % divisor;
    }
    return rest == 0;
}

bool definitions_fees_are_sound(int32_t maker_fee_ppm, uint32_t taker_fee_ppm) {
    return maker_fee_ppm <= (int32_t)ENGINE_FEE_PPM_MAX && taker_fee_ppm <= ENGINE_FEE_PPM_MAX &&
           maker_fee_ppm >= -(int32_t)taker_fee_ppm;
}

/* ------------------------------------------------------------ assets */

int definitions_asset_refusal(const engine *self, const engine_asset_config *asset) {
    if (asset->asset_id == 0) return ZX_REASON_ID_INVALID;
    if (ledger_find_asset(&self->ledger, asset->asset_id) != ZX_NONE) return ZX_REASON_ASSET_EXISTS;
    if (!definitions_symbol_is_sound(asset->symbol)) return ZX_REASON_SYMBOL_INVALID;
    if (ledger_find_symbol(&self->ledger, asset->symbol) != ZX_NONE) return ZX_REASON_SYMBOL_IN_USE;
    if (asset->decimals > DEFINITIONS_DECIMALS_MAX) return ZX_REASON_DECIMALS_INVALID;
    if (self->ledger.asset_count == self->ledger.limits.assets) return ZX_REASON_ASSET_LIMIT;
    return ZX_REASON_NONE;
}

void definitions_add_asset(engine *self, const engine_asset_config *asset) {
    ledger_add_asset(&self->ledger, asset->asset_id, asset->symbol, asset->decimals);
}

/* ------------------------------------------------------------ markets */

static uint64_t hash_symbol(const engine *self, const uint8_t symbol[ENGINE_SYMBOL_BYTES]) {
    return idmap_hash_bytes(self->hash_seed, symbol);
}

uint32_t definitions_find_symbol(const engine *self, const uint8_t symbol[ENGINE_SYMBOL_BYTES]) {
    idmap_cursor cursor;
    uint32_t index = idmap_first(&self->market_symbol_map, hash_symbol(self, symbol), &cursor);
    while (index != ZX_NONE && memcmp(self->markets[index].symbol, symbol, ENGINE_SYMBOL_BYTES) != 0) {
        index = idmap_next(&self->market_symbol_map, &cursor);
    }
    return index;
}

int definitions_market_refusal(const engine *self, const engine_market_config *market) {
    const ledger *const money = &self->ledger;
    if (market->market_id == 0) return ZX_REASON_ID_INVALID;
    if (engine_find_market(self, market->market_id) != NULL) return ZX_REASON_MARKET_EXISTS;
    if (!definitions_symbol_is_sound(market->symbol)) return ZX_REASON_SYMBOL_INVALID;
    if (definitions_find_symbol(self, market->symbol) != ZX_NONE) return ZX_REASON_SYMBOL_IN_USE;
    if (market->base_asset >= money->asset_count || market->quote_asset >= money->asset_count) {
        return ZX_REASON_UNKNOWN_ASSET;
    }
    if (market->base_asset == market->quote_asset) return ZX_REASON_MARKET_ASSETS_INVALID;
    if (!definitions_sizes_are_sound(
            money->asset_decimals[market->base_asset], money->asset_decimals[market->quote_asset],
            market->base_units_per_lot, market->quote_units_per_tick_lot
        )) {
        return ZX_REASON_SIZES_INVALID;
    }
    if (!definitions_fees_are_sound(market->maker_fee_ppm, market->taker_fee_ppm)) return ZX_REASON_FEES_INVALID;
    if (self->market_count == self->markets_max) return ZX_REASON_MARKET_LIMIT;
    if (ledger_find_balance(money, ENGINE_OPERATOR_ACCOUNT, market->quote_asset) == ZX_NONE &&
        ledger_balances_full(money)) {
        return ZX_REASON_BALANCE_POOL_FULL;
    }
    return ZX_REASON_NONE;
}

engine_market *definitions_add_market(engine *self, const engine_market_config *definition, uint32_t state) {
    const uint32_t index = self->market_count++;
    engine_market *const market = &self->markets[index];
    *market = (engine_market){
        .market_id = definition->market_id,
        .base_asset = definition->base_asset,
        .quote_asset = definition->quote_asset,
        .state = state,
        .maker_fee_ppm = definition->maker_fee_ppm,
        .taker_fee_ppm = definition->taker_fee_ppm,
        .worst_fee_ppm = definition->maker_fee_ppm > (int32_t)definition->taker_fee_ppm
                             ? (uint32_t)definition->maker_fee_ppm
                             : definition->taker_fee_ppm,
        .trailing_head = ZX_NONE,
        .trailing_tail = ZX_NONE,
        .auction_head = ZX_NONE,
        .auction_tail = ZX_NONE,
        .fee_balance = ledger_make_balance(&self->ledger, ENGINE_OPERATOR_ACCOUNT, definition->quote_asset),
    };
    ZX_ASSERT(market->fee_balance != ZX_NONE);
    definitions_set_sizes(market, definition->base_units_per_lot, definition->quote_units_per_tick_lot);
    memcpy(market->symbol, definition->symbol, ENGINE_SYMBOL_BYTES);
    book_init(&market->book, &self->pool, index);
    book_use_windows(&market->book, index);
    for (uint32_t on_reference = 0; on_reference < 2; on_reference++) {
        book_init(&market->stops[on_reference], &self->pool, index);
    }
    book_init(&market->for_auctions, &self->pool, index);
    idmap_insert(&self->market_map, engine_hash_market(self, market->market_id), index);
    idmap_insert(&self->market_symbol_map, hash_symbol(self, market->symbol), index);
    return market;
}

void definitions_set_sizes(engine_market *market, uint64_t base_units_per_lot, uint64_t quote_units_per_tick_lot) {
    market->base_units_per_lot = base_units_per_lot;
    market->quote_units_per_tick_lot = quote_units_per_tick_lot;
}

/* ------------------------------------------------------------ lists */

uint32_t engine_assets(const engine *self, uint32_t first, uint32_t assets_max, struct zx_asset_definition *at) {
    const ledger *const money = &self->ledger;
    uint32_t count = 0;
    for (uint32_t asset = first; asset < money->asset_count && count < assets_max; asset++) {
        struct zx_asset_definition *const one = &at[count++];
        *one = (struct zx_asset_definition){
            .asset_id = money->asset_ids[asset],
            .decimals = money->asset_decimals[asset],
        };
        memcpy(one->symbol, money->asset_symbols[asset], ENGINE_SYMBOL_BYTES);
    }
    return count;
}

uint32_t engine_markets(
    const engine *self, uint64_t since_record_no, uint32_t *first, uint32_t markets_max, struct zx_market_definition *at
) {
    uint32_t count = 0;
    uint32_t index = *first;
    for (; index < self->market_count && count < markets_max; index++) {
        if (self->market_defined[index] < since_record_no) continue;
        const engine_market *const market = &self->markets[index];
        struct zx_market_definition *const one = &at[count++];
        *one = (struct zx_market_definition){
            .base_units_per_lot = market->base_units_per_lot,
            .quote_units_per_tick_lot = market->quote_units_per_tick_lot,
            .defined_record_no = self->market_defined[index],
            .market_id = market->market_id,
            .base_asset_id = self->ledger.asset_ids[market->base_asset],
            .quote_asset_id = self->ledger.asset_ids[market->quote_asset],
            .maker_fee_ppm = market->maker_fee_ppm,
            .taker_fee_ppm = market->taker_fee_ppm,
            .sizes_no = market->sizes_no,
        };
        memcpy(one->symbol, market->symbol, ENGINE_SYMBOL_BYTES);
    }
    *first = index < self->market_count ? index : 0;
    return count;
}

/* ------------------------------------------------------------ check */

const char *definitions_check(const engine *self) {
    const ledger *const money = &self->ledger;
    if (self->market_count > self->markets_max || self->market_count != self->market_map.count ||
        self->market_count != self->market_symbol_map.count) {
        return "markets are miscounted";
    }
    for (uint32_t asset = 0; asset < money->asset_count; asset++) {
        if (money->asset_ids[asset] == 0 || !definitions_symbol_is_sound(money->asset_symbols[asset]) ||
            money->asset_decimals[asset] > DEFINITIONS_DECIMALS_MAX) {
            return "an asset is not defined";
        }
    }
    for (uint32_t index = 0; index < self->market_count; index++) {
        const engine_market *const market = &self->markets[index];
        if (engine_find_market(self, market->market_id) != market ||
            definitions_find_symbol(self, market->symbol) != index) {
            return "a market is not found";
        }
        if (market->base_asset >= money->asset_count || market->quote_asset >= money->asset_count ||
            market->base_asset == market->quote_asset) {
            return "a market's assets are wrong";
        }
        if (!definitions_symbol_is_sound(market->symbol) ||
            !definitions_sizes_are_sound(
                money->asset_decimals[market->base_asset], money->asset_decimals[market->quote_asset],
                market->base_units_per_lot, market->quote_units_per_tick_lot
            ) ||
            !definitions_fees_are_sound(market->maker_fee_ppm, market->taker_fee_ppm)) {
            return "a market is not defined";
        }
        if (self->market_defined[index] >= self->next_record_no ||
            (self->market_defined[index] == 0 && market->sizes_no != 0)) {
            return "a market was defined at no time";
        }
        if (market->fee_balance != ledger_find_balance(money, ENGINE_OPERATOR_ACCOUNT, market->quote_asset) ||
            market->fee_balance == ZX_NONE) {
            return "a market's fees have no balance";
        }
    }
    return NULL;
}
