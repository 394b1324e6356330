/* train.c: the training loop: a batch, a step, the loss, now and then an evaluation and a checkpoint.
 *
 * All that decides what a step computes is in rt_position and in the parameters: the loader's batches, the rate and the random
 * numbers of a step follow from epoch, batch, step and seed. So a run that resumes does what an uninterrupted one does, bit by
 * bit; and so does the search for the first number that is not finite: the loop keeps the state of at most 31 steps ago, runs
 * those steps again, and walks the bad one kernel by kernel. */
#define _GNU_SOURCE
#include "runtime.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SNAPSHOT_EVERY = 32 };
#define SNAPSHOT_BYTES ((size_t)64 << 20)                /* of state at most: larger models do without */
#define REPORT_SECONDS 0.1

/* A program of the step, with what it is given and what it gives. */
typedef struct {
  rt_instance *run;
  int x, y;                                              /* slots of the batch; -1: not read */
  int64_t places;                                        /* labels of a sample: 1, or its pixels */
  tt_tensor *loss, *correct, *lr, *number, *seed;        /* NULL: the program has none; loss and correct are the instance's */
} worker;

typedef struct {
  const tt_fit_options *o;
  tt_error *err;
  worker last, early;                                    /* early: of the batches of an update before its last one */
  worker *running;
  int64_t accumulate, batches;                           /* batches of an update, and of an epoch: whole updates */
  rt_evaluator *eval;
  tt_loader *loader;
  rt_log *log;
  rt_position at;
  tt_fit_result *r;
  tt_tensor **snapshot;                                  /* NULL: the model is too large */
  rt_position snapshot_at;
  int64_t steps_done, saved_step;
  bool tokenizer_saved;
  double reported;
} fit;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool stopped(const fit *f) { return f->o->stop && *f->o->stop; }
static bool finished(const fit *f) { return f->at.epoch >= f->o->epochs || (f->o->max_steps && f->at.step >= f->o->max_steps); }

static double rate(const fit *f) { return tt_schedule_at(&f->o->schedule, f->at.step) * f->at.plateau.scale; }

/* One batch through one of the step's programs. number: what the input `step` is. */
static tt_status run_batch(fit *f, worker *w, int64_t number, double *loss, int64_t *correct) {
  tt_batch b;
  f->running = w;
  tt_status status = tt_loader_next(f->loader, &b, f->err);
  if (status == TT_OK && w->x >= 0) status = rt_bind_slot(w->run, w->x, b.x, f->err);
  if (status == TT_OK && w->y >= 0) status = rt_bind_slot(w->run, w->y, b.y, f->err);
  if (status != TT_OK) return status;
  if (w->lr) *(double *)tt_tensor_data(w->lr) = rate(f);
  if (w->number) *(int64_t *)tt_tensor_data(w->number) = number;
  if (w->seed) *(uint64_t *)tt_tensor_data(w->seed) = f->o->seed;
  if ((status = rt_run(w->run, f->err)) != TT_OK) return status;
  *loss += tt_tensor_at(w->loss, NULL);
  if (w->correct) *correct += *(const int64_t *)tt_tensor_data(w->correct);
  return TT_OK;
}

/* One update, from the batches at f->at; *loss is their mean loss. It ends at the first batch whose loss is not finite: nothing is updated then. */
static tt_status run_step(fit *f, double *loss, int64_t *correct) {
  *loss = 0, *correct = 0;
  for (int64_t i = 0; i < f->accumulate && isfinite(*loss); i++) {
    tt_status status = run_batch(f, i + 1 < f->accumulate ? &f->early : &f->last, f->at.step * f->accumulate + i, loss, correct);
    if (status != TT_OK) return status;
  }
  if (f->accumulate > 1) *loss /= (double)f->accumulate;
  return TT_OK;
}

/* The loader goes on into the next epoch by itself, but for batches at an epoch's end that make no whole update. */
static void next_epoch(fit *f) {
  if (f->batches != tt_loader_batches(f->loader)) tt_loader_seek(f->loader, f->at.epoch, 0);
}

static void take_snapshot(fit *f) {
  for (int i = 0; f->snapshot && i < rt_params_count(f->o->params); i++) tt_tensor_copy(f->snapshot[i], rt_params_at(f->o->params, i)->tensor, NULL);
  f->snapshot_at = f->at;
}

