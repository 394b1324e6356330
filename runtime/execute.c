/* execute.c: a program with its memory, and the walk of its steps.
 *
 * Making an instance resolves everything that a run would otherwise look up. The argument pointers of all steps lie in one flat
 * array; binding a tensor patches the places of its slot. Each thread has a list of its own of what it does: kernel, arguments, its
 * range of tasks, and how many barriers come before (more than one when it has no share in steps between). A run is then one loop
 * in every thread, without allocation, lock or look-up; a program that leaves nothing to other threads does not wake them.
 *
 * A loop's steps stand once in the lists. Behind them stands its end, where a thread moves the arguments on and goes back: so each thread has arguments of its own.
 *
 * There are two such lists: of all steps, and of those behind the program's first n_once. The second is walked while the params that the first steps
 * read are what they were: bound to the same tensors, whose changes are counted (tensor.c). */
#include "runtime.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct job {
  rt_kernel *run;                  /* NULL: the end of the list, or of a loop */
  const rt_loop *loop;
  const struct job *again;         /* the loop's first job */
  char *const *args;
  const void *context;
  int64_t begin, end;              /* tasks */
  uint32_t barriers;               /* before it */
} job;

struct rt_instance {
  const rt_program *p;
  rt_team *team;
  char *arena, *scratch;
  bool borrows_arena, borrows_scratch;     /* they are another instance's */
  size_t scratch_stride, scratch_bytes;
  job *jobs, **of_thread[2];       /* the list of each thread: all steps, those of every call */
  bool parallel[2];                /* other threads have something to do */
  int list;                        /* of the present run */
  uint32_t *frozen, n_frozen;      /* params that the once steps read */
  uint32_t *results, n_results;    /* slots of tensors that a run writes */
  bool kept;                       /* what the once steps made is of the tensors bound now, after so many changes of them */
  uint64_t changes;
  tt_tensor **bound;               /* of each slot; NULL: none */
  char **pointers;                 /* of each slot */
  char **args;                     /* of all steps, as in the program; with loops, for each thread */
  size_t args_stride;              /* from one thread's to the next one's; 0: they have the same */
  bool *written;                   /* of each slot */
  uint32_t *uses, *use_of;         /* the places in args of slot s: uses[use_of[s] .. use_of[s+1]) */
  uint32_t *bindable, n_bindable;  /* slots */
  bool ready;                      /* everything is bound */
};

const rt_program *rt_instance_program(const rt_instance *x) { return x->p; }

static void set_pointer(rt_instance *x, uint32_t slot, const void *data) {
  x->pointers[slot] = (char *)data;
  int n = x->args_stride ? rt_team_size(x->team) : 1;
  for (uint32_t i = x->use_of[slot]; i < x->use_of[slot + 1]; i++)
    for (int t = 0; t < n; t++) x->args[(size_t)t * x->args_stride + x->uses[i]] = (char *)data + x->p->args[x->uses[i]].offset;
}

static char **args_of(const rt_instance *x, int thread) { return x->args + (size_t)thread * x->args_stride; }

/* The end of a loop for one thread: true when it goes on. count: times that each loop around has been run; all are 0 again in the end. */
static bool goes_on(const rt_instance *x, char **args, const rt_loop *l, int64_t *count) {
  bool on = ++count[l->depth] < l->length;
  int64_t by = on ? 1 : 1 - l->length;
  for (uint32_t i = l->moves; i < l->moves + l->n_moves; i++) args[x->p->moves[i].arg] += by * x->p->moves[i].stride;
  if (!on) count[l->depth] = 0;
  return on;
}

/* Argument places by slot, by counting. */
static void index_arguments(rt_instance *x) {
  const rt_program *p = x->p;
  for (uint32_t i = 0; i < p->n_args; i++) {
    x->use_of[p->args[i].slot + 1]++;
    x->written[p->args[i].slot] |= p->args[i].written;
  }
  for (uint32_t s = 0; s < p->n_slots; s++) x->use_of[s + 1] += x->use_of[s];
  for (uint32_t i = p->n_args; i-- > 0;) x->uses[--x->use_of[p->args[i].slot + 1]] = i;
  /* use_of[s+1] is now the beginning of s; shift it down. */
  for (uint32_t s = 0; s < p->n_slots; s++) x->use_of[s] = x->use_of[s + 1];
  x->use_of[p->n_slots] = p->n_args;
}

