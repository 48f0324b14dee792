/* The log: one line an event, text or JSON, on stdout and optionally in daily files (spec 06 section
 * 2). Callers format into a per-thread ring; a writer thread does the writing, so no loop blocks on a
 * slow terminal. When the queue is full lines are dropped and counted. Secrets must not be passed.
 *
 *   log_info("fleet", "worker registered", F_STR("url", url), F_INT("total", n));
 */
#pragma once

#include "base/str.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

struct log_field {
    const char *key;
    enum { LOG_FIELD_STR, LOG_FIELD_INT, LOG_FIELD_FLOAT, LOG_FIELD_BOOL } kind;
    union {
        struct str text;
        int64_t number;
        double real;
    };
};
#define F_STR(k, v) ((struct log_field){.key = (k), .kind = LOG_FIELD_STR, .text = (v)})
#define F_CSTR(k, v) ((struct log_field){.key = (k), .kind = LOG_FIELD_STR, .text = str_from(v)})
#define F_INT(k, v) ((struct log_field){.key = (k), .kind = LOG_FIELD_INT, .number = (v)})
#define F_FLOAT(k, v) ((struct log_field){.key = (k), .kind = LOG_FIELD_FLOAT, .real = (v)})
#define F_BOOL(k, v) ((struct log_field){.key = (k), .kind = LOG_FIELD_BOOL, .number = (v)})

struct log_options {
    enum log_level level;
    bool json;
    bool colour;     /* text lines on a terminal; the caller has looked at NO_COLOR */
    const char *dir; /* NULL: no files; else smg.YYYY-MM-DD (UTC) in it, made if absent */
    int max_files;   /* 0 = keep all */
};

/* Starts the writer thread. Before it, lines go to stderr directly. 0, or a negative errno when
 * `dir` cannot be made or written (-EALREADY when started already). The options are copied. */
int log_start(const struct log_options *options) MUST_CHECK;
/* Writes what is queued, stops the thread; gives up on a terminal or pipe that takes nothing for two
 * seconds. Also runs at exit(). Lines after it go to stderr directly. Does nothing when not started. */
void log_stop(void);
void log_set_level(enum log_level level);
/* The level by target: "info,fleet=debug,smg::response=warn" (SGL_LOG, RUST_LOG). A bare level sets
 * the one for all other targets; `a=` also holds for targets below it (`a::b`); the longest match
 * wins. Levels as in --log-level, and `off` and `trace`, any case. Call it after log_start, whose level
 * it replaces. 0, or -EINVAL for what it cannot read; then nothing changes. */
int log_set_filter(const char *list) MUST_CHECK;
extern _Atomic int log_threshold; /* lowest level that any target writes; read by the macros */
/* Lines lost so far: the queue was full, or a file or stdout did not take them. */
uint64_t log_dropped(void);

/* Behind the macros. Never blocks once the log is started, does not park, some 0.5 us. Not for signal
 * handlers. Text is escaped so that one call is one line; values over 2 KiB are cut. */
void log_write(enum log_level level, const char *target, const char *file, int line,
               const char *message, const struct log_field *fields, size_t count);

#define log_enabled(lvl) ((int)(lvl) >= log_threshold)
#define log_at(lvl, target, message, ...)                                                          \
    do {                                                                                           \
        if (log_enabled(lvl)) {                                                                    \
            const struct log_field log_fields_[] = {{0}, ##__VA_ARGS__};                           \
            log_write((lvl), (target), __FILE__, __LINE__, (message), log_fields_ + 1,             \
                      sizeof log_fields_ / sizeof *log_fields_ - 1);                               \
        }                                                                                          \
    } while (0)
#define log_debug(target, ...) log_at(LOG_DEBUG, target, __VA_ARGS__)
#define log_info(target, ...) log_at(LOG_INFO, target, __VA_ARGS__)
#define log_warn(target, ...) log_at(LOG_WARN, target, __VA_ARGS__)
#define log_error(target, ...) log_at(LOG_ERROR, target, __VA_ARGS__)
