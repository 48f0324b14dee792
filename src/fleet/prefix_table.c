/* Shards by the hash's top bits; a shard is an array of 512-byte buckets with 12 entries each. An
 * entry lives in its home bucket or the one behind it (WINDOW), so that no search gets long; a
 * bucket counts those that went on, so that most searches for what is not there end at home.
 *
 * When both are full the array grows, or, at its full size, the oldest of the 24 entries goes: a
 * hand that moves with the insertions, which are spread evenly, and works on cache lines that the
 * insertion needs anyway. (A hand that sweeps, with open addressing as far as it takes, was tried:
 * entries that die in another order than they came leave ways that only get longer.) Age is
 * counted in insertions, not in time: an epoch is 1/32 of the shard's bound inserted.
 *
 * Entries do not move while their array lives, and an entry's hash is its version: it is taken
 * away before anything else of the entry changes, and a reader looks at it before and after. An
 * array that grew is replaced by one in another stretch of address space; the old one's pages go
 * back, its addresses stay, and a reader that was in it sees that the shard's size has changed. */
#include "fleet/prefix_table.h"

#include <errno.h>
#include <pthread.h>
#include <stdalign.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/pages.h"
#include "base/panic.h"
#include "fleet/prefix_bucket.h"
#include "fleet/prefix_index.h"

enum {
    WINDOW = 2,            /* buckets that an entry may be in: its home and those behind */
    EPOCHS = 32,           /* epochs that an untouched entry lives for, about */
    SIZES = 24,            /* of a shard's array; 0 is none at all */
    WORKERS = 1 << 16,     /* slots */
    SHARD_BYTES = 1 << 18, /* as much as is moved in some 150 us */
    AHEAD = 12,            /* so many blocks before one is written its bucket is fetched, */
    AHEAD_NEXT = 8,        /* then the window if that will be needed, */
    AHEAD_ENTRY = 4,       /* then the entry */
};

struct shard {
    alignas(128) pthread_mutex_t lock; /* the rest is written under it */
    _Atomic uint32_t count, limit;
    _Atomic uint32_t epoch;
    uint32_t inserted; /* since the epoch began */
    _Atomic uint64_t evictions;
};

/* Counting under the lock, read without: no need of a read-modify-write. */
static void add_32(_Atomic uint32_t *at, uint32_t delta) {
    uint32_t old = atomic_load_explicit(at, memory_order_relaxed);
    atomic_store_explicit(at, old + delta, memory_order_relaxed);
}

static uint32_t get_32(const _Atomic uint32_t *at) {
    return atomic_load_explicit(at, memory_order_relaxed);
}

struct worker_row {
    _Atomic uint16_t ended; /* generations that are over, less than UINT16_MAX */
    _Atomic int32_t held;
};

struct prefix_table {
    unsigned shard_bits;
    uint32_t shard_count, sizes;
    uint32_t buckets[SIZES];       /* in one shard's array of this size */
    _Atomic(char *) arrays[SIZES]; /* of all shards, mapped when the first one needs it */
    _Atomic uint8_t *size_of;      /* each shard's present size */
    struct worker_row *workers;
    struct shard *shards;
    pthread_mutex_t moving; /* one shard at a time: two arrays of it are there meanwhile */
    _Atomic bool holes;
    uint64_t max_entries, max_bytes, fixed_bytes;
    size_t mapped; /* of the table itself */
};

/* --- arrays ---------------------------------------------------------------------------------- */

/* A shard's array as a writer (under the lock) or a reader found it. */
struct array {
    struct bucket *buckets;
    uint32_t n, size;
};

static inline struct array array_at(const struct prefix_table *table, uint32_t shard,
                                    uint32_t size) {
    char *base = atomic_load_explicit(&table->arrays[size], memory_order_relaxed);
    struct array array = {NULL, table->buckets[size], size};
    if (array.n > 0)
        array.buckets = (struct bucket *)base + (size_t)shard * array.n;
    return array;
}

/* Of all shards' arrays of this size. */
static size_t array_bytes(const struct prefix_table *table, uint32_t size) {
    return (size_t)table->buckets[size] * sizeof(struct bucket) * table->shard_count;
}

