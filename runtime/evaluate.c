/* evaluate.c: a model measured on a data set. Every sample counts once: the last batch is filled up by repeating, and what was
 * filled up is not counted, which is why the loss is taken sample by sample from the logits when the program gives them. */
#include "runtime.h"

#include <math.h>
#include <stdlib.h>

struct rt_evaluator {
  rt_instance *run;
  tt_loader *loader;
  const tt_dataset *test;
  tt_tensor *logits, *scores, *loss;                     /* logits are scores too */
  int64_t places;                                        /* labels of a sample */
  tt_metrics *metrics;
};

void rt_evaluator_free(rt_evaluator *e) {
  if (!e) return;
  rt_instance_free(e->run);
  tt_loader_free(e->loader);
  free(e);
}

static tt_status check_outputs(rt_evaluator *e, int64_t batch, tt_error *err) {
  e->logits = rt_bound(e->run, "logits");
  e->loss = rt_bound(e->run, "loss");
  e->scores = rt_bound(e->run, "scores");
  if (!e->logits && !e->loss) return tt_fail(err, TT_INVALID, "error: the evaluation program gives nothing to measure\n  at its outputs\n  fix: let it return logits [batch, classes], or loss");
  tt_tensor *scores = e->logits ? e->logits : e->scores;
  const tt_dataset *d = e->test;
  e->places = d->tokens ? d->context : d->pixel_labels ? d->height * d->width : 1;
  e->scores = NULL;
  bool fits = false;
  char type[200] = "none";
  if (scores) {
    tt_shape s = tt_tensor_shape(scores);
    fits = s.rank == (d->tokens ? 3 : d->pixel_labels ? 4 : 2) && s.dim[0] == batch && s.dim[d->tokens ? 2 : 1] >= d->n_classes && tt_dtype_in(tt_tensor_dtype(scores), TT_REAL);
    if (d->tokens) fits = fits && s.dim[1] == d->context;
    if (d->pixel_labels) fits = fits && s.dim[2] == d->height && s.dim[3] == d->width;
    tt_type_text(tt_tensor_dtype(scores), &s, type, sizeof type);
  }
  if (fits) e->scores = scores;                          /* a loss of one's own may have any prediction: then there is no accuracy */
  if (!fits && (e->logits || e->metrics))
    return tt_fail(err, TT_INVALID, "error: %s are %s\n  at the evaluation of data set %s\n  fix: let the model give real numbers [%lld, %s%lld or more classes%s]%s", e->logits ? "logits" : "the scores that metrics want", type, d->name, (long long)batch,
                   d->tokens ? "context, " : "", (long long)d->n_classes, d->pixel_labels ? ", height, width" : "", e->logits ? "" : ", or ask for no metrics");
  return TT_OK;
}

rt_evaluator *rt_evaluator_new(const rt_program *eval, rt_params *params, bool averages, rt_team *team, const tt_dataset *test, int64_t batch, bool flatten, tt_metrics *metrics, tt_error *err) {
  rt_evaluator *e = calloc(1, sizeof *e);
  if (!e) {
    tt_fail(err, TT_NO_MEMORY, "error: no memory for an evaluation\n  at data set %s\n  fix: use a machine with more memory", test->name);
    return NULL;
  }
  e->test = test;
  e->metrics = metrics;
  tt_loader_options o = {.batch = batch, .flatten = flatten, .n_threads = 1};
  if ((e->run = rt_instance_new(eval, team, err)) && (averages ? rt_params_bind_averages : rt_params_bind)(params, e->run, err) == TT_OK && rt_bind_seed(e->run, 0, 0, err) == TT_OK && (e->loader = tt_loader_new(test, &o, err)) && check_outputs(e, batch, err) == TT_OK) return e;
  rt_evaluator_free(e);
  return NULL;
}

