/* stdout may be a terminal or pipe whose reader has stopped: it is polled and fed in pieces that do
 * not block, so that stopping the log has an end and a stuck stdout does not starve the files for
 * longer than a second at a time. A line is written whole or, after a failure, followed by a newline
 * before the next one. A file that cannot be opened is tried again every ten seconds. */
#include "base/log_sink.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log_line.h"
#include "base/vec.h"

enum {
    SINK_BYTES = 32 * 1024,
    PIECE_BYTES = 4096, /* what a pipe that polls writable takes without blocking */
    STALL_MS = 1000,    /* stdout may hold up the files for so long */
    RETRY_MS = 10000,
    DAY_SECONDS = 86400,
};

struct sink {
    int fd;      /* -1: none */
    bool stalls; /* a terminal, pipe or socket, whose reader may stop reading */
    bool stuck;  /* it did, and was given up: nothing waits for it until it takes bytes again */
    bool colour;
    bool torn; /* what was written last ends inside a line */
    size_t len;
    char buf[SINK_BYTES];
};

static struct sink to_stdout = {.fd = -1}, to_file = {.fd = -1};
static char *dir;
static int max_files;
static int64_t file_day, retry_at_ms;
static _Atomic int64_t stop_at_ms; /* 0: not stopping */
static _Atomic uint64_t lost;

/* Whether to wait for stdout no longer. */
static bool give_up(int64_t since_ms) {
    int64_t now = clock_ms(), stop_at = atomic_load(&stop_at_ms);
    if (stop_at != 0)
        return now >= stop_at;
    return to_file.fd >= 0 && now - since_ms >= STALL_MS;
}

static bool wait_writable(struct sink *sink) {
    int64_t since_ms = clock_ms();
    struct pollfd poller = {sink->fd, POLLOUT, 0};
    while (poll(&poller, 1, sink->stuck ? 0 : 100) <= 0) {
        sink->stuck = sink->stuck || give_up(since_ms);
        if (sink->stuck)
            return false;
    }
    sink->stuck = false;
    return true; /* an error shows when writing */
}

/* How much was written. */
static size_t write_out(struct sink *sink) {
    size_t done = 0;
    while (done < sink->len) {
        if (sink->stalls && !wait_writable(sink))
            break;
        size_t piece = sink->len - done;
        if (sink->stalls && piece > PIECE_BYTES)
            piece = PIECE_BYTES;
        ssize_t n = write(sink->fd, sink->buf + done, piece);
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            break;
        done += n > 0 ? (size_t)n : 0;
    }
    return done;
}

static void close_sink(struct sink *sink) {
    if (sink->fd >= 0 && sink->fd != STDOUT_FILENO)
        close(sink->fd);
    sink->fd = -1;
}

static void flush_sink(struct sink *sink) {
    if (sink->len == 0)
        return;
    errno = 0;
    size_t done = write_out(sink);
    if (done < sink->len) {
        if (errno == EPIPE || errno == EBADF)
            close_sink(sink); /* closed on purpose: no loss worth counting */
        for (size_t i = done; sink->fd >= 0 && i < sink->len; i++)
            atomic_fetch_add(&lost, sink->buf[i] == '\n');
    }
    if (done > 0)
        sink->torn = sink->buf[done - 1] != '\n';
    sink->len = 0;
}

static void sink_put(struct sink *sink, const char *ptr, size_t len) {
    memcpy(sink->buf + sink->len, ptr, len);
    sink->len += len;
}

static void sink_line(struct sink *sink, const char *line, size_t len, enum log_level level) {
    static const char colours[][6] = {"\033[34m", "\033[32m", "\033[33m", "\033[31m"};
    if (sink->len + len + 16 > sizeof sink->buf)
        flush_sink(sink);
    if (sink->len == 0 && sink->torn)
        sink_put(sink, "\n", 1);
    if (!sink->colour) {
        sink_put(sink, line, len);
        return;
    }
    sink_put(sink, line, LOG_LEVEL_AT);
    sink_put(sink, colours[level], 5);
    sink_put(sink, line + LOG_LEVEL_AT, LOG_LEVEL_LEN);
    sink_put(sink, "\033[0m", 4);
    sink_put(sink, line + LOG_LEVEL_AT + LOG_LEVEL_LEN, len - LOG_LEVEL_AT - LOG_LEVEL_LEN);
}

/* --- daily files ----------------------------------------------------------------------------- */

enum { NAME_LEN = 14 }; /* smg.YYYY-MM-DD */
struct file_name {
    char text[NAME_LEN + 1];
};

static bool is_log_name(const char *name) {
    static const char pattern[] = "smg.0000-00-00";
    if (strlen(name) != NAME_LEN)
        return false;
    for (size_t i = 0; i < NAME_LEN; i++) {
        if (pattern[i] == '0' ? name[i] < '0' || name[i] > '9' : name[i] != pattern[i])
            return false;
    }
    return true;
}

