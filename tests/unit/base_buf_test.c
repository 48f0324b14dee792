/* The capped buffer: growth, its maximum to the byte, failing allocation. */
#define MEM_TORTURE
#include "base/mem.c"

#include "base/buf.c"

#include <setjmp.h>

#include <cmocka.h>

static void appending(void **state) {
    (void)state;
    struct buf buf = buf_make(1 << 20);
    assert_null(buf.ptr);
    for (int i = 0; i < 10000; i++)
        assert_int_equal(buf_add(&buf, STR("0123456789")), 0);
    assert_int_equal(buf.len, 100000);
    for (size_t i = 0; i < buf.len; i++)
        assert_int_equal(buf.ptr[i], '0' + (char)(i % 10));
    buf_free(&buf);
    assert_null(buf.ptr);
    assert_int_equal(buf.max, 1 << 20);
    assert_int_equal(buf_add(&buf, STR("again")), 0);
    buf_free(&buf);
}

static void the_maximum_holds(void **state) {
    (void)state;
    struct buf buf = buf_make(1000);
    char text[1001] = {0};
    assert_int_equal(buf_append(&buf, text, 1001), -EMSGSIZE);
    assert_int_equal(buf.len, 0);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(buf_append(&buf, text, 100), 0);
        assert_true(buf.cap <= 1000);
    }
    assert_int_equal(buf_append(&buf, text, 1), -EMSGSIZE);
    assert_int_equal(buf_append(&buf, NULL, 0), 0);
    assert_int_equal(buf.len, 1000);
    assert_int_equal(buf_reserve(&buf, SIZE_MAX), -EMSGSIZE);
    buf_free(&buf);
    struct buf none = buf_make(0);
    assert_int_equal(buf_append(&none, text, 1), -EMSGSIZE);
    assert_int_equal(buf_append(&none, text, 0), 0);
}

static void no_maximum_does_not_overflow(void **state) {
    (void)state;
    struct buf buf = buf_make(SIZE_MAX);
    assert_int_equal(buf_add(&buf, STR("x")), 0);
    assert_int_equal(buf_reserve(&buf, SIZE_MAX), -EMSGSIZE);
    assert_int_equal(buf_reserve(&buf, SIZE_MAX / 2), -ENOMEM);
    assert_true(str_eq(buf_str(&buf), STR("x")));
    buf_free(&buf);
}

static void reserve_then_write(void **state) {
    (void)state;
    struct buf buf = buf_make(100000);
    assert_int_equal(buf_reserve(&buf, 70000), 0);
    assert_true(buf.cap >= 70000);
    char *where = buf.ptr;
    memset(buf.ptr, 'a', 70000);
    buf.len = 70000;
    assert_int_equal(buf_reserve(&buf, 0), 0);
    assert_ptr_equal(buf.ptr, where);
    buf_free(&buf);
}

static void printing(void **state) {
    (void)state;
    struct buf buf = buf_make(4096);
    for (int i = 0; i < 100; i++)
        assert_int_equal(buf_printf(&buf, "%d,", i), 0);
    assert_int_equal(buf.len, 10 * 2 + 90 * 3);
    assert_memory_equal(buf.ptr + buf.len - 6, "98,99,", 6);
    buf_clear(&buf);
    assert_int_equal(buf_printf(&buf, "%s", ""), 0);
    assert_int_equal(buf_printf(&buf, "%1000d", 5), 0);
    assert_int_equal(buf.len, 1000);
    assert_int_equal(buf.ptr[999], '5');
    buf_free(&buf);
}

static void printing_up_to_the_maximum(void **state) {
    (void)state;
    struct buf buf = buf_make(10);
    assert_int_equal(buf_printf(&buf, "%s", "01234567890"), -EMSGSIZE);
    assert_int_equal(buf.len, 0);
    assert_int_equal(buf_printf(&buf, "%s", "0123456789"), 0);
    assert_true(str_eq(buf_str(&buf), STR("0123456789")));
    assert_int_equal(buf_printf(&buf, "x"), -EMSGSIZE);
    assert_int_equal(buf_printf(&buf, "%s", ""), 0);
    assert_true(str_eq(buf_str(&buf), STR("0123456789")));
    assert_int_equal(buf.cap, 10);
    buf_free(&buf);
}

static void consuming(void **state) {
    (void)state;
    struct buf buf = buf_make(100);
    buf_consume(&buf, 0);
    assert_int_equal(buf_add(&buf, STR("headbody")), 0);
    buf_consume(&buf, 4);
    assert_true(str_eq(buf_str(&buf), STR("body")));
    buf_consume(&buf, 4);
    assert_int_equal(buf.len, 0);
    buf_free(&buf);
}

static void stealing(void **state) {
    (void)state;
    struct buf buf = buf_make(100);
    assert_int_equal(buf_add(&buf, STR("mine")), 0);
    size_t len;
    char *ptr = buf_steal(&buf, &len);
    assert_int_equal(len, 4);
    assert_memory_equal(ptr, "mine", 4);
    assert_null(buf.ptr);
    assert_int_equal(buf.len + buf.cap, 0);
    assert_int_equal(buf.max, 100);
    mem_free(ptr);
    assert_null(buf_steal(&buf, &len));
    assert_int_equal(len, 0);
}

/* Growth that fails leaves the buf as it was, at whatever step it fails. */
static void every_failed_growth_keeps_the_contents(void **state) {
    (void)state;
    int failures = 0;
    for (long n = 1; n <= 8; n++) {
        struct buf buf = buf_make(1 << 16);
        mem_torture_countdown = n;
        int err = 0;
        size_t good = 0;
        while (err == 0 && good < 20000) {
            err = good % 2 ? buf_printf(&buf, "%s", "z") : buf_append(&buf, "y", 1);
            good += err == 0;
        }
        assert_int_equal(buf.len, good);
        for (size_t i = 0; i < good; i++)
            assert_int_equal(buf.ptr[i], i % 2 ? 'z' : 'y');
        if (err) {
            failures++;
            assert_int_equal(err, -ENOMEM);
        }
        mem_torture_countdown = 0;
        assert_int_equal(buf_append(&buf, "!", 1), 0);
        assert_int_equal(buf.ptr[good], '!');
        buf_free(&buf);
    }
    assert_int_equal(failures, 8);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(appending),
        cmocka_unit_test(the_maximum_holds),
        cmocka_unit_test(no_maximum_does_not_overflow),
        cmocka_unit_test(reserve_then_write),
        cmocka_unit_test(printing),
        cmocka_unit_test(printing_up_to_the_maximum),
        cmocka_unit_test(consuming),
        cmocka_unit_test(stealing),
        cmocka_unit_test(every_failed_growth_keeps_the_contents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
