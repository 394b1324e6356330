/* rules_test.c: every rule of rules.def on random tensors of every type that it is for, NaN, infinities and extremes among them: both
 * sides are evaluated, and the rule must be what ir_emit applies. Then the rules of rewrite_computed.c, the same graph built with
 * and without them; and the texts that are no graph. TT_SEED=n takes other numbers. */
#include "passes/passes.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state;
static unsigned long long first_seed(void) { return getenv("TT_SEED") ? strtoull(getenv("TT_SEED"), NULL, 10) : 977; }
static void seed(uint64_t more) { state = first_seed() * 2654435761u + more; }
static uint64_t next(void) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return state >> 24;
}
#define SHAPE(...) (tt_shape){sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), {__VA_ARGS__}}

/* Every third number is a special one, unless they are tame. */
static void fill(tt_dtype t, int64_t n, bool tame, void *data) {
  static const double real[] = {0, -0.0, 1, -1, INFINITY, -INFINITY, NAN, 1e-300, 1e300, 6e4, 0.5, 2};
  static const int64_t whole[] = {0, 1, -1, 2, INT64_MIN, INT64_MAX, INT32_MIN, INT32_MAX, -32768, 32767, -128, 127, 255, 65535};
  for (int64_t i = 0; i < n; i++) {
    bool special = !tame && next() % 3 == 0;
    if (tt_dtype_in(t, TT_REAL)) {
      ir_store_double(t, data, i, special ? real[next() % 12] : (double)(next() % 4000) / 500 - 4);
    } else {
      int64_t v = special ? whole[next() % 14] : (int64_t)(next() % 20) - (tt_dtype_in(t, TT_SINT) ? 10 : 0);
      if (t == TT_BOOL) v &= 1;
      memcpy((char *)data + (size_t)i * tt_dtype_size(t), &v, tt_dtype_size(t));
    }
  }
}

/* ---- two graphs of the same inputs ---- */

enum { MAX_INPUTS = 4, MAX_ELEMENTS = 512 };
typedef struct { char data[MAX_INPUTS][MAX_ELEMENTS * 8]; bool filled[MAX_INPUTS], tame; } inputs;

static ir_ref input(ir_graph *g, inputs *in, int i, tt_dtype t, tt_shape s) {
  char name[4] = {'i', (char)('0' + i)};
  cr_assert(tt_shape_count(&s) <= MAX_ELEMENTS && i < MAX_INPUTS);
  if (!in->filled[i]) fill(t, tt_shape_count(&s), in->tame, in->data[i]), in->filled[i] = true;
  ir_ref r = ir_find(g, name);
  return r ? r : ir_input(g, name, t, s);
}

/* The data of row r of g, whose composites are decomposed without rules. */
static void *evaluate(const char *what, ir_graph *g, ir_ref r, inputs *in) {
  pass_options options = {0};
  tt_error err = {0};
  ir_graph *p = ir_graph_new("p");
  cr_assert_eq(g->error.status, TT_OK, "%s: %s", what, g->error.message);
  g->n_outputs = 0;
  ir_output_add(g, NULL, r);
  cr_assert_eq(pass_decompose(g, p, &options, &err), TT_OK, "%s: %s", what, err.message);
  void **values = calloc(p->n_nodes, sizeof *values);
  for (int i = 0; i < MAX_INPUTS; i++) {
    ir_ref at = ir_find(p, (char[4]){'i', (char)('0' + i)});
    if (at) values[at] = in->data[i];
  }
  cr_assert_eq(ir_eval(p, values, &err), TT_OK, "%s: %s", what, err.message);
  ir_ref out = p->outputs[0].value;
  tt_shape s = ir_shape(p, out);
  size_t bytes = (size_t)tt_shape_count(&s) * tt_dtype_size((tt_dtype)ir_at(p, out)->dtype);
  void *copy = calloc(bytes + 1, 1);
  memcpy(copy, values[out], bytes);
  ir_values_free(p, values), ir_graph_free(p);
  return copy;
}

