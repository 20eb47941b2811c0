#include "ledger.h"

ledger_plan ledger_reserve(arena *memory, const ledger_limits *limits) {
    return (ledger_plan){
        .accounts = arena_reserve(memory, limits->accounts, sizeof(ledger_account)),
        .keys = arena_reserve(memory, limits->keys, sizeof(ledger_key)),
        .balances = arena_reserve(memory, limits->balances, sizeof(ledger_balance)),
        .supplies = arena_reserve(memory, limits->assets, sizeof(uint64_t)),
        .asset_ids = arena_reserve(memory, limits->assets, sizeof(uint32_t)),
        .asset_symbols = arena_reserve(memory, limits->assets, LEDGER_SYMBOL_BYTES),
        .asset_decimals = arena_reserve(memory, limits->assets, sizeof(uint8_t)),
        .sums = arena_reserve(memory, limits->assets, sizeof(zx_u128)),
        .key_entries = arena_reserve(memory, idmap_entries(limits->keys), sizeof(idmap_entry)),
        .balance_entries = arena_reserve(memory, idmap_entries(limits->balances), sizeof(idmap_entry)),
        .asset_entries = arena_reserve(memory, idmap_entries(limits->assets), sizeof(idmap_entry)),
        .asset_symbol_entries = arena_reserve(memory, idmap_entries(limits->assets), sizeof(idmap_entry)),
        .limits = *limits,
    };
}

void ledger_init(ledger *self, const ledger_plan *plan, const arena *memory, uint64_t seed) {
    *self = (ledger){
        .accounts = arena_at(memory, plan->accounts),
        .keys = arena_at(memory, plan->keys),
        .balances = arena_at(memory, plan->balances),
        .supplies = arena_at(memory, plan->supplies),
        .asset_ids = arena_at(memory, plan->asset_ids),
        .asset_symbols = arena_at(memory, plan->asset_symbols),
        .asset_decimals = arena_at(memory, plan->asset_decimals),
        .sums = arena_at(memory, plan->sums),
        .limits = plan->limits,
        .seed = seed,
    };
    idmap_init(&self->key_map, plan->limits.keys, arena_at(memory, plan->key_entries));
    idmap_init(&self->balance_map, plan->limits.balances, arena_at(memory, plan->balance_entries));
    idmap_init(&self->asset_map, plan->limits.assets, arena_at(memory, plan->asset_entries));
    idmap_init(&self->asset_symbol_map, plan->limits.assets, arena_at(memory, plan->asset_symbol_entries));
}

/* ------------------------------------------------------------ accounts, keys */

void ledger_open_account(ledger *self, uint32_t account_id) {
    ZX_ASSERT(account_id < self->limits.accounts && !ledger_is_open(self, account_id));
    self->accounts[account_id] = (ledger_account){
        .first_balance = ZX_NONE,
        .order_head = ZX_NONE,
        .order_tail = ZX_NONE,
        .opened = 1,
    };
    self->account_count++;
    if (account_id > self->highest_account) self->highest_account = account_id;
}

static uint64_t hash_key(const ledger *self, const uint8_t *public_key) {
    return idmap_hash_bytes(self->seed, public_key);
}

uint32_t ledger_find_key(const ledger *self, const uint8_t *public_key) {
    idmap_cursor cursor;
    uint32_t index = idmap_first(&self->key_map, hash_key(self, public_key), &cursor);
    while (index != ZX_NONE && memcmp(self->keys[index].public_key, public_key, LEDGER_KEY_BYTES) != 0) {
        index = idmap_next(&self->key_map, &cursor);
    }
    return index;
}

uint32_t ledger_add_key(ledger *self, const uint8_t *public_key, uint32_t account_id) {
    ZX_ASSERT(self->key_count < self->limits.keys && ledger_is_open(self, account_id));
    const uint32_t index = self->key_count++;
    ledger_key *const key = &self->keys[index];
    *key = (ledger_key){.window = {1}, .account = account_id}; /* nonce 0 counts as used */
    memcpy(key->public_key, public_key, LEDGER_KEY_BYTES);
    idmap_insert(&self->key_map, hash_key(self, public_key), index);
    return index;
}

