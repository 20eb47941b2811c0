#define _POSIX_C_SOURCE 200809L /* pthread_sigmask */

#include "verifiers.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

/* What is being verified. Written under the mutex while no helper is at work, then read only. */
typedef struct job {
    zx_sign_open sign_open;
    const uint8_t *deployment_id;
    const uint8_t *frames;
    const uint32_t *lengths;
    uint8_t *verdicts;
    size_t count;
} job;

struct verifiers {
    pthread_mutex_t mutex;
    pthread_cond_t work;  /* signalled when a job is open or `ending` */
    pthread_cond_t idle;  /* signalled when the last helper leaves a job */
    job current;
    atomic_size_t next;   /* first frame that nobody has claimed */
    uint32_t at_work;     /* helpers inside the job */
    bool open;            /* a job may be entered */
    bool ending;
    uint32_t helpers;
    pthread_t threads[VERIFIERS_HELPERS_MAX];
    size_t offsets[VERIFIERS_FRAMES_MAX]; /* of the job's frames */
};

static void work_on(verifiers *self) {
    const job *const at = &self->current;
    for (;;) {
        const size_t index = atomic_fetch_add_explicit(&self->next, 1, memory_order_relaxed);
        if (index >= at->count) return;
        frames_verify(
            at->sign_open, at->deployment_id, at->frames + self->offsets[index], &at->lengths[index], 1,
            &at->verdicts[index]
        );
    }
}

static void *help(void *argument) {
    verifiers *const self = argument;
    pthread_mutex_lock(&self->mutex);
    while (!self->ending) {
        if (!self->open || atomic_load_explicit(&self->next, memory_order_relaxed) >= self->current.count) {
            pthread_cond_wait(&self->work, &self->mutex);
            continue;
        }
        self->at_work++;
        pthread_mutex_unlock(&self->mutex);
        work_on(self);
        pthread_mutex_lock(&self->mutex);
        if (--self->at_work == 0) pthread_cond_signal(&self->idle);
    }
    pthread_mutex_unlock(&self->mutex);
    return NULL;
}

int verifiers_create(uint32_t helpers, verifiers **out) {
    if (helpers > VERIFIERS_HELPERS_MAX) return ZX_ERROR_CONFIG;
    verifiers *const self = calloc(1, sizeof *self);
    if (self == NULL) return ZX_ERROR_MEMORY;
    pthread_mutex_init(&self->mutex, NULL);
    pthread_cond_init(&self->work, NULL);
    pthread_cond_init(&self->idle, NULL);
    /* Signals are the main thread's: what a helper inherits is what is blocked now. */
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (; self->helpers < helpers; self->helpers++) {
        if (pthread_create(&self->threads[self->helpers], NULL, help, self) != 0) break;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (self->helpers < helpers) {
        verifiers_destroy(self);
        return ZX_ERROR_MEMORY;
    }
    *out = self;
    return ZX_OK;
}

void verifiers_destroy(verifiers *self) {
    pthread_mutex_lock(&self->mutex);
    self->ending = true;
    pthread_cond_broadcast(&self->work);
    pthread_mutex_unlock(&self->mutex);
    for (uint32_t index = 0; index < self->helpers; index++) pthread_join(self->threads[index], NULL);
    pthread_cond_destroy(&self->work);
    pthread_cond_destroy(&self->idle);
    pthread_mutex_destroy(&self->mutex);
    free(self);
}

size_t verifiers_run(
    verifiers *self, zx_sign_open sign_open, const uint8_t *deployment_id, const uint8_t *frames,
    const uint32_t *lengths, size_t count, uint8_t *verdicts
) {
    ZX_ASSERT(count <= VERIFIERS_FRAMES_MAX);
    if (self->helpers == 0 || count <= VERIFIERS_ALONE_MAX) {
        return frames_verify(sign_open, deployment_id, frames, lengths, count, verdicts);
    }
    size_t offset = 0;
    for (size_t index = 0; index < count; index++) {
        self->offsets[index] = offset;
        offset += lengths[index];
    }
    pthread_mutex_lock(&self->mutex);
    self->current = (job){
        .sign_open = sign_open,
        .deployment_id = deployment_id,
        .frames = frames,
        .lengths = lengths,
        .verdicts = verdicts,
        .count = count,
    };
    atomic_store_explicit(&self->next, 0, memory_order_relaxed);
    self->open = true;
    pthread_cond_broadcast(&self->work);
    pthread_mutex_unlock(&self->mutex);

    work_on(self);

    pthread_mutex_lock(&self->mutex);
    self->open = false;
    while (self->at_work > 0) pthread_cond_wait(&self->idle, &self->mutex);
    pthread_mutex_unlock(&self->mutex);
    size_t valid = 0;
    for (size_t index = 0; index < count; index++) valid += verdicts[index];
    return valid;
}