/* Equal: NaN is NaN, 0 is -0, and reals may differ by `ulps` of their size. */
static void same(const char *what, ir_graph *g, ir_ref a, ir_graph *h, ir_ref b, inputs *in, double ulps) {
  tt_dtype t = (tt_dtype)ir_at(g, a)->dtype;
  tt_shape s = ir_shape(g, a), other = ir_shape(h, b);
  cr_assert(a && b && t == ir_at(h, b)->dtype && tt_shape_equal(&s, &other), "%s: types differ", what);
  void *x = evaluate(what, g, a, in), *y = evaluate(what, h, b, in);
  double eps = t == TT_F64 ? 0x1p-52 : t == TT_F32 ? 0x1p-23 : t == TT_F16 ? 0x1p-10 : 0x1p-7;
  if (tt_dtype_in(t, TT_REAL)) {
    for (int64_t i = 0; i < tt_shape_count(&s); i++) {
      double u = ir_load_double(t, x, i), v = ir_load_double(t, y, i);
      bool ok = u == v || (isnan(u) && isnan(v)) || fabs(u - v) <= ulps * eps * fmax(fabs(u), ulps >= 16 ? 1 : 0);
      cr_expect(ok, "%s, %s, seed %llu: element %lld is %.17g and %.17g", what, tt_dtype_name(t), first_seed(), (long long)i, u, v);
      if (!ok) break;
    }
  } else {
    cr_expect(!memcmp(x, y, (size_t)tt_shape_count(&s) * tt_dtype_size(t)), "%s, %s, seed %llu: the sides differ", what, tt_dtype_name(t), first_seed());
  }
  free(x), free(y);
}

/* ---- rules.def ---- */

typedef struct { const char *pattern, *replacement; int types; } rule;
enum { NUM = TT_NUM, REAL = TT_REAL, SINT = TT_SINT, INT = TT_INT, BITS = TT_BITS, BOOLEAN = TT_BOOLEAN, ANY = TT_ANY };
#define RULE(pattern, replacement, types) {pattern, replacement, types},
static const rule rules[] = {
#include "passes/rules.def"
};
enum { N_RULES = sizeof rules / sizeof rules[0] };

/* The text with "?a", an axis, as 1; and a constant condition as ?t or ?f, because a builder would choose at once. */
static void plain(const char *text, char *to) {
  strcpy(to, text);
  for (char *p; (p = strstr(to, "=?a"));) memmove(p + 1, p + 2, strlen(p + 1)), p[1] = '1';
  if (!strncmp(to, "select(1", 8) || !strncmp(to, "select(0", 8)) {
    bool one = to[7] == '1';
    memmove(to + 9, to + 8, strlen(to + 8) + 1);
    to[7] = '?', to[8] = one ? 't' : 'f';
  }
}

static ir_ref side(ir_graph *g, const char *text, tt_dtype t, tt_shape s, inputs *in) {
  char words[200];
  plain(text, words);
  pass_binding names[] = {{.name = "x"}, {.name = "y"}, {.name = "z"}, {.name = "c"}, {.name = "t", .value = ir_full(g, TT_BOOL, s, 1)}, {.name = "f", .value = ir_full(g, TT_BOOL, s, 0)}};
  for (int i = 0; i < 4; i++) names[i].value = input(g, in, i, i == 3 ? TT_BOOL : t, s);
  return pass_build_text(g, words, names, 6);
}

