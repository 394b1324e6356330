/* tune.c: plans that `tinytorch tune` measured, put over the cost model's.
 *
 * A file of them has a line for each kernel of each CPU:
 *
 *     znver3/v3/32 8d1f6a90c2b7e345 tile=[6,16] pack=[1] 1.132 # k3_matmul_add_relu: f32[128,512]
 *
 * that is: the CPU, the kernel's key, plan entries, how many times as fast as the default it was, and what it is called, for the reader. The
 * key is a hash of all that the kernel's code follows from: its rows with their types, attributes and constants, which of them are results,
 * and what it reads; names, places and streams of random numbers are not in it.
 *
 * The pass sets the entries in the plans of the kernels that it finds. What it used is hashed too: a plan may change the order of additions,
 * so a checkpoint must know. */
#include "form.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Plan entries that may be tuned: of which kind of kernel, and how many numbers. */
static const struct { const char *name; form_kind kind; uint32_t n; } known[] = {
  {"lanes", FORM_LOOP, 1}, {"grain", FORM_LOOP, 1}, {"tile", FORM_CONTRACT, 2}, {"pack", FORM_CONTRACT, 1}, {"blocks", FORM_CONTRACT, 1},
  {"chunk", FORM_CONTRACT, 1}, {"inside", FORM_CONTRACT, 1}, {"winograd", FORM_CONTRACT, 1}};
enum { N_KNOWN = sizeof known / sizeof *known };

/* ---- keys ---- */

static void mix(uint64_t *hash, const void *data, size_t bytes) {             /* FNV-1a */
  for (size_t i = 0; i < bytes; i++) *hash = (*hash ^ ((const uint8_t *)data)[i]) * 0x100000001b3u;
}
static void mix_int(uint64_t *hash, int64_t v) { mix(hash, &v, sizeof v); }

static void mix_type(uint64_t *hash, const ir_node *n) {
  mix_int(hash, n->dtype);
  mix_int(hash, n->rank);
  mix(hash, n->dim, (size_t)n->rank * sizeof *n->dim);
}

static void mix_attributes(uint64_t *hash, const ir_graph *g, const ir_node *n) {
  const int64_t *w = n->words;
  for (int i = 0; i < 8 && ir_ops[n->op].attrs[i].kind != IR_ATTR_END; i++) {
    int kind = ir_ops[n->op].attrs[i].kind;
    const ir_blob *blob = kind == IR_ATTR_DATA ? &g->blobs[*w] : NULL;
    if (blob) mix(hash, blob->data, blob->bytes);
    else if (kind == IR_ATTR_STR) mix(hash, (const char *)(intptr_t)*w, strlen((const char *)(intptr_t)*w));
    else if (kind == IR_ATTR_INTS) mix(hash, w, (size_t)(1 + w[0]) * sizeof *w);
    else if (strcmp(ir_ops[n->op].attrs[i].name, "stream") != 0) mix_int(hash, *w);
    w += kind == IR_ATTR_INTS ? 1 + w[0] : 1;
  }
}

static uint64_t key_of(const ir_graph *g, const group *x, ir_ref *number) {
  uint64_t hash = 0xcbf29ce484222325u;
  ir_ref n = 0;                                          /* number: of each row that the kernel has or reads, + 1; zero before and after */
  for (int i = 0; i < x->n; i++) {
    const ir_node *r = ir_at(g, x->rows[i]);
    mix(&hash, ir_ops[r->op].name, strlen(ir_ops[r->op].name));
    mix_type(&hash, r);
    mix_attributes(&hash, g, r);
    mix_int(&hash, x->result[i]);
    for (uint32_t k = 0; k < r->n_args; k++) {
      ir_ref a = r->args[k];
      mix_int(&hash, number[a] ? number[a] : n + 1);
      if (number[a]) continue;
      number[a] = ++n;
      mix_type(&hash, ir_at(g, a));
    }
    number[x->rows[i]] = ++n;
  }
  for (int i = 0; i < x->n; i++) {
    const ir_node *r = ir_at(g, x->rows[i]);
    number[x->rows[i]] = 0;
    for (uint32_t k = 0; k < r->n_args; k++) number[r->args[k]] = 0;
  }
  return hash;
}

