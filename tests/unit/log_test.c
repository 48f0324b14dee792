/* The log from call to descriptor: what lines look like, what hostile text cannot do, that callers
 * never wait, that files turn with the day, and that stopping has an end. */
#include <stdint.h>
#include <time.h>

static _Atomic int64_t clock_shift; /* seconds added to the wall clock */

static int shifted_clock(clockid_t id, struct timespec *now) {
    int result = clock_gettime(id, now);
    now->tv_sec += clock_shift;
    return result;
}

#define clock_gettime shifted_clock
#include "base/log.c"
#undef clock_gettime

#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cmocka.h>

/* --- lines ----------------------------------------------------------------------------------- */

enum { NOON = 1762250737, DAY = 86400 }; /* 2025-11-04 10:05:37 UTC */
static char line[LOG_LINE_MAX + 1];

static struct log_event make_event(const char *message, const struct log_field *fields,
                                   size_t count) {
    return (struct log_event){.when_ns = NOON * INT64_C(1000000000) + 42000000,
                              .level = LOG_INFO,
                              .target = "fleet",
                              .file = "src/fleet/registry.c",
                              .number = 12,
                              .message = message,
                              .fields = fields,
                              .count = count};
}

static const char *format(const struct log_event *event, bool json) {
    memset(line, '#', sizeof line);
    size_t len = log_line_format(line, event, json);
    assert_true(len > 0 && len <= LOG_LINE_MAX);
    assert_int_equal(line[len - 1], '\n');
    line[len - 1] = '\0';
    assert_null(strchr(line, '\n'));
    return line;
}

#define TEXT_HEAD "2025-11-04 10:05:37  INFO fleet: src/fleet/registry.c:12: "
#define JSON_HEAD "{\"timestamp\":\"2025-11-04T10:05:37.042Z\",\"level\":\"INFO\",\"message\":\""
#define JSON_TAIL ",\"target\":\"fleet\",\"filename\":\"src/fleet/registry.c\",\"line_number\":12}"

static void every_kind_of_field(void **state) {
    (void)state;
    const struct log_field fields[] = {F_STR("url", STR("http://w:1/")),
                                       F_INT("n", -7),
                                       F_INT("least", INT64_MIN),
                                       F_FLOAT("load", 0.25),
                                       F_BOOL("ready", true),
                                       F_CSTR("none", NULL),
                                       F_FLOAT("ratio", (double)NAN),
                                       F_CSTR("name", "two words")};
    struct log_event event = make_event("worker registered", fields, 8);
    assert_string_equal(format(&event, false),
                        TEXT_HEAD "worker registered url=http://w:1/ n=-7 "
                                  "least=-9223372036854775808 load=0.25 ready=true none=\"\" "
                                  "ratio=nan name=\"two words\"");
    assert_string_equal(format(&event, true),
                        JSON_HEAD "worker registered\",\"url\":\"http://w:1/\",\"n\":-7,"
                                  "\"least\":-9223372036854775808,\"load\":0.25,\"ready\":true,"
                                  "\"none\":\"\",\"ratio\":null,\"name\":\"two words\"" JSON_TAIL);
    event.level = LOG_ERROR;
    event.count = 0;
    assert_string_equal(format(&event, false), "2025-11-04 10:05:37 ERROR fleet: "
                                               "src/fleet/registry.c:12: worker registered");
}

