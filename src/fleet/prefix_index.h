/* Who has which prefix: the memory of cache-aware routing, one per process, shared by all loops.
 *
 * A path is the block hashes of a key (prefix_key.h). Recording it makes a worker a holder of each
 * of its blocks; a match says for every holder how many blocks of a key it has. A block keeps the
 * four holders used last. The index has two bounds, entries (one a block, whoever holds it) and
 * bytes, and past them forgets what was used least recently: the memory of a small index is small,
 * and the bytes include everything, empty places too.
 *
 * A worker that has block n has those before it, even if the index forgot them. So a match looks
 * at a few blocks only, and a path with holes is still found (prefix_index_match says how well).
 *
 * Reads take no lock and change nothing, so that a dry run costs and leaves nothing. Nothing reads
 * a clock or draws a number: the same calls on one thread give the same answers. No call parks. */
#pragma once

#include "fleet/prefix_table.h"

struct prefix_index;

/* Less does not hold the fixed parts. */
#define PREFIX_INDEX_MIN_BYTES ((uint64_t)1 << 20)
/* Holders that one match can tell. */
enum { PREFIX_HITS_MAX = 32 };

struct prefix_index_options {
    uint64_t max_entries;
    uint64_t max_bytes; /* at least PREFIX_INDEX_MIN_BYTES */
    /* How exact the last use is: a path that its worker used less than this ago is not written
     * again. 0: every record writes the whole path. */
    uint32_t touch_ms;
};

/* 0, -EINVAL (no entries, too few bytes), -ENOMEM. Takes address space; memory comes with use. */
int prefix_index_new(const struct prefix_index_options *options, struct prefix_index **out)
    MUST_CHECK;
/* Nobody uses it any more. NULL is allowed. */
void prefix_index_free(struct prefix_index *index);

/* Workers are known by a small number (worker->index), which one after another may have. The
 * holder of a slot is whoever has it now: it is asked for while the worker is known to be there,
 * and kept until the record. */
struct prefix_holder prefix_index_holder(const struct prefix_index *index, uint16_t slot);
/* The worker of this slot is gone, or has lost its cache: what it held is void at once, and so are
 * records still under way for it. O(1). (After 65,535 removals from one slot generations repeat;
 * entries so old are gone by then.) */
void prefix_index_remove(struct prefix_index *index, uint16_t slot);

struct prefix_hit {
    uint16_t slot;
    uint32_t blocks;     /* of the key, from its start; prefix_key_depth gives their length */
    int64_t last_use_ms; /* of the last of them there: as passed to record, to 64 ms */
};

/* Every holder of a prefix of the path with its depth, deepest first, equal ones by slot; how many
 * were written into `hits` (room for `cap`; the deepest ones win).
 *
 * O(log count) blocks are looked at for each depth that holders differ in. Exact when nothing was
 * ever evicted and no block had more than four holders. Otherwise a depth may come out too small,
 * never too great: a search that ends at a hole looks on 1, 2, 4, 8 ... blocks behind it. In an
 * index filled ten times over, paths of 16 to 256 blocks with half of them left lose under 1 % so,
 * and all depths found add up to what an exact LRU of the same size would give: a path is known by
 * the few blocks that outlive it (the unit test measures both). */
size_t prefix_index_match(const struct prefix_index *index, const uint64_t *path, size_t count,
                          struct prefix_hit *hits, size_t cap);

/* The worker has this path now: it accepted the request. O(new blocks), and all blocks when the
 * path was last written more than touch_ms ago or has aged by 1/16 of the way out, so that no
 * block is ever much older than those behind it. Nothing happens when the holder's worker is
 * gone. The number of blocks that it did not hold before. `now_ms` is monotonic, below 2^38. */
size_t prefix_index_record(struct prefix_index *index, const uint64_t *path, size_t count,
                           struct prefix_holder holder, int64_t now_ms);
/* The worker has dropped these blocks from its cache. */
void prefix_index_forget(struct prefix_index *index, const uint64_t *path, size_t count,
                         struct prefix_holder holder);

/* Sets the bound on entries (never above that of the start), evicts the oldest beyond it and gives
 * their memory back; 0 empties the index and keeps it empty. About 70 ns an entry that stays, a
 * shard locked for at most a millisecond: for an offload thread. */
void prefix_index_limit(struct prefix_index *index, uint64_t entries);

struct prefix_stats {
    uint64_t entries, entry_limit;
    uint64_t bytes, byte_limit;
    uint64_t evictions; /* since the start */
};
/* O(shards): for scrapes. Exact while nobody writes. */
void prefix_index_stats(const struct prefix_index *index, struct prefix_stats *out);
/* Entries that name the worker of the slot. Approximate: exact while nobody writes, but for what a
 * record that a removal overtook added. */
uint64_t prefix_index_held(const struct prefix_index *index, uint16_t slot);
