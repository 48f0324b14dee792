#include "gateway/admin/engine_metrics.c"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define PAGES 4

struct fixture {
    struct engine_page *pages[PAGES];
    size_t count;
    struct buf out;
    size_t dropped;
    char last_drop[128];
};

static struct buf text_of(const char *text) {
    struct buf buf = buf_make(64 << 20);
    assert_int_equal(buf_append(&buf, text, strlen(text)), 0);
    return buf;
}

static void add_page(struct fixture *f, const char *addr, const char *text) {
    struct buf buf = text_of(text);
    const char *why = NULL;
    struct engine_page *page = engine_page_parse(str_from(addr), &buf, &why);
    assert_int_equal(buf.len, 0);
    if (page == NULL)
        fail_msg("not parsed (%s): %s", why, text);
    assert_true(engine_page_cost(page) >= strlen(text));
    f->pages[f->count++] = page;
}

static void note_drop(void *arg, struct str addr, struct str family, const char *why) {
    struct fixture *f = arg;
    f->dropped++;
    snprintf(f->last_drop, sizeof f->last_drop, "%.*s %.*s: %s", STR_ARG(addr), STR_ARG(family),
             why);
}

/* Merges what was added; the text is valid until `done`. */
static const char *merged(struct fixture *f, bool keep_colons, size_t max) {
    struct engine_merge merge = {.keep_colons = keep_colons, .dropped = note_drop, .arg = f};
    f->out = buf_make(max);
    engine_merge(&merge, f->pages, f->count, &f->out);
    f->out.max++;
    assert_int_equal(buf_append(&f->out, "", 1), 0);
    return f->out.ptr;
}

static void done(struct fixture *f) {
    for (size_t i = 0; i < f->count; i++)
        engine_page_free(f->pages[i]);
    buf_free(&f->out);
    *f = (struct fixture){.count = 0};
}

static void merge_two(const char *a, const char *b, const char *expected) {
    struct fixture f = {.count = 0};
    add_page(&f, "http://a:1", a);
    if (b != NULL)
        add_page(&f, "http://b:2", b);
    assert_string_equal(merged(&f, false, 1 << 20), expected);
    assert_int_equal(f.dropped, 0);
    done(&f);
}

/* --- good pages --- */

static void merges_by_family(void **state) {
    (void)state;
    merge_two("# HELP http_requests_total The total.\n"
              "# TYPE http_requests_total counter\n"
              "http_requests_total{method=\"post\",code=\"200\"} 1027\n"
              "http_requests_total{method=\"post\",code=\"400\"} 3\n",
              "# HELP http_requests_total Another help.\n"
              "# TYPE http_requests_total counter\n"
              "http_requests_total{code=\"200\",method=\"post\"} 5.0\n",
              "# HELP http_requests_total The total.\n"
              "# TYPE http_requests_total counter\n"
              "http_requests_total{code=\"200\",method=\"post\",worker_addr=\"http://a:1\"} 1027\n"
              "http_requests_total{code=\"400\",method=\"post\",worker_addr=\"http://a:1\"} 3\n"
              "http_requests_total{code=\"200\",method=\"post\",worker_addr=\"http://b:2\"} 5\n");
}

static void pads_missing_labels(void **state) {
    (void)state;
    merge_two("# TYPE x gauge\nx{model=\"m\"} 1\n",
              "# TYPE x gauge\nx{dp_rank=\"0\",model=\"m\"} 2\nx 3\n",
              "# TYPE x gauge\n"
              "x{dp_rank=\"\",model=\"m\",worker_addr=\"http://a:1\"} 1\n"
              "x{dp_rank=\"0\",model=\"m\",worker_addr=\"http://b:2\"} 2\n"
              "x{dp_rank=\"\",model=\"\",worker_addr=\"http://b:2\"} 3\n");
}

static void rewrites_colons_of_names_only(void **state) {
    (void)state;
    static const char *const page = "# HELP sglang:a:b Of a:b.\n# TYPE sglang:a:b gauge\n"
                                    "sglang:a:b{host=\"h:80\"} 1\n";
    merge_two(page, NULL,
              "# HELP sglang_a_b Of a:b.\n# TYPE sglang_a_b gauge\n"
              "sglang_a_b{host=\"h:80\",worker_addr=\"http://a:1\"} 1\n");
    struct fixture f = {.count = 0};
    add_page(&f, "u", page);
    assert_string_equal(merged(&f, true, 1 << 20),
                        "# HELP sglang:a:b Of a:b.\n# TYPE sglang:a:b gauge\n"
                        "sglang:a:b{host=\"h:80\",worker_addr=\"u\"} 1\n");
    done(&f);
}

