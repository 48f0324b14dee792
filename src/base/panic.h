/* Assertions that stay on in release builds, and the way the process ends when it must not go on. */
#pragma once

/* Prints the message with a backtrace on stderr and aborts. Async-signal-safe enough for use on
 * any stack. */
void panic(const char *file, int line, const char *format, ...)
    __attribute__((noreturn, cold, format(printf, 3, 4)));

#define assert_always(cond)                                                                        \
    do {                                                                                           \
        if (__builtin_expect(!(cond), 0))                                                          \
            panic(__FILE__, __LINE__, "assertion failed: %s", #cond);                              \
    } while (0)
#define panic_here(...) panic(__FILE__, __LINE__, __VA_ARGS__)
