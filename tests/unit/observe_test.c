/* The metrics page against a strict reading of the text format, and the access record against what
 * must and must not be in it. METRICS_PAGE=file keeps the page for other parsers. */
#define put put_into
#include "observe/access.c"
#undef put
#include "observe/metrics.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

/* --- a strict reader of the text format ------------------------------------------------------ */

struct reader {
    struct str rest;
    struct str family, type; /* of the TYPE line above */
    struct str seen[512];    /* families */
    size_t families, samples;
    struct str series; /* histogram series at hand: its labels but le */
    double last_bound, last_count;
    bool open; /* its +Inf bucket has not come */
};

static bool take(struct str *s, const char *text) {
    if (!str_starts(*s, str_from(text)))
        return false;
    *s = str_skip(*s, strlen(text));
    return true;
}

static struct str take_name(struct str *s) {
    size_t len = 0;
    while (len < s->len && (s->ptr[len] == '_' || (s->ptr[len] >= 'a' && s->ptr[len] <= 'z')))
        len++;
    struct str name = str_head(*s, len);
    *s = str_skip(*s, len);
    assert_true(len > 0);
    return name;
}

/* What stands between the quotes. */
static struct str take_quoted(struct str *s) {
    assert_true(take(s, "\""));
    size_t len = 0;
    while (len < s->len && s->ptr[len] != '"') {
        if (s->ptr[len] == '\\') {
            len++;
            assert_true(len < s->len && memchr("\\\"n", s->ptr[len], 3) != NULL);
        }
        len++;
    }
    struct str value = str_head(*s, len);
    assert_true(utf8_valid(value));
    *s = str_skip(*s, len);
    assert_true(take(s, "\""));
    return value;
}

/* The labels without le, and le (empty: none). */
static struct str take_labels(struct str *s, struct str *le) {
    const char *start = s->ptr;
    size_t len = 0;
    *le = STR_NONE;
    if (!take(s, "{"))
        return STR_NONE;
    do {
        size_t before = (size_t)(s->ptr - start);
        struct str name = take_name(s);
        assert_true(take(s, "="));
        struct str value = take_quoted(s);
        assert_true(le->ptr == NULL); /* it comes last */
        if (str_eq(name, STR("le")))
            *le = value;
        else
            len = (size_t)(s->ptr - start);
        assert_true(before > 0);
    } while (take(s, ","));
    assert_true(take(s, "}"));
    return str_make(start, len);
}

static double take_value(struct str *s) {
    assert_true(take(s, " "));
    char text[64], *end;
    assert_true(s->len < sizeof text);
    memcpy(text, s->ptr, s->len);
    text[s->len] = '\0';
    double value = strtod(text, &end);
    assert_true(end != text && *end == '\0');
    return value;
}

static void read_bucket(struct reader *reader, struct str labels, struct str le, double count) {
    double bound;
    if (str_eq(le, STR("+Inf")))
        bound = INFINITY;
    else
        assert_int_equal(str_to_double(le, &bound), 0);
    if (!reader->open) {
        reader->open = true;
        reader->series = labels;
        reader->last_bound = -1;
        reader->last_count = 0;
    }
    assert_true(str_eq(labels, reader->series));
    assert_true(bound > reader->last_bound && count >= reader->last_count);
    reader->last_bound = bound;
    reader->last_count = count;
    reader->open = !isinf(bound);
}

static void read_histogram_line(struct reader *reader, struct str suffix, struct str labels,
                                struct str le, double value) {
    if (str_eq(suffix, STR("_bucket"))) {
        assert_non_null(le.ptr);
        read_bucket(reader, labels, le, value);
        return;
    }
    assert_false(reader->open);
    assert_null(le.ptr);
    if (str_eq(suffix, STR("_count")))
        assert_true(value == reader->last_count);
    else
        assert_true(str_eq(suffix, STR("_sum")) && value >= 0);
}

static void read_sample(struct reader *reader, struct str line) {
    struct str name = take_name(&line), le;
    assert_true(str_starts(name, reader->family));
    struct str suffix = str_skip(name, reader->family.len);
    struct str labels = take_labels(&line, &le);
    double value = take_value(&line);
    if (str_eq(reader->type, STR("histogram")))
        read_histogram_line(reader, suffix, labels, le, value);
    else
        assert_int_equal(suffix.len, 0);
    reader->samples++;
}

