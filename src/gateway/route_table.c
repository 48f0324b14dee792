/* The rows of routes.h: every method and path of spec 01 section 2.2. Rows of one path stand
 * together. What a later version serves has its row already, so that it answers 501 behind the
 * right check, is counted under its own name, and its path is never mistaken for an unknown one. */
#include "gateway/admin/broadcast.h"
#include "gateway/admin/engine_scrape.h"
#include "gateway/admin/health.h"
#include "gateway/admin/info.h"
#include "gateway/admin/loads.h"
#include "gateway/admin/workers.h"
#include "gateway/inference.h"
#include "gateway/routes.h"

#define INFER(path_, media_, handler_, endpoint_, upstream_, stream_)                              \
    {                                                                                              \
        .method = HTTP_POST_METHOD, .path = STR_INIT(path_), .auth = AUTH_DATA, .media = media_,   \
        .handler = handler_, .endpoint = endpoint_, .upstream = STR_INIT(upstream_),               \
        .may_stream = stream_                                                                      \
    }
#define OWN(method_, path_, auth_, media_, handler_)                                               \
    {                                                                                              \
        .method = HTTP_##method_##_METHOD, .path = STR_INIT(path_), .auth = AUTH_##auth_,          \
        .media = media_, .handler = handler_                                                       \
    }
/* The last segment takes the rest of the path, slashes and all: a worker's URL. */
#define REST(method_, path_, auth_, media_, handler_)                                              \
    {                                                                                              \
        .method = HTTP_##method_##_METHOD, .path = STR_INIT(path_), .auth = AUTH_##auth_,          \
        .media = media_, .handler = handler_, .rest = true                                         \
    }
#define LATER(method_, path_, auth_, missing_)                                                     \
    {                                                                                              \
        .method = HTTP_##method_##_METHOD, .path = STR_INIT(path_), .auth = AUTH_##auth_,          \
        .media = MEDIA_ANY, .missing = missing_                                                    \
    }

