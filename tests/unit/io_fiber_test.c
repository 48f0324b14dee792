#include "io/fiber.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "base_resident.h"
#include "loop_fixture.h"

/* --- order: no loop is needed for this ------------------------------------------------------- */

static char trail[64];
static void mark(const char *text) {
    assert_true(strlen(trail) + strlen(text) < sizeof trail);
    strcat(trail, text);
}

static struct fiber *sleeper;

static void sleeper_main(void *arg) {
    sleeper = fiber_self();
    mark("a");
    *(int *)arg = fiber_park(DEADLINE_NEVER);
    mark("b");
    sleeper = NULL;
}

static void test_spawn_runs_at_once(void **state) {
    (void)state;
    int rc = 1;
    trail[0] = '\0';
    assert_false(fiber_running());
    fiber_spawn(sleeper_main, &rc);
    assert_string_equal(trail, "a");
    assert_int_equal(fiber_stats_here().alive, 1);
    fiber_wake(sleeper);
    assert_string_equal(trail, "ab");
    assert_int_equal(rc, 0);
    assert_null(fiber_self());
    assert_int_equal(fiber_stats_here().alive, 0);
}

static void child_main(void *arg) { mark(arg); }

static void parent_main(void *arg) {
    (void)arg;
    mark("1");
    fiber_spawn(child_main, (void *)"3");
    fiber_spawn(child_main, (void *)"4");
    mark("2");
}

static void test_spawn_from_a_fiber_waits(void **state) {
    (void)state;
    trail[0] = '\0';
    fiber_spawn(parent_main, NULL);
    assert_string_equal(trail, "1234");
}

static void twice_main(void *arg) {
    int *results = arg;
    sleeper = fiber_self();
    fiber_wake(sleeper);
    fiber_wake(sleeper); /* one is remembered */
    results[0] = fiber_park(DEADLINE_NEVER);
    results[1] = 2;
    results[1] = fiber_park(DEADLINE_NEVER);
}

static void test_one_wake_is_remembered(void **state) {
    (void)state;
    int results[2] = {1, 1};
    fiber_spawn(twice_main, results);
    assert_int_equal(results[0], 0);
    assert_int_equal(results[1], 2); /* waits */
    fiber_wake(sleeper);
    assert_int_equal(results[1], 0);
}

static void cancelled_main(void *arg) {
    int *results = arg;
    sleeper = fiber_self();
    results[0] = fiber_park(DEADLINE_NEVER);
    results[1] = fiber_park(DEADLINE_NEVER);
    results[2] = 1;
    fiber_park_hard();
    results[2] = fiber_cancelled(fiber_self());
}

static void test_cancel_is_sticky_and_hard_parks_are_deaf(void **state) {
    (void)state;
    int results[3] = {1, 1, 0};
    fiber_spawn(cancelled_main, results);
    struct fiber *fiber = sleeper;
    fiber_cancel(fiber);
    assert_int_equal(results[0], -ECANCELED);
    assert_int_equal(results[1], -ECANCELED);
    assert_int_equal(results[2], 1); /* in the hard park */
    fiber_cancel(fiber);
    assert_int_equal(fiber_stats_here().alive, 1);
    fiber_wake(fiber);
    assert_int_equal(results[2], 1);
    assert_int_equal(fiber_stats_here().alive, 0);
}

static void busy_main(void *arg) {
    int *results = arg;
    fiber_cancel(fiber_self());
    results[0] = fiber_park(DEADLINE_NEVER);
    fiber_wake(fiber_self());
    fiber_park_hard(); /* the wake that came first is enough */
    results[1] = 0;
}

static void test_cancel_and_wake_of_the_running_fiber(void **state) {
    (void)state;
    int results[2] = {1, 1};
    fiber_spawn(busy_main, results);
    assert_int_equal(results[0], -ECANCELED);
    assert_int_equal(results[1], 0);
}

