/* Consistent hashing: each worker stands at 150 places of a ring, a key goes to the first one at
 * or behind it. When a worker comes or goes only the keys next to its places move. Places depend
 * on names alone, so that restarts and replicas agree. Immutable: any thread may read. */
#pragma once

#include "base/str.h"

struct hash_ring;
struct fleet_group;

/* Places a worker has. */
enum { HASH_RING_PLACES = 150 };

/* A ring of names (copied as hashes only), known by their number 0..count-1; count may be 0. Two
 * equal names share their places, the first one owns them. O(count); about 25 ms for 4,000. */
struct hash_ring *hash_ring_new(const struct str *names, size_t count);
/* The same of the URLs of a group, numbered as its workers are. */
struct hash_ring *hash_ring_of(const struct fleet_group *group);
/* NULL is allowed. */
void hash_ring_free(struct hash_ring *ring);

/* Where a key stands. */
uint64_t hash_ring_point(struct str key);
/* The first owner from `point` on; -1 when the ring is empty. O(log n). */
int hash_ring_owner(const struct hash_ring *ring, uint64_t point);
/* The first owner from `point` on that `accept` takes; each is asked once, in the order of the
 * ring. -1 when none is taken. Asking on to the last of n takes O(n log n) steps. */
int hash_ring_find(const struct hash_ring *ring, uint64_t point,
                   bool (*accept)(void *arg, uint32_t number), void *arg);
/* Names in the ring. */
size_t hash_ring_count(const struct hash_ring *ring);
