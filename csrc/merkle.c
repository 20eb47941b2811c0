#include "merkle.h"

merkle_plan merkle_reserve(arena *memory, uint32_t capacity) {
    merkle_plan plan = {.capacity = capacity};
    uint32_t count = capacity;
    for (;;) {
        plan.nodes[plan.levels++] = arena_reserve(memory, count, ZX_HASH_BYTES);
        if (count == 1) break;
        count = count / 2 + count % 2;
    }
    plan.work = arena_reserve(memory, capacity, sizeof(uint32_t));
    plan.words = arena_reserve(memory, slots_words(capacity), sizeof(uint64_t));
    return plan;
}

void merkle_init(merkle_tree *self, const merkle_plan *plan, const arena *memory) {
    *self = (merkle_tree){.capacity = plan->capacity, .work = arena_at(memory, plan->work)};
    for (uint32_t level = 0; level < plan->levels; level++) {
        self->nodes[level] = arena_at(memory, plan->nodes[level]);
    }
    slots_init(&self->dirty, plan->capacity, arena_at(memory, plan->words));
}

void merkle_leaf_hash(uint8_t *scratch, size_t length, zx_sha256 sha256, uint8_t out[ZX_HASH_BYTES]) {
    scratch[0] = 0;
    sha256(out, scratch, length + 1);
}

static void node_hash(const uint8_t *pair, zx_sha256 sha256, uint8_t *out) {
    uint8_t data[1 + 2 * ZX_HASH_BYTES];
    data[0] = 1;
    memcpy(data + 1, pair, 2 * ZX_HASH_BYTES);
    sha256(out, data, sizeof data);
}

/* Computes node `index` of the level above `nodes`, which has `count` nodes. */
static void lift(const uint8_t *nodes, uint32_t count, uint32_t index, zx_sha256 sha256, uint8_t *out) {
    const uint8_t *const pair = nodes + (size_t)index * 2 * ZX_HASH_BYTES;
    if ((uint64_t)index * 2 + 1 < count) node_hash(pair, sha256, out);
    else memmove(out, pair, ZX_HASH_BYTES);
}

void merkle_root(
    merkle_tree *self, uint32_t count, const merkle_source *source, uint8_t root[ZX_HASH_BYTES]
) {
    ZX_ASSERT(count <= self->capacity);
    if (count > 0) {
        /* New leaves have no hash yet. A smaller count changes the ancestors of what is now the last leaf. */
        for (uint32_t index = self->count; index < count; index++) merkle_mark(self, index);
        if (count < self->count) merkle_mark(self, count - 1);
    }
    uint32_t works = 0;
    uint32_t index = slots_next_taken(&self->dirty, 0);
    while (index != ZX_NONE) {
        slots_free(&self->dirty, index);
        if (index < count) {
            const size_t length = source->leaf(source->context, index, source->scratch + 1);
            merkle_leaf_hash(
                source->scratch, length, source->sha256, self->nodes[0] + (size_t)index * ZX_HASH_BYTES
            );
            self->work[works++] = index;
        }
        index = slots_next_taken(&self->dirty, index);
    }
    self->count = count;
    if (count == 0) {
        source->sha256(root, source->scratch, 0);
        return;
    }
    uint32_t level = 0;
    for (uint32_t nodes = count; nodes > 1; nodes = nodes / 2 + nodes % 2, level++) {
        uint32_t parents = 0;
        for (uint32_t at = 0; at < works; at++) {
            const uint32_t parent = self->work[at] / 2;
            if (parents > 0 && self->work[parents - 1] == parent) continue;
            lift(
                self->nodes[level], nodes, parent, source->sha256,
                self->nodes[level + 1] + (size_t)parent * ZX_HASH_BYTES
            );
            self->work[parents++] = parent;
        }
        works = parents;
    }
    memcpy(root, self->nodes[level], ZX_HASH_BYTES);
}

uint32_t merkle_path(const merkle_tree *self, uint32_t index, uint8_t *path) {
    ZX_ASSERT(index < self->count);
    uint32_t steps = 0, level = 0;
    for (uint32_t nodes = self->count; nodes > 1; nodes = nodes / 2 + nodes % 2, level++, index /= 2) {
        const uint32_t sibling = index ^ 1u;
        if (sibling >= nodes) continue; /* a lone right node moves up unchanged */
        memcpy(
            path + (size_t)steps * ZX_HASH_BYTES, self->nodes[level] + (size_t)sibling * ZX_HASH_BYTES,
            ZX_HASH_BYTES
        );
        steps++;
    }
    return steps;
}

void merkle_fold(uint8_t *hashes, uint32_t count, zx_sha256 sha256, uint8_t root[ZX_HASH_BYTES]) {
    ZX_ASSERT(count > 0);
    for (; count > 1; count = count / 2 + count % 2) {
        for (uint32_t parent = 0; parent < count / 2 + count % 2; parent++) {
            lift(hashes, count, parent, sha256, hashes + (size_t)parent * ZX_HASH_BYTES);
        }
    }
    memcpy(root, hashes, ZX_HASH_BYTES);
}
