/* One HTTP worker serves the whole request (backend_http_regular, backend.h). */
#pragma once

#include "gateway/backend/backend.h"
