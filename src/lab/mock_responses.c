/* /v1/responses: one message item with one text part; the stream's events are numbered. */
#include "lab/mock_formats.h"
#include "lab/mock_job.h"

static int responses_read(struct mock_job *job) {
    yyjson_val *root = job->call->root, *input = json_get(root, "input");
    if (!yyjson_is_str(input) && (!yyjson_is_arr(input) || yyjson_arr_size(input) == 0))
        return mock_job_refuse(job, STR("input must be a string or a list of items"));
    int64_t limit = json_get_int(root, "max_output_tokens", -1);
    if (mock_job_limit(job, limit, json_get_bool(root, "ignore_eos", false)))
        return mock_job_refuse(job, STR("max_output_tokens must be at most 65536"));
    struct mock_tokens *prompt = mock_job_prompt(job);
    mock_tokens_value(prompt, json_get(root, "instructions"));
    if (yyjson_is_arr(input))
        mock_tokens_messages(prompt, input);
    else
        mock_tokens_value(prompt, input);
    return 0;
}

static struct str item_id(const struct mock_job *job) {
    return arena_printf(job->call->arena, "msg_%.*s", STR_ARG(str_skip(job->id, 5)));
}

static void write_part(struct json_writer *out, struct str text) {
    json_object(out);
    json_kv_str(out, "type", STR("output_text"));
    json_kv_str(out, "text", text);
    json_key(out, "annotations");
    json_raw(out, STR("[]"));
    json_key(out, "logprobs");
    json_raw(out, STR("[]"));
    json_object_end(out);
}

static void write_item(const struct mock_job *job, struct json_writer *out, bool done) {
    json_object(out);
    json_kv_str(out, "id", item_id(job));
    json_kv_str(out, "type", STR("message"));
    json_kv_str(out, "status", done ? STR("completed") : STR("in_progress"));
    json_kv_str(out, "role", STR("assistant"));
    json_key(out, "content");
    json_array(out);
    if (done)
        write_part(out, job->texts[0].text);
    json_array_end(out);
    json_object_end(out);
}

static void write_usage(const struct mock_job *job, struct json_writer *out) {
    const struct mock_ticket *ticket = &job->stay.ticket;
    size_t output = mock_job_output_tokens(job);
    json_object(out);
    json_kv_int(out, "input_tokens", (int64_t)ticket->prompt_tokens);
    json_key(out, "input_tokens_details");
    json_object(out);
    json_kv_int(out, "cached_tokens", (int64_t)ticket->cached_tokens);
    json_object_end(out);
    json_kv_int(out, "output_tokens", (int64_t)output);
    json_key(out, "output_tokens_details");
    json_raw(out, STR("{\"reasoning_tokens\":0}"));
    json_kv_int(out, "total_tokens", (int64_t)(ticket->prompt_tokens + output));
    json_object_end(out);
}

/* What the request said is told back, byte for byte; else the value that the API has for it. */
static void echo(const struct mock_job *job, struct json_writer *out, const char *key,
                 struct str absent) {
    struct str body = job->call->body;
    size_t start, end;
    bool given = json_member_span(body, str_from(key), &start, &end) == 0;
    json_key(out, key);
    json_raw(out, given ? str_make(body.ptr + start, end - start) : absent);
}

static void write_echoes(const struct mock_job *job, struct json_writer *out) {
    static const struct {
        const char *key;
        struct str absent;
    } echoes[] = {
        {"instructions", STR_INIT("null")},
        {"max_output_tokens", STR_INIT("null")},
        {"metadata", STR_INIT("{}")},
        {"parallel_tool_calls", STR_INIT("true")},
        {"previous_response_id", STR_INIT("null")},
        {"reasoning", STR_INIT("{\"effort\":null,\"summary\":null}")},
        {"store", STR_INIT("true")},
        {"temperature", STR_INIT("1.0")},
        {"text", STR_INIT("{\"format\":{\"type\":\"text\"}}")},
        {"tool_choice", STR_INIT("\"auto\"")},
        {"tools", STR_INIT("[]")},
        {"top_p", STR_INIT("1.0")},
        {"truncation", STR_INIT("\"disabled\"")},
        {"user", STR_INIT("null")},
    };
    for (size_t i = 0; i < sizeof echoes / sizeof *echoes; i++)
        echo(job, out, echoes[i].key, echoes[i].absent);
}

