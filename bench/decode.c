/* decode.c: a text that grows, as tt_generate makes it: a run chooses a token of the last logits and feeds it behind T others, whose keys and values lie in the caches, and the text is
 * then as long as before. Initial weights, f32; the choice is among the 40 likeliest tokens, and of these the nucleus of 95%, which is the most work that generate has with it. */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

#include "../frontend/models/models.h"

typedef struct { tt_model *model; tt_generator *g; model_config arg; const float *logits; int64_t classes, context; uint64_t seed; } decode;

static bool step(decode *d, tt_error *err) {
  int32_t id = tt_sample_token(d->logits, d->classes, &(tt_generate_options){.temperature = 0.8, .top_k = 40, .top_p = 0.95, .seed = ++d->seed}, d->context);
  tt_generator_rewind(d->g, d->context);
  return id >= 0 && tt_generator_feed(d->g, &id, 1, &d->logits, &d->classes, err) == TT_OK;
}

static bool run(bench_side *s, int n, double *ms) {
  tt_error err = {0};
  for (int i = 0; i < n; i++) {
    double start = bench_now();
    if (!step(s->self, &err)) return snprintf(s->error, sizeof s->error, "%.399s", err.status ? err.message : "no memory to choose a token"), false;
    ms[i] = 1e3 * (bench_now() - start);
  }
  return true;
}

static void close_decode(bench_side *s) {
  decode *d = s->self;
  tt_generator_free(d->g);
  tt_model_free(d->model);
  free(d);
}

static bool prompt(decode *d, tt_error *err) {
  int32_t *text = malloc((size_t)d->context * sizeof *text);
  if (!text) return tt_fail(err, TT_NO_MEMORY, "error: no memory for a prompt\n  at bench of a decode row\n  fix: free memory"), false;
  uint64_t state = 1;
  for (int64_t i = 0; i < d->context; i++) text[i] = (int32_t)(bench_random(&state) * (double)d->arg.classes);
  bool ok = tt_generator_feed(d->g, text, d->context, &d->logits, &d->classes, err) == TT_OK;
  free(text);
  return ok;
}

bool bench_decode(bench_side *s, const bench_workload *w, const bench_ruler *r, const bench_target *t, tt_error *err) {
  int threads = rt_team_size(r->team);
  decode *d = calloc(1, sizeof *d);
  if (!d) return tt_fail(err, TT_NO_MEMORY, "error: no memory for a workload\n  at %s\n  fix: free memory", w->name), false;
  *s = (bench_side){.framework = "tinytorch", .run = run, .close = close_decode, .self = d};
  d->arg.classes = w->family->classes, d->context = bench_context(w);
  d->model = tt_model_new(w->family->model, &d->arg, &(tt_model_options){.name = w->family->what, .seed = 1, .cpu = t->cpu, .skip = t->skip, .tuned = t->tuned ? t->tuned : "none", .products = t->products, .n_threads = threads}, err);
  bench_keep_to(&r->inherited, 1);                       /* where the team's first thread is; the others get the cores behind it */
  bench_keep_to(&r->inherited, threads);
  bool ok = d->model && tt_model_team(d->model, err);
  bench_keep_to(&r->inherited, 1);
  ok = ok && (d->g = tt_generator_new(d->model, err));
  if (ok && d->context >= tt_generator_capacity(d->g))
    ok = tt_fail(err, TT_INVALID, "error: %s: a token behind %lld others does not fit into a context of %lld\n  at bench\n  fix: ask for less", w->name, (long long)d->context, (long long)tt_generator_capacity(d->g)) == TT_OK;
  if (ok && prompt(d, err)) return true;
  bench_side_close(s);
  return false;
}
