/* Searching paths. A step of the search asks for several blocks at once, since what a look costs
 * is the cache miss and misses overlap: 128 blocks take three steps of up to eight looks where a
 * binary search has eight steps.
 *
 * A search keeps the positions that it has looked at, in order. Between two neighbours nothing is
 * known, so "absent there" is never concluded from one miss: each step goes on from the deepest
 * block that was found. */
#include "fleet/prefix_index.h"

#include "base/panic.h"

enum {
    LANES = 8,      /* blocks looked at in one step */
    LOOKS = 96,     /* in all: enough for 12 depths; what is not resolved then is too small */
    LEAPS = 4,      /* holes that one search gets over */
    TICK_SHIFT = 6, /* last use is kept in ticks of 64 ms */
    AGED = 2,       /* epochs of 32 after which a path is written again */
    ANYBODY = -1,
};

struct prefix_index {
    struct prefix_table *table;
    uint32_t touch_ticks;
    bool always_touch;
};

int prefix_index_new(const struct prefix_index_options *options, struct prefix_index **out) {
    struct prefix_table *table;
    int err = prefix_table_new(options->max_entries, options->max_bytes, &table);
    if (err < 0)
        return err;
    struct prefix_index *index = mem_zalloc(sizeof *index);
    index->table = table;
    index->touch_ticks = options->touch_ms >> TICK_SHIFT;
    index->always_touch = options->touch_ms == 0;
    *out = index;
    return 0;
}

void prefix_index_free(struct prefix_index *index) {
    if (index == NULL)
        return;
    prefix_table_free(index->table);
    mem_free(index);
}

struct prefix_holder prefix_index_holder(const struct prefix_index *index, uint16_t slot) {
    return prefix_table_holder(index->table, slot);
}

void prefix_index_remove(struct prefix_index *index, uint16_t slot) {
    prefix_table_leave(index->table, slot);
}

/* --- looking --------------------------------------------------------------------------------- */

struct search {
    const struct prefix_table *table;
    const uint64_t *path;
    uint32_t count;
    int wanted;           /* the one slot that counts, or ANYBODY */
    uint32_t seen[LOOKS]; /* positions looked at, ascending */
    uint32_t seen_count;
    struct prefix_hit hits[PREFIX_HITS_MAX];
    size_t hit_count;
};

static void search_start(struct search *search, const struct prefix_index *index,
                         const uint64_t *path, size_t count, int wanted) {
    assert_always(count <= INT32_MAX);
    search->table = index->table;
    search->path = path;
    search->count = (uint32_t)count;
    search->wanted = wanted;
    search->seen_count = 0;
    search->hit_count = 0;
}

/* Where a new holder goes: the next free place, or that of the shallowest hit above `blocks`. */
static struct prefix_hit *hit_place(struct search *search, uint32_t blocks) {
    if (search->hit_count < PREFIX_HITS_MAX)
        return &search->hits[search->hit_count++];
    struct prefix_hit *least = &search->hits[0];
    for (size_t i = 1; i < search->hit_count; i++) {
        if (search->hits[i].blocks < least->blocks)
            least = &search->hits[i];
    }
    return least->blocks < blocks ? least : NULL;
}

static void note_holder(struct search *search, uint16_t slot, uint32_t blocks, uint32_t tick) {
    struct prefix_hit *hit = NULL;
    for (size_t i = 0; i < search->hit_count && hit == NULL; i++) {
        if (search->hits[i].slot == slot)
            hit = &search->hits[i];
    }
    if (hit == NULL) {
        hit = hit_place(search, blocks);
        if (hit != NULL)
            hit->blocks = 0;
    }
    if (hit != NULL && hit->blocks < blocks)
        *hit = (struct prefix_hit){slot, blocks, (int64_t)tick << TICK_SHIFT};
}

/* True when somebody who counts is there. */
static bool note_set(struct search *search, uint32_t position, const struct prefix_set *set) {
    bool any = false;
    for (size_t i = 0; i < set->count; i++) {
        if (search->wanted != ANYBODY && set->holders[i].slot != search->wanted)
            continue;
        note_holder(search, set->holders[i].slot, position + 1, set->holders[i].tick);
        any = true;
    }
    return any;
}

static void note_seen(struct search *search, uint32_t position) {
    uint32_t at = search->seen_count++;
    for (; at > 0 && search->seen[at - 1] > position; at--)
        search->seen[at] = search->seen[at - 1];
    search->seen[at] = position;
}

/* The next position behind this one that was looked at, or the end of the path. */
static uint32_t next_seen(const struct search *search, int64_t position) {
    for (uint32_t i = 0; i < search->seen_count; i++) {
        if ((int64_t)search->seen[i] > position)
            return search->seen[i];
    }
    return search->count;
}

/* One step. The deepest position where somebody was, or -1. */
static int64_t look(struct search *search, const uint32_t *positions, size_t n) {
    struct prefix_set sets[LANES];
    uint64_t hashes[LANES] = {0};
    int64_t deepest = -1;
    for (size_t i = 0; i < n; i++)
        hashes[i] = search->path[positions[i]];
    prefix_table_read(search->table, hashes, n, sets);
    for (size_t i = 0; i < n; i++) {
        note_seen(search, positions[i]);
        if (note_set(search, positions[i], &sets[i]) && (int64_t)positions[i] > deepest)
            deepest = positions[i];
    }
    return deepest;
}

/* The first step: both ends and evenly between. */
static int64_t look_all_over(struct search *search) {
    uint32_t positions[LANES], n = search->count < LANES ? search->count : LANES;
    for (uint32_t i = 0; i < n; i++)
        positions[i] = n == 1 ? 0 : (uint32_t)((uint64_t)i * (search->count - 1) / (n - 1));
    return look(search, positions, n);
}

