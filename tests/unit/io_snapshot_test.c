#include "io/snapshot.c"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "loop_fixture.h"

#define KIND SNAPSHOT_CONFIG
#define ALIVE 0x50a1ab1e

/* A version that knows whether it was destroyed: it is never freed. */
struct thing {
    _Atomic unsigned mark;
    int number;
};

static struct thing things[4096];
static _Atomic int destroyed;

static void thing_destroy(void *data) {
    struct thing *thing = data;
    unsigned before = atomic_exchange(&thing->mark, 0);
    assert_int_equal(before, ALIVE); /* once only */
    atomic_fetch_add(&destroyed, 1);
}

static int published;

static struct thing *publish(void) {
    struct thing *thing = &things[published];
    thing->number = published++;
    atomic_store(&thing->mark, ALIVE);
    snapshot_publish(KIND, thing, thing_destroy);
    return thing;
}

static int shown_number(void *arg) {
    (void)arg;
    struct thing *thing = snapshot_get(KIND);
    return thing ? thing->number : -1;
}

/* --- publishing ------------------------------------------------------------------------------ */

static void body_publish(void) {
    assert_null(snapshot_get(KIND));
    snapshot_settle(KIND); /* nothing to wait for */
    struct thing *thing = publish();
    assert_ptr_equal(snapshot_get(KIND), thing);
    snapshot_settle(KIND);
    for (unsigned i = 0; i < loops_count(); i++)
        assert_int_equal(loop_call(loop_at(i), shown_number, NULL), 0);
    assert_null(snapshot_get(SNAPSHOT_FLEET)); /* another kind */
    thing = publish();
    snapshot_settle(KIND);
    for (unsigned i = 0; i < loops_count(); i++)
        assert_int_equal(loop_call(loop_at(i), shown_number, NULL), 1);
    assert_int_equal(atomic_load(&destroyed), 1);
    assert_int_equal(atomic_load(&thing->mark), ALIVE);
}

static void test_publish(void **state) {
    (void)state;
    on_loops(3, body_publish);
}

/* Many versions in a row: the loops skip most of them, and nothing but the last one stays. */
static void body_coalesce(void) {
    for (int i = 0; i < 1000; i++) {
        (void)publish();
        if (i % 100 == 0)
            turns(1);
    }
    snapshot_settle(KIND);
    for (unsigned i = 0; i < loops_count(); i++)
        assert_int_equal(loop_call(loop_at(i), shown_number, NULL), 999);
    assert_int_equal(atomic_load(&destroyed), 999);
}

static void test_coalescing(void **state) {
    (void)state;
    on_loops(2, body_coalesce);
}

/* --- keeping --------------------------------------------------------------------------------- */

static _Atomic int keepers;
static _Atomic bool go;

static void keeper_main(void *arg) {
    (void)arg;
    struct snapshot_hold *hold = snapshot_keep(KIND);
    struct thing *thing = snapshot_held(hold);
    int number = thing->number;
    atomic_fetch_add(&keepers, 1);
    while (!atomic_load(&go)) {
        assert_int_equal(atomic_load(&thing->mark), ALIVE);
        (void)fiber_sleep(1);
    }
    assert_int_equal(thing->number, number);
    snapshot_release(hold);
    atomic_fetch_sub(&keepers, 1);
}

static void body_keep(void) {
    (void)publish();
    snapshot_settle(KIND);
    for (unsigned i = 0; i < loops_count(); i++)
        for (int k = 0; k < 3; k++)
            loop_spawn(loop_at(i), keeper_main, NULL);
    await(atomic_load(&keepers) == 3 * (int)loops_count());
    for (int i = 0; i < 5; i++) {
        (void)publish();
        snapshot_settle(KIND);
    }
    assert_int_equal(atomic_load(&destroyed),
                     4); /* all but the first, which is kept, and the last */
    assert_int_equal(atomic_load(&things[0].mark), ALIVE);
    atomic_store(&go, true);
    await(atomic_load(&keepers) == 0);
    await(atomic_load(&destroyed) == 5);
    assert_int_equal(atomic_load(&things[0].mark), 0);
}

static void test_keeping_across_parks(void **state) {
    (void)state;
    on_loops(2, body_keep);
}

/* Readers on every loop while versions come and go. */
static _Atomic bool enough;
static _Atomic int readers;

static void reader_main(void *arg) {
    (void)arg;
    int last = -1;
    atomic_fetch_add(&readers, 1);
    while (!atomic_load(&enough)) {
        struct thing *thing = snapshot_get(KIND);
        if (thing != NULL) {
            assert_int_equal(atomic_load(&thing->mark), ALIVE);
            assert_true(thing->number >= last);
            last = thing->number;
            struct snapshot_hold *hold = snapshot_keep(KIND);
            (void)fiber_yield();
            assert_int_equal(atomic_load(&((struct thing *)snapshot_held(hold))->mark), ALIVE);
            snapshot_release(hold);
        }
        (void)fiber_yield();
    }
    atomic_fetch_sub(&readers, 1);
}

static void body_churn(void) {
    for (unsigned i = 1; i < loops_count(); i++)
        for (int k = 0; k < 4; k++)
            loop_spawn(loop_at(i), reader_main, NULL);
    for (int i = 0; i < 60; i++) {
        (void)publish();
        (void)fiber_sleep(3);
    }
    atomic_store(&enough, true);
    await(atomic_load(&readers) == 0);
    snapshot_settle(KIND);
    assert_int_equal(atomic_load(&destroyed), 59);
}

static void test_readers_while_versions_change(void **state) {
    (void)state;
    on_loops(3, body_churn);
}

static void body_settle_cancelled(void) {
    (void)publish();
    fiber_cancel(fiber_self());
    snapshot_settle(KIND); /* gives up instead of spinning */
}

static void test_settle_gives_up(void **state) {
    (void)state;
    on_loops(2, body_settle_cancelled);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_publish),
        cmocka_unit_test(test_coalescing),
        cmocka_unit_test(test_keeping_across_parks),
        cmocka_unit_test(test_readers_while_versions_change),
        cmocka_unit_test(test_settle_gives_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