/* The batch at f->at gave a loss that is not finite. The parameters are left as they were before that step. */
static tt_status explain(fit *f, double loss) {
  char text[1100] = "";
  double ignored;
  int64_t none;
  rt_position bad = f->at;
  if (f->snapshot) {
    for (int i = 0; i < rt_params_count(f->o->params); i++) tt_tensor_copy(rt_params_at(f->o->params, i)->tensor, f->snapshot[i], NULL);
    f->at = f->snapshot_at;
    tt_loader_seek(f->loader, f->at.epoch, f->at.batch);
    while (f->at.step < bad.step) {
      tt_status status = run_step(f, &ignored, &none);
      if (status != TT_OK) return status;
      f->at.step++;
      if ((f->at.batch += f->accumulate) == f->batches) f->at.epoch++, f->at.batch = 0, next_epoch(f);
    }
    /* Batch, rate and step number of the bad step are bound by running it; its updates are taken back. */
    take_snapshot(f);
    tt_status status = run_step(f, &ignored, &none);
    if (status != TT_OK) return status;
    for (int i = 0; i < rt_params_count(f->o->params); i++) tt_tensor_copy(rt_params_at(f->o->params, i)->tensor, f->snapshot[i], NULL);
    rt_find_not_finite(f->running->run, text, sizeof text);
  }
  return tt_fail(f->err, TT_NOT_FINITE, "error: the loss is not finite: %g in step %" PRId64 " (epoch %" PRId64 ", batch %" PRId64 ")\n  at %s\n  fix: lower the learning rate (it was %g), clip gradients, or check the data", loss,
                 bad.step, bad.epoch + 1, bad.batch, text[0] ? text : f->snapshot ? "no kernel: all are finite when the step is run alone" : "a model too large to keep a state to search from", tt_schedule_at(&f->o->schedule, bad.step) * bad.plateau.scale);
}

static tt_status save(fit *f) {
  if (!f->o->checkpoint || f->saved_step == f->at.step) return TT_OK;
  tt_status status = f->o->tokenizer && !f->tokenizer_saved ? tt_tokenizer_save(f->o->tokenizer, f->o->checkpoint, f->err) : TT_OK;
  f->tokenizer_saved = true;
  if (status == TT_OK) status = rt_checkpoint_save(f->o->checkpoint, f->o->params, &f->at, f->err);
  if (status == TT_OK) f->saved_step = f->at.step;
  return status;
}

static void averages(fit *f) {
  if (!f->at.samples) return;
  f->r->loss = f->at.loss_sum / (double)f->at.samples;
  if (f->last.correct) f->r->train_accuracy = (double)f->at.correct / (double)(f->at.samples * f->last.places);
}

static int percent_text(char *text, size_t size, const char *name, double share) {
  return isnan(share) ? 0 : snprintf(text, size, "  %s %.2f%%", name, 100 * share);
}

/* "epoch 3/10 [=========>          ]  47%  loss 1.2345  accuracy 56.70%  12345 images/s  1:02 left" */
static void report_progress(fit *f) {
  double time = now();
  if (!f->o->report || time - f->reported < REPORT_SECONDS) return;
  f->reported = time;
  averages(f);
  enum { WIDTH = 20 };
  int64_t n = f->batches, total = f->o->epochs * n / f->accumulate;
  if (f->o->max_steps && f->o->max_steps < total) total = f->o->max_steps;
  char bar[WIDTH + 1], accuracy[40] = "", line[300];
  int full = (int)(f->at.batch * WIDTH / n);
  for (int i = 0; i < WIDTH; i++) bar[i] = i < full ? '=' : i == full ? '>' : ' ';
  bar[WIDTH] = 0;
  percent_text(accuracy, sizeof accuracy, "accuracy", f->r->train_accuracy);
  int64_t left = f->steps_done ? (int64_t)((double)(total - f->at.step) * f->r->seconds / (double)f->steps_done) : 0;
  snprintf(line, sizeof line, "epoch %" PRId64 "/%" PRId64 " [%s] %3d%%  loss %.4f%s  %.0f %s/s  %" PRId64 ":%02d left", f->at.epoch + 1, f->o->epochs, bar, (int)(100 * f->at.batch / n), f->r->loss, accuracy,
           f->r->samples_per_second, tt_dataset_samples(f->o->train), left / 60, (int)(left % 60));
  f->o->report(f->o->user, line, true);
}

