/* The policies that are implemented: one file each, one row each in the table of policy.c. */
#pragma once

#include "fleet/policy.h"

extern const struct policy_ops policy_random;
extern const struct policy_ops policy_round_robin;
extern const struct policy_ops policy_passthrough;
