/* ours.c: a workload as a program of our own, with everything that it reads bound: random data, initial weights, a fixed learning rate. */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

#include "../frontend/cli/options.h"
#include "../frontend/frontend.h"

typedef struct { rt_program *program; rt_instance *run; bench_facts facts; } ours;

/* Values for a slot: of a parameter its initializer's; else in -1 .. 1, labels below `classes`. */
static bool fill(rt_team *team, const rt_slot *s, const tt_trace *t, int64_t classes, tt_tensor *x, tt_error *err) {
  void *data = tt_tensor_data(x);
  int64_t n = tt_shape_count(&s->shape);
  uint64_t state = 1;
  for (const char *c = s->name; *c; c++) state = state * 31 + (uint8_t)*c;
  if (s->kind == RT_PARAM) {
    for (int i = 0; i < t->n_params; i++)
      if (!strcmp(t->params[i].name, s->name)) return init_fill(team, t->params[i].init, s->name, 1, s->dtype, &s->shape, data, err) == TT_OK;
    return true;                                         /* an optimizer's state begins as zeros */
  }
  for (int64_t i = 0; i < n; i++) {
    double u = bench_random(&state);
    if (s->dtype == TT_F32) ((float *)data)[i] = (float)(2 * u - 1);
    else if (s->dtype == TT_F64) ((double *)data)[i] = 0.01;
    else if (s->dtype == TT_I32) ((int32_t *)data)[i] = (int32_t)(u * (double)classes);
  }
  return true;
}

static bool bind_all(ours *o, rt_team *team, const tt_trace *t, int64_t classes, tt_error *err) {
  for (uint32_t i = 0; i < o->program->n_slots; i++) {
    const rt_slot *s = &o->program->slots[i];
    double bytes = (double)tt_shape_count(&s->shape) * (double)tt_dtype_size(s->dtype);
    if (s->kind == RT_OUTPUT) o->facts.out += bytes;
    if (s->kind == RT_INPUT) o->facts.in += bytes;
    if (s->kind == RT_PARAM) o->facts.params += bytes;
    if (s->kind != RT_INPUT && s->kind != RT_PARAM) continue;
    tt_tensor *x = tt_tensor_new(s->dtype, &s->shape, err);
    bool ok = x && fill(team, s, t, classes, x, err) && rt_bind(o->run, s->name, x, err) == TT_OK;
    tt_tensor_free(x);
    if (!ok) return false;
  }
  return true;
}

/* Short programs run several times a sample, so that the clock does not count. */
static bool run(bench_side *s, int n, double *ms) {
  ours *o = s->self;
  tt_error err = {0};
  int repeat = s->once > 0 && s->once < 0.02 ? (int)(0.02 / s->once) + 1 : 1;
  for (int i = 0; i < n; i++) {
    double start = bench_now();
    for (int k = 0; k < repeat; k++)
      if (rt_run(o->run, &err) != TT_OK) return snprintf(s->error, sizeof s->error, "%.399s", err.message), false;
    ms[i] = 1e3 * (bench_now() - start) / repeat;
  }
  return true;
}

static void close_ours(bench_side *s) {
  ours *o = s->self;
  rt_instance_free(o->run);
  rt_program_free(o->program);
  free(o);
}

bench_facts bench_ours_facts(const bench_side *s) { return s->self ? ((const ours *)s->self)->facts : (bench_facts){0}; }

/* With so many elements a task, which the cost model would not take: for kernels whose barriers are to be measured. */
static bool compile_with_grain(const ir_graph *g, const char *skip, int64_t grain, const char *cpu, int n_threads, rt_program **p, tt_error *err) {
  cg_cpu target;
  ir_graph *ready = NULL;
  if (cg_cpu_get(cpu, &target, err) != TT_OK) return false;
  pass_options po = {.vector_bytes = target.vector_bytes, .n_registers = target.n_registers, .skip = skip};
  if (pass_run(g, &ready, NULL, NULL, &po, NULL, NULL, err) != TT_OK) return false;
  for (uint32_t k = 1; k < ready->n_kernels; k++) {
    ir_kernel_plan(ready, k, "lanes", &grain, 1);
    ir_kernel_plan(ready, k, "grain", &grain, 1);
  }
  bool ok = cg_jit(ready, &(cg_options){.cpu = cpu, .n_threads = n_threads}, p, err) == TT_OK;
  ir_graph_free(ready);
  return ok;
}

bool bench_target_of(const cli_args *a, bench_target *t) {
  *t = (bench_target){cli_get(a, "cpu", NULL), cli_get(a, "skip", NULL), cli_get(a, "tuned", NULL), cli_products(a), 0};
  return cli_precision(a) && cli_bytes(a, "memory-budget", &t->memory_budget);
}

bool bench_ours(bench_side *s, const bench_workload *w, rt_team *team, const bench_target *target, tt_error *err) {
  const bench_family *f = w->family;
  *s = (bench_side){.framework = "tinytorch"};
  if (!f->trace) {
    snprintf(s->error, sizeof s->error, "not in the language yet");
    return true;
  }
  ours *o = calloc(1, sizeof *o);
  tt_trace *t = tt_trace_new(f->what, strcmp(f->kind, "infer") != 0);
  if (!o || !t) {
    free(o);
    tt_trace_free(t);
    return tt_fail(err, TT_NO_MEMORY, "error: no memory for a workload\n  at %s\n  fix: free memory", w->name), false;
  }
  *s = (bench_side){.framework = "tinytorch", .run = run, .close = close_ours, .self = o};
  f->trace(t, w);
  ir_graph *g = NULL;
  char skip[200];
  snprintf(skip, sizeof skip, "%s%s%s", target->skip ? target->skip : "", target->skip && f->skip ? "," : "", f->skip ? f->skip : "");
  tt_compile_options co = {.cpu = target->cpu, .skip = skip, .tuned = target->tuned ? target->tuned : "none", .products = target->products, .n_threads = rt_team_size(team), .memory_budget = target->memory_budget, .train = !strcmp(f->kind, "train"), .optimizer = f->optimizer, .hyper = f->hyper};
  double start = bench_now();
  bool ok = tt_trace_finish(t, &g, err) == TT_OK && (f->grain ? compile_with_grain(g, skip, f->grain, target->cpu, rt_team_size(team), &o->program, err) : tt_compile(g, &co, &o->program, err) == TT_OK);
  o->facts.compile_ms = 1e3 * (bench_now() - start);
  ok = ok && (o->run = rt_instance_new(o->program, team, err)) && bind_all(o, team, t, !strcmp(f->what, "tiny") ? 4 : w->n > 1 ? w->size[1] : 10, err);
  for (uint32_t i = 0; ok && i < o->program->n_steps; i++) o->facts.winograd |= o->program->steps[i].name && strstr(o->program->steps[i].name, "winograd");
  if (ok) o->facts.kernels = o->program->n_steps, o->facts.plan = (double)rt_program_memory(o->program, rt_team_size(team)).total, o->facts.arena = (double)o->program->arena_bytes;
  ir_graph_free(g);
  tt_trace_free(t);
  if (ok) return true;
  bench_side_close(s);
  return false;
}
