/* The border scanner is on the path of every relayed chunk, so it looks at a piece from its end: a
 * border lies in a run of CR and LF bytes, the last such run nearly always closes the piece, and a
 * run needs to be walked only itself. Lines in between are skipped by memrchr. The reader works line by
 * line and keeps an unfinished line only. */
#include "proto/sse.h"

#include <errno.h>

/* What the bytes fed so far end in. Zero (nothing fed) counts as a border. */
enum { BORDER, BORDER_CR, LINE, LINE_END, LINE_END_CR };

static bool is_break(char c) { return c == '\n' || c == '\r'; }

/* The state after one more CR or LF. */
static unsigned char after_break(unsigned char state, char c) {
    if (c == '\r')
        return state == LINE ? LINE_END_CR : BORDER_CR;
    switch (state) {
    case LINE: return LINE_END;
    case LINE_END_CR: return LINE_END; /* the second half of a CRLF */
    default: return BORDER;
    }
}

static unsigned char after_run(unsigned char state, struct str run) {
    for (size_t i = 0; i < run.len; i++)
        state = after_break(state, run.ptr[i]);
    return state;
}

/* The walk from the end of a piece. Each search result is kept until the walk has passed it, so a
 * piece of many lines costs no more than two passes of memrchr. */
struct run_walk {
    struct str piece;
    size_t lf, cr; /* one past the last LF and CR before `end`; 0: none */
    size_t end;
};

static size_t last_before(struct str piece, char c, size_t end) {
    const char *hit = end ? memrchr(piece.ptr, c, end) : NULL;
    return hit ? (size_t)(hit - piece.ptr) + 1 : 0;
}

static bool prev_run(struct run_walk *walk, size_t *start, size_t *end) {
    if (walk->lf > walk->end)
        walk->lf = last_before(walk->piece, '\n', walk->end);
    if (walk->cr > walk->end)
        walk->cr = last_before(walk->piece, '\r', walk->end);
    *end = walk->lf > walk->cr ? walk->lf : walk->cr;
    *start = *end;
    while (*start > 0 && is_break(walk->piece.ptr[*start - 1]))
        (*start)--;
    walk->end = *start;
    return *end > 0;
}

static size_t last_border(struct sse_border *border, struct str piece) {
    struct run_walk walk = {piece, SIZE_MAX, SIZE_MAX, piece.len};
    unsigned char first = border->state;
    border->state = LINE;
    size_t start, end;
    while (prev_run(&walk, &start, &end)) {
        struct str run = str_make(piece.ptr + start, end - start);
        unsigned char state = after_run(start == 0 ? first : LINE, run);
        if (end == piece.len)
            border->state = state;
        if (state <= BORDER_CR)
            return end;
    }
    return 0;
}

size_t sse_border_feed(struct sse_border *border, struct str piece) {
    size_t len = piece.len;
    if (len == 0)
        return 0;
    if (len >= 2 && piece.ptr[len - 1] == '\n' && piece.ptr[len - 2] == '\n') {
        border->state = BORDER;
        return len;
    }
    return last_border(border, piece);
}

bool sse_at_border(const struct sse_border *border) { return border->state <= BORDER_CR; }

void sse_reader_init(struct sse_reader *reader, size_t max_event) {
    *reader = (struct sse_reader){
        .held = buf_make(max_event),
        .data = buf_make(max_event),
        .name = buf_make(max_event),
        .id = buf_make(max_event),
    };
}

void sse_reader_free(struct sse_reader *reader) {
    buf_free(&reader->held);
    buf_free(&reader->data);
    buf_free(&reader->name);
    buf_free(&reader->id);
}

typedef int event_fn(void *arg, const struct sse_event *event);

static int set(struct buf *buf, struct str value) {
    buf_clear(buf);
    return buf_add(buf, value);
}

static int add_data(struct sse_reader *reader, struct str value) {
    int err = reader->has_data ? buf_append(&reader->data, "\n", 1) : 0;
    reader->has_data = true;
    return err ? err : buf_add(&reader->data, value);
}

