/* A series' number is the index of its first cell, so that counting is two loads, an add and a store
 * in the calling thread's own shard. A shard is a directory of chunks of cells that never move: one
 * thread writes, scrapers read, both with relaxed atomics. A counter takes one cell, a histogram one a
 * bucket, one for +Inf and one for the sum (the bits of a double), a gauge one that stays unused: its
 * value is shared and lies in the slot.
 *
 * Numbers are handed out and taken back under the registry's lock. Nobody but its thread ever writes a
 * cell, so a number that is used again starts from zero by remembering what the cells held (the base).
 * The shard of a thread that ends goes, with its counts, to the next thread that starts. */
#include "base/metric.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/map.h"
#include "base/panic.h"
#include "base/vec.h"

enum {
    CHUNK_CELLS = 1024,
    MAX_CHUNKS = 1024,
    MAX_BUCKETS = 128,
    MAX_CELLS = MAX_BUCKETS + 2, /* of one series */
};

typedef _Atomic uint64_t cell;

/* What a number stands for. Written under the lock before the number is given out. */
struct slot {
    cell value; /* gauge, or the part of a counter that was set: bits of a double */
    const struct bounds *bounds; /* NULL: not a histogram */
    struct series *series;       /* NULL while the number is free */
};

struct bounds {
    size_t count;
    double upper[MAX_BUCKETS];
};

struct series {
    metric_ref ref;
    enum metric_id family;
    uint32_t users;
    struct str key; /* what the map has it under: the family's name and the values, each with NUL */
    uint64_t *base; /* cells when the number was taken over; NULL: they were zero */
    const char *values[METRIC_MAX_LABELS];
};

struct shard {
    struct shard *next, *next_idle;
    cell *_Atomic chunks[MAX_CHUNKS];
};

typedef VEC(metric_ref) ref_list;
typedef VEC(struct series *) series_list;
struct hook {
    void (*fn)(void *arg);
    void *arg;
};

const struct metric_family metric_families[METRIC_FAMILY_COUNT] = {
#define LABELS(...)                                                                                \
    { __VA_ARGS__ }
#define COUNT_LABELS(...) (sizeof((const char *[]){NULL, ##__VA_ARGS__}) / sizeof(char *) - 1)
#define FAMILY(id, name, type, generation, help, ...)                                              \
    [METRIC_##id] = {name,                                                                         \
                     help,                                                                         \
                     METRIC_TYPE_##type,                                                           \
                     METRIC_##generation,                                                          \
                     COUNT_LABELS(__VA_ARGS__),                                                    \
                     LABELS(__VA_ARGS__)},
    METRIC_TABLE(FAMILY)
#undef FAMILY
};

#define D20                                                                                        \
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 45, 60, 90, 120, 180,  \
        240
static struct bounds bounds_of_type[METRIC_TYPE_COUNT] = {
    [METRIC_TYPE_D20] = {20, {D20}},
    [METRIC_TYPE_D29] = {29, {D20, 300, 480, 900, 1200, 1800, 2700, 3600, 5400, 7200}},
    [METRIC_TYPE_OVERHEAD] = {12,
                              {0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005,
                               0.01, 0.025, 0.05, 0.1}},
};
#undef D20

/* Everything below but the slots' values and the shards' cells is guarded by the lock. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    struct map by_key;
    series_list families[METRIC_FAMILY_COUNT];
    ref_list unused[MAX_CELLS + 1]; /* numbers to use again, by how many cells they have */
    uint32_t next_ref;              /* 0 until the first one */
    struct shard *shards, *idle;
    VEC(struct hook) hooks;
} registry;
static pthread_mutex_t scrape_lock = PTHREAD_MUTEX_INITIALIZER; /* taken before `lock` */
static struct slot *slot_chunks[MAX_CHUNKS];

static _Thread_local struct shard *my_shard;
static pthread_key_t shard_key;
static pthread_once_t shard_once = PTHREAD_ONCE_INIT;

/* --- shards and cells ---------------------------------------------------------------------- */

static void release_shard(void *arg) {
    struct shard *shard = arg;
    pthread_mutex_lock(&lock);
    shard->next_idle = registry.idle;
    registry.idle = shard;
    pthread_mutex_unlock(&lock);
    my_shard = NULL;
}

static void make_shard_key(void) {
    int err = pthread_key_create(&shard_key, release_shard);
    assert_always(err == 0);
}

