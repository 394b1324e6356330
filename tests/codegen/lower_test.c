/* Kernels of the graph as loops: small graphs go through schedule (one op a kernel) and fuse, their kernels are run by the loop
 * language's evaluator in the places that memory gives them, and what comes out is what the graph's own evaluation gives. Every graph
 * runs with several vector widths and sizes of a task. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/codegen.h"
#include "tests/random_graph.h"

static const cg_cpu cpu = {.name = "x86-64-v3", .level = 3, .vector_bytes = 32, .n_registers = 16, .fma = true, .avx2 = true, .masks = true, .l1d = 32768, .l2 = 524288, .l3 = 8 << 20};

enum { GUARD = 64 };          /* bytes behind every buffer that nobody may touch */

static size_t bytes_of(const ir_graph *g, ir_ref r) {
  tt_shape s = ir_shape(g, r);
  return (size_t)tt_shape_count(&s) * tt_dtype_size(ir_at(g, r)->dtype);
}

static char *buffer(size_t bytes) {
  char *p = malloc(bytes + GUARD);
  memset(p, 0x5a, bytes + GUARD);
  return p;
}

static void check_guard(const char *p, size_t bytes, const char *what) {
  for (int i = 0; i < GUARD; i++) cr_assert_eq(p[bytes + (size_t)i], 0x5a, "%s: written behind a buffer", what);
}

/* Numbers for an input: small, of both signs; indices a little out of range at times; seed, step: anything. */
static void *numbers(tt_dtype t, tt_shape s, const char *name, uint64_t seed) {
  int64_t n = tt_shape_count(&s);
  char *data = buffer((size_t)n * tt_dtype_size(t));
  for (int64_t i = 0; i < n; i++) {
    uint32_t w = tt_random_word(seed, (unsigned char)name[0], 3, (uint64_t)i);
    double v = tt_dtype_in(t, TT_REAL) ? (double)(int)(w % 2001) / 500 - 2 : t == TT_BOOL ? (double)(w % 2) : tt_dtype_in(t, TT_UINT) ? (double)(w % 9) : (double)(w % 11) - 3;
    if (name[0] == 'n' && tt_dtype_in(t, TT_REAL)) v = w % 5 == 0 ? NAN : w % 7 == 0 ? INFINITY : w % 11 == 0 ? -INFINITY : (double)(int)(w % 4);
    ir_store_double(t, data, i, v);
  }
  return data;
}

/* Of the least exact real type that the graph computes in. */
static double tolerance(const ir_graph *g) {
  double worst = 1e-9;
  for (ir_ref r = 1; r < g->n_nodes; r++) {
    tt_dtype t = ir_at(g, r)->dtype;
    worst = fmax(worst, t == TT_F32 ? 2e-5 : t == TT_F16 ? 4e-3 : t == TT_BF16 ? 3e-2 : 0);
  }
  return worst;
}

static void compare(const char *what, const ir_graph *g, ir_ref r, const void *want, const void *got) {
  tt_dtype t = ir_at(g, r)->dtype;
  tt_shape s = ir_shape(g, r);
  int64_t n = tt_shape_count(&s);
  double largest = 1, allowed = tolerance(g);
  for (int64_t i = 0; i < n; i++) {
    double v = fabs(ir_load_double(t, want, i));
    if (isfinite(v) && v > largest) largest = v;
  }
  for (int64_t i = 0; i < n; i++) {
    double a = ir_load_double(t, want, i), b = ir_load_double(t, got, i);
    bool ok = tt_dtype_in(t, TT_REAL) ? a == b || (isnan(a) && isnan(b)) || fabs(a - b) <= allowed * largest : a == b;
    cr_assert(ok, "%s: element %lld of %s is %.9g, expected %.9g", what, (long long)i, ir_at(g, r)->name ? ir_at(g, r)->name : "result", b, a);
  }
}

static ir_graph *passed(const ir_graph *g, const char *names, const char *what) {
  static const pass_options options = {.vector_bytes = 32, .n_registers = 16};
  ir_graph *out = NULL;
  tt_error err = {0};
  cr_assert_eq(pass_run(g, &out, names, NULL, &options, NULL, NULL, &err), TT_OK, "%s: %s: %s", what, names, err.message);
  return out;
}

/* Where row r of a placed graph lives. */
static char *place_of(const ir_graph *g, char **own, char *arena, ir_ref r) {
  if (own[r]) return own[r];
  const ir_node *n = ir_at(g, r);
  if (n->place != IR_UNPLACED) return arena + n->place;
  for (uint32_t i = 0; n->region && i < 2; i++) {
    uint32_t count;
    const int64_t *pair = ir_kernel_get(g, n->region, "inplace", &count);
    for (uint32_t j = 0; pair && j + 1 < count; j += 2)
      if (pair[j] == (int64_t)r) return own[pair[j + 1]];
  }
  return own[r] = buffer(bytes_of(g, r));
}

