/* Measured plans: keys of kernels, the file, the pass, and a compilation that uses one. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "codegen/codegen.h"
#include "frontend/frontend.h"

static ir_graph *traced(const char *x_name) {
  tt_error err = {0};
  tt_trace *t = tt_trace_new("f", false);
  tt_val x = tt_input(t, x_name, TT_F32, TT_SHAPE(96, 64)), w = tt_input(t, "w", TT_F32, TT_SHAPE(64, 80)), v = tt_input(t, "v", TT_F32, TT_SHAPE(64, 80));
  tt_val a = tt_relu(tt_matmul(x, w)), b = tt_relu(tt_matmul(x, v));
  tt_output(t, "y", tt_softmax(tt_add(a, b), 1));
  ir_graph *g = NULL;
  cr_assert_eq(tt_trace_finish(t, &g, &err), TT_OK, "%s", err.message);
  tt_trace_free(t);
  return g;
}

static ir_graph *scheduled(const ir_graph *g, pass_tunings *tunings, const char *last) {
  tt_error err = {0};
  pass_options o = {.vector_bytes = 16, .n_registers = 16, .tunings = tunings, .skip = "fuse"};
  ir_graph *out = NULL;
  cr_assert_eq(pass_run(g, &out, NULL, last, &o, NULL, NULL, &err), TT_OK, "%s", err.message);
  return out;
}

Test(tune, keys) {
  tt_error err = {0};
  ir_graph *g = traced("x"), *h = traced("other"), *a = scheduled(g, NULL, "schedule"), *b = scheduled(h, NULL, "schedule");
  pass_kernels *ka = pass_kernels_of(a, &err), *kb = pass_kernels_of(b, &err);
  cr_assert(ka && kb && ka->n == kb->n && ka->n > 3);
  int products = 0, equal = 0;
  for (int i = 0; i < ka->n; i++) {
    cr_expect_eq(ka->at[i].key, kb->at[i].key);                    /* names are not in it */
    products += ka->at[i].kind == 1;
    for (int j = 0; j < i; j++) equal += ka->at[i].key == ka->at[j].key;
    ir_graph *alone = pass_kernel_alone(a, ka->at[i].region, &err);
    cr_assert_not_null(alone, "%s", err.message);
    cr_assert_eq(ir_verify(alone, "alone", &err), TT_OK, "%s", err.message);
    pass_kernels *one = pass_kernels_of(alone, &err);
    cr_assert(one && one->n == 1);
    cr_expect_eq(one->at[0].key, ka->at[i].key);
    cr_expect_eq(one->at[0].kind, ka->at[i].kind);
    pass_kernels_free(one);
    ir_graph_free(alone);
  }
  cr_expect(products == 2 && equal >= 2, "%d products, %d equal pairs", products, equal);      /* the products are one kernel, so are the relus */
  pass_kernels_free(ka), pass_kernels_free(kb);
  ir_graph_free(a), ir_graph_free(b), ir_graph_free(g), ir_graph_free(h);
}