/* Cross-entropy of sample i at place p, and whether its largest logit is its label's; NaN is no right answer. all: the scores of all classes; NULL: not wanted. */
static double sample_loss(const tt_tensor *logits, int64_t i, int64_t p, int64_t label, double *all, bool *right) {
  tt_shape s = tt_tensor_shape(logits);
  int64_t n = s.dim[s.rank == 3 ? 2 : 1], best = 0, width = s.rank == 4 ? s.dim[3] : 1;
  double largest = -INFINITY, sum = 0, own = 0;
#define LOGIT(c) tt_tensor_at(logits, s.rank == 3 ? (int64_t[]){i, p, c} : (int64_t[]){i, c, p / width, p % width})
  for (int64_t c = 0; c < n; c++) {
    double v = LOGIT(c);
    if (all) all[c] = v;
    if (v > largest) largest = v, best = c;
    if (c == label) own = v;
  }
  for (int64_t c = 0; c < n; c++) sum += exp(LOGIT(c) - largest);
#undef LOGIT
  *right = best == label && own == largest;
  return largest + log(sum) - own;
}

static int64_t counted(const int32_t *labels, int64_t n) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; i++) count += labels[i] >= 0;
  return count;
}

tt_status rt_evaluator_run(rt_evaluator *e, volatile int *stop, tt_eval_result *r, tt_error *err) {
  double sum = 0;
  int64_t n_losses = 0, n_labels = 0;                    /* n_losses: samples; of a text, the labels that count */
  int x = rt_slot_find(rt_instance_program(e->run), "x"), y = rt_slot_find(rt_instance_program(e->run), "y");
  *r = (tt_eval_result){0};
  if (e->metrics) {
    tt_shape s = tt_tensor_shape(e->scores);
    tt_status status = rt_metrics_begin(e->metrics, s.dim[e->test->tokens ? 2 : 1], err);
    if (status != TT_OK) return status;
  }
  double *all = e->metrics ? rt_metrics_scores(e->metrics) : NULL;
  tt_loader_seek(e->loader, 0, 0);
  for (int64_t b = 0; b < tt_loader_batches(e->loader); b++) {
    tt_batch batch;
    tt_status status = tt_loader_next(e->loader, &batch, err);
    if (status == TT_OK && x >= 0) status = rt_bind_slot(e->run, x, batch.x, err);
    if (status == TT_OK && y >= 0) status = rt_bind_slot(e->run, y, batch.y, err);
    if (status == TT_OK) status = rt_run(e->run, err);
    if (status != TT_OK) return status;
    const int32_t *labels = tt_tensor_data(batch.y);
    for (int64_t k = 0; e->scores && k < batch.count * e->places; k++) {
      if (labels[k] < 0) continue;                       /* of a text: it does not count */
      bool right;
      double loss = sample_loss(e->scores, k / e->places, k % e->places, labels[k], all, &right);
      if (e->logits) sum += loss / (double)e->places;
      if (e->metrics) rt_metrics_add(e->metrics, labels[k]);
      r->correct += right;
      n_labels++;
    }
    int64_t weight = e->test->tokens ? counted(labels, batch.count * e->test->context) : batch.count;
    if (!e->logits && weight) sum += tt_tensor_at(e->loss, (int64_t[TT_MAX_RANK]){0}) * (double)weight;
    r->samples += batch.count;
    n_losses += weight;
    if (stop && *stop) return tt_fail(err, TT_INTERRUPTED, "error: stopped\n  at an evaluation, after %lld of %lld samples\n  fix: run it again to measure", (long long)r->samples, (long long)e->test->n);
  }
  r->loss = sum / (double)n_losses;
  r->accuracy = e->scores ? (double)r->correct / (double)n_labels : NAN;
  return TT_OK;
}

tt_status tt_evaluate(const rt_program *eval, rt_params *params, rt_team *team, const tt_dataset *test, int64_t batch, bool flatten, tt_metrics *metrics, tt_eval_result *r, tt_error *err) {
  tt_error local = {0};
  if (!err) err = &local;
  rt_evaluator *e = rt_evaluator_new(eval, params, false, team, test, batch, flatten, metrics, err);
  tt_status status = e ? rt_evaluator_run(e, NULL, r, err) : err->status;
  rt_evaluator_free(e);
  return status;
}
