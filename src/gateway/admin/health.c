/* See health.h. What probes ask for is O(1): they come often, and most when there is trouble. */
#include "gateway/admin/health.h"

#include "fleet/registry.h"
#include "gateway/admin/relay_one.h"
#include "gateway/gateway.h"
#include "proto/json.h"
#include "version.h"

#define REPLY_MAX 4096

FIBER_FN void health_liveness(struct request *request) { request_text(request, 200, STR("OK")); }

static struct str details_json(struct request *request) {
    const struct gateway *gateway = request->gateway;
    struct json_writer writer;
    json_writer_init(&writer, REPLY_MAX);
    json_object(&writer);
    json_kv_str(&writer, "status", gateway_draining(gateway) ? STR("draining") : STR("ok"));
    json_kv_str(&writer, "version", STR(SLUICE_VERSION));
    json_kv_int(&writer, "config_version", (int64_t)gateway_config_version(gateway));
    json_kv_int(&writer, "uptime_s", (clock_ms() - gateway_started_ms(gateway)) / 1000);
    json_object_end(&writer);
    return json_writer_end(&writer, request->arena);
}

FIBER_FN void health_plain(struct request *request) {
    if (request_query(request, STR("details")).ptr == NULL)
        request_text(request, 200, STR("OK"));
    else if (gateway_authorize(request, AUTH_CONTROL))
        request_json(request, 200, details_json(request));
}

static size_t ready_workers(void) {
    size_t ready = 0;
    for (enum worker_role role = 0; role < ROLE_COUNT; role++)
        ready += fleet_ready_count(role);
    return ready;
}

static FIBER_FN void not_ready(struct request *request, const char *reason) {
    struct json_writer writer;
    json_writer_init(&writer, REPLY_MAX);
    json_object(&writer);
    json_kv_str(&writer, "status", STR("not ready"));
    json_kv_str(&writer, "reason", str_from(reason));
    json_object_end(&writer);
    request_json(request, 503, json_writer_end(&writer, request->arena));
}

/* In regular mode a request needs a regular worker. */
FIBER_FN void health_readiness(struct request *request) {
    gateway_probed(request->gateway);
    if (gateway_draining(request->gateway)) {
        not_ready(request, "draining");
        return;
    }
    if (fleet_ready_count(ROLE_REGULAR) == 0) {
        not_ready(request, "insufficient healthy workers");
        return;
    }
    struct json_writer writer;
    json_writer_init(&writer, REPLY_MAX);
    json_object(&writer);
    json_kv_str(&writer, "status", STR("ready"));
    json_kv_int(&writer, "healthy_workers", (int64_t)ready_workers());
    json_kv_int(&writer, "total_workers", (int64_t)fleet_expected_count());
    json_object_end(&writer);
    request_json(request, 200, json_writer_end(&writer, request->arena));
}

FIBER_FN void health_generate(struct request *request) {
    relay_one(request, STR("/health_generate"), STR(""));
}