static bool is_bindable(const rt_slot *s) { return s->kind == RT_INPUT || s->kind == RT_PARAM || s->kind == RT_OUTPUT; }

/* Stands where a thread meets the others before a loop in which it has no step at first. */
static void rest(char *const *args, int64_t begin, int64_t end, char *scratch, const void *context) { (void)args, (void)begin, (void)end, (void)scratch, (void)context; }

static void list_jobs(rt_instance *x, int list) {
  const rt_program *p = x->p;
  int n = rt_team_size(x->team);
  uint32_t first = list ? p->n_once : 0;
  for (int thread = 0; thread < n; thread++) {
    job *to = x->of_thread[list][thread] = x->jobs + ((size_t)list * (size_t)n + (size_t)thread) * (p->n_steps + 2 * p->n_loops + 2);
    const job *begins[RT_LOOP_DEPTH] = {0};
    uint32_t barriers = 0;
    for (uint32_t i = first; i <= p->n_steps; i++) {
      for (uint32_t l = 0; l < p->n_loops; l++) {
        const rt_loop *loop = &p->loops[l];
        bool empty = begins[loop->depth] == to && !barriers;      /* the thread has nothing to do in it */
        if (loop->end == i && loop->first >= first && !empty) *to++ = (job){.loop = loop, .again = begins[loop->depth], .barriers = barriers}, barriers = 0;
      }
      if (i == p->n_steps) break;
      for (uint32_t l = 0; l < p->n_loops; l++)
        if (p->loops[l].first == i && barriers) { *to++ = (job){.run = rest, .barriers = barriers}, barriers = 0; break; }
      bool begins_loop = false;
      for (uint32_t l = 0; l < p->n_loops; l++)
        if (p->loops[l].first == i) begins[p->loops[l].depth] = to, begins_loop = true;
      const rt_step *s = &p->steps[i];
      int64_t begin, end;
      rt_share(s, thread, n, &begin, &end);
      barriers += s->barrier && (i > first || begins_loop);
      if (begin >= end) continue;
      *to++ = (job){.run = s->run, .args = args_of(x, thread) + s->args, .context = s->context, .begin = begin, .end = end, .barriers = barriers};
      x->parallel[list] |= thread > 0;
      barriers = 0;
    }
    *to = (job){.barriers = barriers};
  }
}

/* The params that once steps read, and what is written into tensors of the caller's. */
static void list_slots(rt_instance *x) {
  const rt_program *p = x->p;
  for (uint32_t i = 0; i < p->n_slots; i++) {
    bool read = false;
    for (uint32_t k = x->use_of[i]; k < x->use_of[i + 1]; k++)
      for (uint32_t s = 0; s < p->n_once && !read; s++) read = x->uses[k] >= p->steps[s].args && x->uses[k] < p->steps[s].args + p->steps[s].n_args;
    if (p->slots[i].kind == RT_PARAM && read) x->frozen[x->n_frozen++] = i;
    if (is_bindable(&p->slots[i]) && x->written[i]) x->results[x->n_results++] = i;
  }
}

