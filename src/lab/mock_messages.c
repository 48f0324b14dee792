/* /v1/messages, as Anthropic has it. Its input_tokens do not count what the cache gave. */
#include "lab/mock_formats.h"
#include "lab/mock_job.h"

static int messages_read(struct mock_job *job) {
    yyjson_val *root = job->call->root, *messages = json_get(root, "messages");
    if (!yyjson_is_arr(messages) || yyjson_arr_size(messages) == 0)
        return mock_job_refuse(job, STR("messages: at least one message is required"));
    int64_t limit = json_get_int(root, "max_tokens", -1);
    if (limit < 1 || mock_job_limit(job, limit, json_get_bool(root, "ignore_eos", false)))
        return mock_job_refuse(job, STR("max_tokens: a number from 1 to 65536 is required"));
    struct mock_tokens *prompt = mock_job_prompt(job);
    mock_tokens_value(prompt, json_get(root, "system"));
    mock_tokens_messages(prompt, messages);
    return 0;
}

static void write_usage(const struct mock_job *job, struct json_writer *out, size_t output) {
    const struct mock_ticket *ticket = &job->stay.ticket;
    json_key(out, "usage");
    json_object(out);
    json_kv_int(out, "input_tokens", (int64_t)(ticket->prompt_tokens - ticket->cached_tokens));
    json_kv_int(out, "cache_creation_input_tokens", 0);
    json_kv_int(out, "cache_read_input_tokens", (int64_t)ticket->cached_tokens);
    json_kv_int(out, "output_tokens", (int64_t)output);
    json_object_end(out);
}

static void write_stop(const struct mock_job *job, struct json_writer *out, bool stopped) {
    json_key(out, "stop_reason");
    if (stopped)
        json_string(out, job->by_length ? STR("max_tokens") : STR("end_turn"));
    else
        json_null(out);
    json_key(out, "stop_sequence");
    json_null(out);
}

static void write_block(struct json_writer *out, struct str text) {
    json_object(out);
    json_kv_str(out, "type", STR("text"));
    json_kv_str(out, "text", text);
    json_object_end(out);
}

static void write_message(const struct mock_job *job, struct json_writer *out, bool whole) {
    json_object(out);
    json_kv_str(out, "id", job->id);
    json_kv_str(out, "type", STR("message"));
    json_kv_str(out, "role", STR("assistant"));
    json_kv_str(out, "model", job->model);
    json_key(out, "content");
    json_array(out);
    if (whole)
        write_block(out, job->texts[0].text);
    json_array_end(out);
    write_stop(job, out, whole);
    write_usage(job, out, whole ? mock_job_output_tokens(job) : 0);
    json_object_end(out);
}

static void messages_write(struct mock_job *job, struct json_writer *out) {
    write_message(job, out, true);
}

static struct json_writer *event(struct mock_job *job, const char *type) {
    struct json_writer *out = mock_job_event(job, type);
    json_object(out);
    json_kv_str(out, "type", str_from(type));
    return out;
}

static FIBER_FN int finish(struct mock_job *job) {
    json_object_end(&job->out);
    return mock_job_send(job);
}

static FIBER_FN int messages_open(struct mock_job *job) {
    struct json_writer *out = event(job, "message_start");
    json_key(out, "message");
    write_message(job, out, false);
    int err = finish(job);
    if (err)
        return err;
    out = event(job, "content_block_start");
    json_kv_int(out, "index", 0);
    json_key(out, "content_block");
    write_block(out, STR(""));
    err = finish(job);
    if (err)
        return err;
    event(job, "ping");
    return finish(job);
}

static FIBER_FN int messages_token(struct mock_job *job, size_t choice, size_t index) {
    struct json_writer *out = event(job, "content_block_delta");
    json_kv_int(out, "index", 0);
    json_key(out, "delta");
    json_object(out);
    json_kv_str(out, "type", STR("text_delta"));
    json_kv_str(out, "text", mock_text_piece(&job->texts[choice], index));
    json_object_end(out);
    return finish(job);
}

static FIBER_FN int messages_close(struct mock_job *job) {
    struct json_writer *out = event(job, "content_block_stop");
    json_kv_int(out, "index", 0);
    int err = finish(job);
    if (err)
        return err;
    out = event(job, "message_delta");
    json_key(out, "delta");
    json_object(out);
    write_stop(job, out, true);
    json_object_end(out);
    write_usage(job, out, mock_job_output_tokens(job));
    err = finish(job);
    if (err)
        return err;
    event(job, "message_stop");
    return finish(job);
}

FIBER_FN void mock_messages(struct mock_call *call) {
    static const struct mock_format format = {"msg_",        messages_read,  messages_write,
                                              messages_open, messages_token, messages_close};
    mock_job_run(call, &format);
}
