#include "io/loop.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <time.h>

#include <cmocka.h>

#include "loop_fixture.h"

/* --- messages from several threads: none is lost, and each thread's stay in order ------------- */

#define POSTERS 4
#define POSTS 20000

struct numbered {
    struct message message;
    int poster, number;
};

static int last_seen[POSTERS], out_of_order, seen_total;
static _Atomic bool all_seen;

static void on_numbered(struct message *message) {
    struct numbered *numbered = container_of(message, struct numbered, message);
    assert_ptr_equal(loop_here(), loop_at(1));
    if (numbered->number != ++last_seen[numbered->poster])
        out_of_order++;
    mem_free(numbered);
    if (++seen_total == POSTERS * POSTS)
        atomic_store(&all_seen, true);
}

static void *poster_main(void *arg) {
    for (int i = 1; i <= POSTS; i++) {
        struct numbered *numbered = mem_alloc(sizeof *numbered);
        *numbered = (struct numbered){
            .message.run = on_numbered, .poster = (int)(intptr_t)arg, .number = i};
        loop_post(loop_at(1), &numbered->message);
        if (i % 1000 == 0)
            (void)nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL); /* lets it fall asleep */
    }
    return NULL;
}

static void body_messages(void) {
    pthread_t threads[POSTERS];
    for (int i = 0; i < POSTERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, poster_main, (void *)(intptr_t)i), 0);
    await(atomic_load(&all_seen));
    for (int i = 0; i < POSTERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(out_of_order, 0);
    assert_int_equal(seen_total, POSTERS * POSTS);
}

static void test_messages_stay_in_order(void **state) {
    (void)state;
    on_loops(2, body_messages);
}

/* --- calls ----------------------------------------------------------------------------------- */

static int where(void *arg) {
    unsigned *index = arg;
    *index = loop_index(loop_here());
    assert_true(fiber_running());
    assert_int_equal(fiber_sleep(2), 0); /* it may park there */
    return 100 + (int)*index;
}

static void body_calls(void) {
    for (unsigned i = 0; i < loops_count(); i++) {
        unsigned index = 99;
        assert_int_equal(loop_call(loop_at(i), where, &index), 100 + (int)i);
        assert_int_equal(index, i);
    }
}

static void test_loop_call(void **state) {
    (void)state;
    on_loops(3, body_calls);
}

/* Deaf to cancellation: the callee still writes to the caller's stack. */
static struct fiber *caller;
static int call_result;

static int slow(void *arg) {
    (void)fiber_sleep(30);
    *(int *)arg = 7;
    return 5;
}

static void caller_main(void *arg) {
    int value = 0;
    caller = fiber_self();
    int rc = loop_call(arg, slow, &value);
    call_result = rc == 5 && value == 7 && fiber_cancelled(caller);
    caller = NULL;
}

static void body_call_cancelled(void) {
    fiber_spawn(caller_main, loop_at(1));
    turns(2);
    fiber_cancel(caller);
    turns(2);
    assert_non_null(caller);
    await(caller == NULL);
    assert_int_equal(call_result, 1);
}

static void test_loop_call_waits_for_its_callee(void **state) {
    (void)state;
    on_loops(1, body_call_cancelled);
}

/* Loops that call each other at the same time do not block each other. */
static _Atomic int calls_done;

static int nothing(void *arg) {
    (void)arg;
    return 0;
}

static void cross_main(void *arg) {
    (void)arg;
    for (int i = 0; i < 300; i++)
        for (unsigned k = 0; k < loops_count(); k++)
            assert_int_equal(loop_call(loop_at(k), nothing, NULL), 0);
    atomic_fetch_add(&calls_done, 1);
}

static void body_cross(void) {
    for (unsigned i = 0; i < loops_count(); i++)
        loop_spawn(loop_at(i), cross_main, NULL);
    await(atomic_load(&calls_done) == (int)loops_count());
}

static void test_loops_that_call_each_other(void **state) {
    (void)state;
    on_loops(3, body_cross);
}

/* --- figures, locals, stopping --------------------------------------------------------------- */

static void body_stats(void) {
    struct loop_stats *stats = loop_stats(loop_control());
    uint64_t turned = atomic_load(&stats->turns);
    turns(5);
    assert_true(atomic_load(&stats->turns) >= turned + 4);
    assert_true(atomic_load(&stats->fibers) >= 1);
    assert_true(atomic_load(&stats->turn_started_ms) > 0); /* at work, as this line shows */
    stats = loop_stats(loop_at(1));
    await(atomic_load(&stats->turn_started_ms) == 0); /* idle */
}

static void test_stats(void **state) {
    (void)state;
    on_loops(1, body_stats);
}

static void set_up(void *arg) {
    assert_false(fiber_running());
    atomic_fetch_or((_Atomic unsigned *)arg, 1u << loop_index(loop_here()));
}

static void ready_main(void *arg) {
    await(atomic_load((_Atomic unsigned *)arg) == 6);
    loops_stop();
    loops_stop(); /* once is enough */
}

static void set_up_main(void *arg) {
    (void)arg;
    static _Atomic unsigned seen;
    assert_int_equal(loops_start(0, NULL, NULL), -EINVAL);
    assert_int_equal(loops_start(LOOPS_MAX, NULL, NULL), -EINVAL);
    assert_int_equal(loops_start(2, set_up, &seen), 0);
    assert_int_equal(loops_count(), 3);
    fiber_spawn(ready_main, &seen);
    loops_run();
}

static void test_set_up_runs_on_each_data_loop(void **state) {
    (void)state;
    in_child(set_up_main, NULL);
}

/* A fiber that cannot be cancelled is given up after two seconds: the process ends all the same. */
static void deaf_main(void *arg) {
    (void)arg;
    for (;;)
        fiber_park_hard();
}

static void deaf_child(void *arg) {
    (void)arg;
    assert_int_equal(loops_start(1, NULL, NULL), 0);
    loop_spawn(loop_at(1), deaf_main, NULL);
    static _Atomic unsigned ready = 6;
    fiber_spawn(ready_main, &ready);
    int64_t start = clock_ms();
    loops_run();
    assert_true(clock_ms() - start >= 1900);
    assert_true(clock_ms() - start < 20000);
}

static void test_a_fiber_that_does_not_end(void **state) {
    (void)state;
    in_child(deaf_child, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages_stay_in_order),
        cmocka_unit_test(test_loop_call),
        cmocka_unit_test(test_loop_call_waits_for_its_callee),
        cmocka_unit_test(test_loops_that_call_each_other),
        cmocka_unit_test(test_stats),
        cmocka_unit_test(test_set_up_runs_on_each_data_loop),
        cmocka_unit_test(test_a_fiber_that_does_not_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
