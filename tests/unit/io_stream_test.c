#include "io/stream.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/buf.h"
#include "loop_fixture.h"

/* One end is a stream of the loop, the other a plain socket. */
struct end {
    struct stream stream;
    struct buf got;
    int ended; /* 1: not yet */
    int events;
    bool closed;
};

static struct end *end_of(struct stream *stream) {
    return container_of(stream, struct end, stream);
}

static void on_data(struct stream *stream, const char *ptr, size_t len) {
    struct end *end = end_of(stream);
    end->events++;
    assert_int_equal(buf_append(&end->got, ptr, len), 0);
}

static void on_end(struct stream *stream, int error) {
    assert_int_equal(end_of(stream)->ended, 1);
    end_of(stream)->ended = error;
}

static void on_closed_here(struct stream *stream) {
    struct end *end = end_of(stream);
    assert_false(end->closed);
    end->closed = true;
    buf_free(&end->got);
}

static const struct stream_events events = {
    .data = on_data, .end = on_end, .closed = on_closed_here};

static void end_init(struct end *end) {
    *end = (struct end){.ended = 1, .got = buf_make(64 << 20)};
}

/* A connected TCP pair; returns the plain side. */
static int open_pair(struct end *end) {
    uint16_t port;
    int listening = raw_listen(1, &port), plain = raw_connect(port);
    int fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    close(listening);
    end_init(end);
    assert_int_equal(stream_open(&end->stream, fd, &events), 0);
    return plain;
}

static void close_and_wait(struct end *end) {
    stream_close(&end->stream);
    stream_close(&end->stream);
    assert_false(stream_open_now(&end->stream));
    await(end->closed);
}

static struct iovec part(const void *ptr, size_t len) {
    return (struct iovec){.iov_base = (void *)ptr, .iov_len = len};
}

/* --- bytes both ways -------------------------------------------------------------------------- */

static void body_echo(void) {
    struct end end;
    char text[32];
    int plain = open_pair(&end);
    stream_resume(&end.stream);
    assert_int_equal(write(plain, "hello", 5), 5);
    await(end.got.len == 5);
    struct iovec parts[3] = {part("<", 1), part(end.got.ptr, end.got.len), part(">", 1)};
    assert_int_equal(stream_write(&end.stream, parts, 3, DEADLINE_NEVER), 0);
    assert_int_equal(raw_read(plain, text, sizeof text, 5000), 7);
    assert_memory_equal(text, "<hello>", 7);
    close(plain);
    await(end.ended != 1);
    assert_int_equal(end.ended, 0);
    close_and_wait(&end);
}

static void test_echo(void **state) {
    (void)state;
    on_loops(1, body_echo);
}

static void body_pause(void) {
    struct end end;
    int plain = open_pair(&end);
    assert_int_equal(write(plain, "one", 3), 3);
    (void)fiber_sleep(20);
    assert_int_equal(end.events, 0); /* nothing before the first resume */
    stream_resume(&end.stream);
    stream_resume(&end.stream);
    await(end.got.len == 3);
    stream_pause(&end.stream);
    stream_pause(&end.stream);
    assert_int_equal(write(plain, "two", 3), 3);
    close(plain);
    (void)fiber_sleep(20);
    assert_int_equal(end.got.len, 3);
    assert_int_equal(end.ended, 1);
    stream_resume(&end.stream);
    await(end.ended == 0);
    assert_int_equal(end.got.len, 6);
    stream_resume(&end.stream); /* of no effect any more */
    close_and_wait(&end);
}

static void test_pause_and_resume(void **state) {
    (void)state;
    on_loops(1, body_pause);
}

