/* Register tiles as loops, run by the loop language's evaluator, against the meaning of matmul and conv. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/codegen.h"

static const cg_cpu cpus[] = {
  {.name = "x86-64-v2", .level = 2, .vector_bytes = 16, .n_registers = 16, .l1d = 32768, .l2 = 262144, .l3 = 8 << 20},
  {.name = "x86-64-v3", .level = 3, .vector_bytes = 32, .n_registers = 16, .fma = true, .avx2 = true, .masks = true, .l1d = 32768, .l2 = 524288, .l3 = 8 << 20},
  {.name = "x86-64-v4", .level = 4, .vector_bytes = 64, .n_registers = 32, .fma = true, .avx2 = true, .avx512 = true, .masks = true, .l1d = 32768, .l2 = 1048576, .l3 = 8 << 20},
};

/* Small whole numbers: sums are exact in every type, so results must be equal. */
static void *fill(const ir_graph *g, ir_ref r, uint32_t seed) {
  tt_shape s = ir_shape(g, r);
  tt_dtype t = ir_at(g, r)->dtype;
  int64_t n = tt_shape_count(&s);
  char *data = calloc((size_t)n + 1, 8);
  for (int64_t i = 0; i < n; i++) {
    seed = seed * 1664525u + 1013904223u;
    ir_store_double(t, data, i, (double)((seed >> 16) % 5) - (t == TT_U8 ? 0 : 2));
  }
  return data;
}

static void check_kernel(ir_graph *g, ir_ref a, ir_ref b, uint32_t region, const char *what) {
  cr_assert_eq(g->error.status, TT_OK, "%s: %s", what, g->error.message);
  tt_error err = {0};
  void **values = calloc(g->n_nodes, sizeof *values);
  values[a] = fill(g, a, 7), values[b] = fill(g, b, 99);
  void *data_a = values[a], *data_b = values[b];
  cr_assert_eq(ir_eval(g, values, &err), TT_OK, "%s: %s", what, err.message);
  for (size_t c = 0; c < sizeof cpus / sizeof *cpus; c++) {
    ir_ref rows[16];
    lp_kernel *k = cg_lower_contract(g, region, &cpus[c], rows, 16, &err);
    cr_assert(k, "%s: %s", what, err.message);
    cr_assert(lp_check(k, &err), "%s: %s", what, err.message);
    void *buffers[16] = {0};
    for (int i = 0; i < k->n_buffers && !k->buffers[i].scratch; i++)
      buffers[i] = k->buffers[i].written ? calloc((size_t)k->buffers[i].count + 1, 8) : values[rows[i]];
    /* Tasks in any order. */
    int64_t half = k->tasks / 2;
    cr_assert_eq(lp_eval(k, buffers, half, k->tasks, &err), TT_OK, "%s: %s", what, err.message);
    cr_assert_eq(lp_eval(k, buffers, 0, half, &err), TT_OK, "%s: %s", what, err.message);
    for (int i = 0; i < k->n_buffers && !k->buffers[i].scratch; i++) {
      if (!k->buffers[i].written) continue;
      tt_dtype t = ir_at(g, rows[i])->dtype;
      for (int64_t j = 0; j < k->buffers[i].count; j++) {
        double got = ir_load_double(t, buffers[i], j), want = ir_load_double(t, values[rows[i]], j);
        if (got != want) {
          char *text = lp_print(k);
          fprintf(stderr, "%s", text);
          free(text);
        }
        cr_assert_eq(got, want, "%s on %s: element %lld of %%%u is %g, not %g", what, cpus[c].name, (long long)j, rows[i], got, want);
      }
      free(buffers[i]);
    }
    lp_free(k);
  }
  ir_values_free(g, values);
  free(data_a), free(data_b);
  ir_graph_free(g);
}

static tt_shape shape(int rank, const int64_t *dim) {
  tt_shape s = {.rank = rank};
  memcpy(s.dim, dim, (size_t)rank * sizeof *dim);
  return s;
}
#define SHAPE(...) shape((int)(sizeof((int64_t[]){__VA_ARGS__}) / 8), (int64_t[]){__VA_ARGS__})

static void matmul_case(tt_dtype t, int64_t batch, int64_t m, int64_t n, int64_t k, bool ta, bool tb, int64_t split, bool epilogue) {
  char what[128];
  snprintf(what, sizeof what, "matmul %s %lldx%lldx%lldx%lld ta=%d tb=%d split=%lld", tt_dtype_name(t), (long long)batch, (long long)m, (long long)n, (long long)k, ta, tb, (long long)split);
  ir_graph *g = ir_graph_new("f");
  tt_shape sa = batch ? SHAPE(batch, ta ? k : m, ta ? m : k) : SHAPE(ta ? k : m, ta ? m : k);
  tt_shape sb = batch ? SHAPE(batch, tb ? n : k, tb ? k : n) : SHAPE(tb ? n : k, tb ? k : n);
  ir_ref a = ir_input(g, "a", t, sa), b = ir_input(g, "b", t, sb);
  g->at_region = ir_kernel_add(g, "k");
  uint32_t region = g->at_region;
  ir_ref r = ir_matmul(g, a, b, ta, tb, split);
  if (epilogue) {
    r = ir_ew1(g, IR_relu, r);
    if (!batch && split <= 1) r = ir_transpose(g, r, 0, 1);
  }
  ir_output_add(g, "r", r);
  check_kernel(g, a, b, region, what);
}