static void orders_histograms(void **state) {
    (void)state;
    merge_two("# TYPE t histogram\n"
              "t_sum{m=\"x\"} 2.5\n"
              "t_bucket{le=\"+Inf\",m=\"x\"} 3\n"
              "t_bucket{le=\"10\",m=\"x\"} 2\n"
              "t_bucket{m=\"y\",le=\"1\"} 7\n"
              "t_bucket{le=\"9.5\",m=\"x\"} 1\n"
              "t_count{m=\"x\"} 3\n"
              "t_count{m=\"y\"} 7\n",
              NULL,
              "# TYPE t histogram\n"
              "t_bucket{m=\"x\",worker_addr=\"http://a:1\",le=\"9.5\"} 1\n"
              "t_bucket{m=\"x\",worker_addr=\"http://a:1\",le=\"10\"} 2\n"
              "t_bucket{m=\"x\",worker_addr=\"http://a:1\",le=\"+Inf\"} 3\n"
              "t_sum{m=\"x\",worker_addr=\"http://a:1\"} 2.5\n"
              "t_count{m=\"x\",worker_addr=\"http://a:1\"} 3\n"
              "t_bucket{m=\"y\",worker_addr=\"http://a:1\",le=\"1\"} 7\n"
              "t_count{m=\"y\",worker_addr=\"http://a:1\"} 7\n");
}

static void orders_summaries(void **state) {
    (void)state;
    merge_two(
        "# TYPE s summary\ns_count 2\ns_sum 3\ns{quantile=\"0.9\"} 2\ns{quantile=\"0.5\"} NaN\n",
        NULL,
        "# TYPE s summary\n"
        "s{worker_addr=\"http://a:1\",quantile=\"0.5\"} NaN\n"
        "s{worker_addr=\"http://a:1\",quantile=\"0.9\"} 2\n"
        "s_sum{worker_addr=\"http://a:1\"} 3\n"
        "s_count{worker_addr=\"http://a:1\"} 2\n");
}

/* A suffix alone makes no histogram; a family of that very name goes first. */
static void suffixes_without_a_histogram(void **state) {
    (void)state;
    merge_two("# TYPE a counter\na_count 1\na_bucket{le=\"1\"} 2\n"
              "# TYPE h histogram\n# TYPE h_count gauge\nh_count 3\n",
              NULL,
              "a_count{worker_addr=\"http://a:1\"} 1\n"
              "a_bucket{le=\"1\",worker_addr=\"http://a:1\"} 2\n"
              "# TYPE h_count gauge\nh_count{worker_addr=\"http://a:1\"} 3\n");
}

static void renders_values(void **state) {
    (void)state;
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"1.0", "1"},
        {"8.128902e+06", "8128902"},
        {"0", "0"},
        {"-0.0", "-0"},
        {"007", "7"},
        {"1e3", "1000"},
        {"0.1", "0.1"},
        {"+2.5", "2.5"},
        {"-3", "-3"},
        {"nan", "NaN"},
        {"Inf", "+Inf"},
        {"-inf", "-Inf"},
        {"1e400", "+Inf"},
        {"1e-9", "1e-09"},
        {"123456789012345678", "1.2345678901234568e+17"},
        {"0.30000000000000004", "0.30000000000000004"},
        {"1e300", "1e+300"},
        {"99999999999999", "99999999999999"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char page[64], want[128];
        snprintf(page, sizeof page, "v %s\n", cases[i].in);
        snprintf(want, sizeof want, "v{worker_addr=\"http://a:1\"} %s\n", cases[i].out);
        struct fixture f = {.count = 0};
        add_page(&f, "http://a:1", page);
        assert_string_equal(merged(&f, false, 1 << 20), want);
        double before, after;
        assert_int_equal(prom_number(str_from(cases[i].in), &before), 0);
        assert_int_equal(prom_number(str_from(cases[i].out), &after), 0);
        assert_true(before == after || (isnan(before) && isnan(after)));
        done(&f);
    }
}

static void keeps_timestamps_and_escapes(void **state) {
    (void)state;
    merge_two("x { a = \"q\\\"b\\\\n\\n\" , } 1 1700000000000\r\n\n  # a remark\n#\ny\t2", NULL,
              "x{a=\"q\\\"b\\\\n\\n\",worker_addr=\"http://a:1\"} 1 1700000000000\n"
              "y{worker_addr=\"http://a:1\"} 2\n");
}

static void our_label_wins(void **state) {
    (void)state;
    struct fixture f = {.count = 0};
    add_page(&f, "http://a\"\\\n", "x{worker_addr=\"evil\",x=\"1\",x=\"2\"} 1\n");
    assert_string_equal(merged(&f, false, 1 << 20),
                        "x{worker_addr=\"http://a\\\"\\\\\\n\",x=\"1\"} 1\n");
    done(&f);
}