static void check(const rule *r, tt_dtype t, tt_shape s) {
  inputs in = {.tame = strstr(r->pattern, "softmax")};
  ir_graph *left = ir_graph_new("left"), *right = ir_graph_new("right"), *both = ir_graph_new("both");
  both->rules = rewrite_rules;
  ir_ref a = side(left, r->pattern, t, s, &in), b = side(right, r->replacement, t, s, &in);
  if (ir_at(right, b)->op == IR_const) b = ir_full(right, (tt_dtype)ir_at(left, a)->dtype, s, ir_load_double(TT_F64, right->blobs[ir_int(ir_at(right, b), "value")].data, 0));
  bool rounds = strstr(r->pattern, "pow") || strstr(r->pattern, "sqrt");
  same(r->pattern, left, a, right, b, &in, in.tame ? 16 : rounds ? 2 : 0);
  ir_ref made = side(both, r->pattern, t, s, &in), wanted = side(both, r->replacement, t, s, &in);
  cr_assert_eq(both->error.status, TT_OK, "%s: %s", r->pattern, both->error.message);
  if (ir_at(both, wanted)->op == IR_const && ir_at(both, wanted)->dtype == TT_F64 && !strchr(r->replacement, '?'))
    wanted = ir_full(both, (tt_dtype)ir_at(both, made)->dtype, s, ir_load_double(TT_F64, both->blobs[ir_int(ir_at(both, wanted), "value")].data, 0));
  cr_expect_eq(made, wanted, "%s of %s does not become %s, but a row %s", r->pattern, tt_dtype_name(t), r->replacement, ir_ops[ir_at(both, made)->op].name);
  ir_graph_free(left), ir_graph_free(right), ir_graph_free(both);
}

Test(rules, both_sides_of_each) {
  for (int i = 0; i < N_RULES; i++) {
    bool chooses = !strncmp(rules[i].pattern, "select", 6);
    for (int t = 0; t < TT_N_DTYPES; t++) {
      if (!tt_dtype_in((tt_dtype)t, chooses ? TT_ANY : rules[i].types)) continue;
      seed((uint64_t)i * 100 + (uint64_t)t);
      check(&rules[i], (tt_dtype)t, SHAPE(6, 13));
      check(&rules[i], (tt_dtype)t, strstr(rules[i].pattern, "axis") ? SHAPE(1, 1) : (tt_shape){0});
    }
  }
}

Test(rules, of_no_other_type) {
  ir_graph *g = ir_graph_new("g");
  g->rules = rewrite_rules;
  ir_ref x = ir_input(g, "x", TT_F32, SHAPE(3)), zero = ir_full(g, TT_F32, SHAPE(3), 0), i = ir_input(g, "i", TT_I32, SHAPE(3));
  cr_expect_eq(ir_at(g, ir_ew2(g, IR_mul, x, zero))->op, IR_mul, "NaN * 0 is NaN");
  cr_expect_eq(ir_at(g, ir_ew2(g, IR_sub, x, x))->op, IR_sub, "inf - inf is NaN");
  cr_expect_eq(ir_at(g, ir_ew2(g, IR_eq, x, x))->op, IR_eq, "NaN is not NaN");
  cr_expect_eq(ir_at(g, ir_ew2(g, IR_and, i, ir_full(g, TT_I32, SHAPE(3), 1)))->op, IR_and, "and with 1 keeps a bit");
  cr_expect_eq(ir_ew2(g, IR_mul, ir_full(g, TT_F32, SHAPE(3), 1), x), x, "in both orders");
  cr_expect_eq(ir_ew2(g, IR_add, ir_ew1(g, IR_neg, x), zero), ir_ew1(g, IR_neg, x));
  cr_expect_eq(ir_ew2(g, IR_add, ir_ew1(g, IR_neg, i), i), ir_full(g, TT_I32, SHAPE(3), 0), "i - i, by two rules");
  ir_graph_free(g);
}

/* ---- rules that compute ---- */

/* The same value built plainly and with rules: equal, and of `rows` rows with rules (inputs and numbers do not count). */
#define CASE(detail, rows, ulps, ...) do { \
    inputs data = {0}, *in = &data; ir_graph *graphs[2]; ir_ref ys[2]; seed(__LINE__); \
    for (int k = 0; k < 2; k++) { ir_graph *g = graphs[k] = ir_graph_new("g"); g->rules = k ? rewrite_rules : NULL; ir_ref y = 0; __VA_ARGS__; ys[k] = y; } \
    same(detail, graphs[0], ys[0], graphs[1], ys[1], in, ulps); \
    int made = rows_of(graphs[1], ys[1]); \
    cr_expect_eq(made, rows, "%s: %d rows with rules, not %d", detail, made, rows); \
    ir_graph_free(graphs[0]), ir_graph_free(graphs[1]); } while (0)

