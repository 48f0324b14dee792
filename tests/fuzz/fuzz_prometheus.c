/* Any bytes, as the metrics pages of up to four workers (a 0xff byte ends a page): those that parse
 * are merged, what comes out parses again with the same number of samples, and merging it once more
 * changes nothing but the worker's label. The load report reads each page, too. */
#include "gateway/admin/engine_metrics.h"

#include "base/panic.h"
#include "gateway/admin/load_report.h"

#define PAGES 4

static void count_drop(void *arg, struct str addr, struct str family, const char *why) {
    size_t *drops = arg;
    assert_always(addr.len > 0 && family.len > 0 && why != NULL);
    ++*drops;
}

static struct engine_page *parse(struct str addr, struct str text) {
    struct buf buf = buf_make(1 << 26);
    const char *why = NULL;
    assert_always(buf_add(&buf, text) == 0);
    struct engine_page *page = engine_page_parse(addr, &buf, &why);
    assert_always(buf.ptr == NULL && (page != NULL || why != NULL));
    return page;
}

/* Samples of a page that parses; -1 for another. */
static long samples_in(struct str text) {
    struct prom_line line;
    long count = 0;
    int rc;
    while ((rc = prom_next(&text, &line)) == 1)
        count += line.kind == PROM_SAMPLE;
    return rc == 0 ? count : -1;
}

static struct buf merge(struct engine_page *const *pages, size_t count, size_t *drops) {
    struct engine_merge options = {.dropped = count_drop, .arg = drops};
    struct buf out = buf_make(1 << 26);
    engine_merge(&options, pages, count, &out);
    return out;
}

static void check_merged(struct engine_page *const *pages, size_t count, long samples) {
    size_t drops = 0, again = 0;
    struct buf out = merge(pages, count, &drops);
    long left = samples_in(buf_str(&out));
    assert_always(left >= 0 && (drops > 0 ? left < samples : left == samples));
    struct engine_page *page = parse(STR("http://a:1"), buf_str(&out));
    assert_always(page != NULL);
    struct buf second = merge(&page, 1, &again);
    assert_always(again == 0 && samples_in(buf_str(&second)) == left);
    engine_page_free(page);
    buf_free(&second);
    buf_free(&out);
}

static void check_load(struct str text) {
    struct arena *arena = arena_new();
    struct load_report report;
    if (load_report_read(arena, LOAD_FROM_METRICS, text, &report) == 0) {
        struct json_writer writer;
        json_writer_init(&writer, 1 << 20);
        load_report_write(&writer, &report);
        assert_always(report.load >= 0 && report.rank_count > 0);
        assert_always(json_parse(arena, json_writer_end(&writer, arena), NULL) != NULL);
    }
    arena_free(arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct str rest = str_make((const char *)data, size), text;
    struct engine_page *pages[PAGES];
    size_t count = 0;
    long samples = 0;
    if (size > 1 << 16)
        return 0;
    while (count < PAGES && str_split(&rest, (char)0xff, &text)) {
        struct engine_page *page = parse(STR("http://w\"1:80"), text);
        assert_always((page != NULL) == (samples_in(text) >= 0));
        check_load(text);
        if (page == NULL)
            break;
        pages[count++] = page;
        samples += samples_in(text);
    }
    check_merged(pages, count, samples);
    while (count > 0)
        engine_page_free(pages[--count]);
    return 0;
}
