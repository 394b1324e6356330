/* program.c: from a graph to the tables that the runtime walks: a slot for every buffer and a step for every kernel.
 *
 *     %x, param %w  ->  RT_INPUT, RT_PARAM         bound by name
 *     const         ->  RT_CONST                   copied into the program
 *     computed row  ->  RT_ARENA at its place, the param's own slot (assigned in place), or RT_OUTPUT (returned)
 *     kernel        ->  a step: function, slots of its arguments, number of tasks
 *     return, assign -> copy steps at the end, where the value is not computed in its final place
 *     scan          ->  its body's steps, in a loop. Carries stand where their last value is wanted; xs and stacked results are slices of their slots, which
 *                       move with the loop; what else the body computes has slots as other rows do, the same in every step
 *
 * Everything is copied out of the graph, which may be freed afterwards. */
#include "codegen.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct chunk { struct chunk *next; } chunk;
enum { ALIGN = 64, CHUNK = 16 << 10 };

/* Where a row's value is: in a slot, in a loop's body perhaps at a place of it that moves. */
typedef struct { uint32_t loop; int64_t stride; } motion;
typedef struct { uint32_t slot; int64_t offset; uint32_t n; motion moves[IR_MAX_DEPTH + 1]; } where;      /* slot: + 1, 0: nowhere */
typedef struct { uint32_t arg, loop; int64_t stride; } pending;

/* The graph whose rows are turned into steps: the program's, or the body of a scan, inside of the one it stands in. */
typedef struct scope {
  struct scope *around;
  const ir_graph *g;
  bool *live;
  where *at;                         /* of each row */
  uint32_t *last;                    /* last row that reads it; UINT32_MAX: the end of the program */
  ir_scan_attrs scan;
  where *results;                    /* of the scan; slot 0: nobody wants it */
  uint32_t loop, first;              /* its number; its first step */
  size_t base;                       /* of its arena in the program's */
  bool never;                        /* a loop of no steps */
} scope;

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

  rt_loop *loops; uint32_t n_loops, cap_loops, n_opened;
  uint32_t *numbers; uint32_t cap_numbers;       /* of each loop, as motions name it */
  rt_move *moves; uint32_t n_moves;
  pending *pending; uint32_t n_pending, cap_pending;

  /* while it is made */
  scope *s;
  tt_error *err;
  bool placed;
};

static bool no_memory(cg_program *c) {
  tt_fail(c->err, TT_NO_MEMORY, "error: no memory for the program of @%s\n  at %u steps and %u buffers\n  fix: make the model smaller", c->s ? c->s->g->name : "", c->n_steps, c->n_slots);
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
  c->slots[c->n_slots] = (rt_slot){.dtype = (tt_dtype)ir_at(c->s->g, r)->dtype, .shape = ir_shape(c->s->g, r), .kind = (uint8_t)kind, .bytes = row_bytes(c->s->g, r)};
  *slot = c->n_slots++;
  return true;
}

static bool leaf_slot(cg_program *c, ir_ref r) {
  const ir_node *n = ir_at(c->s->g, r);
  uint32_t slot;
  if (!add_slot(c, r, n->op == IR_input ? RT_INPUT : n->op == IR_param ? RT_PARAM : RT_CONST, &slot)) return false;
  rt_slot *s = &c->slots[slot];
  c->s->at[r].slot = slot + 1;
  if (n->op != IR_const) {
    s->trainable = n->op == IR_param && ir_int(n, "trainable");
    return (s->name = copy_text(c, ir_str(n, "name"))) != NULL;
  }
  void *data = cg_program_alloc(c, s->bytes + 1);              /* an empty constant has an address too */
  if (data && s->bytes) memcpy(data, c->s->g->blobs[ir_int(n, "value")].data, s->bytes);
  return (s->data = data) != NULL;
}

/* The name that output i has in the program. */
static const char *output_name(cg_program *c, uint32_t i) {
  char text[32];
  snprintf(text, sizeof text, "output%u", i);
  return copy_text(c, c->s->g->outputs[i].name ? c->s->g->outputs[i].name : text);
}

/* Does the row's memory belong to the program? */
static bool is_computed(const ir_graph *g, ir_ref r) {
  uint16_t op = ir_at(g, r)->op;
  return op != IR_input && op != IR_param && op != IR_const && op != IR_assign && op != IR_poison;
}

