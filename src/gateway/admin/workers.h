/* The worker routes (spec 01 sections 3.1 and 3.2): HTTP around the fleet's registry. */
#pragma once

#include "gateway/request.h"

FIBER_FN void workers_add(struct request *request);
FIBER_FN void workers_list(struct request *request);
/* /workers/{id}: UUID, percent-encoded URL or raw URL. */
FIBER_FN void workers_get(struct request *request);
FIBER_FN void workers_put(struct request *request);
FIBER_FN void workers_patch(struct request *request);
FIBER_FN void workers_delete(struct request *request);

FIBER_FN void workers_legacy_add(struct request *request);
FIBER_FN void workers_legacy_remove(struct request *request);
FIBER_FN void workers_legacy_list(struct request *request);