/* A step evenly between two neighbours with something between them. */
static int64_t look_between(struct search *search, int64_t low, uint32_t high) {
    uint32_t positions[LANES], gap = (uint32_t)(high - low - 1);
    uint32_t n = gap < LANES ? gap : LANES;
    for (uint32_t i = 0; i < n; i++)
        positions[i] = (uint32_t)(low + (int64_t)((i + 1) * ((uint64_t)gap + 1) / (n + 1)));
    return look(search, positions, n);
}

/* A step over a hole: block `low` is there, the next is not. */
static int64_t leap(struct search *search, int64_t low) {
    uint32_t positions[LANES];
    size_t n = 0;
    for (int64_t ahead = 1; low + 1 + ahead < search->count && n < LANES; ahead *= 2) {
        int64_t at = low + 1 + ahead;
        if (next_seen(search, at - 1) != (uint32_t)at)
            positions[n++] = (uint32_t)at;
    }
    return n > 0 ? look(search, positions, n) : -1;
}

static bool may_look(const struct search *search) { return search->seen_count + LANES <= LOOKS; }

/* From a block that is there to the last one of that run. */
static int64_t climb(struct search *search, int64_t low) {
    uint32_t high;
    while ((high = next_seen(search, low)) - low > 1 && may_look(search)) {
        int64_t found = look_between(search, low, high);
        if (found > low)
            low = found;
    }
    return low;
}

/* The deepest block that somebody who counts has, or -1. */
static int64_t deepest(struct search *search) {
    int64_t low = look_all_over(search);
    if (low < 0)
        return -1;
    low = climb(search, low);
    for (int i = 0; i < LEAPS && prefix_table_holes(search->table) && may_look(search); i++) {
        int64_t found = leap(search, low);
        if (found < 0)
            break;
        low = climb(search, found);
    }
    return low;
}

/* --- matching -------------------------------------------------------------------------------- */

/* The deepest hit of which it is not known where it ends, or NULL. */
static const struct prefix_hit *unresolved(const struct search *search) {
    const struct prefix_hit *found = NULL;
    for (size_t i = 0; i < search->hit_count; i++) {
        const struct prefix_hit *hit = &search->hits[i];
        if (found != NULL && hit->blocks <= found->blocks)
            continue;
        if (next_seen(search, (int64_t)hit->blocks - 1) > hit->blocks)
            found = hit;
    }
    return found;
}

static void resolve_all(struct search *search) {
    const struct prefix_hit *hit;
    while (may_look(search) && (hit = unresolved(search)) != NULL)
        look_between(search, (int64_t)hit->blocks - 1, next_seen(search, (int64_t)hit->blocks - 1));
}

static bool before(const struct prefix_hit *a, const struct prefix_hit *b) {
    return a->blocks != b->blocks ? a->blocks > b->blocks : a->slot < b->slot;
}

static void sort_hits(struct prefix_hit *hits, size_t count) {
    for (size_t i = 1; i < count; i++) {
        struct prefix_hit hit = hits[i];
        size_t at = i;
        for (; at > 0 && before(&hit, &hits[at - 1]); at--)
            hits[at] = hits[at - 1];
        hits[at] = hit;
    }
}

size_t prefix_index_match(const struct prefix_index *index, const uint64_t *path, size_t count,
                          struct prefix_hit *hits, size_t cap) {
    struct search search;
    if (count == 0)
        return 0;
    search_start(&search, index, path, count, ANYBODY);
    if (deepest(&search) < 0)
        return 0;
    resolve_all(&search);
    sort_hits(search.hits, search.hit_count);
    size_t n = search.hit_count < cap ? search.hit_count : cap;
    if (n > 0)
        memcpy(hits, search.hits, n * sizeof *hits);
    return n;
}

/* --- recording ------------------------------------------------------------------------------- */

static bool stale(const struct prefix_index *index, const struct search *search, int64_t last,
                  uint32_t tick) {
    uint32_t used = (uint32_t)(search->hits[0].last_use_ms >> TICK_SHIFT);
    return index->always_touch || (int32_t)(tick - used) >= (int32_t)index->touch_ticks ||
           prefix_table_age(index->table, search->path[last]) >= AGED;
}

size_t prefix_index_record(struct prefix_index *index, const uint64_t *path, size_t count,
                           struct prefix_holder holder, int64_t now_ms) {
    struct search search;
    uint32_t tick = (uint32_t)(now_ms >> TICK_SHIFT);
    if (count == 0 || prefix_index_holder(index, holder.slot).generation != holder.generation)
        return 0;
    search_start(&search, index, path, count, holder.slot);
    int64_t last = deepest(&search);
    size_t from = last < 0 || stale(index, &search, last, tick) ? 0 : (size_t)last + 1;
    return prefix_table_put(index->table, path + from, count - from, holder, tick);
}

void prefix_index_forget(struct prefix_index *index, const uint64_t *path, size_t count,
                         struct prefix_holder holder) {
    prefix_table_drop(index->table, path, count, holder);
}

/* --- the bound, the figures ------------------------------------------------------------------ */

void prefix_index_limit(struct prefix_index *index, uint64_t entries) {
    prefix_table_limit(index->table, entries);
}

void prefix_index_stats(const struct prefix_index *index, struct prefix_stats *out) {
    struct prefix_table_counts counts;
    prefix_table_count(index->table, &counts);
    *out = (struct prefix_stats){counts.entries, counts.entry_limit, counts.bytes,
                                 counts.byte_limit, counts.evictions};
}

uint64_t prefix_index_held(const struct prefix_index *index, uint16_t slot) {
    return prefix_table_held(index->table, slot);
}