static void read_head(struct reader *reader, struct str line) {
    assert_false(reader->open);
    reader->family = take_name(&line);
    assert_true(take(&line, " "));
    assert_true(line.len > 0 && str_find_char(line, '\\') < 0);
    for (size_t i = 0; i < reader->families; i++)
        assert_false(str_eq(reader->seen[i], reader->family));
    reader->seen[reader->families++] = reader->family;
    struct str type;
    assert_true(str_split(&reader->rest, '\n', &type));
    assert_true(take(&type, "# TYPE "));
    assert_true(str_eq(take_name(&type), reader->family));
    assert_true(take(&type, " "));
    reader->type = type;
    assert_true(str_eq(type, STR("counter")) || str_eq(type, STR("gauge")) ||
                str_eq(type, STR("histogram")));
    assert_false(str_starts(reader->rest, STR("#"))); /* at least one sample */
}

static struct reader read_page(struct str page) {
    struct reader reader = {.rest = page};
    struct str line;
    assert_true(str_ends(page, STR("\n")));
    while (reader.rest.len > 0 && str_split(&reader.rest, '\n', &line)) {
        if (take(&line, "# HELP "))
            read_head(&reader, line);
        else
            read_sample(&reader, line);
    }
    assert_false(reader.open);
    return reader;
}

/* --- the page -------------------------------------------------------------------------------- */

static struct str render(struct buf *buf, enum metrics_naming naming) {
    buf_free(buf);
    *buf = buf_make(METRICS_MAX_BYTES);
    assert_int_equal(metrics_render(buf, naming), 0);
    return buf_str(buf);
}

static bool contains(struct str page, const char *text) {
    return str_find(page, str_from(text)) >= 0;
}

/* Runs first, while nothing else is registered. */
static void an_empty_page(void **state) {
    (void)state;
    struct buf buf = buf_make(100);
    assert_int_equal(metrics_render(&buf, METRICS_NAMING_BOTH), 0);
    assert_int_equal(buf.len, 0);
    buf_free(&buf);
}

static void exact_text(void **state) {
    (void)state;
    struct buf buf = buf_make(METRICS_MAX_BYTES);
    metric_ref refs[] = {metric_ref_of(METRIC_SGL_RETRIES_TOTAL, "/generate"),
                         metric_ref_of(METRIC_SGL_ACTIVE_WORKERS),
                         metric_ref_of(METRIC_SLUICE_OVERHEAD_SECONDS, "http")};
    metric_add(refs[0], 12345678901);
    metric_set(refs[1], 0.5);
    metric_observe(refs[2], 0.00003);
    metric_observe(refs[2], 0.00005);
    metric_observe(refs[2], 3);
    struct str page = render(&buf, METRICS_NAMING_LEGACY);
    const char *want =
        "# HELP sgl_router_retries_total Attempts repeated after a retryable failure.\n"
        "# TYPE sgl_router_retries_total counter\n"
        "sgl_router_retries_total{route=\"/generate\"} 12345678901\n"
        "# HELP sgl_router_active_workers Workers that are ready to take requests.\n"
        "# TYPE sgl_router_active_workers gauge\n"
        "sgl_router_active_workers 0.5\n"
        "# HELP sluice_overhead_seconds Time from the complete request to its being written to a "
        "worker.\n"
        "# TYPE sluice_overhead_seconds histogram\n"
        "sluice_overhead_seconds_bucket{router_type=\"http\",le=\"0.000025\"} 0\n"
        "sluice_overhead_seconds_bucket{router_type=\"http\",le=\"0.00005\"} 2\n"
        "sluice_overhead_seconds_bucket{router_type=\"http\",le=\"0.0001\"} 2\n";
    assert_true(str_starts(page, str_from(want)));
    assert_true(
        str_ends(page, STR("sluice_overhead_seconds_bucket{router_type=\"http\",le=\"0.1\"} 2\n"
                           "sluice_overhead_seconds_bucket{router_type=\"http\",le=\"+Inf\"} 3\n"
                           "sluice_overhead_seconds_sum{router_type=\"http\"} 3.00008\n"
                           "sluice_overhead_seconds_count{router_type=\"http\"} 3\n")));
    read_page(page);
    for (size_t i = 0; i < 3; i++)
        metric_drop(refs[i]);
    assert_int_equal(render(&buf, METRICS_NAMING_BOTH).len, 0);
    buf_free(&buf);
}

