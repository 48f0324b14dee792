/* The parser fills `struct option_values` from the tables; here they are checked as a whole and the
 * fields that no row can fill alone are set: computed defaults, values that two consumers share,
 * names that become enumerators. */
#include "app/config.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "app/config_check.h"
#include "app/config_file.h"
#include "app/option_table.h"
#include "base/cpus.h"
#include "base/vec.h"

/* Fixed by the design, no options of their own. */
#define MAX_REQUEST_LINE 8192
#define BODY_IDLE_MS 30000
#define UPSTREAM_IDLE_TOTAL 4096
#define UPSTREAM_IDLE_MS 4000
/* What --seed 0 stands for: 0 itself means "no seed" further down. */
#define SEED_OF_ZERO UINT64_C(0x9e3779b97f4a7c15)

struct config {
    struct optparse *parser;
    struct option_values values;
    struct config_file file;
    const char *(*env)(const char *name);
    VEC(const char *) notes;
};

static const char *process_env(const char *name) { return getenv(name); }

/* --- notes ----------------------------------------------------------------------------------- */

__attribute__((format(printf, 2, 3))) static void note(struct config *config, const char *format,
                                                       ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (len < 0)
        return;
    const char *kept = optparse_keep(config->parser, str_from(text));
    vec_push(&config->notes, kept);
}

const char *config_note(const struct config *config, size_t index) {
    return index < config->notes.len ? config->notes.items[index] : NULL;
}

static void note_no_ops(struct config *config) {
    const struct opt_row *row;
    size_t cursor = 0;
    while ((row = optparse_next_no_op(config->parser, &cursor)) != NULL)
        note(config, "--%s has no effect: %s", row->name, row->note);
}

/* --- logging --------------------------------------------------------------------------------- */

static bool level_of(struct str name, enum log_level *level) {
    static const struct {
        const char *name;
        enum log_level level;
    } levels[] = {
        {"debug", LOG_DEBUG},  {"trace", LOG_DEBUG}, {"info", LOG_INFO}, {"warn", LOG_WARN},
        {"warning", LOG_WARN}, {"error", LOG_ERROR}, {"off", LOG_ERROR},
    };
    for (size_t i = 0; i < OPT_COUNT(levels); i++) {
        if (!str_ieq(name, str_from(levels[i].name)))
            continue;
        *level = levels[i].level;
        return true;
    }
    return false;
}

/* SGL_LOG=debug, RUST_LOG=info,module=debug: the bare level counts. Levels by target are taken from SGL_LOG only, at
 * the start of the log: names of another program's modules would mean nothing here. */
static void level_from_env(struct config *config, const char *variable) {
    bool ours = strcmp(variable, "SGL_LOG") == 0;
    const char *text = config->env(variable);
    struct str rest = str_from(text), item;
    while (text != NULL && text[0] != '\0' && str_split(&rest, ',', &item)) {
        item = str_trim(item);
        if (ours && str_find_char(item, '=') > 0)
            config->values.settings.log_filter = text;
        else if (!level_of(item, &config->values.settings.log.level))
            note(config, "%s: '%.*s' is ignored, it is no level", variable,
                 (int)(item.len < 100 ? item.len : 100), item.ptr);
    }
}

static void settle_log(struct config *config) {
    struct log_options *log = &config->values.settings.log;
    const char *no_colour = config->env("NO_COLOR");
    (void)level_of(str_from(config->values.log_level), &log->level);
    level_from_env(config, "RUST_LOG");
    level_from_env(config, "SGL_LOG");
    log->colour = isatty(STDOUT_FILENO) && (no_colour == NULL || no_colour[0] == '\0');
}

/* --- the gateway's part ---------------------------------------------------------------------- */

static void settle_hosts(struct config *config) {
    struct gateway_settings *gateway = &config->values.settings.gateway;
    struct str host;
    if (config_host(str_from(gateway->host), &host))
        gateway->host = optparse_keep(config->parser, host);
    if (config_host(str_from(gateway->metrics.host), &host)) {
        gateway->metrics.host = optparse_keep(config->parser, host);
        return;
    }
    note(config, "--prometheus-host %.200s is no address: listening on 0.0.0.0 instead",
         gateway->metrics.host);
    gateway->metrics.host = "0.0.0.0";
}

static void settle_naming(struct config *config) {
    static const char *const names[] = {
        [METRICS_NAMING_LEGACY] = "legacy",
        [METRICS_NAMING_LAYERED] = "layered",
        [METRICS_NAMING_BOTH] = "both",
    };
    for (size_t i = 0; i < OPT_COUNT(names); i++)
        if (strcmp(names[i], config->values.metrics_naming) == 0)
            config->values.settings.gateway.metrics.naming = (enum metrics_naming)i;
}

/* Drops what cannot be an origin; `*` stands for any, which is what an empty list means. */
static void settle_origins(struct config *config) {
    struct opt_list *list = &config->values.settings.gateway.cors_origins;
    size_t kept = 0;
    bool any = false;
    for (size_t i = 0; i < list->len; i++) {
        any |= strcmp(list->items[i], "*") == 0;
        if (config_origin(str_from(list->items[i])))
            list->items[kept++] = list->items[i];
        else if (strcmp(list->items[i], "*") != 0)
            note(config, "--cors-allowed-origins: '%.200s' is no origin and is ignored",
                 list->items[i]);
    }
    /* Nothing left of a list that was given must not turn into "any origin". */
    if (kept == 0 && list->len > 0 && !any)
        list->items[kept++] = "null";
    list->len = any ? 0 : kept;
}