static void run_kernel(const ir_graph *g, uint32_t region, char **own, char *arena, const char *what) {
  uint32_t n;
  tt_error err = {0};
  const int64_t *kind = ir_kernel_get(g, region, "kind", &n);
  if (kind[0] == 2) {
    for (ir_ref r = 1; r < g->n_nodes; r++) {
      const ir_node *x = ir_at(g, r);
      if (x->region != region) continue;
      const void *args[1] = {place_of(g, own, arena, x->args[0])};
      cr_assert_eq(ir_eval_node(g, r, args, place_of(g, own, arena, r), &err), TT_OK, "%s: %s", what, err.message);
    }
    return;
  }
  enum { MAX = 64 };
  ir_ref rows[MAX];
  void *buffers[MAX];
  lp_kernel *k = cg_lower(g, region, &cpu, rows, MAX, &err);
  cr_assert(k, "%s: %s", what, err.message);
  for (int i = 0; i < k->n_buffers && !k->buffers[i].scratch; i++) buffers[i] = place_of(g, own, arena, rows[i]);
  tt_status status = lp_eval(k, buffers, k->tasks / 2, k->tasks, &err);              /* tasks in another order than their own */
  if (status == TT_OK) status = lp_eval(k, buffers, 0, k->tasks / 2, &err);
  if (status != TT_OK || getenv("TT_LOOPS")) {
    char *text = lp_print(k), *graph = ir_print(g);
    fprintf(stderr, "%s%s", getenv("TT_LOOPS") ? "" : graph, text);
    free(text), free(graph);
  }
  cr_assert_eq(status, TT_OK, "%s: %s", what, err.message);
  lp_free(k);
}

/* g without composites against itself through the passes `names`. */
static void run_once(const ir_graph *g, void **values, const char *names, int64_t lanes, int64_t grain) {
  char what[300];
  snprintf(what, sizeof what, "@%s, %s, lanes %lld, grain %lld", g->name, names, (long long)lanes, (long long)grain);
  ir_graph *s = passed(g, names, what);
  for (uint32_t k = 1; k < s->n_kernels; k++) {
    uint32_t n;
    const int64_t *kind = ir_kernel_get(s, k, "kind", &n);
    if (lanes && kind && kind[0] == 0) ir_kernel_plan(s, k, "lanes", &lanes, 1);
    if (grain) ir_kernel_plan(s, k, "grain", &grain, 1);
  }
  char **own = calloc(s->n_nodes, sizeof *own), *arena = buffer((size_t)s->arena_bytes);
  for (ir_ref r = 1; r < s->n_nodes; r++) {
    const ir_node *n = ir_at(s, r);
    tt_error err = {0};
    if (n->op == IR_input || n->op == IR_param) {
      ir_ref original = ir_find(g, ir_str(n, "name"));
      own[r] = buffer(bytes_of(s, r));
      if (bytes_of(s, r)) memcpy(own[r], values[original], bytes_of(s, r));
    } else if (n->op == IR_const && !n->region) {
      own[r] = buffer(bytes_of(s, r));
      cr_assert_eq(ir_eval_node(s, r, NULL, own[r], &err), TT_OK, "%s", err.message);
    }
  }
  uint32_t region = 0;
  for (ir_ref r = 1; r < s->n_nodes; r++) {
    if (ir_at(s, r)->region == region || !ir_at(s, r)->region) continue;
    region = ir_at(s, r)->region;
    run_kernel(s, region, own, arena, what);
  }
  for (uint32_t i = 0; i < g->n_outputs; i++) compare(what, g, g->outputs[i].value, values[g->outputs[i].value], place_of(s, own, arena, s->outputs[i].value));
  for (uint32_t i = 0; i < g->n_effects; i++)
    compare(what, g, ir_at(g, g->effects[i])->args[1], values[ir_at(g, g->effects[i])->args[1]], place_of(s, own, arena, ir_at(s, s->effects[i])->args[1]));
  for (ir_ref r = 1; r < s->n_nodes; r++) {
    if (own[r]) check_guard(own[r], bytes_of(s, r), what);
    free(own[r]);
  }
  check_guard(arena, (size_t)s->arena_bytes, what);
  free(own), free(arena);
  ir_graph_free(s);
}

static void check_graph(const ir_graph *raw, uint64_t seed, bool all) {
  ir_graph *g = passed(raw, "decompose", raw->name);
  void **values = calloc(g->n_nodes, sizeof *values);
  bool *mine = calloc(g->n_nodes, sizeof *mine);
  tt_error err = {0};
  for (ir_ref r = 1; r < g->n_nodes; r++) {
    const ir_node *n = ir_at(g, r);
    if (n->op == IR_input || n->op == IR_param) values[r] = numbers(n->dtype, ir_shape(g, r), ir_str(n, "name"), seed), mine[r] = true;
  }
  cr_assert_eq(ir_eval(g, values, &err), TT_OK, "@%s: %s", g->name, err.message);
  static const struct { int64_t lanes, grain; } plans[] = {{0, 0}, {4, 7}, {16, 40}, {1, 1}};
  for (size_t i = 0; i < (all ? 4 : 2); i++) {
    run_once(g, values, "schedule,memory", plans[i].lanes, plans[i].grain);
    run_once(g, values, "fuse,schedule,memory", plans[i].lanes, plans[i].grain);
  }
  for (ir_ref r = 1; r < g->n_nodes; r++)
    if (mine[r]) free(values[r]);
  free(mine);
  ir_values_free(g, values);
  ir_graph_free(g);
}