static inline uint32_t size_of(const struct prefix_table *table, uint32_t shard) {
    return atomic_load_explicit(&table->size_of[shard], memory_order_acquire);
}

static inline struct array array_now(const struct prefix_table *table, uint32_t shard) {
    return array_at(table, shard, size_of(table, shard));
}

static inline uint64_t hash_named(uint64_t hash) { return hash + (hash == 0); }

static inline uint32_t shard_of(const struct prefix_table *table, uint64_t hash) {
    return table->shard_bits > 0 ? (uint32_t)(hash >> (64 - table->shard_bits)) : 0;
}

static inline uint32_t home_of(const struct array *array, uint64_t hash) {
    return (uint32_t)((hash & UINT32_MAX) * array->n >> 32);
}

static inline uint32_t after(const struct array *array, uint32_t bucket) {
    return bucket + 1 == array->n ? 0 : bucket + 1;
}

/* --- finding --------------------------------------------------------------------------------- */

struct spot {
    struct bucket *bucket;
    unsigned slot;
    struct entry *entry; /* NULL: not there */
};
#define NOWHERE ((struct spot){NULL, 0, NULL})

static struct spot spot_at(struct bucket *bucket, int slot) {
    return slot < 0 ? NOWHERE : (struct spot){bucket, (unsigned)slot, &bucket->entries[slot]};
}

static inline struct spot find(const struct array *array, uint64_t hash) {
    if (array->n == 0)
        return NOWHERE;
    uint32_t at = home_of(array, hash);
    for (int i = 0; i < WINDOW; i++, at = after(array, at)) {
        struct bucket *bucket = &array->buckets[at];
        int slot = slot_in(bucket, hash);
        if (slot >= 0 || passed(bucket) == 0)
            return spot_at(bucket, slot);
    }
    return NOWHERE;
}

static uint16_t generation_of(const struct prefix_table *table, uint16_t slot) {
    uint16_t ended = atomic_load_explicit(&table->workers[slot].ended, memory_order_relaxed);
    return (uint16_t)(ended + 1);
}

struct prefix_holder prefix_table_holder(const struct prefix_table *table, uint16_t slot) {
    return (struct prefix_holder){slot, generation_of(table, slot)};
}

static bool live(const struct prefix_table *table, uint64_t holder) {
    return (uint16_t)(holder >> 16) == generation_of(table, (uint16_t)holder);
}

/* False when the entry, or the array, was another's by the end. */
static bool read_entry(const struct prefix_table *table, const struct entry *entry, uint64_t hash,
                       struct prefix_set *set) {
    set->count = 0;
    for (int i = 0; i < PREFIX_HOLDERS; i++) {
        uint64_t holder = word(&entry->holders[i]);
        if (!live(table, holder))
            continue;
        set->holders[set->count].slot = (uint16_t)holder;
        set->holders[set->count++].tick = (uint32_t)(holder >> 32);
    }
    return word(&entry->hash) == hash;
}

static void read_block(const struct prefix_table *table, uint64_t hash, struct array array,
                       struct prefix_set *set) {
    uint32_t shard = shard_of(table, hash);
    for (;;) {
        struct spot spot = find(&array, hash);
        if (spot.entry == NULL || !read_entry(table, spot.entry, hash, set))
            set->count = 0;
        uint32_t size = size_of(table, shard);
        if (size == array.size)
            return;
        array = array_at(table, shard, size);
    }
}

static void fetch_slot(const struct bucket *bucket, int slot) {
    __builtin_prefetch(&bucket->entries[slot].hash);
    __builtin_prefetch(&bucket->entries[slot].holders[PREFIX_HOLDERS - 1]);
}

static void fetch_behind(const struct array *array, uint32_t at) {
    for (int i = 1; i < WINDOW; i++) {
        at = after(array, at);
        __builtin_prefetch(&array->buckets[at]);
    }
}

/* The bucket is at hand: gets the entry, or the window if it may be there. */
static void fetch_entry(const struct array *array, uint64_t hash) {
    uint32_t home = home_of(array, hash);
    const struct bucket *bucket = &array->buckets[home];
    int slot = slot_tagged(bucket, tag_of(hash));
    if (slot >= 0)
        fetch_slot(bucket, slot);
    else if (passed(bucket) > 0)
        fetch_behind(array, home);
}

