#include "undo.h"

undo_plan undo_reserve(arena *memory) {
    const size_t lines = memory->size / ARENA_ALIGN;
    ZX_ASSERT(lines <= UINT32_MAX);
    return (undo_plan){
        .kept = arena_reserve(memory, lines / 64 + 1, sizeof(uint64_t)),
        .contents = arena_reserve(memory, lines, ARENA_ALIGN),
        .lines = arena_reserve(memory, lines, sizeof(uint32_t)),
        .capacity = (uint32_t)lines,
    };
}

void undo_init(undo *self, const undo_plan *plan, const arena *memory) {
    *self = (undo){
        .base = memory->base,
        .kept = arena_at(memory, plan->kept),
        .contents = arena_at(memory, plan->contents),
        .lines = arena_at(memory, plan->lines),
        .capacity = plan->capacity,
    };
}

static uint8_t *line_at(const undo *self, uint32_t line) {
    return self->base + (size_t)line * ARENA_ALIGN;
}

void undo_keep(undo *self, const void *at, size_t size) {
    const size_t offset = (size_t)((const uint8_t *)at - self->base);
    const uint32_t end = (uint32_t)((offset + size + ARENA_ALIGN - 1) / ARENA_ALIGN);
    for (uint32_t line = (uint32_t)(offset / ARENA_ALIGN); line < end; line++) {
        uint64_t *const word = &self->kept[line / 64];
        const uint64_t bit = UINT64_C(1) << (line % 64);
        if (*word & bit) continue;
        ZX_ASSERT(self->count < self->capacity);
        *word |= bit;
        memcpy(self->contents + (size_t)self->count * ARENA_ALIGN, line_at(self, line), ARENA_ALIGN);
        self->lines[self->count++] = line;
    }
}

void undo_all(undo *self) {
    for (uint32_t index = 0; index < self->count; index++) {
        memcpy(line_at(self, self->lines[index]), self->contents + (size_t)index * ARENA_ALIGN, ARENA_ALIGN);
    }
    undo_forget(self);
}

void undo_forget(undo *self) {
    for (uint32_t index = 0; index < self->count; index++) self->kept[self->lines[index] / 64] = 0;
    self->count = 0;
}
