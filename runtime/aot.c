/* aot.c: running what was compiled ahead of time: chooses the variant for this CPU, gives it memory and threads, and feeds it. */
#include "aot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct rt_compiled {
  const rt_model *m;
  const rt_variant *v;
  rt_team *team;
  rt_params *params;
  rt_instance *step, *predict;
  tt_tensor *lr, *number, *seed;       /* inputs of the step that it may have; NULL: not */
  int64_t n_steps;
};

/* Of native code, all features of the CPU that compiled it. */
static bool fits(const rt_variant *v, int level, const uint32_t *has) {
  bool ok = (int)v->level <= level;
  for (int i = 0; i < RT_CPU_WORDS; i++) ok = ok && (has[i] & v->needs[i]) == v->needs[i];
  return ok;
}

static bool choose(rt_compiled *c, tt_error *err) {
  uint32_t has[RT_CPU_WORDS];
  int level = rt_cpu_level();
  char list[300] = "";
  rt_cpu_features(has);
  for (uint32_t i = 0; i < c->m->n_variants && !c->v; i++) {
    size_t n = strlen(list);
    snprintf(list + n, sizeof list - n, "%s%s", n ? ", " : "", c->m->variants[i].cpu);
    if (fits(&c->m->variants[i], level, has)) c->v = &c->m->variants[i];
  }
  return c->v || (tt_fail(err, TT_UNSUPPORTED, "error: this CPU cannot run the code of %s: it is of level x86-64-v%d, the code is for %s\n  at rt_compiled_new\n  fix: compile the model with --cpu x86-64-v%d among others",
                          c->m->name, level, list, level < 2 ? 2 : level), false);
}

/* A tensor for each param that one of the programs has. */
static bool add_params(rt_compiled *c, const rt_program *p, tt_error *err) {
  for (uint32_t i = 0; p && i < p->n_slots; i++) {
    const rt_slot *s = &p->slots[i];
    if (s->kind != RT_PARAM || rt_params_find(c->params, s->name)) continue;
    bool state = false;
    for (uint32_t k = 0; k < c->m->n_state; k++) state |= !strcmp(c->m->state[k], s->name);
    tt_tensor *x = tt_tensor_new(s->dtype, &s->shape, err);
    if (!x || rt_params_add(c->params, s->name, x, s->trainable, state, err) != TT_OK) return false;
  }
  return true;
}

/* The input of that name gets a tensor; *x: it, borrowed from the instance. */
static bool input(rt_instance *run, const char *name, tt_tensor **x, tt_error *err) {
  const rt_program *p = rt_instance_program(run);
  int i = rt_slot_find(p, name);
  if (x) *x = NULL;
  if (i < 0 || p->slots[i].kind != RT_INPUT) return true;
  tt_tensor *own = tt_tensor_new(p->slots[i].dtype, &p->slots[i].shape, err);
  bool ok = own && rt_bind(run, name, own, err) == TT_OK;
  tt_tensor_free(own);
  if (ok && x) *x = rt_bound(run, name);
  return ok;
}

static bool prepare(rt_compiled *c, const rt_program *p, rt_instance **run, tt_error *err) {
  return !p || ((*run = rt_instance_new(p, c->team, err)) && rt_params_bind(c->params, *run, err) == TT_OK && input(*run, "x", NULL, err) && input(*run, "y", NULL, err) &&
                input(*run, "seed", NULL, err) && input(*run, "step", NULL, err));      /* noise in prediction is that of seed 0, step 0, as tt_predict's */
}

rt_compiled *rt_compiled_new(int n_threads, tt_error *err, const rt_model *m) {
  tt_error own = {0};
  if (!err) err = &own;
  if (m->version != RT_MODEL_VERSION)
    return tt_fail(err, TT_UNSUPPORTED, "error: %s was compiled by another version: %u instead of %d\n  at rt_compiled_new\n  fix: compile the model again, or link the libtinytorch_rt of that version", m->name, m->version, RT_MODEL_VERSION), NULL;
  rt_compiled *c = calloc(1, sizeof *c);
  if (c) c->params = rt_params_new();
  if (!c || !c->params) {
    free(c);
    return tt_fail(err, TT_NO_MEMORY, "error: no memory for a model\n  at rt_compiled_new of %s\n  fix: free memory", m->name), NULL;
  }
  c->m = m;
  bool ok = choose(c, err) && (c->team = rt_team_new(n_threads, err)) && add_params(c, c->v->predict, err) && add_params(c, c->v->step, err)
         && prepare(c, c->v->predict, &c->predict, err) && prepare(c, c->v->step, &c->step, err);
  if (ok && c->step) ok = input(c->step, "lr", &c->lr, err) && input(c->step, "step", &c->number, err) && input(c->step, "seed", &c->seed, err);
  if (ok) return c;
  rt_compiled_free(c);
  return NULL;
}

