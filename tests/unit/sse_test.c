#include "proto/sse.c"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/rand.h"

/* --- borders, against a byte-by-byte model -------------------------------------------------- */

struct model {
    bool fed, in_line, last_cr, border;
};

/* Says whether a border ends with this byte. */
static bool model_byte(struct model *model, char c) {
    bool was_cr = model->last_cr, at_start = !model->fed;
    model->fed = true;
    model->last_cr = c == '\r';
    if (c == '\n' && was_cr)
        return model->border;
    if (c == '\n' || c == '\r') {
        model->border = at_start || !model->in_line;
        model->in_line = false;
        return model->border;
    }
    model->in_line = true;
    model->border = false;
    return false;
}

static size_t model_feed(struct model *model, struct str piece) {
    size_t last = 0;
    for (size_t i = 0; i < piece.len; i++) {
        if (model_byte(model, piece.ptr[i]))
            last = i + 1;
    }
    return last;
}

static void finds_borders_in_whole_pieces(void **state) {
    (void)state;
    static const struct {
        const char *text;
        size_t border;
        bool at;
    } cases[] = {
        {"data: x\n\n", 9, true},  {"data: x\r\n\r\n", 11, true},
        {"data: x\r\r", 9, true},  {"data: x\n", 0, false},
        {"data: x\r\n", 0, false}, {"data: x", 0, false},
        {"a\n\nb", 3, false},      {"a\n\nb\n\nc\n", 6, false},
        {"a\n\nb\r\rc", 6, false}, {"a\r\rb\n\nc", 6, false},
        {"a\n\r\nb", 4, false},    {"a\r\n\rb", 4, false},
        {"\n", 1, true},           {"a\n\n\n\n", 5, true},
        {"a\r\n\r", 4, true},      {"a\rb\rc\nd\re", 0, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sse_border border = {0};
        assert_int_equal(sse_border_feed(&border, str_from(cases[i].text)), cases[i].border);
        assert_int_equal(sse_at_border(&border), cases[i].at);
    }
    struct sse_border nothing = {0};
    assert_true(sse_at_border(&nothing));
}

static void joins_borders_over_pieces(void **state) {
    (void)state;
    struct sse_border border = {0};
    assert_int_equal(sse_border_feed(&border, STR("data: x\n")), 0);
    assert_int_equal(sse_border_feed(&border, STR("")), 0);
    assert_false(sse_at_border(&border));
    assert_int_equal(sse_border_feed(&border, STR("\ndata: y")), 1);
    assert_false(sse_at_border(&border));
    assert_int_equal(sse_border_feed(&border, STR("\r")), 0);
    assert_int_equal(sse_border_feed(&border, STR("\n")), 0);
    assert_int_equal(sse_border_feed(&border, STR("\r")), 1);
    assert_true(sse_at_border(&border));
    assert_int_equal(sse_border_feed(&border, STR("\n")), 1); /* completes the CRLF */
    assert_int_equal(sse_border_feed(&border, STR("z")), 0);
    assert_false(sse_at_border(&border));
}

static void agrees_with_the_byte_model(void **state) {
    (void)state;
    static const char letters[] = "\n\r\n\rab";
    struct rand_stream rand;
    rand_stream_init(&rand, 7);
    for (int round = 0; round < 200000; round++) {
        struct sse_border border = {0};
        struct model model = {.border = true};
        for (int piece = 0; piece < 4; piece++) {
            char bytes[9];
            size_t len = rand_stream_u64(&rand) % sizeof bytes;
            for (size_t i = 0; i < len; i++)
                bytes[i] = letters[rand_stream_u64(&rand) % (sizeof letters - 1)];
            struct str text = str_make(bytes, len);
            assert_int_equal(sse_border_feed(&border, text), model_feed(&model, text));
            assert_int_equal(sse_at_border(&border), model.border);
        }
    }
}

/* --- the reader ----------------------------------------------------------------------------- */

struct seen {
    struct buf log;
    int stop_after;
};

static int note(void *arg, const struct sse_event *event) {
    struct seen *seen = arg;
    assert_int_equal(buf_printf(&seen->log, "[%.*s|%.*s|%.*s]", STR_ARG(event->event),
                                STR_ARG(event->data), STR_ARG(event->id)),
                     0);
    return --seen->stop_after == 0 ? -ECANCELED : 0;
}

static int read_in_pieces(struct str text, size_t piece, size_t max, struct seen *seen) {
    struct sse_reader reader;
    sse_reader_init(&reader, max);
    int err = 0;
    for (size_t at = 0; at < text.len && err == 0; at += piece)
        err = sse_reader_feed(&reader, str_head(str_skip(text, at), piece), note, seen);
    sse_reader_free(&reader);
    return err;
}

static void reads_events_however_cut(void **state) {
    (void)state;
    static const struct {
        const char *text, *events;
    } cases[] = {
        {"data: a\n\n", "[|a|]"},
        {"data:a\ndata:  b\n\ndata\n\n", "[|a\n b|][||]"},
        {"event: x\nid: 7\ndata: a\n\ndata: b\n\n", "[x|a|7][|b|7]"},
        {": note\n\nevent: lost\n\ndata: c\r\n\r\ndata: d\r\r", "[|c|][|d|]"},
        {"\xef\xbb\xbf"
         "data: bom\n\n",
         "[|bom|]"},
        {"retry: 10\nfoo: bar\ndata: e\nevent\n\n", "[|e|]"},
        {"data: unfinished\n", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (size_t piece = 1; piece < 12; piece++) {
            struct seen seen = {.log = buf_make(4096)};
            assert_int_equal(read_in_pieces(str_from(cases[i].text), piece, 4096, &seen), 0);
            assert_true(str_eq(buf_str(&seen.log), str_from(cases[i].events)));
            buf_free(&seen.log);
        }
    }
}

static void reader_ignores_ids_with_nul(void **state) {
    (void)state;
    struct seen seen = {.log = buf_make(4096)};
    assert_int_equal(read_in_pieces(STR("id: a\0b\ndata: x\n\n"), 64, 4096, &seen), 0);
    assert_true(str_eq(buf_str(&seen.log), STR("[|x|]")));
    buf_free(&seen.log);
}

static void reader_keeps_its_bound(void **state) {
    (void)state;
    struct seen seen = {.log = buf_make(4096)};
    assert_int_equal(read_in_pieces(STR("data: 0123456789\n\n"), 3, 16, &seen), 0);
    assert_int_equal(read_in_pieces(STR("data: 01234567890\n\n"), 3, 16, &seen), -EMSGSIZE);
    assert_int_equal(read_in_pieces(STR("data: 01234567\ndata: 89abcdef\n\n"), 64, 16, &seen),
                     -EMSGSIZE);
    buf_free(&seen.log);
}

static void reader_stops_when_told(void **state) {
    (void)state;
    struct seen seen = {.log = buf_make(4096), .stop_after = 2};
    assert_int_equal(read_in_pieces(STR("data: a\n\ndata: b\n\ndata: c\n\n"), 64, 64, &seen),
                     -ECANCELED);
    assert_true(str_eq(buf_str(&seen.log), STR("[|a|][|b|]")));
    buf_free(&seen.log);
}

/* --- the writer ----------------------------------------------------------------------------- */

static void writes_what_the_reader_reads(void **state) {
    (void)state;
    struct buf out = buf_make(4096);
    assert_int_equal(sse_write(&out, STR("ping"), STR("{}")), 0);
    assert_true(str_eq(buf_str(&out), STR("event: ping\ndata: {}\n\n")));
    assert_int_equal(sse_write(&out, STR(""), STR("a\nb\r\nc\rd\n")), 0);
    struct seen seen = {.log = buf_make(4096)};
    assert_int_equal(read_in_pieces(buf_str(&out), 5, 4096, &seen), 0);
    assert_true(str_eq(buf_str(&seen.log), STR("[ping|{}|][|a\nb\nc\nd\n|]")));
    buf_free(&seen.log);
    buf_free(&out);
    struct buf small = buf_make(8);
    assert_int_equal(sse_write(&small, STR(""), STR("too long")), -EMSGSIZE);
    buf_free(&small);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_borders_in_whole_pieces),
        cmocka_unit_test(joins_borders_over_pieces),
        cmocka_unit_test(agrees_with_the_byte_model),
        cmocka_unit_test(reads_events_however_cut),
        cmocka_unit_test(reader_ignores_ids_with_nul),
        cmocka_unit_test(reader_keeps_its_bound),
        cmocka_unit_test(reader_stops_when_told),
        cmocka_unit_test(writes_what_the_reader_reads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