static void interleaved_families_come_together(void **state) {
    (void)state;
    merge_two("a 1\nb 2\na{l=\"1\"} 3\n", "b 4\na 5\n",
              "a{l=\"\",worker_addr=\"http://a:1\"} 1\n"
              "a{l=\"1\",worker_addr=\"http://a:1\"} 3\n"
              "a{l=\"\",worker_addr=\"http://b:2\"} 5\n"
              "b{worker_addr=\"http://a:1\"} 2\n"
              "b{worker_addr=\"http://b:2\"} 4\n");
}

static void same_name_after_rewriting(void **state) {
    (void)state;
    merge_two("# TYPE a:b gauge\na:b 1\n# TYPE a_b gauge\na_b 2\n", NULL,
              "# TYPE a_b gauge\na_b{worker_addr=\"http://a:1\"} 1\n"
              "a_b{worker_addr=\"http://a:1\"} 2\n");
}

static void nothing_gives_nothing(void **state) {
    (void)state;
    merge_two("", "# HELP x y\n# TYPE x counter\n# EOF\n", "");
}

/* --- conflicts and bounds --- */

static void another_type_is_dropped(void **state) {
    (void)state;
    struct fixture f = {.count = 0};
    add_page(&f, "http://a:1", "# TYPE x counter\nx 1\n");
    add_page(&f, "http://b:2", "# TYPE x gauge\nx 2\ny 1\n");
    assert_string_equal(merged(&f, false, 1 << 20),
                        "# TYPE x counter\nx{worker_addr=\"http://a:1\"} 1\n"
                        "y{worker_addr=\"http://b:2\"} 1\n");
    assert_int_equal(f.dropped, 1);
    assert_string_equal(f.last_drop, "http://b:2 x: another type than with the first worker");
    done(&f);
}

static void no_type_fits_plain_ones(void **state) {
    (void)state;
    merge_two("x 1\n", "# TYPE x gauge\nx 2\n",
              "# TYPE x gauge\nx{worker_addr=\"http://a:1\"} 1\nx{worker_addr=\"http://b:2\"} 2\n");
    struct fixture f = {.count = 0};
    add_page(&f, "http://a:1", "x 1\n");
    add_page(&f, "http://b:2", "# TYPE x histogram\nx_sum 2\n");
    assert_string_equal(merged(&f, false, 1 << 20), "x{worker_addr=\"http://a:1\"} 1\n");
    assert_int_equal(f.dropped, 1);
    done(&f);
}

/* Each sample brings a label of its own: padding would grow with the square. */
static void too_many_labels_cost_that_worker(void **state) {
    (void)state;
    struct fixture f = {.count = 0};
    char page[16384];
    size_t len = 0;
    for (int i = 0; i < 100; i++)
        len += (size_t)snprintf(page + len, sizeof page - len, "x{l%d=\"1\"} 1\n", i);
    add_page(&f, "http://a:1", "x{a=\"1\"} 1\n");
    add_page(&f, "http://b:2", page);
    assert_string_equal(merged(&f, false, 1 << 20), "x{a=\"1\",worker_addr=\"http://a:1\"} 1\n");
    assert_int_equal(f.dropped, 1);
    assert_string_equal(f.last_drop, "http://b:2 x: too many labels");
    done(&f);
}

static void a_full_page_drops_parts(void **state) {
    (void)state;
    struct fixture f = {.count = 0};
    add_page(
        &f, "a",
        "# TYPE x gauge\nx 1\n# TYPE y gauge\ny{l=\"0123456789012345678901234567890\"} 1\nz 1\n");
    add_page(&f, "b", "x 22222222222222222222222222222222222222222222222222222\ny 2\n");
    const char *page = merged(&f, false, 64);
    assert_string_equal(page, "# TYPE x gauge\nx{worker_addr=\"a\"} 1\nz{worker_addr=\"a\"} 1\n");
    assert_int_equal(f.dropped, 3);
    done(&f);
}

static void refuse(const char *text, const char *reason) {
    struct buf buf = text_of(text);
    const char *why = NULL;
    struct engine_page *page = engine_page_parse(STR("u"), &buf, &why);
    if (page != NULL)
        fail_msg("accepted: %.60s", text);
    assert_int_equal(buf.len, 0);
    assert_string_equal(why, reason);
}

