/* interp_test.c: programs from graphs: slots, steps, outputs that are not computed in their place, assigns that read each other. The
 * little executor here runs any program on one thread, so that nothing of runtime/ is needed. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/codegen.h"

static ir_graph *parse(const char *text) {
  tt_error err = {0};
  ir_graph *g = ir_parse(text, strlen(text), "test.tt", &err);
  cr_assert_not_null(g, "%s", err.message);
  return g;
}

static rt_program *interp(const char *text) {
  tt_error err = {0};
  rt_program *p = NULL;
  ir_graph *g = parse(text);
  tt_status status = cg_interp(g, NULL, &p, &err);
  ir_graph_free(g);                                      /* a program needs its graph no more */
  cr_assert_eq(status, TT_OK, "%s", err.message);
  return p;
}

typedef struct { const rt_program *p; char *arena, *scratch, **slots; } machine;

static machine start(const rt_program *p) {
  machine m = {p, aligned_alloc(64, (p->arena_bytes + 127) / 64 * 64), aligned_alloc(64, (p->scratch_bytes + 127) / 64 * 64), calloc(p->n_slots + 1, sizeof(char *))};
  for (uint32_t i = 0; i < p->n_slots; i++) {
    const rt_slot *s = &p->slots[i];
    if (s->kind == RT_ARENA) cr_assert_leq(s->offset + s->bytes, p->arena_bytes);
    m.slots[i] = s->kind == RT_ARENA ? m.arena + s->offset : s->kind == RT_CONST ? (char *)s->data : aligned_alloc(64, (s->bytes + 127) / 64 * 64);
  }
  return m;
}

static void *slot(const machine *m, const char *name) {
  for (uint32_t i = 0; i < m->p->n_slots; i++)
    if (m->p->slots[i].name && !strcmp(m->p->slots[i].name, name)) return m->slots[i];
  cr_assert_fail("no slot %s", name);
  return NULL;
}

static void run(const machine *m) {
  for (uint32_t i = 0; i < m->p->n_steps; i++) {
    const rt_step *s = &m->p->steps[i];
    char *args[64];
    cr_assert_leq(s->n_args, 64);
    for (uint32_t k = 0; k < s->n_args; k++) args[k] = m->slots[m->p->args[s->args + k].slot];
    s->run(args, 0, s->tasks / 2, m->scratch, s->context);
    s->run(args, s->tasks / 2, s->tasks, m->scratch, s->context);
  }
}

static void stop(machine *m, rt_program *p) {
  for (uint32_t i = 0; i < p->n_slots; i++)
    if (p->slots[i].kind != RT_ARENA && p->slots[i].kind != RT_CONST) free(m->slots[i]);
  free(m->arena), free(m->scratch), free(m->slots);
  p->release(p);
}

static void expect(const machine *m, const char *name, const float *values, int n) {
  const float *have = slot(m, name);
  for (int i = 0; i < n; i++) cr_expect_float_eq(have[i], values[i], 1e-6f, "%s[%d] is %g, not %g", name, i, have[i], values[i]);
}
#define EXPECT(m, name, ...) expect(m, name, (float[]){__VA_ARGS__}, sizeof((float[]){__VA_ARGS__}) / sizeof(float))

Test(interp, a_layer) {
  rt_program *p = interp("func @f(%x: f32[2,3], param %w: f32[3,2]) -> f32[2,2], i64[2] {\n"
                         "  %z = matmul(%x, %w, ta=0, tb=0, split=1) : f32[2,2]  # m.c:3 fc\n"
                         "  %b = const(dtype=f32, shape=[2], value=[10, -20]) : f32[2]\n"
                         "  %c = broadcast(%b, shape=[2,2], dims=[1]) : f32[2,2]\n"
                         "  %a = add(%z, %c) : f32[2,2]\n"
                         "  %y = relu(%a) : f32[2,2]\n"
                         "  %i = argmax(%y, axis=1) : i64[2]\n"
                         "  return y=%y, which=%i\n"
                         "}\n");
  machine m = start(p);
  memcpy(slot(&m, "x"), (float[]){1, 2, 3, 4, 5, 6}, 24);
  memcpy(slot(&m, "w"), (float[]){1, 0, 0, 1, 1, 1}, 24);
  run(&m);
  EXPECT(&m, "y", 14, 0, 20, 0);
  cr_expect_eq(((int64_t *)slot(&m, "which"))[1], 0);
  cr_expect_str_eq(p->steps[0].name, "%z");
  cr_expect_str_eq(p->steps[0].origin, "m.c:3 fc");
  cr_expect(!p->args[0].written && !p->args[1].written && p->args[2].written);
  stop(&m, p);
}

