/* train.c: the commands train and eval. */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "options.h"
#include "watch.h"

const cli_option cli_train_options[] = {
  CLI_DATA, CLI_TOKENS,
  {"epochs", "N", "passes over the training part (default 10)"},
  {"max-steps", "N", "stop after so many steps"},
  {"batch-size", "N", "default: the model's"},
  {"lr", "X", "learning rate (default: the model's)"},
  {"schedule", "NAME", "constant, step, multistep, exponential, polynomial, cosine, cosine_restarts, onecycle or plateau (default: the model's)"},
  {"warmup", "N", "steps in which the rate grows to its value"},
  {"step-size", "N", "of --schedule step: steps between two cuts; of cosine_restarts: the first period"},
  {"restart-factor", "N", "of --schedule cosine_restarts: each period is so many times as long as the last (default 1)"},
  {"milestones", "N,N,...", "of --schedule multistep: the steps of its cuts"},
  {"gamma", "X", "of --schedule step and multistep: factor of a cut (default 0.1), and of plateau; of exponential: of each step"},
  {"patience", "N", "of --schedule plateau: epochs without a lower test loss before a cut (default 10)"},
  {"power", "X", "of --schedule polynomial (default 1)"},
  CLI_UPDATE,
  {"ema", "X", "running means of the weights, of decay X, such as 0.999: they are tested and saved"},
  {"accumulate", "N", "batches of one update: as if the batch were N times as large (default 1)"},
  CLI_BUDGET,
  {"augment", "NAME[=X],...", "some of crop=4 (window of the image padded by so much), flip, jitter=0.4 (colours), cutout=8, mixup=0.2, cutmix=1"},
  {"seed", "N", "of weights, shuffling, augmentation and dropout (default 1)"},
  CLI_BACKEND, CLI_THREADS, CLI_CPU, CLI_PRODUCTS, CLI_SKIP, CLI_TUNED,
  CLI_METRICS,
  {"log", "FILE", "JSON, a line for each step and epoch"},
  {"weights", "FILE", "initial weights (safetensors; default: drawn from --seed): of this command, or for gpt and gpt2 a published checkpoint of GPT-2"},
  {"save", "FILE", "weights as safetensors, at the end"},
  {"published", NULL, "--save with the names and layouts of GPT-2's published checkpoints (gpt, gpt2)"},
  {"checkpoint", "DIR", "all state, as often as --checkpoint-every says"},
  {"checkpoint-every", "N", "steps (default: each epoch)"},
  {"resume", NULL, "go on from the checkpoint, to the same bits"},
  {"quiet", NULL, "no progress"},
  CLI_TIME_PASSES,
  {NULL, NULL, NULL},
};

const cli_option cli_eval_options[] = {
  CLI_DATA, CLI_TOKENS,
  {"batch-size", "N", "default 64"},
  CLI_METRICS, CLI_NO_EMA,
  CLI_BACKEND, CLI_THREADS, CLI_CPU, CLI_PRODUCTS, CLI_SKIP, CLI_TUNED,
  {NULL, NULL, NULL},
};

const model_info *cli_model(const char *name) {
  const char *names[64];
  int n = 0;
  for (const model_info *m = model_table; m->name; m++) {
    if (strcmp(m->name, name) == 0) return m;
    names[n++] = m->name;
  }
  names[n] = NULL;
  cli_unknown("model", name, names);
  return NULL;
}

tt_model *cli_model_new(const cli_args *a, const model_info *info, model_config *arg, tt_error *err) {
  int64_t threads, seed;
  if (!cli_target(a) || !cli_int(a, "threads", 0, 0, &threads) || !cli_int(a, "seed", 1, 0, &seed)) return NULL;
  tt_model_options o = {.name = info->name, .seed = (uint64_t)seed, .backend = cli_get(a, "backend", NULL), .cpu = cli_get(a, "cpu", NULL),
                        .skip = cli_get(a, "skip", NULL), .tuned = cli_get(a, "tuned", NULL), .products = cli_products(a), .n_threads = (int)threads, .names = info->names, .no_ema = cli_has(a, "no-ema")};
  return tt_model_new(info->function, arg, &o, err);
}