/* Constants that have memory: all live ones but those which only their own kernel reads; these are in its code. */
static bool *constants(cg_program *c) {
  const ir_graph *g = c->s->g;
  bool *wanted = calloc(g->n_nodes, sizeof *wanted);
  if (!wanted) return no_memory(c), NULL;
  for (ir_ref r = 1; r < g->n_nodes; r++) {
    const ir_node *n = ir_at(g, r);
    if (c->s->live[r] && !n->region) wanted[r] = true;
    for (uint32_t i = 0; c->s->live[r] && i < n->n_args; i++) wanted[n->args[i]] |= n->region != ir_at(g, n->args[i])->region || !n->region;
  }
  for (uint32_t i = 0; i < g->n_outputs; i++) wanted[g->outputs[i].value] = true;
  return wanted;
}

static bool fixed_slots(cg_program *c) {
  const ir_graph *g = c->s->g;
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
    for (uint32_t i = 0; i + 1 < n; i += 2) c->s->at[pairs[i]] = c->s->at[pairs[i + 1]];
  }
  for (uint32_t i = 0; i < g->n_outputs; i++) {
    ir_ref r = g->outputs[i].value;
    uint32_t slot;
    if (c->s->at[r].slot || !is_computed(g, r)) continue;               /* a leaf, a param's new value, or an output twice: copied at the end */
    if (!add_slot(c, r, RT_OUTPUT, &slot)) return false;
    c->s->at[r].slot = slot + 1;
    if (!(c->slots[slot].name = output_name(c, i))) return false;
  }
  return true;
}

static bool arena_slot(cg_program *c, ir_ref r, size_t offset) {
  uint32_t slot;
  if (!add_slot(c, r, RT_ARENA, &slot)) return false;
  c->slots[slot].offset = offset;
  c->s->at[r].slot = slot + 1;
  if (offset + c->slots[slot].bytes > c->p.arena_bytes) c->p.arena_bytes = offset + c->slots[slot].bytes;
  return true;
}

/* Where memory put the rows. */
static bool placed_slots(cg_program *c) {
  for (ir_ref r = 1; r < c->s->g->n_nodes; r++) {
    const ir_node *n = ir_at(c->s->g, r);
    if (!c->s->live[r] || c->s->at[r].slot || !is_computed(c->s->g, r)) continue;
    if (n->place != IR_UNPLACED && !arena_slot(c, r, c->s->base + (size_t)n->place)) return false;
    if (n->place == IR_UNPLACED && !row_bytes(c->s->g, r) && !arena_slot(c, r, 0)) return false;
  }
  return true;
}

/* First fit by lifetime: rows run in order, a row's bytes are free after its last reader. `used` is sorted by offset. */
typedef struct { size_t from, to; uint32_t last; } range;

static bool bump_slots(cg_program *c) {
  const ir_graph *g = c->s->g;
  range *used = malloc((g->n_nodes + 1) * sizeof *used);
  if (!used) return no_memory(c);
  uint32_t n = 0;
  bool ok = true;
  for (ir_ref r = 1; ok && r < g->n_nodes; r++) {
    if (!c->s->live[r] || c->s->at[r].slot || !is_computed(g, r)) continue;
    uint32_t kept = 0, at = 0;
    for (uint32_t i = 0; i < n; i++)
      if (used[i].last >= r) used[kept++] = used[i];
    n = kept;
    size_t bytes = (row_bytes(g, r) + ALIGN - 1) / ALIGN * ALIGN, offset = 0;
    for (; at < n && used[at].from - offset < bytes; at++) offset = used[at].to;
    memmove(used + at + 1, used + at, (n++ - at) * sizeof *used);
    used[at] = (range){offset, offset + bytes, c->s->last[r]};
    ok = arena_slot(c, r, offset);
  }
  free(used);
  return ok;
}