#define LINE "here/v2/16 00c0ffee00c0ffee tile=[4,8] pack=[1] 1.250 # k1_matmul: f32[96,80]\n"
Test(tune, file) {
  tt_error err = {0};
  pass_tunings *ts = pass_tunings_new("here/v2/16"), *again = pass_tunings_new("here/v2/16");
  const char *text = "# a comment\n\nthere/v3/32 0123456789abcdef lanes=[16] 2 # k\n" LINE;
  cr_assert_eq(pass_tunings_read(ts, text, strlen(text), "f", &err), TT_OK, "%s", err.message);
  cr_expect(ts->n == 2 && ts->mine == 1 && ts->at[1].n == 2 && ts->at[1].entries[0].values[1] == 8 && ts->at[1].key == 0xc0ffee00c0ffee);
  char *printed = pass_tunings_text(ts);
  cr_expect(strstr(printed, LINE), "%s", printed);                 /* lines of other CPUs are kept too */
  cr_expect(strstr(printed, "there/v3/32 0123456789abcdef lanes=[16] 2.000 # k\n"), "%s", printed);
  cr_assert_eq(pass_tunings_read(again, printed, strlen(printed), "f", &err), TT_OK, "%s", err.message);
  cr_expect_eq(again->n, 2);
  pass_tuning t = ts->at[1];
  t.n = 1;
  cr_expect_eq(pass_tunings_set(again, &t, &err), TT_OK);
  t.key = 5;
  cr_expect_eq(pass_tunings_set(again, &t, &err), TT_OK);
  cr_expect(again->n == 3 && again->mine == 2 && again->at[1].n == 1);
  static const struct { const char *text, *says; } bad[] = {
    {"here/v2/16 00c0ffee00c0ffee tile=[4,8] 1.25 # k", "a line of text"},                    /* cut off */
    {"here/v2/16 00c0ffee00c0ffee tile=[4,8] 1.25\n", "the kernel's name"},
    {"garbage # k\n", "a CPU"}, {"here/v2/16 c0ffee tile=[4,8] 1.25 # k\n", "16 hexadecimal digits, found \"c0ffee\""},
    {"here/v2/16 00c0ffee00c0ffee 1.25 # k\n", "a plan entry"}, {"here/v2/16 00c0ffee00c0ffee tile=[4] 1.25 # k\n", "found \"tile=[4]\""},
    {"here/v2/16 00c0ffee00c0ffee tile=[4,8,2] 1.25 # k\n", "a plan entry"}, {"here/v2/16 00c0ffee00c0ffee speed=[4] 1.25 # k\n", "a plan entry"},
    {"here/v2/16 00c0ffee00c0ffee pack=[-1] 1.25 # k\n", "a plan entry"}, {"here/v2/16 00c0ffee00c0ffee pack=[1] fast # k\n", "how many times"},
    {"here/v2/16 00c0ffee00c0ffee pack=[1] 0 # k\n", "how many times"}, {"here/v2/16 00c0ffee00c0ffee pack=[1] 2 2 # k\n", "nothing more"},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    char both[200];
    err = (tt_error){0};
    snprintf(both, sizeof both, "# one\n%s", bad[i].text);
    cr_expect_eq(pass_tunings_read(ts, both, strlen(both), "f", &err), TT_FORMAT, "%s", bad[i].text);
    cr_expect(strstr(err.message, bad[i].says) && strstr(err.message, "f:2:"), "%s", err.message);
  }
  free(printed);
  pass_tunings_free(ts), pass_tunings_free(again);
}

Test(tune, the_pass) {
  tt_error err = {0};
  ir_graph *g = traced("x"), *plain = scheduled(g, NULL, "schedule");
  pass_kernels *ks = pass_kernels_of(plain, &err);
  pass_tunings *mine = pass_tunings_new("here/v2/16"), *foreign = pass_tunings_new("there/v2/16");
  for (int i = 0; i < ks->n; i++) {
    pass_tuning t = {.key = ks->at[i].key, .n = 1, .ratio = 2, .entries = {{"grain", 1, {512}}}};
    if (ks->at[i].kind == 1) t.n = 2, t.entries[0] = (pass_entry){"pack", 1, {1}}, t.entries[1] = (pass_entry){"tile", 2, {3, 8}};
    cr_assert_eq(pass_tunings_set(mine, &t, &err), TT_OK);
  }
  for (int i = 0; i < mine->n; i++) strcpy(mine->at[i].about, "k");
  char *text = pass_tunings_text(mine);
  cr_assert_eq(pass_tunings_read(foreign, text, strlen(text), "f", &err), TT_OK, "%s", err.message);
  pass_tunings_free(mine);                                                                     /* names of entries are read anew */
  mine = pass_tunings_new("here/v2/16");
  cr_assert_eq(pass_tunings_read(mine, text, strlen(text), "f", &err), TT_OK);
  ir_graph *tuned = scheduled(g, mine, "tune"), *same = scheduled(g, foreign, "tune");
  char *a = ir_print(plain), *b = ir_print(tuned), *c = ir_print(same);
  cr_expect_str_eq(a, c);
  cr_expect(strstr(b, "kind=1, pack=1, tile=[3,8]") || strstr(b, "kind=[1], pack=[1], tile=[3,8]"), "%s", b);
  cr_expect(strstr(b, "grain=512") || strstr(b, "grain=[512]"), "%s", b);
  cr_expect(mine->used && mine->n_used == ks->n && !foreign->used && !foreign->mine);
  ir_graph *back = ir_parse(b, strlen(b), "tuned", &err);                                      /* a dump with plans is a graph like any other */
  cr_expect(back && ir_verify(back, "reading", &err) == TT_OK, "%s", err.message);
  free(a), free(b), free(c), free(text);
  ir_graph_free(back), ir_graph_free(tuned), ir_graph_free(same), ir_graph_free(plain), ir_graph_free(g);
  pass_kernels_free(ks);
  pass_tunings_free(mine), pass_tunings_free(foreign);
}

