/* The retry loop over workers that are real but for their answers: guards, references and
 * breakers count as they do in service; policy, backend, clock and sleep are made up here. */
#include "gateway/dispatch.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/rand.h"
#include "fleet/health.h"
#include "fleet/worker_build.h"
#include "gateway/counts.h"
#include "gateway/gateway.h"

enum { WORKERS = 4, STEPS = 32 };

/* --- the world that a dispatch sees --- */

struct step {
    enum attempt_failure failure;
    int status;
    bool retry_after;
};

static struct worker *workers[WORKERS];
static struct {
    size_t workers;           /* how many there are */
    struct step steps[STEPS]; /* what the attempts get, in order; the last one stays */
    size_t step_count;
    int attempts, finished, suspected, dry_choices;
    int tried[STEPS]; /* worker of each attempt */
    int64_t now, sleeps[STEPS];
    int sleep_count, cancel_in_sleep; /* which sleep is cut short, from 1; 0: none */
    bool cancelled;
    int retries, exhausted;
    int64_t retry_waits[STEPS];
} world;

static struct headers no_headers, patient_headers;

static int index_of(const struct worker *worker) {
    for (int i = 0; i < WORKERS; i++)
        if (workers[i] == worker)
            return i;
    return -1;
}

static bool listed_in(struct worker *const *tried, size_t count, const struct worker *worker) {
    for (size_t i = 0; i < count; i++)
        if (tried[i] == worker)
            return true;
    return false;
}

/* The first that is allowed. */
static void fake_choose(struct policy *policy, enum worker_role role, const struct facts *facts,
                        struct worker *const *tried, size_t count, bool dry, struct choice *out) {
    (void)policy, (void)role, (void)facts;
    *out = (struct choice){.reason = "none"};
    world.dry_choices += dry;
    for (size_t i = 0; i < world.workers && out->worker == NULL; i++)
        if (!listed_in(tried, count, workers[i]) &&
            breaker_allows(&workers[i]->run->breaker, loop_now_ms()))
            out->worker = workers[i];
}

static const struct backend_ops fake_backend;

static void fake_start(struct request *request, struct worker *worker, struct reply *reply) {
    struct step step =
        world.steps[world.attempts < (int)world.step_count ? world.attempts
                                                           : (int)world.step_count - 1];
    (void)request;
    *reply = (struct reply){.ops = &fake_backend,
                            .failure = step.failure,
                            .status = step.status,
                            .headers = step.retry_after ? &patient_headers : &no_headers};
    if (step.failure != ATTEMPT_OK)
        reply->problem.id =
            step.failure == ATTEMPT_CANCELLED ? PROBLEM_CLIENT_GONE : PROBLEM_UPSTREAM_CONNECT;
    assert_int_equal(worker_load(worker), 1);
    assert_int_equal(world.finished, world.attempts); /* nothing of the one before is still held */
    world.tried[world.attempts++] = index_of(worker);
}

static void fake_finish(struct reply *reply) {
    (void)reply;
    world.finished++;
}

static const struct backend_ops fake_backend = {.start = fake_start, .finish = fake_finish};

static int fake_sleep(int64_t ms) {
    for (size_t i = 0; i < world.workers; i++)
        assert_int_equal(worker_load(workers[i]), 0); /* no place is held while it waits */
    world.sleeps[world.sleep_count++] = ms;
    world.now += ms;
    world.cancelled = world.sleep_count == world.cancel_in_sleep;
    return world.cancelled ? -1 : 0;
}

static int64_t fake_left(deadline_ms deadline) {
    return deadline > world.now ? deadline - world.now : 0;
}

static void fake_count_retry(const struct request *request, uint32_t attempt, int64_t wait) {
    (void)request;
    assert_int_equal(attempt, world.attempts);
    world.retry_waits[world.retries++] = wait;
}

static bool fake_cancelled(const struct fiber *fiber) {
    (void)fiber;
    return world.cancelled;
}

static void fake_count_exhausted(const struct request *request) {
    (void)request;
    world.exhausted++;
}

static void fake_count_attempt(const struct request *request, const struct worker *worker,
                               const struct reply *reply) {
    (void)request, (void)worker, (void)reply;
}

static void fake_suspect(struct worker *worker) {
    (void)worker;
    world.suspected++;
}

static struct policy *fake_policy(const struct gateway *gateway) {
    (void)gateway;
    return NULL;
}