static int rows_of(ir_graph *g, ir_ref y) {
  g->n_outputs = 0;
  ir_output_add(g, NULL, y);
  bool *live = ir_live(g);
  int n = 0;
  for (ir_ref r = 1; r < g->n_nodes; r++) n += live[r] && ir_at(g, r)->op != IR_input && ir_at(g, r)->op != IR_const;
  free(live);
  return n;
}

#define X(...) input(g, in, 0, TT_F32, SHAPE(__VA_ARGS__))
#define L(...) ((int64_t[]){__VA_ARGS__})
#define A(...) ((int[]){__VA_ARGS__})

Test(rules, movement) {
  CASE("reshape, reshape", 1, 0, y = ir_reshape(g, ir_reshape(g, X(4, 6), SHAPE(2, 12)), SHAPE(3, 8)));
  CASE("reshape there and back", 0, 0, y = ir_reshape(g, ir_reshape(g, X(4, 6), SHAPE(24)), SHAPE(4, 6)));
  CASE("permute, permute", 1, 0, y = ir_permute(g, ir_permute(g, X(2, 3, 4), A(1, 2, 0)), A(2, 1, 0)));
  CASE("permute there and back", 0, 0, y = ir_permute(g, ir_permute(g, X(2, 3, 4), A(1, 2, 0)), A(2, 0, 1)));
  CASE("broadcast, broadcast", 1, 0, y = ir_broadcast(g, ir_broadcast(g, X(3), SHAPE(2, 3), A(1)), SHAPE(2, 5, 3), A(0, 2)));
  CASE("slice, slice", 1, 0, y = ir_slice(g, ir_slice(g, X(9, 7), L(1, 0), L(9, 7), L(2, 1)), L(1, 2), L(4, 6), L(2, 3)));
  CASE("slice to nothing", 1, 0, y = ir_slice(g, ir_slice(g, X(9), L(8), L(9), L(1)), L(1), L(1), L(3)));
  CASE("slice of all with a step", 0, 0, y = ir_slice(g, X(1, 3), L(0, 0), L(1, 3), L(2, 1)));
  CASE("pad by nothing", 0, 0, y = ir_pad(g, X(3, 1), ir_scalar(g, TT_F32, 1), L(0, 0), L(0, 0), L(0, 4)));
  CASE("pad, pad", 1, 0, ir_ref v = ir_scalar(g, TT_F32, 2); y = ir_pad(g, ir_pad(g, X(3, 2), v, L(1, 0), L(0, 2), L(1, 2)), v, L(2, 1), L(0, 1), NULL));
  CASE("pad, pad with another", 2, 0, y = ir_pad(g, ir_pad(g, X(3), ir_scalar(g, TT_F32, 2), L(1), L(0), NULL), ir_scalar(g, TT_F32, 3), L(2), L(1), NULL));
  CASE("reverse, reverse", 1, 0, y = ir_reverse(g, ir_reverse(g, X(2, 3, 4), A(0, 1), 2), A(1, 2), 2));
  CASE("reverse there and back", 0, 0, y = ir_reverse(g, ir_reverse(g, X(2, 3), A(0, 1), 2), A(0, 1), 2));
  CASE("reverse of 1", 0, 0, y = ir_reverse(g, X(1, 3), A(0), 1));
  CASE("concat of one", 0, 0, y = ir_concat(g, (ir_ref[]){X(2, 3)}, 1, 0));
}