/* The end of an epoch, or of the steps that were asked for. */
static tt_status measure(fit *f, double seconds) {
  averages(f);
  if (f->eval && !(f->o->averages && !f->at.step)) {      /* there are no averages before the first step */
    tt_eval_result e;
    /* What the rate follows from is measured to its end, even when the run is to stop: a resumed one must have the same rates. */
    tt_status status = rt_evaluator_run(f->eval, rt_schedule_wants_loss(&f->o->schedule) ? NULL : f->o->stop, &e, f->err);
    if (status != TT_OK) return status;
    f->r->test_loss = e.loss;
    f->r->test_accuracy = e.accuracy;
  }
  tt_status status = f->steps_done ? rt_log_epoch(f->log, &f->at, f->r, f->eval ? f->o->metrics : NULL, f->err) : TT_OK;
  if (status != TT_OK || !f->o->report) return status;
  char line[500], train[40] = "", test[80] = "", metrics[100] = "";
  percent_text(train, sizeof train, "accuracy", f->r->train_accuracy);
  int n = f->eval ? snprintf(test, sizeof test, "  test loss %.4f", f->r->test_loss) : 0;
  if (f->eval) percent_text(test + n, sizeof test - (size_t)n, "accuracy", f->r->test_accuracy);
  if (f->eval) tt_metrics_text(f->o->metrics, metrics, sizeof metrics);
  snprintf(line, sizeof line, "epoch %" PRId64 "/%" PRId64 "  loss %.4f%s%s%s  %.0f %s/s  %.1f s", f->at.epoch + (f->at.batch > 0), f->o->epochs, f->r->loss, train, test, metrics, f->r->samples_per_second, tt_dataset_samples(f->o->train), seconds);
  f->o->report(f->o->user, line, false);
  return TT_OK;
}

static tt_status interrupted(fit *f) {
  tt_error saving = {0}, *err = f->err;
  f->err = &saving;
  tt_status status = save(f);
  f->err = err;
  *err = (tt_error){0};                                  /* an interrupted evaluation said so already */
  if (status != TT_OK) return *err = saving, status;
  return tt_fail(err, TT_INTERRUPTED, "error: stopped\n  at epoch %" PRId64 ", batch %" PRId64 ", after %" PRId64 " steps%s%s\n  fix: %s", f->at.epoch + 1, f->at.batch, f->at.step, f->o->checkpoint ? "; the checkpoint is in " : "",
                 f->o->checkpoint ? f->o->checkpoint : "", f->o->checkpoint ? "run again with resume to go on" : "give a checkpoint folder to be able to go on");
}

static tt_status loop(fit *f) {
  int64_t n = f->batches, batch = f->o->loader.batch * f->accumulate, correct;
  double epoch_seconds = 0;
  bool measured = false;
  while (!finished(f)) {
    if (stopped(f)) return interrupted(f);
    if (f->steps_done % SNAPSHOT_EVERY == 0) take_snapshot(f);
    double loss = NAN, start = now(), lr = rate(f);
    tt_status status = run_step(f, &loss, &correct);
    if (status != TT_OK) return status;
    if (!isfinite(loss)) return explain(f, loss);
    double seconds = now() - start;
    f->r->seconds += seconds;
    epoch_seconds += seconds;
    f->at.loss_sum += loss * (double)batch;
    f->at.samples += batch;
    f->at.correct += correct;
    f->at.step++;
    f->at.batch += f->accumulate;
    f->steps_done++;
    f->r->steps = f->at.step;
    f->r->samples_per_second = (double)(f->steps_done * batch) / f->r->seconds;
    if ((status = rt_log_step(f->log, &f->at, loss, lr, (double)batch / seconds, f->err)) != TT_OK) return status;
    measured = f->at.batch == n;
    if (measured) {
      rt_position sums = f->at;
      status = measure(f, epoch_seconds);
      if (status != TT_OK && status != TT_INTERRUPTED) return status;
      f->at = (rt_position){.epoch = sums.epoch + 1, .step = sums.step, .seed = sums.seed, .plateau = sums.plateau, .config = sums.config};
      tt_schedule_measured(&f->o->schedule, &f->at.plateau, f->r->test_loss);
      if (f->at.plateau.scale != sums.plateau.scale) take_snapshot(f);       /* steps that are run again have one rate */
      f->r->epochs = f->at.epoch;
      next_epoch(f);
      epoch_seconds = 0;
      if (status == TT_INTERRUPTED) return interrupted(f);
    } else report_progress(f);
    if (f->o->checkpoint_every ? f->at.step % f->o->checkpoint_every == 0 : measured)
      if ((status = save(f)) != TT_OK) return status;
  }
  if (!measured) {                                       /* stopped within an epoch by max_steps, or nothing was left to do */
    tt_status status = measure(f, epoch_seconds);
    if (status == TT_INTERRUPTED) return interrupted(f);
    if (status != TT_OK) return status;
  }
  return save(f);
}

