/* plan.c: how much memory a program takes when it runs, from its tables alone: what rt_instance_new allocates, what is bound to it. */
#include "runtime.h"

#include <string.h>

size_t rt_scratch_stride(const rt_program *p) {          /* threads do not share lines, nor sets of the cache */
  return (p->scratch_bytes + 4095) / 4096 * 4096 + 128;
}

/* STATE, when it is called PARAM.STATE, of a trained param: what the optimizer keeps, or a sum of gradients; else NULL. */
static const char *state_name(const rt_program *p, const rt_slot *s) {
  if (s->trainable) return NULL;
  for (uint32_t i = 0; i < p->n_slots; i++) {
    const rt_slot *t = &p->slots[i];
    size_t n = t->kind == RT_PARAM && t->trainable ? strlen(t->name) : 0;
    if (n && !strncmp(s->name, t->name, n) && s->name[n] == '.') return s->name + n + 1;
  }
  return NULL;
}

rt_memory rt_program_memory(const rt_program *p, int n_threads) {
  rt_memory m = {.arena = p->arena_bytes, .scratch = rt_scratch_stride(p) * (size_t)n_threads};
  for (uint32_t i = 0; i < p->n_slots; i++) {
    const rt_slot *s = &p->slots[i];
    const char *state = s->kind == RT_PARAM ? state_name(p, s) : NULL;
    if (s->kind == RT_PARAM) *(!state ? &m.params : strcmp(state, "grad") ? &m.state : &m.gradients) += s->bytes;
    if (s->kind == RT_OUTPUT) *(s->name && !strncmp(s->name, "grad.", 5) ? &m.gradients : &m.outputs) += s->bytes;
    if (s->kind == RT_INPUT) m.inputs += s->bytes;
    if (s->kind == RT_CONST) m.constants += s->bytes;
  }
  m.total = m.params + m.state + m.gradients + m.inputs + m.outputs + m.constants + m.arena + m.scratch;
  return m;
}