/* ---- kernels one by one ---- */

pass_kernels *pass_kernels_of(const ir_graph *g, tt_error *err) {
  pass_kernels *ks = calloc(1, sizeof *ks);
  int n = 0;
  group *groups = ks ? groups_of(g, &n) : NULL;
  ir_ref *number = calloc(g->n_nodes, sizeof *number);
  bool ok = groups && number && (ks->at = calloc((size_t)n + 1, sizeof *ks->at));
  for (int i = 0; ok && i < n; i++) {
    uint32_t count;
    const int64_t *kind = ir_kernel_get(g, groups[i].region, "kind", &count);
    ks->at[ks->n++] = (pass_kernel){groups[i].region, kind && count ? *kind : -1, key_of(g, &groups[i], number)};
  }
  groups_free(groups, n);
  free(number);
  if (ok) return ks;
  pass_kernels_free(ks);
  tt_fail(err, TT_NO_MEMORY, "error: no memory for the kernels of @%s\n  at %u rows\n  fix: free memory or make the model smaller", g->name, g->n_nodes);
  return NULL;
}

void pass_kernels_free(pass_kernels *ks) {
  if (!ks) return;
  free(ks->at);
  free(ks);
}

ir_graph *pass_kernel_alone(const ir_graph *g, uint32_t region, tt_error *err) {
  ir_graph *out = ir_graph_new(g->kernels[region].name);
  int n = 0, at = 0;
  group *groups = groups_of(g, &n);
  ir_ref *map = calloc(g->n_nodes, sizeof *map);
  if (!out || !groups || !map) {
    ir_graph_free(out);
    groups_free(groups, n);
    free(map);
    tt_fail(err, TT_NO_MEMORY, "error: no memory for a kernel\n  at @%s\n  fix: free memory", g->kernels[region].name);
    return NULL;
  }
  out->plain = true;
  while (at < n && groups[at].region != region) at++;
  const group *x = &groups[at];
  for (int pass = 0; pass < 2; pass++)                   /* what it reads, then its rows */
    for (int i = 0; i < x->n && !out->error.status; i++) {
      const ir_node *r = ir_at(g, x->rows[i]);
      for (uint32_t k = 0; pass == 0 && k < r->n_args; k++) {
        ir_ref a = r->args[k];
        char name[32];
        snprintf(name, sizeof name, "x%u", a);
        if (ir_at(g, a)->region != region && !map[a]) map[a] = ir_input(out, name, (tt_dtype)ir_at(g, a)->dtype, ir_shape(g, a));
      }
      if (pass == 0) continue;
      if (i == 0) out->at_region = ir_kernel_add(out, g->kernels[region].name);
      map[x->rows[i]] = ir_rebuild(g, out, x->rows[i], map);
    }
  out->at_region = 0;
  for (uint32_t i = 0; i < g->kernels[region].n_plan; i++)
    ir_kernel_plan(out, 1, g->kernels[region].plan[i].name, g->kernels[region].plan[i].values, g->kernels[region].plan[i].n);
  for (int i = 0; i < x->n; i++)
    if (x->result[i]) ir_output_add(out, NULL, map[x->rows[i]]);
  groups_free(groups, n);
  free(map);
  if (!out->error.status) return out;
  tt_fail(err, out->error.status, "%s", out->error.message);
  ir_graph_free(out);
  return NULL;
}

/* ---- the file ---- */

static tt_status wrong(tt_error *err, const char *path, int line, const char *expected, const char *found) {
  return tt_fail(err, TT_FORMAT, "error: %s:%d: expected %s, found %s%.40s%s\n  at the file of tuned plans\n  fix: remove the line, or the file, and run tinytorch tune again", path, line, expected,
                 *found ? "\"" : "", *found ? found : "the end of the line", *found ? "\"" : "");
}