static void body_ends(void) {
    struct end end;
    char byte;
    int plain = open_pair(&end);
    stream_abort(&end.stream); /* the peer sees a reset */
    await(end.closed);
    assert_int_equal(raw_read(plain, &byte, 1, 5000), -2);
    close(plain);
    plain = open_pair(&end);
    close_and_wait(&end); /* an orderly end */
    assert_int_equal(raw_read(plain, &byte, 1, 5000), 0);
    close(plain);
    plain = open_pair(&end);
    stream_resume(&end.stream);
    struct linger linger = {.l_onoff = 1};
    assert_int_equal(setsockopt(plain, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
    close(plain);
    await(end.ended != 1);
    assert_int_equal(end.ended, -ECONNRESET);
    close_and_wait(&end);
}

static void test_ends_and_resets(void **state) {
    (void)state;
    on_loops(1, body_ends);
}

static void body_bad_descriptor(void) {
    struct end end;
    end_init(&end);
    assert_int_equal(stream_open(&end.stream, 1 << 30, &events), -EBADF);
    assert_false(stream_open_now(&end.stream));
    await(end.closed); /* the owner gets its memory back */
}

static void test_open_fails(void **state) {
    (void)state;
    on_loops(1, body_bad_descriptor);
}

/* --- back pressure ---------------------------------------------------------------------------- */

#define LARGE (12 << 20)

static char pattern(size_t at) { return (char)(at * 131 + (at >> 11)); }

static char *large_new(void) {
    char *bytes = mem_alloc(LARGE);
    for (size_t i = 0; i < LARGE; i++)
        bytes[i] = pattern(i);
    return bytes;
}

/* Reads `skip` foreign bytes, then the pattern to the end; says whether all was right. */
struct reading {
    int fd;
    size_t want;
    _Atomic bool right;
};

static void slow_reader(void *arg) {
    struct reading *reading = arg;
    static char chunk[40000];
    size_t at = 0;
    bool right = true;
    ssize_t count;
    while (at < reading->want && (count = raw_read(reading->fd, chunk, sizeof chunk, 20000)) > 0) {
        for (ssize_t i = 0; i < count; i++)
            right = right && chunk[i] == pattern(at + (size_t)i);
        at += (size_t)count;
        if (at % 7 == 0)
            usleep(500);
    }
    atomic_store(&reading->right, right && at == reading->want);
}

static void body_back_pressure(void) {
    struct end end;
    struct script script;
    char *bytes = large_new();
    int plain = open_pair(&end);
    struct reading reading = {.fd = plain, .want = LARGE};
    script_start(&script, slow_reader, &reading);
    struct iovec parts[4] = {part(bytes, 1), part(bytes + 1, 0), part(bytes + 1, LARGE - 101),
                             part(bytes + LARGE - 100, 100)};
    assert_int_equal(stream_write(&end.stream, parts, 4, deadline_in(60000)), 0);
    script_join(&script);
    assert_true(atomic_load(&reading.right));
    close_and_wait(&end);
    close(plain);
    mem_free(bytes);
}

static void test_back_pressure(void **state) {
    (void)state;
    on_loops(1, body_back_pressure);
}

/* Fills the socket until nothing more fits; how much went in. */
static size_t fill(struct end *end) {
    static const char zeros[65536];
    struct iovec one = part(zeros, sizeof zeros);
    size_t total = 0;
    for (int quiet = 0; quiet < 20;) {
        ssize_t count = stream_try_write(&end->stream, &one, 1);
        assert_true(count >= 0);
        total += (size_t)count;
        quiet = count > 0 ? 0 : quiet + 1;
        if (count == 0)
            (void)fiber_sleep(1);
    }
    return total;
}

static void drain(int fd, size_t total) {
    static char sink[65536];
    while (total > 0) {
        ssize_t count = raw_read(fd, sink, total < sizeof sink ? total : sizeof sink, 20000);
        assert_true(count > 0);
        total -= (size_t)count;
    }
}

/* A piece in the loop's read buffer is overwritten by the next read; the write that is under way must have
 * taken it out of there. */
static struct end full, noisy;
static int write_rc;
static bool writer_over;

static void volatile_writer(void *arg) {
    (void)arg;
    char *piece = loop_read_buffer() + 100;
    memcpy(piece, "first,second", 12);
    struct iovec parts[3] = {part(piece, 6), part("third,", 6), part(piece + 6, 6)};
    write_rc = stream_write(&full.stream, parts, 3, deadline_in(20000));
    writer_over = true;
}

static void body_read_buffer(void) {
    char text[32], noise[8192];
    int plain = open_pair(&full), other = open_pair(&noisy);
    stream_resume(&noisy.stream);
    size_t filled = fill(&full);
    fiber_spawn(volatile_writer, NULL);
    turns(2);
    assert_false(writer_over);
    memset(noise, 'n', sizeof noise);
    assert_int_equal(write(other, noise, sizeof noise), sizeof noise);
    await(noisy.got.len == sizeof noise);
    assert_int_equal(loop_read_buffer()[100], 'n');
    for (size_t left = filled; left > 0;) { /* the loop must turn meanwhile */
        size_t step = left < 65536 ? left : 65536;
        drain(plain, step);
        left -= step;
        turns(1);
    }
    await(writer_over);
    assert_int_equal(write_rc, 0);
    assert_int_equal(raw_read(plain, text, sizeof text, 5000), 18);
    assert_memory_equal(text, "first,third,second", 18);
    close_and_wait(&full);
    close_and_wait(&noisy);
    close(plain);
    close(other);
}

static void test_pieces_of_the_read_buffer(void **state) {
    (void)state;
    on_loops(1, body_read_buffer);
}

/* --- writes that do not end well: the memory is the caller's again at once --------------------- */

static struct fiber *writer;
static deadline_ms write_by;

static void doomed_writer(void *arg) {
    (void)arg;
    char *bytes = large_new();
    struct iovec one = part(bytes, LARGE);
    writer = fiber_self();
    write_rc = stream_write(&full.stream, &one, 1, write_by);
    memset(bytes, 0, LARGE);
    mem_free(bytes);
    writer = NULL;
}

static int start_doomed(deadline_ms deadline) {
    int plain = open_pair(&full);
    write_rc = 1;
    write_by = deadline;
    fiber_spawn(doomed_writer, NULL);
    turns(2);
    assert_int_equal(write_rc, 1);
    return plain;
}

static void end_doomed(int plain, int rc) {
    await(writer == NULL);
    assert_int_equal(write_rc, rc);
    assert_false(stream_open_now(&full.stream));
    await(full.closed);
    close(plain);
}

static void body_doomed(void) {
    int plain = start_doomed(DEADLINE_NEVER);
    fiber_cancel(writer);
    fiber_cancel(writer);
    end_doomed(plain, -ECANCELED);
    plain = start_doomed(clock_ms() + 30);
    end_doomed(plain, -ETIMEDOUT);
    plain = start_doomed(DEADLINE_NEVER);
    stream_write_cut(&full.stream);
    stream_write_cut(&full.stream);
    end_doomed(plain, -EPIPE);
    plain = start_doomed(DEADLINE_NEVER);
    stream_close(&full.stream); /* by somebody else */
    await(writer == NULL);
    assert_true(write_rc < 0);
    end_doomed(plain, write_rc);
    plain = start_doomed(DEADLINE_NEVER);
    close(dup(plain));
    struct linger linger = {.l_onoff = 1};
    assert_int_equal(setsockopt(plain, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
    close(plain); /* the peer resets */
    await(writer == NULL);
    assert_true(write_rc == -ECONNRESET || write_rc == -EPIPE);
    await(full.closed);
    struct iovec one = part("x", 1);
    assert_int_equal(stream_write(&full.stream, &one, 1, DEADLINE_NEVER), -EPIPE); /* closed */
    stream_write_cut(&full.stream);
}

static void test_writes_that_fail(void **state) {
    (void)state;
    on_loops(1, body_doomed);
}

/* Cancelled at every turn of a write and of a connect, through to the end. */
static int countdown;
static struct message tick;

static void on_tick(struct message *message) {
    if (writer == NULL)
        return;
    if (countdown-- == 0)
        fiber_cancel(writer);
    else
        loop_post(loop_here(), message);
}

static void body_cancel_everywhere(void) {
    for (int turn = 0;; turn++) {
        struct script script;
        int plain = open_pair(&full);
        struct reading reading = {.fd = plain, .want = LARGE};
        write_rc = 1;
        write_by = DEADLINE_NEVER;
        countdown = turn;
        script_start(&script, slow_reader, &reading);
        fiber_spawn(doomed_writer, NULL);
        tick.run = on_tick;
        turns(1);
        loop_post(loop_here(), &tick);
        await(writer == NULL);
        bool whole = write_rc == 0;
        assert_true(whole || write_rc == -ECANCELED);
        close_and_wait(&full);
        script_join(&script);
        assert_int_equal(atomic_load(&reading.right), whole);
        close(plain);
        if (whole || turn > 40)
            return;
    }
}

static void test_cancel_at_every_turn_of_a_write(void **state) {
    (void)state;
    on_loops(1, body_cancel_everywhere);
}

/* --- connecting ------------------------------------------------------------------------------- */

static int dial(struct end *end, uint16_t port, deadline_ms deadline) {
    struct sockaddr_in address = local_address(port);
    end_init(end);
    return stream_connect(&end->stream, (struct sockaddr *)&address, &events, deadline);
}

static void body_connect(void) {
    struct end end;
    union peer_address peer;
    char text[64], byte;
    uint16_t port;
    int listening = raw_listen(1, &port);
    assert_int_equal(dial(&end, port, deadline_in(10000)), 0);
    stream_peer(&end.stream, &peer);
    peer_address_text(&peer, text, sizeof text);
    char wanted[64];
    snprintf(wanted, sizeof wanted, "127.0.0.1:%u", port);
    assert_string_equal(text, wanted);
    int fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC), on = 0;
    socklen_t length = sizeof on;
    uv_os_fd_t own;
    assert_int_equal(uv_fileno(&end.stream.handle, &own), 0);
    assert_int_equal(getsockopt(own, IPPROTO_TCP, TCP_NODELAY, &on, &length), 0);
    assert_int_equal(on, 1);
    assert_int_equal(getsockopt(own, SOL_SOCKET, SO_KEEPALIVE, &on, &length), 0);
    assert_int_equal(on, 1);
    close_and_wait(&end);
    assert_int_equal(raw_read(fd, &byte, 1, 5000), 0);
    close(fd);
    close(listening);
    assert_int_equal(dial(&end, port, deadline_in(10000)), -ECONNREFUSED);
    assert_false(stream_open_now(&end.stream));
    await(end.closed);
}

static void test_connect(void **state) {
    (void)state;
    on_loops(1, body_connect);
}

/* A listener whose queue is full does not answer any more. */
static int deaf_listen(uint16_t *port, int *queued) {
    int listening = raw_listen(0, port);
    for (int i = 0; i < 2; i++) {
        struct sockaddr_in address = local_address(*port);
        queued[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        (void)connect(queued[i], (struct sockaddr *)&address, sizeof address);
    }
    return listening;
}

static uint16_t deaf_port;

static void doomed_dialer(void *arg) {
    (void)arg;
    writer = fiber_self();
    write_rc = dial(&full, deaf_port, write_by);
    writer = NULL;
}

static void body_connect_fails(void) {
    int queued[2], listening = deaf_listen(&deaf_port, queued);
    int64_t start = clock_ms();
    assert_int_equal(dial(&full, deaf_port, deadline_in(50)), -ETIMEDOUT);
    assert_true(clock_ms() - start >= 50);
    await(full.closed);
    for (int turn = 0; turn < 4; turn++) {
        write_by = DEADLINE_NEVER;
        fiber_spawn(doomed_dialer, NULL);
        turns(turn + 1);
        fiber_cancel(writer);
        await(writer == NULL);
        assert_int_equal(write_rc, -ECANCELED);
        await(full.closed);
    }
    write_by = clock_ms() - 5; /* past before it began */
    fiber_spawn(doomed_dialer, NULL);
    await(write_rc == -ETIMEDOUT);
    await(full.closed);
    close(queued[0]);
    close(queued[1]);
    close(listening);
}

static void test_connect_that_gets_no_answer(void **state) {
    (void)state;
    on_loops(1, body_connect_fails);
}

static void body_cancelled_before(void) {
    uint16_t port;
    int listening = raw_listen(1, &port);
    fiber_cancel(fiber_self());
    assert_int_equal(dial(&full, port, DEADLINE_NEVER), -ECANCELED);
    while (!full.closed)
        turns(1);
    close(listening);
}

static void test_connect_of_a_cancelled_fiber(void **state) {
    (void)state;
    on_loops(1, body_cancelled_before);
}

static void test_address_texts(void **state) {
    (void)state;
    char text[64];
    union peer_address address = {.six = {.sin6_family = AF_INET6,
                                          .sin6_port = htons(8),
                                          .sin6_addr = IN6ADDR_LOOPBACK_INIT}};
    peer_address_text(&address, text, sizeof text);
    assert_string_equal(text, "[::1]:8");
    address.any.sa_family = AF_UNSPEC;
    peer_address_text(&address, text, sizeof text);
    assert_string_equal(text, "-");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_echo),
        cmocka_unit_test(test_pause_and_resume),
        cmocka_unit_test(test_ends_and_resets),
        cmocka_unit_test(test_open_fails),
        cmocka_unit_test(test_back_pressure),
        cmocka_unit_test(test_pieces_of_the_read_buffer),
        cmocka_unit_test(test_writes_that_fail),
        cmocka_unit_test(test_cancel_at_every_turn_of_a_write),
        cmocka_unit_test(test_connect),
        cmocka_unit_test(test_connect_that_gets_no_answer),
        cmocka_unit_test(test_connect_of_a_cancelled_fiber),
        cmocka_unit_test(test_address_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
