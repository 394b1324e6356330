/* Products of bf16 operands: what the pass autocast means, the code for CPUs that have the instructions (which this one may lack: its assembly is looked
 * at), and the same loops by plain multiply-adds. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "compiled.h"
#include "runtime/runtime.h"

static tt_shape shape(int64_t rows, int64_t columns) { return (tt_shape){.rank = 2, .dim = {rows, columns}}; }

static double value_of(uint32_t *seed) {
  *seed = *seed * 1664525u + 1013904223u;
  return (double)(*seed >> 8) / (1 << 23) - 1;
}

static void *filled(const ir_graph *g, ir_ref r, uint32_t seed) {
  tt_shape s = ir_shape(g, r);
  char *data = calloc((size_t)tt_shape_count(&s) + 1, 8);
  for (int64_t i = 0; i < tt_shape_count(&s); i++) ir_store_double(ir_at(g, r)->dtype, data, i, value_of(&seed));
  return data;
}

/* relu(a b') with its operands in bf16, as one kernel. */
static ir_graph *kernel(int64_t m, int64_t n, int64_t k, ir_ref *a, ir_ref *b, ir_ref *r) {
  ir_graph *g = ir_graph_new("f");
  *a = ir_input(g, "a", TT_BF16, shape(m, k)), *b = ir_input(g, "b", TT_BF16, shape(n, k));
  g->at_region = ir_kernel_add(g, "k");
  *r = ir_ew1(g, IR_relu, ir_matmul(g, ir_cast(g, *a, TT_F32), ir_cast(g, *b, TT_F32), false, true, 1));
  ir_output_add(g, "r", *r);
  return g;
}

static int count(const char *text, const char *word) {
  int n = 0;
  for (const char *p = text; (p = strstr(p, word)); p++) n++;
  return n;
}

/* The innermost loop with `word`: how often it has that, and accesses of the stack. */
static void inner_loop(char *text, const char *word, int *has, int *spills) {
  char *loop = strstr(text, word);
  *has = *spills = 0;
  cr_assert(loop, "no %s in\n%s", word, text);
  while (loop > text && strncmp(loop, "\n.LBB", 5)) loop--;
  char *end = strstr(strstr(loop, word), "\n\tj");
  cr_assert(end);
  *end = 0;
  *has = count(loop, word), *spills = count(loop, "(%rsp)");
  *end = '\n';
}

Test(bf16, instructions) {
  tt_error err = {0};
  const cg_llvm_api *api = cg_llvm_open(&err);
  for (int amx = 0; amx < 2; amx++) {
    ir_ref a, b, r, rows[8];
    cg_cpu cpu;
    cr_assert_eq(cg_cpu_target(amx ? "x86-64-v4+amx" : "x86-64-v4+bf16", &cpu, &err), TT_OK, "%s", err.message);
    ir_graph *g = kernel(140, 96, 128, &a, &b, &r);
    lp_kernel *k = cg_lower_contract(g, 1, &cpu, rows, 8, &err);
    cr_assert(k, "%s", err.message);
    char *text = api->text(&cpu, k, true, &err);
    cr_assert(text, "%s", err.message);
    int has, spills;
    inner_loop(text, amx ? "tdpbf16ps" : "vdpbf16ps", &has, &spills);
    cr_expect(has == (amx ? 4 : 28) && spills == 0, "%d products, %d spills in\n%s", has, spills, text);
    if (amx) cr_expect_geq(count(text, "tileloadd"), 4);
    free(text);
    lp_free(k), ir_graph_free(g);
  }
}

