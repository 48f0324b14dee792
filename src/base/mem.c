/* The process's general allocator. Small requests that fail end the process with the size in the
 * message; only mem_try_realloc reports failure. With MEM_TORTURE defined, a test makes the n-th
 * call of mem_try_realloc fail by setting mem_torture_countdown to n. */
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#include "base/panic.h"

/* No object is so large: it is an overflow in the caller's arithmetic, and an overcommitting kernel
 * must not get to say yes to it. */
#define ABSURD_SIZE ((size_t)1 << 40)

static void *checked(void *ptr, size_t size) {
    if (__builtin_expect(ptr == NULL, 0))
        panic_here("out of memory: %zu bytes", size);
    return ptr;
}

/* The C library may answer NULL for zero bytes, which is no failure. */
static size_t at_least_one(size_t size) { return size ? size : 1; }

void *mem_alloc(size_t size) {
    return checked(size < ABSURD_SIZE ? malloc(at_least_one(size)) : NULL, size);
}

void *mem_zalloc(size_t size) {
    return checked(size < ABSURD_SIZE ? calloc(1, at_least_one(size)) : NULL, size);
}

void *mem_realloc(void *ptr, size_t size) {
    return checked(size < ABSURD_SIZE ? realloc(ptr, at_least_one(size)) : NULL, size);
}

char *mem_strdup(const char *text) {
    size_t size = strlen(text) + 1;
    return memcpy(mem_alloc(size), text, size);
}

void mem_free(void *ptr) { free(ptr); }

#ifdef MEM_TORTURE
static long mem_torture_countdown;
#endif

void *mem_try_realloc(void *ptr, size_t size) {
#ifdef MEM_TORTURE
    if (mem_torture_countdown > 0 && --mem_torture_countdown == 0)
        return NULL;
#endif
    return size < ABSURD_SIZE ? realloc(ptr, at_least_one(size)) : NULL;
}
