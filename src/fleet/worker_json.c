/* See worker_json.h. What was asked for comes from the tables of worker_spec.c and model_card.c. */
#include "fleet/worker_json.h"

static void write_job(struct json_writer *writer, const struct job_status *job) {
    if (job == NULL)
        return;
    json_key(writer, "job_status");
    json_object(writer);
    json_kv_str(writer, "job_type", str_from(job_kind_name(job->kind)));
    json_kv_str(writer, "worker_url", job->key);
    json_kv_str(writer, "status", str_from(job_state_name(job->state)));
    json_key(writer, "message");
    if (job->message.len > 0)
        json_string(writer, job->message);
    else
        json_null(writer);
    json_kv_int(writer, "timestamp", job->changed_s);
    json_object_end(writer);
}

static void write_labels(struct json_writer *writer, const char *key, const struct worker *worker) {
    json_key(writer, key);
    json_object(writer);
    for (size_t i = 0; i < worker->label_count; i++) {
        json_key_str(writer, worker->labels[i].key);
        json_string(writer, worker->labels[i].value);
    }
    json_object_end(writer);
}

static void write_models(struct json_writer *writer, const struct worker *worker) {
    json_key(writer, "models");
    json_array(writer);
    for (size_t i = 0; i < worker->model_count; i++)
        model_card_write(writer, &worker->models[i]);
    json_array_end(writer);
}

static void write_text(struct json_writer *writer, const char *key, struct str text) {
    if (text.len > 0)
        json_kv_str(writer, key, text);
}

/* The flat generation shows the parsers of its one model at the top. */
static void write_flat(struct json_writer *writer, const struct worker *worker) {
    if (worker->model_count == 0)
        return;
    const struct model_card *card = &worker->models[0];
    write_text(writer, "tokenizer_path", card->tokenizer_path);
    write_text(writer, "reasoning_parser", card->reasoning_parser);
    write_text(writer, "tool_parser", card->tool_parser);
    write_text(writer, "chat_template", card->chat_template);
}

void worker_info_write(struct json_writer *writer, const struct worker *worker,
                       const struct job_status *job) {
    json_object(writer);
    json_kv_str(writer, "id", str_from(worker->id));
    json_kv_str(writer, "url", worker->url);
    json_kv_str(writer, "model_id", worker->model_id);
    write_models(writer, worker);
    json_kv_str(writer, "worker_type", str_from(worker_role_name(worker->role)));
    json_kv_str(writer, "connection_mode", str_from(worker_mode_name(worker->mode)));
    write_text(writer, "runtime_type", worker->runtime);
    worker_spec_write(writer, worker->spec);
    write_labels(writer, "labels", worker);
    write_labels(writer, "metadata", worker);
    write_flat(writer, worker);
    json_kv_bool(writer, "is_healthy", worker_status(worker) == WORKER_READY);
    json_kv_str(writer, "status", str_from(worker_status_name(worker_status(worker))));
    json_kv_int(writer, "load", worker_load(worker));
    write_job(writer, job);
    json_object_end(writer);
}

void worker_stub_write(struct json_writer *writer, const char *id, struct str url,
                       const struct job_status *job) {
    json_object(writer);
    json_kv_str(writer, "id", str_from(id));
    json_kv_str(writer, "url", url);
    json_kv_str(writer, "model_id", STR("unknown"));
    json_kv_str(writer, "worker_type", STR("regular"));
    json_kv_str(writer, "connection_mode", STR("http"));
    json_kv_int(writer, "priority", WORKER_PRIORITY);
    json_kv_double(writer, "cost", WORKER_COST);
    json_kv_bool(writer, "is_healthy", false);
    json_kv_str(writer, "status", STR("pending"));
    json_kv_int(writer, "load", 0);
    write_job(writer, job);
    json_object_end(writer);
}
