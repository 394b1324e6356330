/* params.c: the named state of a model. A store owns its tensors; programs bind them by name, so that training, evaluation and a
 * checkpoint see the same numbers. */
#include "runtime.h"

#include <stdlib.h>
#include <string.h>

struct rt_params { rt_param *at; int n, room; };

rt_params *rt_params_new(void) { return calloc(1, sizeof(rt_params)); }

void rt_params_free(rt_params *s) {
  if (!s) return;
  for (int i = 0; i < s->n; i++) {
    free((char *)s->at[i].name);
    tt_tensor_free(s->at[i].tensor);
  }
  free(s->at);
  free(s);
}

tt_status rt_params_add(rt_params *s, const char *name, tt_tensor *take, bool trainable, bool optimizer_state, tt_error *err) {
  tt_status status = TT_OK;
  if (!take) status = tt_fail(err, TT_INVALID, "error: parameter %s has no tensor\n  at rt_params_add\n  fix: make the tensor first and check that it was made", name);
  else if (rt_params_find(s, name)) status = tt_fail(err, TT_INVALID, "error: two parameters are called %s\n  at rt_params_add\n  fix: give each parameter a name of its own", name);
  else if (!tt_tensor_is_dense(take)) status = tt_fail(err, TT_INVALID, "error: parameter %s is not dense\n  at rt_params_add\n  fix: pass tt_tensor_dense of it", name);
  if (status == TT_OK && s->n == s->room) {
    int room = s->room ? 2 * s->room : 16;
    rt_param *at = realloc(s->at, (size_t)room * sizeof *at);
    if (at) s->at = at, s->room = room;
    else status = tt_fail(err, TT_NO_MEMORY, "error: no memory for the list of parameters\n  at %s\n  fix: use a machine with more memory", name);
  }
  char *own = status == TT_OK ? strdup(name) : NULL;
  if (status == TT_OK && !own) status = tt_fail(err, TT_NO_MEMORY, "error: no memory for a parameter's name\n  at %s\n  fix: use a machine with more memory", name);
  if (status != TT_OK) {
    tt_tensor_free(take);
    return status;
  }
  s->at[s->n++] = (rt_param){own, take, trainable, optimizer_state, false};
  return TT_OK;
}

rt_param *rt_params_find(rt_params *s, const char *name) {
  for (int i = 0; i < s->n; i++)
    if (!strcmp(s->at[i].name, name)) return &s->at[i];
  return NULL;
}

int rt_params_count(const rt_params *s) { return s->n; }
rt_param *rt_params_at(rt_params *s, int i) { return i >= 0 && i < s->n ? &s->at[i] : NULL; }

/* NAME.ema of it, or NULL. */
static rt_param *average_of(rt_params *s, const char *name) {
  size_t n = strlen(name);
  for (int i = 0; i < s->n; i++)
    if (s->at[i].optimizer_state && !strncmp(s->at[i].name, name, n) && !strcmp(s->at[i].name + n, ".ema")) return &s->at[i];
  return NULL;
}

static tt_status bind_all(rt_params *s, rt_instance *x, bool averages, tt_error *err) {
  const rt_program *p = rt_instance_program(x);
  for (uint32_t i = 0; i < p->n_slots; i++) {
    if (p->slots[i].kind != RT_PARAM) continue;
    rt_param *q = averages ? average_of(s, p->slots[i].name) : NULL;
    if (!q) q = rt_params_find(s, p->slots[i].name);
    if (!q) return tt_fail(err, TT_INVALID, "error: the program wants a parameter %s, which the store does not have\n  at rt_params_bind, %d parameters in the store\n  fix: initialize the parameters of this program first", p->slots[i].name, s->n);
    tt_status status = rt_bind(x, p->slots[i].name, q->tensor, err);
    if (status != TT_OK) return status;
  }
  return TT_OK;
}

tt_status rt_params_bind(rt_params *s, rt_instance *x, tt_error *err) { return bind_all(s, x, false, err); }
tt_status rt_params_bind_averages(rt_params *s, rt_instance *x, tt_error *err) { return bind_all(s, x, true, err); }

void rt_params_take_averages(rt_params *s) {
  for (int i = 0; i < s->n; i++) {
    rt_param *mean = s->at[i].optimizer_state ? NULL : average_of(s, s->at[i].name);
    if (mean) tt_tensor_copy(s->at[i].tensor, mean->tensor, NULL);         /* equal types and shapes: cannot fail */
  }
}
