/* pipeline.c: runs passes. It takes a graph and gives a new one, through the rows of pipeline.def in order or through a list
 * of names; after each pass it verifies what came out, times it and shows it to the watcher, so that no pass contains any of
 * that. A graph between two passes lives until the second has read it.
 *
 *     pass_run(g, &out, NULL, "decompose", &options, watch, user, &err)     everything up to decompose
 *     pass_run(g, &out, "simplify,fuse", NULL, &options, NULL, NULL, &err)  these two
 *
 * Rewrite rules are on up to layout. Later a rule could join again what layout cut (a sum of partial sums) or take a row out of its kernel, so they are off. */
#include "passes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PASS(name, optional, about) {#name, about, pass_##name, optional},
const pass_info pass_table[] = {
#include "pipeline.def"
    {NULL, NULL, NULL, false}};
#undef PASS

#define PASS(name, ...) PASS_##name,
enum {
#include "pipeline.def"
  N_PASSES
};
#undef PASS

static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* The next name of a list "a, b" or false at its end. */
static bool next_name(const char **list, const char **name, size_t *length) {
  const char *p = *list;
  while (*p == ',' || *p == ' ') p++;
  *name = p;
  while (*p && *p != ',' && *p != ' ') p++;
  *length = (size_t)(p - *name);
  *list = p;
  return *length > 0;
}

static int pass_by_name(const char *name, size_t length) {
  for (int i = 0; i < N_PASSES; i++)
    if (strlen(pass_table[i].name) == length && !memcmp(pass_table[i].name, name, length)) return i;
  return -1;
}

static tt_status unknown(tt_error *err, const char *what, const char *name, size_t length, bool optional_only) {
  char list[400] = "";
  for (int i = 0; i < N_PASSES; i++)
    if (!optional_only || pass_table[i].optional) {
      size_t n = strlen(list);
      snprintf(list + n, sizeof list - n, "%s%s", n ? ", " : "", pass_table[i].name);
    }
  return tt_fail(err, TT_INVALID, "error: \"%.*s\" is not %s\n  at the list of passes\n  fix: use %s%s", (int)length, name, what,
                 optional_only ? "some of " : "one of ", list);
}

static tt_status apply(int i, const ir_graph *in, ir_graph **made, const pass_options *options, tt_error *err);

/* The same pass on every function that scans of `in` call: pairs of before and after for out->replaced. A function neither trains nor runs once. */
static tt_status apply_to_functions(int i, const ir_graph *in, ir_graph *(*pairs)[2], uint32_t *n, const pass_options *options, tt_error *err) {
  bool *live = ir_live(in);
  tt_status status = live ? TT_OK : tt_fail(err, TT_NO_MEMORY, "error: no memory for a graph\n  at pass %s\n  fix: free memory or make the model smaller", pass_table[i].name);
  for (ir_ref r = 1; status == TT_OK && r < in->n_nodes; r++) {
    if (!live[r] || ir_at(in, r)->op != IR_scan) continue;
    ir_graph *body = ir_scan_body(in, ir_at(in, r));
    bool known = false;
    for (uint32_t k = 0; k < *n && !known; k++) known = pairs[k][0] == body;
    if (known) continue;
    ir_scan_attrs a = ir_scan_of(ir_at(in, r));
    pass_options own = *options;
    own.train = false, own.memory_budget = 0, own.body = true, own.body_steps = (uint32_t)(a.carries + a.xs);
    pairs[*n][0] = body;
    status = apply(i, body, &pairs[*n][1], &own, err);
    if (status == TT_OK) pairs[(*n)++][1]->holders = 1;      /* until the pass is done, whoever drops it */
  }
  free(live);
  return status;
}

