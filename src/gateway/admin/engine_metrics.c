/* See engine_metrics.h. A parsed page keeps its text and points into it; samples lie grouped by
 * family. Merging collects for each family the parts that pages have in it, then writes family by
 * family. What would pass the bounds of the merged page is rolled back, part by part. */
#include "gateway/admin/engine_metrics.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/hash.h"
#include "base/map.h"
#include "base/vec.h"

/* Which line of a histogram or summary a sample is; the order in which they are written. */
enum part { PART_PLAIN, PART_BUCKET, PART_SUM, PART_COUNT, PART_COUNT_OF_PARTS };
static const struct str part_suffix[PART_COUNT_OF_PARTS] = {
    [PART_PLAIN] = STR_INIT(""),
    [PART_BUCKET] = STR_INIT("_bucket"),
    [PART_SUM] = STR_INIT("_sum"),
    [PART_COUNT] = STR_INIT("_count"),
};

struct sample {
    const char *labels, *value, *time;
    double number;
    uint32_t labels_len, family;
    uint8_t value_len, time_len, part;
};

struct family {
    struct str name, help;
    enum prom_type type;
    size_t start, count; /* its samples */
};

struct engine_page {
    struct str addr;
    char *text;
    size_t text_cap;
    VEC(struct family) families;
    VEC(struct sample) samples; /* grouped by family, in each as they came */
};

/* --- reading a page --- */

struct reader {
    struct engine_page *page;
    struct map names;
    size_t current; /* family of the last sample */
    const char *why;
};

static size_t family_add(struct reader *reader, struct str name) {
    size_t index = reader->page->families.len;
    struct family family = {.name = name, .help = STR(""), .type = PROM_UNKNOWN};
    vec_push(&reader->page->families, family);
    map_put(&reader->names, name, (void *)(index + 1));
    return index;
}

/* Index + 1, or 0. */
static size_t family_find(const struct reader *reader, struct str name) {
    return (size_t)map_get(&reader->names, name);
}

static size_t family_of(struct reader *reader, struct str name) {
    size_t found = family_find(reader, name);
    return found ? found - 1 : family_add(reader, name);
}

static bool has_parts(enum prom_type type, enum part part) {
    return type == PROM_HISTOGRAM || (type == PROM_SUMMARY && part != PART_BUCKET);
}

static bool is_part(const struct family *family, struct str name, enum part part) {
    return name.len == family->name.len + part_suffix[part].len && str_starts(name, family->name) &&
           str_ends(name, part_suffix[part]) &&
           (part == PART_PLAIN || has_parts(family->type, part));
}

/* The family a sample belongs to: its own name, or that of a declared histogram or summary without
 * the suffix. */
static size_t sample_family(struct reader *reader, struct str name, enum part *part) {
    const struct family *families = reader->page->families.items;
    for (*part = PART_PLAIN; *part < PART_COUNT_OF_PARTS; (*part)++) {
        if (reader->page->families.len > 0 && is_part(&families[reader->current], name, *part))
            return reader->current;
    }
    *part = PART_PLAIN;
    size_t found = family_find(reader, name);
    for (enum part p = PART_BUCKET; found == 0 && p < PART_COUNT_OF_PARTS; p++) {
        if (!str_ends(name, part_suffix[p]))
            continue;
        size_t base = family_find(reader, str_head(name, name.len - part_suffix[p].len));
        if (base != 0 && has_parts(families[base - 1].type, p)) {
            *part = p;
            found = base;
        }
    }
    return found ? found - 1 : family_add(reader, name);
}

static void take_sample(struct reader *reader, const struct prom_line *line) {
    enum part part;
    reader->current = sample_family(reader, line->name, &part);
    struct sample sample = {.labels = line->labels.ptr,
                            .labels_len = (uint32_t)line->labels.len,
                            .value = line->value.ptr,
                            .value_len = (uint8_t)line->value.len,
                            .time = line->time.ptr,
                            .time_len = (uint8_t)line->time.len,
                            .number = line->number,
                            .family = (uint32_t)reader->current,
                            .part = (uint8_t)part};
    vec_push(&reader->page->samples, sample);
    reader->page->families.items[reader->current].count++;
}
_Static_assert(PROM_VALUE_MAX <= UINT8_MAX, "fits value_len");