static bool allocate(rt_instance *x, const rt_instance *lender) {
  const rt_program *p = x->p;
  size_t slots = p->n_slots + 1, args = p->n_args + 1, threads = (size_t)rt_team_size(x->team);
  x->scratch_stride = rt_scratch_stride(p);
  x->scratch_bytes = x->scratch_stride * threads;
  x->borrows_arena = lender && lender->p->arena_bytes >= p->arena_bytes && !p->n_once && !lender->p->n_once;      /* once steps keep results there */
  x->borrows_scratch = lender && lender->scratch_bytes >= x->scratch_bytes;
  x->arena = x->borrows_arena ? lender->arena : rt_alloc(p->arena_bytes);
  x->scratch = x->borrows_scratch ? lender->scratch : rt_alloc(x->scratch_bytes);
  x->args_stride = p->n_loops && threads > 1 ? (args + 7) / 8 * 8 + 8 : 0;      /* lines of their own */
  x->jobs = calloc(2 * threads * (p->n_steps + 2 * p->n_loops + 2), sizeof *x->jobs);
  x->of_thread[0] = calloc(2 * threads, sizeof *x->of_thread[0]);
  x->of_thread[1] = x->of_thread[0] + threads;
  x->frozen = calloc(slots, sizeof *x->frozen);
  x->results = calloc(slots, sizeof *x->results);
  x->bound = calloc(slots, sizeof *x->bound);
  x->pointers = calloc(slots, sizeof *x->pointers);
  x->args = calloc(args + threads * x->args_stride, sizeof *x->args);
  x->written = calloc(slots, sizeof *x->written);
  x->uses = calloc(args, sizeof *x->uses);
  x->use_of = calloc(slots, sizeof *x->use_of);
  x->bindable = calloc(slots, sizeof *x->bindable);
  return x->arena && x->scratch && x->jobs && x->of_thread[0] && x->frozen && x->results && x->bound && x->pointers && x->args && x->written && x->uses && x->use_of && x->bindable;
}

rt_instance *rt_instance_new(const rt_program *p, rt_team *team, tt_error *err) { return rt_instance_new_over(p, team, NULL, err); }

rt_instance *rt_instance_new_over(const rt_program *p, rt_team *team, const rt_instance *lender, tt_error *err) {
  rt_instance *x = calloc(1, sizeof *x);
  if (x) x->p = p, x->team = team;
  if (!x || !allocate(x, lender)) {
    tt_fail(err, TT_NO_MEMORY, "error: no memory to run a program\n  at an arena of %zu bytes, %zu bytes of scratch for each of %d threads\n  fix: use a smaller batch, a memory budget, or fewer threads",
            p->arena_bytes, p->scratch_bytes, rt_team_size(team));
    rt_instance_free(x);
    return NULL;
  }
  index_arguments(x);
  list_slots(x);
  list_jobs(x, 0), list_jobs(x, 1);
  for (uint32_t i = 0; i < p->n_slots; i++) {
    const rt_slot *s = &p->slots[i];
    if (s->kind == RT_ARENA) set_pointer(x, i, x->arena + s->offset);
    if (s->kind == RT_CONST) set_pointer(x, i, s->data);
    if (is_bindable(s)) x->bindable[x->n_bindable++] = i;
  }
  return x;
}

void rt_instance_free(rt_instance *x) {
  if (!x) return;
  for (uint32_t i = 0; x->bound && i < x->p->n_slots; i++) tt_tensor_free(x->bound[i]);
  if (!x->borrows_arena) rt_free(x->arena, x->p->arena_bytes);
  if (!x->borrows_scratch) rt_free(x->scratch, x->scratch_bytes);
  free(x->bound);
  free(x->pointers);
  free(x->args);
  free(x->written);
  free(x->uses);
  free(x->use_of);
  free(x->bindable);
  free(x->jobs);
  free(x->of_thread[0]);
  free(x->frozen);
  free(x->results);
  free(x);
}

size_t rt_instance_bytes(const rt_instance *x) {
  size_t bytes = (x->borrows_arena ? 0 : x->p->arena_bytes) + (x->borrows_scratch ? 0 : x->scratch_bytes);
  for (uint32_t i = 0; i < x->p->n_slots; i++)
    if (x->p->slots[i].kind == RT_OUTPUT && x->bound[i]) bytes += x->p->slots[i].bytes;
  return bytes;
}

int rt_slot_find(const rt_program *p, const char *name) {
  for (uint32_t i = 0; i < p->n_slots; i++)
    if (p->slots[i].name && is_bindable(&p->slots[i]) && !strcmp(p->slots[i].name, name)) return (int)i;
  return -1;
}

/* Memory that the program writes may belong to one slot only: kernels and barriers rely on it. */
static int aliased(const rt_instance *x, uint32_t slot, const char *data) {
  const char *end = data + x->p->slots[slot].bytes;
  for (uint32_t k = 0; k < x->n_bindable; k++) {
    uint32_t i = x->bindable[k];
    if (i != slot && (x->written[i] || x->written[slot]) && x->bound[i] && data < x->pointers[i] + x->p->slots[i].bytes && x->pointers[i] < end) return (int)i;
  }
  return -1;
}

