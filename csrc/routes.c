#include "routes.h"

#include <stdlib.h>

_Static_assert(ZX_FRAME_HEADER_BYTES + ZX_MESSAGE_HEADER_BYTES == ROUTES_FRAME_HEAD_BYTES, "both headers");

static void write_frame_head(uint8_t *at) {
    const uint32_t length = ROUTES_REPORT_FRAME_BYTES;
    at[0] = (uint8_t)(length >> 24);
    at[1] = (uint8_t)(length >> 16);
    at[2] = (uint8_t)(length >> 8);
    at[3] = (uint8_t)length;
    at[4] = (uint8_t)(ZX_ENCODING_TYPE >> 8);
    at[5] = (uint8_t)(ZX_ENCODING_TYPE & 0xff);
    zx_store_u16(at + 6, ZX_EXECUTION_REPORT_BLOCK_LENGTH);
    zx_store_u16(at + 8, ZX_EXECUTION_REPORT_TEMPLATE_ID);
    zx_store_u16(at + 10, ZX_SCHEMA_ID);
    zx_store_u16(at + 12, ZX_SCHEMA_VERSION);
}

int routes_create(uint32_t accounts_max, routes **out) {
    routes *const self = calloc(1, sizeof *self);
    if (self == NULL) return ZX_ERROR_MEMORY;
    const size_t out_at = arena_reserve(&self->memory, ROUTES_OUT_BYTES, 1);
    /* At worst every entry is a run; an entry is at least a report, and at least one session has each. */
    const size_t runs_max = ROUTES_SESSIONS_MAX + ROUTES_OUT_BYTES_SOFT / ROUTES_REPORT_FRAME_BYTES + 1;
    const size_t runs_at = arena_reserve(&self->memory, runs_max, sizeof(routes_run));
    const size_t sessions_at = arena_reserve(&self->memory, ROUTES_SESSIONS_MAX, sizeof(routes_session));
    const size_t touched_at = arena_reserve(&self->memory, ROUTES_SESSIONS_MAX, sizeof(uint32_t));
    const size_t first_at = arena_reserve(&self->memory, accounts_max, sizeof(uint32_t));
    const size_t last_at = arena_reserve(&self->memory, accounts_max, sizeof(uint32_t));
    if (arena_map(&self->memory) != ZX_OK) {
        free(self);
        return ZX_ERROR_MEMORY;
    }
    self->out = arena_at(&self->memory, out_at);
    self->runs = arena_at(&self->memory, runs_at);
    self->sessions = arena_at(&self->memory, sessions_at);
    self->touched = arena_at(&self->memory, touched_at);
    self->first = arena_at(&self->memory, first_at);
    self->last = arena_at(&self->memory, last_at);
    self->accounts_max = accounts_max;
    self->fresh = ROUTES_NOBODY + 1;
    write_frame_head(self->frame_head);
    *out = self;
    return ZX_OK;
}

void routes_destroy(routes *self) {
    arena_unmap(&self->memory);
    free(self);
}

uint32_t routes_add(routes *self, uint32_t link, uint64_t session_id) {
    uint32_t slot = self->free;
    if (slot != ROUTES_NOBODY) self->free = self->sessions[slot].next;
    else if (self->fresh < ROUTES_SESSIONS_MAX) slot = self->fresh++;
    else return ROUTES_NOBODY;
    self->sessions[slot] = (routes_session){
        .session_id = session_id,
        .link = link,
        .account = ZX_NONE,
    };
    self->count++;
    return slot;
}

void routes_bind(routes *self, uint32_t slot, uint64_t account_id) {
    routes_session *const session = &self->sessions[slot];
    ZX_ASSERT(account_id < self->accounts_max);
    ZX_ASSERT(session->account == ZX_NONE);
    const uint32_t account = (uint32_t)account_id;
    session->account = account;
    session->prev = self->last[account];
    if (session->prev == ROUTES_NOBODY) self->first[account] = slot;
    else self->sessions[session->prev].next = slot;
    self->last[account] = slot;
}

void routes_remove(routes *self, uint32_t slot) {
    routes_session *const session = &self->sessions[slot];
    if (session->account != ZX_NONE) {
        if (session->prev == ROUTES_NOBODY) self->first[session->account] = session->next;
        else self->sessions[session->prev].next = session->next;
        if (session->next == ROUTES_NOBODY) self->last[session->account] = session->prev;
        else self->sessions[session->next].prev = session->prev;
    }
    session->next = self->free;
    self->free = slot;
    self->count--;
}

/* First session of an event's account, the others follow by `next`; of an event without an account none, and
 * `*orphan` is set. */
static uint32_t first_listener(const routes *self, const uint8_t *event, bool *orphan) {
    const uint64_t account_id = zx_load_u64(event + ZX_EXECUTION_REPORT_ACCOUNT_ID_OFFSET);
    *orphan = account_id == ZX_ACCOUNT_NONE;
    if (*orphan) return ROUTES_NOBODY;
    ZX_ASSERT(account_id < self->accounts_max);
    return self->first[account_id];
}

typedef struct tally {
    uint64_t events;  /* that fit */
    uint64_t orphans; /* of these, without an account */
    uint32_t touched; /* sessions with reports */
} tally;