static __attribute__((noinline, cold)) struct shard *take_shard(void) {
    pthread_once(&shard_once, make_shard_key);
    pthread_mutex_lock(&lock);
    struct shard *shard = registry.idle;
    if (shard != NULL) {
        registry.idle = shard->next_idle;
    } else {
        shard = mem_zalloc(sizeof *shard);
        shard->next = registry.shards;
        registry.shards = shard;
    }
    pthread_mutex_unlock(&lock);
    pthread_setspecific(shard_key, shard);
    return my_shard = shard;
}

static __attribute__((noinline, cold)) cell *grow_shard(struct shard *shard, size_t chunk) {
    assert_always(chunk < MAX_CHUNKS);
    cell *cells = mem_zalloc(CHUNK_CELLS * sizeof *cells);
    atomic_store_explicit(&shard->chunks[chunk], cells, memory_order_release);
    return cells;
}

/* The calling thread's cells of a series: the first one. A series never straddles two chunks. */
static inline cell *my_cells(metric_ref ref) {
    struct shard *shard = my_shard;
    if (__builtin_expect(shard == NULL, 0))
        shard = take_shard();
    cell *chunk = atomic_load_explicit(&shard->chunks[ref / CHUNK_CELLS], memory_order_relaxed);
    if (__builtin_expect(chunk == NULL, 0))
        chunk = grow_shard(shard, ref / CHUNK_CELLS);
    return chunk + ref % CHUNK_CELLS;
}

static inline uint64_t cell_get(const cell *at) {
    return atomic_load_explicit(at, memory_order_relaxed);
}

/* No other thread writes: a load and a store do. */
static inline void cell_add(cell *at, uint64_t n) {
    atomic_store_explicit(at, cell_get(at) + n, memory_order_relaxed);
}

