/* bench.c: `tinytorch bench WHAT`: the table of what can be measured. */
#include "bench.h"

#include <string.h>

#include "../frontend/cli/options.h"

const char cli_bench_about[] =
  "times ops and models against the machine's limits and other frameworks\n\n"
  "  ops [WORKLOAD ...]            op.matmul.64x256x4096, op.conv.64_64_32_64_3_1 (N_C_H_K_R_S[_G]; also conv_dx, conv_dw, conv_bwd), op.softmax.4096x1024 ...\n"
  "  models [WORKLOAD ...]         train.cnn.b64, infer.resnet20.b1 ...\n"
  "                                a beginning (matmul, conv_dx, train) names all usual ones of it, none names all; any size may be asked for\n"
  "  compile [WORKLOAD ...]        from the start of a process until its program is ready, cold and from the cache\n"
  "  memory [WORKLOAD ...]         growth of a process over 20 steps, and the plan\n"
  "  budget [WORKLOAD ...]         training steps in half of the memory of their activations, or in --memory-budget: time and growth\n"
  "  program FILE [ARG ...]        from the start of a program compiled ahead of time to its first step\n"
  "  start WORKLOAD                what compile and memory start: one workload in this process, a line of JSON\n"
  "  verdict FILE.json ...         PASS or FAIL of each row that has a bar: what script/show limit and modern call\n"
  "  report FILE.json ...          docs/performance.md\n"
  "  jit-vs-interp [MODEL ...]     training steps, compiled against interpreted\n"
  "  kernels [MODEL ...]           where the time of a training step goes, kernel by kernel; with --generate 1 that of a token\n\n"
  "This process is bound to the first N cores, as other frameworks are. Sides take turns of 25 ms; medians with 95% bootstrap intervals. A row is marked\n"
  "NOT QUIET when a quarter of the probes between turns (a fixed loop on each core) took 5% longer than the best. Images are channels-last, weights OIHW.";

const cli_option cli_bench_options[] = {
  {"threads", "N", "ops, models: default 1; else TT_NUM_THREADS, or as many as this process may use"},
  {"seconds", "X", "ops, models: time for each side of a workload (default 0.5); jit-vs-interp: for each model (default 15)"},
  {"peers", "[=DIR]", "other frameworks too, by the programs in DIR (default TINYTORCH_PEERS_DIR, else ../shared/peers)"},
  {"frameworks", "a,b", "these of them only: torch, torch-cl, torch-compile, torch-compile-cl, torch-freeze, jax, ort, openvino"},
  {"blas", "FILE", "products: a library with cblas_sgemm to compare with; may be given several times"},
  {"patience", "X", "seconds until another framework must be ready, its compilation included (default 300)"},
  {"runs", "N", "compile: processes for each workload, cold and from cache (default 3); program: starts (default 20)"},
  {"steps", "N", "memory, budget, start: steps to run (default 20)"},
  {"json", "FILE", "figures as JSON too"},
  {"svg", "FILE", "and as a picture: shares of the bound with intervals, and the roofline"},
  {"compare", "OLD.json", "names what is slower than in an older run, with its interval; the exit status is 1 then"},
  {"tuned", "FILE", "use these measured plans of tinytorch tune (default: none)"},
  {"memory-budget", "BYTES", "what a program may need, such as 50MiB: values are computed again instead of kept"},
  CLI_CPU, CLI_SKIP, CLI_PRODUCTS,
  {"generate", "N", "kernels: of the program with which generate takes N more tokens (it has one for 1, and one for 32), behind half of the context"},
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
  {"budget", bench_budget}, {"program", bench_program},
  {"start", bench_start},                     /* one workload in this process: what those start */
  {"verdict", bench_verdicts}, {"report", bench_report},     /* of files of figures */
  {"jit-vs-interp", jit_vs_interp}, {"kernels", kernels},
};
enum { N_TABLE = sizeof table / sizeof *table };

int cli_bench(const cli_args *a) {
  const char *names[N_TABLE + 1] = {0};
  for (int i = 0; i < N_TABLE; i++) names[i] = table[i].name;
  if (a->n_words < 1) return cli_usage(a, "which benchmark? there are ops, models, compile, memory, budget, program, verdict, report, jit-vs-interp and kernels");
  for (int i = 0; i < N_TABLE; i++)
    if (!strcmp(a->words[0], names[i])) return table[i].run(a);
  return cli_unknown("benchmark", a->words[0], names);
}
