#include "io/timer.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "loop_fixture.h"

/* --- the wheel by itself, against a plain list of deadlines ----------------------------------- */

/* timer_set puts into the wheel of the calling thread's loop: here a loop made of nothing else. The test
 * runs on a loop of its own thread, whose wheel is wound back to a time of ours. */

#define TIMERS 3000

struct probe {
    struct timer timer;
    int64_t fired; /* at which time; 0: not yet */
    int fires;
};

static struct probe probes[TIMERS];
static int64_t now;

static void on_fire(struct timer *timer) {
    struct probe *probe = container_of(timer, struct probe, timer);
    assert_false(list_linked(&timer->link));
    probe->fired = now;
    probe->fires++;
}

static uint64_t noise(void) {
    static uint64_t x = 88172645463325252u;
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    return x;
}

static void arm(struct probe *probe, int64_t expires) {
    *probe = (struct probe){.timer.fire = on_fire};
    timer_set(&probe->timer, expires);
}

/* Moves on to the next time the wheel asks for, as a loop does. False when it asks for none. */
static bool step(struct wheel *wheel) {
    int64_t left = wheel_next(wheel, now);
    if (left < 0)
        return false;
    now += left > 0 ? left : 1;
    wheel_advance(wheel, now);
    return true;
}

static void body_long_deadlines(void) {
    struct wheel *wheel = loop_wheel();
    now = 1000000;
    wheel_init(wheel, now);
    for (int i = 0; i < TIMERS; i++)
        arm(&probes[i], now + (int64_t)(noise() % 20000)); /* five rounds */
    while (step(wheel))
        continue;
    for (int i = 0; i < TIMERS; i++) {
        assert_int_equal(probes[i].fires, 1);
        assert_true(probes[i].fired >= probes[i].timer.expires);
        assert_true(probes[i].fired <= probes[i].timer.expires + 2 * WHEEL_TICK_MS);
    }
    wheel_init(wheel, clock_ms());
}

static void test_deadlines_over_several_rounds(void **state) {
    (void)state;
    on_loops(1, body_long_deadlines);
}

/* The wheel has slept for long (no timer was set), and then one is. */
static void body_after_a_long_sleep(void) {
    struct wheel *wheel = loop_wheel();
    struct probe probe;
    for (int64_t slept = 1; slept < 10000000; slept *= 3) {
        now = 1000000;
        wheel_init(wheel, now);
        now += slept;
        arm(&probe, now + 5000);
        int steps = 0;
        while (probe.fires == 0 && step(wheel))
            steps++;
        assert_int_equal(probe.fires, 1);
        assert_true(probe.fired >= probe.timer.expires);
        assert_true(probe.fired <= probe.timer.expires + 2 * WHEEL_TICK_MS);
        assert_true(steps < 10);
    }
    wheel_init(wheel, clock_ms());
}

static void test_after_a_long_sleep(void **state) {
    (void)state;
    on_loops(1, body_after_a_long_sleep);
}

/* The loop was held up: everything due fires at once, the rest stays. */
static void body_late(void) {
    struct wheel *wheel = loop_wheel();
    now = 1000000;
    wheel_init(wheel, now);
    for (int i = 0; i < TIMERS; i++)
        arm(&probes[i], now + i * 10);
    now += 15000;
    wheel_advance(wheel, now);
    for (int i = 0; i < TIMERS; i++)
        assert_int_equal(probes[i].fires, i * 10 <= 15000);
    while (step(wheel))
        continue;
    for (int i = 0; i < TIMERS; i++)
        assert_int_equal(probes[i].fires, 1);
    wheel_init(wheel, clock_ms());
}

static void test_a_late_loop(void **state) {
    (void)state;
    on_loops(1, body_late);
}

static void body_clear_and_set_again(void) {
    struct wheel *wheel = loop_wheel();
    struct probe probe;
    now = 1000000;
    wheel_init(wheel, now);
    arm(&probe, now + 100);
    timer_set(&probe.timer, now + 8000);
    timer_set(&probe.timer, now + 40);
    timer_clear(&probe.timer);
    timer_clear(&probe.timer);
    while (step(wheel))
        continue;
    assert_int_equal(probe.fires, 0);
    timer_set(&probe.timer, now + 40);
    timer_set(&probe.timer, DEADLINE_NEVER);
    assert_false(list_linked(&probe.timer.link));
    timer_set(&probe.timer, now - 5000); /* long past: fires at the next tick */
    assert_true(step(wheel));
    assert_true(step(wheel) || probe.fires == 1);
    assert_int_equal(probe.fires, 1);
    wheel_init(wheel, clock_ms());
}

static void test_clear_and_set_again(void **state) {
    (void)state;
    on_loops(1, body_clear_and_set_again);
}

/* --- callbacks that change the wheel --------------------------------------------------------- */

static struct probe victims[8];

static void on_fire_clear_others(struct timer *timer) {
    on_fire(timer);
    for (int i = 0; i < 8; i++)
        if (&victims[i].timer != timer)
            timer_clear(&victims[i].timer);
}

static void on_fire_again(struct timer *timer) {
    on_fire(timer);
    if (container_of(timer, struct probe, timer)->fires < 50)
        timer_set(timer, now);
}

static void body_changes_inside(void) {
    struct wheel *wheel = loop_wheel();
    now = 1000000;
    wheel_init(wheel, now);
    for (int i = 0; i < 8; i++) { /* all due in one slot: the first one clears the others */
        arm(&victims[i], now + 40);
        victims[i].timer.fire = on_fire_clear_others;
    }
    while (step(wheel))
        continue;
    int fires = 0;
    for (int i = 0; i < 8; i++)
        fires += victims[i].fires;
    assert_int_equal(fires, 1);
    arm(&victims[0], now + 40); /* one that sets itself anew */
    victims[0].timer.fire = on_fire_again;
    int64_t start = now;
    while (victims[0].fires < 50 && step(wheel))
        continue;
    assert_int_equal(victims[0].fires, 50);
    assert_true(now - start <= 51 * 2 * WHEEL_TICK_MS + 40);
    wheel_init(wheel, clock_ms());
}

static void test_callbacks_that_change_the_wheel(void **state) {
    (void)state;
    on_loops(1, body_changes_inside);
}

/* --- in a real loop -------------------------------------------------------------------------- */

static void on_real_fire(struct timer *timer) {
    now = clock_ms();
    on_fire(timer);
}

static void body_real(void) {
    static struct probe early, late;
    early = (struct probe){.timer.fire = on_real_fire};
    late = (struct probe){.timer.fire = on_real_fire};
    timer_set(&late.timer, deadline_in(5000));
    timer_set(&early.timer, deadline_in(50)); /* the armed libuv timer must move up */
    await(early.fires == 1);
    assert_true(early.fired >= early.timer.expires);
    assert_true(early.fired < early.timer.expires + 1000);
    timer_clear(&late.timer);
}

static void test_in_a_loop(void **state) {
    (void)state;
    on_loops(1, body_real);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_deadlines_over_several_rounds),
        cmocka_unit_test(test_after_a_long_sleep),
        cmocka_unit_test(test_a_late_loop),
        cmocka_unit_test(test_clear_and_set_again),
        cmocka_unit_test(test_callbacks_that_change_the_wheel),
        cmocka_unit_test(test_in_a_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
