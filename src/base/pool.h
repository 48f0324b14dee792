/* Slabs of equal objects for one thread, in mmap'ed pages that are given back to the system when
 * they empty (so that 15,000 closed connections leave no memory behind). Under AddressSanitizer each
 * object is an allocation of its own. */
#pragma once

#include <stddef.h>

struct pool;

/* A pool of objects of `size` bytes (1 to 1 MiB), aligned to 16; NOHUGEPAGE memory. `name` is for
 * messages and must outlive the pool. */
struct pool *pool_new(const char *name, size_t size);
/* All objects must have been given back. */
void pool_free(struct pool *pool);
/* One uninitialised object; never NULL. */
void *pool_get(struct pool *pool) __attribute__((returns_nonnull));
void pool_put(struct pool *pool, void *object);
size_t pool_in_use(const struct pool *pool);
