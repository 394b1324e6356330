/* scan_test.c: tt_scan: an RNN written with it is tt_rnn, with derivatives of both orders; loops that no layer has, against plain C; parameters that the body declares; mistakes. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "frontend/tinytorch.h"

enum { T = 5, N = 2, I = 3, H = 4 };

static tt_val flat(const tt_val *v, int n) {
  tt_val all[8];
  for (int i = 0; i < n; i++) all[i] = tt_reshape(v[i], TT_SHAPE(-1));
  return tt_concat(all, n, 0);
}

/* A model's result of x[count] (f64), flat; how many numbers. */
static int64_t results(tt_model_fn *f, void *arg, const char *backend, tt_shape shape, double *y, int64_t most) {
  tt_error err = {0};
  tt_model *m = tt_model_new(f, arg, &(tt_model_options){.seed = 7, .backend = backend, .n_threads = 2}, &err);
  tt_tensor *x = tt_tensor_new(TT_F64, &shape, &err), *out;
  for (int64_t i = 0; i < tt_shape_count(&shape); i++) ((double *)tt_tensor_data(x))[i] = sin(1.3 * (double)i + 0.2);
  cr_assert(m && (out = tt_predict(m, x, &err)), "%s", err.message);
  tt_shape s = tt_tensor_shape(out);
  int64_t n = tt_shape_count(&s);
  cr_assert_leq(n, most);
  for (int64_t i = 0; i < n; i++) y[i] = ((const double *)rt_tensor_read(out))[i];
  tt_tensor_free(x), tt_tensor_free(out), tt_model_free(m);
  return n;
}

static void equal(const double *a, const double *b, int64_t n, double tolerance, const char *what) {
  for (int64_t i = 0; i < n; i++) cr_assert(fabs(a[i] - b[i]) <= tolerance * (1 + fabs(b[i])), "%s, element %lld: %.17g, not %.17g", what, (long long)i, a[i], b[i]);
}

/* ---- an RNN ---- */

static void rnn_step(const tt_scan_step *s, void *arg) {
  tt_val p = tt_f_linear(s->x[0], s->rest[0], s->rest[2]), q = tt_f_linear(s->carry[0], s->rest[1], s->rest[3]);
  s->next[0] = s->y[0] = tt_tanh(tt_add(p, q));
}

typedef struct { bool own, reversed; } which;

/* y, h, gradients of a loss for x, h0 and all weights, and gradients of what these add up to. */
static tt_val rnn(tt_val x, void *arg) {
  const which *w = arg;
  tt_val of[6] = {x, tt_param(x, "h0", TT_SHAPE(N, H), tt_init_normal(0, 1)), tt_param(x, "w_ih", TT_SHAPE(H, I), tt_init_normal(0, 1)), tt_param(x, "w_hh", TT_SHAPE(H, H), tt_init_normal(0, 1)),
                  tt_param(x, "b_ih", TT_SHAPE(H), tt_init_normal(0, 1)), tt_param(x, "b_hh", TT_SHAPE(H), tt_init_normal(0, 1))}, y, h, first[6], second[6];
  if (w->own) {
    tt_scan_result r = tt_scan(rnn_step, NULL, .carry = &of[1], .n_carry = 1, .x = &x, .n_x = 1, .rest = &of[2], .n_rest = 4, .n_y = 1, .reversed = w->reversed);
    y = r.y[0], h = r.carry[0];
  } else {
    tt_recurrent_state r = tt_f_recurrent(TT_RNN_TANH, x, of[1], (tt_val){0}, of[2], of[3], of[4], of[5], w->reversed);
    y = r.y, h = r.h;
  }
  tt_grad(tt_add(tt_sum(tt_square(y), TT_ALL, false), tt_sum(h, TT_ALL, false)), of, 6, first);
  tt_grad(tt_sum(tt_square(flat(first, 6)), TT_ALL, false), of, 6, second);
  return flat((tt_val[]){y, h, flat(first, 6), flat(second, 6)}, 4);
}

Test(scan, an_rnn_is_rnn_with_derivatives_of_both_orders) {
  double want[400], got[400];
  for (int reversed = 0; reversed < 2; reversed++) {
    int64_t n = results(rnn, &(which){false, reversed}, "interp", TT_SHAPE(T, N, I), want, 400);
    cr_assert_eq(n, T * N * H + N * H + 2 * (T * N * I + N * H + H * I + H * H + 2 * H));
    for (int jit = 0; jit < 2; jit++) {
      cr_assert_eq(results(rnn, &(which){true, reversed}, jit ? "jit" : "interp", TT_SHAPE(T, N, I), got, 400), n);
      equal(got, want, n, 1e-12, jit ? "jit" : "interp");
    }
  }
}

