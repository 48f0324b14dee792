/* Slabs of 64 KiB (more for large objects) aligned to their size, so that masking an object's
 * address finds its slab. A slab has a free list of its own, so it is known at once when it empties;
 * then it is unmapped, except one that is kept against flutter. Objects are taken from the front of
 * the list of slabs with room: a full slab that gets room again goes to the front, a fresh one to
 * the back, which lets sparse slabs run empty. Objects never handed out are not touched. */
#include "base/pool.h"

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/mem.h"
#include "base/pages.h"
#include "base/panic.h"

enum { ALIGN = 16, SLAB_MIN = 64 * 1024, OBJECTS_MIN = 4, OBJECT_MAX = 1024 * 1024 };

struct slab {
    struct list link; /* in pool.room while it has a free object */
    struct pool *owner;
    struct free_object *free;
    size_t fresh; /* offset of the first object that was never handed out */
    size_t used;
} __attribute__((aligned(ALIGN)));

struct free_object {
    struct free_object *next;
};

struct pool {
    const char *name;
    size_t size, slab_size, in_use;
    struct list room;
    struct slab *spare; /* the one empty slab that is kept; it is in `room` too */
};

struct pool *pool_new(const char *name, size_t size) {
    if (size == 0 || size > OBJECT_MAX)
        panic_here("pool %s: no objects of %zu bytes", name, size);
    struct pool *pool = mem_zalloc(sizeof *pool);
    pool->name = name;
    pool->size = MEM_SEPARATE ? size : (size + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    pool->slab_size = SLAB_MIN;
    while (pool->slab_size - sizeof(struct slab) < OBJECTS_MIN * pool->size)
        pool->slab_size *= 2;
    list_init(&pool->room);
    return pool;
}

size_t pool_in_use(const struct pool *pool) { return pool->in_use; }

void pool_free(struct pool *pool) {
    if (pool->in_use != 0)
        panic_here("pool %s freed with %zu objects in use", pool->name, pool->in_use);
    if (pool->spare != NULL)
        pages_unmap(pool->spare, pool->slab_size);
    mem_free(pool);
}

#if MEM_SEPARATE

void *pool_get(struct pool *pool) {
    pool->in_use++;
    return mem_alloc(pool->size);
}

void pool_put(struct pool *pool, void *object) {
    assert_always(pool->in_use > 0);
    pool->in_use--;
    mem_free(object);
}

#else

static bool slab_has_room(const struct pool *pool, const struct slab *slab) {
    return slab->free != NULL || slab->fresh + pool->size <= pool->slab_size;
}

static struct slab *slab_with_room(struct pool *pool) {
    if (list_empty(&pool->room)) {
        struct slab *slab = pages_map(pool->slab_size);
        slab->owner = pool;
        slab->fresh = sizeof *slab;
        list_push_back(&pool->room, &slab->link);
    }
    return container_of(pool->room.next, struct slab, link);
}

void *pool_get(struct pool *pool) {
    struct slab *slab = slab_with_room(pool);
    void *object = slab->free;
    if (object != NULL) {
        slab->free = slab->free->next;
    } else {
        object = (char *)slab + slab->fresh;
        slab->fresh += pool->size;
    }
    slab->used++;
    pool->in_use++;
    if (slab == pool->spare)
        pool->spare = NULL;
    if (!slab_has_room(pool, slab))
        list_remove(&slab->link);
    return object;
}

static void slab_emptied(struct pool *pool, struct slab *slab) {
    list_remove(&slab->link);
    if (pool->spare != NULL) {
        pages_unmap(slab, pool->slab_size);
        return;
    }
    pool->spare = slab;
    list_push_back(&pool->room, &slab->link);
}

void pool_put(struct pool *pool, void *object) {
    struct slab *slab = (struct slab *)((uintptr_t)object & ~(uintptr_t)(pool->slab_size - 1));
    if (slab->owner != pool || slab->used == 0)
        panic_here("pool %s: %p is not one of its objects", pool->name, object);
    bool was_full = !slab_has_room(pool, slab);
    struct free_object *freed = object;
    freed->next = slab->free;
    slab->free = freed;
    slab->used--;
    pool->in_use--;
    if (was_full)
        list_push_front(&pool->room, &slab->link);
    if (slab->used == 0)
        slab_emptied(pool, slab);
}

#endif