static struct str status_of(const struct mock_job *job, bool done) {
    if (!done)
        return STR("in_progress");
    return job->by_length ? STR("incomplete") : STR("completed");
}

static void write_response(const struct mock_job *job, struct json_writer *out, bool done) {
    json_object(out);
    json_kv_str(out, "id", job->id);
    json_kv_str(out, "object", STR("response"));
    json_kv_int(out, "created_at", job->created);
    json_kv_str(out, "status", status_of(job, done));
    json_kv_bool(out, "background", false);
    json_key(out, "error");
    json_null(out);
    json_key(out, "incomplete_details");
    json_raw(out, done && job->by_length ? STR("{\"reason\":\"max_output_tokens\"}") : STR("null"));
    json_kv_str(out, "model", job->model);
    json_key(out, "output");
    json_array(out);
    if (done)
        write_item(job, out, true);
    json_array_end(out);
    write_echoes(job, out);
    json_key(out, "usage");
    if (done)
        write_usage(job, out);
    else
        json_null(out);
    json_object_end(out);
}

static void responses_write(struct mock_job *job, struct json_writer *out) {
    write_response(job, out, true);
}

/* --- the stream ------------------------------------------------------------------------------ */

static struct json_writer *event(struct mock_job *job, const char *type) {
    struct json_writer *out = mock_job_event(job, type);
    json_object(out);
    json_kv_str(out, "type", str_from(type));
    json_kv_int(out, "sequence_number", (int64_t)job->events++);
    return out;
}

/* The same for events about the text part. */
static struct json_writer *part_event(struct mock_job *job, const char *type) {
    struct json_writer *out = event(job, type);
    json_kv_str(out, "item_id", item_id(job));
    json_kv_int(out, "output_index", 0);
    json_kv_int(out, "content_index", 0);
    return out;
}

static FIBER_FN int finish(struct mock_job *job) {
    json_object_end(&job->out);
    return mock_job_send(job);
}

static FIBER_FN int send_response(struct mock_job *job, const char *type, bool done) {
    struct json_writer *out = event(job, type);
    json_key(out, "response");
    write_response(job, out, done);
    return finish(job);
}

static FIBER_FN int send_item(struct mock_job *job, const char *type, bool done) {
    struct json_writer *out = event(job, type);
    json_kv_int(out, "output_index", 0);
    json_key(out, "item");
    write_item(job, out, done);
    return finish(job);
}

static FIBER_FN int send_part(struct mock_job *job, const char *type, struct str text) {
    struct json_writer *out = part_event(job, type);
    json_key(out, "part");
    write_part(out, text);
    return finish(job);
}

static FIBER_FN int send_text(struct mock_job *job, const char *type, const char *key,
                              struct str text) {
    struct json_writer *out = part_event(job, type);
    json_kv_str(out, key, text);
    json_key(out, "logprobs");
    json_raw(out, STR("[]"));
    return finish(job);
}

static FIBER_FN int responses_open(struct mock_job *job) {
    int err = send_response(job, "response.created", false);
    if (err == 0)
        err = send_response(job, "response.in_progress", false);
    if (err == 0)
        err = send_item(job, "response.output_item.added", false);
    return err ? err : send_part(job, "response.content_part.added", STR(""));
}

static FIBER_FN int responses_token(struct mock_job *job, size_t choice, size_t index) {
    struct str piece = mock_text_piece(&job->texts[choice], index);
    return send_text(job, "response.output_text.delta", "delta", piece);
}

static FIBER_FN int responses_close(struct mock_job *job) {
    struct str text = job->texts[0].text;
    int err = send_text(job, "response.output_text.done", "text", text);
    if (err == 0)
        err = send_part(job, "response.content_part.done", text);
    if (err == 0)
        err = send_item(job, "response.output_item.done", true);
    const char *last = job->by_length ? "response.incomplete" : "response.completed";
    return err ? err : send_response(job, last, true);
}

FIBER_FN void mock_responses(struct mock_call *call) {
    static const struct mock_format format = {"resp_",        responses_read,  responses_write,
                                              responses_open, responses_token, responses_close};
    mock_job_run(call, &format);
}
