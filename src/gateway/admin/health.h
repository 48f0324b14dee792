/* Liveness, readiness and health (spec 01 sections 3.3 and 3.11). The first three may run on the
 * control loop as well, for the probe port. */
#pragma once

#include "gateway/request.h"

FIBER_FN void health_liveness(struct request *request);
/* Text; with ?details an object, behind the check of the control class. */
FIBER_FN void health_plain(struct request *request);
FIBER_FN void health_readiness(struct request *request);
/* Relays the answer of the first ready worker, which generates a token for it. */
FIBER_FN void health_generate(struct request *request);
