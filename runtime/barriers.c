/* barriers.c: which thread begins a step's tasks, and where the team must meet.
 *
 * Steps are looked at in order, with a list of what has been read and written since the last barrier, and by whom: one thread, or
 * all of them, each its share of so many tasks. A step needs a barrier when it touches bytes that another thread may have written
 * since, or writes bytes that another thread may have read. It needs none
 *   - when all it depends on was done by one thread, and the step is one task: it is given to that thread;
 *   - when both deal the same bytes by the same tasks: then each thread meets only its own share (a chain of elementwise kernels).
 * The decision holds for any number of threads, because threads are compared by name, never by what they are modulo the team.
 *
 * Steps of a loop are looked at twice, the second time with what the first has left, because a step follows on the last one of the time before. A barrier that
 * is needed either time is there every time. What moves with a loop is another part of its slot each time.
 *
 * A step that depends on nothing since the barrier may begin at any thread. Steps of one small task stay on thread 0, where the next
 * step will look for their results; larger ones, and steps with so few tasks that shares are uneven, go on from the next thread. */
#include "program.h"

#include <stdlib.h>

#define LARGE_BYTES ((size_t)64 << 10)       /* of a step of one task: some microseconds, several barriers */
enum { FEW_TASKS = 32, MOST = 1024 };        /* accesses to compare with: then a barrier is cheaper than to look on */

typedef struct {
  bool arena, written, alone;      /* alone: one thread does all */
  bool moves;                      /* with the one loop that it is in */
  uint32_t time;                   /* of that loop */
  uint16_t thread;
  size_t offset, bytes;            /* of the slot in the arena; else offset is its number */
  int64_t tasks, task_bytes, from, stride;
} access;

typedef struct { access *at; size_t n, room; bool mixed; uint16_t next; const rt_step_tables *t; int64_t *strides; uint32_t depth, time; } group;     /* mixed: not all is thread 0's alone */

static bool overlap(const access *a, const access *b) {
  if (a->arena != b->arena) return false;
  if (a->moves && b->moves && a->offset == b->offset && a->from == b->from && a->stride == b->stride && a->time != b->time) return false;
  return a->arena ? a->offset < b->offset + b->bytes && b->offset < a->offset + a->bytes : a->offset == b->offset;
}

/* May the two touch one byte from one thread only? (when both begin at the same thread) */
static bool same_shares(const access *a, const access *b) {
  if (a->alone || b->alone) return a->alone && b->alone;
  return a->offset == b->offset && a->from == b->from && a->stride == b->stride && a->tasks == b->tasks && a->task_bytes == b->task_bytes && a->task_bytes;
}

static access access_of(const group *g, const rt_step *s, uint32_t k) {
  const rt_arg *a = &g->t->args[s->args + k];
  const rt_slot *x = &g->t->slots[a->slot];
  int64_t stride = g->strides ? g->strides[s->args + k] : 0;
  bool arena = x->kind == RT_ARENA;
  return (access){.arena = arena, .written = a->written, .alone = s->serial || s->tasks <= 1, .offset = arena ? x->offset : a->slot, .bytes = x->bytes, .tasks = s->tasks, .task_bytes = a->task_bytes,
                  .from = a->offset, .stride = stride, .moves = stride && g->depth == 1, .time = g->time};
}

typedef struct { bool any, fits; uint16_t thread; } dependence;     /* fits: on `thread`, no barrier is needed */

static dependence depends(const group *g, const rt_step *s) {
  dependence d = {.fits = true};
  for (uint32_t k = 0; k < s->n_args && d.fits; k++) {
    access x = access_of(g, s, k);
    for (size_t i = 0; i < g->n && d.fits; i++) {
      const access *y = &g->at[i];
      if (!(x.written || y->written) || !overlap(&x, y)) continue;
      d.fits = same_shares(&x, y) && (!d.any || d.thread == y->thread);
      d.any = true;
      d.thread = y->thread;
    }
  }
  return d;
}

static bool record(group *g, const rt_step *s) {
  if (g->n + s->n_args > g->room) {
    size_t room = 2 * (g->n + s->n_args);
    access *at = realloc(g->at, room * sizeof *at);
    if (!at) return false;
    g->at = at, g->room = room;
  }
  for (uint32_t k = 0; k < s->n_args; k++) {
    access *x = &g->at[g->n++];
    *x = access_of(g, s, k);
    x->thread = s->thread;
    g->mixed |= !x->alone || s->thread;
  }
  return true;
}

static size_t bytes_of(const rt_step *s, const rt_arg *args, const rt_slot *slots) {
  size_t bytes = 0;
  for (uint32_t k = 0; k < s->n_args; k++) bytes += slots[args[s->args + k].slot].bytes;
  return bytes;
}

/* again: the step has its thread already, and may need a barrier more. */
static bool place(group *g, rt_step *s, bool again) {
  bool alone = s->serial || s->tasks <= 1, wanders = alone ? bytes_of(s, g->t->args, g->t->slots) >= LARGE_BYTES : s->tasks <= FEW_TASKS;
  if (!again) s->barrier = false, s->thread = 0;
  if (s->tasks <= 0) return true;
  if (g->mixed || !alone || wanders || s->thread) {
    dependence d = g->n <= MOST ? depends(g, s) : (dependence){.any = true};
    s->barrier |= !d.fits || (again && d.any && d.thread != s->thread);
    if (s->barrier) g->n = 0, g->mixed = false, g->next = 0;
    if (!again && d.any && d.fits) s->thread = d.thread;
    else if (!again && wanders) s->thread = g->next++;
  }
  return record(g, s);
}

/* Steps first .. end-1; loops: those that end behind `first`, from the innermost on. */
static bool place_range(group *g, rt_step *steps, uint32_t first, uint32_t end, bool again) {
  for (uint32_t i = first; i < end;) {
    const rt_loop *outermost = NULL;                   /* that begins here, in the range, below the present depth */
    for (uint32_t l = 0; l < g->t->n_loops; l++)
      if (g->t->loops[l].first == i && g->t->loops[l].end <= end && g->t->loops[l].depth == g->depth) outermost = &g->t->loops[l];
    if (!outermost) {
      if (!place(g, &steps[i++], again)) return false;
      continue;
    }
    g->depth++;
    for (int time = 0; time < 2; time++) {
      g->time++;
      if (!place_range(g, steps, outermost->first, outermost->end, again || time)) return false;
    }
    g->depth--;
    i = outermost->end;
  }
  return true;
}

bool rt_place_steps(rt_step *steps, uint32_t n_steps, const rt_step_tables *t) {
  group g = {.t = t};
  if (t->n_loops && !(g.strides = calloc(t->n_args + 1u, sizeof *g.strides))) return false;
  for (uint32_t l = 0; l < t->n_loops; l++)
    for (uint32_t k = 0; k < t->loops[l].n_moves; k++) g.strides[t->moves[t->loops[l].moves + k].arg] += t->moves[t->loops[l].moves + k].stride;
  bool ok = place_range(&g, steps, 0, n_steps, false);
  free(g.at), free(g.strides);
  return ok;
}