static void last_readers(cg_program *c) {
  const ir_graph *g = c->s->g;
  for (ir_ref r = 1; r < g->n_nodes; r++) {
    c->s->last[r] = r;
    for (uint32_t i = 0; c->s->live[r] && i < ir_at(g, r)->n_args; i++) c->s->last[ir_at(g, r)->args[i]] = ir_at(g, r)->op == IR_assign ? UINT32_MAX : r;
  }
  for (uint32_t i = 0; i < g->n_outputs; i++) c->s->last[g->outputs[i].value] = UINT32_MAX;
  for (uint32_t i = 0; i < g->n_effects; i++) c->s->last[ir_at(g, g->effects[i])->args[1]] = UINT32_MAX;
}

static bool open_scope(cg_program *c, const ir_graph *g) {
  scope *s = calloc(1, sizeof *s);
  if (!s) return no_memory(c);
  s->around = c->s;
  s->g = g;
  c->s = s;
  s->live = ir_live(g);
  s->at = calloc(g->n_nodes, sizeof *s->at);
  s->last = calloc(g->n_nodes, sizeof *s->last);
  if (!s->live || !s->at || !s->last) return no_memory(c);
  last_readers(c);
  return true;
}

static void close_scope(cg_program *c) {
  scope *s = c->s;
  if (!s) return;
  c->s = s->around;
  free(s->live), free(s->at), free(s->last), free(s->results);
  free(s);
}

cg_program *cg_program_new(const ir_graph *g, bool placed, tt_error *err) {
  cg_program *c = calloc(1, sizeof *c);
  if (!c) return tt_fail(err, TT_NO_MEMORY, "error: no memory for the program of @%s\n  at its first step\n  fix: free memory", g->name), NULL;
  c->err = err;
  c->placed = placed;
  if (placed) c->p.arena_bytes = (size_t)g->arena_bytes;
  bool ok = open_scope(c, g) && fixed_slots(c) && (placed ? placed_slots(c) : bump_slots(c));
  if (!ok) cg_program_free(c), c = NULL;
  return c;
}

static void free_scratch(cg_program *c) {
  while (c->s) close_scope(c);
  free(c->pending), free(c->numbers);
  c->pending = NULL, c->numbers = NULL;
}

void cg_program_free(cg_program *c) {
  if (!c) return;
  if (c->free_owner) c->free_owner(c->owner);
  free_scratch(c);
  for (chunk *k = c->chunks, *next; k; k = next) next = k->next, free(k);
  free(c->steps), free(c->slots), free(c->args), free(c->loops), free(c->moves);
  free(c);
}

bool cg_program_slot(cg_program *c, ir_ref r, uint32_t *slot) {
  char label[100];
  if (!c->s->at[r].slot) return tt_fail(c->err, TT_INTERNAL, "error: %s of @%s has no memory\n  at row %u, %s, which kernels exchange\n  fix: this is a bug of the compiler (schedule or memory); please report it",
                                     ir_label(c->s->g, r, label, sizeof label), c->s->g->name, r, ir_ops[ir_at(c->s->g, r)->op].name), false;
  *slot = c->s->at[r].slot - 1;
  return true;
}

/* ---- steps ---- */