/* What a fiber keeps in registers survives its parks. */
static void sums_main(void *arg) {
    double *out = arg;
    double a = out[0], b = a * 3, c = b / 7, sum = 0;
    uint64_t i = 17, j = 23, k = 42, l = 99, m = 1234567;
    sleeper = fiber_self();
    for (int round = 0; round < 3; round++) {
        (void)fiber_park(DEADLINE_NEVER);
        sum += a + b + c;
        i = i * 31 + j, j = j * 31 + k, k = k * 31 + l, l = l * 31 + m, m = m * 31 + i;
    }
    out[1] = sum;
    out[2] = (double)(i ^ j ^ k ^ l ^ m);
}

static void test_registers_survive(void **state) {
    (void)state;
    double first[3] = {1.5}, second[3] = {1.5};
    fiber_spawn(sums_main, first);
    struct fiber *one = sleeper;
    fiber_spawn(sums_main, second);
    struct fiber *two = sleeper;
    for (int round = 0; round < 3; round++) {
        fiber_wake(one);
        fiber_wake(two);
    }
    assert_true(first[1] > 0 && first[1] == second[1] && first[2] == second[2]);
    assert_true(first[1] == 3 * (1.5 + 4.5 + 4.5 / 7));
}

/* --- groups ---------------------------------------------------------------------------------- */

static void member_main(void *arg) {
    int *result = arg;
    *result = fiber_park(DEADLINE_NEVER);
}

struct family {
    struct fiber *parent;
    int members[5], joined;
};

static void family_main(void *arg) {
    struct family *family = arg;
    struct fiber_group group;
    family->parent = fiber_self();
    fiber_group_init(&group);
    for (int i = 0; i < 5; i++)
        fiber_group_spawn(&group, member_main, &family->members[i]);
    family->joined = fiber_group_join(&group);
    assert_always(group.running == 0 && list_empty(&group.members));
}

static void test_cancel_of_the_parent_cancels_the_group(void **state) {
    (void)state;
    struct family family = {.joined = 1};
    fiber_spawn(family_main, &family);
    assert_int_equal(fiber_stats_here().alive, 6);
    assert_int_equal(family.joined, 1);
    fiber_cancel(family.parent);
    assert_int_equal(family.joined, -ECANCELED);
    for (int i = 0; i < 5; i++)
        assert_int_equal(family.members[i], -ECANCELED);
    assert_int_equal(fiber_stats_here().alive, 0);
}

/* A member that ends another one while all are being cancelled. */
struct pair {
    struct fiber *other;
    int joined, first, second;
};

static void second_main(void *arg) {
    struct pair *pair = arg;
    pair->other = fiber_self();
    pair->second = fiber_park(DEADLINE_NEVER);
    pair->other = NULL;
}

static void first_main(void *arg) {
    struct pair *pair = arg;
    pair->first = fiber_park(DEADLINE_NEVER);
    if (pair->other != NULL)
        fiber_wake(pair->other);
}

static void pair_main(void *arg) {
    struct pair *pair = arg;
    struct fiber_group group;
    fiber_group_init(&group);
    fiber_group_spawn(&group, first_main, pair);
    fiber_group_spawn(&group, second_main, pair);
    (void)fiber_park(DEADLINE_NEVER);
    fiber_group_cancel(&group);
    pair->joined = fiber_group_join(&group);
}

static void test_members_that_end_each_other(void **state) {
    (void)state;
    struct pair pair = {.joined = 1, .first = 1, .second = 1};
    fiber_spawn(pair_main, &pair);
    assert_int_equal(fiber_stats_here().alive, 3);
    fibers_cancel_all();
    assert_int_equal(fiber_stats_here().alive, 0);
    assert_int_equal(pair.joined, -ECANCELED);
    assert_int_equal(pair.first, -ECANCELED);
    assert_true(pair.second <= 0);
}

static void empty_main(void *arg) {
    struct fiber_group group;
    fiber_group_init(&group);
    fiber_group_spawn(&group, child_main, (void *)"x");
    *(int *)arg = fiber_group_join(&group) + fiber_group_join(&group);
}

static void test_empty_group(void **state) {
    (void)state;
    int rc = 1;
    trail[0] = '\0';
    fiber_spawn(empty_main, &rc);
    assert_string_equal(trail, "x");
    assert_int_equal(rc, 0);
}

/* --- all at once ----------------------------------------------------------------------------- */

