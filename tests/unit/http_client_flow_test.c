/* The HTTP client: back pressure, the pool, cancellation at every turn. */
#include "proto/http_call.c"
#include "proto/http_client.c"
#include "proto/http_peer.c"

#include "io/resolver.c"

#include "http_client_fixture.h"

/* --- a caller that is slow: at most so much is held --------------------------------------------------------- */

#define STREAM (6 << 20)

static char stream_byte(size_t at) { return (char)(at * 7 + (at >> 10)); }

static void script_fast(void) {
    static char block[50000];
    char head[16];
    worker_accept();
    assert_true(worker_request());
    worker_say(CHUNKS);
    for (size_t at = 0; at < STREAM;) {
        size_t size = 1 + (at * 31) % (sizeof block - 1);
        size = size < STREAM - at ? size : STREAM - at;
        for (size_t i = 0; i < size; i++)
            block[i] = stream_byte(at + i);
        snprintf(head, sizeof head, "%zx\r\n", size);
        worker_say(head);
        wire_send(&worker, block, size);
        worker_say("\r\n");
        at += size;
    }
    worker_say("0\r\n\r\n");
}

static void check_piece(struct str piece, size_t at) {
    for (size_t i = 0; i < piece.len; i++)
        if (piece.ptr[i] != stream_byte(at + i))
            fail_msg("wrong byte at %zu", at + i);
}

static void body_slow_caller(void) {
    struct arena *arena = arena_new();
    struct http_call_request request = ask("GET");
    struct http_call *one;
    struct str piece;
    size_t at = 0;
    int rc;
    worker_start(script_fast);
    assert_int_equal(http_call_start(arena, peer, &request, &one), 0);
    for (int i = 0; (rc = http_call_read(one, &piece, 0)) == 1; i++) {
        if (i % 7 == 3) { /* parks elsewhere: what is lent stays while more comes in */
            struct str kept = arena_dup(arena, piece); /* the contract: a fresh piece may go now */
            (void)fiber_sleep(2);
            check_piece(kept, at);
        } else {
            check_piece(piece, at);
        }
        at += piece.len;
        assert_true(one->conn->held[0].len + one->conn->held[1].len <= 4 * HOLD_MAX);
    }
    assert_int_equal(rc, 0);
    assert_int_equal(at, STREAM);
    assert_true(http_call_ready(one));
    http_call_finish(one);
    arena_free(arena);
    assert_int_equal(peer_here(peer)->count, 1);
    worker_end();
}

static void test_slow_caller(void **state) {
    (void)state;
    on_loops(1, body_slow_caller);
}

/* Relayed piece by piece to a client that is slower than the worker: nothing is torn, although pieces lie in the
 * read buffer that all connections share. */
struct client_end {
    struct stream stream;
    bool closed;
};

static void client_data(struct stream *stream, const char *ptr, size_t len) {
    (void)stream;
    (void)ptr;
    (void)len;
}
static void client_end_event(struct stream *stream, int error) {
    (void)stream;
    (void)error;
}
static void client_closed(struct stream *stream) {
    container_of(stream, struct client_end, stream)->closed = true;
}
static const struct stream_events client_events = {
    .data = client_data, .end = client_end_event, .closed = client_closed};

static int slow_fd;
static _Atomic size_t slow_right;

static void slow_client(void *arg) {
    (void)arg;
    static char block[30000];
    size_t at = 0;
    ssize_t count;
    while ((count = raw_read(slow_fd, block, sizeof block, 20000)) > 0) {
        check_piece(str_make(block, (size_t)count), at);
        at += (size_t)count;
        usleep(1000);
    }
    atomic_store(&slow_right, at);
}

static void body_relay(void) {
    static struct client_end client;
    struct script reader;
    struct arena *arena = arena_new();
    struct http_call_request request = ask("GET");
    struct http_call *one;
    struct str piece;
    int pair[2], rc, small = 8192;
    worker_start(script_fast);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
    assert_int_equal(stream_open(&client.stream, pair[0], &client_events), 0);
    slow_fd = pair[1];
    script_start(&reader, slow_client, NULL);
    assert_int_equal(http_call_start(arena, peer, &request, &one), 0);
    while ((rc = http_call_read(one, &piece, 0)) == 1) {
        struct iovec parts[1] = {{(void *)piece.ptr, piece.len}};
        assert_int_equal(stream_write(&client.stream, parts, 1, deadline_in(20000)), 0);
    }
    assert_int_equal(rc, 0);
    http_call_finish(one);
    stream_close(&client.stream);
    await(client.closed);
    script_join(&reader);
    assert_int_equal(atomic_load(&slow_right), STREAM);
    close(slow_fd);
    arena_free(arena);
    worker_end();
}