/* A function's text with T for a type. */
static void check_text(const char *text, const char *type) {
  char full[8000];
  size_t n = 0;
  for (const char *p = text; *p && n < sizeof full - 16; p++) {
    if (*p == 'T' && !(p > text && p[-1] != ' ' && p[-1] != ':' && p[-1] != '=' && p[-1] != '-')) n += (size_t)sprintf(full + n, "%s", type);
    else full[n++] = *p;
  }
  tt_error err = {0};
  ir_graph *g = ir_parse(full, n, "test", &err);
  cr_assert(g, "%s\n%.*s", err.message, (int)n, full);
  check_graph(g, 11, true);
  ir_graph_free(g);
}

static const char *const reals[] = {"f32", "f64", "f16", "bf16"}, *const ints[] = {"i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64"};
#define FOR_REALS(text) for (size_t i = 0; i < sizeof reals / sizeof *reals; i++) check_text(text, reals[i])
#define FOR_INTS(text) for (size_t i = 0; i < sizeof ints / sizeof *ints; i++) check_text(text, ints[i])

/* Every elementwise row on every type that it takes, on an odd shape. */
Test(lower, elementwise, .timeout = 120) {
  for (int op = 1; op < IR_N_OPS; op++) {
    const ir_op_info *o = &ir_ops[op];
    if (!o->ew) continue;
    for (int t = 0; t < TT_N_DTYPES; t++) {
      if (!tt_dtype_in(t, o->takes)) continue;
      ir_graph *g = ir_graph_new(o->name);
      tt_shape s = {.rank = 2, .dim = {3, 13}};
      ir_ref a = ir_input(g, "a", t, s), b = ir_input(g, "b", t, s);
      if (tt_dtype_in(t, TT_REAL) && (op == IR_log || op == IR_sqrt || op == IR_rsqrt || op == IR_pow || op == IR_log1p || op == IR_tan))
        a = ir_ew2(g, IR_add, ir_ew1(g, IR_abs, a), ir_like(g, a, op == IR_tan ? -1 : 1));
      if (op == IR_div && tt_dtype_in(t, TT_REAL)) b = ir_ew2(g, IR_add, ir_ew1(g, IR_abs, b), ir_like(g, b, 1));
      ir_output_add(g, "y", o->arity == 1 ? ir_ew1(g, op, a) : ir_ew2(g, op, a, b));
      cr_assert_eq(g->error.status, TT_OK, "%s", g->error.message);
      check_graph(g, 5, false);
      ir_graph_free(g);
    }
  }
}

Test(lower, casts, .timeout = 120) {
  for (int from = 0; from < TT_N_DTYPES; from++) {
    ir_graph *g = ir_graph_new("casts");
    ir_ref a = ir_input(g, "a", from, (tt_shape){.rank = 1, .dim = {19}});
    for (int to = 0; to < TT_N_DTYPES; to++) {
      char name[16];
      snprintf(name, sizeof name, "y%d", to);
      if (to != from) ir_output_add(g, name, ir_cast(g, a, to));
    }
    cr_assert_eq(g->error.status, TT_OK, "%s", g->error.message);
    check_graph(g, 5, false);
    ir_graph_free(g);
  }
}

Test(lower, broadcast_and_scalars, .timeout = 60) {
  FOR_REALS("func @f(%x: T[5,7,3], %r: T[7], %s: T[], %c: T[5,1,3]) -> T[5,7,3], T[] {\n"
            "  %b = broadcast(%r, shape=[5,7,3], dims=[1]) : T[5,7,3]\n"
            "  %d = broadcast(%s, shape=[5,7,3], dims=[]) : T[5,7,3]\n"
            "  %e = broadcast(%c, shape=[5,7,3], dims=[0,1,2]) : T[5,7,3]\n"
            "  %y = mul(%x, %b) : T[5,7,3]\n"
            "  %z = add(%y, %d) : T[5,7,3]\n"
            "  %w = sub(%z, %e) : T[5,7,3]\n"
            "  %n = neg(%s) : T[]\n"
            "  return %w, %n\n"
            "}\n");
}

Test(lower, movement, .timeout = 60) {
  check_text("func @f(%x: T[4,6,5], %v: T[], %o: T[2,6,5]) -> T[5,24], T[3,2,5], T[9,8,14], T[6,6,5], T[4,6,5], T[4,2,5,3], T[20,3,2] {\n"
             "  %p = permute(%x, perm=[2,0,1]) : T[5,4,6]\n"
             "  %a = reshape(%p, shape=[5,24]) : T[5,24]\n"
             "  %b = slice(%x, start=[1,0,0], stop=[4,5,5], step=[1,3,1]) : T[3,2,5]\n"
             "  %c = pad(%x, %v, lo=[1,0,3], hi=[1,2,2], interior=[1,0,1]) : T[9,8,14]\n"
             "  %d = concat(%o, %x, axis=0) : T[6,6,5]\n"
             "  %e = reverse(%x, axes=[0,2]) : T[4,6,5]\n"
             "  %f = unfold(%x, axis=1, size=3, stride=2, dilation=1) : T[4,2,5,3]\n"
             "  %q = permute(%x, perm=[0,2,1]) : T[4,5,6]\n"
             "  %g = reshape(%q, shape=[20,3,2]) : T[20,3,2]\n"
             "  return %a, %b, %c, %d, %e, %f, %g\n"
             "}\n", "f32");
  check_text("func @f(%x: T[7,9], %z: T[7,0]) -> T[11,12], T[7,18], T[7,9] {\n"
             "  %v = const(dtype=T, shape=[], value=[3]) : T[]\n"
             "  %c = pad(%x, %v, lo=[2,0], hi=[2,3], interior=[0,0]) : T[11,12]\n"
             "  %d = concat(%x, %x, axis=1) : T[7,18]\n"
             "  %e = concat(%z, %x, axis=1) : T[7,9]\n"
             "  return %c, %d, %e\n"
             "}\n", "u8");
}

