/* Random scans with fixed seeds (TT_RANDOM_GRAPHS: how many): bodies out of random_graph.h, with carries that stay, swap, or follow from anything, xs that nobody reads, outputs
 * that are leaves, and 0 to 4 steps. Each is written down a second time without a scan, step behind step: values and gradients of both are the same in the interpreter, and
 * the scan's in the JIT, with each optional pass left out in turn. */
#include "random_run.h"

enum { MOST = 8 };

typedef struct {
  random_graph r;                    /* .g: the body */
  int carries, xs, rest, n_leaves;
  ir_ref leaves[MOST], next[MOST];
  int64_t steps;
  bool reversed;
} random_scan;

static ir_ref leaf(random_scan *s, const char *name, tt_dtype t, bool carry) {
  static const int64_t dims[] = {1, 2, 3, 4, 7, 8, 17};
  tt_shape shape = {.rank = (int)random_below(&s->r, 4)};
  for (int i = 0; i < shape.rank; i++) shape.dim[i] = dims[random_below(&s->r, 7)];
  if (s->n_leaves && random_below(&s->r, 3) == 0) shape = ir_shape(s->r.g, s->leaves[0]);
  ir_ref ref = carry ? ir_param(s->r.g, name, t, shape, false) : ir_input(s->r.g, name, t, shape);
  s->leaves[s->n_leaves++] = ref;
  s->r.values[s->r.n++] = (random_value){ref, 4, !carry};
  return ref;
}

/* tanh of a carry and the mean of some value. */
static ir_ref mixed(random_scan *s, ir_ref carry) {
  ir_graph *g = s->r.g;
  random_value *v = random_pick(&s->r, TT_F32, false);
  ir_ref sum = ir_reduce(g, IR_sum, v->ref, NULL, 0, false);
  tt_shape shape = ir_shape(g, v->ref), own = ir_shape(g, carry);
  ir_ref mean = ir_ew2(g, IR_mul, sum, ir_like(g, sum, 1 / (v->bound * (double)tt_shape_count(&shape) + 1)));
  return ir_broadcast_to(g, ir_ew1(g, IR_tanh, ir_ew2(g, IR_add, ir_ew2(g, IR_mul, carry, ir_like(g, carry, 0.5)), mean)), own);
}

static ir_ref next_of(random_scan *s, ir_ref carry) {
  ir_graph *g = s->r.g;
  uint32_t how = random_below(&s->r, 8);
  if (how == 0) return carry;
  for (int tries = 0; how < 5 && tries < 40; tries++) {      /* another value of that shape: another carry, an x, a row */
    random_value v = s->r.values[random_below(&s->r, (uint32_t)s->r.n)];
    tt_shape a = ir_shape(g, v.ref), b = ir_shape(g, carry);
    if (v.ref == carry || ir_at(g, v.ref)->dtype != TT_F32 || !tt_shape_equal(&a, &b)) continue;
    return v.bound <= 4 ? v.ref : ir_ew1(g, IR_tanh, ir_ew2(g, IR_mul, v.ref, ir_like(g, v.ref, 1 / v.bound)));
  }
  return mixed(s, carry);
}