/* "tile=[6,16]" */
static bool parse_entry(const char *text, pass_entry *e) {
  const char *equals = strchr(text, '=');
  *e = (pass_entry){0};
  for (int i = 0; equals && i < N_KNOWN; i++)
    if (strlen(known[i].name) == (size_t)(equals - text) && !memcmp(known[i].name, text, (size_t)(equals - text))) e->name = known[i].name, e->n = known[i].n;
  if (!e->name || equals[1] != '[') return false;
  const char *p = equals + 2;
  for (uint32_t i = 0; i < e->n; i++) {
    char *end;
    e->values[i] = strtoll(p, &end, 10);
    if (end == p || e->values[i] < 0 || e->values[i] > INT32_MAX || *end != (i + 1 < e->n ? ',' : ']')) return false;
    p = end + 1;
  }
  return !*p;
}

static tt_status parse_line(char *line, const char *path, int number, pass_tuning *t, tt_error *err) {
  char *about = strstr(line, " # "), *rest = NULL, *end;
  if (!about) return wrong(err, path, number, "\" # \" and the kernel's name at the end", line);
  *about = 0;
  snprintf(t->about, sizeof t->about, "%s", about + 3);
  char *cpu = strtok_r(line, " ", &rest), *key = strtok_r(NULL, " ", &rest), *word;
  snprintf(t->cpu, sizeof t->cpu, "%s", cpu ? cpu : "");
  if (!cpu || !strchr(cpu, '/')) return wrong(err, path, number, "a CPU", cpu ? cpu : "");
  t->key = key ? strtoull(key, &end, 16) : 0;
  if (!key || strlen(key) != 16 || *end) return wrong(err, path, number, "a key of 16 hexadecimal digits", key ? key : "");
  while ((word = strtok_r(NULL, " ", &rest)) && strchr(word, '=')) {
    if (t->n == PASS_ENTRIES || !parse_entry(word, &t->entries[t->n])) return wrong(err, path, number, "a plan entry such as tile=[6,16]", word);
    t->n++;
  }
  double ratio;
  if (!t->n || !word || !pass_read_number(word, &ratio) || !(ratio > 0)) return wrong(err, path, number, t->n ? "how many times as fast as the default" : "a plan entry such as tile=[6,16]", word ? word : "");
  t->ratio = ratio;
  word = strtok_r(NULL, " ", &rest);
  return word ? wrong(err, path, number, "nothing more before #", word) : TT_OK;
}

static pass_tuning *add(pass_tunings *ts) {
  if (ts->n == ts->room) {
    int room = ts->room ? 2 * ts->room : 32;
    pass_tuning *at = realloc(ts->at, (size_t)room * sizeof *at);
    if (!at) return NULL;
    ts->at = at, ts->room = room;
  }
  ts->at[ts->n] = (pass_tuning){0};
  return &ts->at[ts->n++];
}

static tt_status no_memory(tt_error *err, const char *path) { return tt_fail(err, TT_NO_MEMORY, "error: no memory for tuned plans\n  at %s\n  fix: free memory", path); }

pass_tunings *pass_tunings_new(const char *cpu) {
  pass_tunings *ts = calloc(1, sizeof *ts);
  if (ts) snprintf(ts->cpu, sizeof ts->cpu, "%s", cpu);
  return ts;
}

void pass_tunings_free(pass_tunings *ts) {
  if (!ts) return;
  free(ts->at);
  free(ts);
}

tt_status pass_tunings_read(pass_tunings *ts, const char *text, size_t length, const char *path, tt_error *err) {
  int number = 0;
  for (const char *p = text, *end = text + length; p < end; number++) {
    const char *stop = memchr(p, '\n', (size_t)(end - p));
    char line[400];
    if (!stop || (size_t)(stop - p) >= sizeof line || memchr(p, 0, (size_t)(stop - p))) return wrong(err, path, number + 1, "a line of text, shorter than 400 letters", stop ? "something else" : "");
    memcpy(line, p, (size_t)(stop - p));
    line[stop - p] = 0;
    p = stop + 1;
    if (line[0] == '#' || !line[strspn(line, " ")]) continue;
    pass_tuning *t = add(ts);
    if (!t) return no_memory(err, path);
    if (parse_line(line, path, number + 1, t, err) != TT_OK) return TT_FORMAT;
    if (strcmp(t->cpu, ts->cpu) == 0) ts->mine++;
  }
  return TT_OK;
}