/* Images with their padding, whose guards are one for a vector of channels; of 3 channels they are not. */
Test(lower, padded_results, .timeout = 60) {
  check_text("func @f(%x: T[3,6,5,16], %s: T[16], %m: T[3,6,5,3]) -> T[3,8,9,16], T[3,6,9,3] {\n"
             "  %z = const(dtype=T, shape=[], value=[2]) : T[]\n"
             "  %b = broadcast(%s, dims=[3]) : T[3,6,5,16]\n"
             "  %y = mul(%x, %b) : T[3,6,5,16]\n"
             "  %a = add(%y, %x) : T[3,6,5,16]\n"
             "  %p = pad(%a, %z, lo=[0,1,1,0], hi=[0,1,3,0], interior=[0,0,0,0]) : T[3,8,9,16]\n"
             "  %n = neg(%m) : T[3,6,5,3]\n"
             "  %q = pad(%n, %z, lo=[0,0,2,0], hi=[0,0,2,0], interior=[0,0,0,0]) : T[3,6,9,3]\n"
             "  return %p, %q\n"
             "}\n", "f32");
}

Test(lower, sums, .timeout = 120) {
  static const char text[] = "func @f(%x: T[6,5,7]) -> T[6,5], T[6,7], T[5,7], T[6], T[5], T[7], T[] {\n"
                             "  %a = sum(%x, axes=[2]) : T[6,5]\n"
                             "  %b = sum(%x, axes=[1]) : T[6,7]\n"
                             "  %c = sum(%x, axes=[0]) : T[5,7]\n"
                             "  %d = sum(%x, axes=[1,2]) : T[6]\n"
                             "  %e = sum(%x, axes=[0,2]) : T[5]\n"
                             "  %f = sum(%x, axes=[0,1]) : T[7]\n"
                             "  %g = sum(%x, axes=[0,1,2]) : T[]\n"
                             "  return %a, %b, %c, %d, %e, %f, %g\n"
                             "}\n";
  FOR_REALS(text);
  FOR_INTS(text);
}

/* Sums down the rows, of blocks, beside what is computed of each row: with sums along it; of a value that is written in place; of long rows; where the rows have rows
 * of their own; and one that its own kernel reads, which cannot be taken along. */
Test(lower, sums_down_rows, .timeout = 240) {
  static const char norm[] = "func @f(%x: T[8,32,134], %dy: T[8,32,134], %w: T[134]) -> T[8,32,134], T[16,134], T[16,134] {\n"
                             "  %v = broadcast(%w, dims=[2]) : T[8,32,134]\n"
                             "  %g = mul(%dy, %v) : T[8,32,134]\n"
                             "  %h = mul(%g, %x) : T[8,32,134]\n"
                             "  %s = sum(%h, axes=[2]) : T[8,32]\n"
                             "  %b = broadcast(%s, dims=[0,1]) : T[8,32,134]\n"
                             "  %c = mul(%b, %x) : T[8,32,134]\n"
                             "  %dx = sub(%g, %c) : T[8,32,134]\n"
                             "  %k = mul(%dy, %c) : T[8,32,134]\n"
                             "  %p = reshape(%k) : T[16,16,134]\n"
                             "  %dw = sum(%p, axes=[1]) : T[16,134]\n"
                             "  %q = reshape(%dy) : T[16,16,134]\n"
                             "  %db = sum(%q, axes=[1]) : T[16,134]\n"
                             "  return %dx, %dw, %db\n"
                             "}\n";
  check_text(norm, "f32");
  check_text(norm, "f64");
  check_text("func @f(%x: T[160,140], %m: T[160,140]) -> T[160,140], T[8,140], T[8,140], T[8,140] {\n"
             "  %h = cumsum(%x, axis=1, exclusive=0, reversed=0) : T[160,140]\n"
             "  %z = mul(%h, %m) : T[160,140]\n"
             "  %p = reshape(%z) : T[8,20,140]\n"
             "  %s = sum(%p, axes=[1]) : T[8,140]\n"
             "  %q = reshape(%h) : T[8,20,140]\n"
             "  %t = sum(%q, axes=[1]) : T[8,140]\n"
             "  %n = neg(%t) : T[8,140]\n"
             "  return %z, %s, %t, %n\n"
             "}\n", "i32");
  check_text("func @f(%x: T[136,2,66]) -> T[136,2], T[8,2,66] {\n"
             "  %s = sum(%x, axes=[2]) : T[136,2]\n"
             "  %b = broadcast(%s, dims=[0,1]) : T[136,2,66]\n"
             "  %y = mul(%x, %b) : T[136,2,66]\n"
             "  %p = reshape(%y) : T[8,17,2,66]\n"
             "  %t = sum(%p, axes=[1]) : T[8,2,66]\n"
             "  return %s, %t\n"
             "}\n", "f32");
  check_text("func @f(%x: T[8,5,4,72], %c: T[8,72]) -> T[8,72], T[8,72] {\n"
             "  %k = broadcast(%c, dims=[0,3]) : T[8,5,4,72]\n"
             "  %d = sub(%x, %k) : T[8,5,4,72]\n"
             "  %q = mul(%d, %d) : T[8,5,4,72]\n"
             "  %s = sum(%d, axes=[1,2]) : T[8,72]\n"
             "  %t = sum(%q, axes=[1,2]) : T[8,72]\n"
             "  return %s, %t\n"
             "}\n", "f32");
  check_text("func @f(%x: T[128,8448]) -> T[8,8448] {\n"
             "  %p = reshape(%x) : T[8,16,8448]\n"
             "  %s = sum(%p, axes=[1]) : T[8,8448]\n"
             "  return %s\n"
             "}\n", "f32");
}