Test(interp, outputs_and_assigns_see_old_values) {
  rt_program *p = interp("func @f(%x: f32[2], param %a: f32[2], state %b: f32[2], state %c: f32[2]) -> f32[2], f32[2], f32[2], f32[2], f32[2] {\n"
                         "  %s = add(%a, %b) : f32[2]\n"
                         "  assign(%a, %b)\n"
                         "  assign(%b, %a)\n"
                         "  assign(%c, %s)\n"
                         "  return s=%s, again=%s, was=%a, %x, old=%c\n"
                         "}\n");
  machine m = start(p);
  memcpy(slot(&m, "x"), (float[]){7, 8}, 8);
  memcpy(slot(&m, "a"), (float[]){1, 2}, 8);
  memcpy(slot(&m, "b"), (float[]){10, 20}, 8);
  memcpy(slot(&m, "c"), (float[]){-1, -2}, 8);
  run(&m);
  EXPECT(&m, "s", 11, 22);
  EXPECT(&m, "again", 11, 22);
  EXPECT(&m, "was", 1, 2);
  EXPECT(&m, "output3", 7, 8);
  EXPECT(&m, "old", -1, -2);
  EXPECT(&m, "a", 10, 20);
  EXPECT(&m, "b", 1, 2);
  EXPECT(&m, "c", 11, 22);
  run(&m);
  EXPECT(&m, "a", 1, 2);
  EXPECT(&m, "old", 11, 22);
  stop(&m, p);
}

Test(interp, memory_is_used_again) {
  char text[4000];
  size_t n = (size_t)snprintf(text, sizeof text, "func @f(%%v0: f32[1000]) -> f32[1000] {\n");
  for (int i = 1; i <= 20; i++) n += (size_t)snprintf(text + n, sizeof text - n, "  %%v%d = neg(%%v%d) : f32[1000]\n", i, i - 1);
  snprintf(text + n, sizeof text - n, "  return y=%%v20\n}\n");
  rt_program *p = interp(text);
  cr_expect_eq(p->arena_bytes, 4032 + 4000);
  machine m = start(p);
  for (int i = 0; i < 1000; i++) ((float *)slot(&m, "v0"))[i] = (float)i;
  run(&m);
  EXPECT(&m, "y", 0, 1, 2);
  stop(&m, p);
}

Test(interp, a_composite_is_refused) {
  tt_error err = {0};
  rt_program *p = NULL;
  ir_graph *g = parse("func @f(%x: f32[2]) -> f32[2] {\n  %y = softmax(%x, axis=0) : f32[2]\n  return %y\n}\n");
  cr_expect_eq(cg_interp(g, NULL, &p, &err), TT_INVALID);
  cr_expect(strstr(err.message, "fix: run the pass decompose"), "%s", err.message);
  ir_graph_free(g);
}

