/* Attention as one kernel: strided heads of one projection come in and go out without a copy, nothing of its plan grows with the square of the
 * rows, the bits are the same on one thread and on two, and what stands behind the live length of a cache is not read. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/tinytorch.h"
#include "passes/passes.h"

enum { H = 4, D = 32 };

/* qkv [1,T,3*H*D] -> [1,T,H*D] */
static ir_graph *self_attention(int64_t rows, bool live) {
  ir_graph *g = ir_graph_new("attention");
  ir_ref x = ir_input(g, "x", TT_F32, TT_SHAPE(1, rows, 3 * H * D)), part[3];
  for (int i = 0; i < 3; i++)
    part[i] = ir_permute(g, ir_reshape(g, ir_slice_axis(g, x, 2, i * H * D, (i + 1) * H * D, 1), TT_SHAPE(1, rows, H, D)), (int[]){0, 2, 1, 3});
  ir_attention_options o = {.scale = 0.2, .causal = !live, .length = live ? ir_input(g, "n", TT_I64, TT_SCALAR) : 0};
  ir_ref y = ir_permute(g, ir_attention(g, IR_attention, part, &o), (int[]){0, 2, 1, 3});
  ir_output_add(g, "y", ir_reshape(g, y, TT_SHAPE(1, rows, H * D)));
  return g;
}

static rt_program *compile(ir_graph *g) {
  tt_error err = {0};
  rt_program *p = NULL;
  cr_assert_eq(g->error.status, TT_OK, "%s", g->error.message);
  cr_assert_eq(tt_compile(g, &(tt_compile_options){0}, &p, &err), TT_OK, "%s", err.message);
  ir_graph_free(g);
  return p;
}

Test(attention, one_kernel_and_nothing_grows_with_the_square_of_the_rows) {
  size_t before = 0;
  for (int64_t rows = 256; rows <= 2048; rows *= 2) {
    rt_program *p = compile(self_attention(rows, false));
    cr_expect_eq(p->n_steps, 1, "%u steps of %lld rows", p->n_steps, (long long)rows);
    size_t all = p->arena_bytes + p->scratch_bytes;
    cr_expect_lt(all, (size_t)(rows * rows) * 4, "%lld rows: %zu bytes", (long long)rows, all);
    if (before) cr_expect_leq(all, 2 * before, "%lld rows: %zu bytes, of half as many %zu", (long long)rows, all, before);
    before = all;
    rt_program_free(p);
  }
}

static float *run(rt_program *p, const float *data, int64_t rows, int64_t live, int threads) {
  tt_error err = {0};
  rt_team *team = rt_team_new(threads, &err);
  rt_instance *x = rt_instance_new(p, team, &err);
  tt_tensor *in = tt_tensor_from(TT_F32, &TT_SHAPE(1, rows, 3 * H * D), data, &err), *n = tt_tensor_from(TT_I64, &TT_SCALAR, &live, &err);
  cr_assert_eq(rt_bind(x, "x", in, &err), TT_OK, "%s", err.message);
  if (live) cr_assert_eq(rt_bind(x, "n", n, &err), TT_OK, "%s", err.message);
  cr_assert_eq(rt_run(x, &err), TT_OK, "%s", err.message);
  tt_tensor *y = rt_bound(x, "y");
  float *copy = malloc((size_t)(rows * H * D) * sizeof *copy);
  memcpy(copy, tt_tensor_data(y), (size_t)(rows * H * D) * sizeof *copy);
  tt_tensor_free(in), tt_tensor_free(n);
  rt_instance_free(x), rt_team_free(team);
  return copy;
}

Test(attention, bits_do_not_depend_on_threads_and_dead_rows_are_not_read) {
  enum { ROWS = 150, LIVE = 77 };
  float *data = malloc(ROWS * 3 * H * D * sizeof *data);
  for (int i = 0; i < ROWS * 3 * H * D; i++) data[i] = (float)sin(0.37 * i);
  for (int live = 0; live < 2; live++) {
    rt_program *p = compile(self_attention(ROWS, live));
    float *one = run(p, data, ROWS, live * LIVE, 1), *two = run(p, data, ROWS, live * LIVE, 2);
    cr_expect_eq(memcmp(one, two, ROWS * H * D * sizeof *one), 0);
    if (live) {                          /* of k and v alone: q is all there */
      for (int r = LIVE; r < ROWS; r++)
        for (int i = H * D; i < 3 * H * D; i++) data[r * 3 * H * D + i] = NAN;
      float *again = run(p, data, ROWS, LIVE, 1);
      cr_expect_eq(memcmp(one, again, ROWS * H * D * sizeof *one), 0);
      free(again);
    }
    free(one), free(two), rt_program_free(p);
  }
  free(data);
}