Test(lower, extremes, .timeout = 120) {
  static const char text[] = "func @f(%n: T[6,5,9]) -> T[6,9], T[6,5], T[5], i64[6,9], i64[6,5], i64[5,9], i64[6,5] {\n"
                             "  %a = amax(%n, axes=[1]) : T[6,9]\n"
                             "  %b = amin(%n, axes=[2]) : T[6,5]\n"
                             "  %c = amax(%n, axes=[0,2]) : T[5]\n"
                             "  %d = argmax(%n, axis=1) : i64[6,9]\n"
                             "  %e = argmin(%n, axis=2) : i64[6,5]\n"
                             "  %f = argmin(%n, axis=0) : i64[5,9]\n"
                             "  %g = argmax(%n, axis=2) : i64[6,5]\n"
                             "  return %a, %b, %c, %d, %e, %f, %g\n"
                             "}\n";
  FOR_REALS(text);
  FOR_INTS(text);
  check_text(text, "bool");
}

Test(lower, products, .timeout = 60) {
  static const char text[] = "func @f(%x: T[4,3,5]) -> T[4,5], T[] {\n"
                             "  %a = prod(%x, axes=[1]) : T[4,5]\n"
                             "  %b = prod(%x, axes=[0,1,2]) : T[]\n"
                             "  return %a, %b\n"
                             "}\n";
  FOR_REALS(text);
  FOR_INTS(text);
}

Test(lower, empty, .timeout = 60) {
  check_text("func @f(%x: T[3,0,2], %y: T[0,4]) -> T[3,2], T[3,2], T[3,2], T[0,4], T[4], T[] {\n"
             "  %a = sum(%x, axes=[1]) : T[3,2]\n"
             "  %b = amax(%x, axes=[1]) : T[3,2]\n"
             "  %c = prod(%x, axes=[1]) : T[3,2]\n"
             "  %d = neg(%y) : T[0,4]\n"
             "  %e = amin(%y, axes=[0]) : T[4]\n"
             "  %f = sum(%y, axes=[0,1]) : T[]\n"
             "  return %a, %b, %c, %d, %e, %f\n"
             "}\n", "f32");
  check_text("func @f(%x: T[3,0,2]) -> T[3,2], T[3,2], T[3,0,2] {\n"
             "  %a = amin(%x, axes=[1]) : T[3,2]\n"
             "  %b = amax(%x, axes=[1]) : T[3,2]\n"
             "  %c = cumsum(%x, axis=1, exclusive=0, reversed=0) : T[3,0,2]\n"
             "  return %a, %b, %c\n"
             "}\n", "i32");
}

Test(lower, cumsum, .timeout = 60) {
  static const char text[] = "func @f(%x: T[4,5,7], %s: T[9]) -> T[4,5,7], T[4,5,7], T[4,5,7], T[9] {\n"
                             "  %a = cumsum(%x, axis=1, exclusive=0, reversed=0) : T[4,5,7]\n"
                             "  %b = cumsum(%x, axis=2, exclusive=1, reversed=0) : T[4,5,7]\n"
                             "  %c = cumsum(%x, axis=0, exclusive=1, reversed=1) : T[4,5,7]\n"
                             "  %d = cumsum(%s, axis=0, exclusive=0, reversed=1) : T[9]\n"
                             "  return %a, %b, %c, %d\n"
                             "}\n";
  FOR_REALS(text);
  FOR_INTS(text);
}

Test(lower, fold, .timeout = 60) {
  FOR_REALS("func @f(%x: T[3,4,5,3], %w: T[6,2]) -> T[3,9,5], T[3,4,11], T[7] {\n"
            "  %a = fold(%x, axis=1, length=9, stride=2, dilation=1) : T[3,9,5]\n"
            "  %p = permute(%x, perm=[0,1,2,3]) : T[3,4,5,3]\n"
            "  %b = fold(%p, axis=2, length=11, stride=1, dilation=3) : T[3,4,11]\n"
            "  %c = fold(%w, axis=0, length=7, stride=1, dilation=1) : T[7]\n"
            "  return %a, %b, %c\n"
            "}\n");
}

