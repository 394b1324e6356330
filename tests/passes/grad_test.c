/* grad_test.c: every derivative against central differences in f64, first and second order. The walk over ops.def needs a function
 * sample_NAME for every row that is not elementwise, so a new row without one does not compile. TT_SEED=n takes other numbers. */
#include "passes/passes.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- values ---- */

static uint64_t first_seed(void) { return getenv("TT_SEED") ? strtoull(getenv("TT_SEED"), NULL, 10) : 20240607; }

enum { MAX_LEAVES = 12, TRIED = 20 };
typedef struct { char name[16]; ir_ref row; tt_dtype type; int64_t count; double *data; } leaf_data;
typedef struct { ir_graph *g; leaf_data leaves[MAX_LEAVES]; int n; uint64_t state; const char *what; } ctx;

static double uniform(ctx *c, double lo, double hi) {
  c->state = c->state * 6364136223846793005u + 1442695040888963407u;
  return lo + (hi - lo) * (double)(c->state >> 11) * 0x1p-53;
}

static ctx begin(const char *what) {
  ctx c = {.g = ir_graph_new("test"), .state = first_seed(), .what = what};
  for (const char *p = what; *p; p++) c.state = c.state * 31 + (uint64_t)*p;
  return c;
}

static void end(ctx *c) {
  for (int i = 0; i < c->n; i++) free(c->leaves[i].data);
  ir_graph_free(c->g);
}

#define SHAPE(...) (tt_shape){sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), {__VA_ARGS__}}
#define SCALAR (tt_shape){0}

static ir_ref leaf(ctx *c, tt_shape s, double lo, double hi) {
  leaf_data *l = &c->leaves[c->n];
  cr_assert(c->n < MAX_LEAVES);
  snprintf(l->name, sizeof l->name, "x%d", c->n++);
  l->count = tt_shape_count(&s);
  l->data = malloc((size_t)l->count * sizeof(double) + 1);
  for (int64_t i = 0; i < l->count; i++) l->data[i] = uniform(c, lo, hi);
  return l->row = ir_input(c->g, l->name, TT_F64, s);
}

static ir_ref indices(ctx *c, tt_shape s, int lo, int hi) {     /* a constant i64 */
  int64_t n = tt_shape_count(&s), v[256];
  for (int64_t i = 0; i < n; i++) v[i] = (int64_t)floor(uniform(c, lo, hi + 1));
  return ir_const(c->g, TT_I64, s, v);
}

/* The graph of these outputs alone, without composites. */
static ir_graph *program(ctx *c, const ir_ref *outputs, int n) {
  pass_options options = {0};
  tt_error err = {0};
  ir_graph *out;
  cr_assert_eq(c->g->error.status, TT_OK, "%s: %s", c->what, c->g->error.message);
  c->g->n_outputs = 0;
  for (int i = 0; i < n; i++) ir_output_add(c->g, NULL, outputs[i]);
  cr_assert_eq(pass_run(c->g, &out, "decompose", NULL, &options, NULL, NULL, &err), TT_OK, "%s: %s", c->what, err.message);
  return out;
}

/* Runs it on the leaves' data; gives copies of the outputs. */
static void run(ctx *c, const ir_graph *g, double **outputs) {
  void **values = calloc(g->n_nodes, sizeof *values);
  tt_error err = {0};
  for (int i = 0; i < c->n; i++) {
    ir_ref r = ir_find(g, c->leaves[i].name);
    if (r) values[r] = c->leaves[i].data;
  }
  cr_assert_eq(ir_eval(g, values, &err), TT_OK, "%s: %s", c->what, err.message);
  for (uint32_t i = 0; i < g->n_outputs; i++) {
    tt_shape s = ir_shape(g, g->outputs[i].value);
    int64_t n = tt_shape_count(&s);
    outputs[i] = malloc((size_t)n * sizeof(double) + 1);
    for (int64_t k = 0; k < n; k++) outputs[i][k] = ir_load_double((tt_dtype)ir_at(g, g->outputs[i].value)->dtype, values[g->outputs[i].value], k);
  }
  ir_values_free(g, values);
}

/* f, a scalar, and its gradients against (f(x+h) - f(x-h)) / 2h. */
static void compare(ctx *c, ir_ref f, const ir_ref *gradients, const char *order) {
  ir_graph *forward = program(c, &f, 1), *backward = program(c, gradients, c->n);
  double *d[MAX_LEAVES], *up, *down;
  run(c, backward, d);
  for (int i = 0; i < c->n; i++) {
    leaf_data *l = &c->leaves[i];
    for (int t = 0; t < TRIED && t < l->count; t++) {
      int64_t k = l->count <= TRIED ? t : (int64_t)uniform(c, 0, (double)l->count);
      double x = l->data[k], h = 1e-5 * fmax(1, fabs(x));
      l->data[k] = x + h, run(c, forward, &up);
      l->data[k] = x - h, run(c, forward, &down);
      l->data[k] = x;
      double numeric = (*up - *down) / (2 * h), error = fabs(numeric - d[i][k]);
      double tolerance = 1e-7 * (1 + fabs(numeric)) + 1e-9 * (fabs(*up) + fabs(*down));
      cr_expect(error <= tolerance, "%s, %s order, seed %llu: d/d%s[%lld] is %.12g, by differences %.12g", c->what, order,
                (unsigned long long)first_seed(), l->name, (long long)k, d[i][k], numeric);
      free(up), free(down);
    }
  }
  for (int i = 0; i < c->n; i++) free(d[i]);
  ir_graph_free(forward), ir_graph_free(backward);
}

