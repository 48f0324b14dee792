/* The route table of a simulated worker. */
#pragma once

#include "lab/mock_call.h"

/* What a server's handler gets: the worker that its port belongs to. */
struct mock_door {
    const struct mock_lab *lab;
    struct mock_site *site;
};

/* Handler for http_server_options; `door` is a struct mock_door. Serves one exchange, on its fiber. */
FIBER_FN void mock_serve(void *door, struct exchange *exchange);
