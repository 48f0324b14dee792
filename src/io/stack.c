/* See stack.h. Free stacks are remembered in an array, not in the stacks: a link inside would keep a page of
 * each committed. A stack that went deeper than 32 KiB is trimmed when it comes back; the test is a look at
 * the page there, which stays the shared zero page while nobody has written to it. */
#include "io/stack.h"

#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/panic.h"
#include "base/vec.h"
#include "io/sanitize.h"

#if HAVE_ASAN || HAVE_TSAN
#define STACK_SPAN (1024 * 1024)
#else
#define STACK_SPAN (256 * 1024)
#endif
#define STACKS_PER_SLAB 16
#define STACKS_WARM 64 /* free stacks that keep their memory */
#define PAGE 4096
#define LINE 64
#define TRIM_DEPTH (32 * 1024)
#define SAMPLE_EVERY 64

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

static _Thread_local struct {
    VEC(char *) warm, cold; /* lowest address of each free span */
    size_t deepest, puts;
} stacks;

static void guard_install(char *page) {
    if (madvise(page, PAGE, MADV_GUARD_INSTALL) == 0)
        return;
    if (mprotect(page, PAGE, PROT_NONE) != 0)
        panic_here("cannot guard a fiber stack; too many mappings?");
}

static void slab_map(void) {
    size_t size = (size_t)STACK_SPAN * STACKS_PER_SLAB;
    char *slab = mmap(NULL, size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (slab == MAP_FAILED)
        panic_here("cannot map fiber stacks");
    (void)madvise(slab, size, MADV_NOHUGEPAGE);
    for (size_t i = 0; i < STACKS_PER_SLAB; i++) {
        char *span = slab + i * STACK_SPAN;
        guard_install(span);
        stack_registered(span + PAGE, span + STACK_SPAN);
        vec_push(&stacks.cold, span);
    }
}

struct stack stack_get(void) {
    if (stacks.warm.len == 0 && stacks.cold.len == 0)
        slab_map();
    char *span = stacks.warm.len > 0 ? stacks.warm.items[--stacks.warm.len]
                                     : stacks.cold.items[--stacks.cold.len];
    stack_poison(span + PAGE, STACK_SPAN - PAGE, false);
    return (struct stack){.low = span + PAGE, .size = STACK_SPAN - PAGE};
}

/* One word of each cache line: frames that pass through a page leave return addresses and saved registers
 * closer together than that. */
static bool page_touched(const char *page) {
    const uint64_t *words = (const uint64_t *)page;
    uint64_t any = 0;
    for (size_t i = 0; i < PAGE / sizeof *words; i += LINE / sizeof *words)
        any |= words[i];
    return any != 0;
}

static void depth_sample(struct stack stack) {
    size_t depth = PAGE;
    while (depth + PAGE <= stack.size && page_touched(stack.low + stack.size - depth - PAGE))
        depth += PAGE;
    if (depth > stacks.deepest)
        stacks.deepest = depth;
}

void stack_put(struct stack stack) {
    char *span = stack.low - PAGE;
    stack_poison(stack.low, stack.size, false); /* what its frames left */
    stack_readable(stack.low, stack.size);
    bool deep = page_touched(stack.low + stack.size - TRIM_DEPTH);
    if (deep || stacks.puts++ % SAMPLE_EVERY == 0)
        depth_sample(stack);
    stack_poison(stack.low, stack.size, true);
    if (stacks.warm.len < STACKS_WARM) {
        if (deep)
            (void)madvise(stack.low, stack.size - TRIM_DEPTH + PAGE, MADV_DONTNEED);
        vec_push(&stacks.warm, span);
        return;
    }
    (void)madvise(stack.low, stack.size, MADV_DONTNEED);
    vec_push(&stacks.cold, span);
}

size_t stack_cached(void) { return stacks.warm.len + stacks.cold.len; }
size_t stack_deepest(void) { return stacks.deepest; }
