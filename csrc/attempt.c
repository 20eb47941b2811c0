#include "attempt.h"

static void tell(engine *self, undo *changes) {
    self->undo = changes;
    self->ledger.undo = changes;
    self->ledger.balance_map.undo = changes;
    book_pool_tell(&self->pool, changes);
    ids_tell(&self->by_id, changes);
    self->client_order_map.undo = changes;
    self->lanes.undo = changes;
    self->lanes.map.undo = changes;
    self->due_markets.undo = changes;
    self->uncrossing_markets.undo = changes;
    self->timed_markets.undo = changes;
}

void attempt_begin(engine *self) {
    ZX_ASSERT(self->undo == NULL);
    *self->before = *self;
    tell(self, &self->changes);
}

void attempt_keep(engine *self) {
    tell(self, NULL);
    undo_forget(&self->changes);
}

void attempt_undo(engine *self) {
    undo_all(&self->changes);
    memcpy(self->before->trees, self->trees, sizeof self->trees); /* keep what they know of changed leaves */
    *self = *self->before;
}
