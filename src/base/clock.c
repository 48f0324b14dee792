/* CLOCK_MONOTONIC through the vDSO: some 20 ns a call and no system call. */
#include "base/clock.h"

#include <time.h>

#include "base/panic.h"

static int64_t read_ns(clockid_t id) {
    struct timespec now;
    int err = clock_gettime(id, &now);
    assert_always(err == 0);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t clock_ns(void) { return read_ns(CLOCK_MONOTONIC); }
int64_t clock_us(void) { return clock_ns() / 1000; }
int64_t clock_ms(void) { return clock_ns() / 1000000; }
int64_t clock_wall_ms(void) { return read_ns(CLOCK_REALTIME) / 1000000; }

deadline_ms deadline_in(int64_t ms) {
    deadline_ms deadline;
    if (ms < 0 || __builtin_add_overflow(clock_ms(), ms, &deadline))
        return DEADLINE_NEVER;
    return deadline;
}

int64_t deadline_left(deadline_ms deadline) {
    if (deadline == DEADLINE_NEVER)
        return INT64_MAX;
    int64_t now = clock_ms();
    return deadline > now ? deadline - now : 0;
}

/* `count` decimal digits of `value` and then `end`; where the next field starts. */
static char *put_field(char *out, int count, int64_t value, char end) {
    for (int i = count - 1; i >= 0; i--) {
        out[i] = (char)('0' + value % 10);
        value /= 10;
    }
    out[count] = end;
    return out + count + 1;
}

void clock_rfc3339(int64_t wall_ms, char *out, size_t size) {
    assert_always(size >= 25);
    /* The format has four digits for the year: 0001-01-01 to 9999-12-31. */
    const int64_t first_ms = -62135596800000, last_ms = 253402300799999;
    if (wall_ms < first_ms)
        wall_ms = first_ms;
    if (wall_ms > last_ms)
        wall_ms = last_ms;
    int64_t ms = wall_ms % 1000;
    if (ms < 0)
        ms += 1000;
    time_t seconds = (time_t)((wall_ms - ms) / 1000);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    out = put_field(out, 4, tm.tm_year + 1900, '-');
    out = put_field(out, 2, tm.tm_mon + 1, '-');
    out = put_field(out, 2, tm.tm_mday, 'T');
    out = put_field(out, 2, tm.tm_hour, ':');
    out = put_field(out, 2, tm.tm_min, ':');
    out = put_field(out, 2, tm.tm_sec, '.');
    out = put_field(out, 3, ms, 'Z');
    *out = '\0';
}
