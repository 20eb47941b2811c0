/*
 * attempt.h: the commands of a batch of which all or nothing is to happen, undone if one is refused.
 *
 *     attempt_begin() ── commands ──┬── attempt_keep()    all were accepted
 *                                   └── attempt_undo()    one was not: the engine is as it was before the first
 *
 * Between begin and end everything that the rules change is told to undo.h; the engine's own struct is copied. What only
 * marks leaves of the state tree as changed stays: to hash a leaf anew that did not change is no harm. Nothing but commands
 * of traders may be attempted: what happens by itself and what the operator does is not told.
 */
#ifndef ZX_ATTEMPT_H
#define ZX_ATTEMPT_H

#include "engine.h"

/* Reports that the commands of one attempt may cause; the command that causes more is refused. */
#define ATTEMPT_REPORTS_MAX 4096u

void attempt_begin(engine *self);
void attempt_keep(engine *self);
void attempt_undo(engine *self);

#endif