tt_status rt_bind_slot(rt_instance *x, int slot, tt_tensor *dense, tt_error *err) {
  if (slot < 0 || (uint32_t)slot >= x->p->n_slots || !is_bindable(&x->p->slots[slot]))
    return tt_fail(err, TT_INVALID, "error: slot %d is not one that a caller binds\n  at rt_bind_slot\n  fix: use what rt_slot_find gives for an input, a parameter or an output", slot);
  uint32_t i = (uint32_t)slot;
  const rt_slot *s = &x->p->slots[i];
  if (!dense) return tt_fail(err, TT_INVALID, "error: %s is bound to no tensor\n  at rt_bind\n  fix: check that the tensor was made", s->name);
  if (x->bound[i] == dense) return TT_OK;
  tt_shape shape = tt_tensor_shape(dense);
  if (tt_tensor_dtype(dense) != s->dtype || !tt_shape_equal(&shape, &s->shape)) {
    char want[200], got[200];
    return tt_fail(err, TT_INVALID, "error: %s wants %s, it is given %s\n  at rt_bind\n  fix: give a tensor of that type and shape, or compile the program for this one",
                   s->name, tt_type_text(s->dtype, &s->shape, want, sizeof want), tt_type_text(tt_tensor_dtype(dense), &shape, got, sizeof got));
  }
  if (!tt_tensor_is_dense(dense)) return tt_fail(err, TT_INVALID, "error: %s is given a tensor that is not dense\n  at rt_bind\n  fix: bind tt_tensor_dense of it", s->name);
  int other = aliased(x, i, rt_tensor_read(dense));
  if (other >= 0)
    return tt_fail(err, TT_INVALID, "error: %s and %s are given the same memory, and the program writes it\n  at rt_bind\n  fix: give each a tensor of its own", s->name, x->p->slots[other].name);
  tt_tensor_retain(dense);
  tt_tensor_free(x->bound[i]);
  x->bound[i] = dense;
  x->kept &= s->kind != RT_PARAM;
  set_pointer(x, i, rt_tensor_read(dense));
  return TT_OK;
}

tt_status rt_bind(rt_instance *x, const char *name, tt_tensor *dense, tt_error *err) {
  int i = rt_slot_find(x->p, name);
  if (i >= 0) return rt_bind_slot(x, i, dense, err);
  char names[1000] = "";
  for (uint32_t k = 0; k < x->p->n_slots; k++)
    if (is_bindable(&x->p->slots[k]) && x->p->slots[k].name) {
      size_t n = strlen(names);
      snprintf(names + n, sizeof names - n, "%s%s", n ? ", " : "", x->p->slots[k].name);
    }
  return tt_fail(err, TT_INVALID, "error: the program has nothing called %s\n  at rt_bind\n  fix: use one of: %s", name, names);
}

tt_status rt_bind_seed(rt_instance *x, uint64_t seed, int64_t step, tt_error *err) {
  const struct { const char *name; tt_dtype dtype; const void *value; } scalars[] = {{"seed", TT_U64, &seed}, {"step", TT_I64, &step}};
  tt_status status = TT_OK;
  for (int i = 0; i < 2 && status == TT_OK; i++) {
    int slot = rt_slot_find(x->p, scalars[i].name);
    if (slot < 0 || x->p->slots[slot].kind != RT_INPUT) continue;
    tt_tensor *t = tt_tensor_from(scalars[i].dtype, &(tt_shape){0}, scalars[i].value, err);
    status = t ? rt_bind_slot(x, slot, t, err) : TT_NO_MEMORY;
    tt_tensor_free(t);
  }
  return status;
}