static char *path_in_dir(const char *name) {
    size_t len = strlen(dir);
    char *path = mem_alloc(len + 1 + strlen(name) + 1);
    memcpy(path, dir, len);
    path[len] = '/';
    memcpy(path + len + 1, name, strlen(name) + 1);
    return path;
}

static int by_name(const void *a, const void *b) { return strcmp(a, b); }

typedef VEC(struct file_name) name_list;

static void list_files(DIR *listing, name_list *names) {
    for (struct dirent *entry; (entry = readdir(listing)) != NULL;) {
        if (!is_log_name(entry->d_name))
            continue;
        struct file_name name;
        memcpy(name.text, entry->d_name, sizeof name.text);
        vec_push(names, name);
    }
}

/* Removes the oldest files beyond max_files, but never the one in use: the clock may have been set
 * back. Errors leave files lying, no more. */
static void prune_files(const char *in_use) {
    DIR *listing = max_files > 0 ? opendir(dir) : NULL;
    if (listing == NULL)
        return;
    name_list names = {0};
    list_files(listing, &names);
    closedir(listing);
    if (names.items == NULL)
        return;
    qsort(names.items, names.len, sizeof *names.items, by_name);
    for (size_t i = 0; i + (size_t)max_files < names.len; i++) {
        if (strcmp(names.items[i].text, in_use) == 0)
            continue;
        char *path = path_in_dir(names.items[i].text);
        unlink(path);
        mem_free(path);
    }
    vec_free(&names);
}

static int open_day(int64_t day) {
    char when[25], name[NAME_LEN + 1] = "smg.";
    clock_rfc3339(day * DAY_SECONDS * 1000, when, sizeof when);
    memcpy(name + 4, when, 10);
    char *path = path_in_dir(name);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    int err = fd < 0 ? -errno : 0;
    mem_free(path);
    if (err)
        return err;
    to_file.fd = fd;
    to_file.torn = false;
    file_day = day;
    prune_files(name);
    return 0;
}

static void close_file(void) {
    if (to_file.fd >= 0)
        flush_sink(&to_file);
    close_sink(&to_file);
}

/* The file of the record's day is open afterwards, or it could not be; then tried again later. */
static void turn_day(int64_t when_ns) {
    int64_t day = when_ns / 1000000000 / DAY_SECONDS;
    if (to_file.fd >= 0 && day <= file_day)
        return;
    close_file();
    if (clock_ms() < retry_at_ms)
        return;
    int err = open_day(day);
    if (err) {
        retry_at_ms = clock_ms() + RETRY_MS;
        dprintf(STDERR_FILENO, "log: cannot open the file of the day in %s: %s\n", dir,
                strerror(-err));
    }
}

static int make_dir(void) {
    for (char *at = dir + 1;; at++) {
        if (*at != '/' && *at != '\0')
            continue;
        char end = *at;
        *at = '\0';
        int err = mkdir(dir, 0755) != 0 && errno != EEXIST ? -errno : 0;
        *at = end;
        if (err || end == '\0')
            return err;
    }
}

/* --- the writer's end ------------------------------------------------------------------------ */

static int open_file(const struct log_options *options, int64_t now_ns) {
    if (options->dir == NULL)
        return 0;
    dir = mem_strdup(*options->dir ? options->dir : ".");
    max_files = options->max_files;
    retry_at_ms = 0;
    int err = make_dir();
    return err ? err : open_day(now_ns / 1000000000 / DAY_SECONDS);
}

/* A terminal or pipe is opened once more, since O_NONBLOCK on what we share with the shell would hit
 * that too. Sockets cannot be: those are written in pieces that fit. */
static void open_stdout(void) {
    struct stat status;
    to_stdout.fd = STDOUT_FILENO;
    to_stdout.stuck = to_stdout.torn = false;
    to_stdout.stalls = fstat(STDOUT_FILENO, &status) == 0 && !S_ISREG(status.st_mode);
    if (!to_stdout.stalls)
        return;
    int own = open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (own >= 0)
        to_stdout.fd = own;
}

int log_sink_open(const struct log_options *options, int64_t now_ns) {
    atomic_store(&stop_at_ms, 0);
    open_stdout();
    to_stdout.colour = options->colour && !options->json;
    int err = open_file(options, now_ns);
    if (err)
        log_sink_close();
    return err;
}

void log_sink_stop_by(int64_t clock) { atomic_store(&stop_at_ms, clock); }

void log_sink_close(void) {
    close_file();
    close_sink(&to_stdout);
    mem_free(dir);
    dir = NULL;
}

void log_sink_put(int64_t when_ns, enum log_level level, const char *line, size_t len) {
    if (to_stdout.fd >= 0)
        sink_line(&to_stdout, line, len, level);
    if (dir == NULL)
        return;
    turn_day(when_ns);
    if (to_file.fd >= 0)
        sink_line(&to_file, line, len, level);
    else
        atomic_fetch_add(&lost, 1);
}

void log_sink_flush(void) {
    flush_sink(&to_file);
    flush_sink(&to_stdout);
}

uint64_t log_sink_lost(void) { return atomic_load_explicit(&lost, memory_order_relaxed); }
