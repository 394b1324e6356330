/* jit_vs_interp.c: one training step of a model, compiled against interpreted, by turns in one process: the same weights, the same batch; and
 * where the time of the compiled step goes. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../frontend/cli/options.h"
#include "../frontend/frontend.h"
#include "bench.h"

typedef struct { tt_model *model; rt_program *program; rt_instance *run; } side;

static void side_free(side *s) {
  rt_instance_free(s->run);
  rt_program_free(s->program);
  tt_model_free(s->model);
}

/* Pseudo-random inputs of every kind of slot that a step may ask for. */
static bool bind_inputs(rt_instance *x, const rt_program *p, const model_info *info, int64_t classes, tt_error *err) {
  uint64_t state = 1;
  for (uint32_t i = 0; i < p->n_slots && !err->status; i++) {
    const rt_slot *s = &p->slots[i];
    if (s->kind != RT_INPUT) continue;
    tt_tensor *t = tt_tensor_new(s->dtype, &s->shape, err);
    if (!t) return false;
    int64_t n = tt_shape_count(&s->shape);
    void *data = tt_tensor_data(t);
    for (int64_t j = 0; j < n; j++) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      double u = (double)(state >> 40) / 16777216.0;
      if (s->dtype == TT_F32) ((float *)data)[j] = (float)(2 * u - 1);
      else if (s->dtype == TT_F64) ((double *)data)[j] = info->lr;
      else if (s->dtype == TT_I64) ((int64_t *)data)[j] = info->context / 2;                       /* a position */
      else if (s->dtype == TT_I32) ((int32_t *)data)[j] = (int32_t)(u * (double)classes);
    }
    rt_bind(x, s->name, t, err);
    tt_tensor_free(t);
  }
  return !err->status;
}

/* The model's parameters; what it has not is a cache of generate, which begins as zeros. */
static bool bind_params(side *s, tt_error *err) {
  for (uint32_t i = 0; i < s->program->n_slots && !err->status; i++) {
    const rt_slot *slot = &s->program->slots[i];
    if (slot->kind != RT_PARAM) continue;
    const rt_param *p = rt_params_find(tt_model_params(s->model), slot->name);
    tt_tensor *cache = p ? NULL : tt_tensor_new(slot->dtype, &slot->shape, err);
    if (p || cache) rt_bind_slot(s->run, (int)i, p ? p->tensor : cache, err);
    tt_tensor_free(cache);
  }
  return !err->status;
}

/* The program with which generate takes so many more tokens, behind half of the context; its caches are empty. */
static bool compile_rows(side *s, int64_t tokens, tt_error *err) {
  ir_graph *g = NULL;
  int64_t capacity;
  if (model_trace_rows(s->model, tokens, &g, &capacity, err) == TT_OK) model_compile_graph(s->model, g, &s->program, err);
  ir_graph_free(g);
  return !err->status;
}

static bool side_make(side *s, const cli_args *a, const model_info *info, model_config *arg, const char *backend, tt_dtype dtype, const tt_shape *shape, tt_error *err) {
  int64_t threads, tokens, budget;
  if (!cli_int(a, "threads", 0, 0, &threads) || !cli_int(a, "generate", 0, 1, &tokens) || !cli_bytes(a, "memory-budget", &budget)) return false;
  tt_model_options mo = {.name = info->name, .seed = 1, .backend = backend, .cpu = cli_get(a, "cpu", NULL), .skip = cli_get(a, "skip", NULL), .n_threads = (int)threads};
  tt_compile_options co = {.backend = backend, .cpu = mo.cpu, .skip = mo.skip, .train = true, .optimizer = info->optimizer, .hyper = info->hyper, .memory_budget = strcmp(backend, "interp") ? budget : 0};
  s->model = tt_model_new(info->function, arg, &mo, err);
  if (!s->model || !(tokens ? compile_rows(s, tokens, err) : tt_model_compile(s->model, dtype, shape, model_labels(info), &co, &s->program, err) == TT_OK)) return false;
  rt_team *team = tt_model_team(s->model, err);
  s->run = team ? rt_instance_new(s->program, team, err) : NULL;
  return s->run && bind_params(s, err) && bind_inputs(s->run, s->program, info, arg->classes, err);
}