static void take_line(struct reader *reader, const struct prom_line *line) {
    if (line->kind == PROM_SAMPLE) {
        take_sample(reader, line);
        return;
    }
    if (line->kind == PROM_BLANK)
        return;
    size_t index = family_of(reader, line->name);
    struct family *family = &reader->page->families.items[index];
    if (line->kind == PROM_TYPE && family->type == PROM_UNKNOWN)
        family->type = line->type;
    if (line->kind == PROM_HELP && family->help.len == 0)
        family->help = line->help;
}

static bool read_lines(struct reader *reader, struct str text) {
    struct prom_line line;
    int rc;
    while ((rc = prom_next(&text, &line)) == 1) {
        take_line(reader, &line);
        if (reader->page->samples.len > ENGINE_PAGE_SAMPLES)
            reader->why = "more than 400000 samples";
        if (reader->page->families.len > ENGINE_PAGE_FAMILIES)
            reader->why = "more than 20000 families";
        if (reader->why)
            return false;
    }
    if (rc < 0)
        reader->why = "not the Prometheus text format";
    return rc == 0;
}
_Static_assert(ENGINE_PAGE_SAMPLES == 400000 && ENGINE_PAGE_FAMILIES == 20000, "named above");

/* Brings the samples of each family together. */
static void group_samples(struct engine_page *page) {
    size_t start = 0;
    for (size_t i = 0; i < page->families.len; i++) {
        page->families.items[i].start = start;
        start += page->families.items[i].count;
        page->families.items[i].count = 0;
    }
    struct sample *grouped = mem_alloc((page->samples.len + 1) * sizeof *grouped);
    for (size_t i = 0; i < page->samples.len; i++) {
        struct family *family = &page->families.items[page->samples.items[i].family];
        grouped[family->start + family->count++] = page->samples.items[i];
    }
    mem_free(page->samples.items);
    page->samples.items = grouped;
    page->samples.cap = page->samples.len + 1;
}

struct engine_page *engine_page_parse(struct str addr, struct buf *text, const char **why) {
    struct engine_page *page = mem_zalloc(sizeof *page);
    struct reader reader = {.page = page};
    struct str all;
    page->addr = addr;
    page->text_cap = text->cap;
    page->text = buf_steal(text, &all.len);
    all.ptr = page->text;
    map_init(&reader.names);
    if (all.len > ENGINE_PAGE_MAX)
        reader.why = "larger than 16 MiB";
    bool good = reader.why == NULL && read_lines(&reader, all);
    map_free(&reader.names);
    if (!good) {
        *why = reader.why;
        engine_page_free(page);
        return NULL;
    }
    group_samples(page);
    return page;
}
_Static_assert(ENGINE_PAGE_MAX == 16777216, "named above");

void engine_page_free(struct engine_page *page) {
    if (page == NULL)
        return;
    vec_free(&page->families);
    vec_free(&page->samples);
    mem_free(page->text);
    mem_free(page);
}

size_t engine_page_cost(const struct engine_page *page) {
    return sizeof *page + page->text_cap + page->families.cap * sizeof *page->families.items +
           page->samples.cap * sizeof *page->samples.items;
}

struct str engine_page_addr(const struct engine_page *page) {
    return page->addr;
}

/* --- collecting families --- */

/* One page's part of a family. */
struct contribution {
    const struct engine_page *page;
    const struct family *family;
};

struct merged {
    struct str name; /* as first met, with its colons */
    struct str help;
    enum prom_type type;
    VEC(struct contribution) parts;
};

struct merger {
    const struct engine_merge *options;
    struct buf *out;
    struct map names; /* as written */
    VEC(struct merged) families;
};

static void drop(const struct merger *merger, const struct contribution *part, const char *why) {
    if (merger->options->dropped != NULL)
        merger->options->dropped(merger->options->arg, part->page->addr, part->family->name, why);
}

/* The name as it is written. */
static struct str written_name(const struct merger *merger, struct str name, char *room) {
    for (size_t i = 0; i < name.len; i++)
        room[i] = name.ptr[i] == ':' && !merger->options->keep_colons ? '_' : name.ptr[i];
    return str_make(room, name.len);
}

static bool with_lines(enum prom_type type) {
    return type == PROM_HISTOGRAM || type == PROM_SUMMARY;
}

