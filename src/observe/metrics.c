/* The page is written in one pass over the registry, straight into the caller's buf. Of a histogram
 * the text that its lines share (name, labels) and the texts of the bounds are made once. A label
 * value may hold what a worker told us: bytes that would break a line or are not UTF-8 are escaped.
 *
 * The process figures come from /proc at scrape time; one that cannot be read is not shown. */
#include "observe/metrics.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/utf8.h"
#include "base/vec.h"

/* --- the page -------------------------------------------------------------------------------- */

struct number {
    char text[32];
    size_t len;
};

struct page {
    struct buf *out;
    size_t start; /* of `out` when the page was begun */
    enum metrics_naming naming;
    int err;
    int family;                /* whose head was written last, -1 for none */
    VEC(struct number) bounds; /* of that family */
    struct buf labels;         /* of the series at hand */
};

static void put(struct page *page, struct str s) {
    if (page->err == 0)
        page->err = buf_add(page->out, s);
}
static void put_cstr(struct page *page, const char *text) { put(page, str_from(text)); }

/* Whole numbers as such, so that counters never turn into 1e+06. */
static struct number number_text(double value) {
    struct number number;
    int len;
    if (isnan(value))
        len = snprintf(number.text, sizeof number.text, "NaN");
    else if (isinf(value))
        len = snprintf(number.text, sizeof number.text, value > 0 ? "+Inf" : "-Inf");
    else if (value == floor(value) && fabs(value) < 1e15)
        len = snprintf(number.text, sizeof number.text, "%.0f", value);
    else
        len = snprintf(number.text, sizeof number.text, "%.15g", value);
    number.len = (size_t)len;
    return number;
}

/* As a label: without an exponent, as people write bounds. */
static struct number bound_text(double value) {
    struct number number = number_text(value);
    if (memchr(number.text, 'e', number.len) == NULL || fabs(value) >= 1)
        return number;
    number.len = (size_t)snprintf(number.text, sizeof number.text, "%.15f", value);
    while (number.len > 1 && number.text[number.len - 1] == '0')
        number.len--;
    return number;
}

static void put_number(struct page *page, double value) {
    struct number number = number_text(value);
    put(page, str_make(number.text, number.len));
}

static void put_count(struct page *page, uint64_t count) {
    char digits[20], *at = digits + sizeof digits;
    do {
        *--at = (char)('0' + count % 10);
        count /= 10;
    } while (count);
    put(page, str_make(at, (size_t)(digits + sizeof digits - at)));
}

/* --- labels ---------------------------------------------------------------------------------- */

static void label_add(struct page *page, struct str s) {
    if (page->err == 0)
        page->err = buf_add(&page->labels, s);
}

/* One byte that cannot stand as it is. The page knows three escapes; others are spelt out. */
static void label_escape(struct page *page, unsigned char byte) {
    static const char hex[] = "0123456789abcdef";
    if (byte == '\n') {
        label_add(page, STR("\\n"));
    } else if (byte == '"' || byte == '\\') {
        label_add(page, str_make((char[]){'\\', (char)byte}, 2));
    } else {
        char text[] = {'\\', '\\', 'x', hex[byte >> 4], hex[byte & 15]};
        label_add(page, str_make(text, sizeof text));
    }
}

static size_t plain_ascii(struct str s) {
    size_t len = 0;
    while (len < s.len && (unsigned char)s.ptr[len] >= ' ' && (unsigned char)s.ptr[len] < 127 &&
           s.ptr[len] != '"' && s.ptr[len] != '\\')
        len++;
    return len;
}

static size_t one_character(struct str s) {
    unsigned char lead = (unsigned char)s.ptr[0];
    size_t len = lead < 0xC0 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    return len <= s.len && utf8_valid(str_head(s, len)) ? len : 0;
}

static void label_value(struct page *page, struct str s) {
    while (s.len > 0) {
        size_t len = plain_ascii(s);
        if (len == 0)
            len = one_character(s);
        if (len > 0) {
            label_add(page, str_head(s, len));
        } else {
            label_escape(page, (unsigned char)s.ptr[0]);
            len = 1;
        }
        s = str_skip(s, len);
    }
}

