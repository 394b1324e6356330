/* execute.c: a program with its memory, and the walk of its steps.
 *
 * Making an instance resolves everything that a run would otherwise look up: the argument pointers of all steps lie in one flat
 * array (binding a tensor patches the places of its slot), and the steps after which the team must meet are marked. A run is then
 * one loop in every thread: its share of a step's tasks, and a barrier where it is marked. No allocation, no lock.
 *
 * A barrier follows a step only when the next one touches memory that a step since the last barrier wrote, or writes what one of
 * them reads, unless both run on thread 0 alone. */
#include "runtime.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct rt_instance {
  const rt_program *p;
  rt_team *team;
  char *arena, *scratch;
  size_t scratch_stride, scratch_bytes;
  tt_tensor **bound;               /* of each slot; NULL: none */
  char **pointers;                 /* of each slot */
  char **args;                     /* of all steps, one after another */
  size_t *first;                   /* of each step, in args */
  bool *meet;                      /* of each step: a barrier follows */
  bool *written;                   /* of each slot */
  size_t *uses, *use_of;           /* the places in args of slot s: uses[use_of[s] .. use_of[s+1]) */
  bool ready;                      /* everything is bound */
};

const rt_program *rt_instance_program(const rt_instance *x) { return x->p; }

static bool on_first_thread(const rt_step *s) { return s->serial || s->tasks <= 1; }

static bool overlap(const rt_slot *slots, uint32_t a, uint32_t b) {
  if (a == b) return true;
  const rt_slot *s = &slots[a], *t = &slots[b];
  return s->kind == RT_ARENA && t->kind == RT_ARENA && s->offset < t->offset + t->bytes && t->offset < s->offset + s->bytes;
}

static bool touches(const rt_slot *slots, const uint32_t *writes, uint32_t n_writes, const uint32_t *others, uint32_t n_others) {
  for (uint32_t i = 0; i < n_writes; i++)
    for (uint32_t k = 0; k < n_others; k++)
      if (overlap(slots, writes[i], others[k])) return true;
  return false;
}

static bool must_wait(const rt_program *p, const rt_step *before, const rt_step *after) {
  if (on_first_thread(before) && on_first_thread(after)) return false;
  return touches(p->slots, before->writes, before->n_writes, after->slots, after->n_slots) || touches(p->slots, after->writes, after->n_writes, before->slots, before->n_slots);
}

static void mark_barriers(rt_instance *x) {
  enum { GROUP = 64 };             /* a longer run of independent steps is cut: the search stays linear */
  uint32_t start = 0;              /* the first step since the last barrier */
  for (uint32_t i = 1; i < x->p->n_steps; i++) {
    bool wait = i - start >= GROUP;
    for (uint32_t k = start; k < i && !wait; k++) wait = must_wait(x->p, &x->p->steps[k], &x->p->steps[i]);
    if (wait) {
      x->meet[i - 1] = true;
      start = i;
    }
  }
}

static void set_pointer(rt_instance *x, uint32_t slot, const void *data) {
  x->pointers[slot] = (char *)data;
  for (size_t i = x->use_of[slot]; i < x->use_of[slot + 1]; i++) x->args[x->uses[i]] = (char *)data;
}

/* Argument places by slot, by counting. */
static void index_arguments(rt_instance *x) {
  const rt_program *p = x->p;
  size_t n = 0;
  for (uint32_t i = 0; i < p->n_steps; i++) {
    x->first[i] = n;
    n += p->steps[i].n_slots;
    for (uint32_t k = 0; k < p->steps[i].n_slots; k++) x->use_of[p->steps[i].slots[k] + 1]++;
    for (uint32_t k = 0; k < p->steps[i].n_writes; k++) x->written[p->steps[i].writes[k]] = true;
  }
  for (uint32_t s = 0; s < p->n_slots; s++) x->use_of[s + 1] += x->use_of[s];
  for (uint32_t i = p->n_steps; i-- > 0;)
    for (uint32_t k = p->steps[i].n_slots; k-- > 0;) x->uses[--x->use_of[p->steps[i].slots[k] + 1]] = x->first[i] + k;
  /* use_of[s+1] is now the beginning of s; shift it down. */
  for (uint32_t s = 0; s < p->n_slots; s++) x->use_of[s] = x->use_of[s + 1];
  x->use_of[p->n_slots] = n;
}