void prefix_table_read(const struct prefix_table *table, const uint64_t *hashes, size_t count,
                       struct prefix_set *sets) {
    struct array arrays[PREFIX_BATCH];
    assert_always(count <= PREFIX_BATCH);
    for (size_t i = 0; i < count; i++) {
        uint64_t hash = hash_named(hashes[i]);
        arrays[i] = array_now(table, shard_of(table, hash));
        if (arrays[i].n > 0)
            __builtin_prefetch(&arrays[i].buckets[home_of(&arrays[i], hash)]);
    }
    for (size_t i = 0; i < count; i++) {
        if (arrays[i].n > 0)
            fetch_entry(&arrays[i], hash_named(hashes[i]));
    }
    for (size_t i = 0; i < count; i++)
        read_block(table, hash_named(hashes[i]), arrays[i], &sets[i]);
}

unsigned prefix_table_age(const struct prefix_table *table, uint64_t hash) {
    hash = hash_named(hash);
    uint32_t shard = shard_of(table, hash);
    struct array array = array_now(table, shard);
    struct spot spot = find(&array, hash);
    if (spot.entry == NULL)
        return 0;
    uint32_t epoch = get_32(&table->shards[shard].epoch);
    return (uint8_t)(epoch - byte_of(spot.bucket->ages, spot.slot));
}

bool prefix_table_holes(const struct prefix_table *table) {
    return atomic_load_explicit(&table->holes, memory_order_relaxed);
}

/* --- counting holders ------------------------------------------------------------------------ */

static void count_held(struct prefix_table *table, uint16_t slot, int32_t delta) {
    atomic_fetch_add_explicit(&table->workers[slot].held, delta, memory_order_relaxed);
}

static void forget_holder(struct prefix_table *table, uint64_t holder) {
    if (live(table, holder))
        count_held(table, (uint16_t)holder, -1);
}

uint64_t prefix_table_held(const struct prefix_table *table, uint16_t slot) {
    int32_t held = atomic_load_explicit(&table->workers[slot].held, memory_order_relaxed);
    return held > 0 ? (uint64_t)held : 0;
}

void prefix_table_leave(struct prefix_table *table, uint16_t slot) {
    struct worker_row *row = &table->workers[slot];
    uint16_t ended = atomic_load_explicit(&row->ended, memory_order_relaxed);
    /* Generation 0 stays unused: an empty place has it. */
    uint16_t next = ended + 1 == UINT16_MAX ? 0 : (uint16_t)(ended + 1);
    atomic_store_explicit(&row->ended, next, memory_order_relaxed);
    atomic_store_explicit(&row->held, 0, memory_order_relaxed);
}

/* --- taking entries out ---------------------------------------------------------------------- */

/* A shard under its lock. */
struct place {
    struct prefix_table *table;
    struct shard *shard;
    uint32_t number;
    struct array array;
};

static void erase(struct place *place, uint32_t at, unsigned slot) {
    struct bucket *bucket = &place->array.buckets[at];
    struct entry *entry = &bucket->entries[slot];
    uint32_t home = home_of(&place->array, word(&entry->hash));
    set_byte(bucket->tags, slot, 0);
    set_word(&entry->hash, 0);
    for (int i = 0; i < PREFIX_HOLDERS; i++)
        forget_holder(place->table, word(&entry->holders[i]));
    for (; home != at; home = after(&place->array, home))
        add_passed(&place->array.buckets[home], -1);
    add_32(&place->shard->count, (uint32_t)-1);
    if (!prefix_table_holes(place->table))
        atomic_store_explicit(&place->table->holes, true, memory_order_relaxed);
}

static unsigned age_in(const struct place *place, const struct bucket *bucket, unsigned slot) {
    uint32_t epoch = get_32(&place->shard->epoch);
    return (uint8_t)(epoch - byte_of(bucket->ages, slot));
}

struct victim {
    uint32_t bucket;
    unsigned slot;
    unsigned rank; /* 0: there is none */
};