Test(rules, movement_of_one_number) {
#define FULL ir_full(g, TT_F32, SHAPE(4, 6), 7)
  CASE("reshape", 1, 0, y = ir_reshape(g, FULL, SHAPE(24)));
  CASE("permute", 1, 0, y = ir_permute(g, FULL, A(1, 0)));
  CASE("slice", 1, 0, y = ir_slice(g, FULL, L(1, 0), L(3, 6), L(1, 2)));
  CASE("pad with the same", 1, 0, y = ir_pad(g, FULL, ir_scalar(g, TT_F32, 7), L(1, 0), L(3, 6), L(1, 2)));
  CASE("pad with another", 2, 0, y = ir_pad(g, FULL, ir_scalar(g, TT_F32, 8), L(1, 0), L(3, 6), L(1, 2)));
  CASE("concat", 1, 0, y = ir_concat(g, (ir_ref[]){FULL, FULL}, 2, 1));
  CASE("unfold", 1, 0, y = ir_unfold(g, FULL, 1, 2, 1, 1));
  CASE("fold adds", 2, 0, y = ir_fold(g, FULL, 0, 9, 1, 1));
  CASE("a scalar that is no constant", 2, 0, ir_ref s = ir_reduce(g, IR_sum, X(3), NULL, 0, false); y = ir_permute(g, ir_broadcast(g, s, SHAPE(2, 3), NULL), A(1, 0)));
  CASE("a constant of equals", 0, 0, y = ir_permute(g, ir_const(g, TT_I64, SHAPE(1, 2), L(1L << 60, 1L << 60)), A(1, 0)));
  CASE("nothing stays nothing", 1, 0, y = ir_slice(g, FULL, L(1, 0), L(1, 6), L(1, 1)));
}

Test(rules, elementwise_of_broadcasts) {
  CASE("two alike", 2, 0, ir_ref b = input(g, in, 1, TT_F32, SHAPE(3)); y = ir_ew2(g, IR_mul, ir_broadcast(g, X(3), SHAPE(3, 4), A(0)), ir_broadcast(g, b, SHAPE(3, 4), A(0))));
  CASE("not alike", 3, 0, ir_ref b = input(g, in, 1, TT_F32, SHAPE(3)); y = ir_ew2(g, IR_mul, ir_broadcast(g, X(3), SHAPE(3, 3), A(0)), ir_broadcast(g, b, SHAPE(3, 3), A(1))));
  CASE("with a number", 3, 0, ir_ref b = ir_broadcast(g, X(3), SHAPE(2, 3), A(1)); y = ir_ew2(g, IR_add, b, ir_full(g, TT_F32, SHAPE(2, 3), 2)));
  CASE("numbers", 1, 0, y = ir_ew2(g, IR_add, ir_full(g, TT_F32, SHAPE(2, 3), 2), ir_full(g, TT_F32, SHAPE(2, 3), 3)));
  CASE("cast", 2, 0, y = ir_cast(g, ir_broadcast(g, X(3), SHAPE(2, 3), A(1)), TT_F64));
  CASE("select", 4, 0, ir_ref b = ir_broadcast(g, X(3), SHAPE(2, 3), A(1)); y = ir_select(g, ir_ew2(g, IR_lt, b, ir_full(g, TT_F32, SHAPE(2, 3), 2)), b, ir_full(g, TT_F32, SHAPE(2, 3), 2)));
}