rt_instance *rt_instance_new(const rt_program *p, rt_team *team, tt_error *err) {
  size_t n_args = 0, steps = p->n_steps + 1, slots = p->n_slots + 1;
  for (uint32_t i = 0; i < p->n_steps; i++) n_args += p->steps[i].n_slots;
  rt_instance *x = calloc(1, sizeof *x);
  if (x) {
    x->p = p;
    x->team = team;
    x->scratch_stride = rt_scratch_stride(p);
    x->scratch_bytes = x->scratch_stride * (size_t)rt_team_size(team);
    x->arena = rt_alloc(p->arena_bytes);
    x->scratch = rt_alloc(x->scratch_bytes);
    x->bound = calloc(slots, sizeof *x->bound);
    x->pointers = calloc(slots, sizeof *x->pointers);
    x->args = calloc(n_args + 1, sizeof *x->args);
    x->first = calloc(steps, sizeof *x->first);
    x->meet = calloc(steps, sizeof *x->meet);
    x->written = calloc(slots, sizeof *x->written);
    x->uses = calloc(n_args + 1, sizeof *x->uses);
    x->use_of = calloc(slots, sizeof *x->use_of);
  }
  if (!x || !x->arena || !x->scratch || !x->bound || !x->pointers || !x->args || !x->first || !x->meet || !x->written || !x->uses || !x->use_of) {
    tt_fail(err, TT_NO_MEMORY, "error: no memory to run a program\n  at an arena of %zu bytes, %zu bytes of scratch for each of %d threads\n  fix: use a smaller batch, a memory budget, or fewer threads",
            p->arena_bytes, p->scratch_bytes, rt_team_size(team));
    rt_instance_free(x);
    return NULL;
  }
  index_arguments(x);
  for (uint32_t i = 0; i < p->n_slots; i++) {
    const rt_slot *s = &p->slots[i];
    if (s->kind == RT_ARENA) set_pointer(x, i, x->arena + s->offset);
    if (s->kind == RT_CONST) set_pointer(x, i, s->data);
  }
  mark_barriers(x);
  return x;
}

void rt_instance_free(rt_instance *x) {
  if (!x) return;
  for (uint32_t i = 0; x->bound && i < x->p->n_slots; i++) tt_tensor_free(x->bound[i]);
  rt_free(x->arena, x->p->arena_bytes);
  rt_free(x->scratch, x->scratch_bytes);
  free(x->bound);
  free(x->pointers);
  free(x->args);
  free(x->first);
  free(x->meet);
  free(x->written);
  free(x->uses);
  free(x->use_of);
  free(x);
}

size_t rt_instance_bytes(const rt_instance *x) {
  size_t bytes = x->p->arena_bytes + x->scratch_bytes;
  for (uint32_t i = 0; i < x->p->n_slots; i++)
    if (x->p->slots[i].kind == RT_OUTPUT && x->bound[i]) bytes += x->p->slots[i].bytes;
  return bytes;
}

static bool is_bindable(const rt_slot *s) { return s->kind == RT_INPUT || s->kind == RT_PARAM || s->kind == RT_OUTPUT; }

int rt_slot_find(const rt_program *p, const char *name) {
  for (uint32_t i = 0; i < p->n_slots; i++)
    if (p->slots[i].name && is_bindable(&p->slots[i]) && !strcmp(p->slots[i].name, name)) return (int)i;
  return -1;
}

/* Memory that the program writes may belong to one slot only: kernels and barriers rely on it. */
static int aliased(const rt_instance *x, uint32_t slot, const char *data) {
  const char *end = data + x->p->slots[slot].bytes;
  for (uint32_t i = 0; i < x->p->n_slots; i++) {
    const rt_slot *s = &x->p->slots[i];
    if (i != slot && is_bindable(s) && x->bound[i] && (x->written[i] || x->written[slot]) && data < x->pointers[i] + s->bytes && x->pointers[i] < end) return (int)i;
  }
  return -1;
}

static tt_status bind_slot(rt_instance *x, uint32_t i, tt_tensor *dense, tt_error *err) {
  const rt_slot *s = &x->p->slots[i];
  tt_shape shape = tt_tensor_shape(dense);
  if (tt_tensor_dtype(dense) != s->dtype || !tt_shape_equal(&shape, &s->shape)) {
    char want[200], got[200];
    return tt_fail(err, TT_INVALID, "error: %s wants %s, it is given %s\n  at rt_bind\n  fix: give a tensor of that type and shape, or compile the program for this one",
                   s->name, tt_type_text(s->dtype, &s->shape, want, sizeof want), tt_type_text(tt_tensor_dtype(dense), &shape, got, sizeof got));
  }
  if (!tt_tensor_is_dense(dense)) return tt_fail(err, TT_INVALID, "error: %s is given a tensor that is not dense\n  at rt_bind\n  fix: bind tt_tensor_dense of it", s->name);
  int other = aliased(x, i, tt_tensor_data(dense));
  if (other >= 0)
    return tt_fail(err, TT_INVALID, "error: %s and %s are given the same memory, and the program writes it\n  at rt_bind\n  fix: give each a tensor of its own", s->name, x->p->slots[other].name);
  tt_tensor_retain(dense);
  tt_tensor_free(x->bound[i]);
  x->bound[i] = dense;
  set_pointer(x, i, tt_tensor_data(dense));
  return TT_OK;
}

