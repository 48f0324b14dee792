/* GET /engine_metrics: the metrics pages of all workers, merged. */
#pragma once

#include "gateway/request.h"

/* All loops share one result for a second, and one scrape at a time. */
FIBER_FN void engine_scrape_metrics(struct request *request);
