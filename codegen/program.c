/* program.c: from a graph to the tables that the runtime walks: a slot for every buffer and a step for every kernel.
 *
 *     %x, param %w  ->  RT_INPUT, RT_PARAM         bound by name
 *     const         ->  RT_CONST                   copied into the program
 *     computed row  ->  RT_ARENA at its place, the param's own slot (assigned in place), or RT_OUTPUT (returned)
 *     kernel        ->  a step: function, slots of its arguments, number of tasks
 *     return, assign -> copy steps at the end, where the value is not computed in its final place
 *
 * Everything is copied out of the graph, which may be freed afterwards. */
#include "codegen.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct chunk { struct chunk *next; } chunk;
enum { ALIGN = 64, CHUNK = 16 << 10 };

struct cg_program {
  rt_program p;                      /* first: the runtime has a pointer to this */
  chunk *chunks;
  char *free;
  size_t left;
  rt_step *steps; uint32_t n_steps, cap_steps, n_once;
  rt_slot *slots; uint32_t n_slots, cap_slots;
  rt_arg *args; uint32_t n_args, cap_args;
  void *owner;
  void (*free_owner)(void *);

  /* while it is made */
  const ir_graph *g;
  tt_error *err;
  bool placed;
  bool *live;
  uint32_t *slot_of;                 /* of each row, + 1 */
  uint32_t *last;                    /* last row that reads it; UINT32_MAX: the end of the program */
};

static bool no_memory(cg_program *c) {
  tt_fail(c->err, TT_NO_MEMORY, "error: no memory for the program of @%s\n  at %u steps and %u buffers\n  fix: make the model smaller", c->g ? c->g->name : "", c->n_steps, c->n_slots);
  return false;
}

void *cg_program_alloc(cg_program *c, size_t bytes) {
  bytes = (bytes + ALIGN - 1) / ALIGN * ALIGN;
  if (bytes > c->left) {
    size_t size = bytes > CHUNK ? bytes : CHUNK;
    chunk *k = aligned_alloc(ALIGN, ALIGN + size);
    if (!k) return no_memory(c), NULL;
    memset(k, 0, ALIGN + size);
    k->next = c->chunks;
    c->chunks = k;
    c->free = (char *)k + ALIGN;
    c->left = size;
  }
  void *p = c->free;
  c->free += bytes;
  c->left -= bytes;
  return p;
}

static const char *copy_text(cg_program *c, const char *text) {
  char *copy = cg_program_alloc(c, strlen(text) + 1);
  return copy ? strcpy(copy, text) : NULL;
}

static bool grow(cg_program *c, void *array, uint32_t n, uint32_t *cap, size_t size) {
  if (n < *cap) return true;
  uint32_t more = *cap ? *cap * 2 : 32;
  void *p = realloc(*(void **)array, more * size);
  if (!p) return no_memory(c);
  *(void **)array = p;
  *cap = more;
  return true;
}

static size_t row_bytes(const ir_graph *g, ir_ref r) {
  tt_shape s = ir_shape(g, r);
  return (size_t)tt_shape_count(&s) * tt_dtype_size((tt_dtype)ir_at(g, r)->dtype);
}

/* ---- slots ---- */

/* A new slot with the type of row r. */
static bool add_slot(cg_program *c, ir_ref r, rt_slot_kind kind, uint32_t *slot) {
  if (!grow(c, &c->slots, c->n_slots, &c->cap_slots, sizeof *c->slots)) return false;
  c->slots[c->n_slots] = (rt_slot){.dtype = (tt_dtype)ir_at(c->g, r)->dtype, .shape = ir_shape(c->g, r), .kind = (uint8_t)kind, .bytes = row_bytes(c->g, r)};
  *slot = c->n_slots++;
  return true;
}

