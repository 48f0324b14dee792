/* What tests drive a simulated worker with: faults, the record, reset. */
#pragma once

#include "lab/mock_call.h"

/* GET shows the faults; POST sets the members given (all workers of the process with ?all=1). */
mock_handler mock_control_faults;
mock_handler mock_control_requests; /* GET /mock/requests?last=N */
mock_handler mock_control_reset;    /* POST /mock/reset, ?all=1 */
