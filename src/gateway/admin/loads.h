/* GET /get_loads and /v1/loads: the load of every worker, as the workers themselves tell it. */
#pragma once

#include "gateway/request.h"

FIBER_FN void loads_get(struct request *request);