/* clang-format off */
const struct route route_table[] = {
    /* inference */
    INFER("/generate", MEDIA_JSON_415, inference_proxy, "generate", "/generate", true),
    INFER("/v1/chat/completions", MEDIA_JSON_400, inference_proxy, "chat",
          "/v1/chat/completions", true),
    INFER("/v1/completions", MEDIA_JSON_400, inference_proxy, "completions",
          "/v1/completions", true),
    INFER("/v1/responses", MEDIA_JSON_400, inference_proxy, "responses", "/v1/responses", true),
    INFER("/v1/messages", MEDIA_JSON_400, inference_proxy, "messages", "/v1/messages", true),
    INFER("/v1/embeddings", MEDIA_JSON_415, inference_proxy, "embeddings", "/v1/embeddings", false),
    INFER("/v1/classify", MEDIA_JSON_415, inference_proxy, "classify", "/v1/classify", false),
    INFER("/v1/rerank", MEDIA_JSON_415, inference_rerank, "rerank", "/v1/rerank", false),
    INFER("/rerank", MEDIA_JSON_400, inference_rerank, "rerank", "/v1/rerank", false),
    LATER(POST, "/v1/interactions", DATA, "Interactions API not implemented for this router"),
    LATER(POST, "/v1/audio/transcriptions", DATA, "Audio transcriptions not implemented"),

    /* stored responses and conversations */
    OWN(POST, "/v1/responses/{id}/cancel", DATA, MEDIA_ANY, broadcast_cancel_response),
    LATER(GET, "/v1/responses/{id}", DATA, "Get response not implemented"),
    LATER(DELETE, "/v1/responses/{id}", DATA, "Delete response not implemented"),
    LATER(GET, "/v1/responses/{id}/input_items", DATA, "List response input items not implemented"),
    LATER(GET, "/v1/responses/{id}/input", DATA, "List response input items not implemented"),
    LATER(POST, "/v1/conversations", DATA, "Create conversation not implemented"),
    LATER(GET, "/v1/conversations/{id}", DATA, "Get conversation not implemented"),
    LATER(POST, "/v1/conversations/{id}", DATA, "Update conversation not implemented"),
    LATER(DELETE, "/v1/conversations/{id}", DATA, "Delete conversation not implemented"),
    LATER(GET, "/v1/conversations/{id}/items", DATA, "List conversation items not implemented"),
    LATER(POST, "/v1/conversations/{id}/items", DATA, "Create conversation items not implemented"),
    LATER(GET, "/v1/conversations/{id}/items/{item_id}", DATA,
          "Get conversation item not implemented"),
    LATER(DELETE, "/v1/conversations/{id}/items/{item_id}", DATA,
          "Delete conversation item not implemented"),

    /* text and realtime */
    LATER(POST, "/v1/tokenize", DATA, "Tokenize not implemented"),
    LATER(POST, "/v1/detokenize", DATA, "Detokenize not implemented"),
    LATER(POST, "/v1/realtime/sessions", DATA, "Realtime sessions not implemented"),
    LATER(POST, "/v1/realtime/client_secrets", DATA, "Realtime client secrets not implemented"),
    LATER(POST, "/v1/realtime/transcription_sessions", DATA,
          "Realtime transcription sessions not implemented"),
    LATER(GET, "/v1/realtime", DATA, "Realtime WebSocket not implemented"),
    LATER(POST, "/v1/realtime/calls", DATA, "Realtime WebRTC not implemented"),

    /* health and information */
    OWN(GET, "/liveness", PUBLIC, MEDIA_ANY, health_liveness),
    OWN(GET, "/health", PUBLIC, MEDIA_ANY, health_plain),
    OWN(GET, "/readiness", PUBLIC, MEDIA_ANY, health_readiness),
    OWN(GET, "/health_generate", PUBLIC, MEDIA_ANY, health_generate),
    OWN(GET, "/engine_metrics", PUBLIC, MEDIA_ANY, engine_scrape_metrics),
    OWN(GET, "/v1/models", PUBLIC, MEDIA_ANY, info_models),
    OWN(GET, "/get_model_info", PUBLIC, MEDIA_ANY, info_model),
    OWN(GET, "/model_info", PUBLIC, MEDIA_ANY, info_model),
    OWN(GET, "/get_server_info", PUBLIC, MEDIA_ANY, info_server),
    OWN(GET, "/server_info", PUBLIC, MEDIA_ANY, info_server),

    /* the fleet */
    OWN(POST, "/flush_cache", CONTROL, MEDIA_ANY, broadcast_flush_cache),
    OWN(GET, "/get_loads", CONTROL, MEDIA_ANY, loads_get),
    OWN(GET, "/v1/loads", CONTROL, MEDIA_ANY, loads_get),
    OWN(POST, "/start_profile", CONTROL, MEDIA_JSON_415, broadcast_start_profile),
    OWN(POST, "/stop_profile", CONTROL, MEDIA_JSON_415, broadcast_stop_profile),
    OWN(POST, "/workers", CONTROL, MEDIA_JSON_415, workers_add),
    OWN(GET, "/workers", CONTROL, MEDIA_ANY, workers_list),
    REST(GET, "/workers/{id}", CONTROL, MEDIA_ANY, workers_get),
    REST(PUT, "/workers/{id}", CONTROL, MEDIA_JSON_415, workers_put),
    REST(PATCH, "/workers/{id}", CONTROL, MEDIA_JSON_415, workers_patch),
    REST(DELETE, "/workers/{id}", CONTROL, MEDIA_ANY, workers_delete),
    OWN(POST, "/add_worker", CONTROL, MEDIA_ANY, workers_legacy_add),
    OWN(POST, "/remove_worker", CONTROL, MEDIA_ANY, workers_legacy_remove),
    OWN(GET, "/list_workers", CONTROL, MEDIA_ANY, workers_legacy_list),

    /* tokenizers, parsers, plug-ins */
    LATER(POST, "/parse/function_call", CONTROL, "Parse function call not implemented"),
    LATER(POST, "/parse/reasoning", CONTROL, "Parse reasoning not implemented"),
    LATER(POST, "/wasm", CONTROL, "Add WASM modules not implemented"),
    LATER(GET, "/wasm", CONTROL, "List WASM modules not implemented"),
    LATER(DELETE, "/wasm/{id}", CONTROL, "Remove WASM module not implemented"),
    LATER(POST, "/v1/tokenizers", CONTROL, "Add tokenizer not implemented"),
    LATER(GET, "/v1/tokenizers", CONTROL, "List tokenizers not implemented"),
    LATER(GET, "/v1/tokenizers/{id}", CONTROL, "Get tokenizer not implemented"),
    LATER(DELETE, "/v1/tokenizers/{id}", CONTROL, "Remove tokenizer not implemented"),
    LATER(GET, "/v1/tokenizers/{id}/status", CONTROL, "Tokenizer status not implemented"),

    /* mesh: its own class checks the shared key, as CONTROL does while there is no other */
    LATER(GET, "/ha/status", CONTROL, "Mesh status not implemented"),
    LATER(GET, "/ha/health", CONTROL, "Mesh health not implemented"),
    LATER(GET, "/ha/workers", CONTROL, "Mesh workers not implemented"),
    LATER(GET, "/ha/workers/{id}", CONTROL, "Mesh worker not implemented"),
    LATER(GET, "/ha/policies", CONTROL, "Mesh policies not implemented"),
    LATER(GET, "/ha/policies/{model}", CONTROL, "Mesh policy not implemented"),
    LATER(POST, "/ha/config", CONTROL, "Mesh config not implemented"),
    LATER(GET, "/ha/config/{key}", CONTROL, "Mesh config not implemented"),
    LATER(GET, "/ha/rate-limit", CONTROL, "Mesh rate limit not implemented"),
    LATER(POST, "/ha/rate-limit", CONTROL, "Mesh rate limit not implemented"),
    LATER(GET, "/ha/rate-limit/stats", CONTROL, "Mesh rate limit stats not implemented"),
    LATER(POST, "/ha/shutdown", CONTROL, "Mesh shutdown not implemented"),

    /* why, and reload */
    LATER(POST, "/debug/route", CONTROL, "Debug route not implemented"),
    LATER(GET, "/debug/decisions", CONTROL, "Debug decisions not implemented"),
    LATER(POST, "/admin/reload", CONTROL, "Reload not implemented"),
};
/* clang-format on */
const size_t route_count = sizeof route_table / sizeof *route_table;