/* The oldest entry of a window, of equal ones that with the lowest slot. */
static struct victim oldest_near(const struct place *place, uint32_t at) {
    uint8_t epoch = (uint8_t)get_32(&place->shard->epoch);
    lanes most = ranks_of(&place->array.buckets[at], epoch), steps = {0};
    uint32_t next = at;
    for (int i = 1; i < WINDOW; i++) {
        next = after(&place->array, next);
        lanes ranks = ranks_of(&place->array.buckets[next], epoch), more = (lanes)(ranks > most);
        most = choose(more, ranks, most);
        steps = choose(more, (lanes){0} + (uint8_t)i, steps);
    }
    uint8_t rank = greatest(most);
    unsigned slot = (unsigned)__builtin_ctz(bits_of((lanes)(most == rank)));
    uint32_t bucket = at + steps[slot];
    return (struct victim){bucket < place->array.n ? bucket : bucket - place->array.n, slot, rank};
}

static void evict(struct place *place, uint32_t at, unsigned slot) {
    _Atomic uint64_t *evictions = &place->shard->evictions;
    erase(place, at, slot);
    uint64_t old = atomic_load_explicit(evictions, memory_order_relaxed);
    atomic_store_explicit(evictions, old + 1, memory_order_relaxed);
}

/* The oldest near `at`, or, where nothing is, near the next one; the shard holds an entry. */
static void evict_from(struct place *place, uint32_t at) {
    struct victim victim = oldest_near(place, at);
    while (victim.rank == 0) {
        at = after(&place->array, at);
        victim = oldest_near(place, at);
    }
    evict(place, victim.bucket, victim.slot);
}

/* --- arrays that come and go ----------------------------------------------------------------- */

/* A free place for the hash, or NOWHERE. */
static struct spot vacancy(const struct array *array, uint64_t hash) {
    uint32_t at = home_of(array, hash);
    for (int i = 0; i < WINDOW; i++, at = after(array, at)) {
        int slot = slot_tagged(&array->buckets[at], 0);
        if (slot >= 0)
            return spot_at(&array->buckets[at], slot);
    }
    return NOWHERE;
}

/* The same with a place made if there is none, and the way to it marked. */
static struct spot claim(struct place *place, uint64_t hash) {
    uint32_t at = home_of(&place->array, hash);
    struct spot spot = vacancy(&place->array, hash);
    if (spot.entry == NULL) {
        evict_from(place, at);
        spot = vacancy(&place->array, hash);
    }
    for (; spot.bucket != &place->array.buckets[at]; at = after(&place->array, at))
        add_passed(&place->array.buckets[at], 1);
    return spot;
}

/* The last step of an entry's making. */
static void show(struct spot spot, uint64_t hash, uint8_t epoch) {
    set_byte(spot.bucket->ages, spot.slot, epoch);
    set_word(&spot.entry->hash, hash);
    set_byte(spot.bucket->tags, spot.slot, tag_of(hash));
}

/* The array of a size, empty; false when there is no memory for it. */
static bool array_open(struct prefix_table *table, uint32_t shard, uint32_t size,
                       struct array *out) {
    if (atomic_load(&table->arrays[size]) == NULL) {
        size_t bytes = array_bytes(table, size);
        char *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (base == MAP_FAILED)
            return false;
        /* Huge pages were tried: 5 to 10 % off a cold match or record, not worth memory that comes
         * by 2 MiB, for several shards at once. */
        (void)madvise(base, bytes, MADV_NOHUGEPAGE);
        atomic_store(&table->arrays[size], base);
    }
    *out = array_at(table, shard, size);
    for (uint32_t i = 0; i < out->n; i++) {
        for (int half = 0; half < 2; half++)
            set_word(&out->buckets[i].tags[half], 0);
    }
    return true;
}

static void copy_entry(struct place *place, const struct bucket *bucket, unsigned slot) {
    const struct entry *entry = &bucket->entries[slot];
    uint64_t hash = word(&entry->hash);
    struct spot spot = claim(place, hash);
    for (int i = 0; i < PREFIX_HOLDERS; i++)
        set_word(&spot.entry->holders[i], word(&entry->holders[i]));
    show(spot, hash, byte_of(bucket->ages, slot));
}

