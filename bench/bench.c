/* bench.c: `tinytorch bench WHAT`: the table of what can be measured. */
#include "bench.h"

#include <string.h>

#include "../frontend/cli/options.h"

const cli_option cli_bench_options[] = {
  {"threads", "N", "ops, models: default 1; else TT_NUM_THREADS, or as many as this process may use"},
  {"seconds", "X", "ops, models: time for each side of a workload (default 0.5); jit-vs-interp: for each model (default 15)"},
  {"peers", "[=DIR]", "other frameworks too, by the programs in DIR (default TINYTORCH_PEERS_DIR, else ../shared/peers)"},
  {"frameworks", "a,b", "these of them only: torch, torch-cl, torch-compile, torch-compile-cl, torch-freeze, jax, ort, openvino"},
  {"blas", "FILE", "products: a library with cblas_sgemm to compare with; may be given several times"},
  {"runs", "N", "compile: processes for each workload, cold and from cache (default 3)"},
  {"steps", "N", "memory, start: steps to run (default 20)"},
  {"json", "FILE", "figures as JSON too"},
  {"svg", "FILE", "and as a picture: shares of the bound with intervals, and the roofline"},
  {"compare", "OLD.json", "names what is slower than in an older run, with its interval; the exit status is 1 then"},
  CLI_CPU, CLI_SKIP,
  {"batch-size", "N", "jit-vs-interp, kernels: default: the model's"},
  CLI_DATA,
  {NULL, NULL, NULL},
};

static int ops(const cli_args *a) { return bench_figures(a, false); }
static int models(const cli_args *a) { return bench_figures(a, true); }
static int compile(const cli_args *a) { return bench_costs(a, false); }
static int memory(const cli_args *a) { return bench_costs(a, true); }
static int jit_vs_interp(const cli_args *a) { return bench_steps(a, false); }
static int kernels(const cli_args *a) { return bench_steps(a, true); }

static const struct { const char *name; int (*run)(const cli_args *a); } table[] = {
  {"ops", ops},                               /* "op.conv.64_64_32_64_3_1", "matmul", none: the usual ones */
  {"models", models},                         /* "train.cnn.b64", "infer" */
  {"compile", compile}, {"memory", memory},   /* each in fresh processes */
  {"start", bench_start},                     /* one workload in this process: what those start */
  {"jit-vs-interp", jit_vs_interp}, {"kernels", kernels},
};
enum { N_TABLE = sizeof table / sizeof *table };

int cli_bench(const cli_args *a) {
  const char *names[N_TABLE + 1] = {0};
  for (int i = 0; i < N_TABLE; i++) names[i] = table[i].name;
  if (a->n_words < 1) return cli_usage(a, "which benchmark? there are ops, models, compile, memory, jit-vs-interp and kernels");
  for (int i = 0; i < N_TABLE; i++)
    if (!strcmp(a->words[0], names[i])) return table[i].run(a);
  return cli_unknown("benchmark", a->words[0], names);
}
