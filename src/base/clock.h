/* Time. Deadlines are milliseconds on the monotonic clock. Nothing parks. */
#pragma once

#include <stddef.h>
#include <stdint.h>

typedef int64_t deadline_ms;
#define DEADLINE_NEVER INT64_MAX

int64_t clock_ms(void);      /* monotonic */
int64_t clock_us(void);      /* monotonic */
int64_t clock_ns(void);      /* monotonic */
int64_t clock_wall_ms(void); /* since 1970 */

/* now + ms; ms < 0 or huge means never. */
deadline_ms deadline_in(int64_t ms);
static inline deadline_ms deadline_sooner(deadline_ms a, deadline_ms b) { return a < b ? a : b; }
/* Milliseconds left, 0 when past, INT64_MAX for never. */
int64_t deadline_left(deadline_ms deadline);

/* "2026-01-02T12:34:56.789Z" into out (at least 25 bytes). */
void clock_rfc3339(int64_t wall_ms, char *out, size_t size);
