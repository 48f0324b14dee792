/* See context.h. */
#include "io/context.h"

#include <stdint.h>
#include <string.h>

#ifdef SLUICE_FIBER_UCONTEXT
#include <ucontext.h>

#include "base/mem.h"

static ucontext_t *context_slot(struct context *context) {
    if (context->sp == NULL)
        context->sp = mem_zalloc(sizeof(ucontext_t));
    return context->sp;
}

/* makecontext passes ints only, so two pointers travel in four halves. */
static void context_entry(unsigned f_high, unsigned f_low, unsigned a_high, unsigned a_low) {
    void (*entry)(void *) = (void (*)(void *))(((uintptr_t)f_high << 32) | f_low);
    entry((void *)(((uintptr_t)a_high << 32) | a_low));
    __builtin_trap();
}

void context_make(struct context *context, char *low, size_t size, void (*entry)(void *),
                  void *arg) {
    ucontext_t *slot = context_slot(context);
    uint64_t f = (uintptr_t)entry, a = (uintptr_t)arg;
    getcontext(slot);
    slot->uc_stack.ss_sp = low;
    slot->uc_stack.ss_size = size;
    slot->uc_link = NULL;
    makecontext(slot, (void (*)(void))context_entry, 4, (unsigned)(f >> 32), (unsigned)f,
                (unsigned)(a >> 32), (unsigned)a);
}

void context_switch(struct context *from, struct context *to) {
    swapcontext(context_slot(from), to->sp);
}

void context_end(struct context *context) {
    mem_free(context->sp);
    context->sp = NULL;
}

#else

void fiber_switch(void **save_sp, void *load_sp);
void fiber_trampoline(void);

#if defined(__x86_64__)
/* Layout of what fiber_switch pops: mxcsr+x87 word, r15, r14, r13, r12, rbx, rbp, return address. */
enum { SLOT_CONTROL, SLOT_R12 = 4, SLOT_RBX = 5, SLOT_RETURN = 7, SLOTS = 10 };

void context_make(struct context *context, char *low, size_t size, void (*entry)(void *),
                  void *arg) {
    uintptr_t top = ((uintptr_t)low + size) & ~(uintptr_t)15;
    uint64_t *frame = (uint64_t *)top - SLOTS;
    memset(frame, 0, SLOTS * sizeof *frame);
    frame[SLOT_CONTROL] = 0x1f80 | (uint64_t)0x037f << 32; /* default rounding, exceptions masked */
    frame[SLOT_R12] = (uintptr_t)entry;
    frame[SLOT_RBX] = (uintptr_t)arg;
    frame[SLOT_RETURN] = (uintptr_t)fiber_trampoline;
    context->sp = frame;
}
#elif defined(__aarch64__)
enum { SLOT_X19 = 0, SLOT_X20 = 1, SLOT_X30 = 11, SLOTS = 22 };

void context_make(struct context *context, char *low, size_t size, void (*entry)(void *),
                  void *arg) {
    uintptr_t top = ((uintptr_t)low + size) & ~(uintptr_t)15;
    uint64_t *frame = (uint64_t *)top - SLOTS;
    memset(frame, 0, SLOTS * sizeof *frame);
    frame[SLOT_X19] = (uintptr_t)arg;
    frame[SLOT_X20] = (uintptr_t)entry;
    frame[SLOT_X30] = (uintptr_t)fiber_trampoline;
    context->sp = frame;
}
#else
#error "no assembly switch for this machine: build with -Dfiber=ucontext"
#endif

void context_switch(struct context *from, struct context *to) { fiber_switch(&from->sp, to->sp); }

void context_end(struct context *context) { (void)context; }
#endif
