/* See info.h. The list of models is made on the control loop, once per version of the fleet. */
#include "gateway/admin/info.h"

#include "base/map.h"
#include "fleet/fleet.h"
#include "fleet/model_card.h"
#include "fleet/worker_spec.h"
#include "gateway/admin/control_call.h"
#include "gateway/admin/relay_one.h"
#include "gateway/routes.h"

#define MODELS_MAX ((size_t)64 << 20)

/* --- models; the control loop's --- */

static struct {
    uint64_t version;
    bool made;
    struct buf json; /* empty: no model */
} models;

static struct str owner(const struct worker *worker, const struct model_card *card) {
    if (card != NULL && card->provider.len > 0)
        return card->provider;
    return worker->spec->provider.len > 0 ? worker->spec->provider : STR("self_hosted");
}

static void write_model(struct json_writer *writer, struct map *seen, struct str id,
                        struct str owned_by) {
    if (id.len == 0 || str_eq(id, STR("unknown")) || map_put(seen, id, seen) != NULL)
        return;
    json_object(writer);
    json_kv_str(writer, "id", id);
    json_kv_str(writer, "object", STR("model"));
    json_kv_int(writer, "created", 0);
    json_kv_str(writer, "owned_by", owned_by);
    json_object_end(writer);
}

/* Workers of outside vendors tell their own models to who has their key. */
static void write_worker(struct json_writer *writer, struct map *seen,
                         const struct worker *worker) {
    if (str_eq(worker->runtime, STR("external")))
        return;
    for (size_t i = 0; i < worker->model_count; i++)
        write_model(writer, seen, worker->models[i].id, owner(worker, &worker->models[i]));
    if (worker->model_count == 0)
        write_model(writer, seen, worker->model_id, owner(worker, NULL));
}

static void models_make(const struct fleet *fleet) {
    struct json_writer writer;
    struct map seen;
    map_init(&seen);
    json_writer_init(&writer, MODELS_MAX);
    json_object(&writer);
    json_kv_str(&writer, "object", STR("list"));
    json_key(&writer, "data");
    json_array(&writer);
    for (size_t i = 0; i < fleet->all.count; i++)
        write_worker(&writer, &seen, fleet->all.workers[i]);
    json_array_end(&writer);
    json_object_end(&writer);
    buf_free(&models.json);
    if (seen.len > 0 && writer.error == 0)
        models.json = writer.buf;
    else
        buf_free(&writer.buf);
    map_free(&seen);
    models.version = fleet->version;
    models.made = true;
}

struct models_ask {
    struct arena *arena;
    struct str json;
};

static int models_ask(void *arg) {
    struct models_ask *ask = arg;
    const struct fleet *fleet = fleet_now();
    if (!models.made || models.version != fleet->version)
        models_make(fleet);
    ask->json = arena_dup(ask->arena, buf_str(&models.json));
    return 0;
}

FIBER_FN void info_models(struct request *request) {
    struct models_ask ask = {.arena = request->arena};
    if (control_call(models_ask, &ask) < 0)
        return;
    if (ask.json.len == 0)
        request_text(request, 503, STR("No models available"));
    else
        request_json(request, 200, ask.json);
}

/* --- relayed --- */

/* As the client wrote it, and by its other name. */
static FIBER_FN void relay_named(struct request *request, struct str one, struct str two) {
    bool first = str_eq(request->route->path, one);
    relay_one(request, first ? one : two, first ? two : one);
}

FIBER_FN void info_model(struct request *request) {
    relay_named(request, STR("/get_model_info"), STR("/model_info"));
}

FIBER_FN void info_server(struct request *request) {
    relay_named(request, STR("/get_server_info"), STR("/server_info"));
}