/* a="x",b="y" */
static void make_labels(struct page *page, const struct metric_sample *sample) {
    const struct metric_family *family = &metric_families[sample->family];
    buf_clear(&page->labels);
    for (size_t i = 0; i < family->label_count; i++) {
        if (i > 0)
            label_add(page, STR(","));
        label_add(page, str_from(family->labels[i]));
        label_add(page, STR("=\""));
        label_value(page, str_from(sample->label_values[i]));
        label_add(page, STR("\""));
    }
}

/* --- families and samples -------------------------------------------------------------------- */

static bool is_shown(const struct page *page, const struct metric_family *family) {
    return family->generation == METRIC_OURS || page->naming == METRICS_NAMING_BOTH ||
           (family->generation == METRIC_LEGACY) == (page->naming == METRICS_NAMING_LEGACY);
}

static const char *type_name(enum metric_type type) {
    return type == METRIC_TYPE_COUNTER ? "counter"
           : type == METRIC_TYPE_GAUGE ? "gauge"
                                       : "histogram";
}

static void begin_family(struct page *page, const struct metric_sample *sample) {
    const struct metric_family *family = &metric_families[sample->family];
    page->family = sample->family;
    page->bounds.len = 0;
    for (size_t i = 0; i < sample->buckets; i++)
        vec_push(&page->bounds, bound_text(sample->bounds[i]));
    const char *parts[] = {"# HELP ",   family->name, " ", family->help,
                           "\n# TYPE ", family->name, " ", type_name(family->type),
                           "\n"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        put_cstr(page, parts[i]);
}

/* name_suffix{labels} and a blank. */
static void begin_line(struct page *page, const char *name, const char *suffix) {
    put_cstr(page, name);
    put_cstr(page, suffix);
    if (page->labels.len > 0) {
        put(page, STR("{"));
        put(page, buf_str(&page->labels));
        put(page, STR("}"));
    }
    put(page, STR(" "));
}

static void put_bucket(struct page *page, const char *name, struct str bound, uint64_t count) {
    put_cstr(page, name);
    put(page, STR("_bucket{"));
    put(page, buf_str(&page->labels));
    put(page, page->labels.len > 0 ? STR(",le=\"") : STR("le=\""));
    put(page, bound);
    put(page, STR("\"} "));
    put_count(page, count);
    put(page, STR("\n"));
}

static void put_histogram(struct page *page, const char *name, const struct metric_sample *sample) {
    uint64_t count = 0;
    for (size_t i = 0; i < sample->buckets; i++) {
        const struct number *bound = &page->bounds.items[i];
        count += sample->counts[i];
        put_bucket(page, name, str_make(bound->text, bound->len), count);
    }
    count += sample->counts[sample->buckets];
    put_bucket(page, name, STR("+Inf"), count);
    begin_line(page, name, "_sum");
    put_number(page, sample->sum);
    put(page, STR("\n"));
    begin_line(page, name, "_count");
    put_count(page, count);
    put(page, STR("\n"));
}

static void put_sample(void *arg, const struct metric_sample *sample) {
    struct page *page = arg;
    const struct metric_family *family = &metric_families[sample->family];
    if (page->err || !is_shown(page, family))
        return;
    if (page->family != (int)sample->family)
        begin_family(page, sample);
    make_labels(page, sample);
    if (sample->bounds != NULL) {
        put_histogram(page, family->name, sample);
    } else {
        begin_line(page, family->name, "");
        put_number(page, sample->value);
        put(page, STR("\n"));
    }
    if (page->err == 0 && page->out->len - page->start > METRICS_MAX_BYTES)
        page->err = -EMSGSIZE;
}

int metrics_render(struct buf *out, enum metrics_naming naming) {
    struct page page = {.out = out,
                        .start = out->len,
                        .naming = naming,
                        .family = -1,
                        .labels = buf_make(METRICS_MAX_BYTES)};
    metric_collect(put_sample, &page);
    vec_free(&page.bounds);
    buf_free(&page.labels);
    if (page.err)
        out->len = page.start;
    return page.err;
}

/* --- the process's own figures --------------------------------------------------------------- */

static struct { metric_ref resident, virtual, open_fds, max_fds, cpu, log_dropped; } process;

static void show(metric_ref *ref, enum metric_id family, double value) {
    if (*ref == 0)
        *ref = metric_ref_of(family);
    metric_set(*ref, value);
}

/* The file's first bytes; an empty str when it cannot be read. */
static struct str read_file(const char *path, char *out, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return STR_NONE;
    ssize_t len = read(fd, out, size);
    close(fd);
    return str_make(out, len > 0 ? (size_t)len : 0);
}

/* The n-th of the numbers between blanks, from 0. */
static int number_at(struct str text, int n, uint64_t *number) {
    struct str part;
    while (str_split(&text, ' ', &part)) {
        if (n-- == 0)
            return str_to_u64(str_trim(part), number);
    }
    return -EINVAL;
}

static void show_memory(void) {
    char text[256];
    struct str line = read_file("/proc/self/statm", text, sizeof text);
    double page_size = (double)sysconf(_SC_PAGESIZE);
    uint64_t pages;
    if (number_at(line, 0, &pages) == 0)
        show(&process.virtual, METRIC_PROCESS_VIRTUAL_MEMORY_BYTES, (double)pages * page_size);
    if (number_at(line, 1, &pages) == 0)
        show(&process.resident, METRIC_PROCESS_RESIDENT_MEMORY_BYTES, (double)pages * page_size);
}

/* Linux 6.2 and later say it as the size of the directory; before, the entries are counted. */
static int64_t count_fds(void) {
    struct stat status;
    if (stat("/proc/self/fd", &status) == 0 && status.st_size > 0)
        return status.st_size;
    DIR *listing = opendir("/proc/self/fd");
    if (listing == NULL)
        return -1;
    int64_t count = -3; /* "." and ".." and the listing's own */
    while (readdir(listing) != NULL)
        count++;
    closedir(listing);
    return count;
}

static void show_fds(void) {
    int64_t count = count_fds();
    if (count >= 0)
        show(&process.open_fds, METRIC_PROCESS_OPEN_FDS, (double)count);
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        show(&process.max_fds, METRIC_PROCESS_MAX_FDS,
             limit.rlim_cur == RLIM_INFINITY ? INFINITY : (double)limit.rlim_cur);
}

static double seconds_of(clockid_t id) {
    struct timespec now;
    clock_gettime(id, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Field 22 of the process's stat line has the start in ticks since boot; the second field is the
 * program's name in parentheses, which may hold anything. */
static void show_start_time(void) {
    char text[1024];
    struct str line = read_file("/proc/self/stat", text, sizeof text);
    size_t name_end = line.len;
    while (name_end > 0 && line.ptr[name_end - 1] != ')')
        name_end--;
    uint64_t ticks;
    if (number_at(str_skip(line, name_end), 20, &ticks) != 0)
        return;
    double age = seconds_of(CLOCK_BOOTTIME) - (double)ticks / (double)sysconf(_SC_CLK_TCK);
    metric_set(metric_ref_of(METRIC_PROCESS_START_TIME_SECONDS), seconds_of(CLOCK_REALTIME) - age);
}

static void show_process(void *arg) {
    (void)arg;
    show_memory();
    show_fds();
    show(&process.cpu, METRIC_PROCESS_CPU_SECONDS_TOTAL, seconds_of(CLOCK_PROCESS_CPUTIME_ID));
    show(&process.log_dropped, METRIC_SLUICE_LOG_DROPPED_TOTAL, (double)log_dropped());
}

void metrics_init(const char *version, const char *commit) {
    metric_set(metric_ref_of(METRIC_SLUICE_BUILD_INFO, version, commit), 1);
    show_start_time();
    metric_on_scrape(show_process, NULL);
}