static int take_field(struct sse_reader *reader, struct str name, struct str value) {
    if (str_eq(name, STR("data")))
        return add_data(reader, value);
    if (str_eq(name, STR("event")))
        return set(&reader->name, value);
    if (str_eq(name, STR("id")) && str_find_char(value, '\0') < 0)
        return set(&reader->id, value);
    return 0; /* retry and unknown fields say nothing to us */
}

static int dispatch(struct sse_reader *reader, event_fn *fn, void *arg) {
    struct sse_event event = {buf_str(&reader->name), buf_str(&reader->data), buf_str(&reader->id)};
    int result = reader->has_data ? fn(arg, &event) : 0;
    reader->has_data = false;
    buf_clear(&reader->data);
    buf_clear(&reader->name);
    return result;
}

static int take_line(struct sse_reader *reader, struct str line, event_fn *fn, void *arg) {
    if (!reader->started && str_starts(line, STR("\xef\xbb\xbf")))
        line = str_skip(line, 3);
    reader->started = true;
    if (line.len == 0)
        return dispatch(reader, fn, arg);
    ptrdiff_t colon = str_find_char(line, ':');
    if (colon == 0)
        return 0; /* a comment */
    struct str name = colon < 0 ? line : str_head(line, (size_t)colon);
    struct str value = colon < 0 ? STR("") : str_skip(line, (size_t)colon + 1);
    if (value.len > 0 && value.ptr[0] == ' ')
        value = str_skip(value, 1);
    return take_field(reader, name, value);
}

/* Offset of the first CR or LF, or -1. One walk: two searches, one for each, would let a stream of
 * CR lines cost the square of its length. */
static ptrdiff_t line_length(struct str s) {
    for (size_t i = 0; i < s.len; i++) {
        if (is_break(s.ptr[i]))
            return (ptrdiff_t)i;
    }
    return -1;
}

/* A whole line that may have begun in earlier pieces. */
static int finish_line(struct sse_reader *reader, struct str tail, event_fn *fn, void *arg) {
    if (reader->held.len == 0)
        return take_line(reader, tail, fn, arg);
    int err = buf_add(&reader->held, tail);
    if (err == 0)
        err = take_line(reader, buf_str(&reader->held), fn, arg);
    buf_clear(&reader->held);
    return err;
}

int sse_reader_feed(struct sse_reader *reader, struct str piece, event_fn *fn, void *arg) {
    while (piece.len > 0) {
        if (reader->after_cr && piece.ptr[0] == '\n')
            piece = str_skip(piece, 1);
        reader->after_cr = false;
        ptrdiff_t len = line_length(piece);
        if (len < 0)
            return buf_add(&reader->held, piece);
        reader->after_cr = piece.ptr[len] == '\r';
        int err = finish_line(reader, str_head(piece, (size_t)len), fn, arg);
        if (err)
            return err;
        piece = str_skip(piece, (size_t)len + 1);
    }
    return 0;
}

static int add_field(struct buf *out, struct str prefix, struct str value) {
    int err = buf_reserve(out, prefix.len + value.len + 1);
    if (err == 0)
        err = buf_add(out, prefix);
    if (err == 0)
        err = buf_add(out, value);
    return err ? err : buf_append(out, "\n", 1);
}

/* Length of the line break at `at`: 0, 1, or 2 for CRLF. */
static size_t break_length(struct str s, size_t at) {
    if (at >= s.len)
        return 0;
    return s.ptr[at] == '\r' && at + 1 < s.len && s.ptr[at + 1] == '\n' ? 2 : 1;
}

int sse_write(struct buf *out, struct str event, struct str data) {
    int err = event.len ? add_field(out, STR("event: "), event) : 0;
    for (bool more = true; more && err == 0;) {
        ptrdiff_t len = line_length(data);
        more = len >= 0;
        struct str line = more ? str_head(data, (size_t)len) : data;
        data = str_skip(data, line.len + break_length(data, line.len));
        err = add_field(out, STR("data: "), line);
    }
    return err ? err : buf_append(out, "\n", 1);
}