static void copy_all(struct place *place, const struct array *from) {
    for (uint32_t at = 0; at < from->n; at++) {
        for (unsigned slot = 0; slot < SLOTS; slot++) {
            if (byte_of(from->buckets[at].tags, slot) != 0)
                copy_entry(place, &from->buckets[at], slot);
        }
    }
}

/* Moves the shard into an array of another size; false when there is no memory for it. */
static bool resize(struct place *place, uint32_t size) {
    struct prefix_table *table = place->table;
    struct array old = place->array, new = {NULL, 0, 0};
    pthread_mutex_lock(&table->moving);
    bool opened = size == 0 || array_open(table, place->number, size, &new);
    if (opened) {
        place->array = new;
        if (new.n > 0)
            copy_all(place, &old);
        atomic_store_explicit(&table->size_of[place->number], (uint8_t)size, memory_order_release);
        if (old.n > 0)
            pages_discard(old.buckets, old.n * sizeof(struct bucket));
    }
    pthread_mutex_unlock(&table->moving);
    return opened;
}

/* --- putting entries in ---------------------------------------------------------------------- */

/* The array is as full as hashes fill it; one that is not gains nothing by growing. */
static bool worth_growing(const struct place *place, uint32_t count) {
    return place->array.size + 1 < place->table->sizes && count >= place->array.n * SLOTS / 4;
}

/* Keeps the bound for one more entry; false when there can be none. */
static bool make_room(struct place *place, uint64_t hash) {
    uint32_t count = get_32(&place->shard->count);
    if (count >= get_32(&place->shard->limit)) {
        if (count > 0)
            evict_from(place, home_of(&place->array, hash));
        return count > 0;
    }
    while (place->array.n == 0 || vacancy(&place->array, hash).entry == NULL) {
        if (!worth_growing(place, count) || !resize(place, place->array.size + 1))
            break;
    }
    return place->array.n > 0;
}

static void count_inserted(struct shard *shard) {
    add_32(&shard->count, 1);
    if (++shard->inserted < get_32(&shard->limit) / EPOCHS)
        return;
    shard->inserted = 0;
    add_32(&shard->epoch, 1);
}

static size_t insert(struct place *place, uint64_t hash, uint64_t holder) {
    if (!make_room(place, hash))
        return 0;
    uint32_t epoch = get_32(&place->shard->epoch);
    struct spot spot = claim(place, hash);
    set_word(&spot.entry->holders[0], holder);
    for (int i = 1; i < PREFIX_HOLDERS; i++)
        set_word(&spot.entry->holders[i], 0);
    show(spot, hash, (uint8_t)epoch);
    count_inserted(place->shard);
    return 1;
}

/* How gladly a place in the set is given up: free or void ones first, then by last use. */
static uint64_t idleness(const struct prefix_table *table, uint64_t holder, uint32_t tick) {
    if (!live(table, holder))
        return UINT64_MAX;
    int32_t idle = (int32_t)(tick - (uint32_t)(holder >> 32));
    return idle > 0 ? (uint64_t)idle : 0;
}

/* 1 when the holder is new in the set. */
static size_t join_set(struct prefix_table *table, struct entry *entry, uint64_t holder) {
    uint32_t tick = (uint32_t)(holder >> 32), place = 0;
    uint64_t most = 0;
    for (uint32_t i = 0; i < PREFIX_HOLDERS; i++) {
        uint64_t there = word(&entry->holders[i]);
        if ((uint32_t)there == (uint32_t)holder) {
            if ((int32_t)(tick - (uint32_t)(there >> 32)) > 0)
                set_word(&entry->holders[i], holder);
            return 0;
        }
        uint64_t idle = idleness(table, there, tick);
        if (idle > most) {
            most = idle;
            place = i;
        }
    }
    forget_holder(table, word(&entry->holders[place]));
    set_word(&entry->holders[place], holder);
    return 1;
}

static struct place enter(struct prefix_table *table, uint64_t hash) {
    uint32_t number = shard_of(table, hash);
    struct shard *shard = &table->shards[number];
    pthread_mutex_lock(&shard->lock);
    return (struct place){table, shard, number, array_now(table, number)};
}

