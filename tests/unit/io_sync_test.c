#include "io/sync.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "loop_fixture.h"

static char trail[256];
static void mark(char letter) {
    size_t len = strlen(trail);
    assert_true(len + 1 < sizeof trail);
    trail[len] = letter;
    trail[len + 1] = '\0';
}

static struct semaphore sem;
static struct channel channel;

struct taker {
    struct fiber *fiber;
    deadline_ms deadline;
    int rc;
    void *item;
    char name;
};

static struct taker takers[8];

static void taker_main(void *arg) {
    struct taker *taker = arg;
    taker->fiber = fiber_self();
    taker->rc = semaphore_take(&sem, taker->deadline);
    mark(taker->rc == 0 ? taker->name : '-');
    taker->fiber = NULL;
}

static void start(fiber_main *main, int index, deadline_ms deadline) {
    takers[index] = (struct taker){.deadline = deadline, .rc = 1, .name = (char)('a' + index)};
    fiber_spawn(main, &takers[index]);
}

/* Without a loop: fibers run as soon as the test, on the thread's own stack, wakes them. */
static void test_semaphore_is_fifo(void **state) {
    (void)state;
    trail[0] = '\0';
    semaphore_init(&sem, 2);
    for (int i = 0; i < 6; i++)
        start(taker_main, i, DEADLINE_NEVER);
    assert_string_equal(trail, "ab");
    assert_false(semaphore_try(&sem));
    for (int i = 0; i < 3; i++)
        semaphore_give(&sem);
    assert_string_equal(trail, "abcde");
    fiber_cancel(takers[5].fiber);
    assert_string_equal(trail, "abcde-");
    assert_int_equal(takers[5].rc, -ECANCELED);
    semaphore_give(&sem);
    assert_int_equal(sem.free, 1);
    assert_true(semaphore_try(&sem));
}

/* One in the middle leaves the line; the others keep their places. */
static void test_cancel_inside_the_line(void **state) {
    (void)state;
    trail[0] = '\0';
    semaphore_init(&sem, 0);
    for (int i = 0; i < 4; i++)
        start(taker_main, i, DEADLINE_NEVER);
    fiber_cancel(takers[1].fiber);
    for (int i = 0; i < 3; i++)
        semaphore_give(&sem);
    assert_string_equal(trail, "-acd");
    assert_int_equal(sem.free, 0);
}

/* Granted and cancelled before it ran: the permit is the fiber's, so it must say 0. */
static void giver_main(void *arg) {
    (void)arg;
    struct fiber *fiber = takers[0].fiber;
    semaphore_give(&sem);
    fiber_cancel(fiber);
}

static void canceller_main(void *arg) {
    (void)arg;
    struct fiber *fiber = takers[0].fiber;
    fiber_cancel(fiber);
    semaphore_give(&sem); /* it is out of its park, but still in line */
}

static void test_grant_and_cancel_together(void **state) {
    (void)state;
    trail[0] = '\0';
    semaphore_init(&sem, 0);
    start(taker_main, 0, DEADLINE_NEVER);
    fiber_spawn(giver_main, NULL);
    assert_int_equal(takers[0].rc, 0);
    start(taker_main, 0, DEADLINE_NEVER);
    fiber_spawn(canceller_main, NULL);
    assert_true((takers[0].rc == 0 && sem.free == 0) ||
                (takers[0].rc == -ECANCELED && sem.free == 1));
    assert_true(list_empty(&sem.waiters));
}

static void body_timeout(void) {
    trail[0] = '\0';
    semaphore_init(&sem, 0);
    start(taker_main, 0, deadline_in(20));
    start(taker_main, 1, DEADLINE_NEVER);
    await(takers[0].rc != 1);
    assert_int_equal(takers[0].rc, -ETIMEDOUT);
    semaphore_give(&sem);
    await(takers[1].rc == 0);
    assert_string_equal(trail, "-b");
    fiber_cancel(fiber_self());
    semaphore_init(&sem, 1);
    assert_int_equal(semaphore_take(&sem, DEADLINE_NEVER), 0); /* no wait, no cancel */
    assert_int_equal(semaphore_take(&sem, DEADLINE_NEVER), -ECANCELED);
}

static void test_timeout(void **state) {
    (void)state;
    on_loops(1, body_timeout);
}

/* --- channel --------------------------------------------------------------------------------- */

static void sender_main(void *arg) {
    struct taker *taker = arg;
    taker->fiber = fiber_self();
    taker->rc = channel_send(&channel, &taker->name, taker->deadline);
    mark(taker->rc == 0 ? taker->name : '-');
    taker->fiber = NULL;
}