/* A token that is generated: one row of q, and of a cache only what is live, against a few lines of C. */
Test(attention, one_row_of_a_cache) {
  enum { S = 150, E = 40 };
  tt_error err = {0};
  ir_graph *g = ir_graph_new("row");
  ir_ref part[3] = {ir_input(g, "q", TT_F32, TT_SHAPE(2, 1, D)), ir_input(g, "k", TT_F32, TT_SHAPE(2, S, D)), ir_input(g, "v", TT_F32, TT_SHAPE(2, S, E))};
  ir_output_add(g, "y", ir_attention(g, IR_attention, part, &(ir_attention_options){.scale = 0.3, .causal = true, .length = ir_input(g, "n", TT_I64, TT_SCALAR)}));
  rt_program *p = compile(g);
  rt_team *team = rt_team_new(2, &err);
  rt_instance *x = rt_instance_new(p, team, &err);
  const char *const names[] = {"q", "k", "v"};
  const int64_t rows[] = {1, S, S}, width[] = {D, D, E}, lives[] = {1, 3, 63, 64, 65, 128, 149, S};
  tt_tensor *in[3], *n = tt_tensor_new(TT_I64, &TT_SCALAR, &err);
  for (int i = 0; i < 3; i++) cr_assert((in[i] = tt_tensor_new(TT_F32, &TT_SHAPE(2, rows[i], width[i]), &err)) && rt_bind(x, names[i], in[i], &err) == TT_OK);
  cr_assert_eq(rt_bind(x, "n", n, &err), TT_OK);
  for (size_t l = 0; l < sizeof lives / sizeof *lives; l++) {
    int64_t live = *(int64_t *)tt_tensor_data(n) = lives[l];
    for (int i = 0; i < 3; i++)
      for (int64_t j = 0; j < 2 * rows[i] * width[i]; j++) ((float *)tt_tensor_data(in[i]))[j] = i && j / width[i] % S >= live ? NAN : (float)sin(0.7 * (double)j * (i + 1) + i) * 2;
    cr_assert_eq(rt_run(x, &err), TT_OK, "%s", err.message);
    const float *q = tt_tensor_data(in[0]), *k = tt_tensor_data(in[1]), *v = tt_tensor_data(in[2]), *y = tt_tensor_data(rt_bound(x, "y"));
    for (int h = 0; h < 2; h++) {
      double w[S], sum = 0;
      for (int64_t c = 0; c < live; c++) {
        double dot = 0;
        for (int d = 0; d < D; d++) dot += (double)q[h * D + d] * (double)k[(h * S + c) * D + d];
        sum += w[c] = exp(0.3 * dot);
      }
      for (int e = 0; e < E; e++) {
        double want = 0;
        for (int64_t c = 0; c < live; c++) want += w[c] / sum * (double)v[(h * S + c) * E + e];
        cr_assert_float_eq((double)y[h * E + e], want, 5e-6, "%lld live, head %d: %g, not %g", (long long)live, h, (double)y[h * E + e], want);
      }
    }
  }
  for (int i = 0; i < 3; i++) tt_tensor_free(in[i]);
  tt_tensor_free(n);
  rt_instance_free(x), rt_team_free(team), rt_program_free(p);
}

/* The derivatives of sum(sin(y)) by q, k and v. kinds: 0 causal, 1 whole, 2 a bool mask, 3 padding (one row of an added mask), 4 a live length. */
typedef struct { int64_t b, h, g, t, s, d, e; int kind; } shape;
static ir_graph *derivatives(const shape *z) {
  ir_graph *g = ir_graph_new("derivatives");
  ir_ref part[3] = {ir_input(g, "q", TT_F32, TT_SHAPE(z->b, z->h, z->t, z->d)), ir_input(g, "k", TT_F32, TT_SHAPE(z->b, z->g, z->s, z->d)), ir_input(g, "v", TT_F32, TT_SHAPE(z->b, z->g, z->s, z->e))}, d[3];
  ir_attention_options o = {.scale = 0.4, .causal = z->kind == 0};
  if (z->kind == 2) o.mask = ir_input(g, "mask", TT_BOOL, TT_SHAPE(1, 1, z->t, z->s));
  if (z->kind == 3) o.mask = ir_input(g, "mask", TT_F32, TT_SHAPE(z->b, 1, 1, z->s));
  if (z->kind == 4) o.length = ir_input(g, "n", TT_I64, TT_SCALAR);
  ir_ref y = ir_attention(g, IR_attention, part, &o), loss = ir_reduce(g, IR_sum, ir_ew1(g, IR_sin, y), (int[]){0, 1, 2, 3}, 4, false);
  cr_assert(pass_vjp(g, loss, 0, part, 3, d), "%s", g->error.message);
  for (int i = 0; i < 3; i++) ir_output_add(g, (const char *[]){"dq", "dk", "dv"}[i], d[i]);
  return g;
}

