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
  {"optimizer", "NAME", "a row of passes/optim.def (default: the model's)"},
  {"hyper", "\"k=v, ...\"", "its hyperparameters"},
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

static int place_of(const char *pass) {
  int i = 0;
  while (pass_table[i].name && strcmp(pass_table[i].name, pass)) i++;
  return i;
}

/* Under a budget the pipeline's end runs more than once: what stays is the last graph that a pass up to the stage gave. */
typedef struct { cli_watch *watch; const char *stage; ir_graph *kept; } keeper;
static void keep_stage(void *user, const char *pass, const ir_graph *g, double milliseconds) {
  keeper *k = user;
  cli_watch_pass(k->watch, pass, g, milliseconds);
  if (!strcmp(pass, "trace") || place_of(pass) > place_of(k->stage)) return;
  ir_graph_free(k->kept);
  k->kept = ir_clone(g);
}

static ir_graph *within(const ir_graph *g, tt_compile_options o, const char *stage, cli_watch *watch, tt_error *err) {
  keeper k = {watch, stage, NULL};
  ir_graph *ready;
  o.watch = keep_stage, o.user = &k;
  if (compile_scheduled(g, &o, &ready, err) != TT_OK) return ir_graph_free(k.kept), NULL;
  ir_graph_free(ready);
  return k.kept ? k.kept : ir_clone(g);
}

int cli_dump(const cli_args *a) {
  tt_error err = {0};
  if (a->n_words != 1) return cli_usage(a, "one model");
  const model_info *info = cli_model(a->words[0]);
  if (!info) return 2;
  const char *stage = cli_get(a, "stage", "trace"), *format = cli_get(a, "format", "text"), *output = cli_get(a, "output", NULL);
  bool machine = strcmp(stage, "loops") == 0 || strcmp(stage, "llvm") == 0 || strcmp(stage, "asm") == 0;
  if (!stage_known(a) || !cli_choice(a, "format", (const char *const[]){"text", "dot", "svg", NULL}) || !cli_target(a)) return 2;
  if (machine && strcmp(format, "text") != 0) return cli_usage(a, "loops, llvm and asm are text only");
  int64_t batch, budget, threads, tokens, capacity;
  if (!cli_int(a, "batch-size", info->batch, 1, &batch) || !cli_bytes(a, "memory-budget", &budget) || !cli_int(a, "threads", 0, 0, &threads) || !cli_int(a, "generate", 0, 1, &tokens)) return 2;
  if (tokens && (!info->context || info->masked > 0)) return cli_usage(a, "the model makes no text; gpt and gpt2 do");
  model_config arg;
  tt_dtype dtype;
  tt_shape shape;
  if (!cli_input(a, info, batch, &arg, &dtype, &shape, &err)) return cli_fail(&err);
  bool train = cli_has(a, "train");
  cli_watch watch = cli_watch_new(a);
  cg_cpu cpu;
  if (cg_cpu_target(cli_get(a, "cpu", NULL), &cpu, &err)) return cli_fail(&err);      /* not to be run */
  tt_model *m = cli_model_new(a, info, &arg, &err);
  ir_graph *g = NULL, *out = NULL;
  char *text = NULL;
  if (m && (tokens ? model_trace_rows(m, tokens, &g, &capacity, &err) : tt_model_trace(m, dtype, &shape, model_labels(info), train, &g, &err)) == TT_OK) {
    const char *optimizer = cli_get(a, "optimizer", info->optimizer);
    pass_options o = {.train = train, .optimizer = optimizer, .hyper = cli_get(a, "hyper", strcmp(optimizer, info->optimizer) == 0 ? info->hyper : NULL),
                      .bf16 = cpu.bf16 || cpu.amx, .vector_bytes = cpu.vector_bytes, .n_registers = cpu.n_registers, .skip = cli_get(a, "skip", NULL)};
    const ir_graph *shown = g;
    if (products_of(cli_products(a), &o, &err) && tuned_for(cli_get(a, "tuned", NULL), &cpu, &o.tunings, &err) == TT_OK && strcmp(stage, "trace") != 0) {
      tt_compile_options c = {.cpu = cli_get(a, "cpu", NULL), .skip = o.skip, .tuned = cli_get(a, "tuned", NULL), .products = cli_products(a), .n_threads = (int)threads, .memory_budget = budget, .train = train, .optimizer = optimizer, .hyper = o.hyper};
      if (budget) out = within(g, c, stage, &watch, &err);
      else pass_run(g, &out, NULL, machine ? NULL : stage, &o, cli_watch_pass, &watch, &err);
      if (out) shown = out;
      else if (!err.status) tt_fail(&err, TT_NO_MEMORY, "error: no memory for a graph\n  at stage %s\n  fix: free memory", stage);
    }
    if (!err.status) {
      text = machine ? cg_dump(shown, stage, &cpu, watch.times ? cli_watch_kernel : NULL, &watch, &err) : strcmp(format, "text") == 0 ? ir_print(shown) : cli_dot(shown);
      if (text && strcmp(format, "svg") == 0) cli_dot_to_svg(text, output, &err);
      else if (text) cli_write(output, text, &err);
      else if (!err.status) tt_fail(&err, TT_NO_MEMORY, "error: no memory for the text\n  at stage %s\n  fix: free memory, or take a smaller batch", stage);
    }
    char note[4300];
    if (tuned_note(o.tunings, cli_get(a, "tuned", ""), note, sizeof note)) fprintf(stderr, "warning: %s\n", note);
    pass_tunings_free(o.tunings);
  }
  if (m) cli_warnings(m);
  free(text);
  ir_graph_free(out);
  ir_graph_free(g);
  tt_model_free(m);
  return err.status ? cli_fail(&err) : 0;
}
