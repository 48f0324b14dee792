/* The allocator: contents, zero sizes, and the torture hook that makes growth fail. */
#define MEM_TORTURE
#include "base/mem.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/vec.h"

static void zalloc_is_zero(void **state) {
    (void)state;
    char *p = mem_alloc(4096);
    memset(p, 0xff, 4096);
    mem_free(p);
    p = mem_zalloc(4096);
    for (int i = 0; i < 4096; i++)
        assert_int_equal(p[i], 0);
    mem_free(p);
}

static void zero_bytes_are_not_null(void **state) {
    (void)state;
    void *a = mem_alloc(0), *b = mem_zalloc(0), *c = mem_realloc(NULL, 0);
    void *d = mem_try_realloc(NULL, 0);
    assert_non_null(a);
    assert_non_null(b);
    assert_non_null(c);
    assert_non_null(d);
    mem_free(a);
    mem_free(b);
    mem_free(c);
    mem_free(d);
    mem_free(NULL);
}

static void realloc_keeps_contents(void **state) {
    (void)state;
    char *p = mem_strdup("prefill");
    p = mem_realloc(p, 100000);
    assert_string_equal(p, "prefill");
    p = mem_try_realloc(p, 8);
    assert_string_equal(p, "prefill");
    mem_free(p);
}

static void try_realloc_may_fail(void **state) {
    (void)state;
    char *p = mem_strdup("stays");
    assert_null(mem_try_realloc(p, SIZE_MAX));
    assert_null(mem_try_realloc(p, SIZE_MAX / 2));
    assert_null(mem_try_realloc(p, ABSURD_SIZE));
    assert_string_equal(p, "stays");
    mem_torture_countdown = 2;
    p = mem_try_realloc(p, 32);
    assert_non_null(p);
    assert_null(mem_try_realloc(p, 64));
    assert_string_equal(p, "stays");
    p = mem_try_realloc(p, 64);
    assert_non_null(p);
    mem_free(p);
}

static void vec_grows_and_removes(void **state) {
    (void)state;
    VEC(int) ids = {0};
    for (int i = 0; i < 100; i++)
        vec_push(&ids, i);
    assert_int_equal(ids.len, 100);
    assert_int_equal(ids.items[99], 99);
    vec_swap_remove(&ids, 0);
    assert_int_equal(ids.len, 99);
    assert_int_equal(ids.items[0], 99);
    assert_int_equal(ids.items[98], 98);
    vec_free(&ids);
    assert_null(ids.items);
    assert_int_equal(ids.len + ids.cap, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(zalloc_is_zero),         cmocka_unit_test(zero_bytes_are_not_null),
        cmocka_unit_test(realloc_keeps_contents), cmocka_unit_test(try_realloc_may_fail),
        cmocka_unit_test(vec_grows_and_removes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