static void hostile_values(void **state) {
    (void)state;
    static const struct {
        struct str value;
        const char *text, *json;
    } cases[] = {
        {STR_INIT("a\n2025-11-04 ERROR x: y"), "\"a\\n2025-11-04 ERROR x: y\"",
         "\"a\\n2025-11-04 ERROR x: y\""},
        {STR_INIT("a=b"), "\"a=b\"", "\"a=b\""},
        {STR_INIT("\"x\" y=\"z"), "\"\\\"x\\\" y=\\\"z\"", "\"\\\"x\\\" y=\\\"z\""},
        {STR_INIT("back\\slash"), "\"back\\\\slash\"", "\"back\\\\slash\""},
        {STR_INIT("\033[2J\r\t\b\x7f"), "\"\\x1b[2J\\r\\t\\x08\\x7f\"",
         "\"\\u001b[2J\\r\\t\\u0008\\u007f\""},
        {STR_INIT("nul\0inside"), "\"nul\\x00inside\"", "\"nul\\u0000inside\""},
        {STR_INIT("gr\xc3\xbc\xc3\x9f"), "\"gr\xc3\xbc\xc3\x9f\"", "\"gr\xc3\xbc\xc3\x9f\""},
        {STR_INIT("\xf0\x9f\x98\x80"), "\"\xf0\x9f\x98\x80\"", "\"\xf0\x9f\x98\x80\""},
        {STR_INIT("\xc2\x9b"
                  "2J"),
         "\"\\xc2\\x9b2J\"", "\"\\ufffd\\ufffd2J\""}, /* C1 CSI */
        {STR_INIT("\xff\xc3"), "\"\\xff\\xc3\"", "\"\\ufffd\\ufffd\""},
        {STR_INIT("\xed\xa0\x80"), "\"\\xed\\xa0\\x80\"", "\"\\ufffd\\ufffd\\ufffd\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char want[256];
        struct log_field field = F_STR("v", cases[i].value);
        struct log_event event = make_event("m", &field, 1);
        snprintf(want, sizeof want, TEXT_HEAD "m v=%s", cases[i].text);
        assert_string_equal(format(&event, false), want);
        snprintf(want, sizeof want, JSON_HEAD "m\",\"v\":%s" JSON_TAIL, cases[i].json);
        assert_string_equal(format(&event, true), want);
    }
    struct log_event event = make_event("broke \"off\"\n\033[1m", NULL, 0);
    assert_string_equal(format(&event, false), TEXT_HEAD "broke \"off\"\\n\\x1b[1m");
    assert_string_equal(format(&event, true),
                        JSON_HEAD "broke \\\"off\\\"\\n\\u001b[1m\"" JSON_TAIL);
}

static bool quotes_are_closed(const char *json) {
    bool open = false;
    for (const char *at = json; *at; at++) {
        if (open && *at == '\\')
            at++;
        else if (*at == '"')
            open = !open;
    }
    return !open;
}

/* Any length and any byte leaves the line whole, in one piece and in bounds. */
static void long_values_are_cut(void **state) {
    (void)state;
    static char big[20000];
    static const char fills[] = {'a', '\n', '"', '\x01', '\xff', '\xc3'};
    for (size_t f = 0; f < sizeof fills; f++) {
        memset(big, fills[f], sizeof big - 1);
        for (size_t count = 0; count <= 10; count++) {
            struct log_field fields[10];
            for (size_t i = 0; i < count; i++)
                fields[i] = F_STR("value", str_make(big, sizeof big - 1 - i * 1900));
            struct log_event event = make_event(count % 2 ? big : "m", fields, count);
            const char *text = format(&event, true);
            assert_true(quotes_are_closed(text));
            assert_true(str_ends(str_from(text), STR(JSON_TAIL)));
            format(&event, false);
        }
    }
    struct log_field field = F_STR("v", str_make(big, 5000));
    memset(big, 'a', sizeof big - 1);
    struct log_event event = make_event("m", &field, 1);
    const char *text = format(&event, false);
    assert_int_equal(strlen(text), strlen(TEXT_HEAD "m v=\"\"...") + 2048);
    assert_true(str_ends(str_from(text), STR("a...\"")));
    memcpy(big + 2047, "\xc3\xbc", 2); /* not cut in the middle of a character */
    assert_true(str_ends(str_from(format(&event, false)), STR("a...\"")));
}

/* --- levels ---------------------------------------------------------------------------------- */

static bool passes(enum log_level level, const char *target) {
    return log_enabled(level) && wanted(level, target);
}

static void levels_and_filters(void **state) {
    (void)state;
    log_set_level(LOG_WARN);
    assert_false(passes(LOG_INFO, "x"));
    assert_true(passes(LOG_WARN, "x"));
    assert_int_equal(log_set_filter("warn, fleet=debug ,smg=error,smg::response=info"), 0);
    assert_true(passes(LOG_DEBUG, "fleet"));
    assert_true(passes(LOG_DEBUG, "fleet::health"));
    assert_false(passes(LOG_DEBUG, "fleets"));
    assert_false(passes(LOG_INFO, "other"));
    assert_true(passes(LOG_WARN, "other"));
    assert_false(passes(LOG_WARN, "smg::request"));
    assert_true(passes(LOG_INFO, "smg::response"));
    assert_int_equal(log_set_filter("DEBUG"), 0);
    assert_true(passes(LOG_DEBUG, "x"));
    assert_int_equal(log_set_filter("off"), 0);
    assert_false(passes(LOG_ERROR, "x"));
    static const char *const bad[] = {"loud",
                                      "fleet=loud",
                                      "=info",
                                      "fleet=",
                                      "info,loud",
                                      "a=info,a=info,a=info,a=info,a=info,a=info,a=info,a=info,"
                                      "a=info,a=info,a=info,a=info,a=info,a=info,a=info,a=info,"
                                      "a=info"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(log_set_filter(bad[i]), -EINVAL);
    assert_false(passes(LOG_ERROR, "x")); /* nothing changed */
    assert_int_equal(log_set_filter(""), 0);
    assert_true(passes(LOG_INFO, "x"));
    log_set_level(LOG_INFO);
    assert_false(passes(LOG_DEBUG, "fleet"));
}

/* --- descriptors ----------------------------------------------------------------------------- */

/* Puts `fd` in the place of `place`; give the result to put_back. */
static int put_in_place(int place, int fd) {
    fflush(stdout);
    fflush(stderr);
    int saved = dup(place);
    dup2(fd, place);
    return saved;
}

static void put_back(int place, int saved) {
    dup2(saved, place);
    close(saved);
}

static int temp_file(void) {
    int fd = open("/tmp", O_TMPFILE | O_RDWR, 0600);
    assert_true(fd >= 0);
    return fd;
}

static char *contents_of(int fd) {
    off_t size = lseek(fd, 0, SEEK_END);
    char *text = mem_alloc((size_t)size + 1);
    assert_int_equal(pread(fd, text, (size_t)size, 0), size);
    text[size] = '\0';
    return text;
}

static char *read_path(const char *path) {
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    char *text = contents_of(fd);
    close(fd);
    return text;
}

/* Its contents; it and the directory are gone afterwards. */
static char *only_file_in(const char *dir) {
    char path[320], *text = NULL;
    struct dirent *entry;
    DIR *listing = opendir(dir);
    while ((entry = readdir(listing)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        assert_null(text);
        assert_true(strlen(entry->d_name) == 14);
        snprintf(path, sizeof path, "%s/%s", dir, entry->d_name);
        text = read_path(path);
        unlink(path);
    }
    closedir(listing);
    assert_int_equal(rmdir(dir), 0);
    assert_non_null(text);
    return text;
}

static int count_lines(const char *text) {
    int lines = 0;
    for (; *text; text++)
        lines += *text == '\n';
    return lines;
}

static void start(const struct log_options *options) { assert_int_equal(log_start(options), 0); }

static void before_the_start_lines_go_to_stderr(void **state) {
    (void)state;
    int fd = temp_file(), saved = put_in_place(STDERR_FILENO, fd);
    log_warn("app", "early", F_INT("n", 1));
    log_debug("app", "not wanted");
    put_back(STDERR_FILENO, saved);
    char *text = contents_of(fd);
    assert_non_null(strstr(text, "  WARN app: "));
    assert_true(str_ends(str_from(text), STR(": early n=1\n")));
    assert_int_equal(count_lines(text), 1);
    mem_free(text);
    close(fd);
}

enum { THREADS = 4, LINES = 5000 };

static void *log_many(void *arg) {
    for (int i = 0; i < LINES; i++)
        log_info("test", "counting", F_INT("thread", (int)(intptr_t)arg), F_INT("i", i));
    return NULL;
}

/* Every line of every thread, whole, and each thread's in order. */
static void check_all_there(const char *text) {
    int next[THREADS] = {0};
    struct str rest = str_from(text), part;
    while (str_split(&rest, '\n', &part)) {
        int thread_number, i, end = 0;
        char copy[256];
        if (part.len == 0)
            continue;
        snprintf(copy, sizeof copy, "%.*s", STR_ARG(part));
        const char *fields = strstr(copy, "counting thread=");
        assert_non_null(fields);
        assert_int_equal(sscanf(fields, "counting thread=%d i=%d%n", &thread_number, &i, &end), 2);
        assert_int_equal(fields[end], '\0');
        assert_int_equal(i, next[thread_number]++);
    }
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(next[i], LINES);
}

static void lines_of_many_threads(void **state) {
    (void)state;
    int fd = temp_file(), saved = put_in_place(STDOUT_FILENO, fd);
    uint64_t lost = log_dropped();
    start(&(struct log_options){.level = LOG_INFO});
    assert_int_equal(log_start(&(struct log_options){.level = LOG_INFO}), -EALREADY);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, log_many, (void *)(intptr_t)i);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    log_stop();
    log_stop();
    put_back(STDOUT_FILENO, saved);
    assert_int_equal(log_dropped(), lost);
    char *text = contents_of(fd);
    check_all_there(text);
    mem_free(text);
    close(fd);
}

struct relay {
    sem_t turn[2];
};

static void *log_in_turn(void *arg) {
    struct relay *relay = arg;
    for (int i = 1; i < 100; i += 2) {
        sem_wait(&relay->turn[1]);
        log_info("test", "in turn", F_INT("n", i));
        sem_post(&relay->turn[0]);
    }
    return NULL;
}

/* What one thread logged because of another's line comes after it. */
static void lines_are_merged_by_time(void **state) {
    (void)state;
    int fd = temp_file(), saved = put_in_place(STDOUT_FILENO, fd);
    start(&(struct log_options){.level = LOG_INFO});
    struct relay relay;
    sem_init(&relay.turn[0], 0, 1);
    sem_init(&relay.turn[1], 0, 0);
    pthread_t other;
    pthread_create(&other, NULL, log_in_turn, &relay);
    for (int i = 0; i < 100; i += 2) {
        sem_wait(&relay.turn[0]);
        log_info("test", "in turn", F_INT("n", i));
        sem_post(&relay.turn[1]);
    }
    pthread_join(other, NULL);
    log_stop();
    put_back(STDOUT_FILENO, saved);
    char *text = contents_of(fd);
    const char *at = text;
    for (int i = 0; i < 100; i++) {
        char want[32];
        snprintf(want, sizeof want, "in turn n=%d\n", i);
        at = strstr(at, want);
        assert_non_null(at);
    }
    mem_free(text);
    close(fd);
}

static size_t queue_count(void) {
    size_t count = 0;
    for (struct queue *queue = queues; queue != NULL; queue = queue->next)
        count++;
    return count;
}

static void *log_once(void *arg) {
    log_info("test", "one line");
    return arg;
}

static void ended_threads_leave_lines_and_queues(void **state) {
    (void)state;
    int fd = temp_file(), saved = put_in_place(STDOUT_FILENO, fd);
    start(&(struct log_options){.level = LOG_INFO, .json = true});
    size_t before = 0;
    for (int i = 0; i < 50; i++) {
        pthread_t one;
        pthread_create(&one, NULL, log_once, NULL);
        pthread_join(one, NULL);
        before = before ? before : queue_count();
    }
    assert_int_equal(queue_count(), before);
    log_stop();
    put_back(STDOUT_FILENO, saved);
    char *text = contents_of(fd);
    assert_int_equal(count_lines(text), 50);
    assert_true(str_starts(str_from(text), STR("{\"timestamp\":\"")));
    mem_free(text);
    close(fd);
}

static void colour_on_the_terminal_only(void **state) {
    (void)state;
    char dir[] = "/tmp/sluice-log-XXXXXX";
    assert_non_null(mkdtemp(dir));
    int fd = temp_file(), saved = put_in_place(STDOUT_FILENO, fd);
    start(&(struct log_options){.level = LOG_INFO, .colour = true, .dir = dir});
    clock_shift = NOON - time(NULL);
    log_warn("test", "careful");
    log_stop();
    clock_shift = 0;
    put_back(STDOUT_FILENO, saved);
    char *text = contents_of(fd);
    assert_non_null(strstr(text, " \033[33m WARN\033[0m test: "));
    mem_free(text);
    close(fd);
    text = only_file_in(dir);
    assert_null(strchr(text, '\033'));
    assert_non_null(strstr(text, " WARN test: "));
    mem_free(text);
}

static void settle(void) { nanosleep(&(struct timespec){0, 50000000}, NULL); }

/* --- callers never wait, stopping ends ------------------------------------------------------- */

static void flood(int lines) {
    static char wide[1000];
    memset(wide, 'x', sizeof wide);
    int64_t slowest = 0;
    for (int i = 0; i < lines; i++) {
        int64_t from = clock_us();
        log_info("test", "flood", F_INT("i", i), F_STR("fill", str_make(wide, sizeof wide)));
        int64_t took = clock_us() - from;
        slowest = took > slowest ? took : slowest;
    }
    assert_true(slowest < 1000000); /* scheduling, but no waiting for the reader */
}

static void check_stuck_reader(int ends[2]) {
    int saved = put_in_place(STDOUT_FILENO, ends[1]);
    uint64_t lost = log_dropped();
    start(&(struct log_options){.level = LOG_INFO});
    flood(8000); /* 8 MB */
    assert_true(log_dropped() > lost);
    int64_t from = clock_ms();
    log_stop();
    int64_t took = clock_ms() - from;
    put_back(STDOUT_FILENO, saved);
    assert_true(took < STOP_MS + 1500);
    close(ends[0]);
    close(ends[1]);
}

static void a_reader_that_stops_reading(void **state) {
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    check_stuck_reader(ends);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    check_stuck_reader(ends);
}

/* The files do not go without lines because of it. */
static void a_stuck_stdout_beside_files(void **state) {
    (void)state;
    char dir[] = "/tmp/sluice-log-XXXXXX";
    assert_non_null(mkdtemp(dir));
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    int saved = put_in_place(STDOUT_FILENO, ends[1]);
    start(&(struct log_options){.level = LOG_INFO, .dir = dir});
    flood(1500);
    log_stop();
    put_back(STDOUT_FILENO, saved);
    char *text = only_file_in(dir), *last = text;
    for (int i = 0; i < 1500; i++) {
        char want[32];
        snprintf(want, sizeof want, "flood i=%d fill=", i);
        last = strstr(last, want);
        assert_non_null(last);
    }
    mem_free(text);
    close(ends[0]);
    close(ends[1]);
}

static size_t drain_pipe(int fd, char *out, size_t size) {
    size_t len = 0;
    for (ssize_t n; (n = read(fd, out + len, size - len)) > 0;)
        len += (size_t)n;
    return len;
}

/* A line that was cut off by giving up does not run into the next one that is written. */
static void no_line_runs_into_another(void **state) {
    (void)state;
    char dir[] = "/tmp/sluice-log-XXXXXX";
    static char got[400000];
    assert_non_null(mkdtemp(dir));
    int ends[2];
    assert_int_equal(pipe2(ends, O_NONBLOCK), 0);
    assert_int_equal(write(ends[1], "\n", 1), 1); /* takes a page: it fills up inside a line */
    int saved = put_in_place(STDOUT_FILENO, ends[1]);
    uint64_t lost = log_dropped();
    start(&(struct log_options){.level = LOG_INFO, .dir = dir});
    flood(200);
    uint64_t before;
    do { /* until it has given up what there was */
        before = log_dropped();
        settle();
        settle();
    } while (before == lost || log_dropped() != before);
    size_t len = drain_pipe(ends[0], got, sizeof got - 1);
    assert_true(got[len - 1] != '\n');
    log_info("test", "after");
    log_stop();
    put_back(STDOUT_FILENO, saved);
    len += drain_pipe(ends[0], got + len, sizeof got - 1 - len);
    got[len] = '\0';
    assert_non_null(strstr(got, ": after\n"));
    struct str rest = str_make(got, len), part;
    while (str_split(&rest, '\n', &part)) {
        ptrdiff_t head = str_find(part, STR(" test: "));
        assert_true(head < 0 || str_find(str_skip(part, (size_t)head + 1), STR(" test: ")) < 0);
    }
    mem_free(only_file_in(dir));
    close(ends[0]);
    close(ends[1]);
}

static void a_slow_reader_gets_everything(void **state) {
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    int saved = put_in_place(STDOUT_FILENO, ends[1]);
    start(&(struct log_options){.level = LOG_INFO});
    flood(1000); /* 1 MB: more than the pipe, less than the queue */
    put_back(STDOUT_FILENO, saved);
    close(ends[1]);
    char got[4096];
    int lines = 0;
    ssize_t n;
    while (lines < 1000 && (n = read(ends[0], got, sizeof got)) > 0) {
        for (ssize_t i = 0; i < n; i++)
            lines += got[i] == '\n';
    }
    assert_int_equal(lines, 1000);
    log_stop();
    close(ends[0]);
}

/* SIGPIPE would end this process if the writer thread could get it. */
static void a_reader_that_went_away(void **state) {
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    int saved = put_in_place(STDOUT_FILENO, ends[1]);
    start(&(struct log_options){.level = LOG_INFO});
    close(ends[0]);
    uint64_t lost = log_dropped();
    log_info("test", "to nobody");
    nanosleep(&(struct timespec){0, 100000000}, NULL);
    log_info("test", "still to nobody");
    log_stop();
    put_back(STDOUT_FILENO, saved);
    close(ends[1]);
    assert_int_equal(log_dropped(), lost);
}

static uint64_t blocked_signals_of_writer(void) {
    char path[64], text[4096];
    struct dirent *entry;
    uint64_t blocked = 0;
    DIR *listing = opendir("/proc/self/task");
    while ((entry = readdir(listing)) != NULL) {
        snprintf(path, sizeof path, "/proc/self/task/%.20s/status", entry->d_name);
        FILE *file = fopen(path, "r");
        if (file == NULL)
            continue;
        text[fread(text, 1, sizeof text - 1, file)] = '\0';
        fclose(file);
        const char *mask = strstr(text, "SigBlk:");
        if (str_starts(str_from(text), STR("Name:\tlog\n")) && mask != NULL)
            assert_int_equal(sscanf(mask, "SigBlk: %lx", &blocked), 1);
    }
    closedir(listing);
    return blocked;
}

static void the_writer_takes_no_signals(void **state) {
    (void)state;
    int fd = temp_file(), saved = put_in_place(STDOUT_FILENO, fd);
    start(&(struct log_options){.level = LOG_INFO});
    uint64_t blocked = blocked_signals_of_writer();
    log_stop();
    put_back(STDOUT_FILENO, saved);
    close(fd);
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGPIPE, SIGCHLD, SIGQUIT, SIGUSR1};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        assert_true(blocked >> (signals[i] - 1) & 1);
}

/* --- daily files ----------------------------------------------------------------------------- */

static void touch(const char *dir, const char *name) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    close(fd);
}