static void settle_id_headers(struct config *config) {
    struct opt_list *list = &config->values.settings.gateway.request_id_headers;
    for (size_t i = 0; i < list->len; i++) {
        char *name = mem_strdup(list->items[i]);
        for (char *c = name; *c != '\0'; c++)
            if (*c >= 'A' && *c <= 'Z')
                *c += 'a' - 'A';
        list->items[i] = optparse_keep(config->parser, str_from(name));
        mem_free(name);
    }
}

static void settle_resources(struct config *config) {
    struct gateway_settings *gateway = &config->values.settings.gateway;
    if (optparse_source(config->parser, "runtime-worker-threads") == OPT_FROM_DEFAULT)
        gateway->runtime_threads = cpus_allowed(NULL, NULL);
    if (optparse_source(config->parser, "memory-limit") == OPT_FROM_DEFAULT)
        gateway->limits.memory_bytes = memory_allowed(NULL, NULL) / 4 * 3;
    if (gateway->runtime_threads > 256)
        gateway->runtime_threads = 256;
}

static void settle_times(struct config *config) {
    struct gateway_settings *gateway = &config->values.settings.gateway;
    struct fleet_settings *fleet = &config->values.settings.fleet;
    fleet->connect_timeout_s = config->values.connect_timeout_s;
    fleet->request_timeout_s = config->values.request_timeout_s;
    fleet->upstream_idle_ms = UPSTREAM_IDLE_MS;
    gateway->connect_timeout_ms = config->values.connect_timeout_s * 1000;
    gateway->request_timeout_ms = config->values.request_timeout_s * 1000;
    gateway->limits.body_idle_timeout_ms = BODY_IDLE_MS;
    if (gateway->shutdown_settle_ms > gateway->shutdown_grace_ms / 2)
        gateway->shutdown_settle_ms = gateway->shutdown_grace_ms / 2;
}

static void settle_gateway(struct config *config) {
    struct gateway_settings *gateway = &config->values.settings.gateway;
    gateway->api_key = config->values.api_key;
    gateway->policy = config->values.settings.fleet.policy;
    gateway->limits.max_request_line = MAX_REQUEST_LINE;
    gateway->limits.upstream_idle_total = UPSTREAM_IDLE_TOTAL;
    if (gateway->retry.disabled)
        gateway->retry.max_attempts = 1;
}

static void settle_fleet(struct config *config) {
    struct fleet_settings *fleet = &config->values.settings.fleet;
    fleet->api_key = config->values.api_key;
    fleet->worker_urls = config->values.worker_urls.items;
    fleet->worker_url_count = config->values.worker_urls.len;
    fleet->worker_url_allow = config->values.worker_url_allow.items;
    fleet->worker_url_allow_count = config->values.worker_url_allow.len;
    fleet->upstream_idle_per_worker =
        config->values.settings.gateway.limits.upstream_idle_per_worker;
}

static void settle_seed(struct config *config) {
    struct settings *settings = &config->values.settings;
    settings->seed_given = optparse_source(config->parser, "seed") != OPT_FROM_DEFAULT;
    if (settings->seed_given && settings->seed == 0)
        settings->seed = SEED_OF_ZERO;
}

static void settle(struct config *config) {
    static void (*const steps[])(struct config * config) = {
        settle_log,        settle_hosts,     settle_naming, settle_origins,
        settle_id_headers, settle_resources, settle_times,  settle_gateway,
        settle_fleet,      settle_seed,      note_no_ops,
    };
    for (size_t i = 0; i < OPT_COUNT(steps); i++)
        steps[i](config);
}

/* --- loading --------------------------------------------------------------------------------- */

static int parser_error(const struct config *config, struct config_error *error) {
    const struct opt_error *from = optparse_error(config->parser);
    error->status = from->status;
    snprintf(error->text, sizeof error->text, "%s", from->text);
    return -1;
}

static int load_file(struct config *config, struct config_error *error) {
    const char *path = config->values.settings.config_path;
    if (path == NULL)
        return 0;
    error->status = 1;
    return config_file_apply(&config->file, path, option_schema(), config->parser, error->text,
                             sizeof error->text);
}

static int check(struct config *config, struct config_error *error) {
    const struct config_check check = {config->parser, &config->file, &config->values, error->text,
                                       sizeof error->text};
    error->status = 1;
    return config_check(&check);
}

static int load(struct config *config, int argc, char *const *argv, struct config_error *error) {
    if (optparse_args(config->parser, argc, argv) != 0)
        return parser_error(config, error);
    if (optparse_wants_help(config->parser))
        return 0;
    if (optparse_env(config->parser, config->env) != 0)
        return parser_error(config, error);
    if (load_file(config, error) != 0 || check(config, error) != 0)
        return -1;
    settle(config);
    return 0;
}

struct config *config_load(int argc, char *const *argv, const char *(*env)(const char *name),
                           struct config_error *error) {
    struct config *config = mem_zalloc(sizeof *config);
    *error = (struct config_error){0};
    config->env = env != NULL ? env : process_env;
    config->parser = optparse_new(option_schema(), &config->values);
    if (load(config, argc, argv, error) == 0) {
        error->status = 0;
        return config;
    }
    config_free(config);
    return NULL;
}

void config_free(struct config *config) {
    if (config == NULL)
        return;
    config_file_free(&config->file);
    vec_free(&config->notes);
    optparse_free(config->parser);
    mem_free(config);
}

bool config_wants_help(const struct config *config) { return optparse_wants_help(config->parser); }

const struct settings *config_settings(const struct config *config) {
    return &config->values.settings;
}
