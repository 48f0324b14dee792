/* A cut is always preceded by a flush: the client shall see what was sent before it sees the end. */
#include "lab/mock_wire.h"

#include <errno.h>

#include "io/fiber.h"

enum { SLOW_PIECES = 16 };

static void add_type(struct mock_wire *wire, const char *content_type) {
    headers_add(&wire->headers, exchange_arena(wire->exchange), STR("content-type"),
                str_from(content_type));
}

int mock_wire_drop(struct mock_wire *wire) {
    if (str_eq(str_from(wire->faults.close_mode), STR("rst")))
        exchange_abort(wire->exchange);
    else
        exchange_cut(wire->exchange);
    return -ECONNABORTED;
}

/* What was written, the head at least, shall arrive before the end does. */
static FIBER_FN int cut(struct mock_wire *wire) {
    int err = exchange_flush(wire->exchange);
    return err ? err : mock_wire_drop(wire);
}

FIBER_FN int mock_wire_hang(struct mock_wire *wire) {
    int err = wire->begun ? exchange_flush(wire->exchange) : 0;
    while (err == 0)
        err = fiber_park(DEADLINE_NEVER);
    return err;
}

FIBER_FN int mock_wire_garbage(struct mock_wire *wire) {
    static const char noise[] = "\x16\x03\x01 this is no HTTP \x00\xff\r\n\r\n{\"text\":";
    int err = exchange_raw(wire->exchange, str_make(noise, sizeof noise - 1));
    return err ? err : mock_wire_drop(wire);
}

/* Bytes of a body, up to the cut. */
static FIBER_FN int send_body(struct mock_wire *wire, struct str bytes) {
    size_t room = mock_faults_room(&wire->faults, wire->sent, bytes.len);
    int err = room > 0 ? exchange_write(wire->exchange, str_head(bytes, room)) : 0;
    wire->sent += room;
    if (err)
        return err;
    return room < bytes.len ? cut(wire) : 0;
}

static FIBER_FN int send_slowly(struct mock_wire *wire, struct str body) {
    size_t piece = body.len / SLOW_PIECES + 1;
    int err = 0;
    for (size_t at = 0; at < body.len && err == 0; at += piece) {
        if (wire->faults.slow_body_ms > 0)
            err = fiber_sleep(wire->faults.slow_body_ms);
        if (err == 0)
            err = send_body(wire, str_head(str_skip(body, at), piece));
    }
    return err;
}

FIBER_FN int mock_wire_answer(struct mock_wire *wire, int status, const char *content_type,
                              struct str body) {
    add_type(wire, content_type);
    bool whole = mock_faults_room(&wire->faults, 0, body.len) == body.len;
    if (whole && wire->faults.slow_body_ms == 0)
        return exchange_respond(wire->exchange, status, &wire->headers, body);
    exchange_begin(wire->exchange, status, &wire->headers, body.len);
    wire->begun = true;
    int err = send_slowly(wire, body);
    return err ? err : exchange_end(wire->exchange);
}

void mock_wire_stream(struct mock_wire *wire) {
    add_type(wire, "text/event-stream");
    exchange_begin(wire->exchange, 200, &wire->headers, UINT64_MAX);
    wire->begun = true;
}

static FIBER_FN int cut_at_event(struct mock_wire *wire, struct str event) {
    int err = wire->faults.cut_inside
                  ? exchange_write(wire->exchange, str_head(event, event.len / 2))
                  : 0;
    return err ? err : cut(wire);
}

FIBER_FN int mock_wire_event(struct mock_wire *wire, struct str event) {
    int64_t before = (int64_t)wire->events++;
    if (before == wire->faults.hang_after_events)
        return mock_wire_hang(wire);
    if (wire->faults.slow_body_ms > 0) {
        int err = fiber_sleep(wire->faults.slow_body_ms);
        if (err)
            return err;
    }
    if (before == wire->faults.cut_after_events)
        return cut_at_event(wire, event);
    return send_body(wire, event);
}

FIBER_FN int mock_wire_end(struct mock_wire *wire) {
    /* A cut right behind the last event leaves out what ends the body. */
    if ((int64_t)wire->events == wire->faults.cut_after_events ||
        (int64_t)wire->sent == wire->faults.cut_after_bytes)
        return cut(wire);
    return exchange_end(wire->exchange);
}