Test(rules, casts) {
  for (int from = 0; from < TT_N_DTYPES; from++)
    for (int mid = 0; mid < TT_N_DTYPES; mid++)
      for (int to = 0; to < TT_N_DTYPES; to++) {
        char what[60];
        snprintf(what, sizeof what, "%s to %s to %s", tt_dtype_name((tt_dtype)from), tt_dtype_name((tt_dtype)mid), tt_dtype_name((tt_dtype)to));
        inputs in = {0};
        seed((uint64_t)(from * 400 + mid * 20 + to));
        ir_graph *g[2];
        ir_ref y[2];
        for (int k = 0; k < 2; k++) {
          g[k] = ir_graph_new("g");
          g[k]->rules = k ? rewrite_rules : NULL;
          y[k] = ir_cast(g[k], ir_cast(g[k], input(g[k], &in, 0, (tt_dtype)from, SHAPE(60)), (tt_dtype)mid), (tt_dtype)to);
        }
        same(what, g[0], y[0], g[1], y[1], &in, 0);
        if ((from == TT_F32 && mid == TT_F64) || (from == TT_I8 && mid == TT_I32) || from == TT_BOOL) cr_expect_leq(rows_of(g[1], y[1]), 1, "%s: two casts", what);
        ir_graph_free(g[0]), ir_graph_free(g[1]);
      }
}

Test(rules, sums) {
#define TAME in->tame = true
  CASE("sum of sum", 1, 64, TAME; y = ir_reduce(g, IR_sum, ir_reduce(g, IR_sum, X(2, 3, 4, 5), A(1, 3), 2, false), A(1), 1, false));
  CASE("amax of amax", 1, 0, y = ir_reduce(g, IR_amax, ir_reduce(g, IR_amax, X(2, 3, 4), A(0), 1, false), A(1), 1, false));
  CASE("amin of amax", 2, 0, y = ir_reduce(g, IR_amin, ir_reduce(g, IR_amax, X(2, 3, 4), A(0), 1, false), A(1), 1, false));
  CASE("sum of a broadcast", 2, 64, TAME; y = ir_reduce(g, IR_sum, ir_broadcast(g, X(3), SHAPE(5, 3, 2), A(1)), A(0, 2), 2, false));
  CASE("sum of a broadcast, kept and not", 4, 64, TAME; y = ir_reduce(g, IR_sum, ir_broadcast(g, X(3, 2), SHAPE(5, 3, 4, 2), A(1, 3)), A(1, 2), 2, false));
  CASE("sum of a broadcast, all", 2, 64, TAME; y = ir_reduce(g, IR_sum, ir_broadcast(g, X(3), SHAPE(5, 3), A(1)), NULL, 0, false));
  CASE("amax of a broadcast", 0, 0, y = ir_reduce(g, IR_amax, ir_broadcast(g, X(3), SHAPE(5, 3), A(1)), A(0), 1, false));
  CASE("sum of a broadcast of i8", 2, 0, y = ir_reduce(g, IR_sum, ir_broadcast(g, input(g, in, 0, TT_I8, SHAPE(3)), SHAPE(300, 3), A(1)), A(0), 1, false));
  CASE("too many for f16", 2, 0, y = ir_reduce(g, IR_sum, ir_broadcast(g, input(g, in, 0, TT_F16, SHAPE(2)), SHAPE(2049, 2), A(1)), A(0), 1, false));
#define HOT(...) ir_ref label = input(g, in, 1, TT_I32, SHAPE(__VA_ARGS__)), c = ir_iota(g, TT_I32, SHAPE(4, 7, 3), 1); tt_shape s = SHAPE(4, 7, 3); (void)s; \
                 ir_ref hot = ir_ew2(g, IR_eq, ir_expand_dims(g, label, 1), c)
  CASE("sum of one entry", 3, 0, HOT(4, 3); ir_ref x = X(4, 7, 3); y = ir_reduce(g, IR_sum, ir_select(g, hot, x, ir_like(g, x, 0)), A(1), 1, false));
  CASE("sum of one entry and more", 4, 64, TAME; HOT(4, 3); ir_ref x = X(4, 7, 3); y = ir_reduce(g, IR_sum, ir_select(g, hot, x, ir_like(g, x, 0)), A(0, 1), 2, false));
  CASE("sum of one entry of equals", 10, 0, HOT(4, 3); ir_ref x = ir_broadcast(g, X(4, 3), s, A(0, 2)); y = ir_reduce(g, IR_sum, ir_select(g, hot, x, ir_like(g, x, 0)), A(1), 1, false));
  CASE("sum along another axis", 7, 64, TAME; HOT(4, 3); ir_ref x = X(4, 7, 3); y = ir_reduce(g, IR_sum, ir_select(g, hot, x, ir_like(g, x, 0)), A(2), 1, false));
  CASE("sum over no elements", 2, 0, y = ir_reduce(g, IR_sum, ir_broadcast(g, X(3), SHAPE(0, 3), A(1)), A(0), 1, false));
}

