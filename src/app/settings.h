/* Everything the program is told, after merging and checking: one part for each consumer. Made by
 * config_load, immutable afterwards; strings live until config_free. */
#pragma once

#include "base/log.h"
#include "fleet/settings.h"
#include "gateway/settings.h"

struct settings {
    struct gateway_settings gateway;
    struct fleet_settings fleet;
    struct log_options log;
    const char *log_filter;  /* levels by target beside log.level (SGL_LOG); NULL = none */
    const char *config_path; /* NULL = none */
    const char *backend;     /* engine name; regular mode for all that are accepted today */
    uint64_t seed;           /* given or drawn at start */
    bool seed_given;
};