/* A tensor for an input that changes each step, when the program has it. */
static bool scalar(fit *f, worker *w, const char *name, tt_dtype t, tt_tensor **x) {
  const rt_program *p = rt_instance_program(w->run);
  int i = rt_slot_find(p, name);
  if (i < 0 || p->slots[i].kind != RT_INPUT) return true;
  *x = tt_tensor_new(t, &(tt_shape){0}, f->err);
  return *x && rt_bind(w->run, name, *x, f->err) == TT_OK;
}

static bool make_snapshot(fit *f) {
  int n = rt_params_count(f->o->params);
  size_t bytes = 0;
  for (int i = 0; i < n; i++) {
    tt_shape s = tt_tensor_shape(rt_params_at(f->o->params, i)->tensor);
    bytes += (size_t)tt_shape_count(&s) * tt_dtype_size(tt_tensor_dtype(rt_params_at(f->o->params, i)->tensor));
  }
  if (bytes > SNAPSHOT_BYTES) return true;
  f->snapshot = calloc((size_t)n + 1, sizeof *f->snapshot);
  if (!f->snapshot) return tt_fail(f->err, TT_NO_MEMORY, "error: no memory to train\n  at the copy of %zu bytes of parameters\n  fix: use a machine with more memory", bytes), false;
  for (int i = 0; i < n; i++) {
    tt_shape s = tt_tensor_shape(rt_params_at(f->o->params, i)->tensor);
    if (!(f->snapshot[i] = tt_tensor_new(tt_tensor_dtype(rt_params_at(f->o->params, i)->tensor), &s, f->err))) return false;
  }
  return true;
}

static tt_status check_outputs(fit *f, worker *w) {
  w->loss = rt_bound(w->run, "loss");
  w->correct = rt_bound(w->run, "correct");
  if (!w->loss || tt_tensor_shape(w->loss).rank || !tt_dtype_in(tt_tensor_dtype(w->loss), TT_REAL)) return tt_fail(f->err, TT_INVALID, "error: the training program gives no scalar called loss\n  at its outputs\n  fix: let it return loss: f32[]");
  if (w->correct && (tt_tensor_shape(w->correct).rank || tt_tensor_dtype(w->correct) != TT_I64)) return tt_fail(f->err, TT_INVALID, "error: the training program's output correct is no count\n  at its outputs\n  fix: let it be i64[]");
  return TT_OK;
}

static bool make_worker(fit *f, worker *w, const rt_program *p, const rt_instance *lender) {
  w->x = rt_slot_find(p, "x"), w->y = rt_slot_find(p, "y");
  w->places = w->y >= 0 && p->slots[w->y].shape.rank == 3 ? p->slots[w->y].shape.dim[1] * p->slots[w->y].shape.dim[2] : 1;
  return (w->run = rt_instance_new_over(p, f->o->team, lender, f->err)) && rt_params_bind(f->o->params, w->run, f->err) == TT_OK && check_outputs(f, w) == TT_OK &&
         scalar(f, w, "lr", TT_F64, &w->lr) && scalar(f, w, "step", TT_I64, &w->number) && scalar(f, w, "seed", TT_U64, &w->seed);
}

static void free_worker(worker *w) {
  rt_instance_free(w->run);
  tt_tensor_free(w->lr), tt_tensor_free(w->number), tt_tensor_free(w->seed);
}

/* The two programs of an accumulated step take turns in one arena, that of the larger. */
static bool make_workers(fit *f) {
  const rt_program *last = f->o->step, *early = f->accumulate > 1 ? f->o->collect : NULL;
  if (!early) return make_worker(f, &f->last, last, NULL);
  if (last->arena_bytes >= early->arena_bytes) return make_worker(f, &f->last, last, NULL) && make_worker(f, &f->early, early, f->last.run);
  return make_worker(f, &f->early, early, NULL) && make_worker(f, &f->last, last, f->early.run);
}

