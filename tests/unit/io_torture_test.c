/* Everything that lends memory of a fiber to somebody else, cancelled and woken without cause at every turn of its
 * way. A fiber may leave a park only when its memory is its own again: what it lent lies on its stack (out
 * of bounds for AddressSanitizer as soon as the fiber is gone) or on the heap, freed at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "loop_fixture.h"

#include <errno.h>

#include "base/map.h"
#include "io/offload.h"
#include "io/process.h"
#include "io/resolver.h"
#include "io/stream.h"
#include "io/sync.h"

/* --- ends for streams -------------------------------------------------------------------------- */

struct end {
    struct stream stream;
    size_t got;
    bool closed;
};

static struct end *end_of(struct stream *stream) {
    return container_of(stream, struct end, stream);
}
static void on_data(struct stream *stream, const char *ptr, size_t len) {
    (void)ptr;
    end_of(stream)->got += len;
}
static void on_end(struct stream *stream, int error) {
    (void)error;
    stream_close(stream);
}
static void on_closed(struct stream *stream) { end_of(stream)->closed = true; }
static const struct stream_events events = {.data = on_data, .end = on_end, .closed = on_closed};

static struct end left, right;
static int listening;
static uint16_t port;

/* --- the operations: 0, or -ECANCELED -------------------------------------------------------------- */

static FIBER_FN int try_sleep(void) { return fiber_sleep(3); }

static FIBER_FN int try_yield(void) {
    for (int i = 0; i < 5; i++)
        if (fiber_yield() < 0)
            return -ECANCELED;
    return 0;
}

static int write_there(void *arg) {
    usleep(2000);
    *(int *)arg = 11;
    return 5;
}

static FIBER_FN int try_offload(void) {
    int *value = mem_alloc(sizeof *value); /* lent to a thread */
    *value = 0;
    int rc = offload(write_there, value);
    assert_true(rc == 5 && *value == 11); /* deaf: it waits in any case */
    mem_free(value);
    return fiber_cancelled(fiber_self()) ? -ECANCELED : 0;
}

static FIBER_FN int write_over_there(void *arg) {
    (void)fiber_sleep(2);
    return write_there(arg);
}

static FIBER_FN int try_loop_call(void) {
    int *value = mem_alloc(sizeof *value);
    *value = 0;
    int rc = loop_call(loop_at(1), write_over_there, value);
    assert_true(rc == 5 && *value == 11);
    mem_free(value);
    return fiber_cancelled(fiber_self()) ? -ECANCELED : 0;
}

static struct semaphore sem;
static void giver(void *arg) {
    (void)arg;
    turns(3);
    semaphore_give(&sem);
}

static FIBER_FN int try_semaphore(void) {
    fiber_spawn(giver, NULL);
    return semaphore_take(&sem, DEADLINE_NEVER);
}

static struct channel channel;
static void receiver(void *arg) {
    (void)arg;
    void *item;
    turns(3);
    (void)channel_receive(&channel, &item, clock_ms());
}

static FIBER_FN int try_send(void) {
    fiber_spawn(receiver, NULL);
    while (channel_try_send(&channel, &channel) == 0)
        continue;
    return channel_send(&channel, &sem, DEADLINE_NEVER);
}

static void sender(void *arg) {
    (void)arg;
    turns(3);
    (void)channel_try_send(&channel, &sem);
}

static FIBER_FN int try_receive(void) {
    void *item = NULL;
    while (channel.len > 0 && channel_receive(&channel, &item, DEADLINE_NEVER) == 0)
        continue;
    fiber_spawn(sender, NULL);
    int rc = channel_receive(&channel, &item, DEADLINE_NEVER);
    assert_true(rc < 0 || item == &sem);
    return rc;
}

/* "localhost" in another spelling each time, so that it is not in the cache, but needs no name server. */
static FIBER_FN int try_resolve(void) {
    static unsigned spelling;
    struct sockaddr_storage *out = mem_alloc(sizeof *out);
    char name[] = "localhost";
    spelling++;
    for (int i = 0; name[i] != '\0'; i++)
        if (spelling >> i & 1)
            name[i] -= 'a' - 'A';
    int rc = resolver_lookup(str_from(name), 1, DEADLINE_NEVER, out);
    mem_free(out);
    return rc;
}

static FIBER_FN int try_connect(void) {
    struct sockaddr_in address = local_address(port);
    int rc = stream_connect(&left.stream, (struct sockaddr *)&address, &events, DEADLINE_NEVER);
    int fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0)
        close(fd);
    return rc;
}

#define LARGE (1 << 20)

static FIBER_FN int try_write(void) {
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    assert_int_equal(stream_open(&left.stream, pair[0], &events), 0);
    assert_int_equal(stream_open(&right.stream, pair[1], &events), 0);
    stream_resume(&right.stream);
    char *bytes = mem_zalloc(LARGE), few[16] = "on the stack";
    struct iovec parts[3] = {{few, sizeof few}, {bytes, LARGE}, {few, sizeof few}};
    int rc = stream_write(&left.stream, parts, 3, DEADLINE_NEVER);
    memset(bytes, 0xee, LARGE);
    mem_free(bytes);
    return rc;
}

