/* The machine's part of a fiber: making a first frame and switching. Assembly where we have it, ucontext
 * elsewhere (build option -Dfiber=ucontext). */
#pragma once

#include <stddef.h>

struct context {
    void *sp; /* assembly: where the saved registers lie; ucontext: a ucontext_t */
};

/* A context that will run entry(arg) on the given stack; entry must not return. */
void context_make(struct context *context, char *low, size_t size, void (*entry)(void *),
                  void *arg);
/* Leaves `from` for `to`; returns when somebody switches back. */
void context_switch(struct context *from, struct context *to);
/* Releases what context_make or a first context_switch from it took. */
void context_end(struct context *context);