static float *derivatives_on(const shape *z, const char *backend, int threads, size_t *n) {
  tt_error err = {0};
  rt_program *p = NULL;
  ir_graph *g = derivatives(z);
  cr_assert_eq(g->error.status, TT_OK, "%s", g->error.message);
  cr_assert_eq(tt_compile(g, &(tt_compile_options){.backend = backend}, &p, &err), TT_OK, "%s", err.message);
  ir_graph_free(g);
  rt_team *team = rt_team_new(threads, &err);
  rt_instance *x = rt_instance_new(p, team, &err);
  tt_shape in[] = {TT_SHAPE(z->b, z->h, z->t, z->d), TT_SHAPE(z->b, z->g, z->s, z->d), TT_SHAPE(z->b, z->g, z->s, z->e)}, mask = z->kind == 2 ? TT_SHAPE(1, 1, z->t, z->s) : TT_SHAPE(z->b, 1, 1, z->s);
  int64_t live = z->s / 2 + 1, count = tt_shape_count(&mask);
  tt_tensor *bound[4] = {0};
  for (int i = 0; i < 3; i++) {
    bound[i] = tt_tensor_new(TT_F32, &in[i], &err);
    for (int64_t j = 0, end = tt_shape_count(&in[i]); j < end; j++) ((float *)tt_tensor_data(bound[i]))[j] = (float)sin(0.7 * (double)j * (i + 1) + i);
    cr_assert_eq(rt_bind(x, (const char *[]){"q", "k", "v"}[i], bound[i], &err), TT_OK, "%s", err.message);
  }
  if (z->kind == 4) bound[3] = tt_tensor_from(TT_I64, &TT_SCALAR, &live, &err);
  if (z->kind == 2 || z->kind == 3) bound[3] = tt_tensor_new(z->kind == 2 ? TT_BOOL : TT_F32, &mask, &err);
  for (int64_t j = 0; z->kind == 2 && j < count; j++) ((unsigned char *)tt_tensor_data(bound[3]))[j] = j / z->s != 1 && j * 7 % 5 < 3;      /* row 1 sees nothing */
  for (int64_t j = 0; z->kind == 3 && j < count; j++) ((float *)tt_tensor_data(bound[3]))[j] = j % z->s > z->s * 2 / 3 ? -INFINITY : 0.1f * (float)(j % 3);
  if (bound[3]) cr_assert_eq(rt_bind(x, z->kind == 4 ? "n" : "mask", bound[3], &err), TT_OK, "%s", err.message);
  cr_assert_eq(rt_run(x, &err), TT_OK, "%s", err.message);
  float *all = NULL;
  *n = 0;
  for (int i = 0; i < 3; i++) {
    tt_tensor *y = rt_bound(x, (const char *[]){"dq", "dk", "dv"}[i]);
    size_t m = (size_t)tt_shape_count(&in[i]);
    all = realloc(all, (*n + m) * sizeof *all);
    memcpy(all + *n, tt_tensor_data(y), m * sizeof *all);
    *n += m;
  }
  for (int i = 0; i < 4; i++) tt_tensor_free(bound[i]);
  rt_instance_free(x), rt_team_free(team), rt_program_free(p);
  return all;
}

static const shape shapes[] = {
  {2, 4, 4, 70, 70, 16, 16, 0}, {1, 4, 4, 33, 33, 17, 9, 0}, {2, 8, 4, 130, 130, 32, 32, 0}, {1, 3, 1, 100, 40, 8, 24, 1}, {2, 4, 4, 65, 65, 40, 40, 1}, {1, 2, 2, 20, 150, 64, 64, 1}, {1, 8, 8, 5, 7, 3, 4, 1},
  {2, 4, 4, 50, 61, 16, 20, 2},  {2, 4, 4, 90, 90, 33, 16, 3}, {1, 2, 1, 40, 97, 16, 16, 3}, {2, 4, 2, 30, 80, 16, 16, 4}, {8, 1, 1, 160, 160, 12, 12, 0},
  {2, 4, 2, 1, 70, 17, 9, 1}, {1, 4, 4, 1, 200, 64, 64, 4}, {1, 2, 2, 1, 130, 80, 100, 4}, {1, 2, 1, 1, 3, 5, 4, 1}, {2, 2, 2, 1, 33, 16, 16, 0}, {1, 2, 2, 1, 61, 16, 20, 3}};