Test(lower, index_rows, .timeout = 120) {
  static const char text[] = "func @f(%x: T[5,6,4], %i: i32[5,3,4], %j: i64[5,3,4], %s: T[5,3,4], %u: T[2,6,3], %k: i64[3]) -> T[5,3,4], T[5,6,4], T[5,6,4], T[2,6,3] {\n"
                             "  %a = gather(%x, %i, axis=1) : T[5,3,4]\n"
                             "  %b = scatter_add(%x, %j, %s, axis=1) : T[5,6,4]\n"
                             "  %c = dynamic_update_slice(%x, %u, %k) : T[5,6,4]\n"
                             "  %d = dynamic_slice(%x, %k, sizes=[2,6,3]) : T[2,6,3]\n"
                             "  return %a, %b, %c, %d\n"
                             "}\n";
  FOR_REALS(text);
  FOR_INTS(text);
}

Test(lower, random_and_iota, .timeout = 60) {
  check_text("func @f(%seed: u64[], %t: u64[], %x: T[3,70]) -> u16[3,70], T[3,70], T[3,70] {\n"
             "  %a = random(%seed, %t, shape=[3,70], stream=5) : u16[3,70]\n"
             "  %b = iota(dtype=T, shape=[3,70], axis=1) : T[3,70]\n"
             "  %c = iota(dtype=T, shape=[3,70], axis=0) : T[3,70]\n"
             "  %d = mul(%b, %x) : T[3,70]\n"
             "  %e = sub(%d, %c) : T[3,70]\n"
             "  return %a, %e, %c\n"
             "}\n", "f32");
}

Test(lower, rows_in_stages, .timeout = 120) {
  FOR_REALS("func @f(%x: T[5,33], %w: T[33], %b: T[33]) -> T[5,33], T[5,33], T[5,33] {\n"
            "  %a = softmax(%x, axis=1) : T[5,33]\n"
            "  %b2 = log_softmax(%x, axis=0) : T[5,33]\n"
            "  %c = layer_norm(%x, %w, %b, axes=1, eps=1e-5) : T[5,33]\n"
            "  return %a, %b2, %c\n"
            "}\n");
  check_text("func @f(%x: T[4,3,5,7]) -> T[4,3,5,7], T[3], T[3] {\n"             /* batch statistics */
             "  %s = sum(%x, axes=[0,2,3]) : T[3]\n"
             "  %n = const(dtype=T, shape=[], value=[140]) : T[]\n"
             "  %nb = broadcast(%n, shape=[3], dims=[]) : T[3]\n"
             "  %m = div(%s, %nb) : T[3]\n"
             "  %mb = broadcast(%m, shape=[4,3,5,7], dims=[1]) : T[4,3,5,7]\n"
             "  %d = sub(%x, %mb) : T[4,3,5,7]\n"
             "  %q = mul(%d, %d) : T[4,3,5,7]\n"
             "  %v0 = sum(%q, axes=[0,2,3]) : T[3]\n"
             "  %v = div(%v0, %nb) : T[3]\n"
             "  %r = sqrt(%v) : T[3]\n"
             "  %rb = broadcast(%r, shape=[4,3,5,7], dims=[1]) : T[4,3,5,7]\n"
             "  %y = div(%d, %rb) : T[4,3,5,7]\n"
             "  return %y, %m, %v\n"
             "}\n", "f32");
}

Test(lower, pooling, .timeout = 60) {
  check_text("func @f(%x: T[2,3,9,8]) -> T[2,3,4,4], T[2,3,5,4] {\n"
             "  %a = max_pool(%x, size=[3,2], stride=[2,2], lo=[0,0], hi=[0,0], dilation=[1,1]) : T[2,3,4,4]\n"
             "  %b = avg_pool(%x, size=[3,3], stride=[2,2], lo=[1,1], hi=[1,0], count_pad=0) : T[2,3,5,4]\n"
             "  return %a, %b\n"
             "}\n", "f32");
}

Test(lower, in_place, .timeout = 60) {
  check_text("func @f(param %p: T[6,40], param %m: T[6,40], state %c: T[8,5], %g: T[6,40], %u: T[1,5], %k: i64[2], %i: i64[3,5], %s: T[3,5], state %e: T[8,5]) -> T[6,40] {\n"
             "  %h = const(dtype=T, shape=[], value=[0.5]) : T[]\n"
             "  %hb = broadcast(%h, shape=[6,40], dims=[]) : T[6,40]\n"
             "  %a = mul(%m, %hb) : T[6,40]\n"
             "  %m2 = add(%a, %g) : T[6,40]\n"
             "  %p2 = sub(%p, %m2) : T[6,40]\n"
             "  %c2 = dynamic_update_slice(%c, %u, %k) : T[8,5]\n"
             "  %e2 = scatter_add(%e, %i, %s, axis=0) : T[8,5]\n"
             "  %y = exp(%g) : T[6,40]\n"
             "  %z = neg(%y) : T[6,40]\n"
             "  %x = softmax(%z, axis=1) : T[6,40]\n"
             "  assign(%p, %p2)\n"
             "  assign(%m, %m2)\n"
             "  assign(%c, %c2)\n"
             "  assign(%e, %e2)\n"
             "  return %x\n"
             "}\n", "f32");
}

