#include "io/resolver.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "loop_fixture.h"

/* --- literals -------------------------------------------------------------------------------- */

static void check_literal(const char *host, int family, const char *text) {
    struct sockaddr_storage out;
    char back[INET6_ADDRSTRLEN];
    assert_int_equal(resolver_literal(str_from(host), 8080, &out), 0);
    assert_int_equal(out.ss_family, family);
    struct sockaddr_in *four = (struct sockaddr_in *)&out;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)&out;
    bool is_four = family == AF_INET;
    inet_ntop(family, is_four ? (void *)&four->sin_addr : (void *)&six->sin6_addr, back,
              sizeof back);
    assert_string_equal(back, text);
    assert_int_equal(ntohs(is_four ? four->sin_port : six->sin6_port), 8080);
}

static void test_literals(void **state) {
    (void)state;
    struct sockaddr_storage out;
    check_literal("127.0.0.1", AF_INET, "127.0.0.1");
    check_literal("[::1]", AF_INET6, "::1");
    check_literal("::1", AF_INET6, "::1");
    check_literal("2001:db8::7", AF_INET6, "2001:db8::7");
    static const char *const wrong[] = {"",      "[",         "[]",       "localhost",
                                        "1.2.3", "1.2.3.4.5", "[1.2.3.4", "256.1.1.1",
                                        "::g",   "1.2.3.4 "};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(resolver_literal(str_from(wrong[i]), 1, &out), -EINVAL);
    static const char nul[] = "127.0.0.1\0.evil.example";
    assert_int_equal(resolver_literal(str_make(nul, sizeof nul - 1), 1, &out), -EINVAL);
    char endless[200];
    memset(endless, '1', sizeof endless);
    assert_int_equal(resolver_literal(str_make(endless, sizeof endless), 1, &out), -EINVAL);
}

/* --- names ----------------------------------------------------------------------------------- */

static void body_localhost(void) {
    struct resolver_addresses all;
    struct sockaddr_storage one;
    assert_int_equal(resolver_lookup_all(STR("localhost"), 99, deadline_in(20000), &all), 0);
    assert_true(all.len >= 1 && all.len <= RESOLVER_MAX);
    for (size_t i = 0; i < all.len; i++) {
        struct sockaddr_in *four = (struct sockaddr_in *)&all.items[i];
        struct sockaddr_in6 *six = (struct sockaddr_in6 *)&all.items[i];
        if (four->sin_family == AF_INET)
            assert_int_equal(ntohl(four->sin_addr.s_addr) >> 24, 127);
        else
            assert_true(IN6_IS_ADDR_LOOPBACK(&six->sin6_addr));
        assert_int_equal(ntohs(four->sin_port), 99); /* at the same place in both */
    }
    assert_int_equal(resolver_lookup(STR("localhost"), 100, DEADLINE_NEVER, &one), 0);
    assert_int_equal(ntohs(((struct sockaddr_in *)&one)->sin_port), 100);
    struct entry *entry = map_get(&cache.names, STR("localhost"));
    assert_non_null(entry);
    int64_t looked = entry->looked_ms;
    assert_int_equal(resolver_lookup(STR("localhost"), 100, clock_ms() - 1, &one), 0); /* cached */
    assert_int_equal(entry->looked_ms, looked);
    assert_false(entry->busy);
}

static void test_localhost_is_cached(void **state) {
    (void)state;
    on_loops(1, body_localhost);
}

/* Old but known: answered at once, looked up again behind. */
static void body_stale(void) {
    struct sockaddr_storage one;
    assert_int_equal(resolver_lookup(STR("localhost"), 1, deadline_in(20000), &one), 0);
    struct entry *entry = map_get(&cache.names, STR("localhost"));
    entry->looked_ms -= FRESH_MS + 1;
    assert_int_equal(resolver_lookup(STR("localhost"), 1, clock_ms() - 1, &one), 0);
    assert_true(entry->busy);
    await(!entry->busy);
    assert_true(loop_now_ms() - entry->looked_ms < FRESH_MS);
}

static void test_stale_answers_are_served(void **state) {
    (void)state;
    on_loops(1, body_stale);
}

static void body_unknown(void) {
    struct sockaddr_storage one;
    struct str name = STR("no-such-host.invalid");
    assert_int_equal(resolver_lookup(name, 1, deadline_in(20000), &one), -EHOSTUNREACH);
    struct entry *entry = map_get(&cache.names, name);
    int64_t looked = entry->looked_ms;
    assert_int_equal(resolver_lookup(name, 1, deadline_in(20000), &one), -EHOSTUNREACH);
    assert_int_equal(entry->looked_ms, looked); /* not asked again within a second */
    char endless[2000];
    memset(endless, 'x', sizeof endless);
    assert_int_equal(resolver_lookup(str_make(endless, sizeof endless), 1, deadline_in(1000), &one),
                     -EHOSTUNREACH);
}

static void test_unknown_names(void **state) {
    (void)state;
    on_loops(1, body_unknown);
}

static void body_bounded(void) {
    struct sockaddr_storage one;
    char name[32];
    for (int i = 0; i < CACHE_MAX; i++) {
        snprintf(name, sizeof name, "host-%d.invalid", i);
        struct entry *entry = entry_for(str_from(name));
        entry->looked_ms = loop_now_ms();
    }
    assert_int_equal(resolver_lookup(STR("one-more.invalid"), 1, deadline_in(1000), &one),
                     -ENOBUFS);
    assert_int_equal(resolver_lookup(STR("127.0.0.1"), 1, deadline_in(1000), &one), 0);
}

static void test_the_cache_has_an_end(void **state) {
    (void)state;
    on_loops(1, body_bounded);
}

/* --- waiters leave at any time ----------------------------------------------------------------- */

static struct fiber *waiters[6];
static int results[6];

static void waiter_main(void *arg) {
    int index = (int)(intptr_t)arg;
    struct sockaddr_storage one;
    waiters[index] = fiber_self();
    deadline_ms deadline = index == 5 ? clock_ms() : DEADLINE_NEVER;
    results[index] = resolver_lookup(STR("localhost"), 1, deadline, &one);
    waiters[index] = NULL;
}

/* The look-up is held back by hand: as if the name server did not answer. */
static void body_leaving(void) {
    struct entry *entry = entry_for(STR("localhost"));
    entry->busy = true;
    for (int i = 0; i < 6; i++) {
        results[i] = 1;
        fiber_spawn(waiter_main, (void *)(intptr_t)i);
    }
    turns(1);
    fiber_cancel(waiters[0]);
    fiber_cancel(waiters[3]);
    await(results[5] == -ETIMEDOUT);
    assert_int_equal(results[0], -ECANCELED);
    assert_int_equal(results[3], -ECANCELED);
    assert_int_equal(results[1], 1);
    entry->busy = false;
    assert_int_equal(look_up(entry, STR("localhost")), 0);
    await(results[4] == 0);
    assert_true(results[1] == 0 && results[2] == 0);
    assert_true(list_empty(&entry->waiters));
}

static void test_waiters_leave_at_any_time(void **state) {
    (void)state;
    on_loops(1, body_leaving);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_literals),
        cmocka_unit_test(test_localhost_is_cached),
        cmocka_unit_test(test_stale_answers_are_served),
        cmocka_unit_test(test_unknown_names),
        cmocka_unit_test(test_the_cache_has_an_end),
        cmocka_unit_test(test_waiters_leave_at_any_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