/* ---- loops that are no layer ---- */

/* Two carries, one of them a number of steps; what is read is read from the carry before. */
static void fibonacci(const tt_scan_step *s, void *arg) {
  s->next[0] = s->carry[1], s->next[1] = tt_add(s->carry[0], s->carry[1]), s->next[2] = tt_add(s->carry[2], 1);
  s->y[0] = s->carry[0], s->y[1] = tt_mul(tt_cast(s->carry[2], TT_F64), 2);
}
static tt_val without_x(tt_val x, void *arg) {
  tt_val zero = tt_full(x, TT_SCALAR, 0), begin[3] = {zero, tt_add(zero, 1), tt_cast(zero, TT_I64)};
  tt_scan_result r = tt_scan(fibonacci, NULL, .carry = begin, .n_carry = 3, .n_y = 2, .length = 10, .reversed = arg != NULL);
  return flat((tt_val[]){r.y[0], r.y[1], r.carry[0], tt_cast(r.carry[2], TT_F64)}, 4);
}

/* Only ys: a function of each row. And a scan in each step: a running product of the row, times the running sum of rows before. */
static void product(const tt_scan_step *s, void *arg) { s->next[0] = s->y[0] = tt_mul(s->carry[0], s->x[0]); }
static void row(const tt_scan_step *s, void *arg) {
  tt_val one = tt_add(tt_mul(tt_sum(s->x[0], TT_ALL, false), 0), 1);
  tt_scan_result r = tt_scan(product, NULL, .carry = &one, .n_carry = 1, .x = s->x, .n_x = 1, .n_y = 1);
  s->next[0] = tt_add(s->carry[0], s->x[0]);
  s->y[0] = tt_mul(r.y[0], s->carry[0]);
}
static void squares(const tt_scan_step *s, void *arg) { s->y[0] = tt_square(s->x[0]); }
static tt_val nested(tt_val x, void *arg) {
  tt_val begin = tt_mul(tt_slice(x, 0, 0, 1, 1), 0), y = tt_scan(row, NULL, .carry = (tt_val[]){tt_squeeze(begin, 0)}, .n_carry = 1, .x = &x, .n_x = 1, .n_y = 1).y[0], dx;
  tt_grad(tt_sum(y, TT_ALL, false), &x, 1, &dx);
  return flat((tt_val[]){y, tt_scan(squares, NULL, .x = &x, .n_x = 1, .n_y = 1).y[0], dx}, 3);
}
static void rows_in_loops(const double *x, double *y) {
  for (int t = 0; t < T; t++) {
    double p = 1;
    for (int i = 0; i < I; i++) {
      double sum = 0;
      for (int u = 0; u < t; u++) sum += x[u * I + i];
      y[t * I + i] = (p *= x[t * I + i]) * sum;
    }
  }
}

Test(scan, loops_that_no_layer_has) {
  double got[100], x[T * I], y[T * I], above[T * I], below[T * I];
  for (int i = 0; i < T * I; i++) x[i] = sin(1.3 * i + 0.2);
  for (int jit = 0; jit < 2; jit++) {
    const char *backend = jit ? "jit" : "interp";
    static const double forwards[] = {0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 55, 10};
    cr_assert_eq(results(without_x, NULL, backend, TT_SHAPE(1), got, 100), 22);
    equal(got, forwards, 22, 0, backend);
    results(without_x, "backwards", backend, TT_SHAPE(1), got, 100);
    for (int i = 0; i < 20; i++) cr_assert_eq(got[i], forwards[i < 10 ? 9 - i : 29 - i]);
    cr_assert_eq(results(nested, NULL, backend, TT_SHAPE(T, I), got, 100), 3 * T * I);
    rows_in_loops(x, y);
    equal(got, y, T * I, 1e-14, backend);
    for (int i = 0; i < T * I; i++) {
      double was = x[i], slope = 0;
      x[i] = was + 1e-5, rows_in_loops(x, above), x[i] = was - 1e-5, rows_in_loops(x, below), x[i] = was;
      for (int k = 0; k < T * I; k++) slope += (above[k] - below[k]) / 2e-5;
      cr_assert_float_eq(got[T * I + i], was * was, 1e-15);
      cr_assert_float_eq(got[2 * T * I + i], slope, 1e-8, "%s: d x[%d] is %g, not %g", backend, i, got[2 * T * I + i], slope);
    }
  }
}

