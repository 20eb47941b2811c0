/*
 * verifiers.h: frames_verify() on more than one core.
 *
 *     caller   publishes frames ── claims frame, verifies ── claims ── ... ── nothing left, waits for the rest
 *     helper 1       woken ────── claims frame, verifies ── claims ── ... ── asleep again
 *
 * A signature costs a hundred times what everything else about a frame costs, and signatures do not depend on each
 * other. Frames are claimed one by one, so a helper that the kernel does not run at the moment delays nobody by
 * more than the one frame it has claimed. Waking a helper has its price too: a few frames are verified by the
 * caller alone. The verdicts do not depend on who gave them.
 *
 * Helpers sleep on a condition variable and take no signals. One thread at a time may call verifiers_run().
 */
#ifndef ZX_VERIFIERS_H
#define ZX_VERIFIERS_H

#include "base.h"
#include "frames.h"

#define VERIFIERS_HELPERS_MAX 64u
#define VERIFIERS_FRAMES_MAX 4096u /* in one call */
#define VERIFIERS_ALONE_MAX 3u     /* frames that are not worth waking a helper for */

typedef struct verifiers verifiers;

/* Starts `helpers` threads, 0 to VERIFIERS_HELPERS_MAX. Returns ZX_OK, ZX_ERROR_CONFIG or ZX_ERROR_MEMORY (which
 * also stands for threads that cannot be had). */
int verifiers_create(uint32_t helpers, verifiers **out);

/* Ends the threads; nothing may be running. */
void verifiers_destroy(verifiers *self);

/* As frames_verify(), for at most VERIFIERS_FRAMES_MAX frames. */
size_t verifiers_run(
    verifiers *self, zx_sign_open sign_open, const uint8_t *deployment_id, const uint8_t *frames,
    const uint32_t *lengths, size_t count, uint8_t *verdicts
);

#endif