#define policy_choose fake_choose
#define backend_http_regular fake_backend
#define fiber_sleep fake_sleep
#define fiber_cancelled fake_cancelled
#define deadline_left fake_left
#define count_retry fake_count_retry
#define count_exhausted fake_count_exhausted
#define count_attempt fake_count_attempt
#define fleet_suspect fake_suspect
#define gateway_policy fake_policy
#include "gateway/dispatch.c"

/* --- the scene --- */

static struct fleet_settings fleet_settings = {.breaker = {false, 1000, 1, 30000, 60000},
                                               .upstream_idle_per_worker = 1,
                                               .connect_timeout_s = 1};
static struct gateway_settings settings;
static struct request request;
static struct dispatched dispatched;

static struct worker *make_worker(int i, const char *json) {
    struct arena *arena = arena_new();
    struct worker_spec spec;
    struct spec_fault fault;
    char url[64], body[512], id[UUID_LEN + 1];
    snprintf(url, sizeof url, "http://127.0.0.1:%d", 9000 + i);
    snprintf(body, sizeof body, "{\"url\":\"%s\"%s}", url, json);
    assert_int_equal(worker_spec_read(arena, str_from(body), &spec, &fault), 0);
    uuid_v7(id);
    struct worker_plan plan = {
        .id = id, .revision = 1, .index = (uint32_t)i, .spec = &spec, .settings = &fleet_settings};
    struct worker *worker = worker_build(&plan);
    atomic_store(&worker->run->status, WORKER_READY);
    arena_free(arena);
    return worker;
}

static void workers_drop(void) {
    for (int i = 0; i < WORKERS; i++) {
        if (workers[i] != NULL)
            assert_int_equal(atomic_load(&workers[i]->refs), 1);
        worker_unref(workers[i]);
        workers[i] = NULL;
    }
}

/* `count` workers with further fields of a specification. */
static void scene(int count, const char *json) {
    workers_drop();
    memset(&world, 0, sizeof world);
    for (int i = 0; i < count; i++)
        workers[i] = make_worker(i, json);
    world.workers = (size_t)count;
    settings = (struct gateway_settings){
        .retry = {.max_attempts = 5, .initial_ms = 100, .max_ms = 350, .multiplier = 2}};
    arena_free(request.arena);
    request = (struct request){.settings = &settings, .arena = arena_new(), .deadline = INT64_MAX};
    request.facts = (struct facts){.model = STR("unknown"), .tokens = 7};
}

static void steps(size_t count, const struct step *list) {
    memcpy(world.steps, list, count * sizeof *list);
    world.step_count = count;
}
#define STEPS_ARE(...)                                                                             \
    do {                                                                                           \
        const struct step list_[] = {__VA_ARGS__};                                                 \
        steps(sizeof list_ / sizeof *list_, list_);                                                \
    } while (0)

static void check_given_back(void) {
    assert_int_equal(world.finished, world.attempts);
    for (size_t i = 0; i < world.workers; i++) {
        assert_int_equal(worker_load(workers[i]), 0);
        assert_int_equal(atomic_load(&workers[i]->run->tokens), 0);
        assert_int_equal(atomic_load(&workers[i]->refs), 1);
    }
}

static void go(void) { dispatch_run(&request, &dispatched); }

static void end(void) {
    dispatch_end(&dispatched, dispatch_outcome(&dispatched));
    check_given_back();
}

/* --- the loop --- */

static void first_answer_is_taken(void **state) {
    (void)state;
    static const int finals[] = {200, 204, 301, 400, 401, 404, 413, 422, 501, 505};
    for (size_t i = 0; i < sizeof finals / sizeof *finals; i++) {
        scene(2, "");
        STEPS_ARE({.status = finals[i]});
        go();
        assert_true(dispatched.answered && !dispatched.exhausted);
        assert_int_equal(world.attempts, 1);
        assert_int_equal(world.finished, 0); /* the reply is still to be relayed */
        assert_ptr_equal(dispatched.guard.worker, workers[0]);
        assert_int_equal(worker_load(workers[0]), 1);
        end();
    }
}