/* ---- parameters of the body are the model's, one for all steps, and are trained ---- */

static void with_layers(const tt_scan_step *s, void *arg) { s->next[0] = tt_tanh(tt_add(tt_linear(s->x[0], "ih", 16), tt_linear(s->carry[0], "hh", 16, .no_bias = true))); }
static void with_values(const tt_scan_step *s, void *arg) { s->next[0] = tt_tanh(tt_add(tt_f_linear(s->x[0], s->rest[0], s->rest[1]), tt_f_linear(s->carry[0], s->rest[2], (tt_val){0}))); }
static tt_val classifier(tt_val x, void *arg) {
  tt_val rows = tt_reshape(tt_permute(x, TT_AXES(2, 0, 1, 3)), TT_SHAPE(tt_dim(x, 2), tt_dim(x, 0), -1)), h = tt_full(rows, TT_SHAPE(tt_dim(x, 0), 16), 0), w[3];
  tt_init narrow = tt_init_uniform(-1 / sqrt(96), 1 / sqrt(96)), wide = tt_init_uniform(-0.25, 0.25);
  tt_scope_push(x, "cell");
  if (arg) {
    const char *names[] = {"ih", "ih", "hh"}, *of[] = {"weight", "bias", "weight"};
    for (int i = 0; i < 3; i++) {
      tt_scope_push(x, names[i]);
      w[i] = tt_param(x, of[i], i == 0 ? TT_SHAPE(16, 96) : i == 1 ? TT_SHAPE(16) : TT_SHAPE(16, 16), i == 2 ? wide : narrow);
      tt_scope_pop(x);
    }
  }
  tt_scan_result r = tt_scan(arg ? with_values : with_layers, NULL, .carry = &h, .n_carry = 1, .x = &rows, .n_x = 1, .rest = w, .n_rest = arg ? 3 : 0);
  tt_scope_pop(x);
  return tt_linear(r.carry[0], "head", 10);
}

Test(scan, parameters_of_the_body_are_the_model_s) {
  tt_error err = {0};
  tt_fit_result r[2];
  tt_model *m[2];
  for (int i = 0; i < 2; i++) {
    m[i] = tt_model_new(classifier, i ? "values" : NULL, &(tt_model_options){.seed = 1}, &err);
    cr_assert_eq(tt_train(m[i], &(tt_train_options){.data = "shapes:320", .epochs = 3, .batch = 32, .lr = 0.01, .optimizer = "adam", .seed = 2}, &r[i], &err), TT_OK, "%s", err.message);
  }
  cr_expect_eq(rt_params_count(tt_model_params(m[0])), rt_params_count(tt_model_params(m[1])));
  cr_expect(isfinite(r[0].loss) && fabs(r[0].loss - r[1].loss) < 1e-5, "%.9g and %.9g", r[0].loss, r[1].loss);
  static const char *const names[] = {"cell.ih.weight", "cell.ih.bias", "cell.hh.weight", "head.weight", "cell.hh.weight.exp_avg"};
  for (int i = 0; i < 5; i++) {
    rt_param *a = rt_params_find(tt_model_params(m[0]), names[i]), *b = rt_params_find(tt_model_params(m[1]), names[i]);
    cr_assert(a && b, "%s", names[i]);
    tt_shape s = tt_tensor_shape(a->tensor);
    const float *u = rt_tensor_read(a->tensor), *v = rt_tensor_read(b->tensor);
    for (int64_t k = 0; k < tt_shape_count(&s); k++) cr_assert_float_eq(u[k], v[k], 1e-4, "%s[%lld]: %g, not %g", names[i], (long long)k, u[k], v[k]);
  }
  tt_model_free(m[0]), tt_model_free(m[1]);
}

/* ---- mistakes ---- */

