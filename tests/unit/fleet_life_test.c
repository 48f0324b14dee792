/* The whole of the fleet on real loops, against small HTTP servers of its own. All scenarios run
 * one after the other on a fiber of the control loop; cmocka reports afterwards, because its way
 * of failing (longjmp) must not leave a fiber's stack. */
#include "fleet/registry.c"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/snapshot.h"

/* --- checking -------------------------------------------------------------------------------- */

static char first_fault[512];

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond) && first_fault[0] == 0)                                                        \
            snprintf(first_fault, sizeof first_fault, "line %d: %s", __LINE__, #cond);             \
    } while (0)

static FIBER_FN bool wait_for(bool (*is_so)(void *arg), void *arg, int64_t ms) {
    for (deadline_ms end = deadline_in(ms); !is_so(arg);) {
        if (deadline_left(end) == 0)
            return false;
        fiber_sleep(5);
    }
    return true;
}

static bool contains(struct str text, const char *words) {
    return str_find(text, str_from(words)) >= 0;
}

/* --- a fake worker --------------------------------------------------------------------------- */

struct fake {
    int fd;
    uint16_t port;
    pthread_t thread;
    char url[64];
    const char *model;
    _Atomic int health_status, delay_ms, info_delay_ms, probes, keyed;
    _Atomic bool stop;
};

static void answer_head(struct fake *fake, int fd, const char *head) {
    char body[256] = "", reply[512];
    int status = 404;
    const char *path = strchr(head, ' ') + 1;
    size_t len = strcspn(path, " ");
    const char *last = path;
    for (size_t i = 0; i < len; i++) {
        if (path[i] == '/')
            last = path + i;
    }
    if (strstr(head, "Bearer k3y"))
        atomic_fetch_add(&fake->keyed, 1);
    if (strncmp(last, "/health ", 8) == 0) {
        atomic_fetch_add(&fake->probes, 1);
        status = atomic_load(&fake->health_status);
        usleep((useconds_t)atomic_load(&fake->delay_ms) * 1000);
    } else if (strncmp(last, "/server_info ", 13) == 0) {
        status = 200;
        usleep((useconds_t)atomic_load(&fake->info_delay_ms) * 1000);
        snprintf(body, sizeof body, "{\"served_model_name\":\"%s\",\"tp_size\":2}", fake->model);
    } else if (strncmp(last, "/get_model_info ", 16) == 0) {
        status = 200;
        snprintf(body, sizeof body, "[\"an odd shape\"]");
    }
    int n = snprintf(reply, sizeof reply,
                     "HTTP/1.1 %d X\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s", status,
                     strlen(body), body);
    (void)!write(fd, reply, (size_t)n);
}

static void *fake_main(void *arg) {
    struct fake *fake = arg;
    for (;;) {
        int fd = accept(fake->fd, NULL, NULL);
        if (fd < 0 || atomic_load(&fake->stop)) {
            close(fd);
            return NULL;
        }
        char head[4096];
        size_t len = 0;
        ssize_t n;
        while (len < sizeof head - 1 && (n = read(fd, head + len, sizeof head - 1 - len)) > 0) {
            len += (size_t)n;
            head[len] = 0;
            if (strstr(head, "\r\n\r\n") != NULL) {
                answer_head(fake, fd, head);
                break;
            }
        }
        close(fd);
    }
}