static void retryable_answers_go_around(void **state) {
    (void)state;
    static const struct step bad[] = {{.status = 408},
                                      {.status = 429},
                                      {.status = 500},
                                      {.status = 502},
                                      {.status = 503},
                                      {.status = 504},
                                      {ATTEMPT_BROKEN, 0, false},
                                      {ATTEMPT_CONNECT, 0, false}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        scene(3, "");
        STEPS_ARE(bad[i]);
        go();
        assert_int_equal(world.attempts, 5);
        assert_int_equal(world.retries, 4);
        assert_int_equal(world.exhausted, 1);
        assert_true(dispatched.exhausted);
        assert_int_equal(dispatched.answered, bad[i].failure == ATTEMPT_OK);
        static const int order[] = {0, 1, 2, 0, 0}; /* each one first, then any */
        assert_memory_equal(world.tried, order, sizeof order);
        assert_int_equal(world.suspected, bad[i].failure == ATTEMPT_CONNECT ? 5 : 0);
        assert_int_equal(request.outcome.attempts, 5);
        end();
    }
}

static void a_good_one_ends_it(void **state) {
    (void)state;
    scene(3, "");
    STEPS_ARE({.status = 500}, {ATTEMPT_BROKEN, 0, false}, {.status = 200});
    go();
    assert_true(dispatched.answered && !dispatched.exhausted);
    assert_int_equal(dispatched.reply.status, 200);
    assert_int_equal(world.attempts, 3);
    assert_int_equal(world.exhausted, 0);
    assert_true(str_eq(request.outcome.worker, STR("http://127.0.0.1:9002")));
    end();
}

static void final_failures(void **state) {
    (void)state;
    static const enum attempt_failure finals[] = {ATTEMPT_TIMED_OUT, ATTEMPT_NO_PLACE,
                                                  ATTEMPT_CANCELLED};
    for (size_t i = 0; i < sizeof finals / sizeof *finals; i++) {
        scene(2, "");
        STEPS_ARE({finals[i], 0, false});
        go();
        assert_int_equal(world.attempts, 1);
        assert_false(dispatched.answered || dispatched.exhausted);
        assert_int_equal(dispatched.problem.id, dispatched.reply.problem.id);
        end();
    }
}

static void nobody_there(void **state) {
    (void)state;
    scene(0, "");
    go();
    assert_int_equal(dispatched.problem.id, PROBLEM_NO_AVAILABLE_WORKERS);
    assert_int_equal(world.retries + world.sleep_count + world.exhausted, 0);
    end();
}

static void number_of_attempts(void **state) {
    (void)state;
    for (uint32_t most = 1; most <= 20; most++) {
        scene(2, "");
        settings.retry.max_attempts = most;
        STEPS_ARE({.status = 500});
        go();
        assert_int_equal(world.attempts, most);
        assert_int_equal(world.retries, most - 1);
        assert_int_equal(world.exhausted, 1);
        end();
    }
}

/* --- waiting --- */

static void waits_grow_to_the_ceiling(void **state) {
    (void)state;
    scene(1, "");
    STEPS_ARE({.status = 500});
    go();
    static const int64_t waits[] = {100, 200, 350, 350};
    assert_int_equal(world.sleep_count, 4);
    assert_memory_equal(world.sleeps, waits, sizeof waits);
    assert_memory_equal(world.retry_waits, waits, sizeof waits);
    end();
}

static void refused_goes_to_another_at_once(void **state) {
    (void)state;
    scene(3, "");
    STEPS_ARE({ATTEMPT_CONNECT, 0, false});
    go();
    static const int64_t waits[] = {0, 200, 350, 350};
    assert_memory_equal(world.retry_waits, waits, sizeof waits);
    assert_int_equal(world.sleep_count, 3);
    end();
    scene(1, ""); /* nobody else: wait */
    STEPS_ARE({ATTEMPT_CONNECT, 0, false});
    go();
    assert_int_equal(world.sleeps[0], 100);
    end();
    scene(3, ""); /* only for the first retry */
    STEPS_ARE({.status = 500}, {ATTEMPT_CONNECT, 0, false}, {.status = 200});
    go();
    assert_int_equal(world.sleep_count, 2);
    end();
}

static void no_retry_past_the_deadline(void **state) {
    (void)state;
    scene(2, "");
    request.deadline = 299; /* one wait of 100 fits, not another of 200 */
    STEPS_ARE({.status = 503});
    go();
    assert_int_equal(world.attempts, 2);
    assert_int_equal(world.retries, 1);
    assert_true(dispatched.answered && dispatched.exhausted); /* the last answer is what counts */
    assert_int_equal(dispatched.reply.status, 503);
    end();
    scene(2, "");
    request.deadline = 0;
    STEPS_ARE({ATTEMPT_CONNECT, 0, false});
    go();
    assert_int_equal(world.attempts, 1);
    end();
}

