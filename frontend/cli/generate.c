/* generate.c: the command generate: weights and tokenizer, from a checkpoint's folder or as they were published; tokens go to standard output as they come. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "options.h"

const cli_option cli_generate_options[] = {
  {"checkpoint", "DIR", "what train --checkpoint wrote: weights and tokenizer"},
  {"weights", "FILE", "instead: weights as safetensors, of train --save, or a published checkpoint of GPT-2 (model.safetensors) of any size"},
  {"tokenizer", "DIR", "a folder with vocab.json and merges.txt (default: the checkpoint's, or where the weights lie)"},
  {"prompt", "TEXT", "what the text begins with"},
  {"max-new-tokens", "N", "default: until the model's context is full; past it the text goes on from its last half"},
  {"temperature", "X", "below 1 surer, above 1 more surprising, 0: always the likeliest token (default 1)"},
  {"top-k", "N", "only the N likeliest tokens (default: all)"},
  {"top-p", "X", "only the likeliest tokens whose probabilities reach X (default 1: all)"},
  {"seed", "N", "of the random choice (default 1)"},
  {"time", NULL, "on stderr, at the end: how many tokens a second, of the prompt and new ones"},
  CLI_NO_EMA, CLI_BACKEND, CLI_THREADS, CLI_CPU, CLI_PRODUCTS, CLI_SKIP, CLI_TUNED,
  {NULL, NULL, NULL},
};

static volatile sig_atomic_t interrupted;
static void on_interrupt(int signal_number) { interrupted = 1; }

typedef struct { tt_tokenizer *tokenizer; double begin, first, last; int64_t made; } progress;      /* seconds */
static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool print_token(void *user, int32_t id) {
  progress *p = user;
  size_t bytes;
  const char *text = tt_tokenizer_token(p->tokenizer, id, &bytes);
  p->last = now();
  if (!p->made++) p->first = p->last;
  fwrite(text, 1, bytes, stdout);
  return fflush(stdout) == 0 && !interrupted;
}

static tt_status generate(const cli_args *a, const char *path, tt_model *m, tt_tokenizer *tokenizer, tt_generate_options *o, tt_error *err) {
  const char *prompt = cli_get(a, "prompt", "");
  int32_t *ids = NULL;
  int64_t n;
  tt_status status = tt_tokenizer_encode(tokenizer, prompt, strlen(prompt), &ids, &n, err);
  tt_generator *g = NULL;
  if (status == TT_OK && (status = tt_model_load(m, path, err)) == TT_OK && !(g = tt_generator_new(m, err))) status = err->status;
  if (g && n <= tt_generator_capacity(g)) fputs(prompt, stdout), fflush(stdout);
  struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND}, before;
  sigaction(SIGINT, &action, &before);
  progress p = {.tokenizer = tokenizer, .begin = now()};
  o->token = print_token, o->user = &p;
  if (g && (status = tt_generate(g, ids, n, o, NULL, err)) == TT_OK) putchar('\n');
  fflush(stdout);
  if (cli_has(a, "time") && p.made) fprintf(stderr, "prompt: %lld tokens, %.1f a second\n", (long long)n, (double)n / (p.first - p.begin));
  if (cli_has(a, "time") && p.made > 1) fprintf(stderr, "new: %lld tokens, %.1f a second behind the first\n", (long long)p.made, (double)(p.made - 1) / (p.last - p.first));
  sigaction(SIGINT, &before, NULL);
  tt_generator_free(g);
  free(ids);
  return status;
}

int cli_generate(const cli_args *a) {
  tt_error err = {0};
  if (a->n_words != 1) return cli_usage(a, "one model");
  const model_info *info = cli_model(a->words[0]);
  if (!info) return 2;
  if (!info->context || info->masked > 0) return cli_usage(a, "the model makes no text; gpt and gpt2 do");
  if (cli_has(a, "checkpoint") == cli_has(a, "weights")) return cli_usage(a, cli_has(a, "weights") ? "--checkpoint or --weights, not both" : "--checkpoint is missing, or --weights");
  if (!cli_get(a, "prompt", "")[0]) return cli_usage(a, "--prompt is missing or empty: give the text that is to be continued");
  char path[4096], beside[4096];
  const char *weights = cli_get(a, "weights", NULL), *folder = cli_get(a, "checkpoint", beside), *slash = weights ? strrchr(weights, '/') : NULL;
  if ((weights ? snprintf(path, sizeof path, "%s", weights) : snprintf(path, sizeof path, "%s/checkpoint.safetensors", folder)) >= (int)sizeof path) return cli_usage(a, "the name of --checkpoint or --weights is too long");
  snprintf(beside, sizeof beside, "%.*s", slash ? (int)(slash - weights + 1) : 1, slash ? weights : ".");
  int64_t seed;
  tt_generate_options o = {0};
  if (!cli_target(a) || !cli_int(a, "max-new-tokens", 0, 1, &o.max_new_tokens) || !cli_double(a, "temperature", 1, &o.temperature) || !cli_int(a, "top-k", 0, 1, &o.top_k) ||
      !cli_double(a, "top-p", 1, &o.top_p) || !cli_int(a, "seed", 1, 0, &seed)) return 2;
  if (o.temperature < 0) return cli_usage(a, "--temperature wants a number of at least 0");
  if (o.top_p <= 0 || o.top_p > 1) return cli_usage(a, "--top-p wants a number above 0, at most 1");
  o.seed = (uint64_t)seed;
  tt_tokenizer *tokenizer = tt_tokenizer_load(cli_get(a, "tokenizer", folder), &err);
  if (!tokenizer) return cli_fail(&err);
  model_config arg = {0};
  model_info sized = *info;
  if (!cli_sizes(&sized, path, &arg, &err) || !cli_classes(tt_tokenizer_size(tokenizer), &arg, &err)) return tt_tokenizer_free(tokenizer), cli_fail(&err);
  tt_model *m = cli_model_new(a, info, &arg, &err);
  if (m) generate(a, path, m, tokenizer, &o, &err);
  bool wrongly = !m && !err.status;
  tt_model_free(m);
  tt_tokenizer_free(tokenizer);
  return wrongly ? 2 : interrupted ? 130 : err.status ? cli_fail(&err) : 0;
}