/* What the plan of a kernel comes to, as text: one loop for an elementwise kernel of any rank; vectors along what is contiguous. */
static char *lowered(const char *text) {
  tt_error err = {0};
  ir_graph *g = ir_parse(text, strlen(text), "test", &err);
  cr_assert(g, "%s", err.message);
  ir_graph *s = passed(g, "fuse,schedule", "lowered");
  cr_assert_eq(s->n_kernels, 2);
  ir_ref rows[16];
  lp_kernel *k = cg_lower(s, 1, &cpu, rows, 16, &err);
  cr_assert(k, "%s", err.message);
  char *out = lp_print(k);
  lp_free(k);
  ir_graph_free(s);
  ir_graph_free(g);
  return out;
}

Test(lower, axes_become_one_loop) {
  char *t = lowered("func @f(%x: f32[5,7,3], %y: f32[5,7,3]) -> f32[5,7,3] {\n  %z = add(%x, %y) : f32[5,7,3]\n  return %z\n}\n");
  cr_expect(strstr(t, "tasks=1 ") && strstr(t, "for i1 in 0..105 vec 32 {\n    store b2[i1] = add(load b0[i1], load b1[i1])\n"), "%s", t);
  free(t);
  t = lowered("func @f(%x: f32[64,32,8]) -> f32[8] {\n  %z = sum(%x, axes=[0,1]) : f32[8]\n  return %z\n}\n");
  cr_expect(strstr(t, "in 0..8 vec 8 {") && strstr(t, "in 0..2048 {"), "%s", t);
  free(t);
  t = lowered("func @f(%x: f32[64,32,8]) -> f32[64] {\n  %z = sum(%x, axes=[1,2]) : f32[64]\n  return %z\n}\n");
  cr_expect(strstr(t, "in 0..256 vec 64 {"), "%s", t);
  free(t);
}

Test(lower, transposition_in_tiles) {
  char *t = lowered("func @f(%x: f32[96,128]) -> f32[128,96] {\n  %p = permute(%x, perm=[1,0]) : f32[128,96]\n  return %p\n}\n");
  cr_expect(strstr(t, "in 0..16 vec 16 {") && strstr(t, "+ 7]"), "%s", t);
  free(t);
  static const int64_t sizes[][3] = {{1, 96, 128}, {1, 37, 50}, {3, 19, 8}, {2, 5, 100}, {5, 10, 4}, {1, 200, 3}, {40, 16, 9}};
  static const char *const types[] = {"f32", "f64", "i32"};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    for (int k = 0; k < 3; k++) {
      char text[1000];
      long long a = sizes[i][0], b = sizes[i][1], c = sizes[i][2];
      const char *n = types[k];
      snprintf(text, sizeof text, "func @f(%%x: %s[%lld,%lld,%lld], %%z: %s[%lld,%lld,%lld]) -> %s[%lld,%lld,%lld] {\n"
               "  %%p = permute(%%x, perm=[0,2,1]) : %s[%lld,%lld,%lld]\n  %%q = relu(%%p) : %s[%lld,%lld,%lld]\n  %%r = add(%%q, %%z) : %s[%lld,%lld,%lld]\n  return %%r\n}\n",
               n, a, b, c, n, a, c, b, n, a, c, b, n, a, c, b, n, a, c, b, n, a, c, b);
      check_text(text, n);
    }
}

/* What comes 12 KiB later is asked for in the pass with the most work, 4 KiB later where nothing is reduced; nothing that lies in L2, and not two arrays along which nothing is reduced. */
Test(lower, lines_are_asked_for_early) {
  static const char rows[] = "func @f(%%x: f32[%d,%d]) -> f32[%d,%d] {\n  %%m = amax(%%x, axes=[1]) : f32[%d]\n  %%b = broadcast(%%m, dims=[0]) : f32[%d,%d]\n  %%d = sub(%%x, %%b) : f32[%d,%d]\n  return %%d\n}\n";
  static const struct { int rows, length, ahead; bool to_l2; } cases[] = {{4096, 1024, 3072, false}, {16384, 256, 3072, false}, {1024, 4096, 4096, false}, {256, 16384, 16384, true}, {64, 65536, 0, false}, {16, 1024, 0, false}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char text[600], want[60];
    int r = cases[i].rows, n = cases[i].length;
    snprintf(text, sizeof text, rows, r, n, r, n, r, r, n, r, n);
    snprintf(want, sizeof want, " + %d]", cases[i].ahead);
    char *out = lowered(text), *at = strstr(out, "prefetch"), *end = at ? strchr(at, '\n') : NULL;
    if (end) *end = 0;
    cr_expect(!at == !cases[i].ahead, "%dx%d: %s", r, n, out);
    cr_expect(!at || (strstr(at, want) && !strncmp(at, "prefetch2", 9) == cases[i].to_l2), "%dx%d: %s", r, n, at);
    free(out);
  }
  char *one = lowered("func @f(%x: f32[4194304]) -> f32[4194304] {\n  %y = exp(%x) : f32[4194304]\n  return %y\n}\n");
  char *two = lowered("func @f(%x: f32[4194304], %z: f32[4194304]) -> f32[4194304] {\n  %y = add(%x, %z) : f32[4194304]\n  return %y\n}\n");
  char *at = strstr(one, "prefetch");
  cr_expect(at && strstr(at, " + 1024]"), "%s", one);
  cr_expect(!strstr(two, "prefetch"), "%s", two);
  free(one);
  free(two);
}