static void receiver_main(void *arg) {
    struct taker *taker = arg;
    taker->fiber = fiber_self();
    taker->rc = channel_receive(&channel, &taker->item, taker->deadline);
    mark(taker->rc == 0 ? *(char *)taker->item : '-');
    taker->fiber = NULL;
}

static void drain_main(void *arg) {
    char *out = arg;
    void *item;
    while (channel_receive(&channel, &item, DEADLINE_NEVER) == 0)
        *out++ = *(char *)item;
    *out = '\0';
}

/* Full, with senders in line: what comes out is in the order in which it was sent. */
static void test_channel_keeps_order(void **state) {
    (void)state;
    char out[16];
    trail[0] = '\0';
    channel_init(&channel, 2);
    for (int i = 0; i < 6; i++)
        start(sender_main, i, DEADLINE_NEVER);
    assert_string_equal(trail, "ab");
    assert_int_equal(channel_try_send(&channel, trail), -EAGAIN);
    fiber_cancel(takers[3].fiber);
    fiber_spawn(drain_main, out);
    channel_close(&channel);
    assert_string_equal(out, "abcef");
    channel_free(&channel);
}

static void test_receivers_are_served_in_order(void **state) {
    (void)state;
    char items[] = "xyz";
    trail[0] = '\0';
    channel_init(&channel, 1);
    for (int i = 0; i < 4; i++)
        start(receiver_main, i, DEADLINE_NEVER);
    fiber_cancel(takers[1].fiber);
    for (int i = 0; i < 3; i++)
        assert_int_equal(channel_try_send(&channel, &items[i]), 0);
    assert_string_equal(trail, "-xyz");
    assert_ptr_equal(takers[0].item, &items[0]);
    assert_ptr_equal(takers[3].item, &items[2]);
    channel_free(&channel);
}

/* Closed: receivers get what is left and then -EPIPE; waiting senders learn that theirs was not taken. */
static void test_close(void **state) {
    (void)state;
    char out[16];
    trail[0] = '\0';
    channel_init(&channel, 1);
    start(sender_main, 0, DEADLINE_NEVER);
    start(sender_main, 1, DEADLINE_NEVER);
    channel_close(&channel);
    assert_string_equal(trail, "a-");
    assert_int_equal(takers[1].rc, -EPIPE);
    assert_int_equal(channel_try_send(&channel, out), -EPIPE);
    fiber_spawn(drain_main, out);
    assert_string_equal(out, "a");
    start(receiver_main, 2, DEADLINE_NEVER);
    assert_int_equal(takers[2].rc, -EPIPE);
    channel_free(&channel);
    channel_init(&channel, 1);
    start(receiver_main, 3, DEADLINE_NEVER);
    channel_close(&channel);
    assert_int_equal(takers[3].rc, -EPIPE);
    channel_free(&channel);
}

#define NUMBERS 20000
static size_t sum_in, sum_out;
static int producers;

static void producer_main(void *arg) {
    for (size_t i = 1; i <= NUMBERS; i++) {
        size_t number = i * (size_t)arg;
        sum_in += number;
        assert_int_equal(channel_send(&channel, (void *)number, DEADLINE_NEVER), 0);
    }
    if (--producers == 0)
        channel_close(&channel);
}

static void consumer_main(void *arg) {
    (void)arg;
    void *item;
    while (channel_receive(&channel, &item, DEADLINE_NEVER) == 0)
        sum_out += (size_t)item;
}

static void body_many(void) {
    struct fiber_group group;
    channel_init(&channel, 7);
    fiber_group_init(&group);
    for (size_t i = 1; i <= 3; i++) {
        producers++;
        fiber_group_spawn(&group, producer_main, (void *)i);
        fiber_group_spawn(&group, consumer_main, NULL);
    }
    assert_int_equal(fiber_group_join(&group), 0);
    assert_int_equal(sum_in, sum_out);
    assert_int_equal(sum_in, (size_t)6 * NUMBERS * (NUMBERS + 1) / 2);
    channel_free(&channel);
}

static void test_many_senders_and_receivers(void **state) {
    (void)state;
    on_loops(1, body_many);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_semaphore_is_fifo),
        cmocka_unit_test(test_cancel_inside_the_line),
        cmocka_unit_test(test_grant_and_cancel_together),
        cmocka_unit_test(test_timeout),
        cmocka_unit_test(test_channel_keeps_order),
        cmocka_unit_test(test_receivers_are_served_in_order),
        cmocka_unit_test(test_close),
        cmocka_unit_test(test_many_senders_and_receivers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
