/* The table drives reading, checking and writing; a request takes a copy of the settings when it comes,
 * so a change concerns later requests only. */
#include "lab/mock_faults.h"

#include <errno.h>

static const char *const close_modes[] = {"fin", "rst", NULL};
static const char *const scopes[] = {"inference", "health", "all", NULL};

enum kind { RATE, NUMBER, FLAG, CHOICE };

static const struct setting {
    const char *name;
    enum kind kind;
    size_t offset;
    int64_t min, max;
    const char *const *choices;
} settings[] = {
#define AT(field) offsetof(struct mock_faults, field)
    {"fail_rate", RATE, AT(fail_rate), 0, 1, NULL},
    {"fail_first", NUMBER, AT(fail_first), 0, INT32_MAX, NULL},
    {"fail_status", NUMBER, AT(fail_status), 100, 999, NULL},
    {"retry_after", NUMBER, AT(retry_after), -1, INT32_MAX, NULL},
    {"delay_ms", NUMBER, AT(delay_ms), 0, INT32_MAX, NULL},
    {"slow_body_ms", NUMBER, AT(slow_body_ms), 0, INT32_MAX, NULL},
    {"cut_after_bytes", NUMBER, AT(cut_after_bytes), -1, INT64_MAX, NULL},
    {"cut_after_events", NUMBER, AT(cut_after_events), -1, INT64_MAX, NULL},
    {"hang_after_events", NUMBER, AT(hang_after_events), -1, INT64_MAX, NULL},
    {"cut_inside", FLAG, AT(cut_inside), 0, 0, NULL},
    {"hang", FLAG, AT(hang), 0, 0, NULL},
    {"drop", FLAG, AT(drop), 0, 0, NULL},
    {"garbage", FLAG, AT(garbage), 0, 0, NULL},
    {"healthy", FLAG, AT(healthy), 0, 0, NULL},
    {"close_mode", CHOICE, AT(close_mode), 0, 0, close_modes},
    {"scope", CHOICE, AT(scope), 0, 0, scopes},
#undef AT
};
#define SETTINGS (sizeof settings / sizeof *settings)

struct mock_faults mock_faults_none(void) {
    return (struct mock_faults){
        .fail_status = 500,
        .retry_after = -1,
        .cut_after_bytes = -1,
        .cut_after_events = -1,
        .hang_after_events = -1,
        .healthy = true,
        .close_mode = close_modes[0],
        .scope = scopes[0],
    };
}

static const struct setting *find(struct str name) {
    for (size_t i = 0; i < SETTINGS; i++) {
        if (str_eq(name, str_from(settings[i].name)))
            return &settings[i];
    }
    return NULL;
}

static int set_choice(const struct setting *setting, struct str text, const char **field) {
    for (const char *const *choice = setting->choices; *choice; choice++) {
        if (str_eq(text, str_from(*choice))) {
            *field = *choice;
            return 0;
        }
    }
    return -EINVAL;
}

static int set_number(const struct setting *setting, yyjson_val *value, int64_t *field) {
    if (!yyjson_is_int(value) || (yyjson_is_uint(value) && yyjson_get_uint(value) > INT64_MAX))
        return -EINVAL;
    int64_t number = yyjson_get_sint(value);
    if (number < setting->min || number > setting->max)
        return -EINVAL;
    *field = number;
    return 0;
}

static int set_one(const struct setting *setting, yyjson_val *value, struct mock_faults *faults) {
    char *field = (char *)faults + setting->offset;
    double rate = yyjson_get_num(value);
    switch (setting->kind) {
    case RATE:
        if (!yyjson_is_num(value) || rate < 0 || rate > 1)
            return -EINVAL;
        *(double *)(void *)field = rate;
        return 0;
    case NUMBER: return set_number(setting, value, (int64_t *)(void *)field);
    case FLAG:
        if (!yyjson_is_bool(value))
            return -EINVAL;
        *(bool *)field = yyjson_get_bool(value);
        return 0;
    default: return set_choice(setting, json_str(value), (const char **)(void *)field);
    }
}

static struct str what_it_takes(const struct setting *setting, struct arena *arena) {
    switch (setting->kind) {
    case RATE: return STR("a number from 0 to 1");
    case NUMBER:
        return arena_printf(arena, "a whole number from %lld to %lld", (long long)setting->min,
                            (long long)setting->max);
    case FLAG: return STR("true or false");
    default: break;
    }
    struct str text = STR("one of");
    for (const char *const *choice = setting->choices; *choice; choice++)
        text = arena_printf(arena, "%.*s \"%s\"", STR_ARG(text), *choice);
    return text;
}

int mock_faults_set(struct mock_faults *faults, yyjson_val *object, struct arena *arena,
                    struct str *error) {
    struct mock_faults changed = *faults;
    if (!yyjson_is_obj(object)) {
        *error = STR("the body must be a JSON object");
        return -EINVAL;
    }
    yyjson_obj_iter iter = yyjson_obj_iter_with(object);
    for (yyjson_val *key; (key = yyjson_obj_iter_next(&iter)) != NULL;) {
        const struct setting *setting = find(json_str(key));
        if (setting == NULL) {
            *error = arena_printf(arena, "unknown fault '%.*s'", STR_ARG(json_str(key)));
            return -EINVAL;
        }
        if (set_one(setting, yyjson_obj_iter_get_val(key), &changed)) {
            struct str takes = what_it_takes(setting, arena);
            *error = arena_printf(arena, "'%s' takes %.*s", setting->name, STR_ARG(takes));
            return -EINVAL;
        }
    }
    *faults = changed;
    return 0;
}

void mock_faults_write(const struct mock_faults *faults, struct json_writer *writer) {
    json_object(writer);
    for (size_t i = 0; i < SETTINGS; i++) {
        const void *field = (const char *)faults + settings[i].offset;
        json_key(writer, settings[i].name);
        switch (settings[i].kind) {
        case RATE: json_double(writer, *(const double *)field); break;
        case NUMBER: json_int(writer, *(const int64_t *)field); break;
        case FLAG: json_bool(writer, *(const bool *)field); break;
        case CHOICE: json_string(writer, str_from(*(const char *const *)field)); break;
        }
    }
    json_object_end(writer);
}

enum mock_fate mock_faults_draw(struct mock_faults *faults, struct rand_stream *rand) {
    if (faults->drop)
        return MOCK_DROP;
    if (faults->garbage)
        return MOCK_GARBAGE;
    if (faults->hang)
        return MOCK_HANG;
    if (faults->fail_first > 0) {
        faults->fail_first--;
        return MOCK_FAIL;
    }
    if (faults->fail_rate > 0 && rand_stream_unit(rand) < faults->fail_rate)
        return MOCK_FAIL;
    return MOCK_SERVE;
}

bool mock_faults_concern(const struct mock_faults *faults, bool inference, bool health) {
    struct str scope = str_from(faults->scope);
    if (str_eq(scope, STR("inference")))
        return inference;
    return str_eq(scope, STR("health")) ? health : true;
}

size_t mock_faults_room(const struct mock_faults *faults, uint64_t sent, size_t len) {
    if (faults->cut_after_bytes < 0)
        return len;
    uint64_t limit = (uint64_t)faults->cut_after_bytes;
    uint64_t room = limit > sent ? limit - sent : 0;
    return room < len ? (size_t)room : len;
}