/* ------------------------------------------------------------ nonces */

enum ledger_nonce_status ledger_nonce_check(const ledger_key *key, uint64_t nonce) {
    if (nonce > key->highest_nonce) return LEDGER_NONCE_UNSEEN;
    if (key->highest_nonce - nonce >= LEDGER_NONCE_WINDOW) return LEDGER_NONCE_TOO_OLD;
    const uint32_t bit = (uint32_t)(nonce % LEDGER_NONCE_WINDOW);
    return key->window[bit / 64] >> (bit % 64) & 1 ? LEDGER_NONCE_USED : LEDGER_NONCE_UNSEEN;
}

void ledger_nonce_use(ledger_key *key, uint64_t nonce) {
    ZX_ASSERT(ledger_nonce_check(key, nonce) == LEDGER_NONCE_UNSEEN);
    if (nonce > key->highest_nonce) {
        if (nonce - key->highest_nonce >= LEDGER_NONCE_WINDOW) {
            memset(key->window, 0, sizeof key->window);
        } else {
            /* The nonces skipped were not used; their bits still say what was true 1,024 nonces ago. */
            for (uint64_t skipped = key->highest_nonce + 1; skipped < nonce; skipped++) {
                const uint32_t bit = (uint32_t)(skipped % LEDGER_NONCE_WINDOW);
                key->window[bit / 64] &= ~(UINT64_C(1) << (bit % 64));
            }
        }
        key->highest_nonce = nonce;
    }
    const uint32_t bit = (uint32_t)(nonce % LEDGER_NONCE_WINDOW);
    key->window[bit / 64] |= UINT64_C(1) << (bit % 64);
}

/* ------------------------------------------------------------ assets, balances */

uint32_t ledger_find_asset(const ledger *self, uint32_t asset_id) {
    idmap_cursor cursor;
    uint32_t asset = idmap_first(&self->asset_map, idmap_hash(self->seed, asset_id, 0), &cursor);
    while (asset != ZX_NONE && self->asset_ids[asset] != asset_id) {
        asset = idmap_next(&self->asset_map, &cursor);
    }
    return asset;
}

uint32_t ledger_find_symbol(const ledger *self, const uint8_t symbol[LEDGER_SYMBOL_BYTES]) {
    idmap_cursor cursor;
    uint32_t asset = idmap_first(&self->asset_symbol_map, idmap_hash_bytes(self->seed, symbol), &cursor);
    while (asset != ZX_NONE && memcmp(self->asset_symbols[asset], symbol, LEDGER_SYMBOL_BYTES) != 0) {
        asset = idmap_next(&self->asset_symbol_map, &cursor);
    }
    return asset;
}

uint32_t ledger_add_asset(
    ledger *self, uint32_t asset_id, const uint8_t symbol[LEDGER_SYMBOL_BYTES], uint32_t decimals
) {
    ZX_ASSERT(self->asset_count < self->limits.assets);
    const uint32_t asset = self->asset_count++;
    self->asset_ids[asset] = asset_id;
    self->asset_decimals[asset] = (uint8_t)decimals;
    memcpy(self->asset_symbols[asset], symbol, LEDGER_SYMBOL_BYTES);
    idmap_insert(&self->asset_map, idmap_hash(self->seed, asset_id, 0), asset);
    idmap_insert(&self->asset_symbol_map, idmap_hash_bytes(self->seed, symbol), asset);
    return asset;
}

static uint64_t hash_balance(const ledger *self, uint32_t account_id, uint32_t asset) {
    return idmap_hash(self->seed, account_id, asset);
}

uint32_t ledger_find_balance(const ledger *self, uint32_t account_id, uint32_t asset) {
    idmap_cursor cursor;
    uint32_t index = idmap_first(&self->balance_map, hash_balance(self, account_id, asset), &cursor);
    while (index != ZX_NONE &&
           (self->balances[index].account != account_id || self->balances[index].asset != asset)) {
        index = idmap_next(&self->balance_map, &cursor);
    }
    return index;
}