tt_status rt_bind(rt_instance *x, const char *name, tt_tensor *dense, tt_error *err) {
  int i = rt_slot_find(x->p, name);
  if (i >= 0 && dense) return bind_slot(x, (uint32_t)i, dense, err);
  if (!dense) return tt_fail(err, TT_INVALID, "error: %s is bound to no tensor\n  at rt_bind\n  fix: check that the tensor was made", name);
  char names[1000] = "";
  for (uint32_t k = 0; k < x->p->n_slots; k++)
    if (is_bindable(&x->p->slots[k]) && x->p->slots[k].name) {
      size_t n = strlen(names);
      snprintf(names + n, sizeof names - n, "%s%s", n ? ", " : "", x->p->slots[k].name);
    }
  return tt_fail(err, TT_INVALID, "error: the program has nothing called %s\n  at rt_bind\n  fix: use one of: %s", name, names);
}

static tt_status own_output(rt_instance *x, uint32_t i, tt_error *err) {
  tt_tensor *own = tt_tensor_new(x->p->slots[i].dtype, &x->p->slots[i].shape, err);
  if (!own) return TT_NO_MEMORY;
  tt_status status = bind_slot(x, i, own, err);
  tt_tensor_free(own);
  return status;
}

tt_tensor *rt_bound(rt_instance *x, const char *name) {
  int i = rt_slot_find(x->p, name);
  if (i < 0) return NULL;
  if (!x->bound[i] && x->p->slots[i].kind == RT_OUTPUT) own_output(x, (uint32_t)i, NULL);
  return x->bound[i];
}

/* Before the first run: outputs nobody bound get tensors, and all the rest must be there. */
static tt_status prepare(rt_instance *x, tt_error *err) {
  char missing[1000] = "";
  for (uint32_t i = 0; i < x->p->n_slots; i++) {
    const rt_slot *s = &x->p->slots[i];
    if (!is_bindable(s) || x->bound[i]) continue;
    if (s->kind == RT_OUTPUT) {
      if (own_output(x, i, err) != TT_OK) return err ? err->status : TT_NO_MEMORY;
      continue;
    }
    char type[200];
    size_t n = strlen(missing);
    snprintf(missing + n, sizeof missing - n, "%s%s %s: %s", n ? ", " : "", s->kind == RT_PARAM ? "parameter" : "input", s->name, tt_type_text(s->dtype, &s->shape, type, sizeof type));
  }
  if (missing[0]) return tt_fail(err, TT_INVALID, "error: the program is run before all it reads is bound\n  at %s\n  fix: call rt_bind (parameters: rt_params_bind) for each first", missing);
  x->ready = true;
  return TT_OK;
}

static void walk(void *arg, int thread, int n_threads) {
  const rt_instance *x = arg;
  const rt_step *steps = x->p->steps;
  char *scratch = x->scratch + (size_t)thread * x->scratch_stride;
  for (uint32_t i = 0, n = x->p->n_steps; i < n; i++) {
    const rt_step *s = &steps[i];
    if (n_threads == 1 || on_first_thread(s)) {
      if (thread == 0 && s->tasks > 0) s->run(x->args + x->first[i], 0, s->tasks, scratch, s->context);
    } else {
      int64_t begin = s->tasks * thread / n_threads, end = s->tasks * (thread + 1) / n_threads;
      if (begin < end) s->run(x->args + x->first[i], begin, end, scratch, s->context);
    }
    if (x->meet[i]) rt_team_barrier(x->team, thread);
  }
}

tt_status rt_run(rt_instance *x, tt_error *err) {
  if (!x->ready) {
    tt_status status = prepare(x, err);
    if (status != TT_OK) return status;
  }
  rt_team_run(x->team, walk, x);
  return TT_OK;
}

typedef struct { const rt_instance *x; double *seconds; } timed_walk;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void walk_timed(void *arg, int thread, int n_threads) {
  const timed_walk *w = arg;
  const rt_instance *x = w->x;
  for (uint32_t i = 0; i < x->p->n_steps; i++) {
    const rt_step *s = &x->p->steps[i];
    bool alone = on_first_thread(s);
    int64_t begin = alone ? 0 : s->tasks * thread / n_threads, end = alone ? (thread ? 0 : s->tasks) : s->tasks * (thread + 1) / n_threads;
    rt_team_barrier(x->team, thread);
    double start = thread ? 0 : now();
    if (begin < end) s->run(x->args + x->first[i], begin, end, x->scratch + (size_t)thread * x->scratch_stride, s->context);
    rt_team_barrier(x->team, thread);
    if (!thread) w->seconds[i] = now() - start;
  }
}

