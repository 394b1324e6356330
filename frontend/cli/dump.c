/* dump.c: any stage of a model's compilation, as text that parses back, or as a picture. */
#include <stdlib.h>
#include <string.h>

#include "../frontend.h"
#include "dot.h"
#include "options.h"
#include "watch.h"

const cli_option cli_dump_options[] = {
  {"stage", "NAME", "trace, a pass of the pipeline, loops, llvm or asm (default trace)"},
  {"train", NULL, "the training step, not the evaluation"},
  {"generate", "N", "of gpt, gpt2: the program with which generate takes N more tokens (it has one for 1, and one for 32)"},
  {"format", "text|dot|svg", "default text"},
  {"data", "SET:DIR", "takes image size and classes from a data set (default: the model's)"},
  {"batch-size", "N", "default: the model's"},
  CLI_UPDATE,
  CLI_BUDGET, CLI_THREADS,
  CLI_CPU, CLI_PRODUCTS, CLI_SKIP, CLI_TUNED,
  {"output", "FILE", "instead of standard output"},
  CLI_TIME_PASSES,
  {NULL, NULL, NULL},
};

/* trace, the passes, and codegen's stages behind them. */
static bool stage_known(const cli_args *a) {
  const char *names[64] = {"trace"};
  int n = 1;
  for (const pass_info *p = pass_table; p->name && n < 60; p++) names[n++] = p->name;
  names[n++] = "loops", names[n++] = "llvm", names[n++] = "asm", names[n] = NULL;
  return cli_choice(a, "stage", names);
}

static void warn(void *user, const char *text) { fprintf(stderr, "warning: %s\n", text); }

int cli_dump(const cli_args *a) {
  tt_error err = {0};
  if (a->n_words != 1) return cli_usage(a, "one model");
  const model_info *info = cli_model(a->words[0]);
  if (!info) return 2;
  const char *stage = cli_get(a, "stage", "trace"), *format = cli_get(a, "format", "text"), *output = cli_get(a, "output", NULL);
  bool machine = strcmp(stage, "loops") == 0 || strcmp(stage, "llvm") == 0 || strcmp(stage, "asm") == 0;
  cli_update update;
  int64_t batch, budget, threads, tokens, capacity;
  if (!stage_known(a) || !cli_update_read(a, info, &update) || !cli_choice(a, "format", (const char *const[]){"text", "dot", "svg", NULL}) || !cli_target(a) || !cli_int(a, "batch-size", info->batch, 1, &batch) ||
      !cli_bytes(a, "memory-budget", &budget) || !cli_int(a, "threads", 0, 0, &threads) || !cli_int(a, "generate", 0, 1, &tokens)) return 2;
  if (machine && strcmp(format, "text") != 0) return cli_usage(a, "loops, llvm and asm are text only");
  if (tokens && (!info->context || info->masked > 0)) return cli_usage(a, "the model makes no text; gpt and gpt2 do");
  model_config arg;
  tt_dtype dtype;
  tt_shape shape;
  if (!cli_input(a, info, batch, &arg, &dtype, &shape, &err)) return cli_fail(&err);
  cli_watch watch = cli_watch_new(a);
  cg_cpu cpu;
  if (cg_cpu_target(cli_get(a, "cpu", NULL), &cpu, &err)) return cli_fail(&err);      /* not to be run */
  tt_model *m = cli_model_new(a, info, &arg, &err);
  ir_graph *g = NULL, *out = NULL;
  char *text = NULL;
  if (m && (tokens ? model_trace_rows(m, tokens, &g, &capacity, &err) : tt_model_trace(m, dtype, &shape, model_labels(info), cli_has(a, "train"), &g, &err)) == TT_OK) {
    tt_compile_options o = {.cpu = cli_get(a, "cpu", NULL), .train = cli_has(a, "train"), .n_threads = (int)threads, .memory_budget = budget, .skip = cli_get(a, "skip", NULL), .products = cli_products(a), .tuned = cli_get(a, "tuned", NULL), .watch = cli_watch_pass, .warn = warn, .user = &watch};
    cli_update_put(&update, &o);
    const ir_graph *shown = g;
    if (strcmp(stage, "trace") != 0 && compile_scheduled(g, &o, machine ? NULL : stage, &out, &err) == TT_OK) shown = out;
    if (!err.status) {
      text = machine ? cg_dump(shown, stage, &cpu, watch.times ? cli_watch_kernel : NULL, &watch, &err) : strcmp(format, "text") == 0 ? ir_print(shown) : cli_dot(shown);
      if (text && strcmp(format, "svg") == 0) cli_dot_to_svg(text, output, &err);
      else if (text) cli_write(output, text, &err);
      else if (!err.status) tt_fail(&err, TT_NO_MEMORY, "error: no memory for the text\n  at stage %s\n  fix: free memory, or take a smaller batch", stage);
    }
  }
  if (m) cli_warnings(m);
  free(text);
  ir_graph_free(out);
  ir_graph_free(g);
  tt_model_free(m);
  return err.status ? cli_fail(&err) : 0;
}
