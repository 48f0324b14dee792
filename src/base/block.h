/* Blocks of 4 KiB, the unit of arenas: a bounded cache per thread in front of a shared store. What
 * a thread holds beyond 256 free blocks goes back to the system for real. */
#pragma once

enum { BLOCK_BYTES = 4096 };

/* An uninitialised block, aligned to 4 KiB (to 16 under AddressSanitizer). Never NULL. */
void *block_get(void) __attribute__((returns_nonnull));
/* Gives it back, on any thread. */
void block_put(void *block);
