#include "base.h"

#include <stdio.h>
#include <stdlib.h>

_Noreturn void zx_assert_failed(const char *expression, const char *file, int line) {
    fprintf(stderr, "%s:%d: assertion failed: %s\n", file, line, expression);
    abort();
}

/* Given by build_ext.py; anything else that compiles these files says so. */
#ifndef ZX_BUILD_VERSION
#define ZX_BUILD_VERSION "unknown"
#endif
#ifndef ZX_BUILD_SOURCE_HASH
#define ZX_BUILD_SOURCE_HASH "unknown"
#endif
#ifndef ZX_BUILD_MODE
#define ZX_BUILD_MODE "unknown"
#endif

const char *zx_build_version(void) {
    return ZX_BUILD_VERSION;
}

const char *zx_build_source_hash(void) {
    return ZX_BUILD_SOURCE_HASH;
}

const char *zx_build_mode(void) {
    return ZX_BUILD_MODE;
}
