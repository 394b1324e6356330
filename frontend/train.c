/* train.c: tt_train and tt_test: data, model and options become what the runtime's loops take: a compiled step, a compiled evaluation,
 * a schedule and a loader. */
#include "frontend.h"

typedef struct { tt_dataset *train, *test; rt_program *step, *collect, *eval; } parts;

static tt_status compile_for(tt_model *m, const tt_dataset *d, int64_t batch, bool soft, const tt_compile_options *o, rt_program **p, tt_error *err) {
  tt_dtype dtype;
  tt_shape s = tt_dataset_shape(d, batch, &dtype);
  return tt_model_compile(m, dtype, &s, soft ? TT_SOFT_LABELS : d->pixel_labels ? TT_PIXEL_LABELS : TT_LABELS, o, p, err);
}

/* What must not change between a checkpoint and its resumption, for the same bits to come out. The length of training counts only
 * where the learning rate follows it. malloc'ed; NULL: no memory. */
static char *config_text(const tt_model *m, const tt_train_options *o, const tt_fit_options *f, const char *cpu) {
  const char *schedule = f->schedule.name;
  model_target to = model_target_of(m);
  char *text = NULL;
  size_t size;
  FILE *w = open_memstream(&text, &size);
  if (!w) return NULL;
  fprintf(w, "model=%s data=%s n=%lld batch=%lld", to.name, f->train->name ? f->train->name : "", (long long)f->train->n, (long long)f->loader.batch);
  fprintf(w, " optimizer=%s hyper=\"%s\" clip=%.17g", o->optimizer ? o->optimizer : "sgd", o->hyper ? o->hyper : "", o->clip_norm);
  for (int i = 0; i < 8 && o->groups[i].pattern; i++)
    fprintf(w, " group=%s:%s:\"%s\"", o->groups[i].pattern, o->groups[i].optimizer ? o->groups[i].optimizer : "frozen", o->groups[i].hyper ? o->groups[i].hyper : "");
  fprintf(w, " lr=%.17g schedule=%s warmup=%lld step_size=%lld gamma=%.17g", f->schedule.lr, schedule, (long long)o->warmup, (long long)o->step_size, o->gamma);
  for (int i = 0; i < TT_MILESTONES && o->milestones[i]; i++) fprintf(w, " milestone=%lld", (long long)o->milestones[i]);
  if (o->power != 0 || o->restart_factor) fprintf(w, " power=%.17g restart_factor=%lld", o->power, (long long)o->restart_factor);
  if (rt_schedule_wants_loss(&f->schedule)) fprintf(w, " patience=%lld threshold=%.17g", (long long)o->patience, o->threshold);
  if (o->no_decay_norm_bias) fprintf(w, " no_decay_norm_bias=1");
  if (o->ema != 0) fprintf(w, " ema=%.17g", o->ema);
  char augment[200];
  rt_augment_text(&o->augment, augment, sizeof augment);
  fprintf(w, " seed=%llu augment=%s backend=%s cpu=%s", (unsigned long long)o->seed, augment, to.backend ? to.backend : "jit", cpu);
  if (to.products && strcmp(to.products, "f32")) fprintf(w, " products=%s", to.products);
  if (f->train->tokens) fprintf(w, " context=%lld tokens=%lld masked=%.17g", (long long)f->train->context, (long long)f->train->n_classes, f->train->masked);
  if (o->accumulate > 1) fprintf(w, " accumulate=%lld", (long long)o->accumulate);
  if (rt_schedule_wants_total(&f->schedule)) fprintf(w, " total=%lld", (long long)f->schedule.total);
  if (f->step->tuned) fprintf(w, " tuned=%016llx", (unsigned long long)f->step->tuned);
  if (to.skip && *to.skip) fprintf(w, " skip=%s", to.skip);
  if (fclose(w)) free(text), text = NULL;
  return text;
}