static tt_val outside, kept;
static void nothing(const tt_scan_step *s, void *arg) {}
static void other_shape(const tt_scan_step *s, void *arg) { s->next[0] = tt_reshape(s->carry[0], TT_SHAPE(H, N)); }
static void from_outside(const tt_scan_step *s, void *arg) { s->next[0] = tt_mul(s->carry[0], outside); }
static void to_outside(const tt_scan_step *s, void *arg) { s->next[0] = outside; }
static void open_scope(const tt_scan_step *s, void *arg) { s->next[0] = s->carry[0], tt_scope_push(s->carry[0], "left"); }
static void random_numbers(const tt_scan_step *s, void *arg) { s->next[0] = tt_randn(s->carry[0], TT_SHAPE(N, H)); }
static void wrong_op(const tt_scan_step *s, void *arg) { s->next[0] = tt_matmul(s->carry[0], s->carry[0]); }
static void assigns(const tt_scan_step *s, void *arg) { tt_assign(s->carry[0], s->carry[0]), s->next[0] = s->carry[0]; }
static void loses(const tt_scan_step *s, void *arg) { tt_loss(tt_sum(s->carry[0], TT_ALL, false)), s->next[0] = s->carry[0]; }
static void outputs(const tt_scan_step *s, void *arg) { tt_output(s->carry[0].trace, "o", s->carry[0]), s->next[0] = s->carry[0]; }
static void inputs(const tt_scan_step *s, void *arg) { s->next[0] = tt_input(s->carry[0].trace, "i", TT_F64, TT_SHAPE(N, H)); }
static void name_twice(const tt_scan_step *s, void *arg) { s->next[0] = tt_add(s->carry[0], tt_param(s->carry[0], "w", TT_SHAPE(H), tt_init_zeros())); }
static void keeps(const tt_scan_step *s, void *arg) { s->next[0] = kept = tt_exp(s->carry[0]); }

Test(scan, mistakes_are_said) {
  static const struct { tt_scan_body *body; const char *says; } cases[] = {
    {nothing, "the body gives no next value of carry 0"}, {other_shape, "the next value of carry 0 has another type or shape"}, {from_outside, "argument 2 is a value from outside of the body of tt_scan"},
    {to_outside, "no next value of carry 0, or one of another trace"}, {open_scope, "the body has left a scope open"}, {random_numbers, "random numbers in the body of tt_scan"}, {wrong_op, "error: matmul(%carry0, %carry0)"},
    {assigns, "the body of tt_scan changes no state"}, {loses, "the body of tt_scan has no loss"}, {outputs, "the body of tt_scan has no outputs"}, {inputs, "the body of tt_scan takes no inputs"},
    {name_twice, "the name \"w\" is taken"}, {keeps, "argument 2 is a value from the body of tt_scan"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    tt_trace *t = tt_trace_new("f", true);
    struct ir_graph *g;
    tt_error err = {0};
    tt_val x = tt_input(t, "x", TT_F64, TT_SHAPE(T, N, H)), h = tt_input(t, "h", TT_F64, TT_SHAPE(N, H));
    outside = tt_param(x, "w", TT_SHAPE(H), tt_init_zeros());
    tt_val y = tt_scan(cases[i].body, NULL, .carry = &h, .n_carry = 1, .x = &x, .n_x = 1).carry[0];
    if (cases[i].body == keeps) y = tt_add(y, kept);
    tt_output(t, "y", y);
    cr_expect_neq(tt_trace_finish(t, &g, &err), TT_OK, "%s", cases[i].says);
    cr_expect(strstr(err.message, cases[i].says) && strstr(err.message, "scan_test.c:") && strstr(err.message, "\n  fix: "), "%s:\n%s", cases[i].says, err.message);
    tt_trace_free(t);
  }
  for (int i = 0; i < 4; i++) {
    tt_trace *t = tt_trace_new("f", true);
    struct ir_graph *g;
    tt_error err = {0};
    tt_val x = tt_input(t, "x", TT_F64, TT_SHAPE(T, N, H)), h = tt_input(t, "h", TT_F64, TT_SHAPE(N, H));
    tt_scan(keeps, NULL, .carry = &h, .n_carry = i == 0 ? 17 : i == 3 ? 0 : 1, .x = i == 2 ? &h : &x, .n_x = 1, .length = i == 1 ? 9 : i == 2 ? T : 0);
    tt_output(t, "y", h);
    cr_expect_neq(tt_trace_finish(t, &g, &err), TT_OK, "%d", i);
    cr_expect(strstr(err.message, (const char *const[]){"17 carries", "the length is 9", "the length is 5", "0 carries, 1 xs, 0 of the rest and 0 ys"}[i]), "%d: %s", i, err.message);
    tt_trace_free(t);
  }
}