Test(contract, matmul) {
  static const int64_t sizes[][4] = {{0, 1, 1, 1}, {0, 5, 7, 3}, {0, 13, 33, 17}, {0, 64, 40, 24}, {2, 6, 16, 8}, {3, 1, 20, 5}, {0, 1, 50, 70}, {0, 37, 1, 19}, {0, 10, 10, 0}, {0, 0, 4, 4}, {0, 300, 9, 6}};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    for (int tr = 0; tr < 4; tr++)
      matmul_case(TT_F32, sizes[i][0], sizes[i][1], sizes[i][2], sizes[i][3], tr & 1, tr >> 1, 1, i % 2);
}

Test(contract, matmul_types) {
  for (tt_dtype t = TT_F32; t <= TT_U64; t++)
    for (int tr = 0; tr < 4; tr++) matmul_case(t, 2, 7, 19, 9, tr & 1, tr >> 1, 1, true);
}

Test(contract, matmul_split_and_long) {
  matmul_case(TT_F32, 0, 9, 12, 40, false, false, 4, false);
  matmul_case(TT_F32, 0, 9, 12, 40, true, true, 5, false);
  matmul_case(TT_F64, 0, 3, 20, 2400, false, true, 1, false);
  matmul_case(TT_F32, 0, 9, 20, 4800, false, true, 1, true);
}

typedef struct { int64_t n, g, c, o, size, kernel, stride, dilation, split; bool channels_last; int64_t x_dilation, lo, hi; } conv_case;

static void run_conv(tt_dtype t, conv_case c) {
  char what[192];
  snprintf(what, sizeof what, "conv n%lld g%lld c%lld o%lld size %lld kernel %lld stride %lld dilation %lld split %lld%s x_dilation %lld lo %lld hi %lld", (long long)c.n, (long long)c.g, (long long)c.c, (long long)c.o, (long long)c.size, (long long)c.kernel,
           (long long)c.stride, (long long)c.dilation, (long long)c.split, c.channels_last ? " channels-last" : "", (long long)c.x_dilation, (long long)c.lo, (long long)c.hi);
  ir_graph *g = ir_graph_new("f");
  ir_ref x = ir_input(g, "x", t, c.channels_last ? SHAPE(c.n, c.size, c.size, c.g, c.c) : SHAPE(c.n, c.g, c.c, c.size, c.size));
  ir_ref w = ir_input(g, "w", t, SHAPE(c.g, c.o, c.c, c.kernel, c.kernel));
  uint32_t region = g->at_region = ir_kernel_add(g, "k");
  ir_ref view = c.channels_last ? ir_permute(g, x, (int[]){0, 3, 4, 1, 2}) : x;
  ir_conv_attrs attrs = {.stride = {c.stride, c.stride}, .dilation = {c.dilation, c.dilation}, .split = c.split,
                         .x_dilation = {c.x_dilation, c.x_dilation}, .lo = {c.lo, c.lo}, .hi = {c.hi, c.hi}};
  ir_ref y = ir_conv(g, view, w, &attrs);
  if (c.channels_last && c.split <= 1) y = ir_permute(g, y, (int[]){0, 3, 4, 1, 2});
  ir_output_add(g, "y", y);
  check_kernel(g, x, w, region, what);
}

Test(contract, conv) {
  static const conv_case cases[] = {
    {1, 1, 1, 1, 3, 1, 1, 1, 1, false}, {2, 1, 3, 8, 7, 3, 1, 1, 1, true},  {2, 1, 3, 8, 7, 3, 1, 1, 1, false}, {2, 2, 3, 5, 9, 3, 2, 1, 1, true},
    {1, 1, 8, 20, 12, 3, 1, 2, 1, true}, {3, 4, 1, 1, 6, 3, 1, 1, 1, true}, {4, 1, 4, 6, 5, 2, 1, 1, 2, false}, {8, 1, 6, 33, 14, 3, 1, 1, 1, true}, {2, 1, 5, 17, 4, 4, 1, 1, 1, true},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    run_conv(TT_F32, cases[i]);
    run_conv(TT_I32, cases[i]);
  }
}

/* Input gradients of strided convolutions: results fall into phases that see other taps, some of them none. */
Test(contract, conv_of_dilated) {
  static const conv_case cases[] = {
    {2, 1, 3, 8, 4, 3, 1, 1, 1, true, 2, 1, 1},  {2, 1, 3, 8, 5, 3, 1, 1, 1, false, 2, 0, 1}, {1, 1, 5, 16, 4, 1, 1, 1, 1, true, 2, 0, 0},  {1, 2, 4, 20, 5, 3, 1, 1, 1, true, 3, 2, 1},
    {1, 1, 2, 3, 4, 4, 1, 2, 1, true, 2, 1, 0},  {1, 1, 2, 9, 6, 3, 2, 1, 1, true, 3, 1, 2},  {1, 1, 2, 9, 6, 5, 3, 1, 1, false, 2, 1, 1},  {2, 1, 4, 6, 3, 2, 1, 1, 2, false, 2, 0, 0},
    {1, 1, 16, 40, 7, 3, 1, 1, 1, true, 2, 1, 0}, {1, 3, 1, 1, 6, 3, 1, 3, 1, true, 2, 1, 1}, {1, 1, 2, 3, 5, 2, 2, 1, 1, true, 4, 3, 3},  {1, 1, 1, 1, 1, 1, 1, 1, 1, true, 4, 1, 2},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    run_conv(TT_F32, cases[i]);
    run_conv(TT_I32, cases[i]);
  }
}