/* One pass on a graph and on its functions. */
static tt_status apply(int i, const ir_graph *in, ir_graph **made, const pass_options *options, tt_error *err) {
  const pass_info *pass = &pass_table[i];
  ir_graph *out = *made = ir_graph_new(in->name), *(*pairs)[2] = in->n_functions ? calloc(in->n_functions, sizeof *pairs) : NULL;
  uint32_t n = 0;
  tt_status status = TT_OK;
  if (!out || (in->n_functions && !pairs)) status = tt_fail(err, TT_NO_MEMORY, "error: no memory for a graph\n  at pass %s\n  fix: free memory or make the model smaller", pass->name);
  if (status == TT_OK && in->n_functions) status = apply_to_functions(i, in, pairs, &n, options, err);
  if (status == TT_OK) {
    out->rules = i <= PASS_layout && in->n_kernels <= 1 ? rewrite_rules : NULL;
    out->replaced = pairs, out->n_replaced = n;
    bool train_only = i == PASS_grad || i == PASS_update || i == PASS_freeze || i == PASS_recompute;
    status = options->body && train_only ? pass_copy(in, out, err) : pass->run(in, out, options, err);
    out->replaced = NULL, out->n_replaced = 0;
  }
  if (status == TT_OK && out->error.status) status = tt_fail(err, out->error.status, "%s", out->error.message);
  if (status == TT_OK) status = ir_verify(out, pass->name, err);
  for (uint32_t k = 0; k < n; k++) ir_graph_free(pairs[k][1]);
  free(pairs);
  if (status != TT_OK) ir_graph_free(out), *made = NULL;
  return status;
}

/* Runs one pass: *g becomes what it gives; `in`, which is the caller's, is never freed. */
static tt_status run_one(int i, const ir_graph *in, ir_graph **g, const pass_options *options, pass_watch *watch, void *user, tt_error *err) {
  ir_graph *out;
  double start = now_ms();
  tt_status status = apply(i, *g, &out, options, err);
  double took = now_ms() - start;
  if (status != TT_OK) return status;
  if (watch) watch(user, pass_table[i].name, out, took);
  if (*g != in) ir_graph_free(*g);
  *g = out;
  return TT_OK;
}

tt_status pass_run(const ir_graph *in, ir_graph **out, const char *names, const char *last, const pass_options *options, pass_watch *watch,
                   void *user, tt_error *err) {
  *out = NULL;
  if (in->error.status) return tt_fail(err, in->error.status, "%s", in->error.message);

  bool skip[N_PASSES] = {[PASS_tune] = !options->tunings, [PASS_autocast] = options->products == PASS_F32};
  int list[64], n = 0, stop = N_PASSES - 1;
  const char *rest = options->skip ? options->skip : "", *name;
  size_t length;
  while (next_name(&rest, &name, &length)) {
    int i = pass_by_name(name, length);
    if (i < 0 || !pass_table[i].optional) return unknown(err, "a pass that can be left out", name, length, true);
    skip[i] = true;
  }
  if (options->memory_budget <= 0 && !options->train) skip[PASS_recompute] = true;      /* nothing waits for a backward pass */
  if (last && (stop = pass_by_name(last, strlen(last))) < 0) return unknown(err, "a pass", last, strlen(last), false);
  if (names) {
    rest = names;
    while (next_name(&rest, &name, &length)) {
      int i = pass_by_name(name, length);
      if (i < 0) return unknown(err, "a pass", name, length, false);
      if (n == 64) return tt_fail(err, TT_INVALID, "error: more than 64 passes\n  at the list of passes \"%.40s...\"\n  fix: run it in two parts", names);
      list[n++] = i;
      if (last && i == stop) break;
    }
  } else {
    for (int i = 0; i <= stop; i++) list[n++] = i;
  }

  tt_status status = ir_verify(in, "trace", err);
  if (status != TT_OK) return status;
  if (watch) watch(user, "trace", in, 0);
  ir_graph *g = (ir_graph *)in;
  for (int k = 0; k < n && status == TT_OK; k++)
    if (!skip[list[k]]) status = run_one(list[k], in, &g, options, watch, user, err);
  if (status == TT_OK && g == in) {     /* nothing ran: what comes out is still a new graph */
    g = ir_clone(in);
    if (!g) return tt_fail(err, TT_NO_MEMORY, "error: no memory for a graph\n  at the list of passes\n  fix: free memory");
  }
  if (status != TT_OK) {
    if (g != in) ir_graph_free(g);
    return status;
  }
  *out = g;
  return TT_OK;
}
