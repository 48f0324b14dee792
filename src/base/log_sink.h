/* Where log lines go: stdout and the file of the day; a part of base/log. All but log_sink_lost and
 * log_sink_stop_by belong to one thread at a time: the writer, and start and stop around it. */
#pragma once

#include "base/log.h"

/* Makes and opens the directory's file of the day. 0 or a negative errno; then nothing is open. */
int log_sink_open(const struct log_options *options, int64_t now_ns) MUST_CHECK;
void log_sink_close(void);
/* Queues the line for each place, opening the next day's file when `when_ns` calls for it. May block
 * on a descriptor. */
void log_sink_put(int64_t when_ns, enum log_level level, const char *line, size_t len);
void log_sink_flush(void);
/* From this time on (clock_ms) nothing waits for stdout any more. */
void log_sink_stop_by(int64_t clock);
/* Lines that could not be written. */
uint64_t log_sink_lost(void);
