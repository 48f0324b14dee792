/* The relay between a worker and a client that are both made up here. A piece is gone after
 * every write and every read, as it is when the fiber parks. */
#include "gateway/relay.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "gateway/routes.h"
#include "proto/json.h"

/* --- the client --- */

struct exchange {
    int status, flushes;
    struct headers headers;
    uint64_t length;
    struct buf out;
    size_t takes; /* bytes before the client leaves */
    bool begun, ended, aborted, dropped;
};

static struct exchange client;
static char piece_memory[400000]; /* what the worker's pieces lie in */
static int64_t now_ms;

static void parked(void) { memset(piece_memory, '#', sizeof piece_memory); }

static void fake_begin(struct exchange *exchange, int status, const struct headers *headers,
                       uint64_t length) {
    assert_false(exchange->begun);
    exchange->begun = true;
    exchange->status = status;
    exchange->headers = *headers;
    exchange->length = length;
}

static int fake_write(struct exchange *exchange, struct str piece) {
    assert_true(exchange->begun && !exchange->ended && !exchange->aborted);
    if (exchange->out.len + piece.len > exchange->takes)
        return -EPIPE;
    assert_int_equal(buf_add(&exchange->out, piece), 0);
    parked();
    return 0;
}

static int fake_end(struct exchange *exchange) {
    assert_true(exchange->begun && !exchange->ended && !exchange->aborted);
    exchange->ended = true;
    return 0;
}

static int fake_respond(struct exchange *exchange, int status, const struct headers *headers,
                        struct str body) {
    fake_begin(exchange, status, headers, body.len);
    int rc = fake_write(exchange, body);
    return rc < 0 ? rc : fake_end(exchange);
}

static int fake_flush(struct exchange *exchange) {
    exchange->flushes++;
    return 0;
}

static void fake_abort(struct exchange *exchange) { exchange->aborted = true; }
static void fake_drop_body(struct exchange *exchange) { exchange->dropped = true; }
static int64_t fake_now(void) { return now_ms; }

#define exchange_begin fake_begin
#define exchange_write fake_write
#define exchange_end fake_end
#define exchange_respond fake_respond
#define exchange_flush fake_flush
#define exchange_abort fake_abort
#define exchange_drop_body fake_drop_body
#define loop_now_ms fake_now
#include "gateway/relay.c"

/* --- the worker --- */

struct script {
    struct str body;
    size_t cuts[8]; /* where pieces end; ascending, 0 ends the list */
    size_t stop;    /* bytes before it ends */
    int how;        /* 0: properly, else the errno */
    int64_t takes_ms;
    size_t sent;
    bool ready;
};

static size_t piece_end(const struct script *script) {
    size_t end = script->stop - script->sent > PIECE_MAX ? script->sent + PIECE_MAX : script->stop;
    for (size_t i = 0; i < sizeof script->cuts / sizeof *script->cuts; i++)
        if (script->cuts[i] > script->sent && script->cuts[i] < end)
            end = script->cuts[i];
    return end;
}

static int script_read(struct request *request, struct reply *reply, struct str *piece) {
    struct script *script = reply->state;
    (void)request;
    parked();
    now_ms += script->takes_ms;
    if (script->sent == script->stop)
        return script->how;
    size_t end = piece_end(script);
    *piece = str_make(piece_memory, end - script->sent);
    memcpy(piece_memory, script->body.ptr + script->sent, piece->len);
    script->sent = end;
    return 1;
}

static bool script_ready(const struct reply *reply) {
    const struct script *script = reply->state;
    return script->ready;
}

static const struct backend_ops ops = {
    .name = "script", .read = script_read, .ready = script_ready};

/* --- one relay --- */

struct scene {
    struct arena *arena;
    struct request request;
    struct route route;
    struct headers theirs;
    struct reply reply;
};

static void scene_open(struct scene *scene, struct script *script, bool stream) {
    *scene = (struct scene){.arena = arena_new()};
    scene->route = (struct route){.path = STR("/v1/chat/completions")};
    scene->request = (struct request){.arena = scene->arena,
                                      .exchange = &client,
                                      .route = &scene->route,
                                      .deadline = DEADLINE_NEVER};
    headers_add(&scene->theirs, scene->arena, STR("content-type"), STR("text/plain"));
    scene->reply = (struct reply){.ops = &ops,
                                  .state = script,
                                  .status = 200,
                                  .headers = &scene->theirs,
                                  .event_stream = stream,
                                  .length = UINT64_MAX};
    script->sent = 0;
    now_ms = 0;
    buf_free(&client.out);
    client = (struct exchange){.out = buf_make(1 << 21), .takes = SIZE_MAX};
}

static void scene_close(struct scene *scene) { arena_free(scene->arena); }

