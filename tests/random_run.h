/* random_run.h: random graphs evaluated and compiled: inputs are small whole numbers that follow from seed and name, the interpreter's values are what every compilation must
 * agree with. `what` is what the graph is called in messages. */
#ifndef TT_RANDOM_RUN_H
#define TT_RANDOM_RUN_H

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>

#include "codegen/codegen.h"
#include "frontend/tinytorch.h"
#include "random_graph.h"

/* TT_RANDOM_GRAPHS, else what the test takes. */
static int random_count(int otherwise) {
  const char *text = getenv("TT_RANDOM_GRAPHS");
  return text && atoi(text) > 0 ? atoi(text) : otherwise;
}

static void random_show(const ir_graph *g) {
  char *text = ir_print(g);
  if (text) fprintf(stderr, "%s", text);
  free(text);
}

static void *random_numbers(const ir_graph *g, ir_ref r, uint64_t seed) {
  tt_dtype t = (tt_dtype)ir_at(g, r)->dtype;
  tt_shape s = ir_shape(g, r);
  int64_t n = tt_shape_count(&s);
  uint64_t name = 0;
  for (const char *c = ir_str(ir_at(g, r), "name"); *c; c++) name = name * 31 + (uint64_t)*c;
  void *data = calloc((size_t)n + 1, tt_dtype_size(t));
  for (int64_t i = 0; i < n; i++) ir_store_double(t, data, i, (double)(tt_random_word(seed, name, 7, (uint64_t)i) % 7) - 3);
  return data;
}

/* The values of all rows of *plain, which is g of primitives. */
static void **random_evaluated(const ir_graph *g, int seed, const char *what, ir_graph **plain) {
  tt_error err = {0};
  cr_assert_eq(g->error.status, TT_OK, "%s %d: %s", what, seed, g->error.message);
  cr_assert_eq(pass_run(g, plain, "decompose", NULL, &(pass_options){0}, NULL, NULL, &err), TT_OK, "%s %d: %s", what, seed, err.message);
  void **values = calloc((*plain)->n_nodes, sizeof *values);
  for (ir_ref r = 1; r < (*plain)->n_nodes; r++)
    if (ir_at(*plain, r)->op == IR_input) values[r] = random_numbers(*plain, r, (uint64_t)seed);
  cr_assert_eq(ir_eval(*plain, values, &err), TT_OK, "%s %d: %s", what, seed, err.message);
  return values;
}

static void random_release(ir_graph *plain, void **values) {
  for (ir_ref r = 1; r < plain->n_nodes; r++)
    if (ir_at(plain, r)->op == IR_input) free(values[r]), values[r] = NULL;
  ir_values_free(plain, values);
  ir_graph_free(plain);
}

/* Output o of plain; shown: the graph to print when it is wrong. */
static void random_compare(const ir_graph *plain, const ir_graph *shown, uint32_t o, const void *got, const void *want, double tolerance, int seed, const char *what, const char *how) {
  ir_ref y = plain->outputs[o].value;
  tt_dtype t = (tt_dtype)ir_at(plain, y)->dtype;
  tt_shape s = ir_shape(plain, y);
  int64_t n = tt_shape_count(&s);
  double largest = 1;
  for (int64_t i = 0; i < n; i++) largest = fmax(largest, fabs(ir_load_double(t, want, i)));
  for (int64_t i = 0; i < n; i++) {
    double a = ir_load_double(t, got, i), b = ir_load_double(t, want, i);
    bool ok = a == b || (isnan(a) && isnan(b)) || (tt_dtype_in(t, TT_REAL) && fabs(a - b) <= tolerance * largest);
    if (!ok) random_show(shown);
    cr_assert(ok, "%s %d, %s: %s[%lld] is %.9g, not %.9g", what, seed, how, plain->outputs[o].name, (long long)i, a, b);
  }
}

static void random_jit(const ir_graph *g, const ir_graph *plain, void **want, const char *skip, int seed, const char *what, rt_team *team) {
  char how[100];
  snprintf(how, sizeof how, "without '%s'", skip ? skip : "");
  tt_error err = {0};
  rt_program *p = NULL;
  tt_status status = tt_compile(g, &(tt_compile_options){.backend = "jit", .skip = skip}, &p, &err);
  if (status) random_show(g);
  cr_assert_eq(status, TT_OK, "%s %d, %s: %s", what, seed, how, err.message);
  rt_instance *x = rt_instance_new(p, team, &err);
  cr_assert(x, "%s", err.message);
  for (ir_ref r = 1; r < g->n_nodes; r++) {
    const ir_node *n = ir_at(g, r);
    if (n->op != IR_input || rt_slot_find(p, ir_str(n, "name")) < 0) continue;
    tt_shape s = ir_shape(g, r);
    void *data = random_numbers(g, r, (uint64_t)seed);
    tt_tensor *t = tt_tensor_from((tt_dtype)n->dtype, &s, data, &err);
    cr_assert_eq(rt_bind(x, ir_str(n, "name"), t, &err), TT_OK, "%s", err.message);
    tt_tensor_free(t), free(data);
  }
  for (int time = 0; time < 2; time++) {                     /* the second finds all as the first left it */
    cr_assert_eq(rt_run(x, &err), TT_OK, "%s %d, %s: %s", what, seed, how, err.message);
    for (uint32_t o = 0; o < plain->n_outputs; o++) {
      tt_tensor *got = rt_bound(x, plain->outputs[o].name);
      cr_assert(got, "%s %d has no output %s", what, seed, plain->outputs[o].name);
      random_compare(plain, g, o, tt_tensor_data(got), want[plain->outputs[o].value], 2e-4, seed, what, how);
    }
  }
  rt_instance_free(x);
  rt_program_free(p);
}

/* The same with each optional pass left out in turn; how many compilations. */
static int random_jit_without_each(const ir_graph *g, const ir_graph *plain, void **want, int seed, const char *what, rt_team *team) {
  int compiled = 0;
  for (const pass_info *p = pass_table; p->name; p++)
    if (p->optional) random_jit(g, plain, want, p->name, seed, what, team), compiled++;
  return compiled;
}

#endif