static bool leaf_slot(cg_program *c, ir_ref r) {
  const ir_node *n = ir_at(c->g, r);
  uint32_t slot;
  if (!add_slot(c, r, n->op == IR_input ? RT_INPUT : n->op == IR_param ? RT_PARAM : RT_CONST, &slot)) return false;
  rt_slot *s = &c->slots[slot];
  c->slot_of[r] = slot + 1;
  if (n->op != IR_const) {
    s->trainable = n->op == IR_param && ir_int(n, "trainable");
    return (s->name = copy_text(c, ir_str(n, "name"))) != NULL;
  }
  void *data = cg_program_alloc(c, s->bytes + 1);              /* an empty constant has an address too */
  if (data && s->bytes) memcpy(data, c->g->blobs[ir_int(n, "value")].data, s->bytes);
  return (s->data = data) != NULL;
}

/* The name that output i has in the program. */
static const char *output_name(cg_program *c, uint32_t i) {
  char text[32];
  snprintf(text, sizeof text, "output%u", i);
  return copy_text(c, c->g->outputs[i].name ? c->g->outputs[i].name : text);
}

/* Does the row's memory belong to the program? */
static bool is_computed(const ir_graph *g, ir_ref r) {
  uint16_t op = ir_at(g, r)->op;
  return op != IR_input && op != IR_param && op != IR_const && op != IR_assign && op != IR_poison;
}

/* Constants that have memory: all live ones but those which only their own kernel reads; these are in its code. */
static bool *constants(cg_program *c) {
  const ir_graph *g = c->g;
  bool *wanted = calloc(g->n_nodes, sizeof *wanted);
  if (!wanted) return no_memory(c), NULL;
  for (ir_ref r = 1; r < g->n_nodes; r++) {
    const ir_node *n = ir_at(g, r);
    if (c->live[r] && !n->region) wanted[r] = true;
    for (uint32_t i = 0; c->live[r] && i < n->n_args; i++) wanted[n->args[i]] |= n->region != ir_at(g, n->args[i])->region || !n->region;
  }
  for (uint32_t i = 0; i < g->n_outputs; i++) wanted[g->outputs[i].value] = true;
  return wanted;
}

static bool fixed_slots(cg_program *c) {
  const ir_graph *g = c->g;
  bool *wanted = constants(c), ok = wanted;
  for (ir_ref r = 1; ok && r < g->n_nodes; r++) {
    uint16_t op = ir_at(g, r)->op;
    if (op == IR_input || op == IR_param || (op == IR_const && wanted[r])) ok = leaf_slot(c, r);
  }
  free(wanted);
  if (!ok) return false;
  for (uint32_t k = 1; c->placed && k < g->n_kernels; k++) {
    uint32_t n;
    const int64_t *pairs = ir_kernel_get(g, k, "inplace", &n);       /* (value, param): see memory.c */
    for (uint32_t i = 0; i + 1 < n; i += 2) c->slot_of[pairs[i]] = c->slot_of[pairs[i + 1]];
  }
  for (uint32_t i = 0; i < g->n_outputs; i++) {
    ir_ref r = g->outputs[i].value;
    uint32_t slot;
    if (c->slot_of[r] || !is_computed(g, r)) continue;               /* a leaf, a param's new value, or an output twice: copied at the end */
    if (!add_slot(c, r, RT_OUTPUT, &slot)) return false;
    c->slot_of[r] = slot + 1;
    if (!(c->slots[slot].name = output_name(c, i))) return false;
  }
  return true;
}

static bool arena_slot(cg_program *c, ir_ref r, size_t offset) {
  uint32_t slot;
  if (!add_slot(c, r, RT_ARENA, &slot)) return false;
  c->slots[slot].offset = offset;
  c->slot_of[r] = slot + 1;
  if (offset + c->slots[slot].bytes > c->p.arena_bytes) c->p.arena_bytes = offset + c->slots[slot].bytes;
  return true;
}

/* Where memory put the rows. */
static bool placed_slots(cg_program *c) {
  c->p.arena_bytes = (size_t)c->g->arena_bytes;
  for (ir_ref r = 1; r < c->g->n_nodes; r++) {
    const ir_node *n = ir_at(c->g, r);
    if (!c->live[r] || c->slot_of[r] || !is_computed(c->g, r)) continue;
    if (n->place != IR_UNPLACED && !arena_slot(c, r, (size_t)n->place)) return false;
    if (n->place == IR_UNPLACED && !row_bytes(c->g, r) && !arena_slot(c, r, 0)) return false;
  }
  return true;
}