static tt_status own_output(rt_instance *x, uint32_t i, tt_error *err) {
  tt_tensor *own = tt_tensor_new(x->p->slots[i].dtype, &x->p->slots[i].shape, err);
  if (!own) return TT_NO_MEMORY;
  tt_status status = rt_bind_slot(x, (int)i, own, err);
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

/* Changes of the params that once steps read: they only grow, so an equal sum is of equal parts. */
static uint64_t count_changes(const rt_instance *x) {
  uint64_t n = 0;
  for (uint32_t i = 0; i < x->n_frozen; i++) n += rt_tensor_changes(x->bound[x->frozen[i]]);
  return n;
}

static void mark_results(rt_instance *x) {
  for (uint32_t i = 0; i < x->n_results; i++) rt_tensor_written(x->bound[x->results[i]]);
}

static void walk_alone(rt_instance *x) {
  int64_t count[RT_LOOP_DEPTH] = {0};
  for (const job *j = x->of_thread[x->list][0]; j->run || j->loop;) {
    if (j->run) j->run(j->args, j->begin, j->end, x->scratch, j->context);
    j = !j->run && goes_on(x, x->args, j->loop, count) ? j->again : j + 1;
  }
}

static void walk(void *arg, int thread, int n_threads) {
  const rt_instance *x = arg;
  char *scratch = x->scratch + (size_t)thread * x->scratch_stride;
  int64_t count[RT_LOOP_DEPTH] = {0};
  (void)n_threads;
  for (const job *j = x->of_thread[x->list][thread];;) {
    for (uint32_t i = 0; i < j->barriers; i++) rt_team_barrier(x->team, thread);
    if (j->run) j->run(j->args, j->begin, j->end, scratch, j->context);
    else if (!j->loop) break;
    j = !j->run && goes_on(x, args_of(x, thread), j->loop, count) ? j->again : j + 1;
  }
}

tt_status rt_run(rt_instance *x, tt_error *err) {
  if (!x->ready) {
    tt_status status = prepare(x, err);
    if (status != TT_OK) return status;
  }
  uint64_t changes = count_changes(x);
  x->list = x->kept && changes == x->changes;
  if (x->parallel[x->list]) rt_team_run(x->team, walk, x);
  else walk_alone(x);
  x->kept = true, x->changes = changes;
  mark_results(x);
  return TT_OK;
}

/* ---- step by step ---- */

typedef struct { rt_instance *x; rt_step_hook *hook; void *user; bool stop; } hooked;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void walk_hooked(void *arg, int thread, int n_threads) {
  hooked *w = arg;
  const rt_instance *x = w->x;
  int64_t count[RT_LOOP_DEPTH] = {0};
  for (uint32_t i = 0; i < x->p->n_steps;) {
    const rt_step *s = &x->p->steps[i];
    int64_t begin, end;
    rt_share(s, thread, n_threads, &begin, &end);
    rt_team_barrier(x->team, thread);
    if (w->stop) return;
    double start = thread ? 0 : now();
    if (begin < end) s->run(args_of(x, thread) + s->args, begin, end, x->scratch + (size_t)thread * x->scratch_stride, s->context);
    rt_team_barrier(x->team, thread);
    if (!thread) w->stop = !w->hook(w->user, w->x, i, now() - start);
    i++;
    for (uint32_t l = 0; l < x->p->n_loops; l++)
      if (x->p->loops[l].end == i && goes_on(x, args_of(x, thread), &x->p->loops[l], count)) {
        i = x->p->loops[l].first;
        break;
      }
  }
}

tt_status rt_run_hooked(rt_instance *x, rt_step_hook *hook, void *user, tt_error *err) {
  if (!x->ready) {
    tt_status status = prepare(x, err);
    if (status != TT_OK) return status;
  }
  hooked w = {x, hook, user, false};
  x->changes = count_changes(x);
  rt_team_run(x->team, walk_hooked, &w);
  x->kept = !w.stop;
  for (uint32_t i = 0; w.stop && i < x->p->n_slots; i++) set_pointer(x, i, x->pointers[i]);      /* a loop may have been left in the middle */
  mark_results(x);
  return w.stop ? tt_fail(err, TT_INTERRUPTED, "error: stopped between two kernels\n  at rt_run_hooked\n  fix: run the program again; parameters may hold half a step") : TT_OK;
}

static bool keep_time(void *seconds, rt_instance *x, uint32_t step, double time) {
  (void)x;
  ((double *)seconds)[step] += time;
  return true;
}

tt_status rt_run_timed(rt_instance *x, double *seconds, tt_error *err) {
  memset(seconds, 0, x->p->n_steps * sizeof *seconds);
  return rt_run_hooked(x, keep_time, seconds, err);
}

/* Which numbers of a slot are not finite. */
typedef struct { int64_t nan, plus, minus, n; } census;

static census count_in(tt_dtype dtype, const char *data, int64_t n) {
  census c = {0};
  if (!tt_dtype_in(dtype, TT_REAL) || !data) return c;
  c.n = n;
  for (int64_t i = 0; i < c.n; i++) {
    const char *at = data + i * (int64_t)tt_dtype_size(dtype);
    double v = 0;
    switch (dtype) {
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

static census count(const rt_instance *x, uint32_t slot) { return count_in(x->p->slots[slot].dtype, x->pointers[slot], tt_shape_count(&x->p->slots[slot].shape)); }

/* The same of argument i: where it moves with a loop, of the part where it stands. */
static census count_argument(const rt_instance *x, uint32_t i) {
  const rt_slot *s = &x->p->slots[x->p->args[i].slot];
  int64_t n = tt_shape_count(&s->shape);
  for (uint32_t k = 0; k < x->p->n_moves; k++) {
    int64_t part = llabs(x->p->moves[k].stride) / (int64_t)tt_dtype_size(s->dtype);
    if (x->p->moves[k].arg == i && part < n) n = part;
  }
  return count_in(s->dtype, x->args[i], n);
}

static void describe(char *text, size_t size, const rt_step *s, const char *type, census c) {
  snprintf(text, size, "kernel %s (%s) writes %s with %lld NaN, %lld +inf, %lld -inf of %lld", s->name ? s->name : "?", s->origin && *s->origin ? s->origin : "no source line", type,
           (long long)c.nan, (long long)c.plus, (long long)c.minus, (long long)c.n);
}

/* The search stops at the first NaN or +inf. -inf alone is often meant (a mask added to scores), so it is named only beside the
 * first of those, or when nothing else is found. */
typedef struct { char *text; size_t size; char masked[600]; } search;

static bool look(void *user, rt_instance *x, uint32_t step, double seconds) {
  search *f = user;
  const rt_step *s = &x->p->steps[step];
  (void)seconds;
  for (uint32_t k = 0; k < s->n_args; k++) {
    const rt_arg *a = &x->p->args[s->args + k];
    census c = a->written ? count_argument(x, s->args + k) : (census){0};
    if (c.nan + c.plus + c.minus == 0) continue;
    char type[200];
    tt_type_text(x->p->slots[a->slot].dtype, &x->p->slots[a->slot].shape, type, sizeof type);
    if (c.nan + c.plus) {
      describe(f->text, f->size, s, type, c);
      size_t n = strlen(f->text);
      if (f->masked[0]) snprintf(f->text + n, f->size - n, "; before it, %s", f->masked);
      return false;
    }
    if (!f->masked[0]) describe(f->masked, sizeof f->masked, s, type, c);
  }
  return true;
}

static bool find(rt_instance *x, char *text, size_t size) {
  const rt_program *p = x->p;
  char type[200];
  for (uint32_t i = 0; i < p->n_slots; i++) {
    const rt_slot *s = &p->slots[i];
    if (s->kind != RT_INPUT && s->kind != RT_PARAM) continue;
    census c = count(x, i);
    if (c.nan + c.plus + c.minus == 0) continue;
    snprintf(text, size, "%s %s, %s, holds %lld NaN, %lld +inf, %lld -inf of %lld before the step", s->kind == RT_PARAM ? "parameter" : "input", s->name,
             tt_type_text(s->dtype, &s->shape, type, sizeof type), (long long)c.nan, (long long)c.plus, (long long)c.minus, (long long)c.n);
    return true;
  }
  search f = {.text = text, .size = size};
  rt_run_hooked(x, look, &f, NULL);
  if (!text[0]) snprintf(text, size, "%s", f.masked);
  return text[0];
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
    if (saved[i] && ok) memcpy(x->pointers[i], saved[i], p->slots[i].bytes), rt_tensor_written(x->bound[i]);
    free(saved[i]);
  }
  free(saved);
  return found;
}

void rt_program_free(rt_program *p) {
  if (p && p->release) p->release(p);
}
