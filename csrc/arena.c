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

#define HUGE_PAGE ((uintptr_t)2 << 20)

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1; older ones refuse it, and leave what was touched on small pages */
#endif

void arena_make_ready(const arena *self, const void *at, size_t bytes) {
    const uintptr_t base = (uintptr_t)self->base;
    const uintptr_t end = base + self->size;
    if (bytes == 0) return;
    uintptr_t from = (uintptr_t)at / HUGE_PAGE * HUGE_PAGE;
    uintptr_t to = ((uintptr_t)at + bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    if (from < base) from = base;
    if (to > end) to = end;
    uint8_t *const begin = self->base + (from - base);
    (void)madvise(begin, to - from, MADV_HUGEPAGE);
    arena_touch(self, from - base, to - from);
    (void)madvise(begin, to - from, MADV_COLLAPSE);
}

void arena_touch(const arena *self, size_t offset, size_t bytes) {
    volatile uint8_t *const at = self->base + offset;
    for (size_t touched = 0; touched < bytes; touched += 4096) at[touched] = at[touched];
}

void arena_unmap(arena *self) {
    if (self->base != NULL) munmap(self->base, self->size);
    self->base = NULL;
}
