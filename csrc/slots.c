#include "slots.h"

static uint32_t words_of(uint32_t bits) {
    return bits / 64 + (bits % 64 != 0);
}

size_t slots_words(uint32_t capacity) {
    uint32_t level_words = words_of(capacity);
    size_t words = level_words;
    while (level_words > 1) {
        level_words = words_of(level_words);
        words += (size_t)level_words * 2;
    }
    return words;
}

void slots_init(slots *self, uint32_t capacity, uint64_t *words) {
    ZX_ASSERT(capacity > 0);
    uint32_t level_words = words_of(capacity);
    *self = (slots){.capacity = capacity, .levels = 1};
    self->any[0] = self->full[0] = words;
    self->words[0] = level_words;
    words += level_words;
    while (level_words > 1) {
        level_words = words_of(level_words);
        self->any[self->levels] = words;
        self->full[self->levels] = words + level_words;
        self->words[self->levels] = level_words;
        words += (size_t)level_words * 2;
        self->levels++;
    }
}

uint32_t slots_lowest_free(const slots *self) {
    if (self->count == self->capacity) return ZX_NONE;
    uint32_t index = 0;
    for (uint32_t level = self->levels; level-- > 0;) {
        const uint64_t word = self->full[level][index];
        ZX_ASSERT(word != UINT64_MAX);
        index = index * 64 + (uint32_t)__builtin_ctzll(~word);
    }
    ZX_ASSERT(index < self->capacity);
    return index;
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

void slots_take(slots *self, uint32_t slot) {
    ZX_ASSERT(slot < self->capacity && !slots_is_taken(self, slot));
    before_change(self, slot);
    self->count++;
    bool was_empty = true;
    bool is_full = true;
    uint32_t index = slot;
    for (uint32_t level = 0; level < self->levels && (was_empty || is_full); level++) {
        const uint64_t bit = UINT64_C(1) << (index % 64);
        uint64_t *const any = &self->any[level][index / 64];
        uint64_t *const full = &self->full[level][index / 64];
        const bool above_was_empty = *any == 0;
        if (was_empty) *any |= bit;
        if (is_full) *full |= bit;
        was_empty = was_empty && above_was_empty;
        is_full = is_full && *full == UINT64_MAX;
        index /= 64;
    }
}

void slots_free(slots *self, uint32_t slot) {
    ZX_ASSERT(slots_is_taken(self, slot));
    before_change(self, slot);
    self->count--;
    bool is_empty = true;
    bool was_full = true;
    uint32_t index = slot;
    for (uint32_t level = 0; level < self->levels && (is_empty || was_full); level++) {
        const uint64_t bit = UINT64_C(1) << (index % 64);
        uint64_t *const any = &self->any[level][index / 64];
        uint64_t *const full = &self->full[level][index / 64];
        const bool above_was_full = *full == UINT64_MAX;
        if (is_empty) *any &= ~bit;
        if (was_full) *full &= ~bit;
        is_empty = is_empty && *any == 0;
        was_full = was_full && above_was_full;
        index /= 64;
    }
}
