#define _DEFAULT_SOURCE /* MAP_ANONYMOUS, MAP_NORESERVE */

#include "arena.h"

#include <sys/mman.h>

size_t arena_reserve(arena *self, size_t count, size_t size) {
    ZX_ASSERT(self->base == NULL);
    const size_t offset = self->size;
    const size_t length = (count * size + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    self->size += length;
    return offset;
}

int arena_map(arena *self) {
    void *const base =
        mmap(NULL, self->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) return ZX_ERROR_MEMORY;
    self->base = base;
    return ZX_OK;
}

int arena_map_huge(arena *self) {
    const int error = arena_map(self);
    /* Without them it is as correct, and slower: so it is no error if there are none. */
    if (error == ZX_OK) (void)madvise(self->base, self->size, MADV_HUGEPAGE);
    return error;
}

void arena_touch(const arena *self, size_t offset, size_t bytes) {
    volatile uint8_t *const at = self->base + offset;
    for (size_t touched = 0; touched < bytes; touched += 4096) at[touched] = at[touched];
}

void arena_unmap(arena *self) {
    if (self->base != NULL) munmap(self->base, self->size);
    self->base = NULL;
}
