/* See launch.h. Order of start: settings, log, descriptors, loops, fleet (its jobs run in the background), listeners.
 * Serving does not wait for workers. */
#include "app/launch.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
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
    int status;
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

/* --- starting --- */

static const char *policy_in_force(const struct app *app) { return policy_name(app->policy); }

static void say_start(const struct app *app) {
    const struct settings *settings = app->settings;
    log_info("app", "Starting router", F_CSTR("host", settings->gateway.host),
             F_INT("port", settings->gateway.port), F_CSTR("mode", "regular"),
             F_CSTR("policy", policy_in_force(app)),
             F_INT("max_payload_mb", (int64_t)(settings->gateway.limits.max_body >> 20)),
             F_INT("data_loops", settings->gateway.runtime_threads),
             F_INT("descriptors_before", (int64_t)app->descriptors_before),
             F_INT("descriptors", (int64_t)app->descriptors_now), F_CSTR("version", SLUICE_VERSION));
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

static int fail(const char *what) {
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

static int start(struct app *app) {
    const struct settings *settings = app->settings;
    char error[256];
    rand_seed_process(settings->seed_given ? settings->seed : 0);
    signals_init();
    descriptors_raise(&app->descriptors_before, &app->descriptors_now);
    if (limits_apply(&settings->gateway) < 0) /* before the first series is made */
        return fail("--prometheus-duration-buckets: the bounds must ascend");
    metrics_init(SLUICE_VERSION, SLUICE_COMMIT);
    if (offload_start(settings->gateway.runtime_threads, OFFLOAD_QUEUE) < 0 ||
        loops_start(settings->gateway.runtime_threads, on_loop_start, NULL) < 0)
        return fail("cannot start threads");
    policy_make(app);
    if (gateway_open(&settings->gateway, app->policy, &app->gateway, error, sizeof error) < 0)
        return fail(error);
    for (size_t i = 0; i < 3; i++)
        signals_on((const int[]){SIGINT, SIGTERM, SIGQUIT}[i], on_stop_signal, app);
    say_start(app);
    fleet_start(&settings->fleet);
    gateway_start(app->gateway);
    return 0;
}

static int run(struct app *app) {
    if (log_start(&app->settings->log) < 0) {
        fprintf(stderr, "sluice: cannot write logs to %s\n", app->settings->log.dir);
        return 1;
    }
    int status = start(app);
    if (status == 0)
        loops_run();
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