static void all_gradients(ctx *c, ir_ref f, ir_ref *gradients) {
  ir_ref wrt[MAX_LEAVES];
  for (int i = 0; i < c->n; i++) wrt[i] = c->leaves[i].row;
  cr_assert(pass_vjp(c->g, f, 0, wrt, c->n, gradients), "%s: %s", c->what, c->g->error.message);
}

static ir_ref dot(ctx *c, ir_ref a, ir_ref b) { return ir_reduce(c->g, IR_sum, ir_ew2(c->g, IR_mul, a, b), NULL, 0, false); }

/* Both orders: f = sum(y * random), then s = sum of the gradients * random. Rules on: derivatives must survive them. */
static void check(ctx *c, ir_ref y) {
  ir_ref first[MAX_LEAVES], second[MAX_LEAVES];
  cr_assert(y && !c->g->error.status, "%s: %s", c->what, c->g->error.message);
  ir_ref f = dot(c, y, leaf(c, ir_shape(c->g, y), 0.5, 1.5));
  all_gradients(c, f, first);
  compare(c, f, first, "first");
  ir_ref s = ir_scalar(c->g, TT_F64, 0);
  int n = c->n;
  for (int i = 0; i < n; i++) {
    double weights[2000];
    cr_assert(c->leaves[i].count <= 2000);
    for (int64_t k = 0; k < c->leaves[i].count; k++) weights[k] = uniform(c, -1, 1);
    s = ir_ew2(c->g, IR_add, s, dot(c, first[i], ir_const(c->g, TT_F64, ir_shape(c->g, first[i]), weights)));
  }
  all_gradients(c, s, second);
  compare(c, s, second, "second");
}

/* CASE(op, detail) { build y from leaf() } END: one graph, checked without and with rewrite rules. */
#define CASE(detail, ...) do { for (int rules = 0; rules < 2; rules++) { \
    ctx context = begin(detail), *c = &context; ir_graph *g = c->g; \
    if (rules) g->rules = rewrite_rules; \
    ir_ref y = 0; __VA_ARGS__; check(c, y); end(c); } } while (0)

/* ---- elementwise rows, from their table ---- */

static const struct { const char *op; double lo[2], hi[2]; } domains[] = {
    {"log", {0.3}, {3}}, {"log1p", {-0.6}, {3}}, {"sqrt", {0.3}, {3}}, {"rsqrt", {0.4}, {3}}, {"tan", {-1}, {1}}, {"div", {-2, 0.5}, {2, 2}},
    {"fmod", {0.5, 0.4}, {6, 2}}, {"pow", {0.4, -2}, {2.5, 2}}, {"atan2", {-2, 0.3}, {2, 2}}};

static void sample_elementwise(ir_op op) {
  const ir_op_info *info = &ir_ops[op];
  double lo[2] = {-2, -2}, hi[2] = {2, 2};
  if (info->gives_bool || !(info->takes & TT_REAL)) return;
  for (size_t i = 0; i < sizeof domains / sizeof domains[0]; i++)
    if (!strcmp(domains[i].op, info->name)) memcpy(lo, domains[i].lo, sizeof lo), memcpy(hi, domains[i].hi, sizeof hi);
  tt_shape shapes[] = {SCALAR, SHAPE(5), SHAPE(2, 3), SHAPE(2, 0)};
  for (int s = 0; s < 4; s++)
    CASE(info->name, ir_ref a = leaf(c, shapes[s], lo[0], hi[0]); y = info->arity == 1 ? ir_ew1(g, op, a) : ir_ew2(g, op, a, leaf(c, shapes[s], lo[1], hi[1])));
  CASE(info->name, ir_ref a = leaf(c, SHAPE(4), fmax(lo[0], lo[1]), fmin(hi[0], hi[1])); y = info->arity == 1 ? ir_ew1(g, op, ir_ew1(g, IR_exp, a)) : ir_ew2(g, op, ir_ew1(g, IR_exp, a), ir_ew1(g, IR_exp, leaf(c, SHAPE(3, 1), 0, 1))));
}

/* ---- the others, one function a row ---- */

static void sample_none(void) {}
#define sample_input sample_none
#define sample_param sample_none
#define sample_const sample_none
#define sample_iota sample_none
#define sample_random sample_none
#define sample_bitcast sample_none
#define sample_assign sample_none

static void sample_select(void) {
  CASE("select", ir_ref a = leaf(c, SHAPE(3, 4), -1, 1); ir_ref b = leaf(c, SHAPE(3, 4), -1, 1); y = ir_select(g, ir_ew2(g, IR_lt, a, b), ir_ew2(g, IR_mul, a, b), ir_ew1(g, IR_exp, a)));
  CASE("select one side", ir_ref a = leaf(c, SHAPE(6), -1, 1); y = ir_select(g, ir_ew2(g, IR_lt, a, ir_like(g, a, 0)), ir_like(g, a, 3), ir_ew2(g, IR_mul, a, a)));
}