static void hostile_labels(void **state) {
    (void)state;
    struct buf buf = buf_make(METRICS_MAX_BYTES);
    static const char *const values[] = {"a\"b\\c\nd",         "\xff\xc3",      "\r\t\x7f",
                                         "gr\xc3\xbc\xc3\x9f", "} 1\nforged 1", ""};
    metric_ref refs[6];
    for (size_t i = 0; i < 6; i++)
        refs[i] = metric_ref_of(METRIC_SMG_WORKER_POOL_SIZE, "regular", "http", values[i]);
    struct str page = render(&buf, METRICS_NAMING_BOTH);
    assert_true(contains(page, "model=\"a\\\"b\\\\c\\nd\"}"));
    assert_true(contains(page, "model=\"\\\\xff\\\\xc3\"}"));
    assert_true(contains(page, "model=\"\\\\x0d\\\\x09\\\\x7f\"}"));
    assert_true(contains(page, "model=\"gr\xc3\xbc\xc3\x9f\"}"));
    assert_true(contains(page, "model=\"\"}"));
    struct reader reader = read_page(page);
    assert_int_equal(reader.samples, 6);
    assert_int_equal(reader.families, 1);
    for (size_t i = 0; i < 6; i++)
        metric_drop(refs[i]);
    buf_free(&buf);
}

static metric_ref make_any(enum metric_id family) {
    static const char *const values[] = {"a", "b", "c", "d", "e", "f", "g"};
    const char *list[METRIC_MAX_LABELS + 1] = {NULL};
    memcpy(list, values, metric_families[family].label_count * sizeof *list);
    return metric_series(family, list);
}

static void touch(enum metric_id family, metric_ref ref, int i) {
    if (metric_families[family].type >= METRIC_TYPE_D20)
        metric_observe(ref, i * 0.7);
    else if (metric_families[family].type == METRIC_TYPE_COUNTER)
        metric_add(ref, (uint64_t)i);
    else
        metric_set(ref, i - 7.25);
}

static void keep_page(struct str page) {
    const char *path = getenv("METRICS_PAGE");
    FILE *file = path ? fopen(path, "w") : NULL;
    if (file == NULL)
        return;
    assert_int_equal(fwrite(page.ptr, 1, page.len, file), page.len);
    fclose(file);
}

static void every_family_in_both_namings(void **state) {
    (void)state;
    struct buf buf = buf_make(METRICS_MAX_BYTES);
    metric_ref refs[METRIC_FAMILY_COUNT];
    size_t of_generation[3] = {0};
    for (int i = 0; i < METRIC_FAMILY_COUNT; i++) {
        refs[i] = make_any((enum metric_id)i);
        touch((enum metric_id)i, refs[i], i);
        of_generation[metric_families[i].generation]++;
    }
    metric_ref odd = metric_ref_of(METRIC_SGL_CB_STATE, "http://[::1]:8000/\\x \"q\"\n");
    struct str page = render(&buf, METRICS_NAMING_BOTH);
    assert_int_equal(read_page(page).families, METRIC_FAMILY_COUNT);
    keep_page(page);
    page = render(&buf, METRICS_NAMING_LEGACY);
    assert_int_equal(read_page(page).families,
                     of_generation[METRIC_LEGACY] + of_generation[METRIC_OURS]);
    assert_false(contains(page, "smg_http"));
    page = render(&buf, METRICS_NAMING_LAYERED);
    assert_int_equal(read_page(page).families,
                     of_generation[METRIC_LAYERED] + of_generation[METRIC_OURS]);
    assert_false(contains(page, "sgl_router"));
    for (int i = 0; i < METRIC_FAMILY_COUNT; i++)
        metric_drop(refs[i]);
    metric_drop(odd);
    buf_free(&buf);
}

static void a_page_too_large(void **state) {
    (void)state;
    struct buf buf = buf_make(1000);
    metric_ref ref = make_any(METRIC_SMG_ROUTER_TTFT_SECONDS);
    assert_int_equal(buf_append(&buf, "before", 6), 0);
    assert_int_equal(metrics_render(&buf, METRICS_NAMING_BOTH), -EMSGSIZE);
    assert_true(str_eq(buf_str(&buf), STR("before")));
    buf_free(&buf);
    /* 4,096 series of 32 lines pass the page's own maximum */
    static metric_ref many[METRIC_MAX_SERIES];
    char model[200];
    memset(model, 'm', sizeof model);
    for (int i = 0; i < METRIC_MAX_SERIES - 1; i++) {
        snprintf(model + 150, 20, "%d", i);
        many[i] = metric_ref_of(METRIC_SMG_ROUTER_TTFT_SECONDS, "http", "regular", model, "chat");
    }
    buf = buf_make(SIZE_MAX);
    assert_int_equal(metrics_render(&buf, METRICS_NAMING_BOTH), -EMSGSIZE);
    assert_int_equal(buf.len, 0);
    buf_free(&buf);
    for (int i = 0; i < METRIC_MAX_SERIES - 1; i++)
        metric_drop(many[i]);
    metric_drop(ref);
}