tt_status rt_run_timed(rt_instance *x, double *seconds, tt_error *err) {
  if (!x->ready) {
    tt_status status = prepare(x, err);
    if (status != TT_OK) return status;
  }
  rt_team_run(x->team, walk_timed, &(timed_walk){x, seconds});
  return TT_OK;
}

/* Which numbers of a slot are not finite. */
typedef struct { int64_t nan, plus, minus, n; } census;

static census count(const rt_instance *x, uint32_t slot) {
  census c = {0};
  const rt_slot *s = &x->p->slots[slot];
  if (!tt_dtype_in(s->dtype, TT_REAL) || !x->pointers[slot]) return c;
  c.n = tt_shape_count(&s->shape);
  for (int64_t i = 0; i < c.n; i++) {
    const char *at = x->pointers[slot] + i * (int64_t)tt_dtype_size(s->dtype);
    double v = 0;
    switch (s->dtype) {
    case TT_F32:  v = (double)*(const float *)at; break;
    case TT_F64:  v = *(const double *)at; break;
    case TT_F16:  v = (double)tt_f16_to_f32(*(const tt_f16 *)at); break;
    case TT_BF16: v = (double)tt_bf16_to_f32(*(const tt_bf16 *)at); break;
    default: break;
    }
    if (isnan(v)) c.nan++;
    else if (isinf(v)) *(v > 0 ? &c.plus : &c.minus) += 1;
  }
  return c;
}

static void describe(char *text, size_t size, const rt_step *s, const char *type, census c) {
  snprintf(text, size, "kernel %s (%s) writes %s with %lld NaN, %lld +inf, %lld -inf of %lld", s->name ? s->name : "?", s->origin && *s->origin ? s->origin : "no source line", type,
           (long long)c.nan, (long long)c.plus, (long long)c.minus, (long long)c.n);
}

/* -inf alone is often meant (a mask added to scores), so it is named only beside the first NaN or +inf, or when nothing else is found. */
static bool find(rt_instance *x, char *text, size_t size) {
  const rt_program *p = x->p;
  char type[200], masked[600] = "";
  for (uint32_t i = 0; i < p->n_slots; i++) {
    const rt_slot *s = &p->slots[i];
    if (s->kind != RT_INPUT && s->kind != RT_PARAM) continue;
    census c = count(x, i);
    if (c.nan + c.plus + c.minus == 0) continue;
    snprintf(text, size, "%s %s, %s, holds %lld NaN, %lld +inf, %lld -inf of %lld before the step", s->kind == RT_PARAM ? "parameter" : "input", s->name,
             tt_type_text(s->dtype, &s->shape, type, sizeof type), (long long)c.nan, (long long)c.plus, (long long)c.minus, (long long)c.n);
    return true;
  }
  for (uint32_t i = 0; i < p->n_steps; i++) {
    const rt_step *s = &p->steps[i];
    if (s->tasks > 0) s->run(x->args + x->first[i], 0, s->tasks, x->scratch, s->context);
    for (uint32_t k = 0; k < s->n_writes; k++) {
      const rt_slot *w = &p->slots[s->writes[k]];
      census c = count(x, s->writes[k]);
      if (c.nan + c.plus + c.minus == 0) continue;
      tt_type_text(w->dtype, &w->shape, type, sizeof type);
      if (c.nan + c.plus) {
        describe(text, size, s, type, c);
        size_t n = strlen(text);
        if (masked[0]) snprintf(text + n, size - n, "; before it, %s", masked);
        return true;
      }
      if (!masked[0]) describe(masked, sizeof masked, s, type, c);
    }
  }
  if (masked[0]) snprintf(text, size, "%s", masked);
  return masked[0];
}

bool rt_find_not_finite(rt_instance *x, char *text, size_t size) {
  const rt_program *p = x->p;
  if (size) text[0] = 0;
  if (!size || prepare(x, NULL) != TT_OK) return false;
  char **saved = calloc(p->n_slots + 1, sizeof *saved);
  bool ok = saved;
  for (uint32_t i = 0; ok && i < p->n_slots; i++)
    if (p->slots[i].kind == RT_PARAM && x->written[i]) {
      saved[i] = malloc(p->slots[i].bytes + 1);
      ok = saved[i];
      if (ok) memcpy(saved[i], x->pointers[i], p->slots[i].bytes);
    }
  bool found = ok && find(x, text, size);
  for (uint32_t i = 0; saved && i < p->n_slots; i++) {
    if (saved[i] && ok) memcpy(x->pointers[i], saved[i], p->slots[i].bytes);
    free(saved[i]);
  }
  free(saved);
  return found;
}

void rt_program_free(rt_program *p) {
  if (p && p->release) p->release(p);
}
