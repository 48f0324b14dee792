/* The prefix cache of a simulated worker: a bounded set of block hashes, least recently used out first.
 * Each hash stands for everything up to the end of its block, so a prompt's hits are the leading run of
 * its chain that is present. Plain data, one thread at a time, nothing parks. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mock_cache_entry;

struct mock_cache {
    struct mock_cache_entry *entries; /* `max` of them, made at the first use */
    uint32_t *table;                  /* entry number + 1; 0 = free; open addressing */
    uint32_t max, len, mask;
    uint32_t newest, oldest;
};

/* At most `max` blocks (up to 2^30); 0 = nothing is ever cached. */
void mock_cache_init(struct mock_cache *cache, size_t max);
void mock_cache_free(struct mock_cache *cache);
/* Forgets all blocks. */
void mock_cache_clear(struct mock_cache *cache);
/* How many leading blocks of the chain are present. Changes nothing. */
size_t mock_cache_match(const struct mock_cache *cache, const uint64_t *chain, size_t len);
/* Adds or renews the blocks of a chain; a block is never older than what follows it in the chain, so
 * eviction shortens prefixes from their ends. */
void mock_cache_use(struct mock_cache *cache, const uint64_t *chain, size_t len);