/* May both stand in one family? No TYPE line fits to whatever has plain samples. */
static bool types_agree(enum prom_type a, enum prom_type b) {
    if (a == b)
        return true;
    return (a == PROM_UNKNOWN && !with_lines(b)) || (b == PROM_UNKNOWN && !with_lines(a));
}

/* NULL when there are too many. */
static struct merged *merged_of(struct merger *merger, const struct family *family) {
    char room[PROM_NAME_MAX];
    struct str name = written_name(merger, family->name, room);
    size_t found = (size_t)map_get(&merger->names, name);
    if (found)
        return &merger->families.items[found - 1];
    if (merger->families.len == ENGINE_FAMILIES_MAX)
        return NULL;
    struct merged merged = {.name = family->name, .type = family->type};
    vec_push(&merger->families, merged);
    map_put(&merger->names, name, (void *)merger->families.len);
    return &merger->families.items[merger->families.len - 1];
}

static void collect_family(struct merger *merger, const struct contribution *part) {
    struct merged *merged = merged_of(merger, part->family);
    if (merged == NULL) {
        drop(merger, part, "too many families in all");
        return;
    }
    if (!types_agree(merged->type, part->family->type)) {
        drop(merger, part, "another type than with the first worker");
        return;
    }
    if (merged->type == PROM_UNKNOWN)
        merged->type = part->family->type;
    if (merged->help.len == 0)
        merged->help = part->family->help;
    vec_push(&merged->parts, *part);
}

static void collect_page(struct merger *merger, const struct engine_page *page) {
    for (size_t i = 0; i < page->families.len; i++) {
        struct contribution part = {page, &page->families.items[i]};
        if (part.family->count > 0)
            collect_family(merger, &part);
    }
}

/* --- the labels of a family --- */

struct label_set {
    struct str names[PROM_LABELS_MAX];
    size_t count, bytes;
    struct str last; /* "le" or "quantile", written behind the others */
};

static bool set_has(const struct label_set *set, struct str name) {
    for (size_t i = 0; i < set->count; i++) {
        if (str_eq(set->names[i], name))
            return true;
    }
    return false;
}

/* One place is kept for `last`, so that what is written can be read again. */
static bool set_add(struct label_set *set, struct str name) {
    if (str_eq(name, set->last) || set_has(set, name))
        return true;
    if (set->count == PROM_LABELS_MAX - 1 || set->bytes + name.len > ENGINE_LABEL_BYTES)
        return false;
    set->names[set->count++] = name;
    set->bytes += name.len;
    return true;
}

static struct str sample_labels(const struct sample *sample) {
    return str_make(sample->labels, sample->labels_len);
}

static bool set_add_part(struct label_set *set, const struct contribution *part) {
    const struct sample *samples = part->page->samples.items + part->family->start;
    for (size_t i = 0; i < part->family->count; i++) {
        struct str labels = sample_labels(&samples[i]);
        struct prom_label label;
        while (prom_label(&labels, &label)) {
            if (!set_add(set, label.name))
                return false;
        }
    }
    return true;
}

static int by_name(const void *a, const void *b) {
    return str_cmp(*(const struct str *)a, *(const struct str *)b);
}

/* The union over all parts; parts that would make it too large are taken out. */
static void set_make(struct merger *merger, struct merged *merged, struct label_set *set) {
    *set = (struct label_set){.last = STR("")};
    if (merged->type == PROM_HISTOGRAM)
        set->last = STR("le");
    if (merged->type == PROM_SUMMARY)
        set->last = STR("quantile");
    (void)set_add(set, STR(ENGINE_WORKER_LABEL));
    size_t kept = 0;
    for (size_t i = 0; i < merged->parts.len; i++) {
        size_t count = set->count, bytes = set->bytes;
        struct contribution part = merged->parts.items[i];
        if (set_add_part(set, &part)) {
            merged->parts.items[kept++] = part;
            continue;
        }
        set->count = count;
        set->bytes = bytes;
        drop(merger, &part, "too many labels");
    }
    merged->parts.len = kept;
    qsort(set->names, set->count, sizeof *set->names, by_name);
}

/* --- the order of a histogram's lines --- */

struct rank {
    const struct sample *sample;
    uint64_t hash; /* of its labels but the last one */
    size_t index, group;
    double bound;
};