static void test_relay_to_a_slow_client(void **state) {
    (void)state;
    on_loops(1, body_relay);
}

/* --- the pool of idle connections ----------------------------------------------------------------------------- */

static _Atomic int served;
static unsigned crowd_delay_us;
static void worker_serve_one(void *arg) {
    static const char answer[] = SIZED("1") "1";
    int fd = *(int *)arg;
    char bytes[4096];
    ssize_t count;
    while ((count = raw_read(fd, bytes, sizeof bytes, 20000)) > 0) {
        assert_memory_equal(bytes + count - 4, "\r\n\r\n", 4);
        usleep(crowd_delay_us); /* so that several calls are open at once */
        (void)send(fd, answer, sizeof answer - 1, MSG_NOSIGNAL);
        atomic_fetch_add(&served, 1);
    }
    close(fd);
}

/* A thread for each connection; as many as the test says. */
static int crowd_size;
static void script_crowd(void) {
    static struct script threads[32];
    static int fds[32];
    for (int i = 0; i < crowd_size; i++) {
        fds[i] = accept4(worker_listening, NULL, NULL, SOCK_CLOEXEC);
        atomic_fetch_add(&worker_accepted, 1);
        threads[i] = (struct script){.main = worker_serve_one, .arg = &fds[i]};
        assert_int_equal(pthread_create(&threads[i].thread, NULL, script_thread, &threads[i]), 0);
    }
    for (int i = 0; i < crowd_size; i++)
        pthread_join(threads[i].thread, NULL);
}

static int fine_calls;
static void caller_main(void *arg) {
    (void)arg;
    struct result *result = mem_alloc(sizeof *result);
    struct http_call_request request = ask("GET");
    call(&request, result);
    fine_calls += result->start == 0 && result->read == 0;
    mem_free(result);
}

static FIBER_FN void calls_together(int count) {
    struct fiber_group group;
    fiber_group_init(&group);
    fine_calls = 0;
    for (int i = 0; i < count; i++)
        fiber_group_spawn(&group, caller_main, NULL);
    assert_int_equal(fiber_group_join(&group), 0);
}

static void body_pool(void) {
    crowd_size = 10;
    crowd_delay_us = 100000;
    worker_start(script_crowd);
    calls_together(10);
    assert_int_equal(fine_calls, 10);
    assert_int_equal(atomic_load(&worker_accepted), 10);
    assert_int_equal(peer_here(peer)->count, 4); /* max_idle; the others are closed */
    await(atomic_load(&limits.open) == 4);
    struct upstream *newest = container_of(peer_here(peer)->idle.next, struct upstream, of_peer);
    struct upstream *oldest = container_of(peer_here(peer)->idle.prev, struct upstream, of_peer);
    assert_ptr_not_equal(newest, oldest);
    call_simple("GET");
    check_fine(200, "1", true);
    assert_ptr_equal(container_of(peer_here(peer)->idle.next, struct upstream, of_peer), newest);
    http_client_limits(6, 0); /* over two loops: four here */
    call_simple("GET");
    assert_int_equal(idle_here()->count, 4);
    http_client_limits(2, 0); /* two here: the oldest go, one with each that comes back */
    call_simple("GET");
    call_simple("GET");
    assert_true(idle_here()->count < 4);
    http_client_limits(4096, 0);
    worker_end();
}

static void test_idle_pool(void **state) {
    (void)state;
    on_loops(1, body_pool);
}

static void body_idle_time(void) {
    crowd_size = 2;
    worker_start(script_crowd);
    http_peer_unref(peer);
    peer_options.idle_ms = 50;
    peer = http_peer_new(&peer_options);
    call_simple("GET");
    check_fine(200, "1", false);
    call_simple("GET");
    check_fine(200, "1", true);
    await(peer_here(peer)->count == 0); /* closed after its time */
    await(atomic_load(&limits.open) == 0);
    call_simple("GET");
    check_fine(200, "1", false);
    worker_end();
}

