/* The end of the process. The message is formatted on the stack and written with write(2), so that
 * neither stdio's locks nor a broken heap keep it from being seen. The backtrace comes second: its
 * first use loads the unwinder, which may fail in a process that is short of memory. */
#include "base/panic.h"

#include <execinfo.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { MESSAGE_SIZE = 1024, MAX_FRAMES = 64 };

static void write_all(const char *ptr, size_t len) {
    while (len > 0) {
        ssize_t n = write(STDERR_FILENO, ptr, len);
        if (n <= 0)
            return;
        ptr += n;
        len -= (size_t)n;
    }
}

/* snprintf's answer is what it would have written: cut to what is there. */
static size_t written(int n, size_t size) {
    if (n < 0)
        return 0;
    return (size_t)n < size ? (size_t)n : size - 1;
}

void panic(const char *file, int line, const char *format, ...) {
    static atomic_flag panicking = ATOMIC_FLAG_INIT;
    if (atomic_flag_test_and_set(&panicking))
        abort();

    char text[MESSAGE_SIZE];
    size_t len = written(snprintf(text, sizeof text, "panic: %s:%d: ", file, line), sizeof text);
    va_list args;
    va_start(args, format);
    len += written(vsnprintf(text + len, sizeof text - len, format, args), sizeof text - len);
    va_end(args);
    write_all(text, len);
    write_all("\n", 1);

    void *frames[MAX_FRAMES];
    backtrace_symbols_fd(frames, backtrace(frames, MAX_FRAMES), STDERR_FILENO);
    abort();
}