static void sample_cast(void) {
  CASE("cast of a copy to the same", ir_ref a = leaf(c, SHAPE(6), 1, 4); y = ir_ew2(g, IR_mul, a, ir_cast(g, ir_cast(g, a, TT_I32), TT_F64)));
  ctx context = begin("cast"), *c = &context;
  ir_ref x = leaf(c, SHAPE(5), -2, 2), w = leaf(c, SHAPE(5), -2, 2), d[2];
  ir_ref narrow = ir_ew1(c->g, IR_exp, ir_cast(c->g, x, TT_F32));
  all_gradients(c, dot(c, ir_cast(c->g, narrow, TT_F64), w), d);
  cr_assert_eq(ir_at(c->g, d[0])->dtype, TT_F64);
  ir_graph *p = program(c, d, 2);
  double *got[2];
  run(c, p, got);
  for (int i = 0; i < 5; i++) cr_expect_float_eq(got[0][i], c->leaves[1].data[i] * exp(c->leaves[0].data[i]), 1e-5);
  free(got[0]), free(got[1]);
  ir_graph_free(p), end(c);
}

static void sample_stop_gradient(void) {
  ctx context = begin("stop_gradient"), *c = &context;
  ir_ref x = leaf(c, SHAPE(4), 1, 2), d[1];
  all_gradients(c, dot(c, x, ir_stop_gradient(c->g, x)), d);
  ir_graph *p = program(c, d, 1);
  double *got;
  run(c, p, &got);
  for (int i = 0; i < 4; i++) cr_expect_eq(got[i], c->leaves[0].data[i]);
  free(got);
  ir_graph_free(p), end(c);
}

static void sample_reshape(void) { CASE("reshape", ir_ref a = ir_ew1(g, IR_exp, leaf(c, SHAPE(2, 6), -1, 1)); y = ir_ew1(g, IR_sin, ir_reshape(g, a, SHAPE(3, 1, 4)))); }
static void sample_permute(void) { CASE("permute", ir_ref a = ir_ew1(g, IR_exp, leaf(c, SHAPE(2, 3, 2), -1, 1)); y = ir_ew1(g, IR_sin, ir_permute(g, a, (int[]){2, 0, 1}))); }

static void sample_broadcast(void) {
  CASE("broadcast", y = ir_ew1(g, IR_exp, ir_broadcast(g, leaf(c, SHAPE(3, 1), -1, 1), SHAPE(2, 3, 4), (int[]){1, 2})));
  CASE("broadcast a scalar", y = ir_ew1(g, IR_exp, ir_broadcast(g, leaf(c, SCALAR, -1, 1), SHAPE(2, 3), NULL)));
  CASE("broadcast by 1", y = ir_ew1(g, IR_exp, ir_broadcast(g, leaf(c, SHAPE(1), -1, 1), SHAPE(1, 1), (int[]){1})));
}

static void sample_slice(void) {
  CASE("slice", y = ir_ew1(g, IR_exp, ir_slice(g, leaf(c, SHAPE(7, 5), -1, 1), (int64_t[]){1, 2}, (int64_t[]){6, 4}, (int64_t[]){3, 1})));
  CASE("slice to nothing", y = ir_ew1(g, IR_exp, ir_slice(g, leaf(c, SHAPE(3), -1, 1), (int64_t[]){2}, (int64_t[]){2}, (int64_t[]){1})));
}

static void sample_pad(void) {
  CASE("pad", ir_ref a = leaf(c, SHAPE(2, 3), -1, 1); y = ir_ew1(g, IR_exp, ir_pad(g, a, leaf(c, SCALAR, -1, 1), (int64_t[]){1, 0}, (int64_t[]){2, 1}, (int64_t[]){2, 1})));
  CASE("pad of nothing", ir_ref a = leaf(c, SHAPE(0), -1, 1); y = ir_ew1(g, IR_exp, ir_pad(g, a, leaf(c, SCALAR, -1, 1), (int64_t[]){1}, (int64_t[]){2}, (int64_t[]){2})));
}

static void sample_concat(void) {
  CASE("concat", ir_ref a = leaf(c, SHAPE(2, 3), -1, 1); y = ir_ew1(g, IR_exp, ir_concat(g, (ir_ref[]){a, leaf(c, SHAPE(2, 1), -1, 1), a, leaf(c, SHAPE(2, 0), 0, 1)}, 4, 1)));
  CASE("concat of ten", ir_ref a = leaf(c, SHAPE(2), -1, 1); ir_ref x[10]; for (int i = 0; i < 10; i++) x[i] = ir_ew2(g, IR_mul, a, ir_like(g, a, i)); y = ir_ew1(g, IR_sin, ir_concat(g, x, 10, 0)));
}

static void sample_reverse(void) { CASE("reverse", y = ir_ew1(g, IR_exp, ir_reverse(g, leaf(c, SHAPE(2, 3, 4), -1, 1), (int[]){0, 2}, 2))); }

static void sample_unfold(void) {
  CASE("unfold", y = ir_ew1(g, IR_exp, ir_unfold(g, leaf(c, SHAPE(2, 9, 2), -1, 1), 1, 3, 2, 1)));
  CASE("unfold, dilated", y = ir_ew1(g, IR_exp, ir_unfold(g, leaf(c, SHAPE(9), -1, 1), 0, 3, 1, 2)));
  CASE("unfold, with a rest", y = ir_ew1(g, IR_exp, ir_unfold(g, leaf(c, SHAPE(11), -1, 1), 0, 2, 4, 1)));
}