uint32_t ledger_make_balance(ledger *self, uint32_t account_id, uint32_t asset) {
    const uint32_t existing = ledger_find_balance(self, account_id, asset);
    if (existing != ZX_NONE) return existing;
    if (ledger_balances_full(self)) return ZX_NONE;
    ZX_ASSERT(ledger_is_open(self, account_id) && asset < self->asset_count);
    const uint32_t index = self->balance_count++;
    ledger_account *const account = &self->accounts[account_id];
    uint32_t *link = &account->first_balance;
    while (*link != ZX_NONE && self->asset_ids[self->balances[*link].asset] < self->asset_ids[asset]) {
        link = &self->balances[*link].next;
    }
    undo_before(self->undo, account, sizeof *account);
    undo_before(self->undo, link, sizeof *link);
    ledger_before(self, index);
    self->balances[index] = (ledger_balance){.account = account_id, .asset = asset, .next = *link};
    *link = index;
    account->balance_count++;
    idmap_insert(&self->balance_map, hash_balance(self, account_id, asset), index);
    return index;
}

/* ------------------------------------------------------------ check */

const char *ledger_check(const ledger *self) {
    if (self->asset_count > self->limits.assets || self->asset_count != self->asset_map.count ||
        self->asset_count != self->asset_symbol_map.count) {
        return "assets are miscounted";
    }
    for (uint32_t asset = 0; asset < self->asset_count; asset++) {
        if (ledger_find_asset(self, self->asset_ids[asset]) != asset ||
            ledger_find_symbol(self, self->asset_symbols[asset]) != asset) {
            return "an asset is not found";
        }
    }
    memset(self->sums, 0, self->asset_count * sizeof(zx_u128));
    for (uint32_t index = 0; index < self->balance_count; index++) {
        const ledger_balance *const balance = &self->balances[index];
        if (balance->available > ZX_AMOUNT_MAX || balance->held > ZX_AMOUNT_MAX) {
            return "a balance is out of range";
        }
        if (ledger_find_balance(self, balance->account, balance->asset) != index) {
            return "a balance is not found";
        }
        self->sums[balance->asset] += (zx_u128)balance->available + balance->held;
    }
    for (uint32_t asset = 0; asset < self->asset_count; asset++) {
        if (self->supplies[asset] > ZX_AMOUNT_MAX) return "a supply does not fit in 63 bits";
        if (self->sums[asset] != self->supplies[asset]) {
            return "the balances of an asset do not add up to its supply";
        }
    }
    uint32_t accounts = 0;
    uint32_t balances = 0;
    for (uint32_t id = 0; id <= self->highest_account; id++) {
        const ledger_account *const account = &self->accounts[id];
        if (!account->opened) continue;
        accounts++;
        uint32_t count = 0;
        uint32_t asset_id_before = 0;
        for (uint32_t index = account->first_balance; index != ZX_NONE; index = self->balances[index].next) {
            const uint32_t asset_id = self->asset_ids[self->balances[index].asset];
            if (self->balances[index].account != id) return "a balance is in another account's list";
            if (asset_id <= asset_id_before) return "an account's balances are not sorted";
            asset_id_before = asset_id;
            count++;
        }
        if (count != account->balance_count) return "an account's number of balances is wrong";
        balances += count;
    }
    if (accounts != self->account_count || balances != self->balance_count) {
        return "accounts or balances are lost";
    }
    for (uint32_t index = 0; index < self->key_count; index++) {
        const ledger_key *const key = &self->keys[index];
        if (ledger_find_key(self, key->public_key) != index) return "a key is not found";
        if (!ledger_is_open(self, key->account)) return "a key belongs to no account";
        if (ledger_nonce_check(key, key->highest_nonce) != LEDGER_NONCE_USED) {
            return "a highest nonce is not used";
        }
    }
    return NULL;
}