static void numbers(void **state) {
    (void)state;
    static const struct {
        double value;
        const char *text;
    } cases[] = {{0, "0"},
                 {-1, "-1"},
                 {1e6, "1000000"},
                 {123456789012345, "123456789012345"},
                 {0.1, "0.1"},
                 {1e300, "1e+300"},
                 {1e-7, "1e-07"},
                 {INFINITY, "+Inf"},
                 {-INFINITY, "-Inf"},
                 {NAN, "NaN"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct number number = number_text(cases[i].value);
        assert_true(str_eq(str_make(number.text, number.len), str_from(cases[i].text)));
    }
    struct number bound = bound_text(0.000025);
    assert_true(str_eq(str_make(bound.text, bound.len), STR("0.000025")));
}

static double gauge_on(struct str page, const char *name) {
    ptrdiff_t at = str_find(page, str_from(name));
    assert_true(at >= 0);
    return strtod(page.ptr + at + strlen(name), NULL);
}

static void the_process(void **state) {
    (void)state;
    struct buf buf = buf_make(METRICS_MAX_BYTES);
    char version[] = "1.2.3";
    metrics_init(version, "abc\"def");
    version[0] = '9';
    int fds[2];
    struct str page = render(&buf, METRICS_NAMING_LAYERED);
    double before = gauge_on(page, "\nprocess_open_fds ");
    assert_int_equal(pipe(fds), 0);
    page = render(&buf, METRICS_NAMING_LAYERED);
    assert_true(gauge_on(page, "\nprocess_open_fds ") == before + 2);
    close(fds[0]);
    close(fds[1]);
    read_page(page);
    assert_true(contains(page, "sluice_build_info{version=\"1.2.3\",commit=\"abc\\\"def\"} 1\n"));
    double resident = gauge_on(page, "\nprocess_resident_memory_bytes ");
    assert_true(resident > 1e5 && resident < gauge_on(page, "\nprocess_virtual_memory_bytes "));
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_true(gauge_on(page, "\nprocess_max_fds ") == (double)limit.rlim_cur);
    double age = seconds_of(CLOCK_REALTIME) - gauge_on(page, "\nprocess_start_time_seconds ");
    assert_true(age > -1 && age < 600);
    double cpu = gauge_on(page, "\nprocess_cpu_seconds_total ");
    assert_true(cpu > 0 && cpu <= seconds_of(CLOCK_PROCESS_CPUTIME_ID));
    assert_true(gauge_on(page, "\nsluice_log_dropped_total ") == 0);
    buf_free(&buf);
}

/* --- the access record ----------------------------------------------------------------------- */

static void redacted_urls(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"/generate", "/generate"},
        {"", ""},
        {"/a?b=c", "/a?b=c"},
        {"/a?key=S", "/a?key=***"},
        {"/a?x=1&token=S&y=2", "/a?x=1&token=***&y=2"},
        {"/a?API_KEY=S", "/a?API_KEY=***"},
        {"/a?api%5Fkey=S", "/a?api%5Fkey=***"},
        {"/a?key=S=S&&", "/a?key=***&&"},
        {"/a?key", "/a?key"},
        {"/a?key=", "/a?key=***"},
        {"/a?x;key=S;y", "/a?x;key=***;y"},
        {"/a?keys=1&monkey=2", "/a?keys=1&monkey=2"},
        {"/a?x=http://u:p@h/&key=S", "/a?x=http://u:p@h/&key=***"},
        {"/a?k%zz=1&password=S", "/a?k%zz=1&password=***"},
        {"http://h/a?key=S", "http://h/a?key=***"},
        {"http://user:S@h:1/p", "http://***@h:1/p"},
        {"http://S@h?token=S", "http://***@h?token=***"},
        {"http://h/a@b", "http://h/a@b"},
        {"http://a:S@b@h/", "http://***@h/"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char out[64];
        struct str got = access_redact(str_from(cases[i][0]), out, sizeof out);
        assert_true(str_eq(got, str_from(cases[i][1])));
    }
}

static void long_urls_are_cut(void **state) {
    (void)state;
    char url[3000], out[100];
    memset(url, 'a', sizeof url);
    for (size_t len = 0; len < sizeof url; len += 7) {
        struct str got = access_redact(str_make(url, len), out, sizeof out);
        assert_int_equal(got.len, len <= sizeof out ? len : sizeof out);
        assert_int_equal(str_ends(got, STR("...")), len > sizeof out);
    }
    memcpy(url, "/?key=secret&", 13);
    struct str got = access_redact(str_make(url, sizeof url), out, sizeof out);
    assert_true(str_starts(got, STR("/?key=***&aaa")) && str_ends(got, STR("a...")));
    assert_int_equal(got.len, sizeof out);
}