static uint64_t labels_hash(const struct sample *sample, struct str last, double *bound) {
    struct str labels = sample_labels(sample);
    struct prom_label label;
    uint64_t hash = 0;
    *bound = 0;
    while (prom_label(&labels, &label)) {
        if (!str_eq(label.name, last))
            hash += hash_seeded(label.value.ptr, label.value.len, hash_str(label.name));
        else if (prom_number(label.value, bound) < 0 || isnan(*bound))
            *bound = 0;
    }
    return hash;
}

static int compare(uint64_t a, uint64_t b) { return a < b ? -1 : a > b; }

static int by_hash(const void *a, const void *b) {
    const struct rank *x = a, *y = b;
    int order = compare(x->hash, y->hash);
    return order ? order : compare(x->index, y->index);
}

static int by_line(const void *a, const void *b) {
    const struct rank *x = a, *y = b;
    int order = compare(x->group, y->group);
    if (!order)
        order = compare(x->sample->part, y->sample->part);
    if (!order)
        order = (x->bound > y->bound) - (x->bound < y->bound);
    return order ? order : compare(x->index, y->index);
}

/* Samples of one label set stand together: buckets upwards, sum, count. The caller frees. */
static struct rank *rank_samples(const struct contribution *part, struct str last) {
    size_t count = part->family->count;
    struct rank *ranks = mem_alloc(count * sizeof *ranks);
    for (size_t i = 0; i < count; i++) {
        const struct sample *sample = &part->page->samples.items[part->family->start + i];
        ranks[i] = (struct rank){.sample = sample, .index = i};
        ranks[i].hash = labels_hash(sample, last, &ranks[i].bound);
    }
    qsort(ranks, count, sizeof *ranks, by_hash);
    for (size_t i = 0; i < count; i++) {
        bool same = i > 0 && ranks[i].hash == ranks[i - 1].hash;
        ranks[i].group = same ? ranks[i - 1].group : ranks[i].index;
    }
    qsort(ranks, count, sizeof *ranks, by_line);
    return ranks;
}

/* --- writing --- */

static int put(struct buf *out, struct str s) { return buf_add(out, s); }

static int put_number(struct buf *out, double number) {
    char text[48];
    if (isnan(number))
        return put(out, STR("NaN"));
    if (isinf(number))
        return put(out, number > 0 ? STR("+Inf") : STR("-Inf"));
    if (number == floor(number) && fabs(number) < 1e17) {
        snprintf(text, sizeof text, "%.0f", number);
        return put(out, str_from(text));
    }
    for (int digits = 15; digits <= 17; digits++) {
        double back;
        snprintf(text, sizeof text, "%.*g", digits, number);
        if (str_to_double(str_from(text), &back) == 0 && back == number)
            break;
    }
    return put(out, str_from(text));
}

/* Counts are mostly whole numbers already: those need no conversion. */
static int put_value(struct buf *out, const struct sample *sample) {
    struct str text = str_make(sample->value, sample->value_len);
    size_t digits = 0;
    while (digits < text.len && text.ptr[digits] >= '0' && text.ptr[digits] <= '9')
        digits++;
    bool plain = digits > 0 && digits <= 15 && (digits == 1 || text.ptr[0] != '0');
    if (plain && (digits == text.len || str_eq(str_skip(text, digits), STR(".0"))))
        return put(out, str_head(text, digits));
    return put_number(out, sample->number);
}

static int put_escaped(struct buf *out, struct str value) {
    int rc = 0;
    for (size_t i = 0; i < value.len && rc == 0; i++) {
        if (value.ptr[i] == '\n')
            rc = put(out, STR("\\n"));
        else if (value.ptr[i] == '\\' || value.ptr[i] == '"')
            rc = buf_append(out, (char[]){'\\', value.ptr[i]}, 2);
        else
            rc = buf_append(out, &value.ptr[i], 1);
    }
    return rc;
}

/* The sample's own value of a label, escaped as it came; empty when it has none. */
static struct str label_value(const struct sample *sample, struct str name, bool *found) {
    struct str labels = sample_labels(sample);
    struct prom_label label;
    *found = false;
    while (prom_label(&labels, &label)) {
        if (str_eq(label.name, name)) {
            *found = true;
            return label.value;
        }
    }
    return STR("");
}

static int put_label(struct buf *out, struct str name, const struct sample *sample,
                     struct str addr) {
    bool found;
    int rc = put(out, name);
    if (rc == 0)
        rc = put(out, STR("=\""));
    if (rc == 0)
        rc = str_eq(name, STR(ENGINE_WORKER_LABEL)) ? put_escaped(out, addr)
                                                    : put(out, label_value(sample, name, &found));
    return rc ? rc : put(out, STR("\""));
}