/* Short rows are done several at a time, by columns. */
/* What a product's epilogue reads beside the sums is asked for ahead of the tile's products: a residual of the size of the result, not a bias, nothing that lies in L1. */
Test(lower, epilogues_are_asked_for_early) {
  for (int n = 64; n <= 256; n *= 4) {
    char text[600];
    snprintf(text, sizeof text, "func @f(%%x: f32[%d,64], %%w: f32[64,%d], %%b: f32[%d], %%r: f32[%d,%d]) -> f32[%d,%d] {\n  %%y = matmul(%%x, %%w) : f32[%d,%d]\n  %%c = broadcast(%%b, dims=[1]) : f32[%d,%d]\n"
             "  %%z = add(%%y, %%c) : f32[%d,%d]\n  %%s = add(%%z, %%r) : f32[%d,%d]\n  return %%s\n}\n", n, n, n, n, n, n, n, n, n, n, n, n, n, n, n);
    char *out = lowered(text), *asked = strstr(out, "prefetch b3["), *product = strstr(out, "fma(");
    cr_expect(n == 64 ? !asked : asked && product && asked < product, "%s", out);
    cr_expect(!strstr(out, "prefetch b2["), "%s", out);
    free(out);
  }
}

/* A weight's gradient: blocks of 256 rows, whose panel of 16 columns stays in L1; what the next one is copied from is asked for, where it does not lie in L2. */
Test(lower, copied_blocks_are_asked_for_early) {
  for (int n = 64; n <= 1024; n *= 16) {
    char text[300];
    snprintf(text, sizeof text, "func @f(%%x: f32[1024,%d], %%g: f32[1024,64]) -> f32[%d,64] {\n  %%w = matmul(%%x, %%g, ta=1) : f32[%d,64]\n  return %%w\n}\n", n, n, n);
    char *out = lowered(text);
    cr_expect(strstr(out, "in 0..256 {") && !strstr(out, "prefetch2 b0[") == (n == 64), "%s", out);
    free(out);
  }
}

/* A slice's place in what was split and padded: a vector of neighbours, though the numbers outside of the pad would be negative. */
Test(lower, padded_parts_side_by_side) {
  char *out = lowered("func @f(%x: f32[8,4,32], %y: f32[8,128]) -> f32[8,256] {\n  %z = const(value=0) : f32[]\n  %r = reshape(%x) : f32[8,128]\n  %p = pad(%r, %z, lo=[0,128], hi=[0,0], interior=[0,0]) : f32[8,256]\n"
                      "  %q = pad(%y, %z, lo=[0,0], hi=[0,128], interior=[0,0]) : f32[8,256]\n  %s = add(%p, %q) : f32[8,256]\n  return %s\n}\n");
  cr_expect(!strstr(out, "/") && !strstr(out, "%"), "%s", out);
  free(out);
}

Test(lower, short_rows_by_columns) {
  static const int lengths[] = {3, 4, 10, 13, 16, 24, 35, 48, 65};
  for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
    char text[500];
    int c = lengths[i];
    snprintf(text, sizeof text, "func @f(%%x: f32[300,%d]) -> f32[300,%d] {\n  %%y = softmax(%%x, axis=1) : f32[300,%d]\n  return %%y\n}\n", c, c, c);
    ir_graph *g = ir_parse(text, strlen(text), "rows", NULL), *d = passed(g, "decompose", "rows");
    char *plain = ir_print(d);
    check_text(plain, "f32");
    free(plain);
    ir_graph_free(g), ir_graph_free(d);
  }
}

Test(lower, costly_rows_are_kept) {
  char *t = lowered("func @f(%x: f32[8,100]) -> f32[8,100] {\n"
                    "  %m = amax(%x, axes=[1]) : f32[8]\n"
                    "  %b = broadcast(%m, shape=[8,100], dims=[0]) : f32[8,100]\n"
                    "  %d = sub(%x, %b) : f32[8,100]\n"
                    "  %e = exp(%d) : f32[8,100]\n"
                    "  %s = sum(%e, axes=[1]) : f32[8]\n"
                    "  %c = broadcast(%s, shape=[8,100], dims=[0]) : f32[8,100]\n"
                    "  %y = div(%e, %c) : f32[8,100]\n"
                    "  return %y\n"
                    "}\n");
  char *first = strstr(strchr(t, '\n'), "exp(");
  cr_expect(first && !strstr(first + 1, "exp(") && strstr(t, "scratch out b2: f32[100]"), "%s", t);
  free(t);
}

Test(lower, random_graphs, .timeout = 240) {
  for (uint64_t seed = 1; seed <= 60; seed++) {
    ir_graph *g = random_graph_new(seed, 4 + (int)(seed % 12));
    cr_assert_eq(g->error.status, TT_OK, "%s", g->error.message);
    char name[32];
    snprintf(name, sizeof name, "random%llu", (unsigned long long)seed);
    g->name = name;
    check_graph(g, seed, false);
    ir_graph_free(g);
  }
}