static double step_ms(side *s, tt_error *err) {
  double start = bench_now();
  rt_run(s->run, err);
  return 1e3 * (bench_now() - start);
}

/* Input and classes, from the options. */
static bool workload(const cli_args *a, const model_info *info, model_config *arg, tt_dtype *dtype, tt_shape *shape, tt_error *err) {
  int64_t batch;
  return cli_int(a, "batch-size", info->batch, 1, &batch) && cli_input(a, info, batch, arg, dtype, shape, err);
}

static bool bench_model(const cli_args *a, const model_info *info, double seconds, json_t *rows, tt_error *err) {
  enum { MOST = 4000 };
  model_config arg;
  tt_dtype dtype;
  tt_shape shape;
  if (!workload(a, info, &arg, &dtype, &shape, err)) return false;
  side jit = {0}, interp = {0};
  double *jit_ms = malloc(MOST * sizeof *jit_ms), *interp_ms = malloc(MOST * sizeof *interp_ms), flops = 0, compile = bench_now();
  int n_jit = 0, n_interp = 0;
  bool ok = jit_ms && interp_ms && side_make(&jit, a, info, &arg, "jit", dtype, &shape, err);
  compile = 1e3 * (bench_now() - compile);
  ok = ok && side_make(&interp, a, info, &arg, "interp", dtype, &shape, err);
  ir_graph *g = NULL;
  if (ok && tt_model_trace(jit.model, dtype, &shape, model_labels(info), false, &g, err) == TT_OK) flops = bench_train_flops(g);
  ir_graph_free(g);
  double peak = 0, start = bench_now();
  rt_team *team = ok ? tt_model_team(jit.model, err) : NULL;
  for (int i = 0; i < 5 && ok; i++) step_ms(&jit, err);                                  /* warm-up */
  while (ok && !err->status && n_interp < MOST && (n_interp < 3 || bench_now() - start < seconds)) {
    double p = rt_machine_peak_f32(team);
    if (p > peak) peak = p;
    double turn = bench_now();
    while (n_jit < MOST && (n_jit < 10 || bench_now() - turn < 0.3)) jit_ms[n_jit++] = step_ms(&jit, err);
    interp_ms[n_interp++] = step_ms(&interp, err);
  }
  ok = ok && !err->status;
  if (ok) {
    bench_stat j = bench_stats(jit_ms, n_jit), i = bench_stats(interp_ms, n_interp);
    double bound = 1e3 * flops / peak;
    printf("%-10s b%-4lld %9.3f ms [%.3f, %.3f]   %10.1f ms [%.1f, %.1f]  %7.0fx   %6.1f GFLOP/s, %4.1f%% of %.0f   %6.2f GFLOP/s   compiled in %.0f ms\n", info->name,
           (long long)shape.dim[0], j.median, j.low, j.high, i.median, i.low, i.high, i.median / j.median, flops / j.median / 1e6, 100 * bound / j.median, peak / 1e9,
           flops / i.median / 1e6, compile);
    json_array_append_new(rows, json_pack("{s:s, s:I, s:i, s:f, s:f, s:[f,f,f], s:[f,f,f], s:f, s:f}", "model", info->name, "batch", (json_int_t)shape.dim[0], "threads",
                                          rt_team_size(team), "flops", flops, "peak_flops", peak, "jit_ms", j.median, j.low, j.high, "interp_ms", i.median, i.low,
                                          i.high, "percent_of_bound", 100 * bound / j.median, "compile_ms", compile));
  }
  side_free(&jit);
  side_free(&interp);
  free(jit_ms);
  free(interp_ms);
  return ok;
}