static inline double as_double(uint64_t bits) {
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint64_t as_bits(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline struct slot *slot_of(metric_ref ref) {
    return &slot_chunks[ref / CHUNK_CELLS][ref % CHUNK_CELLS];
}

/* --- counting ------------------------------------------------------------------------------ */

void metric_add(metric_ref ref, uint64_t n) { cell_add(my_cells(ref), n); }

/* The first bucket whose bound is not below the value; `count` when all are. */
static size_t bucket_of(const struct bounds *bounds, double value) {
    size_t low = 0, high = bounds->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (value <= bounds->upper[middle])
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

void metric_observe(metric_ref ref, double seconds) {
    if (ref == 0 || !isfinite(seconds))
        return;
    const struct bounds *bounds = slot_of(ref)->bounds;
    assert_always(bounds != NULL);
    double value = seconds > 0 ? seconds : 0; /* a clock may step back */
    cell *cells = my_cells(ref);
    cell_add(&cells[bucket_of(bounds, value)], 1);
    cell *sum = &cells[bounds->count + 1];
    atomic_store_explicit(sum, as_bits(as_double(cell_get(sum)) + value), memory_order_relaxed);
}

static cell *value_of(metric_ref ref) {
    struct slot *slot = slot_of(ref);
    assert_always(slot->bounds == NULL);
    return &slot->value;
}

void metric_set(metric_ref ref, double value) {
    if (ref != 0)
        atomic_store_explicit(value_of(ref), as_bits(value), memory_order_relaxed);
}

void metric_gauge_add(metric_ref ref, double delta) {
    if (ref == 0)
        return;
    cell *value = value_of(ref);
    uint64_t before = cell_get(value);
    while (!atomic_compare_exchange_weak_explicit(value, &before,
                                                  as_bits(as_double(before) + delta),
                                                  memory_order_relaxed, memory_order_relaxed)) {
    }
}

/* --- the sum over all shards (under the lock) ------------------------------------------------ */

static const struct bounds *bounds_of(enum metric_id family) {
    enum metric_type type = metric_families[family].type;
    return type >= METRIC_TYPE_D20 ? &bounds_of_type[type] : NULL;
}

static size_t cells_of(enum metric_id family) {
    const struct bounds *bounds = bounds_of(family);
    return bounds ? bounds->count + 2 : 1;
}

/* Adds up `count` cells from `ref` on; the last of a histogram's is its sum. */
static void sum_cells(metric_ref ref, size_t count, bool histogram, uint64_t *out) {
    memset(out, 0, count * sizeof *out);
    double seconds = 0;
    size_t whole = histogram ? count - 1 : count;
    for (struct shard *shard = registry.shards; shard != NULL; shard = shard->next) {
        const cell *chunk =
            atomic_load_explicit(&shard->chunks[ref / CHUNK_CELLS], memory_order_acquire);
        if (chunk == NULL)
            continue;
        chunk += ref % CHUNK_CELLS;
        for (size_t i = 0; i < whole; i++)
            out[i] += cell_get(&chunk[i]);
        if (histogram)
            seconds += as_double(cell_get(&chunk[whole]));
    }
    if (histogram)
        out[whole] = as_bits(seconds);
}

/* --- making and dropping series (under the lock) --------------------------------------------- */

static bool any_counted(const uint64_t *cells, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (cells[i] != 0)
            return true;
    }
    return false;
}

/* A number with `count` cells that was never used; 0 when all are. */
static metric_ref fresh_ref(size_t count) {
    uint32_t ref = registry.next_ref ? registry.next_ref : 1;
    if (ref % CHUNK_CELLS + count > CHUNK_CELLS)
        ref += CHUNK_CELLS - ref % CHUNK_CELLS;
    if (ref / CHUNK_CELLS >= MAX_CHUNKS)
        return 0;
    if (slot_chunks[ref / CHUNK_CELLS] == NULL)
        slot_chunks[ref / CHUNK_CELLS] = mem_zalloc(CHUNK_CELLS * sizeof(struct slot));
    registry.next_ref = ref + (uint32_t)count;
    return ref;
}

/* A number for a series of the family; *base is what its cells hold already, NULL for nothing. */
static metric_ref take_ref(enum metric_id family, uint64_t **base) {
    size_t count = cells_of(family);
    ref_list *unused = &registry.unused[count];
    *base = NULL;
    if (unused->len == 0)
        return fresh_ref(count);
    metric_ref ref = unused->items[--unused->len];
    uint64_t held[MAX_CELLS];
    sum_cells(ref, count, bounds_of(family) != NULL, held);
    if (any_counted(held, count))
        *base = memcpy(mem_alloc(count * sizeof *held), held, count * sizeof *held);
    return ref;
}

/* Points into the key. */
static void find_values(struct series *series) {
    const char *at = series->key.ptr + strlen(series->key.ptr) + 1;
    for (size_t i = 0; i < metric_families[series->family].label_count; i++) {
        series->values[i] = at;
        at += strlen(at) + 1;
    }
}

/* Takes the key's memory over. NULL when there is no number left. */
static struct series *make_series(enum metric_id family, struct str key) {
    uint64_t *base;
    metric_ref ref = take_ref(family, &base);
    if (ref == 0)
        return NULL;
    struct series *series = mem_zalloc(sizeof *series);
    *series = (struct series){.ref = ref, .family = family, .key = key, .base = base};
    find_values(series);
    struct slot *slot = slot_of(ref);
    slot->bounds = bounds_of(family);
    slot->series = series;
    atomic_store_explicit(&slot->value, as_bits(0), memory_order_relaxed);
    map_put(&registry.by_key, key, series);
    vec_push(&registry.families[family], series);
    return series;
}

static void free_series(struct series *series) {
    series_list *list = &registry.families[series->family];
    size_t at = 0;
    while (list->items[at] != series)
        at++;
    memmove(&list->items[at], &list->items[at + 1], (--list->len - at) * sizeof *list->items);
    vec_push(&registry.unused[cells_of(series->family)], series->ref);
    slot_of(series->ref)->series = NULL;
    map_remove(&registry.by_key, series->key);
    mem_free((char *)series->key.ptr);
    mem_free(series->base);
    mem_free(series);
}

/* "name\0value\0value\0"; the caller frees it. */
static struct str make_key(enum metric_id family, const char *const *values) {
    const struct metric_family *row = &metric_families[family];
    size_t len = strlen(row->name) + 1, count = 0;
    for (; values[count] != NULL; count++)
        len += strlen(values[count]) + 1;
    if (count != row->label_count)
        panic_here("metric %s has %zu labels, not %zu", row->name, row->label_count, count);
    char *key = mem_alloc(len), *at = stpcpy(key, row->name) + 1;
    for (size_t i = 0; i < count; i++)
        at = stpcpy(at, values[i]) + 1;
    return str_make(key, len);
}

static struct series *find_or_make(enum metric_id family, const char *const *values) {
    struct str key = make_key(family, values);
    struct series *series = map_get(&registry.by_key, key);
    if (series == NULL && registry.families[family].len < METRIC_MAX_SERIES)
        series = make_series(family, key);
    if (series == NULL || series->key.ptr != key.ptr)
        mem_free((char *)key.ptr);
    return series;
}

metric_ref metric_series(enum metric_id family, const char *const *values) {
    assert_always((unsigned)family < METRIC_FAMILY_COUNT);
    pthread_mutex_lock(&lock);
    struct series *series = find_or_make(family, values);
    struct series *refusals = NULL;
    if (series != NULL)
        series->users++;
    else
        refusals = find_or_make(METRIC_SLUICE_METRIC_SERIES_REFUSED_TOTAL,
                                (const char *[]){metric_families[family].name, NULL});
    metric_ref ref = series ? series->ref : 0;
    metric_ref refused = refusals ? refusals->ref : 0;
    pthread_mutex_unlock(&lock);
    if (series == NULL)
        metric_inc(refused);
    return ref;
}

void metric_drop(metric_ref ref) {
    if (ref == 0)
        return;
    pthread_mutex_lock(&lock);
    struct series *series = slot_of(ref)->series;
    assert_always(series != NULL && series->users > 0);
    if (--series->users == 0)
        free_series(series);
    pthread_mutex_unlock(&lock);
}

int metric_set_buckets(const double *bounds, size_t count) {
    if (count == 0 || count > MAX_BUCKETS)
        return -EINVAL;
    for (size_t i = 0; i < count; i++) {
        if (!isfinite(bounds[i]) || (i > 0 && bounds[i] <= bounds[i - 1]))
            return -EINVAL;
    }
    pthread_mutex_lock(&lock);
    bool in_use = registry.next_ref != 0;
    for (int type = METRIC_TYPE_D20; !in_use && type <= METRIC_TYPE_D29; type++) {
        bounds_of_type[type].count = count;
        memcpy(bounds_of_type[type].upper, bounds, count * sizeof *bounds);
    }
    pthread_mutex_unlock(&lock);
    return in_use ? -EINVAL : 0;
}

/* --- scraping -------------------------------------------------------------------------------- */

void metric_on_scrape(void (*fn)(void *arg), void *arg) {
    pthread_mutex_lock(&lock);
    vec_push(&registry.hooks, ((struct hook){fn, arg}));
    pthread_mutex_unlock(&lock);
}

/* Hooks make series and set gauges, so they run outside the lock; none is ever taken out. */
static void run_hooks(void) {
    for (size_t i = 0;; i++) {
        pthread_mutex_lock(&lock);
        struct hook hook = i < registry.hooks.len ? registry.hooks.items[i] : (struct hook){0};
        pthread_mutex_unlock(&lock);
        if (hook.fn == NULL)
            return;
        hook.fn(hook.arg);
    }
}

/* The cells as they stand, less what they held before the series was made. */
static void read_series(const struct series *series, size_t count, bool histogram,
                        uint64_t *cells) {
    sum_cells(series->ref, count, histogram, cells);
    if (series->base == NULL)
        return;
    size_t whole = histogram ? count - 1 : count;
    for (size_t i = 0; i < whole; i++)
        cells[i] -= series->base[i];
    if (histogram)
        cells[whole] = as_bits(fmax(0, as_double(cells[whole]) - as_double(series->base[whole])));
}

static void collect_series(const struct series *series,
                           void (*fn)(void *arg, const struct metric_sample *sample), void *arg) {
    const struct bounds *bounds = bounds_of(series->family);
    size_t count = cells_of(series->family);
    uint64_t cells[MAX_CELLS];
    read_series(series, count, bounds != NULL, cells);
    struct metric_sample sample = {.family = series->family, .label_values = series->values};
    if (bounds != NULL) {
        sample.bounds = bounds->upper;
        sample.counts = cells;
        sample.buckets = bounds->count;
        sample.sum = as_double(cells[count - 1]);
    } else {
        sample.value = (double)cells[0] + as_double(cell_get(&slot_of(series->ref)->value));
    }
    fn(arg, &sample);
}

void metric_collect(void (*fn)(void *arg, const struct metric_sample *sample), void *arg) {
    pthread_mutex_lock(&scrape_lock);
    run_hooks();
    for (size_t family = 0; family < METRIC_FAMILY_COUNT; family++) {
        pthread_mutex_lock(&lock);
        const series_list *list = &registry.families[family];
        for (size_t i = 0; i < list->len; i++)
            collect_series(list->items[i], fn, arg);
        pthread_mutex_unlock(&lock);
    }
    pthread_mutex_unlock(&scrape_lock);
}
