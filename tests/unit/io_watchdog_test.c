#include "io/watchdog.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "loop_fixture.h"

static uint64_t stalls_of(unsigned loop) { return atomic_load(&loop_stats(loop_at(loop))->stalls); }

/* Busy, not asleep: the signal must be able to interrupt plain code. */
static int hog(void *arg) {
    int64_t until = clock_ms() + *(int *)arg;
    while (clock_ms() < until)
        continue;
    return 0;
}

static void body_stall(void) {
    int ms = 400;
    assert_int_equal(loop_call(loop_at(1), hog, &ms), 0);
    await(stalls_of(1) == 1); /* one report for one stall */
    assert_true(atomic_load(&trace.count) > 0);
    assert_int_equal(stalls_of(2), 0);
    (void)fiber_sleep(150);
    assert_int_equal(stalls_of(1), 1);
    assert_int_equal(loop_call(loop_at(1), hog, &ms), 0);
    await(stalls_of(1) == 2);
}

static void test_a_stalled_loop_is_seen(void **state) {
    (void)state;
    on_loops(2, body_stall);
}

/* A loop that only waits is not stalled, however long. */
static void body_idle(void) {
    (void)fiber_sleep(350);
    assert_int_equal(stalls_of(1), 0);
    int ms = 5;
    for (int i = 0; i < 30; i++)
        assert_int_equal(loop_call(loop_at(1), hog, &ms), 0); /* much work in many turns */
    assert_int_equal(stalls_of(1), 0);
}

static void test_waiting_is_no_stall(void **state) {
    (void)state;
    on_loops(2, body_idle);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_stalled_loop_is_seen),
        cmocka_unit_test(test_waiting_is_no_stall),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
