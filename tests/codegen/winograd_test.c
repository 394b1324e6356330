/* Convolutions in Winograd's form: their error against the convolution in f64 stays within the bound that passes/winograd.c states, for sizes that are whole
 * tiles and panels and sizes that are not, with an epilogue; the same bits on one thread and on two; and the pass takes them where they are faster. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/tinytorch.h"
#include "passes/passes.h"

static double normal(uint64_t stream, uint64_t i) {
  double u = (tt_random_word(5, 1, (uint32_t)stream, 2 * i) + 0.5) / 4294967296.0, v = tt_random_word(5, 1, (uint32_t)stream, 2 * i + 1) / 4294967296.0;
  return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

typedef struct { int64_t n, c, o, h, w, tile, panel; bool costly; } winograd_case;

/* x [N,H,W,C], channels-last as the layout pass leaves it, and w [1,O,C,3,3] -> [N,H,W,1,O]; padded by 1, negated or through a sigmoid. */
static ir_graph *graph(const winograd_case *s) {
  ir_graph *g = ir_graph_new("winograd");
  ir_ref x = ir_input(g, "x", TT_F32, TT_SHAPE(s->n, s->h, s->w, 1, s->c)), w = ir_input(g, "w", TT_F32, TT_SHAPE(1, s->o, s->c, 3, 3));
  x = ir_pad(g, x, ir_scalar(g, TT_F32, 0), (int64_t[]){0, 1, 1, 0, 0}, (int64_t[]){0, 1, 1, 0, 0}, (int64_t[]){0, 0, 0, 0, 0});
  ir_ref y = pass_winograd_conv(g, ir_permute(g, x, (int[]){0, 3, 4, 1, 2}), w, s->tile, s->panel);
  y = ir_permute(g, y, (int[]){0, 3, 4, 1, 2});
  ir_output_add(g, "y", ir_ew1(g, s->costly ? IR_tanh : IR_neg, y));
  return g;
}

static tt_tensor *run_graph(ir_graph *g, const char *skip, int n_threads) {
  tt_error err = {0};
  rt_program *p = NULL;
  cr_assert_eq(g->error.status, TT_OK, "%s", g->error.message);
  cr_assert_eq(tt_compile(g, &(tt_compile_options){.skip = skip}, &p, &err), TT_OK, "%s", err.message);
  rt_team *team = rt_team_new(n_threads, &err);
  rt_instance *x = rt_instance_new(p, team, &err);
  for (int i = 0; i < 2; i++) {
    int slot = rt_slot_find(p, i ? "w" : "x");
    tt_tensor *in = tt_tensor_new(TT_F32, &p->slots[slot].shape, &err);
    for (int64_t e = 0; e < tt_shape_count(&p->slots[slot].shape); e++) ((float *)tt_tensor_data(in))[e] = (float)normal((uint64_t)i, (uint64_t)e);
    cr_assert_eq(rt_bind(x, i ? "w" : "x", in, &err), TT_OK, "%s", err.message);
    tt_tensor_free(in);
  }
  cr_assert_eq(rt_run(x, &err), TT_OK, "%s", err.message);
  tt_tensor *y = tt_tensor_retain(rt_bound(x, "y"));
  rt_instance_free(x), rt_program_free(p), rt_team_free(team), ir_graph_free(g);
  return y;
}
static tt_tensor *run(const winograd_case *s, int n_threads) { return run_graph(graph(s), NULL, n_threads); }

static double direct(const winograd_case *s, int64_t n, int64_t h, int64_t w, int64_t o) {
  double sum = 0;
  for (int64_t c = 0; c < s->c; c++)
    for (int64_t k = 0; k < 9; k++) {
      int64_t y = h + k / 3 - 1, x = w + k % 3 - 1;
      if (y < 0 || x < 0 || y >= s->h || x >= s->w) continue;
      sum += (double)(float)normal(0, (uint64_t)(((n * s->h + y) * s->w + x) * s->c + c)) * (double)(float)normal(1, (uint64_t)((o * s->c + c) * 9 + k));
    }
  return sum;
}

