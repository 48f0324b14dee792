/* The intrusive list (header only). */
#include "base/list.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

struct item {
    int number;
    struct list link;
};

static int number_of(struct list *link) { return container_of(link, struct item, link)->number; }

static void both_ends(void **state) {
    (void)state;
    struct list head;
    struct item items[4] = {{.number = 0}, {.number = 1}, {.number = 2}, {.number = 3}};
    list_init(&head);
    assert_true(list_empty(&head));
    assert_null(list_pop_front(&head));
    assert_null(list_pop_back(&head));
    list_push_back(&head, &items[1].link);
    list_push_back(&head, &items[2].link);
    list_push_front(&head, &items[0].link);
    list_push_back(&head, &items[3].link);
    int want = 0;
    list_for (link, &head)
        assert_int_equal(number_of(link), want++);
    assert_int_equal(want, 4);
    assert_int_equal(number_of(list_pop_back(&head)), 3);
    assert_int_equal(number_of(list_pop_front(&head)), 0);
    list_remove(&items[2].link);
    assert_int_equal(number_of(list_pop_front(&head)), 1);
    assert_true(list_empty(&head));
}

static void removal_is_safe_twice(void **state) {
    (void)state;
    struct list head;
    struct item item = {.number = 1};
    list_init(&head);
    assert_false(list_linked(&item.link));
    list_remove(&item.link);
    list_push_back(&head, &item.link);
    assert_true(list_linked(&item.link));
    list_remove(&item.link);
    list_remove(&item.link);
    assert_false(list_linked(&item.link));
    assert_true(list_empty(&head));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_ends),
        cmocka_unit_test(removal_is_safe_twice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