static void bad_pages_are_refused(void **state) {
    (void)state;
    static const char *const pages[] = {
        "{\"error\":\"not found\"}",
        "<html>",
        "x",
        "x ",
        "x y",
        "x 1 y",
        "x 1 2 3",
        "x{ 1",
        "x{} ",
        "x{a} 1",
        "x{a=} 1",
        "x{a=1} 1",
        "x{a=\"1} 1",
        "x{a=\"\\x\"} 1",
        "x{a=\"\\",
        "x{a=\"1\"b=\"2\"} 1",
        "x{:a=\"1\"} 1",
        "x{1=\"1\"} 1",
        "1x 1",
        "-x 1",
        "x{a=\"1\"}1e",
        "x 0x10",
        "x +-1",
        "x --1",
        "x ++1",
        "x 1 1.5",
        "# TYPE x nonsense",
        "# TYPE x",
        "# TYPE 1 gauge",
        "# HELP",
        "# HELP x{} y",
        "x{a=\"\xff\"} 1",
        "x 1\rx 2",
        "x infinit",
        "x 1e",
        "ok 1\nx",
        "x{,} 1",
        "x{a=\"1\",,} 1",
        "x1{}{} 1",
    };
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++)
        refuse(pages[i], "not the Prometheus text format");
    struct buf nul = buf_make(64);
    assert_int_equal(buf_append(&nul, "x{a=\"\0\"} 1\n", 12), 0);
    const char *why;
    assert_null(engine_page_parse(STR("u"), &nul, &why));
}

static void long_names_are_refused(void **state) {
    (void)state;
    char page[700];
    memset(page, 'a', sizeof page);
    memcpy(page + PROM_NAME_MAX, " 1\n", 4);
    struct fixture f = {.count = 0};
    add_page(&f, "u", page);
    done(&f);
    memset(page, 'a', sizeof page);
    memcpy(page + PROM_NAME_MAX + 1, " 1\n", 4);
    refuse(page, "not the Prometheus text format");
    memset(page, '1', sizeof page);
    memcpy(page, "x ", 2);
    page[2 + PROM_VALUE_MAX + 1] = 0;
    refuse(page, "not the Prometheus text format");
}

static void many_samples_are_refused(void **state) {
    (void)state;
    struct buf big = buf_make(64 << 20);
    for (size_t i = 0; i <= ENGINE_PAGE_SAMPLES; i++)
        assert_int_equal(buf_append(&big, "a 1\n", 4), 0);
    const char *why;
    assert_null(engine_page_parse(STR("u"), &big, &why));
    assert_string_equal(why, "more than 400000 samples");
    for (size_t i = 0; i <= ENGINE_PAGE_FAMILIES; i++)
        assert_int_equal(buf_printf(&big, "a%zu 1\n", i), 0);
    assert_null(engine_page_parse(STR("u"), &big, &why));
    assert_string_equal(why, "more than 20000 families");
    while (big.len <= ENGINE_PAGE_MAX)
        assert_int_equal(buf_append(&big, "# 345678901234567890\n", 21), 0);
    assert_null(engine_page_parse(STR("u"), &big, &why));
    assert_string_equal(why, "larger than 16 MiB");
}

/* What comes out goes in again. */
static void merged_page_parses(void **state) {
    (void)state;
    struct fixture f = {.count = 0};
    add_page(&f, "http://a:1",
             "# HELP a:b x \\\\ y\n# TYPE a:b histogram\na:b_bucket{le=\"1\",z=\"\\\"\"} 1\n"
             "a:b_sum 0.5\na:b_count 1\nplain 1e-3 5\n");
    const char *once = merged(&f, false, 1 << 20);
    struct fixture again = {.count = 0};
    add_page(&again, "http://a:1", once);
    assert_string_equal(merged(&again, false, 1 << 20), once);
    done(&again);
    done(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_by_family),
        cmocka_unit_test(pads_missing_labels),
        cmocka_unit_test(rewrites_colons_of_names_only),
        cmocka_unit_test(orders_histograms),
        cmocka_unit_test(orders_summaries),
        cmocka_unit_test(suffixes_without_a_histogram),
        cmocka_unit_test(renders_values),
        cmocka_unit_test(keeps_timestamps_and_escapes),
        cmocka_unit_test(our_label_wins),
        cmocka_unit_test(interleaved_families_come_together),
        cmocka_unit_test(same_name_after_rewriting),
        cmocka_unit_test(nothing_gives_nothing),
        cmocka_unit_test(another_type_is_dropped),
        cmocka_unit_test(no_type_fits_plain_ones),
        cmocka_unit_test(too_many_labels_cost_that_worker),
        cmocka_unit_test(a_full_page_drops_parts),
        cmocka_unit_test(bad_pages_are_refused),
        cmocka_unit_test(long_names_are_refused),
        cmocka_unit_test(many_samples_are_refused),
        cmocka_unit_test(merged_page_parses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