/* The loops for vdpbf16ps, compiled for a CPU without it: each pair is two multiply-adds. */
Test(bf16, by_multiply_adds) {
  tt_error err = {0};
  const cg_llvm_api *api = cg_llvm_open(&err);
  ir_ref a, b, r, rows[8];
  cg_cpu cpu, with;
  cr_assert_eq(cg_cpu_get(NULL, &cpu, &err), TT_OK, "%s", err.message);
  with = cpu, cpu.bf16 = cpu.amx = with.amx = false, with.bf16 = true;
  ir_graph *g = kernel(61, 75, 333, &a, &b, &r);
  lp_kernel *k = cg_lower_contract(g, 1, &with, rows, 8, &err);
  rt_kernel *code;
  rt_code *c = k ? compiled(api, &cpu, &k, 1, &code, &err) : NULL;
  cr_assert(c, "%s", err.message);
  void **values = calloc(g->n_nodes, sizeof *values), *data_a = filled(g, a, 3), *data_b = filled(g, b, 4);
  values[a] = data_a, values[b] = data_b;
  cr_assert_eq(ir_eval(g, values, &err), TT_OK, "%s", err.message);
  float *got = calloc(61 * 75, sizeof *got);
  char *args[3] = {0}, *scratch = aligned_alloc(64, (lp_scratch_bytes(k) + 127) / 64 * 64);
  for (int i = 0; i < 3; i++) args[i] = rows[i] == a ? data_a : rows[i] == b ? data_b : (char *)got;
  code(args, 0, k->tasks, scratch, &rt_function_table);
  for (int i = 0; i < 61 * 75; i++) cr_assert_float_eq(got[i], ((float *)values[r])[i], 1e-4, "element %d is %g, not %g", i, (double)got[i], (double)((float *)values[r])[i]);
  free(got), free(scratch), rt_code_free(c), lp_free(k);
  ir_values_free(g, values), free(data_a), free(data_b), ir_graph_free(g);
}

/* Runs g after the pass, in f64 beside it what the unrounded product would be; the largest errors of both relative to sum |a b|. */
static void errors_of(int products, int64_t m, int64_t n, int64_t k, double scale, double *with, double *plain) {
  tt_error err = {0};
  ir_graph *g = ir_graph_new("f"), *out = NULL;
  ir_ref a = ir_input(g, "a", TT_F32, shape(m, k)), b = ir_input(g, "b", TT_F32, shape(k, n));
  ir_output_add(g, "r", ir_matmul(g, a, b, false, false, 1));
  pass_options o = {.products = products, .vector_bytes = 32, .n_registers = 16};
  cr_assert_eq(pass_run(g, &out, "autocast", NULL, &o, NULL, NULL, &err), TT_OK, "%s", err.message);
  float *x = filled(g, a, 5), *y = filled(g, b, 6);
  for (int64_t i = 0; i < m * k; i++) x[i] = (float)(x[i] * pow(scale, (double)(i % 7) - 3));
  void **values = calloc(out->n_nodes, sizeof *values);
  for (ir_ref r = 1; r < out->n_nodes; r++)
    if (ir_at(out, r)->op == IR_input) values[r] = strcmp(ir_str(ir_at(out, r), "name"), "a") ? (void *)y : (void *)x;
  cr_assert_eq(ir_eval(out, values, &err), TT_OK, "%s", err.message);
  const float *got = values[out->outputs[0].value];
  *with = *plain = 0;
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < n; j++) {
      double exact = 0, size = 0;
      float single = 0, sixfold = got[i * n + j];
      for (int64_t p = 0; p < k; p++) {
        double term = (double)x[i * k + p] * (double)y[p * n + j];
        exact += term, size += fabs(term), single = fmaf(x[i * k + p], y[p * n + j], single);
      }
      *with = fmax(*with, fabs((double)sixfold - exact) / size), *plain = fmax(*plain, fabs((double)single - exact) / size);
    }
  for (ir_ref r = 1; r < out->n_nodes; r++)
    if (values[r] == x || values[r] == y) values[r] = NULL;
  ir_values_free(out, values);
  free(x), free(y), ir_graph_free(out), ir_graph_free(g);
}

Test(bf16, rounded_operands) {
  double with, plain;
  errors_of(PASS_BF16, 9, 7, 40, 1, &with, &plain);
  cr_expect(with > 1e-4 && with < 0x1p-7, "error %g", with);
}

/* Six products of split operands: no worse than multiply-adds in f32, for operands of very different sizes too. */
Test(bf16, six_products) {
  double with, plain;
  for (int i = 0; i < 3; i++) {
    errors_of(PASS_BF16X6, 17, 9, 300, (double[]){1, 16, 0x1p-12}[i], &with, &plain);
    cr_expect(with <= plain && plain > 0, "error %g, of f32 %g", with, plain);
  }
}