void rt_compiled_free(rt_compiled *c) {
  if (!c) return;
  rt_instance_free(c->step), rt_instance_free(c->predict);
  rt_params_free(c->params);
  rt_team_free(c->team);
  free(c);
}

rt_params *rt_compiled_params(rt_compiled *c) { return c->params; }
const char *rt_compiled_cpu(const rt_compiled *c) { return c->v->cpu; }
void rt_compiled_seed(rt_compiled *c, uint64_t seed) { if (c->seed) *(uint64_t *)tt_tensor_data(c->seed) = seed; }

tt_status rt_compiled_load(rt_compiled *c, const char *path, tt_error *err) {
  tt_error own = {0};
  if (!err) err = &own;
  tt_safetensors *f = tt_safetensors_open(path, err);
  if (!f) return err->status;
  int n = rt_params_count(c->params);
  for (int i = 0; i < n && err->status == TT_OK; i++) {
    const rt_param *p = rt_params_at(c->params, i);
    tt_shape want = tt_tensor_shape(p->tensor);
    if (p->optimizer_state) {
      memset(tt_tensor_data(p->tensor), 0, (size_t)tt_shape_count(&want) * tt_dtype_size(tt_tensor_dtype(p->tensor)));
      continue;
    }
    tt_tensor *x = tt_safetensors_get(f, p->name, err);
    tt_shape got = x ? tt_tensor_shape(x) : want;
    if (x && !tt_shape_equal(&got, &want)) tt_fail(err, TT_INVALID, "error: %s has another shape in the weights than in the model\n  at %s\n  fix: load weights that were saved from this model", p->name, path);
    else if (x) tt_tensor_copy(p->tensor, x, err);
    tt_tensor_free(x);
  }
  tt_safetensors_close(f);
  if (err->status == TT_OK) c->n_steps = 0;
  return err->status;
}

tt_status rt_compiled_save(rt_compiled *c, const char *path, tt_error *err) {
  int n = rt_params_count(c->params), used = 0;
  tt_named_tensor *list = malloc(((size_t)n + 1) * sizeof *list);
  if (!list) return tt_fail(err, TT_NO_MEMORY, "error: no memory for %d names\n  at rt_compiled_save of %s\n  fix: free memory", n, c->m->name);
  for (int i = 0; i < n; i++) {
    const rt_param *p = rt_params_at(c->params, i);
    if (!p->optimizer_state) list[used++] = (tt_named_tensor){p->name, p->tensor};
  }
  tt_status status = tt_safetensors_save(path, list, used, &(tt_metadata){"format", "pt"}, 1, err);
  free(list);
  return status;
}

static size_t bytes_of(rt_instance *run, const char *name) {
  int i = rt_slot_find(rt_instance_program(run), name);
  return i < 0 ? 0 : rt_instance_program(run)->slots[i].bytes;
}

static void fill(rt_instance *run, const char *name, const void *data) {
  size_t bytes = bytes_of(run, name);
  if (bytes && data) memcpy(tt_tensor_data(rt_bound(run, name)), data, bytes);
}

tt_status rt_compiled_step(rt_compiled *c, const void *x, const int32_t *y, double lr, double *loss, tt_error *err) {
  if (!c->step) return tt_fail(err, TT_INVALID, "error: %s was compiled to predict only\n  at rt_compiled_step\n  fix: compile it with --train", c->m->name);
  fill(c->step, "x", x), fill(c->step, "y", y);
  if (c->lr) *(double *)tt_tensor_data(c->lr) = lr;
  if (c->number) *(int64_t *)tt_tensor_data(c->number) = c->n_steps;
  tt_status status = rt_run(c->step, err);
  if (status != TT_OK) return status;
  c->n_steps++;
  tt_tensor *out = loss ? rt_bound(c->step, "loss") : NULL;
  if (out) *loss = tt_tensor_at(out, NULL);
  return TT_OK;
}

tt_status rt_compiled_predict(rt_compiled *c, const void *x, void *out, tt_error *err) {
  static const char *const names[] = {"logits", "scores"};
  fill(c->predict, "x", x);
  tt_status status = rt_run(c->predict, err);
  for (int i = 0; i < 2 && status == TT_OK; i++) {
    tt_tensor *y = rt_slot_find(c->v->predict, names[i]) >= 0 ? rt_bound(c->predict, names[i]) : NULL;
    if (!y) continue;
    memcpy(out, tt_tensor_data(y), bytes_of(c->predict, names[i]));
    return TT_OK;
  }
  return status != TT_OK ? status : tt_fail(err, TT_INVALID, "error: %s has no output called logits\n  at rt_compiled_predict\n  fix: compile a model that has one", c->m->name);
}
