/* Entries are linked by number from newest to oldest; the table finds them by hash. Deleting moves later
 * entries of a probe run back, so no graves pile up however long a worker runs. */
#include "lab/mock_cache.h"

#include "base/mem.h"
#include "base/panic.h"

#include <string.h>

#define NONE UINT32_MAX

struct mock_cache_entry {
    uint64_t hash;
    uint32_t newer, older;
};

void mock_cache_init(struct mock_cache *cache, size_t max) {
    assert_always(max <= (size_t)1 << 30);
    *cache = (struct mock_cache){.max = (uint32_t)max, .newest = NONE, .oldest = NONE};
}

void mock_cache_free(struct mock_cache *cache) {
    mem_free(cache->entries);
    mem_free(cache->table);
    mock_cache_init(cache, cache->max);
}

void mock_cache_clear(struct mock_cache *cache) { mock_cache_free(cache); }

static void make_room(struct mock_cache *cache) {
    uint32_t slots = 4;
    while (slots < cache->max * 2)
        slots *= 2;
    cache->mask = slots - 1;
    cache->entries = mem_alloc(cache->max * sizeof *cache->entries);
    cache->table = mem_zalloc(slots * sizeof *cache->table);
}

/* The slot that holds the hash, or the free one where it belongs. */
static uint32_t slot_of(const struct mock_cache *cache, uint64_t hash) {
    uint32_t slot = (uint32_t)hash & cache->mask;
    while (cache->table[slot] != 0 && cache->entries[cache->table[slot] - 1].hash != hash)
        slot = (slot + 1) & cache->mask;
    return slot;
}

static void unlink_entry(struct mock_cache *cache, uint32_t at) {
    struct mock_cache_entry *entry = &cache->entries[at];
    if (entry->newer == NONE)
        cache->newest = entry->older;
    else
        cache->entries[entry->newer].older = entry->older;
    if (entry->older == NONE)
        cache->oldest = entry->newer;
    else
        cache->entries[entry->older].newer = entry->newer;
}

static void link_newest(struct mock_cache *cache, uint32_t at) {
    struct mock_cache_entry *entry = &cache->entries[at];
    entry->newer = NONE;
    entry->older = cache->newest;
    if (cache->newest == NONE)
        cache->oldest = at;
    else
        cache->entries[cache->newest].newer = at;
    cache->newest = at;
}

/* Closes the gap at `hole`: an entry behind it moves in when its home is not between the two. */
static void clear_slot(struct mock_cache *cache, uint32_t hole) {
    uint32_t at = hole;
    for (;;) {
        at = (at + 1) & cache->mask;
        if (cache->table[at] == 0)
            break;
        uint32_t home = (uint32_t)cache->entries[cache->table[at] - 1].hash & cache->mask;
        if (((at - home) & cache->mask) >= ((at - hole) & cache->mask)) {
            cache->table[hole] = cache->table[at];
            hole = at;
        }
    }
    cache->table[hole] = 0;
}

/* An entry for a new block: a fresh one, or the oldest. */
static uint32_t take_entry(struct mock_cache *cache) {
    if (cache->len < cache->max)
        return cache->len++;
    uint32_t at = cache->oldest;
    clear_slot(cache, slot_of(cache, cache->entries[at].hash));
    unlink_entry(cache, at);
    return at;
}

static void use_block(struct mock_cache *cache, uint64_t hash) {
    uint32_t slot = slot_of(cache, hash);
    if (cache->table[slot] != 0) {
        uint32_t at = cache->table[slot] - 1;
        unlink_entry(cache, at);
        link_newest(cache, at);
        return;
    }
    uint32_t at = take_entry(cache);
    cache->entries[at].hash = hash;
    cache->table[slot_of(cache, hash)] = at + 1; /* taking may have moved slots */
    link_newest(cache, at);
}

size_t mock_cache_match(const struct mock_cache *cache, const uint64_t *chain, size_t len) {
    size_t hits = 0;
    if (cache->len == 0)
        return 0;
    while (hits < len && cache->table[slot_of(cache, chain[hits])] != 0)
        hits++;
    return hits;
}

void mock_cache_use(struct mock_cache *cache, const uint64_t *chain, size_t len) {
    if (cache->max == 0 || len == 0)
        return;
    if (cache->entries == NULL)
        make_room(cache);
    if (len > cache->max)
        len = cache->max;
    while (len-- > 0)
        use_block(cache, chain[len]);
}