/* First fit by lifetime: rows run in order, a row's bytes are free after its last reader. `used` is sorted by offset. */
typedef struct { size_t from, to; uint32_t last; } range;

static bool bump_slots(cg_program *c) {
  const ir_graph *g = c->g;
  range *used = malloc((g->n_nodes + 1) * sizeof *used);
  if (!used) return no_memory(c);
  uint32_t n = 0;
  bool ok = true;
  for (ir_ref r = 1; ok && r < g->n_nodes; r++) {
    if (!c->live[r] || c->slot_of[r] || !is_computed(g, r)) continue;
    uint32_t kept = 0, at = 0;
    for (uint32_t i = 0; i < n; i++)
      if (used[i].last >= r) used[kept++] = used[i];
    n = kept;
    size_t bytes = (row_bytes(g, r) + ALIGN - 1) / ALIGN * ALIGN, offset = 0;
    for (; at < n && used[at].from - offset < bytes; at++) offset = used[at].to;
    memmove(used + at + 1, used + at, (n++ - at) * sizeof *used);
    used[at] = (range){offset, offset + bytes, c->last[r]};
    ok = arena_slot(c, r, offset);
  }
  free(used);
  return ok;
}

static void last_readers(cg_program *c) {
  const ir_graph *g = c->g;
  for (ir_ref r = 1; r < g->n_nodes; r++) {
    c->last[r] = r;
    for (uint32_t i = 0; c->live[r] && i < ir_at(g, r)->n_args; i++) c->last[ir_at(g, r)->args[i]] = ir_at(g, r)->op == IR_assign ? UINT32_MAX : r;
  }
  for (uint32_t i = 0; i < g->n_outputs; i++) c->last[g->outputs[i].value] = UINT32_MAX;
  for (uint32_t i = 0; i < g->n_effects; i++) c->last[ir_at(g, g->effects[i])->args[1]] = UINT32_MAX;
}

cg_program *cg_program_new(const ir_graph *g, bool placed, tt_error *err) {
  cg_program *c = calloc(1, sizeof *c);
  if (!c) return tt_fail(err, TT_NO_MEMORY, "error: no memory for the program of @%s\n  at its first step\n  fix: free memory", g->name), NULL;
  c->g = g;
  c->err = err;
  c->placed = placed;
  c->live = ir_live(g);
  c->slot_of = calloc(g->n_nodes, sizeof *c->slot_of);
  c->last = calloc(g->n_nodes, sizeof *c->last);
  bool ok = c->live && c->slot_of && c->last;
  if (!ok) no_memory(c);
  else last_readers(c);
  ok = ok && fixed_slots(c) && (placed ? placed_slots(c) : bump_slots(c));
  if (!ok) cg_program_free(c), c = NULL;
  return c;
}

static void free_scratch(cg_program *c) {
  free(c->live), free(c->slot_of), free(c->last);
  c->live = NULL, c->slot_of = c->last = NULL;
}

void cg_program_free(cg_program *c) {
  if (!c) return;
  if (c->free_owner) c->free_owner(c->owner);
  free_scratch(c);
  for (chunk *k = c->chunks, *next; k; k = next) next = k->next, free(k);
  free(c->steps), free(c->slots), free(c->args);
  free(c);
}

bool cg_program_slot(cg_program *c, ir_ref r, uint32_t *slot) {
  char label[100];
  if (!c->slot_of[r]) return tt_fail(c->err, TT_INTERNAL, "error: %s of @%s has no memory\n  at row %u, %s, which kernels exchange\n  fix: this is a bug of the compiler (schedule or memory); please report it",
                                     ir_label(c->g, r, label, sizeof label), c->g->name, r, ir_ops[ir_at(c->g, r)->op].name), false;
  *slot = c->slot_of[r] - 1;
  return true;
}

/* ---- steps ---- */