static enum relay_end run(struct script *script, bool stream) {
    struct scene scene;
    scene_open(&scene, script, stream);
    enum relay_end end = relay_reply(&scene.request, &scene.reply);
    scene_close(&scene);
    return end;
}

/* --- what to expect: borders found byte by byte --- */

/* Offset of the last border among the first `len` bytes; the start counts as one. */
static size_t last_border_ref(struct str text, size_t len) {
    size_t border = 0;
    bool after_cr = false, blank = true; /* nothing yet in this line */
    for (size_t i = 0; i < len; i++) {
        char c = text.ptr[i];
        if (c == '\n' && after_cr) { /* belongs to the break before it */
            after_cr = false;
            if (border == i)
                border = i + 1;
            continue;
        }
        after_cr = c == '\r';
        if (c != '\n' && c != '\r') {
            blank = false;
        } else {
            if (blank)
                border = i + 1;
            blank = true;
        }
    }
    return border;
}

static const char error_start[] =
    "data: {\"error\":{\"type\":\"Bad Gateway\",\"code\":\"upstream_stream_broken\",\"message\":";

static void check_broken(struct str body, size_t stop, enum relay_end end) {
    struct str out = buf_str(&client.out);
    size_t border = last_border_ref(body, stop);
    assert_int_equal(end, RELAY_BROKEN);
    assert_true(client.ended && !client.aborted);
    assert_true(out.len > border);
    assert_memory_equal(out.ptr, body.ptr, border);
    struct str event = str_skip(out, border);
    assert_true(str_starts(event, str_from(error_start)));
    assert_true(str_ends(event, STR("\",\"param\":null}}\n\n")));
    assert_int_equal(str_find(event, STR("\n")), (ptrdiff_t)event.len - 2);
}

static void check_whole(struct str body, enum relay_end end) {
    assert_int_equal(end, RELAY_DONE);
    assert_true(client.ended && !client.aborted);
    if (!str_eq(buf_str(&client.out), body))
        fail_msg("%zu bytes instead of %zu, or other ones", client.out.len, body.len);
}

static const struct str streams[] = {
    STR_INIT("data: a\n\ndata: bc\n\n"),
    STR_INIT("data: a\r\n\r\nevent: x\r\ndata: b\r\n\r\n: c\r\n\r\n"),
    STR_INIT("data: a\r\rdata: b\r\r"),
    STR_INIT("\n\n\ndata: a\n\n\n\ndata: b\n\r\n\n"),
    STR_INIT("data: a\n\nno end"),
    STR_INIT("x"),
    STR_INIT(""),
};

/* Every way to cut a stream into three pieces, and every place where it may break off. */
static void every_split_and_every_break(void **state) {
    (void)state;
    for (size_t n = 0; n < sizeof streams / sizeof *streams; n++) {
        struct str body = streams[n];
        for (size_t a = 1; a <= body.len; a++) {
            for (size_t b = a; b <= body.len; b++) {
                struct script script = {.body = body, .cuts = {a, b}, .stop = body.len};
                check_whole(body, run(&script, true));
            }
            for (size_t stop = 0; stop <= body.len; stop++) {
                struct script script = {
                    .body = body, .cuts = {a}, .stop = stop, .how = -ECONNRESET};
                check_broken(body, stop, run(&script, true));
            }
        }
    }
}

/* The rest of a piece that was not sent is still right after the client made the fiber wait. */
static void tail_outlives_its_piece(void **state) {
    (void)state;
    struct str body = STR("data: 1\n\ndata: the tail of the first piece\n\ndata: 3\n\n");
    struct script script = {.body = body, .cuts = {20, 30}, .stop = body.len};
    check_whole(body, run(&script, true));
    script = (struct script){.body = body, .cuts = {20}, .stop = 20, .how = -EPROTO};
    check_broken(body, 20, run(&script, true));
}

/* --- long events --- */

#define LONG (3 * 65536)
static char long_text[LONG + 64];

static struct str long_stream(void) {
    memset(long_text, 'z', LONG);
    memcpy(long_text, "data: 1\n\ndata: ", 15);
    memcpy(long_text + LONG, "\n\ndata: 3\n\n", 11);
    return str_make(long_text, LONG + 11);
}

static void long_events_pass(void **state) {
    (void)state;
    struct str body = long_stream();
    static const size_t cuts[][8] = {
        {5, 9, 20, 65536, 65545, 70000, LONG, LONG + 1},
        {65545, 65546, 2 * 65536 + 9},
        {9, 9 + PIECE_MAX},
        {10, 10 + PIECE_MAX},
        {65545, 65545 + PIECE_MAX},
        {LONG + 2},
        {LONG + 3},
        {1},
    };
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        struct script script = {.body = body, .stop = body.len};
        memcpy(script.cuts, cuts[i], sizeof script.cuts);
        check_whole(body, run(&script, true));
    }
}