static const pass_tuning *find(const pass_tunings *ts, uint64_t key) {
  for (int i = ts->n; i-- > 0;)                          /* the last one said counts */
    if (ts->at[i].key == key && strcmp(ts->at[i].cpu, ts->cpu) == 0) return &ts->at[i];
  return NULL;
}

tt_status pass_tunings_set(pass_tunings *ts, const pass_tuning *t, tt_error *err) {
  pass_tuning *to = (pass_tuning *)find(ts, t->key);
  if (!to && !(to = add(ts))) return no_memory(err, "a new plan");
  if (!to->n) ts->mine++;
  *to = *t;
  snprintf(to->cpu, sizeof to->cpu, "%s", ts->cpu);
  return TT_OK;
}

void pass_entries_text(const pass_entry *entries, int n, char *text, size_t size) {
  size_t at = 0;
  text[0] = 0;
  for (int i = 0; i < n && at < size; i++)
    for (uint32_t k = 0; k < entries[i].n && at < size; k++)
      at += (size_t)snprintf(text + at, size - at, "%s%s%s%lld%s", k ? "" : i ? " " : "", k ? "," : entries[i].name, k ? "" : "=[", (long long)entries[i].values[k], k + 1 < entries[i].n ? "" : "]");
}

char *pass_tunings_text(const pass_tunings *ts) {
  char *text = NULL, plan[200];
  size_t size;
  FILE *f = open_memstream(&text, &size);
  if (!f) return NULL;
  fprintf(f, "# Plans that tinytorch tune measured. CPU, key of the kernel, plan, times as fast as the default, # kernel\n");
  for (int i = 0; i < ts->n; i++) {
    const pass_tuning *t = &ts->at[i];
    pass_entries_text(t->entries, t->n, plan, sizeof plan);
    fprintf(f, "%s %016llx %s %.3f # %s\n", t->cpu, (unsigned long long)t->key, plan, t->ratio, t->about);
  }
  if (fclose(f)) free(text), text = NULL;
  return text;
}

/* ---- the pass ---- */

typedef struct { pass_tunings *tunings; ir_ref *number; } tuner;

static void plan_kernel(void *user, const group *x, const ir_graph *in, ir_graph *out, uint32_t region) {
  tuner *u = user;
  const ir_kernel *from = &in->kernels[x->region];
  int64_t kind = -1;
  for (uint32_t i = 0; i < from->n_plan; i++) {
    ir_kernel_plan(out, region, from->plan[i].name, from->plan[i].values, from->plan[i].n);
    if (strcmp(from->plan[i].name, "kind") == 0 && from->plan[i].n) kind = from->plan[i].values[0];
  }
  const pass_tuning *t = u->tunings && u->tunings->mine ? find(u->tunings, key_of(in, x, u->number)) : NULL;
  for (int i = 0; t && i < t->n; i++)
    for (int k = 0; k < N_KNOWN; k++)
      if (known[k].name == t->entries[i].name && (int64_t)known[k].kind == kind) {
        ir_kernel_plan(out, region, t->entries[i].name, t->entries[i].values, t->entries[i].n);
        mix(&u->tunings->used, &t->key, sizeof t->key);
        mix(&u->tunings->used, t->entries[i].name, strlen(t->entries[i].name));
        mix(&u->tunings->used, t->entries[i].values, sizeof t->entries[i].values);
        u->tunings->n_used += i == 0;
      }
}

tt_status pass_tune(const ir_graph *in, ir_graph *out, const pass_options *options, tt_error *err) {
  int n = 0;
  group *groups = groups_of(in, &n);
  int *order = calloc((size_t)n + 1, sizeof *order);
  tuner u = {options->tunings, calloc(in->n_nodes, sizeof(ir_ref))};
  tt_status status = groups && order && u.number ? TT_OK : no_memory(err, in->name);
  for (int i = 0; status == TT_OK && i < n; i++) order[i] = i;
  if (status == TT_OK) status = groups_emit(in, out, groups, n, order, plan_kernel, &u, err);
  groups_free(groups, n);
  free(order), free(u.number);
  return status;
}