typedef struct { const char *name, *origin; int64_t tasks; double ms; } kernel_time;

static int slowest_first(const void *a, const void *b) {
  double x = ((const kernel_time *)a)->ms, y = ((const kernel_time *)b)->ms;
  return (x < y) - (x > y);
}

/* Where the time of a step goes: the median of each kernel, slowest first. */
static bool bench_kernels(const cli_args *a, const model_info *info, tt_error *err) {
  enum { RUNS = 21 };
  model_config arg;
  tt_dtype dtype;
  tt_shape shape;
  side jit = {0};
  if (!workload(a, info, &arg, &dtype, &shape, err)) return false;
  bool ok = side_make(&jit, a, info, &arg, "jit", dtype, &shape, err);
  uint32_t n = ok ? jit.program->n_steps : 0;
  double *seconds = malloc((n + 1) * RUNS * sizeof *seconds), all = 0;
  kernel_time *times = calloc(n + 1, sizeof *times);
  ok = ok && seconds && times;
  for (int i = 0; i < 3 && ok; i++) ok = rt_run(jit.run, err) == TT_OK;
  for (int r = 0; r < RUNS && ok; r++) ok = rt_run_timed(jit.run, seconds + (size_t)r * n, err) == TT_OK;
  for (uint32_t k = 0; k < n && ok; k++) {
    double samples[RUNS];
    for (int r = 0; r < RUNS; r++) samples[r] = 1e3 * seconds[(size_t)r * n + k];
    times[k] = (kernel_time){jit.program->steps[k].name, jit.program->steps[k].origin, jit.program->steps[k].tasks, bench_stats(samples, RUNS).median};
    all += times[k].ms;
  }
  if (ok) {
    qsort(times, n, sizeof *times, slowest_first);
    printf("%s: %u kernels, %.3f ms (medians of %d, a barrier around each)\n%9s %6s %6s  %-34s %s\n", info->name, n, all, RUNS, "ms", "%", "tasks", "kernel", "from");
    for (uint32_t k = 0; k < n; k++)
      printf("%9.4f %6.1f %6lld  %-34s %.80s\n", times[k].ms, 100 * times[k].ms / all, (long long)times[k].tasks, times[k].name, times[k].origin ? times[k].origin : "");
  }
  free(seconds);
  free(times);
  side_free(&jit);
  return ok;
}

int bench_steps(const cli_args *a, bool kernels) {
  tt_error err = {0};
  double seconds;
  if (!cli_double(a, "seconds", 15, &seconds)) return 2;
  const char *names[64] = {"mlp", "cnn", "resnet20"};
  int n = 3;
  if (a->n_words > 1)
    for (n = 0; n < a->n_words - 1; n++) names[n] = a->words[n + 1];
  const model_info *models[64];
  for (int i = 0; i < n; i++)
    if (!(models[i] = cli_model(names[i]))) return 2;
  if (kernels) {
    for (int i = 0; i < n; i++)
      if (!bench_kernels(a, models[i], &err)) return err.status ? cli_fail(&err) : 2;
    return 0;
  }
  if (cli_has(a, "generate")) return cli_usage(a, "--generate goes with bench kernels");
  printf("one training step; medians with 95%% intervals; GFLOP/s count products and convolutions; the bound is their time at the measured f32 peak\n");
  printf("%-16s %9s ms %20s %10s ms\n", "model", "jit", "", "interp");
  json_t *rows = json_array();
  for (int i = 0; i < n && !err.status; i++)
    if (!bench_model(a, models[i], seconds, rows, &err) && !err.status) {
      json_decref(rows);
      return 2;
    }
  const char *file = cli_get(a, "json", NULL);
  if (file && !err.status) {
    char *text = json_dumps(rows, JSON_INDENT(2));
    if (text) cli_write(file, text, &err);
    free(text);
  }
  json_decref(rows);
  return err.status ? cli_fail(&err) : 0;
}