#define MANY (HAVE_ASAN || HAVE_TSAN ? 500 : 9000)

static int ended;

/* So much stack is written to, and left again. */
#define USES_STACK(name, bytes)                                                                    \
    static __attribute__((noinline)) void name(void) {                                             \
        char block[bytes];                                                                         \
        memset(block, 7, sizeof block);                                                            \
        __asm__ volatile("" : : "r"(block) : "memory");                                            \
    }
USES_STACK(use_a_page, 4000)
USES_STACK(use_much, 200 * 1024)

static void many_main(void *arg) {
    (void)arg;
    use_a_page();
    ended += fiber_park(DEADLINE_NEVER) == -ECANCELED;
}

static void test_many_fibers_and_their_memory(void **state) {
    (void)state;
    if (HAVE_ASAN) /* its shadow counts */
        skip();
    for (int i = 0; i < 100; i++) /* the cache is warm */
        fiber_spawn(many_main, NULL);
    fibers_cancel_all();
    size_t before = slab_resident_bytes();
    ended = 0;
    for (int i = 0; i < MANY; i++)
        fiber_spawn(many_main, NULL);
    assert_int_equal(fiber_stats_here().alive, MANY);
    size_t during = slab_resident_bytes() - before;
    assert_true(during < (size_t)MANY * 12 * 1024); /* about two pages each */
    assert_int_equal(fibers_cancel_all(), 0);
    assert_int_equal(ended, MANY);
    size_t after = slab_resident_bytes();
    assert_true(after < before + 128 * 1024);
    assert_true(fiber_stats_here().stacks_cached >= MANY);
}

static void test_cancel_all_takes_linear_time(void **state) {
    (void)state;
    ended = 0;
    for (int i = 0; i < MANY; i++)
        fiber_spawn(many_main, NULL);
    int64_t start = clock_ms();
    assert_int_equal(fibers_cancel_all(), 0);
    assert_int_equal(ended, MANY);
    assert_true(clock_ms() - start < 5000);
}

/* --- deep stacks are given back -------------------------------------------------------------- */

static char *deep_low;
static size_t deep_size;

static void deep_main(void *arg) {
    (void)arg;
    struct stack stack = fiber_self()->stack;
    deep_low = stack.low;
    deep_size = stack.size;
    use_much();
}

static size_t resident_of(char *low, size_t size) {
    static unsigned char pages[1024];
    size_t count = 0;
    assert_int_equal(mincore(low, size, pages), 0);
    for (size_t i = 0; i < size / 4096; i++)
        count += pages[i] & 1;
    return count * 4096;
}

static void test_deep_stacks_are_trimmed(void **state) {
    (void)state;
    if (sysconf(_SC_PAGESIZE) != 4096)
        skip();
    fiber_spawn(deep_main, NULL);
    assert_true(resident_of(deep_low, deep_size) <= 36 * 1024);
    assert_true(fiber_stats_here().deepest_stack >= 200 * 1024);
}

/* --- misuse ---------------------------------------------------------------------------------- */

static void park_off_a_fiber(void) { (void)fiber_park(DEADLINE_NEVER); }

static void remember_main(void *arg) {
    (void)arg;
    sleeper = fiber_self();
}

static void wake_the_dead(void) {
    fiber_spawn(remember_main, NULL);
    fiber_wake(sleeper);
}

static volatile int depth = 1000000;
static __attribute__((noinline)) int descend(int left) {
    volatile char block[2048];
    block[0] = 1;
    return left == 0 ? 0 : descend(left - 1) + block[0];
}

static void overflow_main(void *arg) {
    (void)arg;
    depth = descend(depth);
}

static void overflow(void) { fiber_spawn(overflow_main, NULL); }

static void test_misuse_ends_the_process(void **state) {
    (void)state;
    must_die(park_off_a_fiber);
    must_die(wake_the_dead);
    must_die(overflow);
}

/* --- with a loop ----------------------------------------------------------------------------- */