static random_scan random_body(uint64_t seed) {
  random_scan s = {.r = {.g = ir_graph_new("body"), .state = seed * 0x9E3779B97F4A7C15u + 5}};
  static const char *const names[] = {"a", "b", "c", "d", "e", "f", "h", "i"};
  s.carries = (int)random_below(&s.r, 4), s.xs = (int)random_below(&s.r, 3), s.rest = (int)random_below(&s.r, 3);
  if (s.carries + s.xs + s.rest == 0) s.carries = 1;
  for (int i = 0; i < s.carries + s.xs + s.rest; i++) leaf(&s, names[i], i >= s.carries && random_below(&s.r, 4) == 0 ? TT_I32 : TT_F32, i < s.carries);
  bool real = false;
  for (int i = 0; i < s.n_leaves; i++) real |= ir_at(s.r.g, s.leaves[i])->dtype == TT_F32;
  if (real)
    for (int i = 0, n = 2 + (int)random_below(&s.r, 12); i < n; i++) random_step(&s.r);
  for (int i = 0; i < s.carries; i++) s.next[i] = next_of(&s, s.leaves[i]);
  for (int i = 0; i < s.carries; i++) ir_assign(s.r.g, s.leaves[i], s.next[i]);
  for (int i = 0, n = (int)random_below(&s.r, 4) + !s.carries; i < n; i++) {
    ir_ref y = s.r.values[random_below(&s.r, (uint32_t)s.r.n)].ref;
    if (ir_at(s.r.g, y)->rank < TT_MAX_RANK) ir_output_add(s.r.g, NULL, y);
  }
  if (!s.carries && !s.r.g->n_outputs) ir_output_add(s.r.g, NULL, s.leaves[0]);
  s.steps = (int64_t[]){0, 1, 2, 3, 4}[random_below(&s.r, 5)];
  s.reversed = random_below(&s.r, 2);
  return s;
}

/* Element t of the first axis. */
static ir_ref element(ir_graph *g, ir_ref x, int64_t t) {
  tt_shape shape = ir_shape(g, x);
  memmove(shape.dim, shape.dim + 1, (size_t)--shape.rank * sizeof *shape.dim);
  return ir_reshape(g, ir_slice_axis(g, x, 0, t, t + 1, 1), shape);
}

/* The results of the scan over args, without one. */
static void unrolled(const random_scan *s, ir_graph *g, const ir_ref *args, ir_ref *results) {
  const ir_graph *f = s->r.g;
  ir_ref carry[MOST], stack[MOST][4], *map = calloc(f->n_nodes, sizeof *map);
  for (int i = 0; i < s->carries; i++) carry[i] = args[i];
  bool *live = ir_live(f);
  for (int64_t k = 0; k < s->steps; k++) {
    int64_t t = s->reversed ? s->steps - 1 - k : k;
    memset(map, 0, f->n_nodes * sizeof *map);
    for (int i = 0; i < s->n_leaves; i++) map[s->leaves[i]] = i < s->carries ? carry[i] : i < s->carries + s->xs ? element(g, args[i], t) : args[i];
    for (ir_ref r = 1; r < f->n_nodes; r++)
      if (!map[r] && live[r] && ir_at(f, r)->op != IR_assign) map[r] = ir_rebuild(f, g, r, map);
    for (int i = 0; i < s->carries; i++) carry[i] = map[s->next[i]];
    for (uint32_t i = 0; i < f->n_outputs; i++) stack[i][t] = ir_expand_dims(g, map[f->outputs[i].value], 0);
  }
  for (int i = 0; i < s->carries; i++) results[i] = carry[i];
  for (uint32_t i = 0; i < f->n_outputs; i++) {
    tt_shape empty = ir_shape(f, f->outputs[i].value);
    memmove(empty.dim + 1, empty.dim, (size_t)empty.rank++ * sizeof *empty.dim), empty.dim[0] = 0;
    results[s->carries + (int)i] = s->steps ? ir_concat(g, stack[i], (int)s->steps, 0) : ir_full(g, (tt_dtype)ir_at(f, f->outputs[i].value)->dtype, empty, 0);
  }
  free(map), free(live);
}

