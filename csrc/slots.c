#include "slots.h"

static uint32_t words_of(uint32_t bits) {
    return bits / 64 + (bits % 64 != 0);
}

size_t slots_words(uint32_t capacity) {
    uint32_t level_words = words_of(capacity);
    size_t words = level_words;
    do {
        level_words = words_of(level_words);
        words += (size_t)level_words * 2;
    } while (level_words > 1);
    return words;
}

void slots_init(slots *self, uint32_t capacity, uint64_t *words) {
    ZX_ASSERT(capacity > 0);
    uint32_t level_words = words_of(capacity);
    *self = (slots){.capacity = capacity, .levels = 1};
    self->any[0] = self->full[0] = words;
    self->words[0] = level_words;
    words += level_words;
    do {
        level_words = words_of(level_words);
        self->any[self->levels] = words;
        self->full[self->levels] = words + level_words;
        self->words[self->levels] = level_words;
        words += (size_t)level_words * 2;
        self->levels++;
    } while (level_words > 1);
}

uint32_t slots_highest_taken(const slots *self) {
    if (self->count == 0) return ZX_NONE;
    uint32_t index = 0;
    for (uint32_t level = self->levels; level-- > 0;) {
        const uint64_t word = self->any[level][index];
        ZX_ASSERT(word != 0);
        index = index * 64 + 63 - (uint32_t)__builtin_clzll(word);
    }
    return index;
}

uint32_t slots_next_taken(const slots *self, uint32_t from) {
    /* Climb until a word has a bit at or after the position, then descend along the lowest bits. */
    uint32_t index = from;
    for (uint32_t level = 0; level < self->levels; level++) {
        uint32_t word_index = index / 64;
        if (word_index >= self->words[level]) return ZX_NONE;
        const uint64_t word = self->any[level][word_index] & UINT64_MAX << (index % 64);
        if (word != 0) {
            index = word_index * 64 + (uint32_t)__builtin_ctzll(word);
            while (level-- > 0) index = index * 64 + (uint32_t)__builtin_ctzll(self->any[level][index]);
            return index;
        }
        index = word_index + 1;
    }
    return ZX_NONE;
}

/* Before a slot is taken or freed. */
static inline void before_change(const slots *self, uint32_t slot) {
    if (__builtin_expect(self->undo == NULL, 1)) return;
    uint32_t index = slot;
    for (uint32_t level = 0; level < self->levels; level++) {
        undo_keep(self->undo, &self->any[level][index / 64], sizeof(uint64_t));
        undo_keep(self->undo, &self->full[level][index / 64], sizeof(uint64_t));
        index /= 64;
    }
}

/* Where the first word of full[1] from `group` on is that has a bit to set; there is one, or the set is full. */
static uint32_t find_open_group(const slots *self, uint32_t group) {
    if (self->count == self->capacity) return self->words[1];
    uint32_t level = 1;
    uint32_t index = group;
    while (self->full[level][index] == UINT64_MAX) {
        level++;
        index /= 64; /* those before it are full: the word above says so, and of none behind it */
    }
    for (; level > 1; level--) index = index * 64 + (uint32_t)__builtin_ctzll(~self->full[level][index]);
    return index;
}

void slots_take_above(slots *self, uint32_t slot) {
    before_change(self, slot);
    self->count++;
    uint64_t *word = &self->any[0][slot / 64];
    const bool was_empty = *word == 0;
    *word |= UINT64_C(1) << (slot % 64);
    uint32_t index = slot / 64;
    for (uint32_t level = 1; was_empty && level < self->levels; level++, index /= 64) {
        word = &self->any[level][index / 64];
        const bool is_known = *word != 0;
        *word |= UINT64_C(1) << (index % 64);
        if (is_known) break;
    }
    if (self->any[0][slot / 64] == UINT64_MAX) {
        index = slot / 64;
        for (uint32_t level = 1; level < self->levels; level++, index /= 64) {
            word = &self->full[level][index / 64];
            *word |= UINT64_C(1) << (index % 64);
            if (*word != UINT64_MAX) break;
        }
    }
    self->open_group = find_open_group(self, self->open_group);
}

void slots_free_above(slots *self, uint32_t slot) {
    before_change(self, slot);
    self->count--;
    uint64_t *word = &self->any[0][slot / 64];
    const bool was_full = *word == UINT64_MAX;
    *word &= ~(UINT64_C(1) << (slot % 64));
    uint32_t index = slot / 64;
    for (uint32_t level = 1; was_full && level < self->levels; level++, index /= 64) {
        word = &self->full[level][index / 64];
        const bool is_known = *word != UINT64_MAX;
        *word &= ~(UINT64_C(1) << (index % 64));
        if (is_known) break;
    }
    if (self->any[0][slot / 64] == 0) {
        index = slot / 64;
        for (uint32_t level = 1; level < self->levels; level++, index /= 64) {
            word = &self->any[level][index / 64];
            *word &= ~(UINT64_C(1) << (index % 64));
            if (*word != 0) break;
        }
    }
}
