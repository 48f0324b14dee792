/* XXH3 of 64 bits, compiled in here so that its large header is read once. */
#include "base/hash.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t hash_bytes(const void *ptr, size_t len) { return XXH3_64bits(ptr, len); }

uint64_t hash_seeded(const void *ptr, size_t len, uint64_t seed) {
    return XXH3_64bits_withSeed(ptr, len, seed);
}