static tt_status prepare(fit *f) {
  const tt_fit_options *o = f->o;
  if (o->epochs < 0 || o->max_steps < 0 || o->checkpoint_every < 0) return tt_fail(f->err, TT_INVALID, "error: a negative number of epochs or steps\n  at tt_fit\n  fix: epochs, max_steps and checkpoint_every are 0 or more");
  if (o->resume && !o->checkpoint) return tt_fail(f->err, TT_INVALID, "error: nothing to resume from\n  at tt_fit\n  fix: give the checkpoint folder");
  if (rt_schedule_check(&o->schedule, f->err) != TT_OK) return f->err->status;
  if (rt_schedule_wants_loss(&o->schedule) && (!o->eval || !o->test)) return tt_fail(f->err, TT_INVALID, "error: schedule %s follows the test loss, but nothing is tested\n  at tt_fit\n  fix: give test data, or use another schedule", o->schedule.name);
  if (o->metrics && (!o->eval || !o->test)) return tt_fail(f->err, TT_INVALID, "error: metrics are asked for, but nothing is tested\n  at tt_fit\n  fix: give test data");
  if (o->resume) {
    if (rt_checkpoint_load(o->checkpoint, o->params, &f->at, f->err) != TT_OK) return f->err->status;
    if (f->at.seed != o->seed) return tt_fail(f->err, TT_INVALID, "error: the checkpoint's seed is %" PRIu64 ", this run's %" PRIu64 "\n  at %s\n  fix: resume with the same seed", f->at.seed, o->seed, o->checkpoint);
    f->saved_step = f->at.step;
  }
  f->accumulate = o->accumulate ? o->accumulate : 1;
  if (f->accumulate < 1 || (f->accumulate > 1 && !o->collect)) return tt_fail(f->err, TT_INVALID, "error: %" PRId64 " batches to accumulate%s\n  at tt_fit\n  fix: accumulate is 1 or more, with a program that collects from 2 on", f->accumulate, f->accumulate > 1 ? ", but no program that collects" : "");
  if (!make_workers(f) || !make_snapshot(f)) return f->err->status;
  if (!(f->loader = tt_loader_new(o->train, &o->loader, f->err))) return f->err->status;
  f->batches = tt_loader_batches(f->loader) / f->accumulate * f->accumulate;
  if (!f->batches) return tt_fail(f->err, TT_INVALID, "error: an update takes %" PRId64 " batches, an epoch has %" PRId64 "\n  at tt_fit\n  fix: accumulate fewer, or make the batch smaller", f->accumulate, tt_loader_batches(f->loader));
  if (f->at.batch >= f->batches || f->at.batch % f->accumulate) return tt_fail(f->err, TT_FORMAT, "error: the checkpoint stands at batch %" PRId64 ", an epoch has %" PRId64 "\n  at %s\n  fix: resume with the same data and batch size", f->at.batch, f->batches, o->checkpoint);
  tt_loader_seek(f->loader, f->at.epoch, f->at.batch);
  if (o->eval && o->test) {                              /* its batch is what the program was compiled for */
    int x = rt_slot_find(o->eval, "x");
    if (x < 0 || o->eval->slots[x].shape.rank < 1) return tt_fail(f->err, TT_INVALID, "error: the evaluation program takes no batch called x\n  at its inputs\n  fix: let it take x: f32[batch, ...]");
    if (!(f->eval = rt_evaluator_new(o->eval, o->params, o->averages, o->team, o->test, o->eval->slots[x].shape.dim[0], o->loader.flatten, o->metrics, f->err))) return f->err->status;
  }
  if (o->log && !(f->log = rt_log_open(o->log, o->resume ? f->at.step : -1, f->err))) return f->err->status;
  return TT_OK;
}

tt_status tt_fit(const tt_fit_options *o, tt_fit_result *r, tt_error *err) {
  tt_error local_error = {0};
  tt_fit_result local = {0};
  fit f = {.o = o, .err = err ? err : &local_error, .r = r ? r : &local, .at = {.seed = o->seed, .plateau = {INFINITY, 1, 0}, .config = o->config}, .saved_step = -1};
  *f.r = (tt_fit_result){.loss = NAN, .train_accuracy = NAN, .test_loss = NAN, .test_accuracy = NAN};
  tt_status status = prepare(&f);
  f.r->epochs = f.at.epoch;
  f.r->steps = f.at.step;
  if (status == TT_OK) status = save(&f);                /* a folder that cannot be written is known now, and a kill before the first epoch's end leaves something to resume */
  if (status == TT_OK) status = loop(&f);
  rt_log_close(f.log);
  rt_evaluator_free(f.eval);
  tt_loader_free(f.loader);
  free_worker(&f.early), free_worker(&f.last);
  for (int i = 0; f.snapshot && i < rt_params_count(o->params); i++) tt_tensor_free(f.snapshot[i]);
  free(f.snapshot);
  return status;
}