/* A compilation with a file of plans gives the same numbers up to rounding, says what it used, and errs where the file does. */
static void run(const ir_graph *g, const char *path, float *y, uint64_t *used) {
  tt_error err = {0};
  rt_program *p = NULL;
  cr_assert_eq(tt_compile(g, &(tt_compile_options){.tuned = path}, &p, &err), TT_OK, "%s", err.message);
  rt_team *team = rt_team_new(2, &err);
  rt_instance *x = rt_instance_new(p, team, &err);
  for (uint32_t i = 0; i < p->n_slots; i++) {
    if (p->slots[i].kind != RT_INPUT) continue;
    tt_tensor *t = tt_tensor_new(p->slots[i].dtype, &p->slots[i].shape, &err);
    for (int64_t k = 0; k < tt_shape_count(&p->slots[i].shape); k++) ((float *)tt_tensor_data(t))[k] = (float)tt_random_word(1, 0, 0, (uint64_t)k) * 0x1p-34f;
    cr_assert_eq(rt_bind_slot(x, (int)i, t, &err), TT_OK);
    tt_tensor_free(t);
  }
  cr_assert_eq(rt_run(x, &err), TT_OK);
  memcpy(y, tt_tensor_data(rt_bound(x, "y")), 96 * 80 * 4);
  *used = p->tuned;
  rt_instance_free(x);
  rt_team_free(team);
  rt_program_free(p);
}

Test(tune, compilation) {
  tt_error err = {0};
  cg_cpu cpu;
  cr_assert_eq(cg_cpu_get(NULL, &cpu, &err), TT_OK);
  char here[64], path[] = "/tmp/tt-tune-XXXXXX";
  pass_options o = {.vector_bytes = cpu.vector_bytes, .n_registers = cpu.n_registers};
  ir_graph *g = traced("x"), *plain = NULL;
  cr_assert_eq(pass_run(g, &plain, NULL, "schedule", &o, NULL, NULL, &err), TT_OK);
  pass_kernels *ks = pass_kernels_of(plain, &err);
  int file = mkstemp(path);
  for (int i = 0; i < ks->n; i++)
    dprintf(file, "%s %016llx %s 1.5 # kernel\n", cg_cpu_text(&cpu, here, sizeof here), (unsigned long long)ks->at[i].key, ks->at[i].kind == 1 ? "blocks=[4] chunk=[2]" : "lanes=[8] grain=[300]");
  static float want[96 * 80], have[96 * 80];
  uint64_t none, used;
  run(g, "none", want, &none);
  run(g, path, have, &used);
  cr_expect(none == 0 && used != 0);
  for (int i = 0; i < 96 * 80; i++) cr_assert_float_eq(have[i], want[i], 1e-6f);
  dprintf(file, "%s zz tile=[1,1] 1 # kernel\n", here);
  rt_program *p = NULL;
  cr_expect_eq(tt_compile(g, &(tt_compile_options){.tuned = path}, &p, &err), TT_FORMAT);
  cr_expect(strstr(err.message, "16 hexadecimal digits, found \"zz\""), "%s", err.message);
  close(file);
  unlink(path);
  err = (tt_error){0};
  cr_expect_neq(tt_compile(g, &(tt_compile_options){.tuned = path}, &p, &err), TT_OK);           /* a file that is named must be there */
  cr_expect_null(p);
  pass_kernels_free(ks);
  ir_graph_free(plain), ir_graph_free(g);
}