static bool has(const char *dir, const char *name) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return access(path, F_OK) == 0;
}

static void a_file_a_day(void **state) {
    (void)state;
    char base[] = "/tmp/sluice-log-XXXXXX", dir[64], path[128];
    static const char *const others[] = {"smg.2001-01-01.gz", "smg.2001-1-1", "sgl.2001-01-01",
                                         "smg.2001-01-0x"};
    assert_non_null(mkdtemp(base));
    snprintf(dir, sizeof dir, "%s/a/b", base);
    int fd = temp_file(), saved = put_in_place(STDOUT_FILENO, fd);
    clock_shift = NOON - time(NULL);
    start(&(struct log_options){.level = LOG_INFO, .dir = dir, .max_files = 2});
    for (size_t i = 0; i < 4; i++)
        touch(dir, others[i]);
    touch(dir, "smg.2001-01-01");
    log_info("test", "first day");
    settle();
    clock_shift += DAY;
    log_info("test", "second day");
    settle();
    assert_true(has(dir, "smg.2025-11-04") && has(dir, "smg.2025-11-05"));
    assert_false(has(dir, "smg.2001-01-01"));
    clock_shift += DAY;
    log_info("test", "third day");
    clock_shift -= 2 * DAY;
    log_stop();
    put_back(STDOUT_FILENO, saved);
    close(fd);
    clock_shift = 0;
    assert_false(has(dir, "smg.2025-11-04"));
    static const char *const days[] = {"smg.2025-11-05", "smg.2025-11-06"};
    static const char *const texts[] = {": second day\n", ": third day\n"};
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, days[i]);
        char *text = read_path(path);
        assert_true(str_ends(str_from(text), str_from(texts[i])));
        assert_int_equal(count_lines(text), 1);
        mem_free(text);
        unlink(path);
    }
    for (size_t i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, others[i]);
        assert_int_equal(unlink(path), 0);
    }
    rmdir(dir);
    snprintf(dir, sizeof dir, "%s/a", base);
    rmdir(dir);
    assert_int_equal(rmdir(base), 0);
}

