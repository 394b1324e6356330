/* barriers.c: which thread begins a step's tasks, and where the team must meet.
 *
 * Steps are looked at in order, with a list of what has been read and written since the last barrier, and by whom: one thread, or
 * all of them, each its share of so many tasks. A step needs a barrier when it touches bytes that another thread may have written
 * since, or writes bytes that another thread may have read. It needs none
 *   - when all it depends on was done by one thread, and the step is one task: it is given to that thread;
 *   - when both deal the same bytes by the same tasks: then each thread meets only its own share (a chain of elementwise kernels).
 * The decision holds for any number of threads, because threads are compared by name, never by what they are modulo the team.
 *
 * A step that depends on nothing since the barrier may begin at any thread. Steps of one small task stay on thread 0, where the next
 * step will look for their results; larger ones, and steps with so few tasks that shares are uneven, go on from the next thread. */
#include "program.h"

#include <stdlib.h>

#define LARGE_BYTES ((size_t)64 << 10)       /* of a step of one task: some microseconds, several barriers */
enum { FEW_TASKS = 32, MOST = 1024 };        /* accesses to compare with: then a barrier is cheaper than to look on */

typedef struct {
  bool arena, written, alone;      /* alone: one thread does all */
  uint16_t thread;
  size_t offset, bytes;            /* of the slot in the arena; else offset is its number */
  int64_t tasks, task_bytes;
} access;

typedef struct { access *at; size_t n, room; bool mixed; uint16_t next; } group;     /* mixed: not all is thread 0's alone */

static bool overlap(const access *a, const access *b) {
  if (a->arena != b->arena) return false;
  return a->arena ? a->offset < b->offset + b->bytes && b->offset < a->offset + a->bytes : a->offset == b->offset;
}

/* May the two touch one byte from one thread only? (when both begin at the same thread) */
static bool same_shares(const access *a, const access *b) {
  if (a->alone || b->alone) return a->alone && b->alone;
  return a->offset == b->offset && a->tasks == b->tasks && a->task_bytes == b->task_bytes && a->task_bytes;
}

static access access_of(const rt_step *s, const rt_arg *a, const rt_slot *slots) {
  const rt_slot *x = &slots[a->slot];
  bool arena = x->kind == RT_ARENA;
  return (access){.arena = arena, .written = a->written, .alone = s->serial || s->tasks <= 1, .offset = arena ? x->offset : a->slot, .bytes = x->bytes, .tasks = s->tasks, .task_bytes = a->task_bytes};
}

typedef struct { bool any, fits; uint16_t thread; } dependence;     /* fits: on `thread`, no barrier is needed */

static dependence depends(const group *g, const rt_step *s, const rt_arg *args, const rt_slot *slots) {
  dependence d = {.fits = true};
  for (uint32_t k = 0; k < s->n_args && d.fits; k++) {
    access x = access_of(s, &args[s->args + k], slots);
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

static bool record(group *g, const rt_step *s, const rt_arg *args, const rt_slot *slots) {
  if (g->n + s->n_args > g->room) {
    size_t room = 2 * (g->n + s->n_args);
    access *at = realloc(g->at, room * sizeof *at);
    if (!at) return false;
    g->at = at, g->room = room;
  }
  for (uint32_t k = 0; k < s->n_args; k++) {
    access *x = &g->at[g->n++];
    *x = access_of(s, &args[s->args + k], slots);
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

bool rt_place_steps(rt_step *steps, uint32_t n_steps, const rt_arg *args, const rt_slot *slots, uint32_t n_slots) {
  group g = {0};
  bool ok = true;
  (void)n_slots;
  for (uint32_t i = 0; ok && i < n_steps; i++) {
    rt_step *s = &steps[i];
    bool alone = s->serial || s->tasks <= 1, wanders = alone ? bytes_of(s, args, slots) >= LARGE_BYTES : s->tasks <= FEW_TASKS;
    s->barrier = false;
    s->thread = 0;
    if (s->tasks <= 0) continue;
    if (g.mixed || !alone || wanders) {
      dependence d = g.n <= MOST ? depends(&g, s, args, slots) : (dependence){.any = true};
      s->barrier = !d.fits;
      if (s->barrier) g.n = 0, g.mixed = false, g.next = 0;
      if (d.any && d.fits) s->thread = d.thread;
      else if (wanders) s->thread = g.next++;
    }
    ok = record(&g, s, args, slots);
  }
  free(g.at);
  return ok;
}