/* At most 64 KiB of an event are held; when more has gone out a break can only abort. */
static void torn_events_abort(void **state) {
    (void)state;
    struct str body = long_stream();
    for (size_t held = 65534; held <= 65538; held++) {
        size_t stop = 9 + held;
        struct script script = {.body = body, .cuts = {4, 9, 40000}, .stop = stop, .how = -EPIPE};
        enum relay_end end = run(&script, true);
        if (held <= 65536) {
            check_broken(body, stop, end);
            continue;
        }
        assert_int_equal(end, RELAY_BROKEN);
        assert_true(client.aborted && !client.ended);
        assert_true(str_eq(buf_str(&client.out), str_head(body, stop)));
    }
}

/* A border heals: what follows it is told again. */
static void border_after_a_long_event(void **state) {
    (void)state;
    struct str body = long_stream();
    struct script script = {
        .body = body, .cuts = {9, 100000, LONG + 2}, .stop = LONG + 6, .how = -ECONNRESET};
    check_broken(body, LONG + 6, run(&script, true));
    script =
        (struct script){.body = body, .cuts = {9, 100000}, .stop = LONG + 1, .how = -ECONNRESET};
    assert_int_equal(run(&script, true), RELAY_BROKEN);
    assert_true(client.aborted && !client.ended);
}

/* --- how it is told --- */

static struct str broken_as(struct scene *scene, const char *path, int how) {
    static struct script script;
    script = (struct script){.body = STR("data: 1\n\nx"), .stop = 10, .how = how};
    scene_open(scene, &script, true);
    scene->route.path = str_from(path);
    assert_int_not_equal(relay_reply(&scene->request, &scene->reply), RELAY_DONE);
    assert_true(client.ended);
    return str_skip(buf_str(&client.out), 9);
}

static yyjson_val *event_data(struct arena *arena, struct str event) {
    ptrdiff_t at = str_find(event, STR("data: "));
    assert_true(at >= 0 && str_ends(event, STR("\n\n")));
    struct str json = str_head(str_skip(event, (size_t)at + 6), event.len - (size_t)at - 8);
    yyjson_doc *doc = json_parse(arena, json, NULL);
    assert_non_null(doc);
    return yyjson_doc_get_root(doc);
}

static void error_events_of_each_api(void **state) {
    (void)state;
    struct scene scene;
    struct str event = broken_as(&scene, "/v1/messages", -ECONNRESET);
    assert_true(str_starts(event, STR("event: error\ndata: ")));
    yyjson_val *root = event_data(scene.arena, event);
    assert_true(str_eq(json_get_str(root, "type", STR("")), STR("error")));
    assert_true(str_eq(json_get_str(json_get(root, "error"), "type", STR("")), STR("api_error")));
    scene_close(&scene);

    event = broken_as(&scene, "/v1/responses", -ECONNRESET);
    assert_true(str_starts(event, STR("event: error\ndata: ")));
    root = event_data(scene.arena, event);
    assert_true(str_eq(json_get_str(root, "type", STR("")), STR("error")));
    assert_true(str_eq(json_get_str(root, "code", STR("")), STR("upstream_stream_broken")));
    scene_close(&scene);

    event = broken_as(&scene, "/generate", -ETIMEDOUT);
    root = json_get(event_data(scene.arena, event), "error");
    assert_true(str_eq(json_get_str(root, "type", STR("")), STR("Gateway Timeout")));
    assert_true(str_eq(json_get_str(root, "code", STR("")), STR("call_upstream_timeout")));
    scene_close(&scene);
}

static void deadline_ends_a_stream(void **state) {
    (void)state;
    struct scene scene;
    struct script script = {.body = STR("data: 1\n\ndata: 2\n\ndata: 3\n\n"),
                            .cuts = {9, 18},
                            .stop = 27,
                            .takes_ms = 10};
    scene_open(&scene, &script, true);
    scene.request.deadline = 15; /* no read waits for it */
    assert_int_equal(relay_reply(&scene.request, &scene.reply), RELAY_TIMED_OUT);
    assert_true(client.ended);
    assert_true(str_starts(buf_str(&client.out), STR("data: 1\n\ndata: 2\n\ndata: {\"error\"")));
    scene_close(&scene);
}

static void announced_length_aborts(void **state) {
    (void)state;
    struct scene scene;
    struct script script = {.body = STR("data: 1\n\n"), .stop = 9, .how = -ECONNRESET};
    scene_open(&scene, &script, true);
    scene.reply.length = 500;
    assert_int_equal(relay_reply(&scene.request, &scene.reply), RELAY_BROKEN);
    assert_true(client.aborted && !client.ended);
    scene_close(&scene);
}