static void a_directory_that_cannot_be(void **state) {
    (void)state;
    struct log_options options = {.level = LOG_INFO, .dir = "/proc/version/logs"};
    assert_int_equal(log_start(&options), -ENOTDIR);
    options.dir = "/proc/version";
    assert_int_equal(log_start(&options), -ENOTDIR);
    options.dir = "/proc/no/such";
    assert_true(log_start(&options) < 0);
    assert_false(started);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_of_field),
        cmocka_unit_test(hostile_values),
        cmocka_unit_test(long_values_are_cut),
        cmocka_unit_test(levels_and_filters),
        cmocka_unit_test(before_the_start_lines_go_to_stderr),
        cmocka_unit_test(lines_of_many_threads),
        cmocka_unit_test(lines_are_merged_by_time),
        cmocka_unit_test(ended_threads_leave_lines_and_queues),
        cmocka_unit_test(colour_on_the_terminal_only),
        cmocka_unit_test(a_reader_that_stops_reading),
        cmocka_unit_test(a_stuck_stdout_beside_files),
        cmocka_unit_test(no_line_runs_into_another),
        cmocka_unit_test(a_slow_reader_gets_everything),
        cmocka_unit_test(a_reader_that_went_away),
        cmocka_unit_test(the_writer_takes_no_signals),
        cmocka_unit_test(a_file_a_day),
        cmocka_unit_test(a_directory_that_cannot_be),
    };
    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
