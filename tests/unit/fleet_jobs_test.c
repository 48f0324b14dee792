#include "fleet/job_queue.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static struct job_queue queue;
static struct job_node nodes[64];

static int setup(void **state) {
    (void)state;
    memset(nodes, 0, sizeof nodes);
    job_queue_init(&queue, 10, 4);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    while (!list_empty(&queue.all))
        job_queue_end(&queue, container_of(queue.all.next, struct job_node, in_all), NULL, 0, 0);
    job_queue_free(&queue);
    return 0;
}

static struct job_node *add(int i, enum job_kind kind, const char *key) {
    nodes[i].kind = kind;
    job_queue_add(&queue, &nodes[i], str_from(key), 1000 + i, 1);
    return &nodes[i];
}

static struct job_node *take(void) { return job_queue_take(&queue, 2); }
static void end(struct job_node *node, const char *failure, int64_t now_ms) {
    job_queue_end(&queue, node, failure, now_ms, now_ms / 1000);
}

static void one_key_is_a_fifo(void **state) {
    (void)state;
    struct job_node *a = add(0, JOB_ADD_WORKER, "u"), *b = add(1, JOB_REMOVE_WORKER, "u"),
                    *c = add(2, JOB_ADD_WORKER, "u");
    assert_ptr_equal(take(), a);
    assert_null(take()); /* the others wait for it, though places are free */
    end(a, NULL, 0);
    assert_ptr_equal(take(), b);
    assert_null(take());
    end(b, "no", 0);
    assert_ptr_equal(take(), c);
}

static void keys_are_parallel_in_order(void **state) {
    (void)state;
    struct job_node *a = add(0, JOB_ADD_WORKER, "a"), *a2 = add(1, JOB_UPDATE_WORKER, "a"),
                    *b = add(2, JOB_ADD_WORKER, "b"), *c = add(3, JOB_ADD_WORKER, "c");
    assert_ptr_equal(take(), a);
    assert_ptr_equal(take(), b);
    assert_ptr_equal(take(), c);
    assert_null(take());
    end(b, NULL, 0);
    assert_null(take());
    end(a, NULL, 0);
    assert_ptr_equal(take(), a2);
}

static void places_are_bounded(void **state) {
    (void)state;
    struct job_node *taken[4];
    char key[16];
    for (int i = 0; i < 6; i++) {
        snprintf(key, sizeof key, "k%d", i);
        add(i, JOB_ADD_WORKER, key);
    }
    for (int i = 0; i < 4; i++)
        assert_non_null(taken[i] = take());
    assert_null(take());
    assert_int_equal(queue.pending, 2);
    assert_int_equal(queue.working, 4);
    end(taken[1], NULL, 0);
    assert_ptr_equal(take(), &nodes[4]);
    assert_null(take());
}

static void a_resting_job_gives_its_place_but_keeps_its_line(void **state) {
    (void)state;
    struct job_node *a = add(0, JOB_ADD_WORKER, "a"), *next = add(1, JOB_REMOVE_WORKER, "a");
    char key[16];
    for (int i = 2; i < 7; i++) {
        snprintf(key, sizeof key, "k%d", i);
        add(i, JOB_ADD_WORKER, key);
    }
    assert_ptr_equal(take(), a);
    for (int i = 2; i < 5; i++)
        assert_ptr_equal(take(), &nodes[i]);
    assert_null(take());
    job_queue_rest(&queue, a);
    assert_ptr_equal(take(), &nodes[5]); /* its place */
    job_queue_ready(&queue, a);
    job_queue_ready(&queue, a); /* harmless */
    end(&nodes[5], NULL, 0);
    assert_ptr_equal(take(), &nodes[6]); /* it was there before a came back */
    end(&nodes[6], NULL, 0);
    assert_ptr_equal(take(), a);
    end(a, NULL, 0);
    assert_ptr_equal(take(), next);
}

static void capacity_counts_what_waits(void **state) {
    (void)state;
    char key[16];
    for (int i = 0; i < 10; i++) {
        assert_true(job_queue_room(&queue));
        snprintf(key, sizeof key, "k%d", i);
        add(i, JOB_ADD_WORKER, key);
    }
    assert_false(job_queue_room(&queue));
    assert_non_null(take()); /* one waits no longer */
    assert_true(job_queue_room(&queue));
    add(10, JOB_ADD_WORKER, "more");
    assert_false(job_queue_room(&queue));
    nodes[11].free_of_charge = true; /* the gateway's own are not bound */
    add(11, JOB_ADD_WORKER, "own");
    end(&nodes[11], NULL, 0);
    assert_false(job_queue_room(&queue));
    end(&nodes[10], NULL, 0);
    assert_true(job_queue_room(&queue));
}

static void status_goes_the_way_of_the_job(void **state) {
    (void)state;
    struct job_status status;
    assert_false(job_queue_status(&queue, STR("u"), &status));
    struct job_node *a = add(0, JOB_ADD_WORKER, "u");
    assert_true(job_queue_status(&queue, STR("u"), &status));
    assert_int_equal(status.state, JOB_PENDING);
    assert_int_equal(status.kind, JOB_ADD_WORKER);
    assert_true(str_eq(status.key, STR("u")));
    take();
    snprintf(a->note, sizeof a->note, "half way");
    assert_true(job_queue_status(&queue, STR("u"), &status));
    assert_int_equal(status.state, JOB_PROCESSING);
    assert_true(str_eq(status.message, STR("half way")));
    end(a, NULL, 0);
    assert_false(job_queue_status(&queue, STR("u"), &status)); /* absent = done */
    assert_int_equal(queue.lines.len, 0);
}

