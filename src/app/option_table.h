/* Every option of the gateway, one row each, grouped as in the help and in docs/configuration.md.
 * The rows live in table_*.c, pure tables; option_table.c puts the groups in order. A row that does
 * not work yet has everything but a field to fill: the issue that brings the part adds OPT_DEST and
 * takes the status away. */
#pragma once

#include "app/settings.h"
#include "base/optparse.h"

/* What the rows fill: settings that need no further work, and raw values that config.c turns into
 * settings. */
struct option_values {
    struct settings settings;
    const char *api_key;
    const char *log_level;
    const char *metrics_naming;
    struct opt_list worker_urls, worker_url_allow;
    int64_t connect_timeout_s, request_timeout_s;
};

/* All groups in order. The first call must come before other threads start. */
const struct opt_schema *option_schema(void);

extern const struct opt_group group_core, group_workers, group_policies, group_pd, group_retries,
    group_health, group_admission, group_discovery, group_tls, group_auth, group_observe,
    group_history, group_models, group_mesh, group_limits, group_lifecycle, group_commands;

/* Words that table_*.c share. */
#define FILLS(field_) OPT_DEST(struct option_values, field_)
#define FILLS_GATEWAY(field_) FILLS(settings.gateway.field_)
#define FILLS_FLEET(field_) FILLS(settings.fleet.field_)
/* Seconds and milliseconds, bounded (31 years, 11 days) so that sums of them cannot overflow. */
#define SECS_FROM(min_) .value = "SECS", OPT_RANGE(min_, 1000000000)
#define MS_FROM(min_) .value = "MS", OPT_RANGE(min_, 1000000000)
#define SECS_TO_MS .scale = 1000
#define PORT_RANGE .value = "PORT", OPT_RANGE(1, 65535)
#define OPTION_GROUP(name_, title_)                                                                \
    const struct opt_group group_##name_ = {title_, name_##_rows, OPT_COUNT(name_##_rows)}