/* "mlp.c:14 fc1; mlp.c:15": the places that rows begin..end-1 came from, each once. */
static const char *origin_text(cg_program *c, ir_ref begin, ir_ref end) {
  enum { SHOWN = 24 };
  const ir_graph *g = c->g;
  uint32_t seen[SHOWN], n = 0;
  char text[2048];
  size_t at = 0;
  text[0] = 0;
  for (ir_ref r = begin; r < end; r++)
    for (uint32_t o = ir_at(g, r)->origin; o && n < SHOWN && at < sizeof text; o = g->origins[o].next) {
      const ir_origin *x = &g->origins[o];
      bool known = !x->file;
      for (uint32_t i = 0; i < n && !known; i++) {
        const ir_origin *y = &g->origins[seen[i]];
        known = x->file == y->file && x->line == y->line && x->scope == y->scope;
      }
      if (known) continue;
      at += (size_t)snprintf(text + at, sizeof text - at, "%s%s:%d%s%s", n ? "; " : "", x->file, x->line, x->scope ? " " : "", x->scope ? x->scope : "");
      seen[n++] = o;
    }
  return copy_text(c, text);
}

static bool push_arg(cg_program *c, rt_arg a) {
  if (!grow(c, &c->args, c->n_args, &c->cap_args, sizeof *c->args)) return false;
  c->args[c->n_args++] = a;
  return true;
}

/* Its arguments are the last s.n_args ones. */
static bool push_step(cg_program *c, rt_step s) {
  if (!grow(c, &c->steps, c->n_steps, &c->cap_steps, sizeof *c->steps)) return false;
  s.args = c->n_args - s.n_args;
  c->steps[c->n_steps++] = s;
  return true;
}

bool cg_program_step(cg_program *c, const cg_step *s) {
  const ir_graph *g = c->g;
  ir_ref begin = s->row, end = s->row + 1;
  if (s->region) {
    begin = g->kernels[s->region].first;
    end = g->kernels[s->region].last + 1;
  }
  for (uint32_t i = 0; i < s->n_args; i++) {
    rt_arg a = {.task_bytes = s->task_bytes ? s->task_bytes[i] : 0};
    if (!cg_program_slot(c, s->args[i], &a.slot) || !push_arg(c, a)) return false;
  }
  rt_arg *args = c->args + c->n_args - s->n_args;
  for (ir_ref r = begin; r < end; r++) {                             /* what the kernel keeps to itself has no slot */
    tt_shape shape = ir_shape(g, r);
    if (!c->live[r] || !is_computed(g, r) || !c->slot_of[r] || tt_shape_count(&shape) == 0) continue;
    bool found = false;
    for (uint32_t i = 0; i < s->n_args; i++)
      if (args[i].slot == c->slot_of[r] - 1) args[i].written = found = true;
    char label[100];
    if (!found) return tt_fail(c->err, TT_INTERNAL, "error: %s of @%s is no argument of the kernel that computes it\n  at kernel @%s\n  fix: this is a bug of the compiler; please report it", ir_label(g, r, label, sizeof label), g->name, s->name), false;
  }
  rt_step step = {.run = s->run, .context = s->context, .context_bytes = s->context_bytes, .tasks = s->tasks, .serial = s->serial, .n_args = s->n_args};
  if (pass_is_once(g, s->region) && c->n_once++ < c->n_steps)
    return tt_fail(c->err, TT_INTERNAL, "error: kernel @%s of @%s is to run once, and stands behind one that does not\n  at its plan, once=1\n  fix: let the pass freeze put kernels in order", s->name, g->name), false;
  return (step.name = copy_text(c, s->name)) && (step.origin = origin_text(c, begin, end)) && push_step(c, step);
}