/* Every plan of a product stays within its buffers (the evaluator of loops checks) and gives the default's numbers. */
static double *evaluate(const ir_graph *alone, const pass_entry *entries, int n, const cg_cpu *cpu, int64_t *count) {
  tt_error err = {0};
  pass_options o = {.vector_bytes = cpu->vector_bytes, .n_registers = cpu->n_registers};
  ir_graph *g = ir_clone(alone), *placed = NULL;
  for (int i = 0; i < n; i++) ir_kernel_plan(g, 1, entries[i].name, entries[i].values, entries[i].n);
  cr_assert_eq(pass_run(g, &placed, "memory", NULL, &o, NULL, NULL, &err), TT_OK, "%s", err.message);
  ir_ref rows[16];
  uint32_t region = ir_at(placed, placed->outputs[0].value)->region;
  lp_kernel *k = cg_lower_contract(placed, region, cpu, rows, 16, &err);
  double *result = NULL;
  if (k) {
    void *buffers[16];
    int n_buffers = 0;
    for (int b = 0; b < k->n_buffers; b++) {
      if (k->buffers[b].scratch) continue;
      float *data = buffers[n_buffers++] = calloc((size_t)k->buffers[b].count + 1, 4);
      for (int64_t i = 0; !k->buffers[b].written && i < k->buffers[b].count; i++) data[i] = (float)(tt_random_word((uint64_t)b, 0, 0, (uint64_t)i) % 8);
    }
    cr_assert_eq(lp_eval(k, buffers, 0, k->tasks, &err), TT_OK, "%s", err.message);
    for (int b = 0, a = 0; b < k->n_buffers; b++) {
      if (k->buffers[b].scratch) continue;
      if (k->buffers[b].written) {
        *count = k->buffers[b].count;
        result = calloc((size_t)*count, sizeof *result);
        for (int64_t i = 0; i < *count; i++) result[i] = (double)((float *)buffers[a])[i];
      }
      free(buffers[a++]);
    }
    lp_free(k);
  } else cr_assert_eq(err.status, TT_INVALID, "%s", err.message);      /* said to be impossible */
  ir_graph_free(placed), ir_graph_free(g);
  return result;
}

Test(tune, every_plan_of_a_product, .timeout = 120) {
  static const int64_t shapes[][3] = {{8, 20, 7}, {17, 9, 33}, {33, 40, 5}, {1, 24, 40}};
  int tried = 0;
  for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
    tt_error err = {0};
    cg_cpu cpu;
    cr_assert_eq(cg_cpu_get(s % 2 ? "x86-64-v2" : NULL, &cpu, &err), TT_OK);
    char text[500];
    snprintf(text, sizeof text, "func @f(%%a: f32[%d,%d], %%b: f32[%d,%d]) -> f32[%d,%d] {\n  %%c = matmul(%%a, %%b) : f32[%d,%d]\n  return %%c\n}\n", (int)shapes[s][0], (int)shapes[s][2],
             (int)shapes[s][2], (int)shapes[s][1], (int)shapes[s][0], (int)shapes[s][1], (int)shapes[s][0], (int)shapes[s][1]);
    ir_graph *g = ir_parse(text, strlen(text), "text", &err), *ready = NULL;
    cr_assert_not_null(g, "%s", err.message);
    pass_options o = {.vector_bytes = cpu.vector_bytes, .n_registers = cpu.n_registers};
    cr_assert_eq(pass_run(g, &ready, NULL, "schedule", &o, NULL, NULL, &err), TT_OK, "%s", err.message);
    pass_kernels *ks = pass_kernels_of(ready, &err);
    ir_graph *alone = pass_kernel_alone(ready, ks->at[0].region, &err);
    int64_t count = 0;
    double *want = evaluate(alone, NULL, 0, &cpu, &count);
    cr_assert_not_null(want);
    for (int i = 0; i < 6 * 3 * 8 * 2; i++) {
      pass_entry e[] = {{"tile", 2, {1 + i % 6 * 2, 4 << i / 6 % 3}}, {"pack", 1, {i / 18 % 2}}, {"blocks", 1, {1 + 2 * (i / 36 % 2)}}, {"chunk", 1, {1 + 2 * (i / 72 % 2)}}, {"inside", 1, {i / 144}}};
      double *have = evaluate(alone, e, 4 + i / 144, &cpu, &count);
      for (int64_t k = 0; have && k < count; k++) cr_assert_eq(have[k], want[k], "%s, plan %d: element %lld", text, i, (long long)k);
      tried += have != NULL;
      free(have);
    }
    free(want);
    pass_kernels_free(ks);
    ir_graph_free(alone), ir_graph_free(ready), ir_graph_free(g);
  }
  cr_assert_gt(tried, 200);
}