static void leave(struct place *place) { pthread_mutex_unlock(&place->shard->lock); }

static size_t put(struct prefix_table *table, uint64_t hash, uint64_t holder) {
    struct place place = enter(table, hash);
    struct spot spot = find(&place.array, hash);
    size_t added;
    if (spot.entry != NULL) {
        uint32_t epoch = get_32(&place.shard->epoch);
        set_byte(spot.bucket->ages, spot.slot, (uint8_t)epoch);
        added = join_set(table, spot.entry, holder);
    } else {
        added = insert(&place, hash, holder);
    }
    leave(&place);
    return added;
}

static void fetch_bucket(const struct prefix_table *table, uint64_t hash) {
    uint32_t shard = shard_of(table, hash);
    struct array array = array_now(table, shard);
    __builtin_prefetch(&table->shards[shard], 1);
    if (array.n > 0)
        __builtin_prefetch(&array.buckets[home_of(&array, hash)], 1);
}

static void fetch_window(const struct prefix_table *table, uint64_t hash) {
    struct array array = array_now(table, shard_of(table, hash));
    if (array.n == 0)
        return;
    uint32_t home = home_of(&array, hash);
    const struct bucket *bucket = &array.buckets[home];
    if (passed(bucket) > 0 || slot_tagged(bucket, 0) < 0)
        fetch_behind(&array, home);
}

/* Where it seems to be: entries are not looked at, which are not here yet. */
static struct spot find_tag(const struct array *array, uint64_t hash) {
    uint32_t at = home_of(array, hash);
    for (int i = 0; i < WINDOW; i++, at = after(array, at)) {
        struct bucket *bucket = &array->buckets[at];
        int slot = slot_tagged(bucket, tag_of(hash));
        if (slot >= 0 || passed(bucket) == 0)
            return spot_at(bucket, slot);
    }
    return NOWHERE;
}

/* Where the block is or will be, as far as one sees without the lock. */
static void fetch_place(struct prefix_table *table, uint64_t hash) {
    uint32_t shard = shard_of(table, hash);
    struct place place = {table, &table->shards[shard], shard, array_now(table, shard)};
    if (place.array.n == 0)
        return;
    struct spot spot = find_tag(&place.array, hash);
    if (spot.entry == NULL)
        spot = vacancy(&place.array, hash);
    if (spot.entry != NULL) {
        fetch_slot(spot.bucket, (int)spot.slot);
    } else {
        struct victim victim = oldest_near(&place, home_of(&place.array, hash));
        fetch_slot(&place.array.buckets[victim.bucket], (int)victim.slot);
    }
}

size_t prefix_table_put(struct prefix_table *table, const uint64_t *hashes, size_t count,
                        struct prefix_holder holder, uint32_t tick) {
    uint64_t packed = (uint64_t)tick << 32 | (uint32_t)holder.generation << 16 | holder.slot;
    size_t added = 0;
    for (size_t i = 0; i < count + AHEAD; i++) {
        if (i < count)
            fetch_bucket(table, hash_named(hashes[i]));
        size_t next = i - (AHEAD - AHEAD_NEXT), entry = i - (AHEAD - AHEAD_ENTRY);
        if (next < count) /* they wrap round below 0 */
            fetch_window(table, hash_named(hashes[next]));
        if (entry < count)
            fetch_place(table, hash_named(hashes[entry]));
        if (i >= AHEAD)
            added += put(table, hash_named(hashes[i - AHEAD]), packed);
    }
    if (added > 0)
        count_held(table, holder.slot, (int32_t)added);
    return added;
}

/* --- taking holders out ---------------------------------------------------------------------- */

/* True when it left nobody behind. */
static bool leave_set(struct prefix_table *table, struct entry *entry, struct prefix_holder who) {
    bool empty = true;
    for (int i = 0; i < PREFIX_HOLDERS; i++) {
        uint64_t there = word(&entry->holders[i]);
        if ((uint16_t)there == who.slot && (uint16_t)(there >> 16) == who.generation) {
            forget_holder(table, there);
            set_word(&entry->holders[i], 0);
        } else if (live(table, there)) {
            empty = false;
        }
    }
    return empty;
}