/* Listens on `port` (0: any); the URL is known afterwards. */
static void fake_start(struct fake *fake, uint16_t port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    socklen_t size = sizeof address;
    int on = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    fake->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fake->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    CHECK(bind(fake->fd, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(listen(fake->fd, 512) == 0);
    getsockname(fake->fd, (struct sockaddr *)&address, &size);
    fake->port = ntohs(address.sin_port);
    snprintf(fake->url, sizeof fake->url, "http://127.0.0.1:%d", fake->port);
    atomic_store(&fake->stop, false);
    if (atomic_load(&fake->health_status) == 0)
        atomic_store(&fake->health_status, 200);
    CHECK(pthread_create(&fake->thread, NULL, fake_main, fake) == 0);
}

static void fake_stop(struct fake *fake) {
    atomic_store(&fake->stop, true);
    shutdown(fake->fd, SHUT_RDWR);
    pthread_join(fake->thread, NULL);
    close(fake->fd);
}

/* --- the fleet under test -------------------------------------------------------------------- */

static struct fake listed = {.model = "m-one"}, second = {.model = "m-two"};
static const char *urls[2];
static struct fleet_settings test_settings = {
    .worker_urls = urls,
    .worker_url_count = 1,
    .api_key = "k3y",
    .startup_timeout_s = 20,
    .startup_check_interval_s = 1,
    .health = {.failure_threshold = 1,
               .success_threshold = 1,
               .timeout_s = 1,
               .interval_s = 1,
               .endpoint = "/health"},
    .drain_settle_s = 3,
    .breaker = {false, 5, 2, 30000, 60000},
    .policy = "round_robin",
    .upstream_idle_per_worker = 4,
    .upstream_idle_ms = 4000,
    .connect_timeout_s = 1,
    .request_timeout_s = 60,
};

static struct arena *arena;
static struct registry_answer out;

static bool ready_is(void *arg) { return fleet_ready_count(ROLE_REGULAR) == *(size_t *)arg; }
static FIBER_FN bool ready_becomes(size_t count, int64_t ms) {
    return wait_for(ready_is, &count, ms);
}

static struct str body_of(const char *url, const char *more) {
    return arena_printf(arena, "{\"url\":\"%s\"%s}", url, more);
}

static FIBER_FN struct str get(const char *name) {
    registry_get(arena, str_from(name), &out);
    return out.verdict == REGISTRY_DONE ? out.json : STR("");
}

static struct worker *live(const char *url) {
    struct roster_entry *entry = roster_by_url(str_from(url));
    return entry ? entry->worker : NULL;
}

static int see_worker(void *arg) { return fleet_find(fleet_now(), str_from(arg)) != NULL; }

/* --- scenarios ------------------------------------------------------------------------------- */

static FIBER_FN void a_listed_worker_comes_in(void) {
    CHECK(fleet_expected_count() == 1); /* at once: /readiness tells how many are on their way */
    CHECK(ready_becomes(1, 3000));
    CHECK(fleet_expected_count() == 1);
    for (unsigned i = 0; i < loops_count(); i++) /* counted as ready: every loop can choose it */
        CHECK(loop_call(loop_at(i), see_worker, listed.url));
    struct str json = get(live(listed.url)->id);
    CHECK(contains(json, "\"model_id\":\"m-one\""));
    CHECK(contains(json, "\"models\":[{\"id\":\"m-one\",\"model_type\":[\"chat\""));
    CHECK(contains(json, "\"tp_size\":\"2\""));
    CHECK(contains(json, "\"metadata\":{"));
    CHECK(contains(json, "\"status\":\"ready\""));
    CHECK(contains(json, "\"is_healthy\":true"));
    CHECK(contains(json, "\"runtime_type\":\"sglang\""));
    CHECK(!contains(json, "k3y"));
    CHECK(!contains(json, "job_status"));
    CHECK(atomic_load(&listed.keyed) >= 4); /* the gateway's key is inherited and sent */
}

static FIBER_FN void a_worker_that_is_down_is_waited_for(void) {
    char id[UUID_LEN + 1];
    fake_start(&second, 0);
    fake_stop(&second);
    registry_post(arena, body_of(second.url, ",\"labels\":{\"a\":\"1\"}"), &out);
    CHECK(out.verdict == REGISTRY_DONE);
    CHECK(str_eq(out.url, str_from(second.url)));
    memcpy(id, out.id, sizeof id);
    CHECK(fleet_expected_count() == 2);
    fiber_sleep(200);
    struct str json = get(id);
    CHECK(contains(json, "\"status\":\"pending\""));
    CHECK(contains(json, "\"job_type\":\"AddWorker\""));
    CHECK(contains(json, "\"status\":\"processing\""));
    CHECK(contains(json, "GET /health"));
    CHECK(contains(json, "attempt 1 of 18"));
    fake_start(&second, second.port);
    CHECK(ready_becomes(2, 4000));
    json = get(second.url);
    CHECK(contains(json, id));
    CHECK(contains(json, "\"a\":\"1\""));
    CHECK(atomic_load(&second.keyed) == 0); /* dynamic workers do not inherit the key */
}

static FIBER_FN void bad_calls_are_told_apart(void) {
    registry_post(arena, body_of(listed.url, ""), &out);
    CHECK(out.verdict == REGISTRY_EXISTS);
    registry_post(arena, STR("{"), &out);
    CHECK(out.verdict == REGISTRY_BAD_JSON);
    registry_post(arena, body_of("http://w", ",\"priority\":-1"), &out);
    CHECK(out.verdict == REGISTRY_BAD_FIELD && contains(out.message, "priority"));
    registry_post(arena, body_of("grpc://w:1", ""), &out);
    CHECK(out.verdict == REGISTRY_BAD_REQUEST && contains(out.message, "gRPC issue"));
    registry_post(arena, body_of("http://169.254.169.254", ""), &out);
    CHECK(out.verdict == REGISTRY_BAD_REQUEST && contains(out.message, "link-local"));
    registry_get(arena, STR("6f0c0000-0000-7000-8000-000000000000"), &out);
    CHECK(out.verdict == REGISTRY_NOT_FOUND);
    CHECK(str_eq(out.message, STR("Worker 6f0c0000-0000-7000-8000-000000000000 not found")));
    registry_delete(arena, STR("http://127.0.0.1:1"), &out);
    CHECK(out.verdict == REGISTRY_NOT_FOUND);
    registry_get(arena, STR("nonsense"), &out);
    CHECK(out.verdict == REGISTRY_BAD_REQUEST);
    registry_get(arena, STR("%zz"), &out);
    CHECK(out.verdict == REGISTRY_BAD_REQUEST);
    registry_get(arena, STR(""), &out);
    CHECK(out.verdict == REGISTRY_BAD_REQUEST);
    CHECK(registry_status(REGISTRY_EXISTS) == 409);
    CHECK(strcmp(registry_code(REGISTRY_EXISTS), "WORKER_ALREADY_EXISTS") == 0);
}

static FIBER_FN void names_in_the_path(void) {
    char name[128], upper[UUID_LEN + 1];
    const char *id = live(listed.url)->id;
    for (size_t i = 0; i <= UUID_LEN; i++)
        upper[i] = id[i] >= 'a' && id[i] <= 'f' ? (char)(id[i] - 32) : id[i];
    CHECK(contains(get(upper), id));
    CHECK(contains(get(listed.url), id));
    snprintf(name, sizeof name, "http%%3A%%2F%%2F127.0.0.1%%3a%d", listed.port);
    CHECK(contains(get(name), id));
    snprintf(name, sizeof name, "http:/127.0.0.1:%d", listed.port);
    CHECK(contains(get(name), id));
    snprintf(name, sizeof name, "http:/127.0.0.1:%d/", listed.port);
    CHECK(contains(get(name), id));
    snprintf(name, sizeof name, "http://127.0.0.1:%d//", listed.port);
    CHECK(get(name).len == 0); /* one slash is dropped, not two */
    snprintf(name, sizeof name, "127.0.0.1:%d", listed.port);
    CHECK(contains(get(name), id));
    snprintf(name, sizeof name, "https://127.0.0.1:%d", listed.port);
    CHECK(get(name).len == 0);
}

static bool no_job(void *arg) {
    struct job_status status;
    return !jobs_status(str_from(arg), &status);
}

static FIBER_FN void updates_copy_then_modify(void) {
    struct worker *before = worker_ref(live(second.url));
    registry_patch(arena, str_from(second.url),
                   STR("{\"priority\":7,\"labels\":{\"b\":\"2\"},\"api_key\":\"n3w\"}"), &out);
    CHECK(out.verdict == REGISTRY_DONE && strcmp(out.id, before->id) == 0);
    registry_put(arena, str_from(second.url), STR("{\"cost\":0.5}"), &out); /* no url: as PATCH */
    CHECK(out.verdict == REGISTRY_DONE);
    CHECK(wait_for(no_job, second.url, 2000));
    struct worker *after = live(second.url);
    CHECK(after != before && after->run == before->run && after->peer == before->peer);
    CHECK(after->revision == before->revision + 2 && after->index == before->index);
    CHECK(worker_status(after) == WORKER_READY);
    struct str json = get(second.url);
    CHECK(contains(json, "\"priority\":7") && contains(json, "\"cost\":0.5"));
    CHECK(contains(json, "\"a\":\"1\"") && contains(json, "\"b\":\"2\""));
    CHECK(contains(json, "\"model_id\":\"m-two\"") && !contains(json, "n3w"));
    CHECK(str_eq(after->auth_line, STR("Authorization: Bearer n3w\r\n")));
    registry_patch(arena, str_from(second.url), STR("{\"cost\":-1}"), &out);
    CHECK(out.verdict == REGISTRY_BAD_FIELD);
    registry_put(arena, str_from(second.url), body_of("http://other", ""), &out);
    CHECK(out.verdict == REGISTRY_BAD_REQUEST && contains(out.message, "own URL"));
    second.model = "m-three";
    registry_put(arena, str_from(second.url), body_of(second.url, ",\"priority\":9"), &out);
    CHECK(out.verdict == REGISTRY_DONE);
    CHECK(wait_for(no_job, second.url, 2000));
    json = get(second.url);
    CHECK(contains(json, "\"priority\":9") && contains(json, "\"cost\":1.0"));
    CHECK(!contains(json, "\"a\":\"1\"") && contains(json, "\"model_id\":\"m-three\""));
    CHECK(fleet_ready_count(ROLE_REGULAR) == 2);
    worker_unref(before);
}

static FIBER_FN void lists(void) {
    registry_list(arena, STR_NONE, &out);
    CHECK(contains(out.json, "\"total\":2"));
    CHECK(contains(out.json,
                   "\"stats\":{\"prefill_count\":0,\"decode_count\":0,\"regular_count\":2}"));
    CHECK(!contains(out.json, "k3y"));
    registry_list(arena, STR("m-three"), &out);
    CHECK(contains(out.json, "\"total\":1") && contains(out.json, second.url));
    registry_list(arena, STR("nobody's"), &out);
    CHECK(contains(out.json, "{\"workers\":[],\"total\":0"));
    registry_urls(arena, &out);
    CHECK(str_eq(out.json,
                 arena_printf(arena, "{\"urls\":[\"%s\",\"%s\"]}", listed.url, second.url)));
}

static FIBER_FN void removal_drains(void) {
    char id[UUID_LEN + 1];
    struct worker_guard guard;
    struct worker *worker = live(second.url);
    memcpy(id, worker->id, sizeof id);
    CHECK(worker_guard_begin(&guard, worker, 1));
    registry_delete(arena, str_from(id), &out);
    CHECK(out.verdict == REGISTRY_DONE);
    fiber_sleep(150);
    struct str json = get(id);
    CHECK(contains(json, "\"status\":\"draining\"") && contains(json, "RemoveWorker"));
    CHECK(contains(json, "1 requests in flight"));
    CHECK(fleet_ready_count(ROLE_REGULAR) == 1);
    int64_t released = clock_ms();
    worker_guard_end(&guard);
    CHECK(wait_for(no_job, second.url, 2000));
    CHECK(clock_ms() - released < 1000); /* not the whole settle time */
    CHECK(live(second.url) == NULL && fleet_expected_count() == 1);
    CHECK(get(id).len == 0 && out.verdict == REGISTRY_NOT_FOUND);
    registry_post(arena, body_of(second.url, ""), &out); /* the id stays reserved */
    CHECK(out.verdict == REGISTRY_DONE && strcmp(out.id, id) == 0);
    CHECK(ready_becomes(2, 3000));
}

static FIBER_FN void removal_waits_no_longer_than_the_settle_time(void) {
    struct worker_guard guard;
    CHECK(worker_guard_begin(&guard, live(second.url), 1));
    int64_t asked = clock_ms();
    registry_patch(arena, str_from(second.url), STR("{\"health\":{\"drain_settle_secs\":1}}"),
                   &out);
    CHECK(wait_for(no_job, second.url, 2000));
    registry_delete(arena, str_from(second.url), &out);
    CHECK(wait_for(no_job, second.url, 4000));
    CHECK(clock_ms() - asked >= 1000 && clock_ms() - asked < 2500);
    CHECK(live(second.url) == NULL);
    CHECK(worker_load(guard.worker) == 1); /* the request goes on */
    worker_guard_end(&guard);
}

static FIBER_FN void an_addition_waits_for_the_removal(void) {
    struct worker_guard guard;
    registry_post(arena, body_of(second.url, ""), &out);
    CHECK(ready_becomes(2, 3000));
    struct worker_run *before = live(second.url)->run;
    CHECK(worker_guard_begin(&guard, live(second.url), 1));
    registry_delete(arena, str_from(second.url), &out);
    fiber_sleep(100);
    registry_post(arena, body_of(second.url, ""), &out); /* it drains, but its URL is not taken */
    CHECK(out.verdict == REGISTRY_DONE);
    fiber_sleep(200);
    CHECK(worker_status(live(second.url)) == WORKER_DRAINING);
    worker_guard_end(&guard);
    CHECK(ready_becomes(2, 3000));
    CHECK(live(second.url)->run != before && live(second.url)->revision > 1);
    registry_delete(arena, str_from(second.url), &out);
    CHECK(ready_becomes(1, 2000));
    CHECK(wait_for(no_job, second.url, 1000));
}

static FIBER_FN void removal_ends_an_addition(void) {
    fake_stop(&second);
    registry_post(arena, body_of(second.url, ""), &out);
    fiber_sleep(100);
    registry_post(arena, body_of(second.url, ""), &out); /* twice: queued behind the first */
    CHECK(out.verdict == REGISTRY_DONE);
    CHECK(fleet_expected_count() == 2);
    registry_delete(arena, str_from(second.url), &out);
    CHECK(out.verdict == REGISTRY_DONE);
    CHECK(wait_for(no_job, second.url, 1000));
    CHECK(fleet_expected_count() == 1);
    fake_start(&second, second.port);
    fiber_sleep(1500);
    CHECK(live(second.url) == NULL);
}

static int legacy_on_data_loop(void *arg) {
    struct arena *own = arena_new();
    struct registry_answer answer;
    struct str url = str_from(arg);
    registry_legacy_add(own, url, STR("k3y"), &answer);
    bool ok = answer.verdict == REGISTRY_DONE && contains(answer.message, "Successfully added");
    ok = ok && fleet_find(fleet_now(), url) != NULL;
    registry_legacy_add(own, url, STR_NONE, &answer);
    ok = ok && answer.verdict == REGISTRY_EXISTS;
    registry_legacy_remove(own, url, &answer);
    ok = ok && answer.verdict == REGISTRY_DONE && contains(answer.message, "removed worker: http");
    ok = ok && fleet_find(fleet_now(), url) == NULL;
    registry_legacy_remove(own, url, &answer);
    ok = ok && answer.verdict == REGISTRY_NOT_FOUND;
    registry_legacy_add(own, STR("ftp://x"), STR_NONE, &answer);
    ok = ok && answer.verdict == REGISTRY_BAD_REQUEST;
    registry_legacy_add(own, url, STR("a b"), &answer);
    ok = ok && answer.verdict == REGISTRY_BAD_FIELD;
    arena_free(own);
    return ok;
}

static FIBER_FN void legacy_calls_wait(void) {
    CHECK(loop_call(loop_at(1), legacy_on_data_loop, second.url));
    CHECK(atomic_load(&second.keyed) > 0);
}

/* A legacy caller that is cancelled while it waits leaves nothing behind. */
static struct registry_answer cancelled_answer;
static _Atomic int cancelled_done;
static struct fiber *cancelled_fiber;
static FIBER_FN void legacy_main(void *arg) {
    struct arena *own = arena_new();
    cancelled_fiber = fiber_self();
    registry_legacy_add(own, str_from(arg), STR_NONE, &cancelled_answer);
    arena_free(own);
    atomic_store(&cancelled_done, 1);
}

static int cancel_it(void *arg) {
    (void)arg;
    fiber_cancel(cancelled_fiber);
    return 0;
}

static bool is_done(void *arg) {
    (void)arg;
    return atomic_load(&cancelled_done);
}

static FIBER_FN void a_legacy_caller_may_leave(void) {
    static char url[] = "http://127.0.0.1:9"; /* nobody listens */
    loop_spawn(loop_at(2), legacy_main, url);
    fiber_sleep(200);
    loop_call(loop_at(2), cancel_it, NULL);
    CHECK(wait_for(is_done, NULL, 1000));
    CHECK(cancelled_answer.verdict == REGISTRY_CANCELLED);
    CHECK(jobs_busy(str_from(url), JOB_ADD_WORKER)); /* the job goes on */
    registry_delete(arena, str_from(url), &out);
    CHECK(wait_for(no_job, url, 1000));
}

static enum worker_status watched;
static bool status_is_watched(void *arg) {
    return live(arg) != NULL && worker_status(live(arg)) == watched;
}

static FIBER_FN bool status_becomes(const char *url, enum worker_status status, int64_t ms) {
    watched = status;
    return wait_for(status_is_watched, (void *)(uintptr_t)url, ms);
}

static FIBER_FN void health_comes_and_goes(void) {
    atomic_store(&listed.health_status, 500);
    CHECK(status_becomes(listed.url, WORKER_NOT_READY, 3000));
    CHECK(fleet_ready_count(ROLE_REGULAR) == 0);
    CHECK(status_becomes(listed.url, WORKER_FAILED, 5000)); /* three more */
    uint64_t revision = live(listed.url)->revision;
    listed.model = "m-new";
    atomic_store(&listed.info_delay_ms, 200);
    atomic_store(&listed.health_status, 200);
    CHECK(status_becomes(listed.url, WORKER_READY, 6000));   /* not terminal */
    CHECK(str_eq(live(listed.url)->model_id, STR("m-new"))); /* asked again before it was ready */
    CHECK(live(listed.url)->revision == revision + 1);
    atomic_store(&listed.info_delay_ms, 0);
    CHECK(fleet_ready_count(ROLE_REGULAR) == 1);
}

static bool is_gone(void *arg) { return live(arg) == NULL; }

static FIBER_FN void failed_workers_may_be_removed(void) {
    test_settings.health.remove_unhealthy = true;
    registry_post(arena, body_of(second.url, ""), &out);
    CHECK(ready_becomes(2, 3000));
    atomic_store(&second.health_status, 503);
    CHECK(status_becomes(second.url, WORKER_NOT_READY, 3000));
    CHECK(wait_for(is_gone, second.url, 6000));
    CHECK(fleet_expected_count() == 1);
    test_settings.health.remove_unhealthy = false;
    atomic_store(&second.health_status, 200);
}

static bool probed_more_than(void *arg) { return atomic_load(&listed.probes) > *(int *)arg; }

static FIBER_FN void suspicion_probes_at_once(void) {
    registry_patch(arena, str_from(listed.url), STR("{\"health\":{\"check_interval_secs\":600}}"),
                   &out);
    CHECK(wait_for(no_job, listed.url, 2000));
    fiber_sleep(300);
    int before = atomic_load(&listed.probes);
    fiber_sleep(1300);
    CHECK(atomic_load(&listed.probes) == before); /* the interval is long now */
    for (int i = 0; i < 100; i++)
        fleet_suspect(live(listed.url));
    CHECK(wait_for(probed_more_than, &before, 1000));
    fiber_sleep(200);
    CHECK(atomic_load(&listed.probes) == before + 1); /* not a hundred times */
    CHECK(worker_status(live(listed.url)) == WORKER_READY);
}

static FIBER_FN void a_busy_worker_is_alive(void) {
    atomic_store(&listed.delay_ms, 1500); /* longer than a probe may take */
    fiber_sleep(HEALTH_SUSPECT_MS);       /* the last suspicion is over */
    int before = atomic_load(&listed.probes);
    worker_heard(live(listed.url), clock_ms());
    fleet_suspect(live(listed.url));
    fiber_sleep(1700);
    CHECK(atomic_load(&listed.probes) == before + 1);
    CHECK(worker_status(live(listed.url)) == WORKER_READY);
    atomic_store(&live(listed.url)->run->last_byte_ms, clock_ms() - 700000);
    fleet_suspect(live(listed.url));
    CHECK(status_becomes(listed.url, WORKER_NOT_READY, 3000));
    atomic_store(&listed.delay_ms, 0);
    fiber_sleep(1500); /* the slow answer is done with */
    fleet_suspect(live(listed.url));
    CHECK(status_becomes(listed.url, WORKER_READY, 3000));
}

static FIBER_FN void unprobed_workers_are_born_ready(void) {
    registry_post(arena, body_of("http://127.0.0.1:9", ",\"disable_health_check\":true"), &out);
    CHECK(ready_becomes(2, 6000)); /* nobody listens there */
    CHECK(contains(get("http://127.0.0.1:9"), "\"model_id\":\"unknown\""));
    CHECK(contains(get("http://127.0.0.1:9"), "\"models\":[]"));
    registry_delete(arena, STR("http://127.0.0.1:9"), &out);
    CHECK(ready_becomes(1, 2000));
}

static bool has_failed(void *arg) {
    struct job_status status;
    return jobs_status(str_from(arg), &status) && status.state == JOB_FAILED;
}

/* The message of the failed addition of this URL. */
static FIBER_FN struct str failure_of(const char *url, const char *more) {
    registry_post(arena, body_of(url, more), &out);
    if (out.verdict != REGISTRY_DONE)
        return out.message;
    CHECK(wait_for(has_failed, (void *)(uintptr_t)url, 3000));
    CHECK(contains(get(url), "\"status\":\"failed\""));
    CHECK(contains(out.json, "\"is_healthy\":false"));
    return out.json;
}

static FIBER_FN void additions_fail_visibly(void) {
    struct str text = failure_of("http://127.0.0.1:9", ",\"max_connection_attempts\":1");
    CHECK(contains(text, "GET /health failed"));
    CHECK(contains(text, "attempt 1 of 1"));
    CHECK(fleet_expected_count() == 1);
    CHECK(contains(failure_of("https://127.0.0.1:9", ""), "TLS issue"));
    test_settings.strict_urls = true;
    CHECK(contains(failure_of("http://127.0.0.1:8", ""), "--strict-urls")); /* at once */
    CHECK(out.verdict == REGISTRY_BAD_REQUEST);
    CHECK(contains(failure_of("http://localhost:8", ""), "--strict-urls")); /* once resolved */
    test_settings.strict_urls = false;
    registry_post(arena, body_of(second.url, ""), &out);
    registry_post(arena, body_of(second.url, ""), &out); /* not registered yet, so it is taken */
    CHECK(out.verdict == REGISTRY_DONE);
    CHECK(wait_for(has_failed, second.url, 3000));
    CHECK(contains(get(second.url), "is registered already"));
    CHECK(contains(out.json, "\"status\":\"ready\"")); /* the first one stands */
    registry_delete(arena, str_from(second.url), &out);
    CHECK(ready_becomes(1, 2000));
    CHECK(wait_for(no_job, second.url, 1000));
}

static FIBER_FN void a_listed_worker_is_tried_again(void) {
    fake_stop(&second);
    test_settings.startup_timeout_s = 1;
    lifecycle_add_listed(str_from(second.url));
    CHECK(fleet_expected_count() == 2);
    CHECK(wait_for(has_failed, second.url, 5000));
    CHECK(fleet_expected_count() == 1);
    test_settings.startup_timeout_s = 20;
    struct roster_entry *entry = roster_by_url(str_from(second.url));
    CHECK(list_linked(&entry->retry.link)); /* in five minutes */
    CHECK(deadline_left(entry->retry.expires) > 290000);
    fake_start(&second, second.port);
    timer_clear(&entry->retry);
    entry->retry.fire(&entry->retry);
    CHECK(ready_becomes(2, 3000));
    CHECK(atomic_load(&second.keyed) > 0);
    registry_delete(arena, str_from(second.url), &out);
    CHECK(ready_becomes(1, 2000));
    CHECK(wait_for(no_job, second.url, 1000));
    CHECK(!entry->listed);
}

static FIBER_FN void the_first_probe_can_be_put_off(void) {
    test_settings.startup_delay_s = 1;
    int64_t asked = clock_ms();
    registry_post(arena, body_of(second.url, ""), &out);
    CHECK(ready_becomes(2, 3000));
    CHECK(clock_ms() - asked >= 1000);
    test_settings.startup_delay_s = 0;
    registry_delete(arena, str_from(second.url), &out);
    CHECK(ready_becomes(1, 2000));
}

enum { CROWD = JOBS_CAPACITY + JOBS_PLACES + 100 };

/* Workers that take connections and never answer: their probes hold all places for a second. */
static FIBER_FN void submitters_wait_for_room(void) {
    struct fake mute = {.model = ""};
    char url[96];
    fake_start(&mute, 0);
    atomic_store(&mute.delay_ms, 3000);
    int64_t asked = clock_ms();
    for (int i = 0; i < CROWD; i++) {
        snprintf(url, sizeof url, "%s/w%d", mute.url, i);
        registry_post(arena, body_of(url, ""), &out);
        CHECK(out.verdict == REGISTRY_DONE);
    }
    CHECK(clock_ms() - asked >= 500); /* until the first places came free */
    CHECK(fleet_expected_count() == CROWD + 1);
    for (int i = 0; i < CROWD; i++) {
        snprintf(url, sizeof url, "%s/w%d", mute.url, i);
        registry_delete(arena, str_from(url), &out);
        CHECK(out.verdict == REGISTRY_DONE);
    }
    CHECK(wait_for(no_job, url, 5000));
    CHECK(fleet_expected_count() == 1);
    atomic_store(&mute.delay_ms, 0);
    fake_stop(&mute);
}

enum { BURST = 400 };
static bool all_in(void *arg) {
    (void)arg;
    return fleet_ready_count(ROLE_REGULAR) == BURST + 1;
}

static FIBER_FN void a_burst_is_coalesced(void) {
    char url[96];
    uint64_t version = fleet_now()->version;
    for (int i = 0; i < BURST; i++) {
        snprintf(url, sizeof url, "http://127.0.0.1:%d/w%d", second.port, i);
        registry_post(arena, body_of(url, ",\"health\":{\"check_interval_secs\":600}"), &out);
        CHECK(out.verdict == REGISTRY_DONE);
    }
    CHECK(fleet_expected_count() == BURST + 1);
    CHECK(wait_for(all_in, NULL, 20000));
    CHECK(fleet_now()->version > version);
    CHECK(fleet_now()->all.count == BURST + 1);
    registry_list(arena, STR_NONE, &out);
    CHECK(contains(out.json, "\"total\":401"));
    for (int i = 0; i < BURST; i++) {
        snprintf(url, sizeof url, "http://127.0.0.1:%d/w%d", second.port, i);
        registry_delete(arena, str_from(url), &out);
        CHECK(out.verdict == REGISTRY_DONE);
    }
    CHECK(ready_becomes(1, 20000));
    CHECK(fleet_expected_count() == 1);
}

static size_t worker_series, pool_size, active;
static void count_series(void *arg, const struct metric_sample *sample) {
    (void)arg;
    const struct metric_family *family = &metric_families[sample->family];
    for (size_t i = 0; i < family->label_count; i++)
        worker_series += strncmp(sample->label_values[i], "http://", 7) == 0 &&
                         strcmp(sample->label_values[i], listed.url) != 0;
    if (sample->family == METRIC_SMG_WORKER_POOL_SIZE)
        pool_size += (size_t)sample->value;
    if (sample->family == METRIC_SGL_ACTIVE_WORKERS)
        active = (size_t)sample->value;
}

static FIBER_FN void series_of_removed_workers_go(void) {
    fiber_sleep(300); /* the last snapshot that shows them */
    worker_series = pool_size = active = 0;
    metric_collect(count_series, NULL);
    CHECK(worker_series == 0);
    CHECK(pool_size == 1 && active == 1);
}

static FIBER_FN void stopping_ends_everything(void) {
    static char url[] = "http://127.0.0.1:9";
    registry_post(arena, body_of(url, ""), &out); /* one that waits */
    fiber_sleep(50);
    fleet_stop();
    CHECK(fleet_ready_count(ROLE_REGULAR) == 0 && fleet_expected_count() == 0);
    registry_post(arena, body_of(url, ""), &out);
    CHECK(out.verdict == REGISTRY_STOPPED);
    registry_get(arena, str_from(url), &out);
    CHECK(out.verdict == REGISTRY_STOPPED);
}

/* --- the frame ------------------------------------------------------------------------------- */

#define SCENARIOS(X)                                                                               \
    X(a_listed_worker_comes_in)                                                                    \
    X(a_worker_that_is_down_is_waited_for)                                                         \
    X(bad_calls_are_told_apart)                                                                    \
    X(names_in_the_path)                                                                           \
    X(updates_copy_then_modify)                                                                    \
    X(lists)                                                                                       \
    X(removal_drains)                                                                              \
    X(removal_waits_no_longer_than_the_settle_time)                                                \
    X(an_addition_waits_for_the_removal)                                                           \
    X(removal_ends_an_addition)                                                                    \
    X(legacy_calls_wait)                                                                           \
    X(a_legacy_caller_may_leave)                                                                   \
    X(health_comes_and_goes)                                                                       \
    X(failed_workers_may_be_removed)                                                               \
    X(suspicion_probes_at_once)                                                                    \
    X(a_busy_worker_is_alive)                                                                      \
    X(unprobed_workers_are_born_ready)                                                             \
    X(additions_fail_visibly)                                                                      \
    X(a_listed_worker_is_tried_again)                                                              \
    X(the_first_probe_can_be_put_off)                                                              \
    X(submitters_wait_for_room)                                                                    \
    X(a_burst_is_coalesced)                                                                        \
    X(series_of_removed_workers_go)                                                                \
    X(stopping_ends_everything)

enum {
#define NUMBER(fn) NUMBER_##fn,
    SCENARIOS(NUMBER)
#undef NUMBER
        SCENARIO_COUNT
};
static char faults[SCENARIO_COUNT][sizeof first_fault];

static FIBER_FN void run_all(void *arg) {
    (void)arg;
    fleet_start(&test_settings);
#define RUN(fn)                                                                                    \
    first_fault[0] = 0;                                                                            \
    fn();                                                                                          \
    memcpy(faults[NUMBER_##fn], first_fault, sizeof first_fault);
    SCENARIOS(RUN)
#undef RUN
    loops_stop();
}

#define REPORT(fn)                                                                                 \
    static void test_##fn(void **state) {                                                          \
        (void)state;                                                                               \
        if (faults[NUMBER_##fn][0])                                                                \
            fail_msg("%s", faults[NUMBER_##fn]);                                                   \
    }
SCENARIOS(REPORT)

int main(void) {
    log_set_level(getenv("VERBOSE") ? LOG_DEBUG : LOG_ERROR + 1);
    arena = arena_new();
    fake_start(&listed, 0);
    urls[0] = listed.url;
    if (loops_start(2, NULL, NULL))
        return 1;
    fiber_spawn(run_all, NULL);
    loops_run();
    fake_stop(&listed);
    fake_stop(&second);
    arena_free(arena);
#define TEST(fn) cmocka_unit_test(test_##fn),
    const struct CMUnitTest tests[] = {SCENARIOS(TEST)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
