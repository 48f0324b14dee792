/* The order of the groups, and what is said to names that no row has. */
#include "app/option_table.h"

#include "app/options.h"

static const char *unknown_hint(const char *name) {
    if (str_starts(str_from(name), STR("router-")))
        return "the prefix --router- belongs to launch-server and serve";
    return "see --help";
}

static const char *argument_hint(const char *token) {
    if (command_known(token))
        return "a sub-command stands first, flags before it conflict with it";
    return NULL;
}

const struct opt_schema *option_schema(void) {
    static const struct opt_group *const order[] = {
        &group_core,   &group_workers,  &group_policies,  &group_pd,        &group_retries,
        &group_health, &group_limits,   &group_admission, &group_lifecycle, &group_observe,
        &group_tls,    &group_auth,     &group_discovery, &group_models,    &group_history,
        &group_mesh,   &group_commands,
    };
    static struct opt_group groups[OPT_COUNT(order)];
    static const struct opt_schema schema = {groups, OPT_COUNT(groups), unknown_hint,
                                             argument_hint};
    for (size_t i = 0; i < OPT_COUNT(order); i++)
        groups[i] = *order[i];
    return &schema;
}
