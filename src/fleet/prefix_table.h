/* The store under prefix_index.h: block hash -> up to four holders, in one table for the process.
 * Nothing here knows of paths. Reads take no lock and never wait; writes lock one shard for well
 * under a microsecond (a shard that grows: up to about 200). Any thread. */
#pragma once

#include "base/str.h"

enum { PREFIX_HOLDERS = 4, PREFIX_BATCH = 16 };

/* A worker's place and the number of the worker that had it so far: see prefix_index.h. */
struct prefix_holder {
    uint16_t slot, generation;
};

/* What one block's entry says of workers that still exist. */
struct prefix_set {
    size_t count; /* 0: no entry, or nobody of its holders is left */
    struct {
        uint16_t slot;
        uint32_t tick; /* last use */
    } holders[PREFIX_HOLDERS];
};

struct prefix_table;

/* Room for `max_entries` entries in at most `max_bytes` bytes, the lesser; address space only,
 * memory comes as entries do. -EINVAL (no entries, or under PREFIX_INDEX_MIN_BYTES), -ENOMEM. */
int prefix_table_new(uint64_t max_entries, uint64_t max_bytes, struct prefix_table **out)
    MUST_CHECK;
void prefix_table_free(struct prefix_table *table);

/* Reads the entries of `count` <= PREFIX_BATCH blocks, all cache misses at once. */
void prefix_table_read(const struct prefix_table *table, const uint64_t *hashes, size_t count,
                       struct prefix_set *sets);
/* How far the entry is on its way out: about 0 (just used) to 32 (the next to go). 0 when there
 * is none. */
unsigned prefix_table_age(const struct prefix_table *table, uint64_t hash);
/* True once anything was ever evicted or taken out, so that a path may have holes. */
bool prefix_table_holes(const struct prefix_table *table);

/* Makes the holder one of each of these blocks, used at `tick`; in a full set it takes the place
 * of the one unused for longest, in a full table the entry that of an old one. The number of
 * blocks that it did not hold before. */
size_t prefix_table_put(struct prefix_table *table, const uint64_t *hashes, size_t count,
                        struct prefix_holder holder, uint32_t tick);
/* Takes the holder out of these blocks. */
void prefix_table_drop(struct prefix_table *table, const uint64_t *hashes, size_t count,
                       struct prefix_holder holder);

/* The present generation of a slot; its end, which makes all that the holder has void; and the
 * number of entries that name it: approximate while others write, also just after a worker that
 * had many left the slot. */
struct prefix_holder prefix_table_holder(const struct prefix_table *table, uint16_t slot);
void prefix_table_leave(struct prefix_table *table, uint16_t slot);
uint64_t prefix_table_held(const struct prefix_table *table, uint16_t slot);

/* Sets the bound on entries to the lesser of this and what the table was made for, evicts what
 * is over it, oldest first, and gives the memory back. About 70 ns an entry that stays. */
void prefix_table_limit(struct prefix_table *table, uint64_t entries);

struct prefix_table_counts {
    uint64_t entries, entry_limit, bytes, byte_limit, evictions;
};
void prefix_table_count(const struct prefix_table *table, struct prefix_table_counts *out);