/* Counts the reports of each session. */
static tally count_reports(routes *self, const uint8_t *events, uint64_t count) {
    tally found = {0};
    uint64_t bytes = 0;
    for (; found.events < count && bytes < ROUTES_OUT_BYTES_SOFT; found.events++) {
        bool orphan;
        uint32_t slot =
            first_listener(self, events + found.events * ZX_EXECUTION_REPORT_BLOCK_LENGTH, &orphan);
        if (orphan) {
            found.orphans++;
            bytes += ROUTES_ENTRY_HEADER_BYTES + ROUTES_REPORT_FRAME_BYTES;
        }
        for (; slot != ROUTES_NOBODY; slot = self->sessions[slot].next) {
            routes_session *const session = &self->sessions[slot];
            if (session->reports == 0) self->touched[found.touched++] = slot;
            if (session->reports % ROUTES_REPORTS_PER_ENTRY_MAX == 0) bytes += ROUTES_ENTRY_HEADER_BYTES;
            session->reports++;
            bytes += ROUTES_REPORT_FRAME_BYTES;
        }
    }
    return found;
}

/* Writes the header of an entry at the end of the output; returns the new end. */
static uint64_t begin_entry(
    routes *self, uint64_t *runs, uint64_t offset, uint32_t link, uint64_t session_id, uint32_t reports
) {
    const uint32_t payload = reports * ROUTES_REPORT_FRAME_BYTES;
    const uint32_t length = ROUTES_ENTRY_HEADER_BYTES + payload;
    uint8_t *const at = self->out + offset;
    zx_store_u32(at, payload);
    at[4] = ROUTES_ENTRY_KIND_REPORTS;
    zx_store_u64(at + 5, session_id);
    routes_run *const last = *runs > 0 ? &self->runs[*runs - 1] : NULL;
    if (last != NULL && last->link == link && last->length + length <= ROUTES_RUN_BYTES_MAX) {
        last->length += length;
    } else {
        self->runs[(*runs)++] = (routes_run){.offset = offset, .length = length, .link = link};
    }
    offset += length;
    ZX_ASSERT(offset <= ROUTES_OUT_BYTES);
    return offset;
}

static void write_report(const routes *self, uint64_t offset, const uint8_t *event) {
    uint8_t *const at = self->out + offset;
    memcpy(at, self->frame_head, ROUTES_FRAME_HEAD_BYTES);
    memcpy(at + ROUTES_FRAME_HEAD_BYTES, event, ZX_EXECUTION_REPORT_BLOCK_LENGTH);
}

/* Gives each touched session its place behind `offset` and writes the headers of its entries. */
static void lay_out(routes *self, uint64_t *runs, uint64_t offset, uint32_t touched) {
    for (uint32_t index = 0; index < touched; index++) {
        routes_session *const session = &self->sessions[self->touched[index]];
        session->at = offset;
        session->written = 0;
        for (uint32_t left = session->reports; left > 0;) {
            const uint32_t reports =
                left < ROUTES_REPORTS_PER_ENTRY_MAX ? left : ROUTES_REPORTS_PER_ENTRY_MAX;
            offset = begin_entry(self, runs, offset, session->link, session->session_id, reports);
            left -= reports;
        }
    }
}

routes_collected routes_collect(
    routes *self, const uint8_t *events, uint64_t count, const inbox_origin *origins, uint64_t first_record_no
) {
    const tally found = count_reports(self, events, count);
    const uint64_t orphan_bytes = ROUTES_ENTRY_HEADER_BYTES + ROUTES_REPORT_FRAME_BYTES;
    uint64_t runs = 0;
    uint64_t orphans_end = 0;
    for (uint64_t index = 0; index < found.events && orphans_end < found.orphans * orphan_bytes; index++) {
        const uint8_t *const event = events + index * ZX_EXECUTION_REPORT_BLOCK_LENGTH;
        bool orphan;
        (void)first_listener(self, event, &orphan);
        if (!orphan) continue;
        const inbox_origin *const origin =
            &origins[zx_load_u64(event + ZX_EXECUTION_REPORT_RECORD_NO_OFFSET) - first_record_no];
        write_report(self, orphans_end + ROUTES_ENTRY_HEADER_BYTES, event);
        orphans_end = begin_entry(self, &runs, orphans_end, origin->link, origin->session_id, 1);
    }
    lay_out(self, &runs, orphans_end, found.touched);
    for (uint64_t index = 0; index < found.events; index++) {
        const uint8_t *const event = events + index * ZX_EXECUTION_REPORT_BLOCK_LENGTH;
        bool orphan;
        uint32_t slot = first_listener(self, event, &orphan);
        for (; slot != ROUTES_NOBODY; slot = self->sessions[slot].next) {
            routes_session *const session = &self->sessions[slot];
            if (session->written++ % ROUTES_REPORTS_PER_ENTRY_MAX == 0) {
                session->at += ROUTES_ENTRY_HEADER_BYTES;
            }
            write_report(self, session->at, event);
            session->at += ROUTES_REPORT_FRAME_BYTES;
        }
    }
    for (uint32_t index = 0; index < found.touched; index++) {
        self->sessions[self->touched[index]].reports = 0;
    }
    return (routes_collected){.events = found.events, .runs = runs};
}
