/* Clocks, deadlines, and the one time format that logs and answers use. */
#include "base/clock.c"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void monotonic_units_agree(void **state) {
    (void)state;
    int64_t ms = clock_ms(), us = clock_us(), ns = clock_ns();
    assert_true(us / 1000 >= ms && us / 1000 - ms < 10000);
    assert_true(ns / 1000 >= us && ns / 1000 - us < 10000000);
    assert_true(clock_ns() >= ns);
}

static void wall_clock_is_in_this_age(void **state) {
    (void)state;
    assert_true(clock_wall_ms() / 1000 - time(NULL) <= 1);
    assert_true(time(NULL) - clock_wall_ms() / 1000 <= 1);
}

static void deadlines(void **state) {
    (void)state;
    int64_t before = clock_ms();
    deadline_ms deadline = deadline_in(5000);
    assert_true(deadline >= before + 5000 && deadline <= clock_ms() + 5000);
    int64_t left = deadline_left(deadline);
    assert_true(left > 0 && left <= 5000);
    assert_int_equal(deadline_left(before - 1), 0);
    assert_int_equal(deadline_left(INT64_MIN), 0);
    assert_true(deadline_left(DEADLINE_NEVER) == INT64_MAX);
    assert_true(deadline_in(-1) == DEADLINE_NEVER);
    assert_true(deadline_in(INT64_MAX) == DEADLINE_NEVER);
    assert_true(deadline_in(INT64_MAX - 1) == DEADLINE_NEVER);
    assert_true(deadline_sooner(deadline, DEADLINE_NEVER) == deadline);
    assert_true(deadline_sooner(DEADLINE_NEVER, deadline) == deadline);
}

static void check_text(int64_t wall_ms, const char *want) {
    char out[25];
    clock_rfc3339(wall_ms, out, sizeof out);
    assert_string_equal(out, want);
}

static void rfc3339(void **state) {
    (void)state;
    check_text(0, "1970-01-01T00:00:00.000Z");
    check_text(1767357296789, "2026-01-02T12:34:56.789Z");
    check_text(951782400001, "2000-02-29T00:00:00.001Z");
    check_text(-1, "1969-12-31T23:59:59.999Z");
    check_text(253402300799999, "9999-12-31T23:59:59.999Z");
    check_text(INT64_MAX, "9999-12-31T23:59:59.999Z");
    check_text(INT64_MIN, "0001-01-01T00:00:00.000Z");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(monotonic_units_agree),
        cmocka_unit_test(wall_clock_is_in_this_age),
        cmocka_unit_test(deadlines),
        cmocka_unit_test(rfc3339),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
