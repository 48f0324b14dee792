/* A request's memory: bump allocation in blocks, freed all at once, with a list of things to undo.
 * Small arenas live in one 4 KiB block taken from a per-thread cache. One thread at a time uses an
 * arena. Under AddressSanitizer every allocation is a block of its own, so overruns are seen. */
#pragma once

#include "base/str.h"

struct arena;
struct defer;

/* A new arena. Free with arena_free on any thread. */
struct arena *arena_new(void);
/* Runs the defers, last hung first, then gives all memory back. NULL is allowed. */
void arena_free(struct arena *arena);

/* `size` bytes aligned to 16, valid until arena_free or the reset of an older mark. Never NULL: it
 * panics when memory is out, so large bodies do not belong here but in a capped `struct buf`. What
 * is above 2 KiB and does not fit the current block costs a call of mem_alloc. */
void *arena_alloc(struct arena *arena, size_t size) __attribute__((returns_nonnull));
void *arena_zalloc(struct arena *arena, size_t size) __attribute__((returns_nonnull));
/* Copies; the copy is NUL-terminated as well (not counted in len). */
struct str arena_dup(struct arena *arena, struct str s);
struct str arena_printf(struct arena *arena, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Bytes held in blocks (what the arena costs). */
size_t arena_footprint(const struct arena *arena);

/* A position to which the arena can be taken back. */
struct arena_mark {
    void *block;
    size_t used;
    struct defer *defers;
};
struct arena_mark arena_mark(struct arena *arena);
/* Runs the defers hung since the mark and drops what was allocated since. */
void arena_reset(struct arena *arena, struct arena_mark mark);

/* Hangs `fn(arg)` on the arena: it runs at arena_free (or reset), or once by defer_run, or never
 * after defer_drop. The handle lives in the arena (32 bytes, also when it is settled). `fn` must not allocate from the arena. */
struct defer *arena_defer(struct arena *arena, void (*fn)(void *arg), void *arg);
/* Runs it now instead of at the end; does nothing when it ran or was dropped. */
void defer_run(struct defer *defer);
/* It shall not run at all. */
void defer_drop(struct defer *defer);