Test(attention, derivatives_as_the_interpreter_has_them_on_any_number_of_threads) {
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
    size_t n = 0;
    float *is = derivatives_on(&shapes[i], "jit", 1, &n), *two = derivatives_on(&shapes[i], "jit", 3, &n), *want = derivatives_on(&shapes[i], "interp", 1, &n), largest = 0, worst = 0;
    for (size_t j = 0; j < n; j++) {
      if (fabsf(want[j]) > largest) largest = fabsf(want[j]);
      if (!(fabsf(is[j] - want[j]) <= worst)) worst = fabsf(is[j] - want[j]);       /* NaN too */
    }
    cr_expect(worst <= 4e-6f * largest, "shape %zu: %g of %g", i, worst, largest);
    cr_expect_eq(memcmp(is, two, n * sizeof *is), 0, "shape %zu: other bits on three threads", i);
    free(is), free(two), free(want);
  }
}

/* Nothing that the plan keeps, and no scratch, has the size of T x T; and few heads are two kernels, many are one. */
Test(attention, derivatives_keep_nothing_that_grows_with_the_square_of_the_rows) {
  size_t before = 0;
  for (int64_t rows = 256; rows <= 2048; rows *= 2) {
    rt_program *p = compile(derivatives(&(shape){2, H, H, rows, rows, D, D, 0}));
    size_t all = p->arena_bytes + p->scratch_bytes;
    cr_expect_lt(all, (size_t)(2 * H * rows * rows) * 4, "%lld rows: %zu bytes", (long long)rows, all);
    if (before) cr_expect_leq(all, 2 * before, "%lld rows: %zu bytes, of half as many %zu", (long long)rows, all, before);
    before = all;
    rt_program_free(p);
  }
  for (int few = 0; few < 2; few++) {
    rt_program *p = compile(derivatives(&(shape){1, few ? 2 : 8, few ? 2 : 8, 64, 64, D, D, 0}));
    cr_expect_eq(p->n_steps, few ? 4 : 3, "%u steps", p->n_steps);       /* attention and its sums, delta, the derivatives */
    rt_program_free(p);
  }
}

/* Masks of the lowest finite number, as of torch.finfo(float32).min: where all of a row is masked so, it is the mean of v; one of -inf alone is 0. */
Test(attention, a_row_of_the_lowest_numbers_is_a_mean) {
  enum { T = 3, S = 40, E = 8 };
  tt_error err = {0};
  ir_graph *g = ir_graph_new("masked");
  ir_ref part[3] = {ir_input(g, "q", TT_F32, TT_SHAPE(T, E)), ir_input(g, "k", TT_F32, TT_SHAPE(S, E)), ir_input(g, "v", TT_F32, TT_SHAPE(S, E))};
  ir_attention_options o = {.scale = 0.3, .mask = ir_input(g, "mask", TT_F32, TT_SHAPE(T, S))};
  ir_output_add(g, "y", ir_attention(g, IR_attention, part, &o));
  rt_program *p = compile(g);
  cr_assert_eq(p->n_steps, 1);
  float q[T * E], k[S * E], v[S * E], mask[T * S] = {0}, mean[E] = {0};
  for (int i = 0; i < S * E; i++) k[i] = (float)sin(0.7 * i), v[i] = (float)cos(0.3 * i), mean[i % E] += v[i] / S;
  for (int i = 0; i < T * E; i++) q[i] = (float)sin(1.1 * i);
  for (int s = 0; s < S; s++) mask[s] = -3.40282347e38f, mask[S + s] = -INFINITY, mask[2 * S + s] = s == 7 ? 0 : -3.40282347e38f;
  rt_team *team = rt_team_new(1, &err);
  rt_instance *x = rt_instance_new(p, team, &err);
  tt_tensor *in[] = {tt_tensor_from(TT_F32, &TT_SHAPE(T, E), q, &err), tt_tensor_from(TT_F32, &TT_SHAPE(S, E), k, &err), tt_tensor_from(TT_F32, &TT_SHAPE(S, E), v, &err), tt_tensor_from(TT_F32, &TT_SHAPE(T, S), mask, &err)};
  for (int i = 0; i < 4; i++) cr_assert_eq(rt_bind(x, (const char *[]){"q", "k", "v", "mask"}[i], in[i], &err), TT_OK, "%s", err.message);
  cr_assert_eq(rt_run(x, &err), TT_OK, "%s", err.message);
  const float *y = tt_tensor_data(rt_bound(x, "y"));
  for (int e = 0; e < E; e++) {
    cr_expect_float_eq(y[e], mean[e], 1e-5, "%g, not %g", y[e], mean[e]);
    cr_expect_eq(y[E + e], 0);
    cr_expect_float_eq(y[2 * E + e], v[7 * E + e], 1e-6);
  }
  for (int i = 0; i < 4; i++) tt_tensor_free(in[i]);
  rt_instance_free(x), rt_team_free(team), rt_program_free(p);
}
