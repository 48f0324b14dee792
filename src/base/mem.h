/* Memory for small objects: never NULL. A process that cannot have a few hundred bytes cannot
 * answer anybody either, so these panic with the size. Large bodies go through `struct buf`,
 * whose growth fails with -ENOMEM instead. Everything outside base/ uses these or an arena. */
#pragma once

#include <stddef.h>

#define MUST_CHECK __attribute__((warn_unused_result))

/* 1: arenas and pools make every allocation separately, so that AddressSanitizer sees the borders.
 * A build for valgrind defines it by hand. */
#ifndef MEM_SEPARATE
#if defined(__SANITIZE_ADDRESS__)
#define MEM_SEPARATE 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MEM_SEPARATE 1
#endif
#endif
#endif
#ifndef MEM_SEPARATE
#define MEM_SEPARATE 0
#endif

/* `size` bytes, uninitialised / zeroed. Caller frees with mem_free. Never parks, never NULL. */
void *mem_alloc(size_t size) __attribute__((malloc, returns_nonnull));
void *mem_zalloc(size_t size) __attribute__((malloc, returns_nonnull));
/* As realloc; `ptr` may be NULL. Never NULL for size > 0. */
void *mem_realloc(void *ptr, size_t size) __attribute__((returns_nonnull));
/* NUL-terminated copy. */
char *mem_strdup(const char *text) __attribute__((malloc, returns_nonnull));
/* `ptr` may be NULL. */
void mem_free(void *ptr);
/* As realloc, but may return NULL (the old block stays); for large blocks only. */
void *mem_try_realloc(void *ptr, size_t size) MUST_CHECK;
