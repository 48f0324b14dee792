/* Server-sent events. The border scanner finds where events end without touching the bytes; the reader
 * splits a stream into events; the writer makes them. */
#pragma once

#include "base/buf.h"

/* Finds blank lines over pieces of a stream. Zero it before the first piece. */
struct sse_border {
    unsigned char state;
};
/* Feeds a piece; the number of its leading bytes up to and including the last event border, 0 if none
 * ends in it. CR, LF and CRLF line ends; an LF that completes the CRLF of a border belongs to that
 * border, though it comes in a later piece. */
size_t sse_border_feed(struct sse_border *border, struct str piece);
/* True when all that was fed so far ends at a border (or nothing was fed). */
bool sse_at_border(const struct sse_border *border);

struct sse_event {
    struct str event; /* empty: "message" */
    struct str data;  /* lines joined by \n */
    struct str id;    /* last one seen in the stream */
};
struct sse_reader {
    struct buf held; /* the unfinished line */
    struct buf data, name, id;
    bool has_data, after_cr, started;
};
/* `max_event` bounds each line and the data of an event, in bytes. */
void sse_reader_init(struct sse_reader *reader, size_t max_event);
void sse_reader_free(struct sse_reader *reader);
/* Feeds bytes and calls back for each complete event that has data; 0, -EMSGSIZE (event over max), or
 * what the callback returned when not 0. After either of these the reader is to be freed. The event's
 * bytes are gone when the callback returns. */
int sse_reader_feed(struct sse_reader *reader, struct str piece,
                    int (*fn)(void *arg, const struct sse_event *event), void *arg) MUST_CHECK;
/* Appends "event: E\n" (if any) and "data: ..." lines and the blank line. */
int sse_write(struct buf *out, struct str event, struct str data) MUST_CHECK;