static void head_of_a_stream(void **state) {
    (void)state;
    struct scene scene;
    struct script script = {.body = STR("data: 1\n\n"), .stop = 9};
    scene_open(&scene, &script, true);
    assert_int_equal(relay_reply(&scene.request, &scene.reply), RELAY_DONE);
    assert_int_equal(headers_count(&client.headers, STR("content-type")), 1);
    assert_true(
        str_eq(headers_get(&client.headers, STR("content-type")), STR("text/event-stream")));
    assert_int_equal(client.length, UINT64_MAX);
    assert_true(client.dropped);
    assert_true(client.flushes > 0); /* the head does not wait for the first event */
    assert_true(scene.request.outcome.streamed);
    assert_true(scene.request.outcome.first_byte_us > 0);
    scene_close(&scene);
    script.ready = true;
    assert_int_equal(run(&script, true), RELAY_DONE);
    assert_int_equal(client.flushes, 0); /* head and first event in one */
}

static void client_leaves_a_stream(void **state) {
    (void)state;
    struct scene scene;
    for (size_t takes = 0; takes < 18; takes++) {
        struct script script = {.body = STR("data: 1\n\ndata: 2\n\n"), .cuts = {9}, .stop = 18};
        scene_open(&scene, &script, true);
        client.takes = takes;
        assert_int_equal(relay_reply(&scene.request, &scene.reply), RELAY_CLIENT_GONE);
        assert_false(client.ended);
        scene_close(&scene);
    }
    struct script script = {.body = STR("data: 1\n\n"), .stop = 9, .how = -ECANCELED};
    assert_int_equal(run(&script, true), RELAY_CLIENT_GONE);
    assert_true(client.aborted && !client.ended);
}

/* --- plain answers --- */

static void plain_whole(void **state) {
    (void)state;
    struct scene scene;
    struct script script = {0};
    scene_open(&scene, &script, false);
    scene.reply.status = 404;
    scene.reply.whole = true;
    scene.reply.held = STR("no such thing");
    assert_int_equal(relay_reply(&scene.request, &scene.reply), RELAY_DONE);
    assert_int_equal(client.status, 404);
    assert_int_equal(client.length, 13);
    assert_true(str_eq(buf_str(&client.out), STR("no such thing")));
    assert_true(str_eq(headers_get(&client.headers, STR("content-type")), STR("text/plain")));
    assert_false(client.dropped || scene.request.outcome.streamed);
    scene_close(&scene);
}

static enum relay_end plain(struct script *script, uint64_t length, size_t takes) {
    struct scene scene;
    scene_open(&scene, script, false);
    scene.reply.held = STR("HELD ");
    scene.reply.length = length;
    client.takes = takes;
    enum relay_end end = relay_reply(&scene.request, &scene.reply);
    scene_close(&scene);
    return end;
}

static void plain_in_pieces(void **state) {
    (void)state;
    struct script script = {.body = STR("and the rest"), .cuts = {3, 8}, .stop = 12};
    assert_int_equal(plain(&script, 17, SIZE_MAX), RELAY_DONE);
    assert_int_equal(client.length, 17);
    assert_true(client.ended && client.dropped);
    assert_true(str_eq(buf_str(&client.out), STR("HELD and the rest")));
    assert_int_equal(plain(&script, UINT64_MAX, 6), RELAY_CLIENT_GONE);
    assert_false(client.ended);
    static const struct {
        int how;
        enum relay_end end;
    } breaks[] = {{-ECONNRESET, RELAY_BROKEN},
                  {-ETIMEDOUT, RELAY_TIMED_OUT},
                  {-ECANCELED, RELAY_CLIENT_GONE}};
    for (size_t i = 0; i < sizeof breaks / sizeof *breaks; i++) {
        script.how = breaks[i].how;
        assert_int_equal(plain(&script, 40, SIZE_MAX), breaks[i].end);
        assert_true(client.aborted && !client.ended);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_split_and_every_break),
        cmocka_unit_test(tail_outlives_its_piece),
        cmocka_unit_test(long_events_pass),
        cmocka_unit_test(torn_events_abort),
        cmocka_unit_test(border_after_a_long_event),
        cmocka_unit_test(error_events_of_each_api),
        cmocka_unit_test(deadline_ends_a_stream),
        cmocka_unit_test(announced_length_aborts),
        cmocka_unit_test(head_of_a_stream),
        cmocka_unit_test(client_leaves_a_stream),
        cmocka_unit_test(plain_whole),
        cmocka_unit_test(plain_in_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