bool cli_sizes(model_info *info, const char *path, model_config *arg, tt_error *err) {
  if (!info->sizes || !path) return true;
  if (info->sizes(path, arg, err) != TT_OK) return false;
  info->context = arg->gpt.context;
  return true;
}

bool cli_classes(int64_t n, model_config *arg, tt_error *err) {
  if (!arg->gpt.layers) arg->classes = n;
  if (n <= arg->classes) return true;
  tt_fail(err, TT_INVALID, "error: there are %lld different tokens, and the weights know %lld\n  at the tokenizer\n  fix: give the one that the weights were trained with", (long long)n, (long long)arg->classes);
  return false;
}

const char *cli_products(const cli_args *a) { return strcmp(cli_get(a, "dtype", "f32"), "bf16") ? cli_get(a, "matmul-precision", NULL) : "bf16"; }

void cli_warnings(const tt_model *m) {
  const char *text;
  for (int i = 0; (text = tt_model_warning(m, i)); i++) fprintf(stderr, "warning: %s\n", text);
}

static volatile int interrupted;
static void on_interrupt(int signal_number) { interrupted = 1; }

static void report(void *user, const char *line, bool transient) {
  if (isatty(1)) printf(transient ? "\r\033[K%s" : "\r\033[K%s\n", line);
  else if (!transient) printf("%s\n", line);
  fflush(stdout);
}

static bool read_milestones(const cli_args *a, int64_t *milestones) {
  const char *p = cli_get(a, "milestones", NULL);
  for (int i = 0; p; i++) {
    char *end;
    int64_t step = strtoll(p, &end, 10);
    if (i == TT_MILESTONES || end == p || step < 1 || (*end && *end != ',')) {
      fprintf(stderr, "tinytorch train: --milestones wants 1 to %d steps that grow, as in 1000,2000; not '%s'\n", TT_MILESTONES, cli_get(a, "milestones", NULL));
      return false;
    }
    milestones[i] = step;
    p = *end ? end + 1 : NULL;
  }
  return true;
}

/* Asked before training, not when it is done. */
static bool can_write(const char *path, tt_error *err) {
  const char *slash = strrchr(path, '/');
  char folder[4096];
  snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path + 1) : 1, slash ? path : ".");
  if (access(folder, W_OK | X_OK) == 0) return true;
  tt_fail(err, TT_IO, "error: weights cannot be saved: %s\n  at --save %s\n  fix: give a path in a folder that may be written", strerror(errno), path);
  return false;
}

static const char *metrics_text(const tt_metrics *m, char text[200]) {
  tt_metrics_text(m, text, 200);
  return text;
}