void prefix_table_drop(struct prefix_table *table, const uint64_t *hashes, size_t count,
                       struct prefix_holder holder) {
    for (size_t i = 0; i < count; i++) {
        uint64_t hash = hash_named(hashes[i]);
        struct place place = enter(table, hash);
        struct spot spot = find(&place.array, hash);
        if (spot.entry != NULL && leave_set(table, spot.entry, holder))
            erase(&place, (uint32_t)(spot.bucket - place.array.buckets), spot.slot);
        leave(&place);
    }
}

/* --- the bound ------------------------------------------------------------------------------- */

/* The age from which on entries go so that `limit` stay, and how many of just that age go. */
static unsigned cut_age(const struct place *place, uint32_t limit, uint32_t *of_that_age) {
    uint32_t ages[UINT8_MAX + 1] = {0}, left = 0;
    for (uint32_t at = 0; at < place->array.n; at++) {
        const struct bucket *bucket = &place->array.buckets[at];
        for (unsigned slot = 0; slot < SLOTS; slot++)
            ages[age_in(place, bucket, slot)] += byte_of(bucket->tags, slot) != 0;
    }
    unsigned age = 0;
    while (left + ages[age] <= limit)
        left += ages[age++];
    *of_that_age = left + ages[age] - limit;
    return age;
}

static void evict_down_to(struct place *place, uint32_t limit) {
    uint32_t spare = 0;
    unsigned cut = cut_age(place, limit, &spare);
    for (uint32_t at = 0; at < place->array.n; at++) {
        const struct bucket *bucket = &place->array.buckets[at];
        for (unsigned slot = 0; slot < SLOTS; slot++) {
            if (byte_of(bucket->tags, slot) == 0)
                continue;
            unsigned age = age_in(place, bucket, slot);
            if (age < cut || (age == cut && spare == 0))
                continue;
            spare -= age == cut;
            evict(place, at, slot);
        }
    }
}

/* The smallest array that this many entries do not fill. */
static uint32_t size_for(const struct prefix_table *table, uint32_t entries) {
    uint32_t size = 0;
    while (entries > 0 && size + 1 < table->sizes && table->buckets[size] * SLOTS / 4 * 3 < entries)
        size++;
    return size;
}

static void limit_shard(struct prefix_table *table, uint32_t number, uint32_t limit) {
    struct shard *shard = &table->shards[number];
    pthread_mutex_lock(&shard->lock);
    struct place place = {table, shard, number, array_now(table, number)};
    atomic_store_explicit(&shard->limit, limit, memory_order_relaxed);
    if (get_32(&shard->count) > limit)
        evict_down_to(&place, limit);
    uint32_t size = size_for(table, get_32(&shard->count));
    if (size < place.array.size)
        (void)resize(&place, size);
    pthread_mutex_unlock(&shard->lock);
}

void prefix_table_limit(struct prefix_table *table, uint64_t entries) {
    uint64_t all = entries < table->max_entries ? entries : table->max_entries;
    for (uint32_t i = 0; i < table->shard_count; i++) {
        uint64_t share = all / table->shard_count + (i < all % table->shard_count);
        limit_shard(table, i, (uint32_t)share);
    }
}

void prefix_table_count(const struct prefix_table *table, struct prefix_table_counts *out) {
    *out =
        (struct prefix_table_counts){.bytes = table->fixed_bytes, .byte_limit = table->max_bytes};
    for (uint32_t i = 0; i < table->shard_count; i++) {
        const struct shard *shard = &table->shards[i];
        out->entries += get_32(&shard->count);
        out->entry_limit += get_32(&shard->limit);
        out->evictions += atomic_load_explicit(&shard->evictions, memory_order_relaxed);
        out->bytes += table->buckets[size_of(table, i)] * sizeof(struct bucket);
    }
}

/* --- making it ------------------------------------------------------------------------------- */

static uint64_t round_up(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }

/* Shards for arrays of so many bytes in all, as a power of two: small enough to be moved at once,
 * and some for threads not to meet in. */
