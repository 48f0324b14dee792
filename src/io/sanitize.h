/* What the sanitizers and valgrind must be told about stacks that are not the thread's own. Empty
 * inline functions in an ordinary build. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#if defined(__SANITIZE_ADDRESS__)
#define HAVE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAVE_ASAN 1
#endif
#endif
#ifndef HAVE_ASAN
#define HAVE_ASAN 0
#endif

#if defined(__SANITIZE_THREAD__)
#define HAVE_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define HAVE_TSAN 1
#endif
#endif
#ifndef HAVE_TSAN
#define HAVE_TSAN 0
#endif

#if HAVE_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#include <sanitizer/lsan_interface.h>
#endif
#if HAVE_TSAN
#include <sanitizer/tsan_interface.h>
#endif
#if __has_include(<valgrind/memcheck.h>)
#include <valgrind/memcheck.h>
#endif

static inline void stack_registered(char *low, char *high) {
    (void)low;
    (void)high;
#ifdef VALGRIND_STACK_REGISTER
    (void)VALGRIND_STACK_REGISTER(low, high);
#endif
#if HAVE_ASAN /* what only a parked fiber points to is no leak */
    __lsan_register_root_region(low, (size_t)(high - low));
#endif
}

/* The stack of a fiber that has ended may be looked at, below what was its stack pointer too. */
static inline void stack_readable(char *low, size_t size) {
    (void)low;
    (void)size;
#ifdef VALGRIND_MAKE_MEM_DEFINED
    (void)VALGRIND_MAKE_MEM_DEFINED(low, size);
#endif
}

/* A free stack is out of bounds: whoever still holds a pointer into one is caught. */
static inline void stack_poison(char *low, size_t size, bool out_of_bounds) {
    (void)low;
    (void)size;
    (void)out_of_bounds;
#if HAVE_ASAN
    if (out_of_bounds)
        __asan_poison_memory_region(low, size);
    else
        __asan_unpoison_memory_region(low, size);
#endif
}
