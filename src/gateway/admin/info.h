/* What is served, and by whom (spec 01 section 3.3). */
#pragma once

#include "gateway/request.h"

/* GET /v1/models: the models of the registered workers. */
FIBER_FN void info_models(struct request *request);
/* GET /get_model_info, /model_info: the first ready worker's answer. */
FIBER_FN void info_model(struct request *request);
/* GET /get_server_info, /server_info: likewise. */
FIBER_FN void info_server(struct request *request);
