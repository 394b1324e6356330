/* Register tiles as loops, run by the loop language's evaluator, against the meaning of matmul and conv. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/codegen.h"
#include "runtime/runtime.h"

static const cg_cpu cpus[] = {
  {.name = "x86-64-v2", .level = 2, .vector_bytes = 16, .n_registers = 16, .l1d = 32768, .l2 = 262144, .l3 = 8 << 20},
  {.name = "x86-64-v3", .level = 3, .vector_bytes = 32, .n_registers = 16, .fma = true, .avx2 = true, .masks = true, .l1d = 32768, .l2 = 524288, .l3 = 8 << 20},
  {.name = "x86-64-v4", .level = 4, .vector_bytes = 64, .n_registers = 32, .fma = true, .avx2 = true, .avx512 = true, .masks = true, .l1d = 32768, .l2 = 1048576, .l3 = 8 << 20},
};

/* With instructions for products of bf16; caches so small that sums are cut, and those of a Sapphire Rapids. */
static const cg_cpu bf16_cpus[] = {
  {.name = "x86-64-v4+bf16", .features = "+avx512bf16", .level = 4, .vector_bytes = 64, .n_registers = 32, .fma = true, .avx2 = true, .avx512 = true, .bf16 = true, .masks = true, .l1d = 4096, .l2 = 32768, .l3 = 8 << 20},
  {.name = "x86-64-v4+amx", .features = "+amx-tile,+amx-bf16", .level = 4, .vector_bytes = 64, .n_registers = 32, .fma = true, .avx2 = true, .avx512 = true, .amx = true, .masks = true, .l1d = 8192, .l2 = 65536, .l3 = 8 << 20},
  {.name = "x86-64-v4+amx", .features = "+amx-tile,+amx-bf16", .level = 4, .vector_bytes = 64, .n_registers = 32, .fma = true, .avx2 = true, .avx512 = true, .amx = true, .masks = true, .l1d = 49152, .l2 = 2 << 20, .l3 = 8 << 20},
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

static void check_kernel_on(const cg_cpu *list, size_t n_cpus, ir_graph *g, ir_ref a, ir_ref b, uint32_t region, const char *what) {
  cr_assert_eq(g->error.status, TT_OK, "%s: %s", what, g->error.message);
  tt_error err = {0};
  void **values = calloc(g->n_nodes, sizeof *values);
  values[a] = fill(g, a, 7), values[b] = fill(g, b, 99);
  void *data_a = values[a], *data_b = values[b];
  cr_assert_eq(ir_eval(g, values, &err), TT_OK, "%s: %s", what, err.message);
  for (size_t c = 0; c < n_cpus; c++) {
    ir_ref rows[16];
    lp_kernel *k = cg_lower_contract(g, region, &list[c], rows, 16, &err);
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
        cr_assert_eq(got, want, "%s on %s: element %lld of %%%u is %g, not %g", what, list[c].name, (long long)j, rows[i], got, want);
      }
      free(buffers[i]);
    }
    lp_free(k);
  }
  ir_values_free(g, values);
  free(data_a), free(data_b);
  ir_graph_free(g);
}

static void check_kernel(ir_graph *g, ir_ref a, ir_ref b, uint32_t region, const char *what) { check_kernel_on(cpus, sizeof cpus / sizeof *cpus, g, a, b, region, what); }

static tt_shape shape(int rank, const int64_t *dim) {
  tt_shape s = {.rank = rank};
  memcpy(s.dim, dim, (size_t)rank * sizeof *dim);
  return s;
}
#define SHAPE(...) shape((int)(sizeof((int64_t[]){__VA_ARGS__}) / 8), (int64_t[]){__VA_ARGS__})

/* chunk: tiles of a task; 0: as the cost model says. */
static void matmul_chunks(tt_dtype t, int64_t batch, int64_t m, int64_t n, int64_t k, bool ta, bool tb, int64_t split, bool epilogue, int64_t chunk) {
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
  if (chunk) ir_kernel_plan(g, region, "chunk", &chunk, 1);
  check_kernel(g, a, b, region, what);
}