static void sample_fold(void) {
  CASE("fold", y = ir_ew1(g, IR_sin, ir_fold(g, leaf(c, SHAPE(2, 4, 3), -1, 1), 1, 9, 2, 1)));
  CASE("fold, with a rest", y = ir_ew1(g, IR_sin, ir_fold(g, leaf(c, SHAPE(3, 2), -1, 1), 0, 11, 4, 1)));
}

#define REDUCTION(op, lo, hi) do { \
    CASE(#op, y = ir_ew1(g, IR_sin, ir_reduce(g, IR_##op, leaf(c, SHAPE(2, 3, 4), lo, hi), (int[]){1}, 1, false))); \
    CASE(#op " of two", y = ir_ew1(g, IR_sin, ir_reduce(g, IR_##op, leaf(c, SHAPE(2, 3, 2), lo, hi), (int[]){0, 2}, 2, false))); \
    CASE(#op " of all", y = ir_ew1(g, IR_sin, ir_reduce(g, IR_##op, leaf(c, SHAPE(2, 3), lo, hi), NULL, 0, false))); \
    CASE(#op " of nothing", ir_ref a = leaf(c, SHAPE(2, 0), lo, hi); ir_ref b = leaf(c, SHAPE(2), 0, 1); ir_ref r = ir_reduce(g, IR_##op, a, (int[]){1}, 1, false); \
         y = ir_select(g, ir_ew2(g, IR_lt, ir_ew1(g, IR_abs, r), ir_like(g, r, 5)), r, b)); } while (0)
static void sample_sum(void) { REDUCTION(sum, -1, 1); }
static void sample_amax(void) { REDUCTION(amax, -1, 1); }
static void sample_amin(void) { REDUCTION(amin, -1, 1); }
static void sample_prod(void) {
  REDUCTION(prod, 0.5, 1.5);
  for (int zeros = 1; zeros < 4; zeros++)
    CASE("prod with zeros", ir_ref a = leaf(c, SHAPE(2, 4), 0.5, 1.5); for (int i = 0; i < zeros; i++) c->leaves[0].data[i] = 0; y = ir_reduce(g, IR_prod, a, (int[]){1}, 1, false));
}

static void index_of(ir_op op) {
  CASE("argmax, argmin", ir_ref a = leaf(c, SHAPE(3, 4), -1, 1); ir_ref i = ir_cast(g, ir_arg(g, op, a, 1), TT_F64); y = ir_ew2(g, IR_mul, i, ir_reduce(g, IR_sum, a, (int[]){1}, 1, false)));
}
static void sample_argmax(void) { index_of(IR_argmax); }
static void sample_argmin(void) { index_of(IR_argmin); }

static void sample_cumsum(void) {
  for (int k = 0; k < 4; k++) CASE("cumsum", y = ir_ew1(g, IR_sin, ir_cumsum(g, leaf(c, SHAPE(2, 5), -1, 1), k & 1 ? 1 : 0, k & 1, k & 2)));
}

static void sample_matmul(void) {
  for (int k = 0; k < 8; k++) {
    bool ta = k & 1, tb = k & 2;
    int64_t split = k & 4 ? 2 : 1;
    CASE("matmul", ir_ref a = leaf(c, ta ? SHAPE(4, 3) : SHAPE(3, 4), -1, 1); ir_ref b = leaf(c, tb ? SHAPE(2, 4) : SHAPE(4, 2), -1, 1); y = ir_ew1(g, IR_sin, ir_matmul(g, a, b, ta, tb, split)));
    CASE("matmul, batched", ir_ref a = leaf(c, ta ? SHAPE(2, 1, 4, 3) : SHAPE(2, 1, 3, 4), -1, 1); ir_ref b = leaf(c, tb ? SHAPE(2, 1, 2, 4) : SHAPE(2, 1, 4, 2), -1, 1); y = ir_ew1(g, IR_sin, ir_matmul(g, a, b, ta, tb, split)));
  }
  CASE("matmul of itself", ir_ref a = leaf(c, SHAPE(3, 3), -1, 1); y = ir_matmul(g, a, a, false, true, 1));
  CASE("matmul of nothing", ir_ref a = leaf(c, SHAPE(2, 0), -1, 1); ir_ref b = leaf(c, SHAPE(0, 3), 0, 1); y = ir_matmul(g, a, b, false, false, 1));
}

static void sample_winograd(void) {
  CASE("winograd 2", ir_ref x = leaf(c, SHAPE(2, 1, 2, 6, 4), -1, 1); y = ir_ew1(g, IR_sin, ir_winograd(g, x, leaf(c, SHAPE(2, 16, 2, 2), -1, 1), 2, (int64_t[]){3, 3, 2})));
  CASE("winograd 4", ir_ref x = leaf(c, SHAPE(1, 1, 1, 6, 10), -0.1, 0.1); y = ir_ew1(g, IR_sin, ir_winograd(g, x, leaf(c, SHAPE(1, 36, 1, 2), -0.1, 0.1), 4, (int64_t[]){2, 4, 5})));
}

static void sample_attention(void) {
  for (int k = 0; k < 5; k++)
    CASE("attention", ir_attention_options o = {.scale = 0.7, .causal = k & 1}; ir_ref q = leaf(c, SHAPE(1, 4, 2, 3), -1, 1); ir_ref a[3]; a[0] = q; a[1] = leaf(c, SHAPE(1, 2, 4, 3), -1, 1); a[2] = leaf(c, SHAPE(1, 2, 4, 2), -1, 1);
         if (k == 2) o.mask = leaf(c, SHAPE(1, 1, 2, 4), -1, 1);
         if (k == 3) o.length = ir_scalar_int(g, TT_I64, 3);
         if (k == 4) { o.mask = ir_const(g, TT_BOOL, SHAPE(1, 1, 2, 4), (bool[]){1, 0, 1, 1, 0, 0, 0, 0}); }
         y = ir_ew1(g, IR_sin, ir_attention(g, IR_attention, a, &o)));
  CASE("attention of itself", ir_attention_options o = {.scale = 1}; ir_ref x = leaf(c, SHAPE(3, 2), -1, 1); y = ir_attention(g, IR_attention, (ir_ref[]){x, x, x}, &o));
}
static void sample_attention_lse(void) {
  CASE("attention_lse", ir_attention_options o = {.scale = 0.7}; ir_ref a[3]; for (int i = 0; i < 3; i++) a[i] = leaf(c, SHAPE(2, 2, 3), -1, 1); y = ir_ew1(g, IR_sin, ir_attention(g, IR_attention_lse, a, &o)));
}
static void attention_derivative(ir_op op) {
  CASE(ir_ops[op].name, ir_attention_options o = {.scale = 0.7, .causal = true}; ir_ref a[6]; for (int i = 0; i < 6; i++) a[i] = leaf(c, i < 4 ? SHAPE(2, 3, 2) : SHAPE(2, 3), -1, 1); y = ir_ew1(g, IR_sin, ir_attention(g, op, a, &o)));
}
static void sample_attention_dq(void) { attention_derivative(IR_attention_dq); }
static void sample_attention_dk(void) { attention_derivative(IR_attention_dk); }
static void sample_attention_dv(void) { attention_derivative(IR_attention_dv); }

static void sample_conv(void) {
  /* one axis: size, window, stride, lo, hi, dilation, x_dilation; the input is longer than the windows, or shorter, or all padding */
  static const int64_t one[][7] = {{7, 3, 1, 0, 0, 1, 1}, {7, 3, 1, 1, 1, 1, 1}, {8, 3, 2, 1, 1, 1, 1}, {9, 2, 3, 0, 0, 1, 1}, {10, 3, 4, 0, 1, 1, 1}, {9, 3, 1, 2, 3, 2, 1}, {5, 3, 1, 1, 0, 1, 2},
                                   {4, 2, 3, 5, 4, 2, 3}, {5, 1, 1, 2, 3, 1, 1}, {6, 1, 4, 0, 0, 1, 1}, {3, 2, 1, 6, 0, 1, 1}, {2, 2, 5, 4, 1, 1, 1}, {5, 2, 7, 0, 3, 3, 2}, {1, 4, 1, 3, 3, 1, 1}, {6, 6, 1, 0, 0, 1, 1},
                                   {3, 1, 9, 3, 0, 1, 2}};
  for (size_t i = 0; i < sizeof one / sizeof one[0]; i++) {
    const int64_t *o = one[i];
    char detail[100];
    snprintf(detail, sizeof detail, "conv %lld by %lld, stride %lld, lo %lld, hi %lld, dilation %lld, x_dilation %lld", (long long)o[0], (long long)o[1], (long long)o[2], (long long)o[3], (long long)o[4], (long long)o[5], (long long)o[6]);
    ir_conv_attrs a = {.stride = {o[2]}, .lo = {o[3]}, .hi = {o[4]}, .dilation = {o[5]}, .x_dilation = {o[6]}};
    CASE(detail, ir_ref x = leaf(c, SHAPE(2, 1, 2, o[0]), -1, 1); y = ir_ew1(g, IR_sin, ir_conv(g, x, leaf(c, SHAPE(1, 3, 2, o[1]), -1, 1), &a)));
  }
  ir_conv_attrs two = {.stride = {2, 1}, .lo = {1, 0}, .hi = {0, 2}, .dilation = {1, 2}};
  CASE("conv, groups", ir_ref x = leaf(c, SHAPE(2, 2, 2, 5, 4), -1, 1); y = ir_ew1(g, IR_sin, ir_conv(g, x, leaf(c, SHAPE(2, 1, 2, 3, 2), -1, 1), &two)));
  CASE("conv, depthwise", ir_ref x = leaf(c, SHAPE(1, 3, 1, 5, 4), -1, 1); y = ir_ew1(g, IR_sin, ir_conv(g, x, leaf(c, SHAPE(3, 2, 1, 3, 2), -1, 1), &two)));
  ir_conv_attrs three = {.stride = {1, 2, 1}, .lo = {0, 1, 0}, .split = 2};
  CASE("conv, 3-d, split", ir_ref x = leaf(c, SHAPE(1, 1, 4, 3, 3, 2), -1, 1); y = ir_ew1(g, IR_sin, ir_conv(g, x, leaf(c, SHAPE(1, 2, 4, 2, 2, 1), -1, 1), &three)));
}

static void sample_gather(void) {
  for (int axis = 0; axis < 2; axis++)
    CASE("gather", ir_ref i = indices(c, axis ? SHAPE(4, 6) : SHAPE(5, 3), -1, 4); y = ir_ew1(g, IR_sin, ir_gather(g, leaf(c, SHAPE(4, 3), -1, 1), i, axis)));
}
static void sample_gather_one(void) {
  CASE("gather of one", ir_ref i = indices(c, SHAPE(4, 1), -1, 4); y = ir_ew1(g, IR_sin, ir_gather(g, leaf(c, SHAPE(4, 3), -1, 1), i, 1)));
  CASE("gather of one, u8", ir_ref i = ir_cast(g, indices(c, SHAPE(1, 4), 0, 3), TT_U8); y = ir_ew1(g, IR_sin, ir_gather(g, leaf(c, SHAPE(3, 4), -1, 1), i, 0)));
  CASE("gather of one from 1", ir_ref i = indices(c, SHAPE(4, 1), 0, 1); y = ir_ew1(g, IR_sin, ir_gather(g, leaf(c, SHAPE(4, 1), -1, 1), i, 1)));
}
Test(grad, gather_of_one) { sample_gather_one(); }
static void sample_scatter_add(void) {
  for (int axis = 0; axis < 2; axis++)
    CASE("scatter_add", ir_ref i = indices(c, axis ? SHAPE(4, 6) : SHAPE(5, 3), -1, 4); ir_ref x = leaf(c, SHAPE(4, 3), -1, 1); y = ir_ew1(g, IR_sin, ir_scatter_add(g, x, i, leaf(c, ir_shape(g, i), -1, 1), axis)));
}
static void sample_argsort(void) {
  CASE("argsort", ir_ref x = leaf(c, SHAPE(3, 4), -1, 1); y = ir_ew1(g, IR_sin, ir_gather(g, x, ir_argsort(g, x, 1, true), 1)));
}
static void sample_dynamic_slice(void) {
  CASE("dynamic_slice", ir_ref s = indices(c, SHAPE(2), -1, 4); y = ir_ew1(g, IR_sin, ir_dynamic_slice(g, leaf(c, SHAPE(4, 5), -1, 1), s, (int64_t[]){2, 3})));
}
static void sample_dynamic_update_slice(void) {
  CASE("dynamic_update_slice", ir_ref s = indices(c, SHAPE(2), -1, 4); ir_ref x = leaf(c, SHAPE(4, 5), -1, 1); y = ir_ew1(g, IR_sin, ir_dynamic_update_slice(g, x, leaf(c, SHAPE(2, 3), -1, 1), s)));
}

/* h' = tanh(x + h w + b), y = h sin(h'), forwards and backwards; result 0: the last h, 1: the stack, 2: both. */
static ir_ref scanned(ctx *c, int64_t length, bool reversed, int result) {
  ir_graph *f = ir_graph_new("step");
  ir_ref h = ir_param(f, "h", TT_F64, SHAPE(2, 3), false), x = ir_input(f, "x", TT_F64, SHAPE(2, 3)), w = ir_input(f, "w", TT_F64, SHAPE(3, 3)), b = ir_input(f, "b", TT_F64, SHAPE(3));
  ir_ref next = ir_ew1(f, IR_tanh, ir_ew2(f, IR_add, ir_ew2(f, IR_add, x, ir_matmul(f, h, w, false, false, 1)), b));
  ir_assign(f, h, next);
  ir_output_add(f, "y", ir_ew2(f, IR_mul, h, ir_ew1(f, IR_sin, next)));
  int64_t body = ir_function_add(c->g, f);
  ir_ref args[4] = {leaf(c, SHAPE(2, 3), -1, 1), leaf(c, SHAPE(length, 2, 3), -1, 1), leaf(c, SHAPE(3, 3), -1, 1), leaf(c, SHAPE(3), -1, 1)};
  ir_scan_attrs a = {.body = body, .carries = 1, .xs = 1, .length = length, .reversed = reversed, .result = result == 2 ? 0 : result};
  ir_ref y = ir_scan(c->g, args, 4, a);
  if (result < 2) return y;
  a.result = 1;
  return ir_ew2(c->g, IR_mul, y, ir_reduce(c->g, IR_sum, ir_scan(c->g, args, 4, a), (int[]){0}, 1, false));
}
static void sample_scan(void) {
  for (int reversed = 0; reversed < 2; reversed++)
    for (int result = 0; result < 3; result++) CASE("scan", y = scanned(c, 1 + 2 * result, reversed, result));
}

static void sample_softmax(void) {
  for (int axis = 0; axis < 2; axis++) CASE("softmax", y = ir_softmax(g, IR_softmax, leaf(c, SHAPE(3, 4), -2, 2), axis));
}
static void sample_log_softmax(void) {
  for (int axis = 0; axis < 2; axis++) CASE("log_softmax", y = ir_softmax(g, IR_log_softmax, leaf(c, SHAPE(3, 4), -2, 2), axis));
  CASE("log of softmax", y = ir_ew1(g, IR_log, ir_softmax(g, IR_softmax, leaf(c, SHAPE(3, 4), -2, 2), 1)));
}
static void sample_gelu(void) {
  for (int k = 0; k < 2; k++) CASE("gelu", y = ir_gelu(g, leaf(c, SHAPE(2, 5), -3, 3), k));
}
static void sample_silu(void) { CASE("silu", y = ir_silu(g, leaf(c, SHAPE(2, 5), -3, 3))); }
static void sample_layer_norm(void) {
  CASE("layer_norm", ir_ref x = leaf(c, SHAPE(3, 4), -1, 1); ir_ref w = leaf(c, SHAPE(4), 0.5, 1.5); y = ir_layer_norm(g, x, w, leaf(c, SHAPE(4), -1, 1), 1, 1e-5));
  CASE("layer_norm of two axes, of a shared operand", ir_ref x = leaf(c, SHAPE(2, 3, 2), -1, 1); ir_ref w = leaf(c, SHAPE(3, 2), 0.5, 1.5); y = ir_layer_norm(g, ir_ew2(g, IR_mul, x, w), w, ir_ew1(g, IR_exp, w), 2, 1e-5));
}
static const tt_shape batches[] = {{2, {5, 2}}, {3, {2, 2, 3}}, {3, {2, 1, 520}}, {4, {1, 2, 2, 2}}};
static void sample_batch_mean(void) {
  for (int i = 0; i < 4; i++) CASE("batch_mean", y = ir_batch_mean(g, leaf(c, batches[i], -1, 1)));
}
static void sample_batch_var(void) {
  for (int i = 0; i < 4; i++) CASE("batch_var", y = ir_batch_var(g, leaf(c, batches[i], -1, 1)));
}
static void sample_batch_norm(void) {
  for (int i = 0; i < 4; i++)
    CASE("batch_norm", ir_ref x = leaf(c, batches[i], -1, 1); ir_ref w = leaf(c, SHAPE(batches[i].dim[1]), 0.5, 1.5); y = ir_ew1(g, IR_sin, ir_batch_norm(g, x, w, leaf(c, SHAPE(batches[i].dim[1]), -1, 1), 1e-2)));
}
static void sample_dropout(void) {
  for (int k = 0; k < 3; k++)
    CASE("dropout", ir_ref seed = ir_scalar_int(g, TT_U64, 7); y = ir_ew1(g, IR_sin, ir_dropout(g, leaf(c, SHAPE(4, 5), -1, 1), seed, seed, k * 0.4, 3)));
}

static void pool(ir_op op) {
  /* one axis: size of x, window, stride, lo, hi, dilation */
  static const int64_t one[][6] = {{6, 2, 2, 0, 0, 1}, {7, 2, 2, 0, 0, 1}, {7, 3, 2, 1, 1, 1}, {8, 3, 1, 0, 2, 1}, {9, 3, 2, 0, 0, 2}, {5, 2, 2, 1, 0, 1}, {3, 3, 3, 0, 0, 1}};
  for (size_t i = 0; i < sizeof one / sizeof one[0]; i++) {
    const int64_t *o = one[i];
    for (int count_pad = 0; count_pad < (op == IR_avg_pool ? 2 : 1); count_pad++)
      CASE(ir_ops[op].name, ir_ref x = leaf(c, SHAPE(2, 1, o[0]), -1, 1); y = ir_ew1(g, IR_sin, ir_pool(g, op, x, 1, o + 1, o + 2, o + 3, o + 4, o + 5, count_pad)));
  }
  CASE(ir_ops[op].name, ir_ref x = leaf(c, SHAPE(1, 2, 6, 5), -1, 1); y = ir_ew1(g, IR_sin, ir_pool(g, op, x, 2, (int64_t[]){2, 3}, (int64_t[]){2, 1}, (int64_t[]){0, 1}, (int64_t[]){0, 2}, NULL, false)));
  CASE(ir_ops[op].name, ir_ref x = leaf(c, SHAPE(1, 1, 4, 5, 2), -1, 1); y = ir_ew1(g, IR_sin, ir_pool(g, op, x, 3, (int64_t[]){2, 2, 1}, (int64_t[]){2, 2, 1}, (int64_t[]){0, 0, 0}, (int64_t[]){0, 0, 0}, NULL, true)));
}
static void sample_max_pool(void) { pool(IR_max_pool); }
static void sample_avg_pool(void) { pool(IR_avg_pool); }

#define EW(name, ...) Test(grad, name) { sample_elementwise(IR_##name); }
#define OP(name, ...) Test(grad, name) { sample_##name(); }
#define COMPOSITE(name, ...) Test(grad, name) { sample_##name(); }
#include "ir/ops.def"

/* ---- what differences cannot see ---- */

static void gradient_is(ctx *c, ir_ref f, const double *want, int n) {
  ir_ref d[MAX_LEAVES];
  double *got[MAX_LEAVES];
  all_gradients(c, f, d);
  ir_graph *p = program(c, d, c->n);
  run(c, p, got);
  for (int i = 0; i < n; i++) cr_expect_float_eq(got[0][i], want[i], 1e-12, "%s: gradient %d is %g, not %g", c->what, i, got[0][i], want[i]);
  for (int i = 0; i < c->n; i++) free(got[i]);
  ir_graph_free(p), end(c);
}

static ir_ref set(ctx *c, tt_shape s, const double *v) {
  ir_ref r = leaf(c, s, 0, 1);
  memcpy(c->leaves[c->n - 1].data, v, (size_t)c->leaves[c->n - 1].count * sizeof *v);
  return r;
}

Test(grad, equals) {
  ctx c = begin("amax of equals");
  gradient_is(&c, ir_reduce(c.g, IR_amax, set(&c, SHAPE(4), (double[]){1, 3, 3, 2}), NULL, 0, false), (double[]){0, 0.5, 0.5, 0}, 4);
  c = begin("max_pool of equals");
  ir_ref x = set(&c, SHAPE(1, 1, 2, 4), (double[]){5, 5, 1, 1, 5, 0, 1, 1});
  gradient_is(&c, ir_reduce(c.g, IR_sum, ir_pool(c.g, IR_max_pool, x, 2, (int64_t[]){2, 2}, (int64_t[]){2, 2}, (int64_t[]){0, 0}, (int64_t[]){0, 0}, NULL, false), NULL, 0, false),
              (double[]){1, 0, 1, 0, 0, 0, 0, 0}, 8);
  c = begin("max_pool of equals, overlapping");
  x = set(&c, SHAPE(1, 1, 4), (double[]){2, 2, 2, 1});
  gradient_is(&c, ir_reduce(c.g, IR_sum, ir_pool(c.g, IR_max_pool, x, 1, (int64_t[]){2}, (int64_t[]){1}, (int64_t[]){1}, (int64_t[]){0}, NULL, false), NULL, 0, false), (double[]){2, 1, 1, 0}, 4);
  c = begin("relu at 0");
  gradient_is(&c, ir_reduce(c.g, IR_sum, ir_ew1(c.g, IR_relu, set(&c, SHAPE(3), (double[]){-1, 0, 1})), NULL, 0, false), (double[]){0, 0, 1}, 3);
  c = begin("pow of 0");
  gradient_is(&c, ir_reduce(c.g, IR_sum, ir_ew2(c.g, IR_pow, set(&c, SHAPE(2), (double[]){0, 0}), ir_const(c.g, TT_F64, SHAPE(2), (double[]){0, 2})), NULL, 0, false), (double[]){0, 0}, 2);
}

Test(grad, of_a_value_on_the_way) {          /* total: x counts through h as well */
  ctx c = begin("of a value on the way");
  ir_ref x = set(&c, SCALAR, (double[]){3}), h = ir_ew2(c.g, IR_mul, x, x), y = ir_ew2(c.g, IR_mul, h, x), d[2];
  cr_assert(pass_vjp(c.g, y, 0, (ir_ref[]){x, h}, 2, d));
  ir_graph *p = program(&c, d, 2);
  double *got[2];
  run(&c, p, got);
  cr_expect_eq(*got[0], 27);
  cr_expect_eq(*got[1], 3);
  free(got[0]), free(got[1]), ir_graph_free(p), end(&c);
}

Test(grad, mistakes) {
  ctx c = begin("mistakes");
  ir_ref x = leaf(&c, SHAPE(3), 0, 1), d;
  cr_expect(!pass_vjp(c.g, x, 0, &x, 1, &d));
  cr_expect(strstr(c.g->error.message, "f64[3]") && strstr(c.g->error.message, "fix: reduce it"), "%s", c.g->error.message);
  end(&c);
  c = begin("mistakes");
  x = leaf(&c, SHAPE(3), 0, 1);
  ir_output_add(c.g, NULL, x);
  pass_options options = {.train = true, .optimizer = "sgd"};
  tt_error err = {0};
  ir_graph *out;
  cr_expect_eq(pass_run(c.g, &out, NULL, "grad", &options, NULL, NULL, &err), TT_INVALID);
  cr_expect(strstr(err.message, "training needs a loss"), "%s", err.message);
  cr_expect_null(out);
  end(&c);
}

Test(grad, of_every_param_that_is_not_frozen) {
  ctx c = begin("pass_grad");
  ir_graph *g = c.g, *out;
  ir_ref x = ir_input(g, "x", TT_F64, SHAPE(2)), w = ir_param(g, "body.w", TT_F64, SHAPE(2), true), v = ir_param(g, "head.v", TT_F64, SHAPE(2), true);
  ir_ref unseen = ir_param(g, "unseen", TT_F64, SHAPE(2), true), state = ir_param(g, "state", TT_F64, SHAPE(2), false);
  ir_ref y = ir_ew2(g, IR_add, ir_ew2(g, IR_mul, x, w), ir_ew2(g, IR_mul, v, state));
  ir_output_add(g, "loss", ir_reduce(g, IR_sum, y, NULL, 0, false));
  ir_output_add(g, "other", unseen);
  pass_options options = {.train = true, .groups = {{"head.", NULL, NULL}}, .n_groups = 1};
  tt_error err = {0};
  cr_assert_eq(pass_run(g, &out, NULL, "grad", &options, NULL, NULL, &err), TT_OK, "%s", err.message);
  cr_assert_eq(out->n_outputs, 3);
  cr_expect_str_eq(out->outputs[2].name, "grad.body.w");
  ir_graph_free(out);
  options.train = false;
  cr_assert_eq(pass_run(g, &out, NULL, "grad", &options, NULL, NULL, &err), TT_OK, "%s", err.message);
  cr_expect_eq(out->n_outputs, 2);
  ir_graph_free(out), end(&c);
}