/* "mlp.c:14 fc1; mlp.c:15": the places that rows begin..end-1 came from, each once. */
static const char *origin_text(cg_program *c, ir_ref begin, ir_ref end) {
  enum { SHOWN = 24 };
  const ir_graph *g = c->s->g;
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

/* An argument at a place. */
static bool push_arg(cg_program *c, const where *w, bool written, int64_t task_bytes) {
  rt_arg a = {.slot = w->slot - 1, .written = written, .task_bytes = task_bytes, .offset = w->offset};
  for (uint32_t i = 0; i < w->n; i++) {
    if (!grow(c, &c->pending, c->n_pending, &c->cap_pending, sizeof *c->pending)) return false;
    c->pending[c->n_pending++] = (pending){c->n_args, w->moves[i].loop, w->moves[i].stride};
  }
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
  const ir_graph *g = c->s->g;
  ir_ref begin = s->row, end = s->row + 1;
  if (s->region) {
    begin = g->kernels[s->region].first;
    end = g->kernels[s->region].last + 1;
  }
  for (uint32_t i = 0; i < s->n_args; i++) {
    uint32_t slot;
    if (!cg_program_slot(c, s->args[i], &slot) || !push_arg(c, &c->s->at[s->args[i]], false, s->task_bytes ? s->task_bytes[i] : 0)) return false;
  }
  rt_arg *args = c->args + c->n_args - s->n_args;
  for (ir_ref r = begin; r < end; r++) {                             /* what the kernel keeps to itself has no slot */
    tt_shape shape = ir_shape(g, r);
    if (!c->s->live[r] || !is_computed(g, r) || !c->s->at[r].slot || tt_shape_count(&shape) == 0) continue;
    bool found = false;
    for (uint32_t i = 0; i < s->n_args; i++)
      if (args[i].slot == c->s->at[r].slot - 1) args[i].written = found = true;
    char label[100];
    if (!found) return tt_fail(c->err, TT_INTERNAL, "error: %s of @%s is no argument of the kernel that computes it\n  at kernel @%s\n  fix: this is a bug of the compiler; please report it", ir_label(g, r, label, sizeof label), g->name, s->name), false;
  }
  rt_step step = {.run = s->run, .context = s->context, .context_bytes = s->context_bytes, .tasks = s->tasks, .serial = s->serial, .n_args = s->n_args};
  for (const scope *x = c->s; x; x = x->around)
    if (x->never) return true;
  if (pass_is_once(g, s->region) && c->n_once++ < c->n_steps)
    return tt_fail(c->err, TT_INTERNAL, "error: kernel @%s of @%s is to run once, and stands behind one that does not\n  at its plan, once=1\n  fix: let the pass freeze put kernels in order", s->name, g->name), false;
  return (step.name = copy_text(c, s->name)) && (step.origin = origin_text(c, begin, end)) && push_step(c, step);
}

/* All of row `of` from one place to another. */
static bool add_copy(cg_program *c, const where *from, const where *to, const char *what, ir_ref of, ir_ref origin) {
  rt_copy_size *size = cg_program_alloc(c, sizeof *size);
  if (!size) return false;
  size->bytes = row_bytes(c->s->g, of);
  for (const scope *x = c->s; x; x = x->around)
    if (x->never) return true;
  if (!size->bytes) return true;
  rt_step s = {.run = rt_copy, .context = size, .context_bytes = sizeof *size, .tasks = (int64_t)((size->bytes + RT_COPY_TASK - 1) / RT_COPY_TASK), .n_args = 2};
  return push_arg(c, from, false, RT_COPY_TASK) && push_arg(c, to, true, RT_COPY_TASK) && (s.name = copy_text(c, what)) &&
         (s.origin = origin_text(c, origin, origin + 1)) && push_step(c, s);
}

static bool same_place(const where *a, const where *b) { return a->slot == b->slot && a->offset == b->offset && a->n == b->n && !memcmp(a->moves, b->moves, a->n * sizeof *a->moves); }

/* Outputs that are not where their value is computed. They come before assigns: an output that is a param is its old value. */
static bool copy_outputs(cg_program *c) {
  const ir_graph *g = c->s->g;
  bool *done = calloc(g->n_nodes, sizeof *done), ok = done;            /* rows whose own slot is an output already */
  if (!done) return no_memory(c);
  for (uint32_t i = 0; ok && i < g->n_outputs; i++) {
    ir_ref r = g->outputs[i].value;
    uint32_t from, to;
    where place = {0};
    ok = cg_program_slot(c, r, &from);
    if (ok && c->s->results) {
      place = c->s->results[c->s->scan.carries + i];
      if (place.slot && !same_place(&place, &c->s->at[r])) ok = add_copy(c, &c->s->at[r], &place, "copy output", r, r);
    } else if (ok && c->slots[from].kind == RT_OUTPUT && !done[r]) done[r] = true;
    else if (ok) {
      ok = add_slot(c, r, RT_OUTPUT, &to) && (c->slots[to].name = output_name(c, i));
      if (ok) place.slot = to + 1, ok = add_copy(c, &c->s->at[r], &place, "copy output", r, r);
    }
  }
  free(done);
  return ok;
}

/* Memory for row r behind all the rest of the arena. */
static bool spare_place(cg_program *c, ir_ref r, where *place) {
  uint32_t slot;
  if (!add_slot(c, r, RT_ARENA, &slot)) return false;
  c->slots[slot].offset = (c->p.arena_bytes + ALIGN - 1) / ALIGN * ALIGN;
  c->p.arena_bytes = c->slots[slot].offset + c->slots[slot].bytes;
  *place = (where){.slot = slot + 1};
  return true;
}

/* All assigned values are those before any assign: a value that is itself a param which changes goes through the arena. */
static bool copy_assigns(cg_program *c) {
  const ir_graph *g = c->s->g;
  where *from = malloc((g->n_effects + 1) * sizeof *from);
  if (!from) return no_memory(c);
  bool ok = true;
  for (uint32_t i = 0; ok && i < g->n_effects; i++) {
    const ir_node *a = ir_at(g, g->effects[i]);
    uint32_t slot;
    if (!(ok = cg_program_slot(c, a->args[1], &slot))) break;
    from[i] = c->s->at[a->args[1]];
    bool changes = false;
    for (uint32_t k = 0; k < g->n_effects; k++) changes |= ir_at(g, g->effects[k])->args[0] == a->args[1];
    if (!changes || a->args[1] == a->args[0]) continue;
    where temporary;
    ok = spare_place(c, a->args[0], &temporary) && add_copy(c, &from[i], &temporary, "keep old value", a->args[0], g->effects[i]);
    from[i] = temporary;
  }
  for (uint32_t i = 0; ok && i < g->n_effects; i++) {
    const ir_node *a = ir_at(g, g->effects[i]);
    uint32_t slot;
    ok = cg_program_slot(c, a->args[0], &slot);
    const where *to = &c->s->at[a->args[0]];
    if (ok && !same_place(&from[i], to)) ok = add_copy(c, &from[i], to, "assign", a->args[0], g->effects[i]);   /* equal: computed in place */
  }
  free(from);
  return ok;
}

/* ---- scans ---- */

/* Element t of the first axis of what is at w, t being the loop's step; `bytes` of it. */
static where slice_of(const cg_program *c, where w, size_t bytes) {
  const scope *s = c->s;
  if (s->scan.reversed && s->scan.length) w.offset += (s->scan.length - 1) * (int64_t)bytes;
  w.moves[w.n++] = (motion){s->loop, s->scan.reversed ? -(int64_t)bytes : (int64_t)bytes};
  return w;
}

/* Places of the body's leaves and results. */
static bool scan_leaves(cg_program *c, ir_ref first) {
  scope *s = c->s;
  const ir_node *n = ir_at(s->around->g, first);
  uint32_t i = 0, slot;
  for (ir_ref r = 1; r < s->g->n_nodes; r++) {
    uint16_t op = ir_at(s->g, r)->op;
    if (op != IR_input && op != IR_param) continue;
    where w = s->around->at[n->args[i]];
    bool ok = true;
    if (i < s->scan.carries) {
      if (!s->results[i].slot) ok = spare_place(c, r, &s->results[i]);
      s->at[r] = s->results[i];
      c->s = s->around;                                /* before the loop */
      ok = ok && cg_program_slot(c, n->args[i], &slot) && (same_place(&w, &s->results[i]) || add_copy(c, &w, &s->results[i], "copy carry", n->args[i], first));
      c->s = s;
    } else {
      c->s = s->around;
      ok = cg_program_slot(c, n->args[i], &slot);
      c->s = s;
      s->at[r] = i < s->scan.carries + s->scan.xs ? slice_of(c, w, row_bytes(s->g, r)) : w;
    }
    if (!ok) return false;
    i++;
  }
  s->first = c->n_steps;
  return true;
}

static bool scan_constants(cg_program *c) {
  bool *wanted = constants(c), ok = wanted;
  for (ir_ref r = 1; ok && r < c->s->g->n_nodes; r++)
    if (ir_at(c->s->g, r)->op == IR_const && wanted[r]) ok = leaf_slot(c, r);
  free(wanted);
  return ok;
}

bool cg_program_scan(cg_program *c, uint32_t region) {
  const ir_graph *g = c->s->g;
  const ir_kernel *k = &g->kernels[region];
  uint32_t n;
  const int64_t *base = ir_kernel_get(g, region, "steps", &n);
  size_t around = c->s->base;
  const ir_graph *body = ir_scan_body(g, ir_at(g, k->first));
  if (!open_scope(c, body)) return false;
  scope *s = c->s;
  s->scan = ir_scan_of(ir_at(g, k->first));
  s->base = around + (base && n ? (size_t)*base : 0);
  s->loop = c->n_opened++;
  if (!(s->results = calloc((size_t)s->scan.carries + body->n_outputs + 1, sizeof *s->results))) return no_memory(c);
  for (ir_ref r = k->first; r <= k->last; r++) {
    int64_t result = ir_scan_of(ir_at(g, r)).result;
    if (s->around->live[r] && s->around->at[r].slot && !s->results[result].slot) s->results[result] = s->around->at[r];
  }
  for (uint32_t i = 0; i < body->n_outputs; i++) {
    where *w = &s->results[s->scan.carries + i];
    if (w->slot) *w = slice_of(c, *w, row_bytes(body, body->outputs[i].value));
  }
  if (!scan_leaves(c, k->first) || !scan_constants(c)) return false;
  s->never = s->scan.length == 0;
  for (uint32_t i = 1; i < body->n_kernels; i++) {
    const int64_t *pairs = ir_kernel_get(body, i, "inplace", &n);
    for (uint32_t p = 0; p + 1 < n; p += 2) s->at[pairs[p]] = s->at[pairs[p + 1]];
  }
  for (uint32_t i = 0; i < body->n_outputs; i++) {
    ir_ref r = body->outputs[i].value;
    const where *w = &s->results[s->scan.carries + i];
    if (s->at[r].slot || !is_computed(body, r)) continue;
    if (w->slot) s->at[r] = *w;
    else if (ir_at(body, r)->place == IR_UNPLACED && !spare_place(c, r, &s->at[r])) return false;
  }
  return placed_slots(c);
}

bool cg_program_scan_end(cg_program *c) {
  scope *s = c->s;
  if (!copy_outputs(c) || !copy_assigns(c)) return false;
  uint32_t depth = 0;
  for (const scope *x = s->around; x->around; x = x->around) depth++;
  if (c->n_steps > s->first) {
    if (!grow(c, &c->loops, c->n_loops, &c->cap_loops, sizeof *c->loops) || !grow(c, &c->numbers, c->n_loops, &c->cap_numbers, sizeof *c->numbers)) return false;
    c->numbers[c->n_loops] = s->loop;
    c->loops[c->n_loops++] = (rt_loop){.first = s->first, .end = c->n_steps, .length = s->scan.length, .depth = depth};
  }
  close_scope(c);
  return true;
}

/* What moves with each loop. */
static bool list_moves(cg_program *c) {
  if (!c->n_loops) return true;
  if (!(c->moves = calloc(c->n_pending + 1u, sizeof *c->moves))) return no_memory(c);
  for (uint32_t l = 0; l < c->n_loops; l++) {
    c->loops[l].moves = c->n_moves;
    for (uint32_t i = 0; i < c->n_pending; i++)
      if (c->pending[i].loop == c->numbers[l]) c->moves[c->n_moves++] = (rt_move){c->pending[i].arg, c->pending[i].stride};
    c->loops[l].n_moves = c->n_moves - c->loops[l].moves;
  }
  return true;
}

static void release(rt_program *p) { cg_program_free((cg_program *)p); }

tt_status cg_program_finish(cg_program *c, size_t scratch_bytes, void *owner, void (*free_owner)(void *), rt_program **p) {
  c->owner = owner;
  c->free_owner = free_owner;
  tt_error *err = c->err;
  bool ok = copy_outputs(c) && copy_assigns(c) && list_moves(c);
  rt_step_tables tables = {c->args, c->n_args, c->slots, c->loops, c->n_loops, c->moves};
  ok = ok && (rt_place_steps(c->steps, c->n_steps, &tables) || no_memory(c));
  if (!ok) {
    cg_program_free(c);
    return err ? err->status : TT_INTERNAL;
  }
  free_scratch(c);
  c->err = NULL;
  c->p.steps = c->steps, c->p.n_steps = c->n_steps, c->p.n_once = c->n_once;
  c->p.slots = c->slots, c->p.n_slots = c->n_slots;
  c->p.args = c->args, c->p.n_args = c->n_args;
  c->p.loops = c->loops, c->p.n_loops = c->n_loops, c->p.moves = c->moves, c->p.n_moves = c->n_moves;
  c->p.scratch_bytes = scratch_bytes;
  c->p.release = release;
  c->p.owner = owner;
  *p = &c->p;
  return TT_OK;
}