Test(cpu, levels) {
  cg_cpu cpu;
  tt_error err = {0};
  unsetenv("TT_CPU");
  cr_assert_eq(cg_cpu_get(NULL, &cpu, &err), TT_OK);
  int have = cpu.level;
  cr_expect_str_eq(cpu.name, "native");
  cr_expect(cpu.l1d >= 16 << 10 && cpu.l2 > cpu.l1d);
  cr_expect_eq(have >= 3, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
  cr_expect_eq(have >= 4, __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"));
  const char *names[] = {"x86-64-v2", "x86-64-v3", "x86-64-v4"};
  for (int level = 2; level <= 4; level++) {
    err.status = TT_OK;
    cr_expect_eq(cg_cpu_get(names[level - 2], &cpu, &err), level <= have ? TT_OK : TT_UNSUPPORTED, "%s", err.message);
    if (level <= have) cr_expect_eq(cpu.vector_bytes, 8 << (level - 1));
  }
  err.status = TT_OK;
  cr_expect_eq(cg_cpu_get("pentium", &cpu, &err), TT_INVALID);
  setenv("TT_CPU", "x86-64-v2", 1);
  err.status = TT_OK;
  cr_expect_eq(cg_cpu_get("native", &cpu, &err), TT_OK);
  cr_expect_eq(cpu.level, 2);
  cr_expect_not(cpu.fma);
}

/* ---- the same graph as machine code */

static rt_program *compile(const ir_graph *g, bool jit) {
  tt_error err = {0};
  rt_program *p = NULL;
  tt_status status = jit ? cg_jit(g, &(cg_options){.n_threads = 1}, &p, &err) : cg_interp(g, NULL, &p, &err);
  cr_assert_eq(status, TT_OK, "%s", err.message);
  return p;
}

static double element(const machine *m, uint32_t i, int64_t k) { return ir_load_double(m->p->slots[i].dtype, m->slots[i], k); }

/* Runs `steps` steps in the interpreter, on the graph as it was traced, and as machine code; all that has a name must agree. */
static void expect_same(const char *text, bool train, int steps, double tolerance) {
  tt_error err = {0};
  cg_cpu cpu;
  cr_assert_eq(cg_cpu_get(NULL, &cpu, &err), TT_OK);
  pass_options o = {.train = train, .optimizer = "sgd", .hyper = "momentum=0.9, weight_decay=1e-3", .vector_bytes = cpu.vector_bytes, .n_registers = cpu.n_registers};
  ir_graph *g = parse(text), *plain = NULL, *fused = NULL;
  cr_assert_eq(pass_run(g, &plain, NULL, "tidy", &o, NULL, NULL, &err), TT_OK, "%s", err.message);
  cr_assert_eq(pass_run(g, &fused, NULL, NULL, &o, NULL, NULL, &err), TT_OK, "%s", err.message);
  rt_program *p[2] = {compile(plain, false), compile(fused, true)};
  ir_graph_free(g), ir_graph_free(plain), ir_graph_free(fused);
  machine m[2] = {start(p[0]), start(p[1])};
  for (uint32_t i = 0; i < p[0]->n_slots; i++) {
    const rt_slot *s = &p[0]->slots[i];
    if (s->kind != RT_INPUT && s->kind != RT_PARAM) continue;
    bool momentum = strstr(s->name, ".momentum") != NULL;
    int64_t n = tt_shape_count(&s->shape);
    for (int64_t k = 0; k < n; k++) {
      double v = momentum ? 0 : s->dtype == TT_I64 ? (double)(tt_random_word(1, 0, i, (uint64_t)k) % 10) : !s->shape.rank ? 0.05 : ((int)(tt_random_word(1, 0, i, (uint64_t)k) >> 8) / 16777216. - 0.5) * (s->kind == RT_PARAM ? 0.2 : 2);
      ir_store_double(s->dtype, m[0].slots[i], k, v);
    }
    memcpy(slot(&m[1], s->name), m[0].slots[i], s->bytes);
  }
  for (int t = 0; t < steps; t++) run(&m[0]), run(&m[1]);
  int compared = 0;
  for (uint32_t i = 0; i < p[0]->n_slots; i++) {
    const rt_slot *s = &p[0]->slots[i];
    if (s->kind != RT_PARAM && s->kind != RT_OUTPUT) continue;
    const char *jit = slot(&m[1], s->name);
    double worst = 0;
    for (int64_t k = 0; k < tt_shape_count(&s->shape); k++) {
      double a = element(&m[0], i, k), d = a - ir_load_double(s->dtype, jit, k);
      if (!(d * d <= worst * worst)) worst = d;
    }
    cr_expect(worst * worst <= tolerance * tolerance, "%s differs by %g", s->name, worst);
    compared++;
  }
  cr_expect_gt(compared, 0);
  stop(&m[0], p[0]);
  stop(&m[1], p[1]);
}

Test(jit, assigns_and_outputs) {
  expect_same("func @f(%x: f32[70], param %a: f32[70], state %b: f32[70], state %c: f32[70]) -> f32[70], f32[70], f32[70], f32[70] {\n"
              "  %s = add(%a, %x) : f32[70]\n"
              "  %t = mul(%b, %x) : f32[70]\n"
              "  %u = mul(%c, %x) : f32[70]\n"
              "  assign(%a, %s)\n"
              "  assign(%b, %a)\n"
              "  assign(%c, %u)\n"
              "  return t=%t, old=%c, t2=%t, x2=%x\n"
              "}\n", false, 3, 1e-6);
}

Test(jit, a_step_of_training) {
  expect_same("func @mlp(%x: f32[30,60], %y: i64[30], param %w1: f32[60,33], param %b1: f32[33], param %w2: f32[33,10]) -> f32[] {\n"
              "  %z = matmul(%x, %w1, ta=0, tb=0, split=1) : f32[30,33] # m.c:1 fc1\n"
              "  %c = broadcast(%b1, shape=[30,33], dims=[1]) : f32[30,33] # m.c:1 fc1\n"
              "  %a = add(%z, %c) : f32[30,33] # m.c:1 fc1\n"
              "  %h = relu(%a) : f32[30,33] # m.c:2\n"
              "  %o = matmul(%h, %w2, ta=0, tb=0, split=1) : f32[30,10] # m.c:3 fc2\n"
              "  %l = log_softmax(%o, axis=1) : f32[30,10] # m.c:4\n"
              "  %i = reshape(%y, shape=[30,1]) : i64[30,1] # m.c:5\n"
              "  %g = gather(%l, %i, axis=1) : f32[30,1] # m.c:5\n"
              "  %s = sum(%g, axes=[0,1]) : f32[] # m.c:6\n"
              "  %k = const(dtype=f32, shape=[], value=-30) : f32[]\n"
              "  %loss = div(%s, %k) : f32[]\n"
              "  return loss=%loss\n"
              "}\n", true, 5, 2e-6);
}

Test(jit, a_step_of_a_convolutional_net) {
  expect_same("func @cnn(%x: f32[4,1,3,9,10], %y: i64[4], param %w1: f32[1,8,3,3,3], param %b1: f32[8], param %w2: f32[128,10]) -> f32[] {\n"
              "  %z = conv(%x, %w1, stride=[1,1], lo=[1,1], hi=[0,0], dilation=[1,1], x_dilation=[1,1], split=1) : f32[4,1,8,8,9]\n"
              "  %c = broadcast(%b1, shape=[4,1,8,8,9], dims=[2]) : f32[4,1,8,8,9]\n"
              "  %a = add(%z, %c) : f32[4,1,8,8,9]\n"
              "  %r = relu(%a) : f32[4,1,8,8,9]\n"
              "  %f = reshape(%r, shape=[4,8,8,9]) : f32[4,8,8,9]\n"
              "  %p = max_pool(%f, size=[2,2], stride=[2,2], lo=[0,0], hi=[0,0], dilation=[1,1]) : f32[4,8,4,4]\n"
              "  %v = reshape(%p, shape=[4,128]) : f32[4,128]\n"
              "  %o = matmul(%v, %w2, ta=0, tb=0, split=1) : f32[4,10]\n"
              "  %l = log_softmax(%o, axis=1) : f32[4,10]\n"
              "  %i = reshape(%y, shape=[4,1]) : i64[4,1]\n"
              "  %g = gather(%l, %i, axis=1) : f32[4,1]\n"
              "  %s = sum(%g, axes=[0,1]) : f32[]\n"
              "  %k = const(dtype=f32, shape=[], value=-4) : f32[]\n"
              "  %loss = div(%s, %k) : f32[]\n"
              "  return loss=%loss\n"
              "}\n", true, 5, 2e-6);
}

Test(jit, equal_kernels_are_one) {
  const char *text = "func @f(%x: f32[5,8], param %v: f32[8,8], param %w: f32[8,8]) -> f32[5,8] {\n"
                     "  %a = matmul(%x, %v, ta=0, tb=0, split=1) : f32[5,8]\n"
                     "  %b = tanh(%a) : f32[5,8]\n"
                     "  %c = matmul(%b, %w, ta=0, tb=0, split=1) : f32[5,8]\n"
                     "  %d = tanh(%c) : f32[5,8]\n"
                     "  return y=%d\n"
                     "}\n";
  tt_error err = {0};
  pass_options o = {.vector_bytes = 16, .n_registers = 16};
  ir_graph *g = parse(text), *fused = NULL;
  cr_assert_eq(pass_run(g, &fused, NULL, NULL, &o, NULL, NULL, &err), TT_OK, "%s", err.message);
  rt_program *p = compile(fused, true), *none = NULL;
  cr_expect_eq(p->n_steps, 2);
  cr_expect_eq(p->steps[0].run, p->steps[1].run);
  cr_expect_neq(p->args[p->steps[0].args + 1].slot, p->args[p->steps[1].args + 1].slot);
  p->release(p);
  cr_expect_eq(cg_jit(g, NULL, &none, &err), TT_INTERNAL);
  cr_expect(strstr(err.message, "is in no kernel"), "%s", err.message);
  for (const char *const *stage = (const char *[]){"loops", "llvm", "asm", NULL}; *stage; stage++) {
    cg_cpu cpu;
    err.status = TT_OK;
    cr_assert_eq(cg_cpu_get("x86-64-v2", &cpu, &err), TT_OK);
    char *dump = cg_dump(fused, *stage, &cpu, NULL, NULL, &err);
    cr_assert_not_null(dump, "%s", err.message);
    cr_expect(strstr(dump, fused->kernels[ir_at(fused, fused->outputs[0].value)->region].name));
    free(dump);
  }
  ir_graph_free(g), ir_graph_free(fused);
}

Test(jit, a_step_of_attention) {
  expect_same("func @block(%x: f32[2,7,16], %t: f32[2,7,16], %seed: u64[], %step: i64[], param %g: f32[16], param %b: f32[16], param %wq: f32[16,16], param %wk: f32[16,16], param %wv: f32[16,16]) -> f32[], i64[2,7,16] {\n"
              "  %n = layer_norm(%x, %g, %b, axes=1, eps=1e-5) : f32[2,7,16]\n"
              "  %f = reshape(%n, shape=[14,16]) : f32[14,16]\n"
              "  %q1 = matmul(%f, %wq, ta=0, tb=0, split=1) : f32[14,16]\n"
              "  %k1 = matmul(%f, %wk, ta=0, tb=0, split=1) : f32[14,16]\n"
              "  %v1 = matmul(%f, %wv, ta=0, tb=0, split=1) : f32[14,16]\n"
              "  %q2 = reshape(%q1, shape=[2,7,2,8]) : f32[2,7,2,8]\n"
              "  %k2 = reshape(%k1, shape=[2,7,2,8]) : f32[2,7,2,8]\n"
              "  %v2 = reshape(%v1, shape=[2,7,2,8]) : f32[2,7,2,8]\n"
              "  %q = permute(%q2, perm=[0,2,1,3]) : f32[2,2,7,8]\n"
              "  %k = permute(%k2, perm=[0,2,1,3]) : f32[2,2,7,8]\n"
              "  %v = permute(%v2, perm=[0,2,1,3]) : f32[2,2,7,8]\n"
              "  %s = matmul(%q, %k, ta=0, tb=1, split=1) : f32[2,2,7,7]\n"
              "  %p = softmax(%s, axis=3) : f32[2,2,7,7]\n"
              "  %st = cast(%step, dtype=u64) : u64[]\n"
              "  %d = dropout(%p, %seed, %st, p=0.25, stream=3) : f32[2,2,7,7]\n"
              "  %o1 = matmul(%d, %v, ta=0, tb=0, split=1) : f32[2,2,7,8]\n"
              "  %o2 = permute(%o1, perm=[0,2,1,3]) : f32[2,7,2,8]\n"
              "  %o3 = reshape(%o2, shape=[2,7,16]) : f32[2,7,16]\n"
              "  %u = gelu(%o3, tanh=0) : f32[2,7,16]\n"
              "  %h = add(%u, %x) : f32[2,7,16]\n"
              "  %e = sub(%h, %t) : f32[2,7,16]\n"
              "  %ee = mul(%e, %e) : f32[2,7,16]\n"
              "  %loss = sum(%ee, axes=[0,1,2]) : f32[]\n"
              "  %order = argsort(%x, axis=1, descending=1) : i64[2,7,16]\n"
              "  return loss=%loss, order=%order\n"
              "}\n", true, 4, 1e-4);
}