static FIBER_FN int try_process(void) {
    static const char *const argv[] = {"sh", "-c", "sleep 0.01; exit 0", NULL};
    struct process_options options = {.argv = argv, .quiet = true};
    struct process *process;
    assert_int_equal(process_start(&options, &process), 0);
    int rc = process_wait(process, DEADLINE_NEVER), again = rc;
    while (again < 0) { /* it must be waited for all the same: by a fiber that nobody cancels */
        turns(1);
        again = process_wait(process, DEADLINE_NEVER);
    }
    process_free(process);
    return rc;
}

static void child(void *arg) {
    int *count = arg;
    int value = 0;
    (void)offload(write_there, &value);
    if (fiber_sleep(2) == 0 && fiber_yield() == 0)
        (*count)++;
}

static FIBER_FN int try_group(void) {
    struct fiber_group group;
    int *count = mem_zalloc(sizeof *count);
    fiber_group_init(&group);
    for (int i = 0; i < 3; i++)
        fiber_group_spawn(&group, child, count);
    int rc = fiber_group_join(&group);
    assert_true(rc < 0 || *count == 3);
    mem_free(count);
    return rc;
}

static FIBER_FN int try_park(void) {
    int rc = 0;
    deadline_ms until = deadline_in(5);
    while (rc == 0)
        rc = fiber_park(until);
    return rc == -ETIMEDOUT ? 0 : rc;
}

static const struct {
    const char *name;
    int (*run)(void);
} operations[] = {
    {"park", try_park},       {"sleep", try_sleep},     {"yield", try_yield},
    {"offload", try_offload}, {"call", try_loop_call},  {"semaphore", try_semaphore},
    {"send", try_send},       {"receive", try_receive}, {"resolve", try_resolve},
    {"connect", try_connect}, {"write", try_write},     {"process", try_process},
    {"group", try_group},
};
#define OPERATIONS (sizeof operations / sizeof *operations)

/* --- the tormentor -------------------------------------------------------------------------------- */

static struct {
    struct fiber *fiber;
    int (*run)(void);
    int rc;
    bool over;
} victim;

static void victim_main(void *arg) {
    (void)arg;
    victim.fiber = fiber_self();
    victim.rc = victim.run();
    victim.fiber = NULL;
    victim.over = true;
}

static struct message tick;
static int countdown;
static bool poke;

static void on_tick(struct message *message) {
    if (victim.over)
        return;
    if (poke)
        fiber_wake(victim.fiber); /* without any cause */
    if (!victim.over && countdown-- == 0)
        fiber_cancel(victim.fiber);
    if (!victim.over)
        loop_post(loop_here(), message);
}

static void ends_close(void) {
    if (left.stream.events != NULL) {
        stream_close(&left.stream);
        await(left.closed);
    }
    if (right.stream.events != NULL) {
        stream_close(&right.stream);
        await(right.closed);
    }
    memset(&left, 0, sizeof left);
    memset(&right, 0, sizeof right);
}

static int torment(int (*run)(void), int turn) {
    victim.run = run;
    victim.over = false;
    victim.rc = 1;
    countdown = turn;
    semaphore_init(&sem, 0);
    channel_init(&channel, 2);
    fiber_spawn(victim_main, NULL);
    (void)fiber_yield();
    tick.run = on_tick;
    loop_post(loop_here(), &tick);
    int64_t give_up = clock_ms() + AWAIT_MS;
    while (!victim.over) {
        (void)fiber_sleep(1);
        if (clock_ms() > give_up)
            return 1;
    }
    turns(8); /* whoever still wants to write, does it now */
    ends_close();
    channel_free(&channel);
    return victim.rc;
}

/* Turn after turn, until the operation comes to its end before it is cancelled. */
static void torment_all(bool with_pokes) {
    poke = with_pokes;
    for (size_t i = 0; i < OPERATIONS; i++) {
        int rc = -ECANCELED, turn = 0;
        for (; turn < 2000 && rc == -ECANCELED; turn += turn < 30 ? 1 : turn / 4) {
            rc = torment(operations[i].run, turn);
            if (rc != 0 && rc != -ECANCELED)
                fail_msg("%s, cancelled at turn %d: %d", operations[i].name, turn, rc);
        }
        for (int again = 0; again < 3; again++)
            if ((rc = torment(operations[i].run, 1 << 30)) != 0)
                fail_msg("%s, not cancelled: %d", operations[i].name, rc);
    }
}

static FIBER_FN void around(bool with_pokes) {
    assert_int_equal(offload_start(2, 100), 0);
    listening = raw_listen(50, &port);
    assert_int_equal(fcntl(listening, F_SETFL, O_NONBLOCK), 0);
    torment_all(with_pokes);
    close(listening);
    offload_stop();
    assert_int_equal(fiber_stats_here().alive, 1); /* this one */
}

static void body_cancelled(void) { around(false); }
static void body_poked(void) { around(true); }

static void test_cancelled_at_every_turn(void **state) {
    (void)state;
    on_loops(1, body_cancelled);
}

static void test_woken_and_cancelled_at_every_turn(void **state) {
    (void)state;
    on_loops(1, body_poked);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cancelled_at_every_turn),
        cmocka_unit_test(test_woken_and_cancelled_at_every_turn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