static void body_deadlines(void) {
    int64_t start = clock_ms();
    assert_int_equal(fiber_park(deadline_in(30)), -ETIMEDOUT);
    assert_true(clock_ms() - start >= 30);
    assert_int_equal(fiber_park(clock_ms() - 1000), -ETIMEDOUT); /* long past */
    assert_int_equal(fiber_sleep(0), 0);
    fiber_wake(fiber_self());
    start = clock_ms();
    assert_int_equal(fiber_sleep(20), 0); /* a stray wake does not shorten it */
    assert_true(clock_ms() - start >= 20);
}

static void test_deadlines(void **state) {
    (void)state;
    on_loops(1, body_deadlines);
}

static void lapper_main(void *arg) {
    for (int i = 0; i < 3; i++) {
        mark(arg);
        assert_int_equal(fiber_yield(), 0);
    }
}

static void body_yield(void) {
    struct fiber_group group;
    trail[0] = '\0';
    fiber_group_init(&group);
    fiber_group_spawn(&group, lapper_main, (void *)"x");
    fiber_group_spawn(&group, lapper_main, (void *)"y");
    assert_int_equal(fiber_group_join(&group), 0);
    assert_string_equal(trail, "xyxyxy");
    fiber_cancel(fiber_self());
    assert_int_equal(fiber_yield(), -ECANCELED);
    assert_int_equal(fiber_sleep(10000), -ECANCELED);
}

static void test_yield_takes_turns(void **state) {
    (void)state;
    on_loops(1, body_yield);
}

/* Wake, cancel and deadline of one park in every order: the fiber leaves it once. */
static int park_result;
static void race_main(void *arg) {
    sleeper = fiber_self();
    park_result = fiber_park(*(deadline_ms *)arg);
    fiber_park_hard();
    sleeper = NULL;
}

static void body_races(void) {
    for (int order = 0; order < 3; order++) {
        deadline_ms soon = clock_ms();
        fiber_spawn(race_main, &soon);
        (void)fiber_sleep(order == 0 ? 20 : 0);
        struct fiber *fiber = sleeper;
        fiber_cancel(fiber);
        fiber_wake(fiber);
        fiber_wake(fiber);
        turns(2);
        assert_int_equal(park_result, order == 0 ? -ETIMEDOUT : park_result);
        assert_true(park_result == -ETIMEDOUT || park_result == -ECANCELED);
        assert_null(sleeper);
    }
}

static void test_one_way_out_of_a_park(void **state) {
    (void)state;
    on_loops(1, body_races);
}

/* Fibers still alive when the loops stop are cancelled and unwind. */
static _Atomic int unwound;
static void stubborn_main(void *arg) {
    (void)arg;
    while (fiber_sleep(100000) == 0)
        continue;
    assert_int_equal(fiber_yield(), -ECANCELED);
    unwound++;
}

static void count_unwound(void) { assert_int_equal(unwound, 40); }

static void body_left_alive(void) {
    atexit(count_unwound);
    for (int i = 0; i < 20; i++) {
        fiber_spawn(stubborn_main, NULL);
        loop_spawn(loop_at(1), stubborn_main, NULL);
    }
    turns(3);
}

static void test_fibers_left_alive_unwind(void **state) {
    (void)state;
    on_loops(1, body_left_alive);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spawn_runs_at_once),
        cmocka_unit_test(test_spawn_from_a_fiber_waits),
        cmocka_unit_test(test_one_wake_is_remembered),
        cmocka_unit_test(test_cancel_is_sticky_and_hard_parks_are_deaf),
        cmocka_unit_test(test_cancel_and_wake_of_the_running_fiber),
        cmocka_unit_test(test_registers_survive),
        cmocka_unit_test(test_cancel_of_the_parent_cancels_the_group),
        cmocka_unit_test(test_members_that_end_each_other),
        cmocka_unit_test(test_empty_group),
        cmocka_unit_test(test_many_fibers_and_their_memory),
        cmocka_unit_test(test_cancel_all_takes_linear_time),
        cmocka_unit_test(test_deep_stacks_are_trimmed),
        cmocka_unit_test(test_misuse_ends_the_process),
        cmocka_unit_test(test_deadlines),
        cmocka_unit_test(test_yield_takes_turns),
        cmocka_unit_test(test_one_way_out_of_a_park),
        cmocka_unit_test(test_fibers_left_alive_unwind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
