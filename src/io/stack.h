/* Fiber stacks: mapped in slabs, 256 KiB virtual each (1 MiB under sanitizers), committed by use, one
 * guard page below. Guards are MADV_GUARD_INSTALL where the kernel has it (no extra mapping), else
 * mprotect. One cache a thread; what exceeds it gives its memory back but keeps its addresses. */
#pragma once

#include <stddef.h>

struct stack {
    char *low;   /* first usable byte, above the guard */
    size_t size; /* usable bytes */
};

/* A stack for the calling thread; panics when nothing can be mapped. */
struct stack stack_get(void);
/* Gives it back; the same thread. */
void stack_put(struct stack stack);
size_t stack_cached(void);
/* Deepest use seen in this thread, in bytes (page steps, sampled). */
size_t stack_deepest(void);
