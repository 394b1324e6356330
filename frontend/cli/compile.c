/* compile.c: the command compile: a model ahead of time. */
#include <string.h>

#include "options.h"
#include "watch.h"

const cli_option cli_compile_options[] = {
  {"train", NULL, "its training step too, not only prediction"},
  {"output", "DIR", "(-o DIR) folder for model.o, model.h, weights.safetensors and example.c"},
  {"cpu", "NAME,...", "x86-64-v2, x86-64-v3, x86-64-v4, x86-64-v4+bf16, x86-64-v4+amx, native (default), or several: the best that a CPU can run is taken at start"},
  {"batch-size", "N", "default: the model's"},
  {"data", "SET:DIR", "takes image size and classes from a data set (default: the model's)"},
  {"weights", "FILE", "initial weights (safetensors; default: drawn from --seed)"},
  CLI_NO_EMA,
  {"seed", "N", "of the initial weights (default 1)"},
  CLI_UPDATE,
  {"lr", "X", "that the example trains with (default: the model's)"},
  CLI_PRODUCTS, CLI_SKIP, CLI_THREADS, CLI_TIME_PASSES,
  {NULL, NULL, NULL},
};

/* "a,b" into names; how many, or -1 when it has said what is wrong. */
static int read_cpus(const cli_args *a, char *text, size_t size, const char **names, int most) {
  const char *const *known = cg_cpu_names;
  snprintf(text, size, "%s", cli_get(a, "cpu", ""));
  int n = 0;
  for (char *rest = text, *word; (word = strsep(&rest, ","));) {
    if (!*word) continue;
    int i = 0;
    while (known[i] && strcmp(known[i], word)) i++;
    if (!known[i]) return cli_unknown("cpu", word, known), -1;
    if (n == most) return cli_usage(a, "--cpu names too many"), -1;
    names[n++] = known[i];
  }
  return n;
}

int cli_compile(const cli_args *a) {
  tt_error err = {0};
  if (a->n_words != 1) return cli_usage(a, "one model");
  const model_info *info = cli_model(a->words[0]);
  if (!info) return 2;
  const char *folder = cli_get(a, "output", NULL), *cpus[4];
  char list[200];
  int n = read_cpus(a, list, sizeof list, cpus, 4);
  int64_t batch, seed, threads;
  double lr;
  cli_update update;
  if (n < 0) return 2;
  if (!folder) return cli_usage(a, "-o DIR is missing");
  if (!cli_update_read(a, info, &update) || !cli_precision(a) || !cli_passes(a, "skip", true) || !cli_int(a, "batch-size", info->batch, 1, &batch) || !cli_int(a, "seed", 1, 0, &seed) ||
      !cli_int(a, "threads", 0, 0, &threads) || !cli_double(a, "lr", info->lr, &lr)) return 2;
  model_config arg;
  tt_dtype dtype;
  tt_shape shape;
  const char *weights = cli_get(a, "weights", NULL);
  model_info sized = *info;
  model_config weighed = {0};
  if (!cli_sizes(&sized, weights, &weighed, &err) || !cli_input(a, &sized, batch, &arg, &dtype, &shape, &err)) return cli_fail(&err);
  arg.gpt = weighed.gpt;
  if (arg.gpt.layers && weighed.classes < arg.classes) return cli_classes(arg.classes, &weighed, &err), cli_fail(&err);
  if (arg.gpt.layers) arg.classes = weighed.classes;
  cli_watch watch = cli_watch_new(a);
  tt_compile_options o = {.train = cli_has(a, "train"), .skip = cli_get(a, "skip", NULL), .products = cli_products(a), .n_threads = (int)threads, .watch = cli_watch_pass, .kernel = cli_watch_kernel, .user = &watch};
  cli_update_put(&update, &o);
  tt_model *m = tt_model_new(info->function, &arg, &(tt_model_options){.name = info->name, .seed = (uint64_t)seed, .n_threads = (int)threads, .names = info->names, .no_ema = cli_has(a, "no-ema")}, &err);
  if (m && weights) tt_model_load(m, weights, &err);
  if (m && !err.status && tt_model_export(m, dtype, &shape, model_labels(info), &o, cpus, n, lr, folder, &err) == TT_OK)
    printf("%s/: model.o, model.h, weights.safetensors, example.c\n  cd %s && cc -O2 example.c model.o $(pkg-config --cflags --libs tinytorch_rt) -o example\n", folder, folder);
  if (m) cli_warnings(m);
  tt_model_free(m);
  return err.status ? cli_fail(&err) : 0;
}