Test(winograd, error_and_threads) {
  static const winograd_case cases[] = {
    {2, 16, 16, 8, 8, 4, 16, false}, {1, 64, 64, 8, 8, 4, 16, false}, {1, 64, 32, 8, 4, 2, 16, false}, {2, 24, 40, 13, 9, 4, 16, false}, {2, 24, 40, 7, 5, 2, 8, true},
    {1, 3, 5, 6, 7, 4, 8, true},     {9, 32, 17, 4, 4, 4, 16, true},  {1, 128, 20, 5, 5, 4, 32, false}, {1, 1, 1, 1, 1, 2, 8, false},   {1, 130, 9, 3, 3, 2, 16, false},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const winograd_case *s = &cases[i];
    tt_tensor *one = run(s, 1), *two = run(s, 2);
    const float *y = tt_tensor_data(one);
    cr_assert(!memcmp(y, tt_tensor_data(two), (size_t)(s->n * s->h * s->w * s->o) * 4), "case %zu: 2 threads give something else than 1", i);
    double largest = 0, worst = 0;
    for (int64_t e = 0; e < s->n * s->h * s->w * s->o; e++) {
      double want = direct(s, e / (s->o * s->w * s->h), e / (s->o * s->w) % s->h, e / s->o % s->w, e % s->o);
      if (fabs(want) > largest) largest = fabs(want);
      double d = fabs(y[e] - (s->costly ? tanh(want) : -want));
      if (!(d <= worst)) worst = d;
    }
    cr_expect(worst <= largest * (s->tile == 2 ? 1e-6 : 1e-5), "case %zu, tile %lld: error %g of %g", i, (long long)s->tile, worst, largest);
    tt_tensor_free(one), tt_tensor_free(two);
  }
}

/* How many winograd rows the pass makes of one convolution. */
static int taken(int64_t c, int64_t o, int64_t size, int64_t kernel, int64_t stride, tt_dtype t, const char *skip) {
  tt_error err = {0};
  ir_graph *g = ir_graph_new("f"), *out = NULL;
  ir_conv_attrs a = {.stride = {stride, stride}, .lo = {1, 1}, .hi = {1, 1}};
  ir_ref y = ir_conv(g, ir_input(g, "x", t, TT_SHAPE(8, 1, c, size, size)), ir_input(g, "w", t, TT_SHAPE(1, o, c, kernel, kernel)), &a);
  ir_output_add(g, "y", ir_ew1(g, IR_relu, y));
  cr_assert_eq(pass_run(g, &out, NULL, "fuse", &(pass_options){.vector_bytes = 32, .n_registers = 16, .skip = skip}, NULL, NULL, &err), TT_OK, "%s", err.message);
  int n = 0;
  for (ir_ref r = 1; r < out->n_nodes; r++) n += ir_at(out, r)->op == IR_winograd;
  ir_graph_free(out), ir_graph_free(g);
  return n;
}

Test(winograd, where_it_is_taken) {
  cr_expect_eq(taken(64, 64, 32, 3, 1, TT_F32, NULL), 1);
  cr_expect_eq(taken(64, 64, 8, 3, 1, TT_F32, NULL), 1);
  cr_expect_eq(taken(256, 256, 14, 3, 1, TT_F32, NULL), 1);
  cr_expect_eq(taken(64, 64, 32, 3, 1, TT_F32, "winograd"), 0);
  cr_expect_eq(taken(64, 64, 32, 3, 1, TT_F64, NULL), 0);
  cr_expect_eq(taken(64, 64, 32, 3, 2, TT_F32, NULL), 0);
  cr_expect_eq(taken(64, 64, 32, 5, 1, TT_F32, NULL), 0);
  cr_expect_eq(taken(3, 32, 32, 3, 1, TT_F32, NULL), 0);
}

/* The gradient of weights [O,C,R,R] of a convolution of this stride, in N images of C channels to N of O channels HxW, padded by R/2. */
typedef struct { int64_t n, c, o, h, w, r, stride; bool winograd, costly; } weights_case;

/* x [N,X,Y,1,C] and dy (called w) [N,H,W,1,O] -> [C,R,R,1,O]. */
static ir_graph *weights_graph(const weights_case *s) {
  ir_graph *g = ir_graph_new("weights");
  int64_t pad = s->r / 2;
  ir_ref x = ir_input(g, "x", TT_F32, TT_SHAPE(s->n, s->h * s->stride, s->w * s->stride, 1, s->c)), dy = ir_input(g, "w", TT_F32, TT_SHAPE(s->n, s->h, s->w, 1, s->o));
  ir_conv_attrs a = {.dilation = {s->stride, s->stride}, .lo = {pad, pad}, .hi = {s->r - s->stride - pad, s->r - s->stride - pad}, .winograd = s->winograd ? 4 : 0};
  if (s->r == 1 && s->stride > 1) {
    a.hi[0] = a.hi[1] = 0;
    x = ir_slice(g, x, (int64_t[]){0, 0, 0, 0, 0}, (int64_t[]){s->n, (s->h - 1) * s->stride + 1, (s->w - 1) * s->stride + 1, 1, s->c}, (int64_t[]){1, 1, 1, 1, 1});
  }
  ir_ref y = ir_conv(g, ir_permute(g, x, (int[]){4, 3, 0, 1, 2}), ir_permute(g, dy, (int[]){3, 4, 0, 1, 2}), &a);
  y = ir_permute(g, y, (int[]){0, 3, 4, 1, 2});
  ir_output_add(g, "y", ir_ew1(g, s->costly ? IR_tanh : IR_neg, y));
  return g;
}

