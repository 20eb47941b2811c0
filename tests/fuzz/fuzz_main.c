/*
 * fuzz_main.c: the fuzz target without a fuzzer: `fuzz FILE...` runs it on each file, `fuzz --random COUNT SEED` on bytes
 * of a random number generator. For the ordinary suite, and for a compiler that has no libFuzzer.
 */

#include <string.h>

#include "../native/kit.h"

#define LENGTH_MAX 4096u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void run_file(const char *path) {
    FILE *const file = fopen(path, "rb");
    CHECK(file != NULL);
    static uint8_t buffer[1 << 20];
    const size_t size = fread(buffer, 1, sizeof buffer, file);
    fclose(file);
    uint8_t *const data = malloc(size > 0 ? size : 1);
    memcpy(data, buffer, size);
    LLVMFuzzerTestOneInput(data, size);
    free(data);
}

static void run_random(uint32_t count, uint64_t seed) {
    for (uint32_t at = 0; at < count; at++) {
        const size_t size = random_below(&seed, LENGTH_MAX);
        uint8_t *const data = malloc(size > 0 ? size : 1);
        for (size_t index = 0; index < size; index++) data[index] = (uint8_t)random_below(&seed, 256);
        LLVMFuzzerTestOneInput(data, size);
        free(data);
    }
}

int main(int argc, char **argv) {
    if (argc == 4 && strcmp(argv[1], "--random") == 0) {
        run_random((uint32_t)strtoul(argv[2], NULL, 10), strtoull(argv[3], NULL, 10));
    } else {
        for (int index = 1; index < argc; index++) run_file(argv[index]);
    }
    puts("ok");
    return 0;
}