static void client_leaves_while_it_waits(void **state) {
    (void)state;
    for (int sleep = 1; sleep <= 4; sleep++) {
        scene(2, "");
        world.cancel_in_sleep = sleep;
        STEPS_ARE({.status = 500});
        go();
        assert_int_equal(world.attempts, sleep);
        assert_false(dispatched.answered || dispatched.exhausted);
        assert_int_equal(dispatched.problem.id, PROBLEM_CLIENT_GONE);
        check_given_back();
        end();
    }
    scene(2, "");
    world.cancelled = true;
    go();
    assert_int_equal(world.attempts, 0);
    end();
}

static void back_off_formula(void **state) {
    (void)state;
    static const struct {
        struct retry_plan plan;
        int64_t waits[6];
    } cases[] = {
        {{5, 50, 30000, 1.5, 0}, {50, 75, 112, 168, 253, 379}},
        {{5, 1, 5, 10, 0}, {1, 5, 5, 5, 5, 5}},
        {{5, 200, 100, 1, 0}, {100, 100, 100, 100, 100, 100}},
        {{5, 0, 100, 2, 0}, {0, 0, 0, 0, 0, 0}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (uint32_t k = 0; k < 6; k++)
            assert_int_equal(backoff_ms(&cases[i].plan, k + 1), cases[i].waits[k]);
    assert_int_equal(backoff_ms(&(struct retry_plan){5, 1, 9000, 1000, 0}, 4000), 9000);
}

static void jitter_stays_in_bounds(void **state) {
    (void)state;
    struct retry_plan plan = {5, 1000, 1000, 1, 0.2};
    int64_t least = INT64_MAX, most = 0;
    rand_seed_process(7);
    for (int i = 0; i < 5000; i++) {
        int64_t wait = backoff_ms(&plan, 1);
        least = wait < least ? wait : least;
        most = wait > most ? wait : most;
    }
    assert_true(least >= 800 && least < 805);
    assert_true(most <= 1200 && most > 1195);
    plan.jitter = 1;
    for (int i = 0; i < 5000; i++) {
        int64_t wait = backoff_ms(&plan, 1);
        assert_true(wait >= 0 && wait <= 2000);
    }
}

/* --- options of a worker --- */

static void a_worker_says_how_often(void **state) {
    (void)state;
    scene(1, ",\"resilience\":{\"max_retries\":2,\"initial_backoff_ms\":7,\"jitter_factor\":0}");
    STEPS_ARE({.status = 500});
    go();
    assert_int_equal(world.attempts, 2);
    assert_int_equal(world.sleeps[0], 7);
    end();
    scene(1, ",\"resilience\":{\"disable_retry\":true}");
    STEPS_ARE({.status = 500});
    go();
    assert_int_equal(world.attempts, 1);
    end();
    scene(1, ",\"resilience\":{\"max_backoff_ms\":60,\"backoff_multiplier\":9}");
    STEPS_ARE({.status = 500});
    go();
    static const int64_t waits[] = {60, 60, 60, 60};
    assert_memory_equal(world.sleeps, waits, sizeof waits);
    end();
}

static void model_of_the_books(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"m-1", "m-1"}, {"em", "m-1"}, {"m-2", "m-2"}, {"m-3", "unknown"}, {"unknown", "unknown"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        scene(1, ",\"models\":[{\"id\":\"m-1\",\"aliases\":[\"em\"]},{\"id\":\"m-2\"}]");
        request.facts.model = str_from(cases[i][0]);
        STEPS_ARE({.status = 200});
        go();
        assert_true(str_eq(request.outcome.model, str_from(cases[i][1])));
        end();
    }
}

/* --- what is told to the breaker --- */

static void outcome_classes(void **state) {
    (void)state;
    static const struct {
        struct step step;
        enum breaker_outcome plain, listed; /* listed: the worker names 429 and 418 */
    } cases[] = {
        {{.status = 200}, BREAKER_SUCCESS, BREAKER_SUCCESS},
        {{.status = 400}, BREAKER_SUCCESS, BREAKER_SUCCESS},
        {{.status = 418}, BREAKER_SUCCESS, BREAKER_FAILURE},
        {{.status = 408}, BREAKER_NEUTRAL, BREAKER_NEUTRAL},
        {{.status = 429}, BREAKER_NEUTRAL, BREAKER_FAILURE},
        {{.status = 500}, BREAKER_FAILURE, BREAKER_SUCCESS},
        {{.status = 502}, BREAKER_FAILURE, BREAKER_SUCCESS},
        {{.status = 504}, BREAKER_FAILURE, BREAKER_SUCCESS},
        {{.status = 501}, BREAKER_SUCCESS, BREAKER_SUCCESS},
        {{.status = 503}, BREAKER_FAILURE, BREAKER_SUCCESS},
        {{.status = 503, .retry_after = true}, BREAKER_NEUTRAL, BREAKER_NEUTRAL},
        {{.status = 500, .retry_after = true}, BREAKER_FAILURE, BREAKER_SUCCESS},
        {{ATTEMPT_CONNECT, 0, false}, BREAKER_FAILURE, BREAKER_FAILURE},
        {{ATTEMPT_BROKEN, 200, false}, BREAKER_FAILURE, BREAKER_FAILURE},
        {{ATTEMPT_TIMED_OUT, 0, false}, BREAKER_FAILURE, BREAKER_FAILURE},
        {{ATTEMPT_CANCELLED, 0, false}, BREAKER_NEUTRAL, BREAKER_NEUTRAL},
        {{ATTEMPT_NO_PLACE, 0, false}, BREAKER_NEUTRAL, BREAKER_NEUTRAL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int list = 0; list < 2; list++) {
            scene(1, list ? ",\"resilience\":{\"retryable_status_codes\":[429,418]}" : "");
            settings.retry.max_attempts = 1;
            STEPS_ARE(cases[i].step);
            go();
            enum breaker_outcome want = list ? cases[i].listed : cases[i].plain;
            if (dispatch_outcome(&dispatched) != want)
                fail_msg("case %zu, list %d: %d", i, list, dispatch_outcome(&dispatched));
            end();
        }
    }
}

static void every_attempt_is_told(void **state) {
    (void)state;
    scene(1, "");
    fleet_settings.breaker.failure_threshold = 3;
    workers_drop();
    workers[0] = make_worker(0, "");
    fleet_settings.breaker.failure_threshold = 1000;
    STEPS_ARE({.status = 500});
    go();
    /* three failures opened the circuit, so there was nobody for the fourth attempt */
    assert_int_equal(world.attempts, 3);
    assert_int_equal(breaker_state(&workers[0]->run->breaker), BREAKER_OPEN);
    assert_int_equal(dispatched.problem.id, PROBLEM_NO_AVAILABLE_WORKERS);
    assert_false(dispatched.answered);
    end();
}

static void release_tells_once(void **state) {
    (void)state;
    scene(1, "");
    STEPS_ARE({.status = 500});
    settings.retry.max_attempts = 1;
    go();
    dispatch_release(&dispatched);
    assert_int_equal(worker_load(workers[0]), 0);
    assert_int_equal(workers[0]->run->breaker.run_failures, 1);
    assert_int_equal(world.finished, 0); /* the reply is still there */
    assert_int_equal(dispatch_outcome(&dispatched), BREAKER_NEUTRAL);
    dispatch_end(&dispatched, BREAKER_FAILURE);
    assert_int_equal(workers[0]->run->breaker.run_failures, 1);
    check_given_back();
}

static int teardown(void **state) {
    (void)state;
    workers_drop();
    arena_free(request.arena);
    return 0;
}

static int setup(void **state) {
    (void)state;
    log_set_level(LOG_ERROR);
    struct arena *arena = arena_new();
    headers_add(&patient_headers, arena, STR("retry-after"), STR("1"));
    *state = arena;
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_answer_is_taken),
        cmocka_unit_test(retryable_answers_go_around),
        cmocka_unit_test(a_good_one_ends_it),
        cmocka_unit_test(final_failures),
        cmocka_unit_test(nobody_there),
        cmocka_unit_test(number_of_attempts),
        cmocka_unit_test(waits_grow_to_the_ceiling),
        cmocka_unit_test(refused_goes_to_another_at_once),
        cmocka_unit_test(no_retry_past_the_deadline),
        cmocka_unit_test(client_leaves_while_it_waits),
        cmocka_unit_test(back_off_formula),
        cmocka_unit_test(jitter_stays_in_bounds),
        cmocka_unit_test(a_worker_says_how_often),
        cmocka_unit_test(model_of_the_books),
        cmocka_unit_test(outcome_classes),
        cmocka_unit_test(every_attempt_is_told),
        cmocka_unit_test(release_tells_once),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
