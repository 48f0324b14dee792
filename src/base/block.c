/* Three tiers. Each thread keeps up to 256 free blocks as an array of pointers (not a list through
 * the blocks, which would touch cold pages). Behind the caches stands one locked store of chunks of
 * 64 blocks; block 0 of a chunk is its header, a bit map says which others are free. Blocks move
 * between cache and store in batches. A block in the store has no memory: its page is discarded on
 * the way in, so a burst leaves the RSS however its blocks lie among those still in use, and the
 * number of maps stays small. A chunk whose blocks are all in the store is unmapped, but for one. */
#include "base/block.h"

#include "base/mem.h"

#if MEM_SEPARATE

void *block_get(void) { return mem_alloc(BLOCK_BYTES); }

void block_put(void *block) { mem_free(block); }

#else

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/list.h"
#include "base/pages.h"
#include "base/panic.h"

enum {
    CHUNK_BLOCKS = 64,
    CHUNK_BYTES = CHUNK_BLOCKS * BLOCK_BYTES,
    CACHE_MAX = 256,
    TAKE_BATCH = 16,
    GIVE_BATCH = 64,
};

struct chunk {
    struct list link; /* in store.room while free != 0 */
    uint64_t free;    /* bit i: block i is in the store; never bit 0, which is the header */
};

#define CHUNK_EMPTY (~UINT64_C(1))

struct cache {
    bool registered;
    size_t len;
    char *blocks[CACHE_MAX];
};

/* Chunks with room: the fullest tend to stand in front, empty ones at the back. */
static struct {
    pthread_mutex_t lock;
    struct list room;
    struct chunk *spare; /* the one empty chunk that is kept */
} store = {PTHREAD_MUTEX_INITIALIZER, {&store.room, &store.room}, NULL};

static _Thread_local struct cache cache;
static pthread_key_t exit_key;
static pthread_once_t exit_key_once = PTHREAD_ONCE_INIT;

static struct chunk *chunk_of(const char *block) {
    return (struct chunk *)((uintptr_t)block & ~(uintptr_t)(CHUNK_BYTES - 1));
}

static struct chunk *chunk_with_room(void) {
    if (list_empty(&store.room)) {
        struct chunk *chunk = pages_map(CHUNK_BYTES);
        chunk->free = CHUNK_EMPTY;
        list_push_front(&store.room, &chunk->link);
    }
    return container_of(store.room.next, struct chunk, link);
}

static char *chunk_take(struct chunk *chunk) {
    if (chunk == store.spare)
        store.spare = NULL;
    int index = __builtin_ctzll(chunk->free);
    chunk->free &= chunk->free - 1;
    if (chunk->free == 0)
        list_remove(&chunk->link);
    return (char *)chunk + (size_t)index * BLOCK_BYTES;
}

static void store_take(struct cache *into, size_t count) {
    pthread_mutex_lock(&store.lock);
    while (count-- > 0)
        into->blocks[into->len++] = chunk_take(chunk_with_room());
    pthread_mutex_unlock(&store.lock);
}

/* Puts the block among the free ones; an empty chunk that is one too many goes to `surplus`. */
static void chunk_give(char *block, struct list *surplus) {
    struct chunk *chunk = chunk_of(block);
    uint64_t bit = UINT64_C(1) << (size_t)(block - (char *)chunk) / BLOCK_BYTES;
    assert_always((chunk->free & bit) == 0);
    if (chunk->free == 0)
        list_push_front(&store.room, &chunk->link);
    chunk->free |= bit;
    if (chunk->free != CHUNK_EMPTY)
        return;
    list_remove(&chunk->link);
    if (store.spare != NULL) {
        list_push_back(surplus, &chunk->link);
        return;
    }
    store.spare = chunk;
    list_push_back(&store.room, &chunk->link);
}

static int by_address(const void *a, const void *b) {
    uintptr_t left = (uintptr_t) * (char *const *)a, right = (uintptr_t) * (char *const *)b;
    return (left > right) - (left < right);
}

/* One system call for each run of neighbours. The blocks are still this thread's own. */
static void discard_runs(char **blocks, size_t count) {
    qsort(blocks, count, sizeof *blocks, by_address);
    for (size_t start = 0, i = 1; i <= count; i++) {
        if (i < count && blocks[i] == blocks[i - 1] + BLOCK_BYTES)
            continue;
        pages_discard(blocks[start], (i - start) * BLOCK_BYTES);
        start = i;
    }
}

static void store_give(char **blocks, size_t count) {
    struct list surplus;
    list_init(&surplus);
    discard_runs(blocks, count);
    pthread_mutex_lock(&store.lock);
    for (size_t i = 0; i < count; i++)
        chunk_give(blocks[i], &surplus);
    pthread_mutex_unlock(&store.lock);
    for (struct list *link; (link = list_pop_front(&surplus)) != NULL;)
        pages_unmap(container_of(link, struct chunk, link), CHUNK_BYTES);
}

/* Runs when a thread ends. The cache is usable afterwards: a later destructor of the same thread
 * that frees an arena registers it again. */
static void cache_empty(void *arg) {
    struct cache *own = arg;
    own->registered = false;
    while (own->len > 0) {
        size_t count = own->len < GIVE_BATCH ? own->len : GIVE_BATCH;
        own->len -= count;
        store_give(own->blocks + own->len, count);
    }
}

static void make_exit_key(void) {
    int err = pthread_key_create(&exit_key, cache_empty);
    assert_always(err == 0);
}

static void cache_register(struct cache *own) {
    pthread_once(&exit_key_once, make_exit_key);
    int err = pthread_setspecific(exit_key, own);
    assert_always(err == 0);
    own->registered = true;
}

/* Gives the blocks that were used longest ago to the store. */
static void cache_shed(struct cache *own) {
    char *oldest[GIVE_BATCH];
    memcpy(oldest, own->blocks, sizeof oldest);
    own->len -= GIVE_BATCH;
    memmove(own->blocks, own->blocks + GIVE_BATCH, own->len * sizeof *own->blocks);
    store_give(oldest, GIVE_BATCH);
}

void *block_get(void) {
    if (__builtin_expect(cache.len == 0, 0)) {
        if (!cache.registered)
            cache_register(&cache);
        store_take(&cache, TAKE_BATCH);
    }
    return cache.blocks[--cache.len];
}

void block_put(void *block) {
    if (__builtin_expect(!cache.registered, 0))
        cache_register(&cache);
    if (__builtin_expect(cache.len == CACHE_MAX, 0))
        cache_shed(&cache);
    cache.blocks[cache.len++] = block;
}

#endif