static FILE *captured;
static int saved_stderr;

/* The log is not started, so its lines go to stderr. */
static void capture(void) {
    captured = tmpfile();
    assert_non_null(captured);
    fflush(stderr);
    saved_stderr = dup(STDERR_FILENO);
    dup2(fileno(captured), STDERR_FILENO);
}

static const char *captured_text(void) {
    static char text[16384];
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    ssize_t len = pread(fileno(captured), text, sizeof text - 1, 0);
    assert_true(len >= 0);
    text[len] = '\0';
    fclose(captured);
    return text;
}

static const struct access_record whole = {
    .method = STR_INIT("POST"),
    .uri = STR_INIT("/v1/chat/completions?api_key=SECRET&x=1"),
    .version = STR_INIT("HTTP/1.1"),
    .request_id = STR_INIT("chatcmpl-1"),
    .route = STR_INIT("/v1/chat/completions"),
    .status = 200,
    .latency_us = 1500,
    .total_us = 92000,
    .bytes_in = 4096,
    .bytes_out = 123456,
    .worker = STR_INIT("http://user:SECRET@w:8000"),
    .model = STR_INIT("llama \"3\"\n"),
    .attempts = 2,
    .stream = true,
    .client = STR_INIT("10.0.0.1"),
};

static void a_whole_record(void **state) {
    (void)state;
    capture();
    access_log(&whole);
    const char *text = captured_text();
    assert_non_null(strstr(text, "  INFO smg::response: "));
    assert_true(str_ends(
        str_from(text),
        STR(": finished processing request method=POST "
            "uri=\"/v1/chat/completions?api_key=***&x=1\" version=HTTP/1.1 request_id=chatcmpl-1 "
            "route=/v1/chat/completions status_code=200 latency=1500 total=92000 bytes_in=4096 "
            "bytes_out=123456 worker=http://***@w:8000 model=\"llama \\\"3\\\"\\n\" attempts=2 "
            "stream=true client=10.0.0.1\n")));
    assert_null(strstr(text, "SECRET"));
}

static void level_by_status(void **state) {
    (void)state;
    static const struct {
        int status;
        const char *text;
    } cases[] = {{199, "  INFO smg::response: "}, {304, "  INFO smg::response: "},
                 {399, "  INFO smg::response: "}, {400, "  WARN smg::response: "},
                 {499, "  WARN smg::response: "}, {500, " ERROR smg::response: "},
                 {503, " ERROR smg::response: "}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct access_record record = {.status = cases[i].status,
                                       .latency_us = -1,
                                       .total_us = -1,
                                       .error_code = STR("queue_full")};
        capture();
        access_log(&record);
        const char *text = captured_text();
        assert_non_null(strstr(text, cases[i].text));
        assert_non_null(strstr(text, record.status >= 500   ? ": request failed with server error "
                                     : record.status >= 400 ? ": request failed with client error "
                                                            : ": finished processing request "));
        assert_non_null(strstr(text, " error=queue_full bytes_in=0 bytes_out=0 stream=false\n"));
    }
}

static void the_start_is_for_debugging(void **state) {
    (void)state;
    capture();
    access_start(&whole);
    assert_string_equal(captured_text(), "");
    log_set_level(LOG_DEBUG);
    capture();
    access_start(&whole);
    const char *text = captured_text();
    log_set_level(LOG_ERROR);
    assert_non_null(strstr(text, " DEBUG smg::request: "));
    assert_non_null(strstr(text, ": started processing request method=POST uri="));
    assert_null(strstr(text, "SECRET"));
    capture();
    access_log(&whole);
    assert_string_equal(captured_text(), "");
    log_set_level(LOG_INFO);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_page),     cmocka_unit_test(exact_text),
        cmocka_unit_test(hostile_labels),    cmocka_unit_test(every_family_in_both_namings),
        cmocka_unit_test(a_page_too_large),  cmocka_unit_test(numbers),
        cmocka_unit_test(the_process),       cmocka_unit_test(redacted_urls),
        cmocka_unit_test(long_urls_are_cut), cmocka_unit_test(a_whole_record),
        cmocka_unit_test(level_by_status),   cmocka_unit_test(the_start_is_for_debugging),
    };
    return cmocka_run_group_tests_name("observe", tests, NULL, NULL);
}
