/* The text of one log line; a part of base/log. */
#pragma once

#include "base/log.h"

struct log_event {
    int64_t when_ns; /* since 1970 */
    enum log_level level;
    const char *target, *file;
    int number; /* line in the file */
    const char *message;
    const struct log_field *fields;
    size_t count;
};

#define LOG_LINE_MAX 8192
/* Where a text line has its level. */
#define LOG_LEVEL_AT 20
#define LOG_LEVEL_LEN 5

/* Writes the line with its newline into `out` (LOG_LINE_MAX bytes); its length. Values over 2 KiB are
 * cut, and fields that no longer fit left out; JSON stays well-formed. Any thread. */
size_t log_line_format(char *out, const struct log_event *event, bool json);