static bool add_copy(cg_program *c, uint32_t from, uint32_t to, const char *what, ir_ref origin) {
  rt_copy_size *size = cg_program_alloc(c, sizeof *size);
  if (!size) return false;
  size->bytes = c->slots[to].bytes;
  if (!size->bytes) return true;
  rt_step s = {.run = rt_copy, .context = size, .context_bytes = sizeof *size, .tasks = (int64_t)((size->bytes + RT_COPY_TASK - 1) / RT_COPY_TASK), .n_args = 2};
  return push_arg(c, (rt_arg){from, false, RT_COPY_TASK}) && push_arg(c, (rt_arg){to, true, RT_COPY_TASK}) && (s.name = copy_text(c, what)) &&
         (s.origin = origin_text(c, origin, origin + 1)) && push_step(c, s);
}

/* Outputs that are not where their value is computed. They come before assigns: an output that is a param is its old value. */
static bool copy_outputs(cg_program *c) {
  const ir_graph *g = c->g;
  bool *done = calloc(g->n_nodes, sizeof *done), ok = done;            /* rows whose own slot is an output already */
  if (!done) return no_memory(c);
  for (uint32_t i = 0; ok && i < g->n_outputs; i++) {
    ir_ref r = g->outputs[i].value;
    uint32_t from, to;
    ok = cg_program_slot(c, r, &from);
    if (ok && c->slots[from].kind == RT_OUTPUT && !done[r]) done[r] = true;
    else if (ok) ok = add_slot(c, r, RT_OUTPUT, &to) && (c->slots[to].name = output_name(c, i)) && add_copy(c, from, to, "copy output", r);
  }
  free(done);
  return ok;
}

/* All assigned values are those before any assign: a value that is itself a param which changes goes through the arena. */
static bool copy_assigns(cg_program *c) {
  const ir_graph *g = c->g;
  uint32_t *from = malloc((g->n_effects + 1) * sizeof *from);
  if (!from) return no_memory(c);
  bool ok = true;
  for (uint32_t i = 0; ok && i < g->n_effects; i++) {
    const ir_node *a = ir_at(g, g->effects[i]);
    ok = cg_program_slot(c, a->args[1], &from[i]);
    bool changes = false;
    for (uint32_t k = 0; k < g->n_effects; k++) changes |= ir_at(g, g->effects[k])->args[0] == a->args[1];
    if (!ok || !changes || a->args[1] == a->args[0]) continue;
    uint32_t temporary;
    ok = add_slot(c, a->args[0], RT_ARENA, &temporary);
    if (!ok) break;
    c->slots[temporary].offset = (c->p.arena_bytes + ALIGN - 1) / ALIGN * ALIGN;
    c->p.arena_bytes = c->slots[temporary].offset + c->slots[temporary].bytes;
    ok = add_copy(c, from[i], temporary, "keep old value", g->effects[i]);
    from[i] = temporary;
  }
  for (uint32_t i = 0; ok && i < g->n_effects; i++) {
    const ir_node *a = ir_at(g, g->effects[i]);
    uint32_t to;
    ok = cg_program_slot(c, a->args[0], &to);
    if (ok && from[i] != to) ok = add_copy(c, from[i], to, "assign", g->effects[i]);   /* equal: computed in place */
  }
  free(from);
  return ok;
}

static void release(rt_program *p) { cg_program_free((cg_program *)p); }

tt_status cg_program_finish(cg_program *c, size_t scratch_bytes, void *owner, void (*free_owner)(void *), rt_program **p) {
  c->owner = owner;
  c->free_owner = free_owner;
  tt_error *err = c->err;
  bool ok = copy_outputs(c) && copy_assigns(c) && (rt_place_steps(c->steps, c->n_steps, c->args, c->slots, c->n_slots) || no_memory(c));
  if (!ok) {
    cg_program_free(c);
    return err ? err->status : TT_INTERNAL;
  }
  free_scratch(c);
  c->g = NULL;
  c->err = NULL;
  c->p.steps = c->steps, c->p.n_steps = c->n_steps, c->p.n_once = c->n_once;
  c->p.slots = c->slots, c->p.n_slots = c->n_slots;
  c->p.args = c->args, c->p.n_args = c->n_args;
  c->p.scratch_bytes = scratch_bytes;
  c->p.release = release;
  c->p.owner = owner;
  *p = &c->p;
  return TT_OK;
}