int cli_train(const cli_args *a) {
  tt_error err = {0};
  char text[200];
  if (a->n_words != 1) return cli_usage(a, "one model");
  const model_info *info = cli_model(a->words[0]);
  if (!info) return 2;
  if (!cli_has(a, "data") && !info->demo) return cli_usage(a, "--data is missing");
  int64_t epochs, max_steps, batch, warmup, step_size, restart_factor, milestones[TT_MILESTONES] = {0}, every, seed, budget, accumulate, patience;
  double lr, gamma, power, ema;
  cli_update update;
  const char *schedules[32] = {0};
  for (int i = 0; i < 31 && (schedules[i] = tt_schedule_name(i)); i++) {}
  if (!cli_target(a) || !cli_choice(a, "schedule", schedules) || !cli_int(a, "restart-factor", 1, 1, &restart_factor) || !cli_double(a, "power", 1, &power) || !read_milestones(a, milestones) || !cli_int(a, "epochs", 10, 1, &epochs) || !cli_int(a, "max-steps", 0, 0, &max_steps) || !cli_int(a, "batch-size", info->batch, 1, &batch) ||
      !cli_int(a, "warmup", 0, 0, &warmup) || !cli_int(a, "step-size", 1000, 1, &step_size) ||
      !cli_int(a, "checkpoint-every", 0, 0, &every) || !cli_int(a, "seed", 1, 0, &seed) || !cli_double(a, "lr", info->lr, &lr) ||
      !cli_double(a, "gamma", 0.1, &gamma) || !cli_bytes(a, "memory-budget", &budget) ||
      !cli_int(a, "accumulate", 1, 1, &accumulate) || !cli_int(a, "patience", 10, 0, &patience) || !cli_double(a, "ema", 0, &ema) ||
      !cli_update_read(a, info, &update)) return 2;
  const char *schedule = cli_get(a, "schedule", info->schedule);
  const char *save = cli_get(a, "save", NULL);
  if (lr <= 0) return cli_usage(a, "--lr wants a number above 0");
  if (gamma < 0) return cli_usage(a, "--gamma wants a number of at least 0");
  if (!strcmp(schedule, "exponential") && !cli_has(a, "gamma")) return cli_usage(a, "--schedule exponential wants --gamma, the factor of each step, such as 0.9995");
  if (ema < 0 || ema >= 1) return cli_usage(a, "--ema wants a number from 0 to below 1");
  if (power <= 0) return cli_usage(a, "--power wants a number above 0");
  if (cli_has(a, "published") && (!save || !info->names)) return cli_usage(a, save ? "--published is for gpt and gpt2" : "--published goes with --save FILE");
  if (save && !can_write(save, &err)) return cli_fail(&err);
  tt_augment augment;
  if (tt_augment_parse(cli_get(a, "augment", ""), &augment, &err) != TT_OK) return cli_fail(&err), 2;
  if (cli_has(a, "resume") && !cli_has(a, "checkpoint")) return cli_usage(a, "--resume goes with --checkpoint DIR");

  tt_metrics *metrics;
  if (!cli_metrics(a, &metrics, &err)) return cli_fail(&err), 2;
  cli_data data;
  model_config arg = {0};
  model_info sized = *info;
  const char *weights = cli_get(a, "weights", NULL);
  if (!cli_sizes(&sized, weights, &arg, &err) || !cli_data_open(a, &sized, true, &data, &err)) return tt_metrics_free(metrics), cli_fail(&err);
  if (!cli_classes(data.train->n_classes, &arg, &err)) return tt_metrics_free(metrics), cli_data_free(&data), cli_fail(&err);
  tt_model *m = cli_model_new(a, info, &arg, &err);
  if (!m && !err.status) return tt_metrics_free(metrics), cli_data_free(&data), 2;
  tt_fit_result result = {0};
  if (m && (!weights || tt_model_load(m, weights, &err) == TT_OK)) {
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND}, before;      /* a second one ends it at once */
    sigaction(SIGINT, &action, &before);
    cli_watch watch = cli_watch_new(a);
    tt_train_options o = {
      .train = data.train, .test = data.test, .epochs = epochs, .max_steps = max_steps, .batch = batch, .lr = lr, .schedule = schedule, .warmup = warmup,
      .step_size = step_size, .gamma = gamma, .power = power, .restart_factor = restart_factor, .optimizer = update.optimizer, .hyper = update.hyper,
      .no_decay_norm_bias = update.no_decay_norm_bias, .ema = ema, .patience = patience, .clip_norm = update.clip_norm, .accumulate = accumulate, .memory_budget = budget, .seed = (uint64_t)seed, .augment = augment, .metrics = metrics, .log = cli_get(a, "log", NULL),
      .checkpoint = cli_get(a, "checkpoint", NULL), .checkpoint_every = every, .tokenizer = data.tokenizer, .resume = cli_has(a, "resume"),
      .report = cli_has(a, "quiet") ? NULL : report, .stop = &interrupted, .watch = watch.times ? cli_watch_pass : NULL, .kernel = cli_watch_kernel, .user = &watch};
    memcpy(o.groups, update.groups, sizeof o.groups);
    memcpy(o.milestones, milestones, sizeof milestones);
    tt_status status = tt_train(m, &o, &result, &err);
    sigaction(SIGINT, &before, NULL);
    cli_warnings(m);
    if (status == TT_OK) {
      printf("%s: %lld steps in %.1f s (%.0f %s/s), loss %.4f, ", info->name, (long long)result.steps, result.seconds, result.samples_per_second, tt_dataset_samples(data.train), result.loss);
      if (info->sample) printf("test loss %.4f", result.test_loss);
      else if (info->context) printf("test loss %.4f, perplexity %.2f", result.test_loss, exp(result.test_loss));
      else printf("test accuracy %.2f%%", 100 * result.test_accuracy);
      printf("%s\n", metrics_text(metrics, text));
      cli_print_metrics(metrics, &data);
    }
    if ((status == TT_OK || (status == TT_INTERRUPTED && result.steps > 0)) && save) {      /* while compiling, nothing has been trained */
      tt_error save_err = {0};
      if ((cli_has(a, "published") ? tt_model_save_published(m, info->names, save, &save_err) : tt_model_save(m, save, &save_err)) != TT_OK) err = save_err;
    }
  }
  tt_model_free(m);
  cli_data_free(&data);
  tt_metrics_free(metrics);
  if (err.status == TT_INTERRUPTED) {
    fprintf(stderr, "%s\n", err.message);
    return 130;
  }
  return err.status ? cli_fail(&err) : 0;
}