static unsigned shard_bits_for(uint64_t bytes) {
    unsigned bits = 0;
    while (bits < 16 &&
           (bytes >> bits > SHARD_BYTES || (bits < 6 && bytes >> bits > SHARD_BYTES / 4)))
        bits++;
    return bits;
}

/* Sizes double from one page; the last is what the bounds give. */
static void lay_sizes(struct prefix_table *table, uint64_t full, uint64_t page) {
    uint64_t bytes = page;
    table->sizes = 1;
    for (; bytes * 4 <= full * 3 && table->sizes + 1 < SIZES; bytes *= 2)
        table->buckets[table->sizes++] = (uint32_t)(bytes / sizeof(struct bucket));
    table->buckets[table->sizes++] = (uint32_t)(full / sizeof(struct bucket));
}

/* Bytes of a shard's largest array: what the entries need, or what is left of the bytes when the
 * fixed parts and one array that is being moved are taken off. */
static uint64_t full_bytes(uint64_t need, uint64_t budget, unsigned bits, uint64_t page) {
    uint64_t shards = UINT64_C(1) << bits;
    uint64_t each = round_up((need + shards - 1) >> bits, page);
    uint64_t most = (budget - shards * (sizeof(struct shard) + 1)) / (shards + 1) / page * page;
    return each < most ? each : most;
}

static uint64_t bytes_for(uint64_t entries) {
    if (entries > UINT64_MAX / sizeof(struct bucket) / 2)
        return UINT64_MAX / 2;
    return (entries / 7 * 8 / SLOTS + 2) * sizeof(struct bucket); /* 7/8 full */
}

static void start_shards(struct prefix_table *table) {
    for (uint32_t i = 0; i < table->shard_count; i++) {
        int err = pthread_mutex_init(&table->shards[i].lock, NULL);
        assert_always(err == 0);
    }
}

int prefix_table_new(uint64_t max_entries, uint64_t max_bytes, struct prefix_table **out) {
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), need = bytes_for(max_entries);
    size_t head = round_up(sizeof(struct prefix_table) + WORKERS * sizeof(struct worker_row), 128);
    if (max_entries == 0 || max_bytes < PREFIX_INDEX_MIN_BYTES)
        return -EINVAL;
    uint64_t budget = max_bytes - head;
    unsigned bits = shard_bits_for(need < budget ? need : budget);
    uint64_t full = full_bytes(need, budget, bits, page);
    size_t shards = (size_t)1 << bits;
    size_t mapped = head + shards * (sizeof(struct shard) + 1);
    struct prefix_table *table = mmap(NULL, mapped, PROT_READ | PROT_WRITE,
                                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (table == MAP_FAILED)
        return -ENOMEM;
    table->shard_bits = bits;
    table->shard_count = (uint32_t)shards;
    table->workers = (struct worker_row *)(table + 1);
    table->shards = (struct shard *)((char *)table + head);
    table->size_of = (_Atomic uint8_t *)(table->shards + shards);
    table->mapped = table->fixed_bytes = mapped;
    table->max_bytes = max_bytes;
    lay_sizes(table, full, page);
    uint64_t room = (uint64_t)table->buckets[table->sizes - 1] * SLOTS * shards;
    table->max_entries = max_entries < room ? max_entries : room;
    int err = pthread_mutex_init(&table->moving, NULL);
    assert_always(err == 0);
    start_shards(table);
    prefix_table_limit(table, table->max_entries);
    *out = table;
    return 0;
}

void prefix_table_free(struct prefix_table *table) {
    if (table == NULL)
        return;
    for (uint32_t size = 1; size < table->sizes; size++) {
        char *base = atomic_load(&table->arrays[size]);
        if (base != NULL && munmap(base, array_bytes(table, size)) != 0)
            panic_here("cannot unmap %zu bytes", array_bytes(table, size));
    }
    for (uint32_t i = 0; i < table->shard_count; i++)
        pthread_mutex_destroy(&table->shards[i].lock);
    pthread_mutex_destroy(&table->moving);
    if (munmap(table, table->mapped) != 0)
        panic_here("cannot unmap the prefix table");
}