static void failures_are_kept_and_swept(void **state) {
    (void)state;
    struct job_status status;
    end(add(0, JOB_ADD_WORKER, "u"), "refused", 10000);
    assert_true(job_queue_status(&queue, STR("u"), &status));
    assert_int_equal(status.state, JOB_FAILED);
    assert_int_equal(status.changed_s, 10);
    assert_true(str_eq(status.message, STR("refused")));
    end(add(1, JOB_UPDATE_WORKER, "u"), "late", 20000);
    assert_true(job_queue_status(&queue, STR("u"), &status));
    assert_int_equal(status.kind, JOB_UPDATE_WORKER); /* the newest of both */
    job_queue_sweep(&queue, 10000 + JOB_FAILURE_KEPT_MS - 1);
    assert_true(job_queue_status(&queue, STR("u"), &status));
    job_queue_sweep(&queue, 20000 + JOB_FAILURE_KEPT_MS - 1); /* the first is gone */
    assert_int_equal(status.kind, JOB_UPDATE_WORKER);
    job_queue_sweep(&queue, 20000 + JOB_FAILURE_KEPT_MS);
    assert_false(job_queue_status(&queue, STR("u"), &status));
    assert_int_equal(queue.lines.len, 0);
}

static void success_forgets_the_failure_of_its_kind(void **state) {
    (void)state;
    struct job_status status;
    end(add(0, JOB_ADD_WORKER, "u"), "refused", 10000);
    end(add(1, JOB_UPDATE_WORKER, "u"), "bad", 11000);
    end(add(2, JOB_UPDATE_WORKER, "u"), NULL, 12000);
    assert_true(job_queue_status(&queue, STR("u"), &status));
    assert_int_equal(status.kind, JOB_ADD_WORKER);
    job_queue_forgive(&queue, STR("u"));
    assert_false(job_queue_status(&queue, STR("u"), &status));
    job_queue_forgive(&queue, STR("nobody"));
}

static void waiting_jobs_can_be_dropped(void **state) {
    (void)state;
    struct job_node *a = add(0, JOB_ADD_WORKER, "u"), *b = add(1, JOB_UPDATE_WORKER, "u"),
                    *c = add(2, JOB_REMOVE_WORKER, "u");
    assert_ptr_equal(take(), a);
    end(b, NULL, 0);
    end(a, NULL, 0);
    assert_ptr_equal(take(), c);
    struct job_node *d = add(3, JOB_ADD_WORKER, "v"), *e = add(4, JOB_ADD_WORKER, "v");
    end(d, NULL, 0); /* the first of a line, before it was taken */
    assert_ptr_equal(take(), e);
    assert_null(take());
}

/* Any mix of operations keeps the counts right. */
static void random_walk_keeps_its_counts(void **state) {
    (void)state;
    unsigned seed = 7;
    bool used[64] = {false}, resting[64] = {false};
    for (int step = 0; step < 20000; step++) {
        seed = seed * 1103515245 + 12345;
        int i = (int)(seed >> 16) % 64;
        char key[16];
        snprintf(key, sizeof key, "k%d", i % 7);
        if (!used[i]) {
            nodes[i] = (struct job_node){.free_of_charge = i % 2};
            add(i, (enum job_kind)(i % 3), key);
            used[i] = true;
        } else if (nodes[i].at_work && seed >> 28 & 1) {
            job_queue_rest(&queue, &nodes[i]);
            resting[i] = true;
        } else if (resting[i]) {
            job_queue_ready(&queue, &nodes[i]);
            resting[i] = false;
        } else if (seed >> 29 & 1) {
            end(&nodes[i], seed >> 30 & 1 ? "x" : NULL, step);
            used[i] = false;
        }
        struct job_node *taken = take();
        if (taken != NULL)
            assert_ptr_equal(first_job(taken->line), taken);
        size_t pending = 0, working = 0, at_work = 0;
        list_for (item, &queue.all) {
            struct job_node *node = container_of(item, struct job_node, in_all);
            pending += node->state == JOB_PENDING;
            working += node->state == JOB_PROCESSING;
            at_work += node->at_work;
        }
        assert_int_equal(queue.pending, pending);
        assert_int_equal(queue.working, working);
        assert_int_equal(queue.places, 4 - at_work);
        assert_true(queue.charged <= pending);
    }
}

static void names_are_those_of_the_spec(void **state) {
    (void)state;
    assert_string_equal(job_kind_name(JOB_ADD_WORKER), "AddWorker");
    assert_string_equal(job_kind_name(JOB_REMOVE_TOKENIZER), "RemoveTokenizer");
    assert_string_equal(job_state_name(JOB_PROCESSING), "processing");
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(one_key_is_a_fifo),           TEST(keys_are_parallel_in_order),
        TEST(places_are_bounded),          TEST(a_resting_job_gives_its_place_but_keeps_its_line),
        TEST(capacity_counts_what_waits),  TEST(status_goes_the_way_of_the_job),
        TEST(failures_are_kept_and_swept), TEST(success_forgets_the_failure_of_its_kind),
        TEST(waiting_jobs_can_be_dropped), TEST(random_walk_keeps_its_counts),
        TEST(names_are_those_of_the_spec),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
