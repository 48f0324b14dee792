/* What a simulated worker tells of itself: models, server, loads, metrics, health, and the few controls
 * that engines have. */
#pragma once

#include "lab/mock_call.h"

mock_handler mock_models;      /* GET /v1/models and /v1/models/{id} */
mock_handler mock_model_info;  /* GET /get_model_info, /model_info */
mock_handler mock_server_info; /* GET /get_server_info, /server_info */
mock_handler mock_get_load;    /* GET /get_load */
mock_handler mock_loads;       /* GET /v1/loads */
mock_handler mock_metrics;     /* GET /metrics */
mock_handler mock_health;      /* GET /health, /health_generate */
mock_handler mock_flush_cache; /* POST or GET */
mock_handler mock_start_profile, mock_stop_profile;
mock_handler mock_cancel_response; /* POST /v1/responses/{id}/cancel */
