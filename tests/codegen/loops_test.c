/* The loop language: index arithmetic against plain C on random expressions, the forms that it must come to, unrolling, the printer,
 * the check and the evaluator's own checks. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/loops.h"

/* ---- random index expressions ---- */

enum { N_VARS = 4, OUT = 4096 };
static const int64_t extents[N_VARS] = {6, 4, 5, 3};

typedef struct { uint64_t s; } rng;
static uint64_t next(rng *r) {
  r->s += 0x9e3779b97f4a7c15u;
  uint64_t z = (r->s ^ r->s >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}
static int64_t below(rng *r, int64_t n) { return (int64_t)(next(r) % (uint64_t)n); }

typedef struct node { int op; int64_t c; struct node *a, *b; } node;
enum { VAR, CONST, ADD, SUB, MUL, DIV, MOD, MIN, MAX, LESS };

static node *random_node(rng *r, int depth) {
  node *n = calloc(1, sizeof *n);
  n->op = depth == 0 ? (int)below(r, 2) : 2 + (int)below(r, 8);
  if (depth && below(r, 3) == 0) n->op = below(r, 2) ? ADD : DIV + (int)below(r, 2);
  n->c = n->op == VAR ? below(r, N_VARS) : n->op == DIV || n->op == MOD ? 1 + below(r, 12) : n->op == MUL ? below(r, 13) - 2 : below(r, 21) - 4;
  if (n->op >= ADD) n->a = random_node(r, depth - 1);
  if (n->op == ADD || n->op == SUB || n->op >= MIN) n->b = random_node(r, depth - (depth > 1 ? 1 + (int)below(r, 2) : 1));
  return n;
}

static void free_node(node *n) {
  if (!n) return;
  free_node(n->a);
  free_node(n->b);
  free(n);
}

static int64_t value_of(const node *n, const int64_t *v) {
  int64_t a = n->a ? value_of(n->a, v) : 0, b = n->b ? value_of(n->b, v) : 0;
  switch (n->op) {
  case VAR: return v[n->c];
  case CONST: return n->c;
  case ADD: return a + b;
  case SUB: return a - b;
  case MUL: return a * n->c;
  case DIV: return a / n->c;
  case MOD: return a % n->c;
  case MIN: return a < b ? a : b;
  case MAX: return a > b ? a : b;
  default: return a < b;
  }
}

static lp_ref build(lp_kernel *k, const node *n, const int *vars) {
  lp_ref a = n->a ? build(k, n->a, vars) : 0, b = n->b ? build(k, n->b, vars) : 0;
  switch (n->op) {
  case VAR: return lp_var(k, vars[n->c]);
  case CONST: return lp_int(k, n->c);
  case ADD: return lp_add(k, a, b);
  case SUB: return lp_op(k, IR_sub, TT_I64, a, b, 0);
  case MUL: return lp_mul(k, a, n->c);
  case DIV: return lp_div(k, a, n->c);
  case MOD: return lp_mod(k, a, n->c);
  case MIN: return lp_op(k, IR_min, TT_I64, a, b, 0);
  case MAX: return lp_op(k, IR_max, TT_I64, a, b, 0);
  default: return lp_op(k, IR_select, TT_I64, lp_op(k, IR_lt, TT_BOOL, a, b, 0), lp_int(k, 1), lp_int(k, 0));
  }
}

/* for all vars: store out[number] = e */
static void tabulate(lp_kernel *k, lp_ref e, const int *vars, bool unroll, int64_t *out) {
  int b = lp_buffer_add(k, "out", TT_I64, OUT, true, false);
  lp_cursor at = {&k->body};
  lp_ref number = lp_int(k, 0);
  for (int i = 0; i < N_VARS; i++) {
    lp_for(k, &at, vars[i], 0, extents[i], 0, &at);
    if (unroll) {                       /* the first statement that is not closed yet is this loop */
      lp_stmt *s = k->body;
      while (s->body) s = s->body;
      s->unroll = i % 2 == 0;
    }
    number = lp_add(k, lp_mul(k, number, extents[i]), lp_var(k, vars[i]));
  }
  lp_stmt *s = lp_append(k, &at, LS_STORE);
  s->buffer = b, s->index = number, s->value = e;
  if (unroll) lp_unroll(k);
  tt_error err = {0};
  void *buffers[1] = {out};
  cr_assert_eq(lp_eval(k, buffers, 0, 1, &err), TT_OK, "%s", err.message);
}

Test(loops, index_arithmetic_is_exact) {
  static int64_t out[OUT];
  for (uint64_t seed = 1; seed <= 1500; seed++) {
    rng r = {seed};
    node *n = random_node(&r, 1 + (int)below(&r, 5));
    lp_kernel *k = lp_new("index", 1);
    int vars[N_VARS];
    for (int i = 0; i < N_VARS; i++) vars[i] = lp_var_add(k, "i", extents[i]);
    lp_ref e = build(k, n, vars);
    int64_t lo, hi, v[N_VARS], at = 0;
    lp_range(k, e, &lo, &hi);
    tabulate(k, e, vars, seed % 16 == 0, out);
    for (v[0] = 0; v[0] < extents[0]; v[0]++)
      for (v[1] = 0; v[1] < extents[1]; v[1]++)
        for (v[2] = 0; v[2] < extents[2]; v[2]++)
          for (v[3] = 0; v[3] < extents[3]; v[3]++, at++) {
            int64_t want = value_of(n, v);
            cr_assert(out[at] == want && want >= lo && want <= hi, "seed %llu at %lld %lld %lld %lld: %lld, expected %lld in %lld..%lld", (unsigned long long)seed, (long long)v[0],
                      (long long)v[1], (long long)v[2], (long long)v[3], (long long)out[at], (long long)want, (long long)lo, (long long)hi);
          }
    free_node(n);
    lp_free(k);
  }
}

/* What expression e prints as, in a store of its own. */
static void shows(lp_kernel *k, lp_ref e, const char *text) {
  static int b;
  if (!k->n_buffers) b = lp_buffer_add(k, "out", TT_I64, 1 << 20, true, false);
  lp_cursor at = {&k->body};
  k->body = NULL;
  lp_stmt *s = lp_append(k, &at, LS_STORE);
  s->buffer = b, s->index = lp_int(k, 0), s->value = e;
  char *all = lp_print(k), *from = all ? strstr(all, "] = ") : NULL;
  cr_assert(from, "%s", all);
  from += 4;
  from[strcspn(from, "\n")] = 0;
  cr_expect_str_eq(from, text);
  free(all);
}

Test(loops, forms) {
  lp_kernel *k = lp_new("forms", 7);
  lp_ref i = lp_var(k, lp_var_add(k, "i", 10)), j = lp_var(k, lp_var_add(k, "j", 4)), x = lp_var(k, lp_var_add(k, "x", 1000)), task = lp_var(k, 0);
  lp_ref ij = lp_add(k, lp_mul(k, i, 4), j);
  shows(k, lp_div(k, ij, 4), "i1");
  shows(k, lp_mod(k, ij, 4), "i2");
  shows(k, lp_add(k, lp_mul(k, lp_div(k, x, 4), 4), lp_mod(k, x, 4)), "i3");
  shows(k, lp_div(k, lp_div(k, x, 2), 3), "i3/6");
  shows(k, lp_mod(k, lp_mod(k, x, 12), 4), "i3%4");
  shows(k, lp_div(k, lp_mod(k, x, 12), 4), "(i3/4)%3");
  shows(k, lp_mod(k, x, 1000), "i3");
  shows(k, lp_mod(k, lp_add(k, lp_mul(k, i, 8), lp_mul(k, j, 2)), 8), "i2*2");
  shows(k, lp_div(k, lp_add(k, lp_mul(k, x, 6), lp_int(k, 3)), 4), "(i3*3 + 1)/2");
  shows(k, lp_add(k, ij, lp_mul(k, lp_add(k, task, lp_int(k, 1)), 40)), "task*40 + i1*4 + i2 + 40");
  shows(k, lp_op(k, IR_sub, TT_I64, ij, ij, 0), "0");
  shows(k, lp_op(k, IR_max, TT_I64, lp_int(k, 0), ij, 0), "i1*4 + i2");
  /* three digits of a number come back to it */
  lp_ref hi = lp_div(k, x, 20), mid = lp_mod(k, lp_div(k, x, 4), 5), lo = lp_mod(k, x, 4);
  shows(k, lp_add(k, lp_add(k, lp_mul(k, hi, 20), lp_mul(k, mid, 4)), lo), "i3");
  /* and so do those of a number whose remainder is written of another one, (i + x*16)%5 */
  lp_ref wide = lp_add(k, lp_mul(k, lp_mod(k, x, 25), 16), i);
  cr_expect_eq(lp_add(k, lp_mul(k, lp_div(k, wide, 5), 5), lp_mod(k, wide, 5)), wide);
  int64_t c;
  cr_expect(lp_affine(k, ij, 1, &c) && c == 4);
  cr_expect(lp_affine(k, ij, 3, &c) && c == 0);
  cr_expect(!lp_affine(k, lp_div(k, x, 3), 3, &c));
  cr_expect(lp_is_int(k, lp_subst(k, lp_subst(k, ij, 1, lp_int(k, 3)), 2, lp_int(k, 2)), &c) && c == 14);
  /* comparisons by ranges: the guard of a padding that is never left */
  lp_ref inside = lp_op(k, IR_lt, TT_BOOL, ij, lp_int(k, 40), 0), outside = lp_op(k, IR_lt, TT_BOOL, ij, lp_int(k, 0), 0);
  cr_expect(k->exprs[inside].kind == LX_CONST && k->exprs[inside].imm == 1);
  cr_expect(k->exprs[outside].kind == LX_CONST && k->exprs[outside].imm == 0);
  cr_expect(k->exprs[lp_op(k, IR_lt, TT_BOOL, ij, lp_int(k, 39), 0)].kind == LX_OP);
  lp_free(k);
}

Test(loops, many_variables) {
  lp_kernel *k = lp_new("many", 1);
  int vars[100];
  for (int i = 0; i < 100; i++) vars[i] = lp_var_add(k, "i", 3);
  lp_ref e = lp_add(k, lp_var(k, vars[98]), lp_mul(k, lp_var(k, vars[70]), 5));
  cr_expect(lp_depends(k, e, vars[98]) && lp_depends(k, e, vars[70]) && !lp_depends(k, e, vars[99]) && !lp_depends(k, e, vars[3]));
  int64_t c;
  cr_expect(lp_affine(k, e, vars[70], &c) && c == 5);
  lp_free(k);
}

Test(loops, loads_of_written_buffers_stay_apart) {
  lp_kernel *k = lp_new("loads", 1);
  int a = lp_buffer_add(k, "a", TT_F32, 4, false, false), b = lp_buffer_add(k, "b", TT_F32, 4, true, false);
  lp_ref zero = lp_int(k, 0);
  cr_expect_eq(lp_load(k, a, zero, 0, 0), lp_load(k, a, zero, 0, 0));
  cr_expect_neq(lp_load(k, b, zero, 0, 0), lp_load(k, b, zero, 0, 0));
  lp_free(k);
}

/* out[i] = sum over j of a[i*4 + j] * 2, with a local array of sums */
static lp_kernel *sums(bool unroll, const char *name) {
  lp_kernel *k = lp_new(name, 3);
  int a = lp_buffer_add(k, "a", TT_F32, 3 * 2 * 4, false, false), out = lp_buffer_add(k, "out", TT_F32, 6, true, false);
  int acc = lp_local_add(k, "acc", TT_F32, 2), i = lp_var_add(k, "i", 2), j = lp_var_add(k, "j", 4);
  lp_cursor at = {&k->body}, in, in2;
  lp_stmt *s = lp_append(k, &at, LS_LOCAL);
  s->local = acc, s->value = lp_const(k, TT_F32, 0);
  lp_stmt *loop = lp_for(k, &at, i, 0, 2, 0, &in);
  loop->unroll = unroll;
  lp_for(k, &in, j, 0, 4, 4, &in2);
  lp_ref from = lp_add(k, lp_add(k, lp_mul(k, lp_var(k, 0), 8), lp_mul(k, lp_var(k, i), 4)), lp_var(k, j));
  int t = lp_local_add(k, "t", TT_F32, 1);
  s = lp_append(k, &in2, LS_LOCAL);
  s->local = t, s->value = lp_op(k, IR_mul, TT_F32, lp_load(k, a, from, 0, 0), lp_const(k, TT_F32, 2), 0);
  s = lp_append(k, &in2, LS_REDUCE);
  s->local = acc, s->index = lp_var(k, i), s->op = IR_add, s->value = lp_get(k, t, 0);
  s = lp_append(k, &in, LS_STORE);
  s->buffer = out, s->index = lp_add(k, lp_mul(k, lp_var(k, 0), 2), lp_var(k, i)), s->value = lp_get(k, acc, lp_var(k, i));
  if (unroll) lp_unroll(k);
  return k;
}

Test(loops, unroll_and_print) {
  for (int unroll = 0; unroll < 2; unroll++) {
    lp_kernel *k = sums(unroll, "sums");
    float a[24], out[6] = {0};
    for (int i = 0; i < 24; i++) a[i] = (float)i;
    void *buffers[2] = {a, out};
    tt_error err = {0};
    cr_assert_eq(lp_eval(k, buffers, 0, 3, &err), TT_OK, "%s", err.message);
    for (int i = 0; i < 6; i++) cr_expect_eq(out[i], (float)(2 * (16 * i + 6)));
    char *text = lp_print(k);
    static const char *const want[2] = {
      "kernel sums(b0: f32[24], out b1: f32[6]) tasks=3 {\n"
      "  local l0: f32[2] = 0:f32\n"
      "  for i1 in 0..2 {\n"
      "    for i2 in 0..4 vec 4 {\n"
      "      local l1: f32 = mul(load b0[task*8 + i1*4 + i2], 2:f32)\n"
      "      reduce l0[i1] add= l1\n"
      "    }\n"
      "    store b1[task*2 + i1] = l0[i1]\n"
      "  }\n"
      "}\n",
      "kernel sums(b0: f32[24], out b1: f32[6]) tasks=3 {\n"
      "  local l0: f32[2] = 0:f32\n"
      "  for i2 in 0..4 vec 4 {\n"
      "    local l2: f32 = mul(load b0[task*8 + i2], 2:f32)\n"
      "    reduce l0[0] add= l2\n"
      "  }\n"
      "  store b1[task*2] = l0[0]\n"
      "  for i2 in 0..4 vec 4 {\n"
      "    local l3: f32 = mul(load b0[task*8 + i2 + 4], 2:f32)\n"
      "    reduce l0[1] add= l3\n"
      "  }\n"
      "  store b1[task*2 + 1] = l0[1]\n"
      "}\n",
    };
    cr_expect_str_eq(text, want[unroll]);
    free(text);
    lp_free(k);
  }
  lp_kernel *x = sums(true, "x"), *y = sums(true, "y");        /* equal up to the name */
  char *a = lp_print(x), *b = lp_print(y);
  cr_expect_str_eq(strchr(a, '('), strchr(b, '('));
  free(a), free(b);
  lp_free(x), lp_free(y);
}

Test(loops, evaluator_checks_bounds) {
  lp_kernel *k = lp_new("bounds", 2);
  int a = lp_buffer_add(k, "a", TT_I32, 4, false, false), out = lp_buffer_add(k, "out", TT_I32, 2, true, false);
  lp_cursor at = {&k->body};
  lp_stmt *s = lp_append(k, &at, LS_STORE);
  s->buffer = out, s->index = lp_var(k, 0);
  s->value = lp_load(k, a, lp_mul(k, lp_var(k, 0), 4), 0, 0);
  int32_t x[4] = {7, 8, 9, 10}, y[2] = {0};
  void *buffers[2] = {x, y};
  tt_error err = {0};
  cr_expect_eq(lp_eval(k, buffers, 0, 2, &err), TT_INTERNAL);
  cr_expect(strstr(err.message, "load outside of its buffer"), "%s", err.message);
  cr_expect_eq(y[0], 7);
  s->value = lp_load(k, a, lp_mul(k, lp_var(k, 0), 4), lp_op(k, IR_lt, TT_BOOL, lp_var(k, 0), lp_int(k, 1), 0), lp_const(k, TT_I32, -3));
  err = (tt_error){0};
  cr_expect_eq(lp_eval(k, buffers, 0, 2, &err), TT_OK, "%s", err.message);
  cr_expect_eq(y[1], -3);
  lp_free(k);
}

Test(loops, check_finds_mistakes) {
  for (int mistake = 0; mistake < 7; mistake++) {
    lp_kernel *k = lp_new("bad", 1);
    int a = lp_buffer_add(k, "a", TT_F32, 4, false, false), out = lp_buffer_add(k, "out", TT_F32, 4, true, false);
    int i = lp_var_add(k, "i", 4), l = lp_local_add(k, "l", TT_F32, 2);
    lp_cursor at = {&k->body}, in;
    lp_stmt *loop = lp_for(k, &at, i, 0, 4, 4, &in);
    lp_stmt *local = lp_append(k, &in, LS_LOCAL), *s = lp_append(k, &in, LS_STORE);
    local->local = l, local->value = lp_const(k, TT_F32, 1);
    s->buffer = out, s->index = lp_var(k, i), s->value = lp_load(k, a, lp_var(k, i), 0, 0);
    tt_error err = {0};
    cr_assert(lp_check(k, &err), "%s", err.message);
    if (mistake == 0) s->buffer = a;
    if (mistake == 1) s->value = lp_int(k, 1);
    if (mistake == 2) s->value = lp_get(k, l, lp_var(k, i));
    if (mistake == 3) loop->end = 5;
    if (mistake == 4) s->value = lp_op(k, IR_add, TT_F32, lp_const(k, TT_F32, 1), lp_const(k, TT_F64, 1), 0);
    if (mistake == 5) {
      lp_stmt *after = lp_append(k, &at, LS_STORE);
      after->buffer = out, after->index = lp_var(k, i), after->value = lp_const(k, TT_F32, 0);
    }
    if (mistake == 6) lp_append(k, &in, LS_IF)->guard = 0;
    cr_expect(!lp_check(k, &err) && err.status == TT_INTERNAL, "mistake %d is not found", mistake);
    lp_free(k);
  }
}

Test(loops, fma_rounds_once) {
  lp_kernel *k = lp_new("fma", 1);
  int out = lp_buffer_add(k, "out", TT_F32, 1, true, false);
  lp_cursor at = {&k->body};
  lp_stmt *s = lp_append(k, &at, LS_STORE);
  double x = 1 + 0x1p-12;
  s->buffer = out, s->index = lp_int(k, 0);
  s->value = lp_fma(k, lp_const(k, TT_F32, x), lp_const(k, TT_F32, x), lp_const(k, TT_F32, -1 - 0x1p-11));
  float y;
  void *buffers[1] = {&y};
  cr_assert_eq(lp_eval(k, buffers, 0, 1, NULL), TT_OK);
  cr_expect_float_eq(y, 0x1p-24, 0);
  lp_free(k);
}
