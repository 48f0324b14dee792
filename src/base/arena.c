/* A chain of extents, newest on top: 4 KiB blocks to bump through, and allocations too large for
 * them, which have an extent of their own. The arena itself lies at the head of the first block.
 * Every extent knows the block that was bumped through when it came on top, so going back to a mark
 * is popping the chain and setting one pointer. Where each allocation is to be separate (see
 * MEM_SEPARATE) the room left in a block is always none, and all allocations are extents. */
#include "base/arena.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/block.h"
#include "base/panic.h"

enum { ALIGN = 16, LARGE = 2048 };

struct extent {
    struct extent *below; /* NULL: the first block */
    struct extent *block; /* itself, unless it is a large allocation */
    size_t size;
} __attribute__((aligned(ALIGN)));

struct defer {
    struct defer *next;
    void (*fn)(void *arg); /* NULL: it ran or was dropped */
    void *arg;
};

struct arena {
    char *cur, *end; /* the room in top->block */
    struct extent *top;
    struct defer *defers;
    size_t footprint;
} __attribute__((aligned(ALIGN)));

static void push(struct arena *arena, struct extent *extent, struct extent *block, size_t size) {
    extent->below = arena->top;
    extent->block = block;
    extent->size = size;
    arena->top = extent;
    arena->footprint += size;
}

/* Bumping goes on at `used` bytes into the top block. */
static void bump_from(struct arena *arena, size_t used) {
    char *block = (char *)arena->top->block;
    arena->cur = block + used;
    arena->end = MEM_SEPARATE ? arena->cur : block + BLOCK_BYTES;
}

static void extent_free(struct extent *extent) {
    if (extent->block == extent)
        block_put(extent);
    else
        mem_free(extent);
}

struct arena *arena_new(void) {
    struct extent *first = block_get();
    struct arena *arena = (struct arena *)(first + 1);
    *arena = (struct arena){0};
    push(arena, first, first, BLOCK_BYTES);
    bump_from(arena, sizeof *first + sizeof *arena);
    return arena;
}

void defer_run(struct defer *defer) {
    void (*fn)(void *) = defer->fn;
    defer->fn = NULL;
    if (fn != NULL)
        fn(defer->arg);
}

void defer_drop(struct defer *defer) { defer->fn = NULL; }

static void run_defers(struct arena *arena, struct defer *until) {
    while (arena->defers != until) {
        struct defer *defer = arena->defers;
        assert_always(defer != NULL);
        arena->defers = defer->next;
        defer_run(defer);
    }
}

void arena_free(struct arena *arena) {
    if (arena == NULL)
        return;
    run_defers(arena, NULL);
    for (struct extent *extent = arena->top, *below; extent != NULL; extent = below) {
        below = extent->below;
        extent_free(extent);
    }
}

static void *alloc_large(struct arena *arena, size_t size) {
    size_t total;
    if (__builtin_add_overflow(size, sizeof(struct extent), &total))
        panic_here("out of memory: %zu bytes", size);
    struct extent *extent = mem_alloc(total);
    push(arena, extent, arena->top->block, total);
    return extent + 1;
}

static __attribute__((noinline)) void *alloc_slow(struct arena *arena, size_t size) {
    if (MEM_SEPARATE || size > LARGE)
        return alloc_large(arena, size);
    if (size == 0)
        return arena_alloc(arena, 1);
    struct extent *block = block_get();
    push(arena, block, block, BLOCK_BYTES);
    bump_from(arena, sizeof *block);
    return arena_alloc(arena, size);
}

void *arena_alloc(struct arena *arena, size_t size) {
    /* Zero and sizes that overflow both round to 0: less one, they exceed any room. */
    size_t rounded = (size + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    if (__builtin_expect(rounded - 1 >= (size_t)(arena->end - arena->cur), 0))
        return alloc_slow(arena, size);
    char *ptr = arena->cur;
    arena->cur = ptr + rounded;
    return ptr;
}

void *arena_zalloc(struct arena *arena, size_t size) {
    return memset(arena_alloc(arena, size), 0, size);
}

struct str arena_dup(struct arena *arena, struct str s) {
    char *copy = arena_alloc(arena, s.len + 1);
    if (s.len)
        memcpy(copy, s.ptr, s.len);
    copy[s.len] = '\0';
    return str_make(copy, s.len);
}

/* Formats into the room that is left and takes it when the text fits; else formats once more. */
struct str arena_printf(struct arena *arena, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    char *text = arena->cur;
    size_t room = (size_t)(arena->end - arena->cur);
    int n = vsnprintf(room ? text : NULL, room, format, args);
    assert_always(n >= 0);
    size_t len = (size_t)n;
    bool fits = len < room;
    text = arena_alloc(arena, len + 1);
    if (!fits)
        (void)vsnprintf(text, len + 1, format, again);
    va_end(again);
    va_end(args);
    return str_make(text, len);
}

size_t arena_footprint(const struct arena *arena) { return arena->footprint; }

struct arena_mark arena_mark(struct arena *arena) {
    size_t used = (size_t)(arena->cur - (char *)arena->top->block);
    return (struct arena_mark){arena->top, used, arena->defers};
}

void arena_reset(struct arena *arena, struct arena_mark mark) {
    run_defers(arena, mark.defers);
    while (arena->top != mark.block) {
        struct extent *extent = arena->top;
        assert_always(extent->below != NULL);
        arena->top = extent->below;
        arena->footprint -= extent->size;
        extent_free(extent);
    }
    bump_from(arena, mark.used);
}

struct defer *arena_defer(struct arena *arena, void (*fn)(void *arg), void *arg) {
    struct defer *defer = arena_alloc(arena, sizeof *defer);
    *defer = (struct defer){arena->defers, fn, arg};
    arena->defers = defer;
    return defer;
}