/* The scan or its like, what stands around it, and gradients by all real inputs of a sum over the real results. */
static ir_graph *around(const random_scan *s, uint64_t seed, bool plain, bool gradients) {
  ir_graph *g = ir_graph_new("random"), *f = s->r.g;
  random_graph r = {.state = seed * 0x9E3779B97F4A7C15u + 9};
  ir_ref args[MOST], inputs[MOST], results[MOST], d[MOST], loss = 0;
  int n = 0;
  for (int i = 0; i < s->n_leaves; i++) {
    tt_shape shape = ir_shape(f, s->leaves[i]);
    if (i >= s->carries && i < s->carries + s->xs) memmove(shape.dim + 1, shape.dim, (size_t)shape.rank++ * sizeof *shape.dim), shape.dim[0] = s->steps;
    tt_dtype t = (tt_dtype)ir_at(f, s->leaves[i])->dtype;
    ir_ref x = args[i] = ir_input(g, ir_str(ir_at(f, s->leaves[i]), "name"), t, shape);
    if (t != TT_F32) continue;
    inputs[n++] = x;
    if (random_below(&r, 3) == 0) args[i] = ir_ew1(g, IR_neg, x);
  }
  int n_results = s->carries + (int)f->n_outputs;
  if (plain) unrolled(s, g, args, results);
  else {
    ir_scan_attrs a = {.body = ir_function_add(g, f), .carries = s->carries, .xs = s->xs, .length = s->steps, .reversed = s->reversed};
    for (; a.result < n_results; a.result++) results[a.result] = ir_scan(g, args, (uint32_t)s->n_leaves, a);
  }
  for (int i = 0, shown = 0; i < n_results; i++) {
    char name[16];
    if (random_below(&r, 3) == 0 && (shown || i + 1 < n_results)) continue;
    shown++;
    snprintf(name, sizeof name, "y%d", i);
    bool real = tt_dtype_in((tt_dtype)ir_at(g, results[i])->dtype, TT_REAL);
    ir_output_add(g, name, real && random_below(&r, 2) ? ir_ew1(g, IR_tanh, results[i]) : results[i]);
    if (!real) continue;
    ir_ref sum = ir_reduce(g, IR_sum, ir_ew1(g, IR_sin, ir_cast(g, results[i], TT_F32)), NULL, 0, false);
    loss = loss ? ir_ew2(g, IR_add, loss, sum) : sum;
  }
  if (gradients && loss && n) {
    cr_assert(pass_vjp(g, loss, 0, inputs, n, d), "%s", g->error.message);
    for (int i = 0; i < n; i++) {
      char name[16];
      snprintf(name, sizeof name, "d%d", i);
      ir_output_add(g, name, d[i]);
    }
  }
  cr_assert_eq(g->error.status, TT_OK, "scan %d: %s", (int)seed, g->error.message);
  return g;
}

Test(random_scans, are_their_steps, .timeout = 600) {
  const char *only = getenv("TT_RANDOM_ONLY");
  int n = random_count(40), compiled = 0;
  tt_error err = {0};
  rt_team *team = rt_team_new(2, &err);
  cr_assert(team, "%s", err.message);
  for (int seed = only ? atoi(only) : 1; seed <= (only ? atoi(only) : n); seed++) {
    random_scan s = random_body((uint64_t)seed);
    cr_assert_eq(s.r.g->error.status, TT_OK, "scan %d: %s", seed, s.r.g->error.message);
    s.r.g->holders = 1;                /* the test has it too */
    for (int gradients = 0; gradients < 2; gradients++) {
      ir_graph *scan = around(&s, (uint64_t)seed, false, gradients), *flat = around(&s, (uint64_t)seed, true, gradients), *a, *b;
      void **x = random_evaluated(scan, seed, "scan", &a), **y = random_evaluated(flat, seed, "scan", &b);
      cr_assert_eq(a->n_outputs, b->n_outputs);
      for (uint32_t o = 0; o < a->n_outputs; o++) random_compare(a, scan, o, x[a->outputs[o].value], y[b->outputs[o].value], gradients ? 1e-5 : 0, seed, "scan", gradients ? "gradients, in the interpreter" : "in the interpreter");
      random_jit(scan, a, x, NULL, seed, "scan", team), compiled++;
      if (!gradients) compiled += random_jit_without_each(scan, a, x, seed, "scan", team);
      random_release(a, x), random_release(b, y);
      ir_graph_free(scan), ir_graph_free(flat);
    }
    ir_graph_free(s.r.g);
  }
  rt_team_free(team);
  printf("TABLE %d random scans, %d compilations: the scan = its steps, JIT = interpreter, gradients too\n", n, compiled);
}
