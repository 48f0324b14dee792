/* Memory straight from the system, in aligned pieces without huge pages: for slabs and blocks that
 * shall leave the process's RSS when they empty. Any thread may call. */
#pragma once

#include <stddef.h>

/* The largest page of the kernels that are in use (some on arm64). */
enum { PAGES_MIN = 64 * 1024 };

/* `size` zero bytes at an address that is a multiple of `size`: a power of two, at least PAGES_MIN.
 * Costs three or four system calls. Panics when the system has no memory. */
void *pages_map(size_t size) __attribute__((returns_nonnull));
/* Gives the whole piece back; `size` as at pages_map. */
void pages_unmap(void *ptr, size_t size);
/* Gives back the contents of a part of a piece and keeps the addresses: what they hold afterwards
 * is undefined. Frees as many whole pages of the system's size as the part covers. */
void pages_discard(void *ptr, size_t size);