Test(rules, products) {
  CASE("division by a power of two", 2, 0, y = ir_ew2(g, IR_div, X(40), ir_full(g, TT_F32, SHAPE(40), -8)); cr_expect(!g->rules || ir_at(g, y)->op == IR_mul));
  CASE("division by another number", 2, 0, y = ir_ew2(g, IR_div, X(40), ir_full(g, TT_F32, SHAPE(40), 3)); cr_expect_eq(ir_at(g, y)->op, IR_div));
  CASE("division of integers", 2, 0, y = ir_ew2(g, IR_div, input(g, in, 0, TT_I32, SHAPE(40)), ir_full(g, TT_I32, SHAPE(40), 8)); cr_expect_eq(ir_at(g, y)->op, IR_div));
  CASE("matmul of swapped", 1, 0, TAME; ir_ref b = input(g, in, 1, TT_F32, SHAPE(5, 4)); y = ir_matmul(g, ir_permute(g, X(4, 3), A(1, 0)), ir_permute(g, b, A(1, 0)), false, false, 1));
  CASE("matmul, batch swapped", 3, 0, TAME; ir_ref b = input(g, in, 1, TT_F32, SHAPE(2, 4, 5)); y = ir_matmul(g, ir_permute(g, X(3, 2, 4), A(1, 0, 2)), ir_reverse(g, b, A(0), 1), false, false, 1));
}

/* ---- texts ---- */

Test(texts, choose_numbers_and_say_what_is_wrong) {
  ir_graph *g = ir_graph_new("g");
  ir_ref x = ir_input(g, "x", TT_F32, SHAPE(3)), lr = ir_input(g, "lr", TT_F64, (tt_shape){0});
  pass_binding names[] = {{.name = "x", .value = x}, {.name = "lr", .value = lr}, {.name = "on", .is_number = true, .number = 1}, {.name = "off", .is_number = true}};
  cr_expect_eq(pass_build_text(g, "on ? x : nonsense", names, 4), x, "the other branch is not looked at");
  cr_expect_eq(pass_build_text(g, "off ? mul(q, 3) : on ? x : lr", names, 4), x);
  ir_ref y = pass_build_text(g, " mul( mul(lr, sub(1, on)), x ) ", names, 4);
  cr_expect(y && ir_at(g, y)->dtype == TT_F32 && ir_at(g, y)->rank == 1, "f64 scalars take the tensor's type");
  ir_graph_free(g);
  const char *wrong[] = {"", "x)", "mul(x", "mul(x)", "mull(x, x)", "y", "x ? x : x", "on ? x", "mul(x,, x)", "softmax(x)"};
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
    g = ir_graph_new("g");
    names[0].value = ir_input(g, "x", TT_F32, SHAPE(3)), names[1].value = names[0].value;
    cr_expect_eq(pass_build_text(g, wrong[i], names, 4), 0, "%s", wrong[i]);
    cr_expect(g->error.status != TT_OK, "%s", wrong[i]);
    ir_graph_free(g);
  }
  double v;
  cr_expect(pass_read_number("-1.25e-3", &v) && v == -1.25e-3);
  cr_expect(pass_read_number("1.1283791670955126", &v) && v == 1.1283791670955126);
  cr_expect(pass_read_number(".5", &v) && v == 0.5);
  cr_expect(!pass_read_number("1x", &v) && !pass_read_number("x", &v) && !pass_read_number("", &v) && !pass_read_number("-", &v) && !pass_read_number(".", &v));
}
