#include "io/offload.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "loop_fixture.h"

static int square(void *arg) {
    int *value = arg;
    assert_null(loop_here()); /* a thread that has no loop */
    *value *= *value;
    return *value + 1;
}

static void body_works(void) {
    assert_int_equal(offload_start(2, 10), 0);
    for (int i = 0; i < 50; i++) {
        int value = i;
        assert_int_equal(offload(square, &value), i * i + 1);
        assert_int_equal(value, i * i);
    }
    offload_stop();
}

static void test_runs_on_another_thread(void **state) {
    (void)state;
    on_loops(1, body_works);
}

/* --- the queue has an end --------------------------------------------------------------------- */

static _Atomic bool gate;
static _Atomic int started;
static int finished, refused;

static int until_gate(void *arg) {
    (void)arg;
    atomic_fetch_add(&started, 1);
    while (!atomic_load(&gate))
        (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    return 3;
}

static void job_main(void *arg) {
    (void)arg;
    int rc = offload(until_gate, NULL);
    finished += rc == 3;
    refused += rc == -EBUSY;
}

static void body_full(void) {
    assert_int_equal(offload_start(2, 5), 0);
    struct fiber_group group;
    fiber_group_init(&group);
    for (int i = 0; i < 2; i++)
        fiber_group_spawn(&group, job_main, NULL);
    await(atomic_load(&started) == 2); /* both threads are busy; five more fit */
    for (int i = 0; i < 9; i++)
        fiber_group_spawn(&group, job_main, NULL);
    turns(2);
    assert_int_equal(refused, 4);
    atomic_store(&gate, true);
    assert_int_equal(fiber_group_join(&group), 0);
    assert_int_equal(finished, 7);
    int value = 3;
    assert_int_equal(offload(square, &value), 10); /* room again */
    offload_stop();
    assert_int_equal(offload(square, &value), -EBUSY);
}

static void test_queue_full(void **state) {
    (void)state;
    on_loops(1, body_full);
}

static void body_not_started(void) {
    int value = 3;
    assert_int_equal(offload(square, &value), -EBUSY);
    assert_int_equal(value, 3);
}

static void test_without_a_pool(void **state) {
    (void)state;
    on_loops(1, body_not_started);
}

/* --- the fiber waits for the job, whatever happens -------------------------------------------- */

static struct fiber *worker;
static int kept;

static int write_late(void *arg) {
    (void)nanosleep(&(struct timespec){.tv_nsec = 40000000}, NULL);
    *(int *)arg = 9;
    return 0;
}

static void deaf_main(void *arg) {
    (void)arg;
    int value = 0; /* the pool thread writes here */
    worker = fiber_self();
    int rc = offload(write_late, &value);
    kept = rc == 0 && value == 9 && fiber_cancelled(worker);
    worker = NULL;
}

static void body_deaf(void) {
    assert_int_equal(offload_start(1, 5), 0);
    fiber_spawn(deaf_main, NULL);
    turns(3);
    fiber_cancel(worker);
    fiber_wake(worker); /* a stray wake is none */
    turns(3);
    assert_non_null(worker);
    await(worker == NULL);
    assert_int_equal(kept, 1);
    offload_stop();
}

static void test_deaf_to_cancellation(void **state) {
    (void)state;
    on_loops(1, body_deaf);
}

/* From several loops at once; each gets its own answers back on its own loop. */
static _Atomic int loops_done;

static void loop_main(void *arg) {
    (void)arg;
    struct loop *home = loop_here();
    for (int i = 0; i < 200; i++) {
        int value = i;
        assert_int_equal(offload(square, &value), i * i + 1);
        assert_ptr_equal(loop_here(), home);
    }
    atomic_fetch_add(&loops_done, 1);
}

static void body_loops(void) {
    assert_int_equal(offload_start(2, 100), 0);
    for (unsigned i = 0; i < loops_count(); i++)
        loop_spawn(loop_at(i), loop_main, NULL);
    await(atomic_load(&loops_done) == (int)loops_count());
    offload_stop();
}

static void test_from_all_loops(void **state) {
    (void)state;
    on_loops(3, body_loops);
}

/* Stopping finishes what is queued. */
static void stopper(void *arg) {
    (void)arg;
    offload_stop();
}

static void body_stop(void) {
    struct fiber_group group;
    struct script script;
    assert_int_equal(offload_start(1, 10), 0);
    fiber_group_init(&group);
    for (int i = 0; i < 6; i++)
        fiber_group_spawn(&group, job_main, NULL);
    await(atomic_load(&started) == 1);
    script_start(&script, stopper, NULL);
    atomic_store(&gate, true);
    assert_int_equal(fiber_group_join(&group), 0);
    assert_int_equal(finished, 6);
    script_join(&script);
}

static void test_stop_finishes_the_queue(void **state) {
    (void)state;
    on_loops(1, body_stop);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runs_on_another_thread),
        cmocka_unit_test(test_queue_full),
        cmocka_unit_test(test_without_a_pool),
        cmocka_unit_test(test_deaf_to_cancellation),
        cmocka_unit_test(test_from_all_loops),
        cmocka_unit_test(test_stop_finishes_the_queue),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
