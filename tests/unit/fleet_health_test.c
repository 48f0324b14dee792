#include "fleet/health_state.c"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const struct health_limits limits = {
    .failure_threshold = 3, .success_threshold = 2, .interval_ms = 60000, .timeout_ms = 5000};

/* Feeds a string of results: 'g' good, 'b' bad, 'e' excused. The last state. */
static enum worker_status feed(struct health_machine *machine, const char *results) {
    enum worker_status state = machine->state;
    for (; *results; results++) {
        enum probe_result result = *results == 'g'   ? PROBE_GOOD
                                   : *results == 'b' ? PROBE_BAD
                                                     : PROBE_EXCUSED;
        state = health_step(machine, &limits, result);
        assert_int_equal(state, machine->state);
    }
    return state;
}

static void follows_the_table(void **state) {
    (void)state;
    static const struct {
        enum worker_status from;
        const char *results;
        enum worker_status to;
    } cases[] = {
        {WORKER_PENDING, "g", WORKER_PENDING},
        {WORKER_PENDING, "gg", WORKER_READY},
        {WORKER_PENDING, "gbg", WORKER_PENDING},
        {WORKER_PENDING, "gbgg", WORKER_READY},
        {WORKER_PENDING, "bbbbbbbbbbbbbbbbbbbbbbbbbbbbb", WORKER_PENDING},
        {WORKER_PENDING, "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", WORKER_FAILED},
        {WORKER_PENDING, "gbgbgbgbgbgbgbgbgbgbgbgbgbgbgb", WORKER_FAILED},
        {WORKER_READY, "bb", WORKER_READY},
        {WORKER_READY, "bbb", WORKER_NOT_READY},
        {WORKER_READY, "bbgbb", WORKER_READY},
        {WORKER_READY, "bbgbbb", WORKER_NOT_READY},
        {WORKER_READY, "ggggggggggggggggggg", WORKER_READY},
        {WORKER_NOT_READY, "g", WORKER_NOT_READY},
        {WORKER_NOT_READY, "gg", WORKER_READY},
        {WORKER_NOT_READY, "gbg", WORKER_NOT_READY},
        {WORKER_NOT_READY, "bbbbbbbb", WORKER_NOT_READY},
        {WORKER_NOT_READY, "bbbbbbbbb", WORKER_FAILED},
        {WORKER_NOT_READY, "bbbbbbbbgbbbbbbbb", WORKER_NOT_READY},
        {WORKER_FAILED, "bbbbbbbbbbbbbbbbbbbb", WORKER_FAILED},
        {WORKER_FAILED, "bbbg", WORKER_FAILED},
        {WORKER_FAILED, "bbbgbg", WORKER_FAILED},
        {WORKER_FAILED, "bbbgg", WORKER_READY},
        {WORKER_DRAINING, "bbbbbbgggggg", WORKER_DRAINING},
        /* from ready to failed: 3 + 9 */
        {WORKER_READY, "bbbbbbbbbbb", WORKER_NOT_READY},
        {WORKER_READY, "bbbbbbbbbbbb", WORKER_FAILED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct health_machine machine = {.state = cases[i].from};
        if (feed(&machine, cases[i].results) != cases[i].to)
            fail_msg("case %zu: %s from %s ends in %s", i, cases[i].results,
                     worker_status_name(cases[i].from), worker_status_name(machine.state));
    }
}

static void a_fresh_one_is_pending(void **state) {
    (void)state;
    struct health_machine machine = {0};
    assert_int_equal(machine.state, WORKER_PENDING);
    machine = health_machine_ready();
    assert_int_equal(machine.state, WORKER_READY);
}

static void excused_probes_count_as_neither(void **state) {
    (void)state;
    struct health_machine machine = {.state = WORKER_READY};
    assert_int_equal(feed(&machine, "bbeeeeebb"), WORKER_READY);
    assert_int_equal(feed(&machine, "b"), WORKER_NOT_READY);
    assert_int_equal(feed(&machine, "geg"), WORKER_READY); /* nor do they end a good row */
}

static void failed_ones_are_probed_ever_more_rarely(void **state) {
    (void)state;
    struct health_machine machine = {.state = WORKER_FAILED};
    assert_int_equal(health_pause_ms(&machine, &limits), 60000);
    feed(&machine, "b");
    assert_int_equal(health_pause_ms(&machine, &limits), 120000);
    feed(&machine, "b");
    assert_int_equal(health_pause_ms(&machine, &limits), 240000);
    feed(&machine, "b");
    assert_int_equal(health_pause_ms(&machine, &limits), 300000);
    for (int i = 0; i < 100; i++)
        feed(&machine, "b");
    assert_int_equal(health_pause_ms(&machine, &limits), 300000);
    feed(&machine, "g"); /* the way back is walked at the normal pace */
    assert_int_equal(health_pause_ms(&machine, &limits), 60000);
}

static void long_intervals_are_kept(void **state) {
    (void)state;
    struct health_limits slow = limits;
    slow.interval_ms = 900000;
    struct health_machine machine = {.state = WORKER_FAILED, .failures = 7};
    assert_int_equal(health_pause_ms(&machine, &slow), 900000);
    machine.state = WORKER_NOT_READY;
    assert_int_equal(health_pause_ms(&machine, &slow), 900000);
}

static void huge_thresholds_do_not_wrap(void **state) {
    (void)state;
    struct health_limits huge = limits;
    huge.failure_threshold = UINT32_MAX;
    struct health_machine machine = {.state = WORKER_NOT_READY, .failures = UINT32_MAX - 1};
    assert_int_equal(health_step(&machine, &huge, PROBE_BAD), WORKER_NOT_READY);
    assert_int_equal(health_step(&machine, &huge, PROBE_BAD), WORKER_NOT_READY);
    assert_int_equal(machine.failures, UINT32_MAX);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_the_table),
        cmocka_unit_test(a_fresh_one_is_pending),
        cmocka_unit_test(excused_probes_count_as_neither),
        cmocka_unit_test(failed_ones_are_probed_ever_more_rarely),
        cmocka_unit_test(long_intervals_are_kept),
        cmocka_unit_test(huge_thresholds_do_not_wrap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
