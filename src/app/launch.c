/* See launch.h. Order of start: settings, log, descriptors, loops, fleet (its jobs run in the
 * background), listeners. Serving does not wait for workers. */
#include "app/launch.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "app/config.h"
#include "app/help.h"
#include "base/log.h"
#include "base/rand.h"
#include "fleet/registry.h"
#include "gateway/gateway.h"
#include "io/offload.h"
#include "io/signals.h"
#include "version.h"

#define OFFLOAD_QUEUE 1024

struct app {
    const struct settings *settings;
    struct config *config;
    struct gateway *gateway;
    struct policy *policy;
    uint64_t descriptors_before, descriptors_now;
    int stop_signal; /* of the first one; 0 while we serve */
};

/* --- stopping --- */

static int64_t settle_ms(const struct app *app) {
    int64_t settle = app->settings->gateway.shutdown_settle_ms;
    int64_t half = app->settings->gateway.shutdown_grace_ms / 2;
    if (app->stop_signal == SIGINT || gateway_unwatched(app->gateway))
        return 0;
    return settle < half ? settle : half;
}

static FIBER_FN void stop_fiber(void *arg) {
    struct app *app = arg;
    int64_t settle = settle_ms(app);
    gateway_stop(app->gateway, settle, app->settings->gateway.shutdown_grace_ms - settle);
    fleet_stop();
    log_info("app", "stopped");
    loops_stop();
}

static void on_stop_signal(void *arg, int signo) {
    struct app *app = arg;
    if (app->stop_signal != 0) {
        log_warn("app", "second signal: cutting the drain", F_INT("signal", signo));
        log_stop();
        _exit(128 + signo);
    }
    app->stop_signal = signo;
    log_info("app", "stopping", F_INT("signal", signo));
    fiber_spawn(stop_fiber, app);
}

/* These would end the process, which is not what whoever sends them wants. */
static void on_later_signal(void *arg, int signo) {
    (void)arg;
    log_warn("app", "this signal asks for what a later version brings; nothing was done",
             F_CSTR("asks_for", signo == SIGHUP ? "reload" : "upgrade"), F_INT("signal", signo));
}

static void signals_take(struct app *app) {
    static const int stop[] = {SIGINT, SIGTERM, SIGQUIT}, later[] = {SIGHUP, SIGUSR2};
    for (size_t i = 0; i < sizeof stop / sizeof *stop; i++)
        signals_on(stop[i], on_stop_signal, app);
    for (size_t i = 0; i < sizeof later / sizeof *later; i++)
        signals_on(later[i], on_later_signal, app);
}

/* --- starting --- */

static void say_start(const struct app *app) {
    const struct gateway_settings *settings = &app->settings->gateway;
    bool six = strchr(settings->host, ':') != NULL;
    char text[512];
    snprintf(text, sizeof text,
             "Starting router on %s%s%s:%u | mode: regular | policy: %s | max_payload: %lluMB | "
             "descriptors: %llu -> %llu",
             six ? "[" : "", settings->host, six ? "]" : "", settings->port,
             policy_name(app->policy), (unsigned long long)(settings->limits.max_body >> 20),
             (unsigned long long)app->descriptors_before, (unsigned long long)app->descriptors_now);
    log_info("app", text, F_INT("data_loops", settings->runtime_threads),
             F_CSTR("version", SLUICE_VERSION));
    const char *note;
    for (size_t i = 0; (note = config_note(app->config, i)) != NULL; i++)
        log_warn("app", note);
}

static int limits_apply(const struct gateway_settings *settings) {
    listener_limit(settings->limits.max_connections);
    http_client_limits(settings->limits.upstream_idle_total, settings->limits.max_upstream);
    http_body_budget(settings->limits.memory_bytes);
    if (settings->metrics.buckets.len == 0)
        return 0;
    return metric_set_buckets(settings->metrics.buckets.items, settings->metrics.buckets.len);
}

/* On the terminal and in the log: a service manager shows the one, people search the other. */
static int fail(const char *what) {
    log_error("app", what);
    fprintf(stderr, "sluice: %s\n", what);
    return 1;
}

static void policy_make(struct app *app) {
    const struct policy_ops *ops = policy_find(str_from(app->settings->gateway.policy));
    if (ops == NULL)
        ops = policy_find(STR("round_robin"));
    if (!ops->implemented)
        log_warn("app", "this policy comes with a later version; round_robin serves",
                 F_CSTR("policy", ops->name));
    app->policy = policy_new(ops);
}

static void on_loop_start(void *arg) {
    (void)arg;
    rand_seed_thread(loop_index(loop_here()));
}

/* All that comes before there are threads. */
static int prepare(struct app *app) {
    const struct settings *settings = app->settings;
    rand_seed_process(settings->seed_given ? settings->seed : 0);
    signals_init();
    descriptors_raise(&app->descriptors_before, &app->descriptors_now);
    if (limits_apply(&settings->gateway) < 0) /* before the first series is made */
        return fail("--prometheus-duration-buckets: the bounds must ascend");
    metrics_init(SLUICE_VERSION, SLUICE_COMMIT);
    if (offload_start(settings->gateway.runtime_threads, OFFLOAD_QUEUE) < 0 ||
        loops_start(settings->gateway.runtime_threads, on_loop_start, NULL) < 0)
        return fail("cannot start threads");
    return 0;
}

static int serve(struct app *app) {
    char error[256];
    policy_make(app);
    if (gateway_open(&app->settings->gateway, app->policy, &app->gateway, error, sizeof error) < 0)
        return fail(error);
    signals_take(app);
    say_start(app);
    fleet_start(&app->settings->fleet);
    gateway_start(app->gateway);
    return 0;
}

/* "info,fleet=debug": the level in force first, then what SGL_LOG says of single targets. */
static void filter_apply(const struct settings *settings) {
    static const char *const names[] = {"debug", "info", "warn", "error"};
    char list[1024];
    if (settings->log_filter == NULL)
        return;
    int len =
        snprintf(list, sizeof list, "%s,%s", names[settings->log.level], settings->log_filter);
    if (len >= (int)sizeof list || log_set_filter(list) < 0)
        log_warn("app", "SGL_LOG is ignored: not a list of target=level");
}

static int run(struct app *app) {
    if (log_start(&app->settings->log) < 0) {
        fprintf(stderr, "sluice: cannot write logs to %s\n", app->settings->log.dir);
        return 1;
    }
    filter_apply(app->settings);
    int status = prepare(app);
    if (status == 0) {
        status = serve(app);
        if (status != 0)
            loops_stop();
        loops_run(); /* also then: the other threads are to end before their settings do */
    }
    offload_stop();
    log_stop();
    return status;
}

int launch_main(int argc, char *const *argv) {
    struct config_error error;
    struct config *config = config_load(argc, argv, NULL, &error);
    if (config == NULL) {
        fprintf(stderr, "sluice: %s\n", error.text);
        return error.status;
    }
    int status = 0;
    if (config_wants_help(config)) {
        help_write(stdout);
    } else {
        struct app app = {.settings = config_settings(config), .config = config};
        status = run(&app);
    }
    config_free(config);
    return status;
}