int cli_eval(const cli_args *a) {
  tt_error err = {0};
  if (a->n_words != 2) return cli_usage(a, "a model and a file of weights");
  const model_info *info = cli_model(a->words[0]);
  if (!info) return 2;
  if (!cli_has(a, "data") && !info->demo) return cli_usage(a, "--data is missing");
  int64_t batch;
  if (!cli_target(a) || !cli_int(a, "batch-size", 64, 1, &batch)) return 2;
  char text[200];
  tt_metrics *metrics;
  if (!cli_metrics(a, &metrics, &err)) return cli_fail(&err), 2;
  cli_data data;
  model_config arg = {0};
  model_info sized = *info;
  if (!cli_sizes(&sized, a->words[1], &arg, &err) || !cli_data_open(a, &sized, false, &data, &err)) return tt_metrics_free(metrics), cli_fail(&err);
  if (!cli_classes(data.test->n_classes, &arg, &err)) return tt_metrics_free(metrics), cli_data_free(&data), cli_fail(&err);
  tt_model *m = cli_model_new(a, info, &arg, &err);
  if (!m && !err.status) return tt_metrics_free(metrics), cli_data_free(&data), 2;
  tt_eval_result r;
  if (m && tt_model_load(m, a->words[1], &err) == TT_OK && tt_test(m, data.test, batch, metrics, &r, &err) == TT_OK) {
    if (info->sample) printf("%s: loss %.4f over %lld images", info->name, r.loss, (long long)r.samples);
    else if (info->context) printf("%s: loss %.4f, perplexity %.2f over %lld sequences", info->name, r.loss, exp(r.loss), (long long)r.samples);
    else printf("%s: loss %.4f, accuracy %.2f%% (%lld of %lld)", info->name, r.loss, 100 * r.accuracy, (long long)r.correct, (long long)r.samples);
    printf("%s\n", metrics_text(metrics, text));
    cli_print_metrics(metrics, &data);
  }
  if (m) cli_warnings(m);
  tt_model_free(m);
  cli_data_free(&data);
  tt_metrics_free(metrics);
  return err.status ? cli_fail(&err) : 0;
}