static void matmul_case(tt_dtype t, int64_t batch, int64_t m, int64_t n, int64_t k, bool ta, bool tb, int64_t split, bool epilogue) {
  matmul_chunks(t, batch, m, n, k, ta, tb, split, epilogue, 0);
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

/* Large operands. Packed panels: one chunk of rows and a cut sum, or several chunks; the panel that follows is asked for ahead, the last one too. */
Test(contract, matmul_packed) {
  matmul_case(TT_F32, 0, 33, 40, 1100, false, false, 1, false);
  matmul_case(TT_F32, 2, 47, 268, 64, false, false, 1, false);
  matmul_case(TT_F32, 0, 2, 1060, 260, false, false, 1, true);           /* few rows: along those of b */
  matmul_case(TT_F32, 0, 1, 1060, 260, false, false, 2, false);
  matmul_chunks(TT_F32, 0, 50, 260, 64, false, false, 1, true, 4);
}

/* Operands in bf16, widened by the product's own kernel. dot and tiles: what the kernel is made of on CPUs that have the instructions. */
static void bf16_case(int64_t batch, int64_t m, int64_t n, int64_t k, bool ta, bool tb, bool costly) {
  char what[128];
  snprintf(what, sizeof what, "bf16 matmul %lldx%lldx%lldx%lld ta=%d tb=%d", (long long)batch, (long long)m, (long long)n, (long long)k, ta, tb);
  ir_graph *g = ir_graph_new("f");
  ir_ref a = ir_input(g, "a", TT_BF16, SHAPE(batch, ta ? k : m, ta ? m : k)), b = ir_input(g, "b", TT_BF16, SHAPE(batch, tb ? n : k, tb ? k : n));
  uint32_t region = g->at_region = ir_kernel_add(g, "k");
  ir_ref r = ir_matmul(g, ir_cast(g, a, TT_F32), ir_cast(g, b, TT_F32), ta, tb, 1);
  ir_output_add(g, "r", costly ? ir_ew1(g, IR_relu, ir_ew1(g, IR_floor, ir_ew1(g, IR_sin, ir_ew2(g, IR_mul, r, ir_scalar(g, TT_F32, 0))))) : ir_ew1(g, IR_relu, r));
  ir_output_add(g, "low", ir_cast(g, r, TT_BF16));
  tt_error err = {0};
  ir_ref rows[16];
  for (size_t i = 0; i < 3 && m >= 8 && n >= 8 && k > 0; i++) {
    lp_kernel *loops = cg_lower_contract(g, region, &bf16_cpus[i], rows, 16, &err);
    char *text = loops ? lp_print(loops) : NULL;
    cr_assert(text && strstr(text, bf16_cpus[i].amx ? " dot(b" : " dot(load"), "%s on %s: %s", what, bf16_cpus[i].name, text ? text : err.message);
    free(text), lp_free(loops);
  }
  check_kernel_on(bf16_cpus, 3, g, a, b, region, what);
}

Test(contract, matmul_bf16) {
  static const int64_t sizes[][4] = {{1, 8, 8, 1}, {1, 64, 40, 24}, {2, 9, 33, 65}, {1, 70, 100, 31}, {1, 33, 16, 257}, {1, 15, 65, 600}, {3, 16, 17, 64}, {1, 4, 40, 20}, {1, 100, 1, 9}, {1, 129, 70, 128}};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    for (int tr = 0; tr < 4; tr++) bf16_case(sizes[i][0], sizes[i][1], sizes[i][2], sizes[i][3], tr & 1, tr >> 1, i % 3 == 1);
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

/* Depthwise: vectors over the channels, which both operands have; and pixels that all panels of output channels share. */
Test(contract, conv_of_channels) {
  static const conv_case cases[] = {
    {2, 16, 1, 1, 7, 3, 1, 1, 1, true, 1, 0, 0}, {1, 40, 1, 1, 9, 3, 2, 1, 1, true, 1, 0, 0},  {2, 24, 1, 2, 6, 3, 1, 2, 1, true, 1, 0, 0}, {4, 16, 3, 4, 5, 3, 1, 1, 1, true, 1, 0, 0},
    {6, 33, 1, 1, 5, 5, 1, 1, 1, true, 1, 0, 0}, {4, 1, 8, 40, 18, 3, 1, 1, 1, true, 1, 0, 0}, {1, 17, 1, 1, 5, 3, 1, 1, 1, true, 2, 1, 0}, {64, 1, 5, 50, 4, 1, 1, 1, 1, true, 1, 0, 0},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    run_conv(TT_F32, cases[i]);
    run_conv(TT_I32, cases[i]);
  }
}

/* Convolutions with short sums, the pad in their kernel: borders of any width on both sides, strides, dilation, phases, odd sizes, one to three axes, costly
 * epilogues. x [N,*D,G,C] channels last. */
typedef struct { int d; int64_t n, g, c, o, size[3], kernel[3], stride, dilation, x_dilation, lo, hi, shift; int costly; } window_case;

static void run_window(tt_dtype t, window_case c) {
  char what[192];
  snprintf(what, sizeof what, "window %dd n%lld g%lld c%lld o%lld size %lld kernel %lld stride %lld dilation %lld x_dilation %lld lo %lld hi %lld shift %lld", c.d, (long long)c.n, (long long)c.g, (long long)c.c, (long long)c.o, (long long)c.size[0],
           (long long)c.kernel[0], (long long)c.stride, (long long)c.dilation, (long long)c.x_dilation, (long long)c.lo, (long long)c.hi, (long long)c.shift);
  ir_graph *g = ir_graph_new("f");
  tt_shape sx = {.rank = c.d + 3, .dim = {c.n}}, sw = {.rank = c.d + 3, .dim = {c.g, c.o, c.c}};
  int64_t lo[TT_MAX_RANK] = {0}, hi[TT_MAX_RANK] = {0}, none[TT_MAX_RANK] = {0};
  int first[TT_MAX_RANK] = {0, c.d + 1, c.d + 2}, last[TT_MAX_RANK] = {0};
  ir_conv_attrs attrs = {.split = 1};
  for (int i = 0; i < c.d; i++) {
    sx.dim[1 + i] = c.size[i], sw.dim[3 + i] = c.kernel[i], first[3 + i] = 1 + i, last[1 + i] = 3 + i;
    lo[1 + i] = c.lo, hi[1 + i] = c.hi + i;
    attrs.stride[i] = c.stride, attrs.dilation[i] = c.dilation, attrs.x_dilation[i] = c.x_dilation, attrs.lo[i] = c.shift;
  }
  last[c.d + 1] = 1, last[c.d + 2] = 2;
  sx.dim[c.d + 1] = c.g, sx.dim[c.d + 2] = c.c;
  ir_ref x = ir_input(g, "x", t, sx), w = ir_input(g, "w", t, sw);
  uint32_t region = g->at_region = ir_kernel_add(g, "k");
  ir_ref conv = ir_conv(g, ir_permute(g, ir_pad(g, x, ir_scalar(g, t, 0), lo, hi, none), first), w, &attrs), y = ir_permute(g, conv, last);
  if (c.costly) y = ir_ew1(g, IR_exp, ir_ew1(g, IR_sign, y));
  ir_output_add(g, "y", y);
  pass_window see;
  cr_assert(pass_window_of(g, conv, &see) && see.pad, "%s", what);
  check_kernel(g, x, w, region, what);
}

Test(contract, windows) {
  static const window_case cases[] = {
    {2, 2, 24, 1, 1, {9, 9}, {3, 3}, 1, 1, 1, 1, 1, 0, 0},  {2, 1, 17, 1, 1, {7, 13}, {3, 3}, 2, 1, 1, 1, 1, 0, 0}, {2, 1, 40, 1, 1, {5, 11}, {5, 5}, 1, 1, 1, 2, 2, 0, 0}, {2, 2, 33, 1, 1, {6, 20}, {3, 3}, 1, 2, 1, 2, 2, 0, 0},
    {2, 1, 8, 1, 1, {3, 3}, {3, 3}, 1, 1, 1, 2, 0, 0, 0},   {2, 1, 12, 1, 1, {1, 1}, {3, 3}, 1, 1, 1, 1, 1, 0, 0},  {2, 2, 16, 1, 1, {4, 40}, {2, 7}, 3, 1, 1, 0, 5, 0, 0}, {2, 1, 20, 1, 1, {5, 6}, {3, 3}, 1, 1, 2, 1, 1, 0, 0},
    {2, 1, 18, 1, 1, {5, 5}, {3, 3}, 1, 1, 2, 1, 1, 1, 0},  {2, 1, 9, 1, 1, {4, 4}, {2, 2}, 1, 1, 3, 1, 0, 1, 0},   {2, 2, 1, 3, 32, {11, 11}, {3, 3}, 1, 1, 1, 1, 1, 0, 0}, {2, 1, 1, 3, 20, {9, 30}, {7, 7}, 2, 1, 1, 3, 3, 0, 0},
    {2, 1, 1, 1, 5, {6, 6}, {3, 3}, 1, 1, 1, 1, 2, 0, 0},   {2, 2, 1, 3, 17, {8, 8}, {4, 4}, 4, 1, 1, 2, 1, 0, 0},  {2, 1, 4, 8, 12, {7, 9}, {3, 3}, 1, 1, 1, 1, 1, 0, 0}, {2, 1, 3, 4, 4, {6, 7}, {3, 3}, 2, 1, 1, 1, 1, 0, 0},
    {2, 1, 2, 5, 35, {5, 6}, {3, 3}, 1, 1, 2, 1, 1, 1, 0},  {1, 3, 19, 1, 1, {30}, {5}, 1, 1, 1, 4, 0, 0, 0},       {1, 2, 1, 2, 16, {21}, {3}, 2, 3, 1, 3, 3, 0, 0},      {3, 1, 10, 1, 1, {3, 4, 9}, {3, 3, 3}, 1, 1, 1, 1, 1, 0, 0},
    {3, 1, 1, 2, 9, {4, 3, 8}, {2, 3, 3}, 2, 1, 1, 1, 1, 0, 0}, {2, 1, 24, 1, 1, {9, 15}, {3, 3}, 1, 1, 1, 1, 1, 0, 1}, {2, 1, 1, 3, 21, {6, 9}, {3, 3}, 1, 1, 1, 1, 1, 0, 1},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    run_window(TT_F32, cases[i]);
    if (!cases[i].costly) run_window(TT_I32, cases[i]), run_window(TT_F16, cases[i]);
  }
}

/* Vectors along the summed channels: full panels, a part of one, both; taps in one loop with the panels and not; phases; a costly epilogue. */
Test(contract, windows_of_few_outputs) {
  static const window_case cases[] = {
    {2, 2, 1, 32, 3, {9, 9}, {3, 3}, 1, 1, 1, 1, 1, 0, 0}, {2, 1, 1, 19, 3, {7, 13}, {3, 3}, 2, 1, 1, 1, 1, 0, 0}, {2, 1, 1, 9, 1, {6, 25}, {5, 5}, 1, 1, 1, 2, 2, 0, 0},  {2, 2, 1, 16, 1, {6, 20}, {3, 3}, 1, 2, 1, 2, 2, 0, 0},
    {2, 1, 1, 40, 4, {3, 3}, {3, 3}, 1, 1, 1, 2, 0, 0, 0}, {2, 1, 1, 16, 2, {1, 1}, {3, 3}, 1, 1, 1, 1, 1, 0, 0},  {2, 1, 1, 24, 2, {4, 40}, {2, 7}, 3, 1, 1, 0, 5, 0, 0},  {2, 1, 1, 48, 3, {5, 6}, {3, 3}, 1, 1, 2, 1, 1, 0, 0},
    {2, 1, 1, 20, 3, {9, 9}, {7, 7}, 1, 1, 2, 3, 3, 1, 0}, {1, 2, 1, 17, 3, {21}, {3}, 1, 3, 1, 3, 3, 0, 0},       {3, 1, 1, 8, 3, {3, 4, 9}, {3, 3, 3}, 1, 1, 1, 1, 1, 0, 0}, {2, 1, 1, 33, 3, {6, 9}, {3, 3}, 1, 1, 1, 1, 1, 0, 1},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) run_window(TT_F32, cases[i]), run_window(TT_F64, cases[i]);
}

/* Weight gradients of depthwise ones and of first layers, in parts: x [N,H,W,G,C], dy [N,OH,OW,G,O]. */
typedef struct { int64_t n, g, c, o, h, w, kh, kw, stride, dilation, lo, hi, split; } sums_case;

static void run_sums(tt_dtype t, sums_case c) {
  char what[192];
  snprintf(what, sizeof what, "weight gradient n%lld g%lld c%lld o%lld %lldx%lld kernel %lldx%lld stride %lld dilation %lld lo %lld hi %lld split %lld", (long long)c.n, (long long)c.g, (long long)c.c, (long long)c.o, (long long)c.h,
           (long long)c.w, (long long)c.kh, (long long)c.kw, (long long)c.stride, (long long)c.dilation, (long long)c.lo, (long long)c.hi, (long long)c.split);
  ir_graph *g = ir_graph_new("f");
  int64_t lo[5] = {0, c.lo, c.lo}, hi[5] = {0, c.hi, c.hi}, none[5] = {0};
  int64_t oh = (c.h + c.lo + c.hi - (c.kh - 1) * c.dilation - 1) / c.stride + 1, ow = (c.w + c.lo + c.hi - (c.kw - 1) * c.dilation - 1) / c.stride + 1;
  ir_ref x = ir_input(g, "x", t, SHAPE(c.n, c.h, c.w, c.g, c.c)), dy = ir_input(g, "dy", t, SHAPE(c.n, oh, ow, c.g, c.o));
  uint32_t region = g->at_region = ir_kernel_add(g, "k");
  ir_ref padded = c.lo || c.hi ? ir_pad(g, x, ir_scalar(g, t, 0), lo, hi, none) : x;
  ir_ref conv = ir_conv(g, ir_permute(g, padded, (int[]){4, 3, 0, 1, 2}), ir_permute(g, dy, (int[]){3, 4, 0, 1, 2}), &(ir_conv_attrs){.stride = {c.dilation, c.dilation}, .dilation = {c.stride, c.stride}, .split = c.split});
  ir_output_add(g, "dw", ir_permute(g, conv, c.split > 1 ? (int[]){0, 2, 3, 1, 4, 5} : (int[]){1, 2, 0, 3, 4}));
  pass_window see;
  cr_assert(g->error.status == TT_OK && pass_window_of(g, conv, &see) && see.sums == (c.g > 1) && see.weights == (c.g == 1) && !see.pad == !(c.lo || c.hi), "%s: %s", what, g->error.message);
  check_kernel(g, x, dy, region, what);
}

Test(contract, window_sums) {
  static const sums_case cases[] = {
    {4, 24, 1, 1, 9, 9, 3, 3, 1, 1, 1, 1, 1},  {4, 17, 1, 1, 13, 14, 3, 3, 2, 1, 1, 1, 2}, {4, 40, 1, 1, 8, 11, 5, 5, 1, 1, 2, 2, 4}, {6, 10, 1, 1, 9, 12, 3, 3, 1, 2, 2, 2, 3}, {4, 8, 1, 1, 10, 9, 2, 3, 1, 1, 0, 1, 1},
    {4, 12, 1, 1, 7, 7, 1, 1, 1, 1, 0, 0, 2},  {4, 5, 1, 1, 6, 6, 3, 3, 1, 1, 1, 1, 1},   {4, 9, 1, 1, 20, 6, 4, 2, 1, 3, 3, 0, 2},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    run_sums(TT_F32, cases[i]);
    run_sums(TT_I32, cases[i]);
    if (cases[i].split == 1) run_sums(TT_F16, cases[i]);
  }
}

/* Taps of a line are channels; blocks of whole images, of some lines, and of one; panels that are not full; a border that is wider than what is read. */
Test(contract, weights_of_few_channels) {
  static const sums_case cases[] = {
    {4, 1, 3, 32, 9, 9, 3, 3, 1, 1, 1, 1, 1},   {4, 1, 3, 16, 32, 32, 3, 3, 1, 1, 1, 1, 2}, {4, 1, 3, 20, 15, 15, 7, 7, 2, 1, 3, 3, 2}, {3, 1, 1, 9, 14, 14, 5, 5, 1, 1, 2, 2, 3}, {2, 1, 4, 8, 12, 10, 3, 3, 1, 1, 0, 0, 1},
    {2, 1, 2, 40, 40, 20, 1, 5, 1, 1, 2, 2, 2}, {3, 1, 7, 33, 13, 13, 4, 3, 3, 1, 1, 2, 1},  {4, 1, 3, 24, 2, 9, 3, 3, 1, 1, 3, 3, 1},    {2, 1, 3, 48, 16, 150, 3, 3, 1, 1, 1, 0, 1}, {1, 1, 3, 8, 9, 9, 11, 2, 1, 1, 5, 5, 1},
    {2, 1, 5, 16, 17, 16, 2, 2, 2, 1, 0, 1, 1},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    run_sums(TT_F32, cases[i]);
    run_sums(TT_F64, cases[i]);
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

/* ---- plan entries that replace the choice */

typedef struct { const char *name; int64_t value[2]; uint32_t n; } entry;

static ir_graph *product(int64_t batch, int64_t m, int64_t n, int64_t k, bool ta, bool tb, int epilogue, ir_ref *a, ir_ref *b, uint32_t *region) {
  ir_graph *g = ir_graph_new("f");
  *a = ir_input(g, "a", TT_F32, batch ? SHAPE(batch, ta ? k : m, ta ? m : k) : SHAPE(ta ? k : m, ta ? m : k));
  *b = ir_input(g, "b", TT_F32, batch ? SHAPE(batch, tb ? n : k, tb ? k : n) : SHAPE(tb ? n : k, tb ? k : n));
  if (region) *region = g->at_region = ir_kernel_add(g, "k");
  ir_ref r = ir_matmul(g, *a, *b, ta, tb, 1), first = r;
  if (epilogue & 1) r = ir_ew1(g, IR_relu, r);
  if (epilogue & 2) r = ir_ew1(g, IR_exp, ir_ew1(g, IR_sign, r));        /* costly: a loop of its own */
  ir_output_add(g, "r", r);
  if (epilogue & 4) ir_output_add(g, "first", first);
  return g;
}

Test(contract, plan_entries) {
  static const entry entries[][3] = {
    {{"tile", {3, 16}, 2}}, {{"tile", {1, 8}, 2}, {"chunk", {5}, 1}}, {{"tile", {8, 4}, 2}, {"pack", {1}, 1}}, {{"pack", {0}, 1}}, {{"pack", {1}, 1}},
    {{"pack", {1}, 1}, {"blocks", {3}, 1}}, {{"blocks", {2}, 1}}, {{"blocks", {16}, 1}}, {{"chunk", {1}, 1}}, {{"chunk", {2}, 1}, {"pack", {1}, 1}, {"group", {2}, 1}},
    {{"pack", {1}, 1}, {"copy", {1}, 1}, {"blocks", {4}, 1}}, {{"pack", {1}, 1}, {"group", {1}, 1}, {"chunk", {2}, 1}}, {{"inside", {1}, 1}, {"pack", {0}, 1}},
    {{"inside", {1}, 1}, {"pack", {1}, 1}, {"copy", {1}, 1}},
  };
  static const int64_t sizes[][4] = {{0, 40, 70, 33}, {0, 23, 40, 34}, {2, 7, 66, 20}};
  for (size_t i = 0; i < sizeof entries / sizeof *entries; i++)
    for (size_t j = 0; j < sizeof sizes / sizeof *sizes; j++) {
      int ways = (int)(i + j) % 4;
      bool ta = ways & 1, tb = ways >> 1 && strcmp(entries[i][0].name, "inside") && entries[i][0].value[0];
      ir_ref a, b;
      uint32_t region;
      ir_graph *g = product(sizes[j][0], sizes[j][1], sizes[j][2], sizes[j][3], ta, tb, (int)(i + j) % 3, &a, &b, &region);
      if ((i + j) % 3 == 2 && !strcmp(entries[i][0].name, "inside")) { ir_graph_free(g); continue; }      /* a costly epilogue goes along no rows */
      char what[128];
      snprintf(what, sizeof what, "plan %zu on product %zu ta=%d tb=%d", i, j, ta, tb);
      for (int e = 0; e < 3 && entries[i][e].name; e++) ir_kernel_plan(g, region, entries[i][e].name, entries[i][e].value, entries[i][e].n);
      check_kernel(g, a, b, region, what);
    }
}

Test(contract, plan_entries_that_cannot_be) {
  static const entry entries[] = {{"tile", {0, 16}, 2}, {"tile", {6}, 1}, {"tile", {6, 1000}, 2}, {"pack", {2}, 1}, {"pack", {0}, 1}, {"blocks", {0}, 1}, {"blocks", {41}, 1}, {"chunk", {0}, 1}, {"chunk", {-1}, 1},
                                  {"inside", {1}, 1}, {"group", {0}, 1}, {"copy", {2}, 1}};
  for (size_t i = 0; i < sizeof entries / sizeof *entries; i++) {
    ir_ref a, b, rows[16];
    uint32_t region;
    tt_error err = {0};
    ir_graph *g = product(0, 50, 60, 40, false, true, 0, &a, &b, &region);      /* b's rows are contiguous: it must be packed */
    ir_kernel_plan(g, region, entries[i].name, entries[i].value, entries[i].n);
    cr_assert_null(cg_lower_contract(g, region, &cpus[1], rows, 16, &err), "entry %zu", i);
    cr_assert_eq(err.status, TT_INVALID);
    cr_assert(strstr(err.message, entries[i].name) && strstr(err.message, "\n  fix: "), "%s", err.message);
    ir_graph_free(g);
  }
}

/* ---- machine code of random products, with random plans, against the interpreter */

static uint32_t seed = 12345;
static int64_t pick(int64_t least, int64_t most) {
  seed = seed * 1664525u + 1013904223u;
  return least + (int64_t)((uint64_t)(seed >> 8) * (uint64_t)(most - least + 1) >> 24);
}

static void run_program(rt_program *p, rt_team *team, tt_tensor *const *x, tt_tensor **y, int n_out, const char *what) {
  static const char *names[] = {"r", "first"};
  tt_error err = {0};
  rt_instance *run = rt_instance_new(p, team, &err);
  cr_assert(run, "%s: %s", what, err.message);
  cr_assert(rt_bind(run, "a", x[0], &err) == TT_OK && rt_bind(run, "b", x[1], &err) == TT_OK, "%s: %s", what, err.message);
  for (int i = 0; i < n_out; i++) cr_assert_eq(rt_bind(run, names[i], y[i], &err), TT_OK, "%s: %s", what, err.message);
  cr_assert_eq(rt_run(run, &err), TT_OK, "%s: %s", what, err.message);
  rt_instance_free(run);
  rt_program_free(p);
}

static void random_product(rt_team *team, int round) {
  static const char *levels[] = {"native", "x86-64-v3", "x86-64-v2"};
  tt_error err = {0};
  bool large = round % 8 == 7;
  int64_t batch = large ? 0 : pick(-3, 3), m = pick(1, large ? 300 : 70), n = pick(1, large ? 600 : 70), k = pick(large ? 64 : 1, large ? 1500 : 70);
  if (batch < 0) batch = 0;
  if (large && pick(0, 1)) n = (n + 127) / 128 * 128;
  int ways = (int)pick(0, 3), epilogue = (int)pick(0, 5);
  char what[256];
  snprintf(what, sizeof what, "round %d: %lldx%lldx%lldx%lld ta=%d tb=%d epilogue=%d", round, (long long)batch, (long long)m, (long long)n, (long long)k, ways & 1, ways >> 1, epilogue);
  ir_ref a, b;
  ir_graph *g = product(batch, m, n, k, ways & 1, ways >> 1, epilogue, &a, &b, NULL), *s = NULL;
  cr_assert_eq(g->error.status, TT_OK, "%s: %s", what, g->error.message);
  tt_shape sa = ir_shape(g, a), sb = ir_shape(g, b), sc = ir_shape(g, g->outputs[0].value);
  tt_tensor *x[2] = {tt_tensor_new(TT_F32, &sa, &err), tt_tensor_new(TT_F32, &sb, &err)}, *y[4];
  for (int i = 0; i < 2; i++)
    for (int64_t j = 0, count = tt_shape_count(i ? &sb : &sa); j < count; j++) ((float *)tt_tensor_data(x[i]))[j] = (float)pick(-2, 2);
  for (int i = 0; i < 4; i++) y[i] = tt_tensor_new(TT_F32, &sc, &err);
  int n_out = epilogue & 4 ? 2 : 1;
  for (int way = 0; way < 4; way++) {        /* the interpreter, then the levels */
    cg_cpu cpu = {0};
    rt_program *p = NULL;
    if (way && cg_cpu_get(levels[way - 1], &cpu, &err) != TT_OK) { err = (tt_error){0}; continue; }
    pass_options o = {.vector_bytes = cpu.vector_bytes, .n_registers = cpu.n_registers};
    cr_assert_eq(pass_run(g, &s, NULL, NULL, &o, NULL, NULL, &err), TT_OK, "%s: %s", what, err.message);
    if (way && round % 2)
      for (uint32_t r = 1; r < s->n_kernels; r++) {
        uint32_t count;
        const int64_t *kind = ir_kernel_get(s, r, "kind", &count);
        if (!kind || *kind != 1) continue;
        int64_t tile[2] = {pick(1, 8), 4 << pick(0, 2)}, one = 1, blocks = pick(1, k < 5 ? k : 5);
        ir_kernel_plan(s, r, "tile", tile, 2);
        if (m > 1 && n > 1 && pick(0, 1)) ir_kernel_plan(s, r, "pack", &one, 1);
        if (m > 1 && n > 1 && pick(0, 1)) ir_kernel_plan(s, r, "blocks", &blocks, 1);
        if (pick(0, 1)) ir_kernel_plan(s, r, "chunk", &one, 1);
      }
    cr_assert_eq(way ? cg_jit(s, &(cg_options){.cpu = levels[way - 1], .n_threads = 1}, &p, &err) : cg_interp(s, NULL, &p, &err), TT_OK, "%s %s: %s", what, way ? levels[way - 1] : "", err.message);
    run_program(p, team, x, way ? y + 2 : y, n_out, what);
    for (int i = 0; way && i < n_out; i++)
      for (int64_t j = 0; j < tt_shape_count(&sc); j++) {
        float got = ((float *)tt_tensor_data(y[2 + i]))[j], want = ((float *)tt_tensor_data(y[i]))[j];
        cr_assert(fabsf(got - want) <= 2e-6f * fabsf(want) * !!(epilogue & 2), "%s on %s: element %lld of result %d is %g, not %g", what, levels[way - 1], (long long)j, i, got, want);
      }
    ir_graph_free(s), s = NULL;
  }
  for (int i = 0; i < 2; i++) tt_tensor_free(x[i]);
  for (int i = 0; i < 4; i++) tt_tensor_free(y[i]);
  ir_graph_free(g);
}

Test(contract, random_products, .timeout = 120) {
  tt_error err = {0};
  rt_team *team = rt_team_new(2, &err);
  const char *rounds = getenv("TT_RANDOM_PRODUCTS");
  for (int i = 0, n = rounds ? atoi(rounds) : 24; i < n; i++) random_product(team, i);
  rt_team_free(team);
}
