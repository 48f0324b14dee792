/* The part of the fiber scheduler that only the loop needs. Implemented in fiber.c. */
#pragma once

#include <stddef.h>

/* Cancels every fiber of this thread; how many are still alive. Loop's stack. */
size_t fibers_cancel_all(void);
