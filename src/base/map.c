/* Linear probing over a power-of-two array that is at most three quarters full. Removal shifts the
 * followers back, so there are no tombstones and a map that shrank is as quick as one that never
 * grew; the array is halved when an eighth is used. The hash is seeded per process: keys come from
 * clients, who must not be able to pick colliding ones. */
#include "base/map.h"

#include <stdatomic.h>
#include <sys/random.h>

#include "base/hash.h"
#include "base/panic.h"
#include "base/rand.h"

enum { MIN_CAP = 16 };

/* Empty when value is NULL. The key is a copy owned by the map. */
struct map_slot {
    uint64_t hash;
    char *key;
    size_t len;
    void *value;
};

/* Made once and never changed, since it decides where keys stand in live maps. */
static uint64_t hash_seed(void) {
    static _Atomic uint64_t seed;
    uint64_t now = atomic_load_explicit(&seed, memory_order_relaxed);
    if (__builtin_expect(now != 0, 1))
        return now;
    uint64_t fresh = rand_process_seed();
    if (fresh == 0 && getrandom(&fresh, sizeof fresh, 0) != sizeof fresh)
        panic_here("no randomness from the kernel");
    fresh |= 1;
    return atomic_compare_exchange_strong(&seed, &now, fresh) ? fresh : now;
}

void map_init(struct map *map) { *map = (struct map){NULL, 0, 0}; }

void map_free(struct map *map) {
    for (size_t i = 0; i < map->cap; i++)
        mem_free(map->slots[i].key);
    mem_free(map->slots);
    map_init(map);
}

/* The slot that holds the key, or the empty one where it would go. cap > 0. */
static struct map_slot *find_slot(const struct map *map, struct str key, uint64_t hash) {
    size_t mask = map->cap - 1;
    for (size_t i = hash & mask;; i = (i + 1) & mask) {
        struct map_slot *slot = &map->slots[i];
        if (slot->value == NULL)
            return slot;
        if (slot->hash == hash && str_eq(str_make(slot->key, slot->len), key))
            return slot;
    }
}

static struct map_slot *find_empty(const struct map *map, uint64_t hash) {
    size_t mask = map->cap - 1;
    size_t i = hash & mask;
    while (map->slots[i].value != NULL)
        i = (i + 1) & mask;
    return &map->slots[i];
}

static void resize(struct map *map, size_t cap) {
    struct map old = *map;
    map->slots = mem_zalloc(cap * sizeof *map->slots);
    map->cap = cap;
    for (size_t i = 0; i < old.cap; i++) {
        if (old.slots[i].value != NULL)
            *find_empty(map, old.slots[i].hash) = old.slots[i];
    }
    mem_free(old.slots);
}

static uint64_t key_hash(struct str key) { return hash_seeded(key.ptr, key.len, hash_seed()); }

void *map_get(const struct map *map, struct str key) {
    return map->len ? find_slot(map, key, key_hash(key))->value : NULL;
}

void *map_put(struct map *map, struct str key, void *value) {
    assert_always(value != NULL);
    if ((map->len + 1) * 4 > map->cap * 3)
        resize(map, map->cap ? map->cap * 2 : MIN_CAP);
    uint64_t hash = key_hash(key);
    struct map_slot *slot = find_slot(map, key, hash);
    void *before = slot->value;
    if (before == NULL) {
        *slot = (struct map_slot){hash, str_dup(key), key.len, NULL};
        map->len++;
    }
    slot->value = value;
    return before;
}

/* Moves back every follower whose way from its home slot leads over the hole. */
static void close_hole(struct map *map, size_t hole) {
    size_t mask = map->cap - 1;
    for (size_t i = (hole + 1) & mask; map->slots[i].value != NULL; i = (i + 1) & mask) {
        size_t home = map->slots[i].hash & mask;
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            map->slots[hole] = map->slots[i];
            hole = i;
        }
    }
    map->slots[hole] = (struct map_slot){0};
}

void *map_remove(struct map *map, struct str key) {
    if (map->len == 0)
        return NULL;
    struct map_slot *slot = find_slot(map, key, key_hash(key));
    void *value = slot->value;
    if (value == NULL)
        return NULL;
    mem_free(slot->key);
    close_hole(map, (size_t)(slot - map->slots));
    map->len--;
    if (map->cap > MIN_CAP && map->len < map->cap / 8)
        resize(map, map->cap / 2);
    return value;
}

bool map_next(const struct map *map, size_t *cursor, struct str *key, void **value) {
    while (*cursor < map->cap) {
        const struct map_slot *slot = &map->slots[(*cursor)++];
        if (slot->value == NULL)
            continue;
        *key = str_make(slot->key, slot->len);
        *value = slot->value;
        return true;
    }
    return false;
}