static double weights_direct(const weights_case *s, int64_t c, int64_t o, int64_t r, int64_t q) {
  double sum = 0;
  int64_t X = s->h * s->stride, Y = s->w * s->stride;
  for (int64_t i = 0; i < s->n * s->h * s->w; i++) {
    int64_t y = i / s->w % s->h * s->stride + r - s->r / 2, x = i % s->w * s->stride + q - s->r / 2;
    if (y < 0 || x < 0 || y >= X || x >= Y) continue;
    sum += (double)(float)normal(0, (uint64_t)(((i / (s->w * s->h) * X + y) * Y + x) * s->c + c)) * (double)(float)normal(1, (uint64_t)(i * s->o + o));
  }
  return sum;
}

Test(winograd, weight_gradients) {
  static const weights_case cases[] = {
    {4, 16, 16, 8, 8, 3, 1, true, false}, {2, 20, 24, 13, 9, 3, 1, true, false}, {3, 8, 41, 7, 5, 3, 1, true, true},  {1, 9, 8, 21, 23, 3, 1, true, false},  {16, 64, 32, 4, 4, 3, 1, true, false}, {1, 8, 600, 8, 8, 3, 1, true, false},
    {4, 16, 16, 8, 8, 3, 1, false, false}, {5, 20, 24, 13, 9, 3, 1, false, false}, {3, 13, 19, 7, 6, 3, 2, false, true}, {4, 24, 9, 9, 5, 5, 1, false, false}, {6, 33, 40, 12, 12, 1, 1, false, false}, {6, 16, 40, 6, 5, 1, 2, false, true},
    {2, 300, 200, 5, 9, 3, 1, false, false}, {1, 9, 8, 37, 41, 3, 2, false, false}, {16, 16, 16, 16, 16, 3, 1, false, true},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const weights_case *s = &cases[i];
    const char *skip = s->winograd ? NULL : "winograd";
    tt_tensor *one = run_graph(weights_graph(s), skip, 1), *two = run_graph(weights_graph(s), skip, 2);
    const float *y = tt_tensor_data(one);
    int64_t n = s->c * s->o * s->r * s->r;
    cr_assert(!memcmp(y, tt_tensor_data(two), (size_t)n * 4), "case %zu: 2 threads give something else than 1", i);
    double largest = 0, worst = 0;
    for (int64_t e = 0; e < n; e += n > 20000 ? 7 : 1) {
      double want = weights_direct(s, e / (s->o * s->r * s->r), e % s->o, e / (s->o * s->r) % s->r, e / s->o % s->r);
      if (fabs(want) > largest) largest = fabs(want);
      double d = fabs(y[e] - (s->costly ? tanh(want) : -want));
      if (!(d <= worst)) worst = d;
    }
    cr_expect(worst <= largest * (s->winograd ? 1e-5 : 1e-6), "case %zu: error %g of %g", i, worst, largest);
    tt_tensor_free(one), tt_tensor_free(two);
  }
}

/* How many weight gradients of a 3x3 convolution the pass gives Winograd's form. */
static int gradients_taken(int64_t c, int64_t o, int64_t size, int64_t stride, const char *skip) {
  tt_error err = {0};
  ir_graph *out = NULL, *g = weights_graph(&(weights_case){8, c, o, size, size, 3, stride, false, false});
  cr_assert_eq(pass_run(g, &out, NULL, "fuse", &(pass_options){.vector_bytes = 32, .n_registers = 16, .skip = skip}, NULL, NULL, &err), TT_OK, "%s", err.message);
  int n = 0;
  for (ir_ref r = 1; r < out->n_nodes; r++) n += ir_at(out, r)->op == IR_conv && ir_int(ir_at(out, r), "winograd") == 4;
  ir_graph_free(out), ir_graph_free(g);
  return n;
}

Test(winograd, where_gradients_take_it) {
  cr_expect_eq(gradients_taken(64, 64, 32, 1, NULL), 1);
  cr_expect_eq(gradients_taken(16, 16, 32, 1, NULL), 1);
  cr_expect_eq(gradients_taken(128, 128, 7, 1, NULL), 1);
  cr_expect_eq(gradients_taken(64, 64, 32, 1, "winograd"), 0);
  cr_expect_eq(gradients_taken(64, 64, 16, 2, NULL), 0);
  cr_expect_eq(gradients_taken(3, 32, 32, 1, NULL), 0);
}
