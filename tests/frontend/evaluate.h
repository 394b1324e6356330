/* evaluate.h: a traced graph decomposed and evaluated by ir_eval, for tests of the frontend that need no backend. Inputs and params are
 * given by name as doubles; what is not given gets a fixed pattern of numbers in -1..1 (reals), 0..2 (integers). */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/tinytorch.h"
#include "ir/ir.h"
#include "passes/passes.h"

typedef struct { const char *name; const double *values; } given;
typedef struct { char name[64]; tt_dtype dtype; tt_shape shape; int64_t count; double *values; } result;
typedef struct { result out[24]; int n; } results;

static inline double pattern(const char *name, int64_t i) {
  uint32_t h = 2166136261u;
  for (; *name; name++) h = (h ^ (unsigned char)*name) * 16777619u;
  h = (h ^ (uint32_t)i) * 2654435761u;
  h ^= h >> 15;
  h *= 2246822519u;
  h ^= h >> 13;
  return (double)(h % 2001) / 1000.0 - 1.0;
}

static inline void leaf_values(const ir_graph *g, ir_ref r, const given *in, int n_in, void **value) {
  const ir_node *n = ir_at(g, r);
  const char *name = ir_str(n, "name");
  tt_shape s = ir_shape(g, r);
  int64_t count = tt_shape_count(&s);
  const double *data = NULL;
  for (int k = 0; k < n_in; k++)
    if (!strcmp(in[k].name, name)) data = in[k].values;
  *value = malloc((size_t)count * tt_dtype_size((tt_dtype)n->dtype) + 1);
  cr_assert_not_null(*value);
  for (int64_t i = 0; i < count; i++) {
    double v = data ? data[i] : pattern(name, i);
    if (!data && !tt_dtype_in((tt_dtype)n->dtype, TT_REAL)) v = (double)(i % 3);
    ir_store_double((tt_dtype)n->dtype, *value, i, v);
  }
}

/* Outputs by name, then what each effect assigns, named "next.PARAM". Takes the graph over. */
static inline results evaluate_graph(ir_graph *g, const given *in, int n_in) {
  tt_error err = {0};
  results got = {0};
  ir_graph *low = NULL;
  pass_options o = {.vector_bytes = 32, .n_registers = 16};
  cr_assert_eq(pass_run(g, &low, "simplify,decompose,tidy", NULL, &o, NULL, NULL, &err), TT_OK, "%s", err.message);
  ir_graph_free(g);
  void **values = calloc(low->n_nodes, sizeof *values);
  bool *own = calloc(low->n_nodes, sizeof *own);
  for (ir_ref r = 1; r < low->n_nodes; r++)
    if (ir_at(low, r)->op == IR_input || ir_at(low, r)->op == IR_param) leaf_values(low, r, in, n_in, &values[r]), own[r] = true;
  void **leaves = calloc(low->n_nodes, sizeof *leaves);
  for (ir_ref r = 1; r < low->n_nodes; r++)
    if (own[r]) leaves[r] = values[r];
  cr_assert_eq(ir_eval(low, values, &err), TT_OK, "%s", err.message);
  uint32_t total = low->n_outputs + low->n_effects;
  cr_assert_leq(total, 24);
  for (uint32_t i = 0; i < total; i++) {
    bool output = i < low->n_outputs;
    const ir_node *effect = output ? NULL : ir_at(low, low->effects[i - low->n_outputs]);
    ir_ref r = output ? low->outputs[i].value : effect->args[1];
    result *to = &got.out[got.n++];
    if (output) snprintf(to->name, sizeof to->name, "%s", low->outputs[i].name);
    else snprintf(to->name, sizeof to->name, "next.%s", ir_str(ir_at(low, effect->args[0]), "name"));
    to->shape = ir_shape(low, r);
    to->dtype = (tt_dtype)ir_at(low, r)->dtype;
    to->count = tt_shape_count(&to->shape);
    to->values = malloc(sizeof(double) * (size_t)(to->count + 1));
    for (int64_t k = 0; k < to->count; k++) to->values[k] = ir_load_double(to->dtype, values[r], k);
  }
  ir_values_free(low, values);
  for (ir_ref r = 1; r < low->n_nodes; r++) free(leaves[r]);
  free(leaves);
  free(own);
  ir_graph_free(low);
  return got;
}

/* The trace ended and evaluated; frees it. */
static inline results evaluate(tt_trace *t, const given *in, int n_in) {
  tt_error err = {0};
  ir_graph *g = NULL;
  cr_assert_eq(tt_trace_finish(t, &g, &err), TT_OK, "%s", err.message);
  tt_trace_free(t);
  return evaluate_graph(g, in, n_in);
}

static inline const result *output(const results *r, const char *name) {
  for (int i = 0; i < r->n; i++)
    if (!strcmp(r->out[i].name, name)) return &r->out[i];
  cr_assert(false, "there is no output %s", name);
  return NULL;
}

static inline void results_free(results *r) {
  for (int i = 0; i < r->n; i++) free(r->out[i].values);
  *r = (results){0};
}

static inline void expect_near(double got, double want, double tolerance, const char *what) {
  cr_expect(fabs(got - want) <= tolerance * (1 + fabs(want)), "%s: got %.17g, want %.17g", what, got, want);
}