static tt_status run(tt_model *m, const tt_train_options *o, const char *cpu, parts *p, tt_fit_result *result, tt_error *err) {
  tt_status status;
  int64_t batch = o->batch ? o->batch : 64;
  if (batch < 1) return tt_fail(err, TT_INVALID, "error: a batch of %lld\n  at tt_train\n  fix: give 1 or more", (long long)batch);
  int64_t accumulate = o->accumulate ? o->accumulate : 1;
  if (accumulate < 1 || accumulate > INT32_MAX) return tt_fail(err, TT_INVALID, "error: %lld batches to accumulate\n  at tt_train\n  fix: give 1 or more", (long long)accumulate);
  if (!o->data && !o->train)
    return tt_fail(err, TT_INVALID, "error: no data to train on\n  at tt_train\n  fix: set data to a set and its folder, \"mnist:DIR\"");
  if (o->data && (!(p->train = tt_dataset_open(o->data, true, err)) || !(p->test = tt_dataset_open(o->data, false, err)))) return err->status;
  tt_fit_options f = {.params = tt_model_params(m), .team = tt_model_team(m, err), .train = p->train ? p->train : o->train,
                      .test = p->test ? p->test : o->test, .metrics = o->metrics,
                      .epochs = o->epochs ? o->epochs : 1, .max_steps = o->max_steps, .seed = o->seed, .log = o->log, .checkpoint = o->checkpoint,
                      .averages = o->ema > 0, .checkpoint_every = o->checkpoint_every, .tokenizer = o->tokenizer, .resume = o->resume, .report = o->report, .user = o->user, .stop = o->stop};
  if (!f.team) return err->status;
  if (f.train->n < batch)
    return tt_fail(err, TT_INVALID, "error: a batch of %lld, but %s has %lld %s to train on\n  at tt_train\n  fix: make the batch smaller", (long long)batch, f.train->name, (long long)f.train->n, tt_dataset_samples(f.train));
  f.loader = (tt_loader_options){.batch = batch, .shuffle = true, .augment = o->augment, .drop_last = f.train->n >= batch, .seed = o->seed,
                                 .n_threads = 1};
  int64_t each = f.loader.drop_last ? f.train->n / batch : (f.train->n + batch - 1) / batch, total = each / accumulate * f.epochs;
  if (o->max_steps && o->max_steps < total) total = o->max_steps;
  f.schedule = (tt_schedule){.name = o->schedule ? o->schedule : "constant", .lr = o->lr != 0 ? o->lr : 0.01, .warmup = o->warmup, .total = total,
                             .step_size = o->step_size, .gamma = o->gamma, .power = o->power != 0 ? o->power : 1, .restart_factor = o->restart_factor, .patience = o->patience, .threshold = o->threshold};
  memcpy(f.schedule.milestones, o->milestones, sizeof f.schedule.milestones);
  tt_compile_options c = {.train = true, .optimizer = o->optimizer, .hyper = o->hyper, .no_decay_norm_bias = o->no_decay_norm_bias, .ema = o->ema, .clip_norm = o->clip_norm, .accumulate = (int)accumulate, .memory_budget = o->memory_budget, .watch = o->watch, .kernel = o->kernel, .user = o->user, .stop = o->stop};
  memcpy(c.groups, o->groups, sizeof c.groups);
  bool soft = o->augment.mixup > 0 || o->augment.cutmix > 0;
  if ((status = compile_for(m, f.train, batch, soft, &c, &p->step, err)) != TT_OK) return status;
  f.step = p->step;
  if (accumulate > 1) {
    c.collect = true;
    if ((status = compile_for(m, f.train, batch, soft, &c, &p->collect, err)) != TT_OK) return status;
    f.collect = p->collect, f.accumulate = accumulate;
  }
  if (f.test) {
    tt_compile_options e = {.scores = o->metrics, .watch = o->watch, .kernel = o->kernel, .user = o->user, .stop = o->stop};
    if ((status = compile_for(m, f.test, batch, false, &e, &p->eval, err)) != TT_OK) return status;
    f.eval = p->eval;
  }
  char *config = config_text(m, o, &f, cpu);
  if (!config) return tt_fail(err, TT_NO_MEMORY, "error: no memory to train\n  at tt_train\n  fix: free memory");
  f.config = config;
  tt_fit_result own;
  status = tt_fit(&f, result ? result : &own, err);
  free(config);
  if (f.averages && (status == TT_OK || status == TT_INTERRUPTED) && (result ? result : &own)->steps) rt_params_take_averages(f.params);
  return status;
}

tt_status tt_train(tt_model *m, const tt_train_options *o, tt_fit_result *result, tt_error *err) {
  tt_error own = {0};
  if (!err) err = &own;
  cg_cpu cpu;
  parts p = {0};
  tt_status status = cg_cpu_get(model_target_of(m).cpu, &cpu, err);
  char target[100];                /* all of the CPU that the order of sums depends on */
  if (status == TT_OK) cg_cpu_text(&cpu, target, sizeof target);
  if (status == TT_OK) status = run(m, o, target, &p, result, err);
  rt_program_free(p.step);
  rt_program_free(p.collect);
  rt_program_free(p.eval);
  tt_dataset_free(p.train);
  tt_dataset_free(p.test);
  return status;
}

tt_status tt_test(tt_model *m, const tt_dataset *test, int64_t batch, tt_metrics *metrics, tt_eval_result *result, tt_error *err) {
  tt_error own = {0};
  if (!err) err = &own;
  if (!batch) batch = 64;
  rt_program *eval = NULL;
  rt_team *team = tt_model_team(m, err);
  tt_status status = team ? compile_for(m, test, batch, false, &(tt_compile_options){.scores = metrics}, &eval, err) : err->status;
  if (status == TT_OK) status = tt_evaluate(eval, tt_model_params(m), team, test, batch, false, metrics, result, err);
  rt_program_free(eval);
  return status;
}
