/* Random graphs with fixed seeds (TT_RANDOM_GRAPHS: how many): JIT against interpreter, with each optional pass left out in turn; and the text form. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>

#include "codegen/codegen.h"
#include "frontend/tinytorch.h"
#include "random_graph.h"

static int how_many(int otherwise) {
  const char *text = getenv("TT_RANDOM_GRAPHS");
  return text && atoi(text) > 0 ? atoi(text) : otherwise;
}

static void fill_inputs(const ir_graph *g, void **values, uint64_t seed) {
  for (ir_ref r = 1; r < g->n_nodes; r++) {
    if (ir_at(g, r)->op != IR_input) continue;
    tt_shape s = ir_shape(g, r);
    int64_t n = tt_shape_count(&s);
    values[r] = calloc((size_t)n + 1, tt_dtype_size(ir_at(g, r)->dtype));
    for (int64_t i = 0; i < n; i++) ir_store_double(ir_at(g, r)->dtype, values[r], i, (double)(tt_random_word(seed, r, 7, (uint64_t)i) % 7) - 3);
  }
}

/* Runs g compiled with these passes left out; every output must agree with want. */
static void compare(const ir_graph *g, void **values, const ir_graph *plain, void **want, const char *skip, int seed, rt_team *team) {
  tt_error err = {0};
  rt_program *p = NULL;
  cr_assert_eq(tt_compile(g, &(tt_compile_options){.backend = "jit", .skip = skip}, &p, &err), TT_OK, "graph %d, without '%s': %s", seed, skip, err.message);
  rt_instance *x = rt_instance_new(p, team, &err);
  cr_assert(x, "%s", err.message);
  for (ir_ref r = 1; r < g->n_nodes; r++) {
    const ir_node *n = ir_at(g, r);
    if (n->op != IR_input || rt_slot_find(p, ir_str(n, "name")) < 0) continue;
    tt_shape s = ir_shape(g, r);
    tt_tensor *t = tt_tensor_from(n->dtype, &s, values[r], &err);
    cr_assert_eq(rt_bind(x, ir_str(n, "name"), t, &err), TT_OK, "%s", err.message);
    tt_tensor_free(t);
  }
  cr_assert_eq(rt_run(x, &err), TT_OK, "graph %d: %s", seed, err.message);
  for (uint32_t o = 0; o < plain->n_outputs; o++) {
    ir_ref y = plain->outputs[o].value;
    tt_dtype t = ir_at(plain, y)->dtype;
    tt_shape s = ir_shape(plain, y);
    int64_t n = tt_shape_count(&s);
    tt_tensor *got = rt_bound(x, plain->outputs[o].name);
    cr_assert(got, "graph %d has no output %s", seed, plain->outputs[o].name);
    double largest = 1;
    for (int64_t i = 0; i < n; i++) largest = fmax(largest, fabs(ir_load_double(t, want[y], i)));
    for (int64_t i = 0; i < n; i++) {
      double a = ir_load_double(t, tt_tensor_data(got), i), b = ir_load_double(t, want[y], i);
      bool ok = a == b || (isnan(a) && isnan(b)) || (tt_dtype_in(t, TT_REAL) && fabs(a - b) <= 2e-4 * largest);
      if (!ok) {
        char *text = ir_print(g);
        fprintf(stderr, "%s", text);
        free(text);
      }
      cr_assert(ok, "graph %d, without '%s': %s[%lld] is %.9g, not %.9g", seed, skip ? skip : "", plain->outputs[o].name, (long long)i, a, b);
    }
  }
  rt_instance_free(x);
  rt_program_free(p);
}

Test(random_graphs, jit_is_interpreter) {
  int n = how_many(60), compiled = 0;
  tt_error err = {0};
  rt_team *team = rt_team_new(2, &err);
  cr_assert(team, "%s", err.message);
  for (int seed = 1; seed <= n; seed++) {
    ir_graph *g = random_graph_new((uint64_t)seed, 4 + seed % 20), *plain = NULL;
    cr_assert_eq(g->error.status, TT_OK, "graph %d: %s", seed, g->error.message);
    cr_assert_eq(pass_run(g, &plain, "decompose", NULL, &(pass_options){0}, NULL, NULL, &err), TT_OK, "graph %d: %s", seed, err.message);
    void **inputs = calloc(g->n_nodes, sizeof *inputs), **want = calloc(plain->n_nodes, sizeof *want);
    fill_inputs(g, inputs, (uint64_t)seed);
    for (ir_ref r = 1, q = 1; r < plain->n_nodes; r++) {        /* inputs by name */
      if (ir_at(plain, r)->op != IR_input) continue;
      q = ir_find(g, ir_str(ir_at(plain, r), "name"));
      want[r] = inputs[q];
    }
    cr_assert_eq(ir_eval(plain, want, &err), TT_OK, "graph %d: %s", seed, err.message);
    compare(g, inputs, plain, want, NULL, seed, team);
    compiled++;
    for (const pass_info *p = pass_table; p->name; p++) {
      bool again = false;
      for (const pass_info *q = pass_table; q < p; q++) again |= strcmp(p->name, q->name) == 0;
      if (p->optional && !again) compare(g, inputs, plain, want, p->name, seed, team), compiled++;
    }
    for (ir_ref r = 1; r < g->n_nodes; r++) free(inputs[r]);
    free(inputs);
    ir_values_free(plain, want);
    ir_graph_free(plain);
    ir_graph_free(g);
  }
  rt_team_free(team);
  printf("TABLE %d random graphs, %d compilations: JIT = interpreter\n", n, compiled);
}

Test(random_graphs, text_round_trip) {
  int n = how_many(300);
  for (int seed = 1; seed <= n; seed++) {
    tt_error err = {0};
    ir_graph *g = random_graph_new((uint64_t)seed, 4 + seed % 20), *ready = NULL;
    cr_assert_eq(pass_run(g, &ready, NULL, NULL, &(pass_options){.vector_bytes = 32, .n_registers = 16}, NULL, NULL, &err), TT_OK, "graph %d: %s", seed, err.message);
    const ir_graph *both[] = {g, ready};
    for (int i = 0; i < 2; i++) {
      char *first = ir_print(both[i]);
      ir_graph *parsed = ir_parse(first, strlen(first), "random.tt", &err);
      cr_assert(parsed, "graph %d: %s\n%s", seed, err.message, first);
      char *second = ir_print(parsed);
      cr_assert_str_eq(first, second, "graph %d", seed);
      free(first), free(second);
      ir_graph_free(parsed);
    }
    ir_graph_free(ready);
    ir_graph_free(g);
  }
  printf("TABLE %d random graphs, each at two stages: print, parse, print gives the same bytes\n", n);
}