static int put_labels(struct buf *out, const struct label_set *set, const struct sample *sample,
                      struct str addr) {
    int rc = put(out, STR("{"));
    for (size_t i = 0; i < set->count && rc == 0; i++) {
        if (i > 0)
            rc = put(out, STR(","));
        if (rc == 0)
            rc = put_label(out, set->names[i], sample, addr);
    }
    bool found = false;
    if (rc == 0 && set->last.len > 0)
        (void)label_value(sample, set->last, &found);
    if (rc == 0 && found)
        rc = put(out, STR(","));
    if (rc == 0 && found)
        rc = put_label(out, set->last, sample, addr);
    return rc ? rc : put(out, STR("} "));
}

static int put_sample(struct buf *out, struct str name, const struct label_set *set,
                      const struct sample *sample, struct str addr) {
    int rc = put(out, name);
    if (rc == 0)
        rc = put(out, part_suffix[sample->part]);
    if (rc == 0)
        rc = put_labels(out, set, sample, addr);
    if (rc == 0)
        rc = put_value(out, sample);
    if (rc == 0 && sample->time_len > 0)
        rc = put(out, STR(" "));
    if (rc == 0 && sample->time_len > 0)
        rc = put(out, str_make(sample->time, sample->time_len));
    return rc ? rc : put(out, STR("\n"));
}

static int put_part(struct buf *out, struct str name, const struct label_set *set,
                    const struct contribution *part) {
    const struct sample *samples = part->page->samples.items + part->family->start;
    struct rank *ranks = set->last.len > 0 ? rank_samples(part, set->last) : NULL;
    int rc = 0;
    for (size_t i = 0; i < part->family->count && rc == 0; i++) {
        const struct sample *sample = ranks ? ranks[i].sample : &samples[i];
        rc = put_sample(out, name, set, sample, part->page->addr);
    }
    mem_free(ranks);
    return rc;
}

static int put_comment(struct buf *out, const char *word, struct str name, struct str text) {
    int rc = put(out, STR("# "));
    if (rc == 0)
        rc = put(out, str_from(word));
    if (rc == 0)
        rc = put(out, STR(" "));
    if (rc == 0)
        rc = put(out, name);
    if (rc == 0)
        rc = put(out, STR(" "));
    if (rc == 0)
        rc = put(out, text);
    return rc ? rc : put(out, STR("\n"));
}

static int put_head(struct buf *out, struct str name, const struct merged *merged) {
    int rc = 0;
    if (merged->help.len > 0)
        rc = put_comment(out, "HELP", name, merged->help);
    if (rc == 0 && merged->type != PROM_UNKNOWN)
        rc = put_comment(out, "TYPE", name, str_from(prom_type_name(merged->type)));
    return rc;
}

/* Leaves what does not fit out. */
static void put_parts(struct merger *merger, const struct merged *merged, struct str name,
                      const struct label_set *set) {
    struct buf *out = merger->out;
    size_t start = out->len, written = 0;
    bool headed = put_head(out, name, merged) == 0;
    for (size_t i = 0; i < merged->parts.len; i++) {
        size_t before = out->len;
        if (headed && put_part(out, name, set, &merged->parts.items[i]) == 0) {
            written++;
            continue;
        }
        out->len = before;
        drop(merger, &merged->parts.items[i], "the merged page is full");
    }
    if (written == 0)
        out->len = start;
}

static void put_family(struct merger *merger, struct merged *merged) {
    struct label_set set;
    char room[PROM_NAME_MAX];
    set_make(merger, merged, &set);
    put_parts(merger, merged, written_name(merger, merged->name, room), &set);
}

void engine_merge(const struct engine_merge *merge, struct engine_page *const *pages, size_t count,
                  struct buf *out) {
    struct merger merger = {.options = merge, .out = out};
    map_init(&merger.names);
    for (size_t i = 0; i < count; i++)
        collect_page(&merger, pages[i]);
    for (size_t i = 0; i < merger.families.len; i++) {
        put_family(&merger, &merger.families.items[i]);
        vec_free(&merger.families.items[i].parts);
    }
    vec_free(&merger.families);
    map_free(&merger.names);
}
