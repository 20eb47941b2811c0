#include "idmap.h"

void idmap_insert(idmap *self, uint64_t hash, uint32_t index) {
    ZX_ASSERT(self->count < self->limit && index < ZX_NONE - 1);
    uint32_t position = (uint32_t)hash & self->mask;
    while (self->entries[position].taken != 0) position = (position + 1) & self->mask;
    undo_before(self->undo, &self->entries[position], sizeof(idmap_entry));
    self->entries[position] = (idmap_entry){.hash = (uint32_t)hash, .taken = index + 1};
    self->count++;
}

/* Before an entry is freed and those behind it move. */
static inline void before_removal(const idmap *self, uint32_t hole) {
    if (__builtin_expect(self->undo == NULL, 1)) return;
    for (uint32_t position = hole; self->entries[position].taken != 0; position = (position + 1) & self->mask) {
        undo_keep(self->undo, &self->entries[position], sizeof(idmap_entry));
    }
}

void idmap_remove(idmap *self, uint64_t hash, uint32_t index) {
    uint32_t hole = (uint32_t)hash & self->mask;
    while (self->entries[hole].taken != index + 1 || self->entries[hole].hash != (uint32_t)hash) {
        ZX_ASSERT(self->entries[hole].taken != 0);
        hole = (hole + 1) & self->mask;
    }
    before_removal(self, hole);
    /* Move back every later entry of the run whose home is not between the hole and itself. */
    for (uint32_t position = (hole + 1) & self->mask; self->entries[position].taken != 0;
         position = (position + 1) & self->mask) {
        const uint32_t home = self->entries[position].hash & self->mask;
        if (((position - home) & self->mask) >= ((position - hole) & self->mask)) {
            self->entries[hole] = self->entries[position];
            hole = position;
        }
    }
    self->entries[hole] = (idmap_entry){0};
    self->count--;
}