static void test_idle_time(void **state) {
    (void)state;
    on_loops(1, body_idle_time);
}

static void body_max_open(void) {
    crowd_size = 3;
    http_client_limits(4096, 3);
    worker_start(script_crowd);
    calls_together(12); /* the others wait for a place */
    assert_int_equal(fine_calls, 12);
    assert_int_equal(atomic_load(&worker_accepted), 3);
    crowd_delay_us = 500000;
    struct fiber_group group;
    fiber_group_init(&group);
    for (int i = 0; i < 3; i++) /* all places taken for half a second */
        fiber_group_spawn(&group, caller_main, NULL);
    turns(1);
    struct http_peer *patient = peer;
    peer_options.connect_ms = 5;
    peer = http_peer_new(&peer_options);
    struct http_peer *impatient = peer;
    for (int i = 0; i < 4; i++) {
        call_simple("GET"); /* refused as what it is: no fault of the worker */
        assert_int_equal(got.failure, HTTP_NO_CONNECTION);
    }
    peer = patient;
    assert_int_equal(fiber_group_join(&group), 0);
    http_peer_unref(impatient);
    http_client_limits(4096, 0);
    worker_end();
}

static void test_max_open(void **state) {
    (void)state;
    on_loops(1, body_max_open);
}

/* --- cancelled anywhere: the memory is the caller's at once, and nothing stays behind --------------------------- */

static struct fiber *victim;
static int victim_rc, countdown;
static bool victim_over;
static struct message tick;

static void on_tick(struct message *message) {
    if (victim == NULL)
        return;
    if (countdown-- == 0)
        fiber_cancel(victim);
    else
        loop_post(loop_here(), message);
}

static void victim_main(void *arg) {
    struct arena *arena = arena_new();
    struct http_call_request *request = mem_alloc(sizeof *request);
    struct http_call *one;
    struct str piece, part = str_make(huge, 3 << 20);
    victim = fiber_self();
    *request = ask("POST");
    request->body = &part;
    request->body_parts = 1;
    victim_rc = http_call_start(arena, peer, request, &one);
    memset(request, 0xee, sizeof *request); /* not looked at any more */
    mem_free(request);
    while (victim_rc >= 0 && (victim_rc = http_call_read(one, &piece, 0)) == 1)
        if (fiber_yield() < 0)
            victim_rc = -ECANCELED;
    if (arg == NULL)
        http_call_finish(one); /* else the arena does */
    arena_free(arena);
    victim = NULL;
    victim_over = true;
}

static _Atomic bool crowd_over;
static void script_victims(void) {
    static const char answer[] = CHUNKS "3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n";
    for (;;) {
        worker_accept();
        while (worker_request()) {
            if (atomic_load(&crowd_over)) {
                wire_close(&worker);
                return;
            }
            for (size_t i = 0; i < sizeof answer - 1; i += 9) {
                size_t left = sizeof answer - 1 - i;
                if (send(worker.fd, answer + i, left < 9 ? left : 9, MSG_NOSIGNAL) < 0)
                    break;
                usleep(500);
            }
        }
        wire_close(&worker);
    }
}

static bool victim_run(int turn, void *arg) {
    countdown = turn;
    tick.run = on_tick;
    victim_over = false;
    fiber_spawn(victim_main, arg);
    (void)fiber_yield();
    loop_post(loop_here(), &tick);
    await(victim_over);
    turns(2);
    if (victim_rc != 0 && victim_rc != -ECANCELED)
        fail_msg("cancelled at turn %d: %d", turn, victim_rc);
    return victim_rc == 0;
}

static void body_cancelled(void) {
    huge = mem_zalloc(3 << 20);
    worker_start(script_victims);
    for (int turn = 0, whole = 0; whole < 6 && turn < 300; turn++)
        whole += victim_run(turn, turn % 2 ? &victim : NULL);
    atomic_store(&crowd_over, true);
    call_simple("GET");
    worker_end();
    mem_free(huge);
}

static void test_cancelled_at_every_turn(void **state) {
    (void)state;
    on_loops(1, body_cancelled);
}

static void script_gone(void) {
    worker_accept();
    assert_false(worker_request());
}

