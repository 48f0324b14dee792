/* Any bytes, cut anywhere (the first byte says how): the border scanner agrees with itself on the whole
 * and on the pieces, and the reader calls back the same events. */
#include "proto/sse.h"

#include "base/hash.h"
#include "base/panic.h"

struct tally {
    uint64_t events, digest;
};

static int count(void *arg, const struct sse_event *event) {
    struct tally *tally = arg;
    tally->events++;
    tally->digest = hash_seeded(event->data.ptr, event->data.len, tally->digest);
    tally->digest = hash_seeded(event->event.ptr, event->event.len, tally->digest);
    return 0;
}

static struct tally read_all(struct str text, size_t piece) {
    struct tally tally = {0};
    struct sse_reader reader;
    sse_reader_init(&reader, 1 << 20);
    for (size_t at = 0; at < text.len; at += piece) {
        int err = sse_reader_feed(&reader, str_head(str_skip(text, at), piece), count, &tally);
        assert_always(err == 0);
    }
    sse_reader_free(&reader);
    return tally;
}

static size_t last_border_in_pieces(struct str text, size_t piece, bool *at_border) {
    struct sse_border border = {0};
    size_t last = 0;
    for (size_t at = 0; at < text.len; at += piece) {
        size_t found = sse_border_feed(&border, str_head(str_skip(text, at), piece));
        if (found)
            last = at + found;
    }
    *at_border = sse_at_border(&border);
    return last;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1 || size > 1 << 16)
        return 0;
    size_t piece = data[0] % 31 + 1;
    struct str text = str_make((const char *)data + 1, size - 1);
    struct sse_border border = {0};
    bool at_border;
    size_t whole = sse_border_feed(&border, text);
    assert_always(whole == last_border_in_pieces(text, piece, &at_border));
    assert_always(at_border == sse_at_border(&border));
    assert_always(whole <= text.len && (text.len == 0 || at_border == (whole == text.len)));
    struct tally once = read_all(text, text.len + 1), cut = read_all(text, piece);
    assert_always(once.events == cut.events && once.digest == cut.digest);
    return 0;
}