static void cancelled_main(void *arg) {
    (void)arg;
    fiber_cancel(fiber_self());
    call_simple("GET");
}

static void body_cancelled_before(void) {
    struct fiber_group group;
    worker_start(script_gone);
    fiber_group_init(&group);
    fiber_group_spawn(&group, cancelled_main, NULL);
    assert_int_equal(fiber_group_join(&group), 0);
    assert_int_equal(got.start, -ECANCELED);
    assert_int_equal(got.failure, HTTP_CANCELLED);
    worker_end();
}

static void test_cancelled_before(void **state) {
    (void)state;
    on_loops(1, body_cancelled_before);
}

/* --- in one piece --------------------------------------------------------------------------------------------------- */

static void script_fetch(void) {
    worker_accept();
    assert_true(worker_request());
    assert_int_equal(request_body_len, 4);
    worker_say("HTTP/1.1 404 Not Found\r\nContent-Length: 7\r\n\r\nnothing");
    assert_true(worker_request());
    worker_say(SIZED("7") "toolong");
    int how = 1;
    while (wire_more(&worker, 20000, &how))
        continue;
    wire_close(&worker);
}

static void body_fetch(void) {
    struct arena *arena = arena_new();
    struct http_fetch fetch = {.method = STR("POST"),
                               .target = STR("/f"),
                               .body = STR("body"),
                               .has_body = true,
                               .max_body = 7,
                               .deadline = deadline_in(20000)};
    struct str body, why = STR_NONE;
    worker_start(script_fetch);
    assert_int_equal(http_fetch(arena, peer, &fetch, &body, &why), 404);
    assert_true(str_eq(body, STR("nothing")));
    fetch.max_body = 6;
    fetch.body = STR_NONE;
    assert_int_equal(http_fetch(arena, peer, &fetch, &body, &why), -EMSGSIZE);
    assert_true(str_eq(why, STR("answer too large")));
    worker_end();
    arena_free(arena);
}

static void test_fetch(void **state) {
    (void)state;
    on_loops(1, body_fetch);
}

/* One fiber starts a call, another one reads it. */
static struct http_call *shared_call;
static struct str shared_piece;

static void other_reader(void *arg) {
    *(int *)arg = http_call_read(shared_call, &shared_piece, 0);
    if (*(int *)arg == 1)
        shared_piece = arena_dup(shared_call->arena, shared_piece);
}

static void script_other(void) {
    worker_accept();
    assert_true(worker_request());
    worker_say(SIZED("3"));
    usleep(30000);
    worker_say("abc");
}

static void starter_main(void *arg) {
    struct http_call_request request = ask("GET");
    *(int *)arg = http_call_start(arena_new(), peer, &request, &shared_call);
}

/* Has the stack of the fiber that is gone. */
static void bystander(void *arg) {
    (void)arg;
    (void)fiber_sleep(200);
}

static void body_other(void) {
    struct fiber_group group;
    int rc = 1;
    worker_start(script_other);
    fiber_group_init(&group);
    fiber_group_spawn(&group, starter_main, &rc);
    assert_int_equal(fiber_group_join(&group), 0); /* the fiber that started it is gone */
    assert_int_equal(rc, 0);
    fiber_spawn(bystander, NULL);
    fiber_group_spawn(&group, other_reader, &rc);
    int64_t start = clock_ms();
    assert_int_equal(fiber_group_join(&group), 0);
    assert_true(clock_ms() - start < 10000); /* woken by the bytes, not by its deadline */
    assert_int_equal(rc, 1);
    assert_true(str_eq(shared_piece, STR("abc")));
    struct arena *arena = shared_call->arena;
    http_call_finish(shared_call);
    arena_free(arena);
    worker_end();
}

static void test_read_by_another_fiber(void **state) {
    (void)state;
    on_loops(1, body_other);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slow_caller),
        cmocka_unit_test(test_relay_to_a_slow_client),
        cmocka_unit_test(test_idle_pool),
        cmocka_unit_test(test_idle_time),
        cmocka_unit_test(test_max_open),
        cmocka_unit_test(test_cancelled_at_every_turn),
        cmocka_unit_test(test_cancelled_before),
        cmocka_unit_test(test_fetch),
        cmocka_unit_test(test_read_by_another_fiber),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
