/* recompute.c: makes values again instead of keeping them, until the arena fits the budget.
 *
 * What a forward kernel gives is often read once soon after, and then much later, by the backward pass: all that time it lies in the
 * arena. A copy of the kernel just before the later reader ends the first life early:
 *
 *     kernel @k3_relu(%x) -> %y         kernel @k3_relu(%x) -> %y
 *     kernel @k4_conv(%y, %w) -> %z     kernel @k4_conv(%y, %w) -> %z          %y's bytes are free from here
 *     ...                               ...
 *                                       kernel @k3_relu_again(%x) -> %y2       to here
 *     kernel @k90_conv(%y, %g) -> %dw   kernel @k90_conv(%y2, %g) -> %dw
 *
 * A copy may also start from results of the kernel itself which are in memory anyway, if the rest is elementwise: the gelu after a
 * product is made of the product, the normalized row of its mean. Such a copy is a loop, planned anew.
 *
 * A copy needs its own arguments at that place. One that is no longer alive there is either kept longer, where it is small beside what
 * is freed, or made again too. A param must not have been written yet. Copies compute the same rows by the same plan, random numbers
 * are made from counters, so the numbers are the same to the bit. Each copy is a kernel, a region, of its own: it merges with nothing.
 *
 * The choices are greedy and form one sequence that does not know the budget: at the kernel where most is alive, take the copy that
 * frees most bytes there for its estimated time, as long as the peak rises nowhere. Its beginning is taken in any case, as far as it
 * is free: each copy frees a MiB or more, and all together take at most 3% of the step's estimated time (measured: nothing, as what is
 * made again is still in a cache when it is read). A budget takes the shortest beginning, from there on, whose arena, placed as
 * memory.c will place it, fits; so a larger budget never gets more copies than a smaller one. */
#include "form.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_RESULTS = 64, DEPTH = 24, LEAST_FREED = 1 << 20 };
static const double FREE_TIME = 0.03;

typedef struct { ir_ref row; int kernel; int64_t bytes; bool arena, to_end; } value;      /* to_end: assigned by a copy when all is done */
/* A kernel that gives only the results of mask; cut: made of results of the kernel that are not soft, read from memory. */
typedef struct variant {
  uint64_t mask;
  bool cut;
  group of;                        /* rows, results */
  form f;
  int *reads, n_reads;             /* values of other kernels */
  ir_ref *params; int n_params;
  int (*pairs)[2], n_pairs;        /* (result, read): may be written in its place */
  double cost;                     /* estimated nanoseconds */
  bool ok;
  struct variant *next;
} variant;
/* soft: results that follow from the others by elementwise rows. */
typedef struct { int first, n; uint64_t all, soft; variant *variants; int64_t kind; } kernel;
/* A kernel at a place in the order. Numbers below n_kernels are those of the graph, later ones are copies. */
typedef struct { int kernel; const variant *v; int from, slots; } instance;   /* from: in pool, the instance that gives each read; slots: first of its results' */
typedef struct { instance *at; int n, *order, *place, n_order, *pool, n_pool, n_slots; int room, room_pool; } schedule;

typedef struct {
  const ir_graph *g;
  group *groups;
  int n;                           /* kernels */
  kernel *kernels;
  value *values; int n_values;
  int *value_of;                   /* of each row, -1 */
  int *writer;                     /* of each param row: the kernel that writes it, -1 */
  int *last, *buffer_of;           /* scratch of simulate, by slot */
  place_buffer *buffers; int n_buffers;
  int first_new;                   /* copies of the step being tried have numbers from here */
  bool merge, no_memory;
  double keep;                     /* arguments up to so many bytes are kept rather than made again */
} work;

/* ---- kernels and what is left of them ---- */

/* A sum that is cut has as many results, each of a part. */
static int64_t parts_of(const ir_node *r) { return ir_int(r, "split") > 1 ? ir_int(r, "split") : 1; }

/* < 0: no memory. */
static double estimate(const ir_graph *g, const group *x) {
  double ops = 0, bytes = 0;
  if (ir_at(g, x->rows[0])->op == IR_scan) {             /* its rows are its results; each step is all of the body */
    double step = pass_work(ir_scan_body(g, ir_at(g, x->rows[0])));
    return step < 0 ? step : 500 + (double)ir_scan_of(ir_at(g, x->rows[0])).length * step;
  }
  for (int i = 0; i < x->n; i++) {
    const ir_node *r = ir_at(g, x->rows[i]);
    tt_shape s = ir_shape(g, x->rows[i]);
    double count = (double)tt_shape_count(&s);
    if (r->op == IR_matmul) count *= 2 * (double)ir_at(g, r->args[0])->dim[ir_at(g, r->args[0])->rank - (ir_int(r, "ta") ? 2 : 1)] / (double)parts_of(r);
    else if (r->op == IR_conv) {
      const ir_node *w = ir_at(g, r->args[1]);
      for (int k = 2; k < w->rank; k++) count *= (double)w->dim[k];
      count *= 2 / (double)parts_of(r) / (ir_int(r, "winograd") ? 4 : 1);
    } else if (r->op == IR_winograd) {                   /* (tile + 2)^2 products for tile^2 results, of each channel */
      double tile = (double)ir_int(r, "tile");
      count *= 2 * (double)ir_at(g, r->args[0])->dim[2] * (tile + 2) * (tile + 2) / (tile * tile);
    } else if (ir_is_attention((ir_op)r->op)) {          /* two products of as many terms as k has rows, or three and, with them in one kernel, one each */
      const ir_node *q = ir_at(g, r->args[0]), *k = ir_at(g, r->args[1]);
      count *= 2 * (double)(r->op < IR_attention_dk ? k : q)->dim[k->rank - 2] * (r->op == IR_attention ? 2 : r->op == IR_attention_dq ? 3 : 1);
    } else if (form_is_reduction((ir_op)r->op)) {
      s = ir_shape(g, r->args[0]);
      count = (double)tt_shape_count(&s);
    } else count *= pass_op_cost((ir_op)r->op);
    ops += count;
    if (x->result[i]) bytes += (double)pass_bytes(g, x->rows[i]);
  }
  return 500 + (ops / 50 > bytes / 10 ? ops / 50 : bytes / 10);      /* 50 operations and 10 bytes in a nanosecond */
}

double pass_work(const ir_graph *g) {
  int n = 0;
  group *groups = groups_of(g, &n);
  double sum = groups ? 0 : -1;
  for (int k = 0; sum >= 0 && k < n; k++) {
    double one = estimate(g, &groups[k]);
    sum = one < 0 ? one : sum + one;
  }
  groups_free(groups, n);
  return sum;
}

static bool add_int(int **list, int *n, int x) {
  for (int i = 0; i < *n; i++)
    if ((*list)[i] == x) return true;
  int *more = realloc(*list, ((size_t)*n + 1) * sizeof *more);
  if (!more) return false;
  *list = more;
  more[(*n)++] = x;
  return true;
}

/* What rows outside of the kernel it reads, and which of them its results may take the place of, in the order in which memory.c asks. */
static bool arguments(work *w, variant *v) {
  const ir_graph *g = w->g;
  const group *x = &v->of;
  for (int i = 0; i < x->n; i++) {
    const ir_node *r = ir_at(g, x->rows[i]);
    for (uint32_t k = 0; k < r->n_args; k++) {
      ir_ref a = r->args[k];
      bool own = false;
      for (int j = 0; j < i; j++) own |= x->rows[j] == a;
      if (own) continue;
      if (w->value_of[a] >= 0 && !add_int(&v->reads, &v->n_reads, w->value_of[a])) return false;
      if (ir_at(g, a)->op != IR_param) continue;
      ir_ref *more = realloc(v->params, ((size_t)v->n_params + 1) * sizeof *more);
      if (!more) return false;
      v->params = more;
      more[v->n_params++] = a;
    }
  }
  for (int i = 0; i < x->n; i++) {
    int to = x->result[i] ? w->value_of[x->rows[i]] : -1;
    if (to < 0) continue;
    int *tried = NULL, n_tried = 0;
    for (int j = 0; j < x->n; j++)
      for (uint32_t k = 0; k < ir_at(g, x->rows[j])->n_args; k++) {
        ir_ref a = ir_at(g, x->rows[j])->args[k];
        int before = n_tried, from = w->value_of[a];
        bool own = false;
        for (int m = 0; m < j; m++) own |= x->rows[m] == a;
        if (own || from < 0 || pass_bytes(g, a) != pass_bytes(g, x->rows[i])) continue;
        if (!add_int(&tried, &n_tried, from)) return free(tried), false;
        if (n_tried == before || !form_in_place(g, x->rows, x->n, x->result, x->rows[i], a)) continue;
        int(*more)[2] = realloc(v->pairs, ((size_t)v->n_pairs + 1) * sizeof *more);
        if (!more) return free(tried), false;
        v->pairs = more;
        more[v->n_pairs][0] = to, more[v->n_pairs++][1] = from;
      }
    free(tried);
  }
  return true;
}

static bool is_soft(const work *w, const kernel *x, ir_ref r) { return w->value_of[r] < 0 || (x->soft >> (w->value_of[r] - x->first) & 1); }

static const variant *variant_of(work *w, int k, uint64_t mask, bool cut) {
  kernel *x = &w->kernels[k];
  for (variant *v = x->variants; v; v = v->next)
    if (v->mask == mask && v->cut == cut) return v;
  const group *all = &w->groups[k];
  variant *v = calloc(1, sizeof *v);
  bool *needed = calloc((size_t)all->n, sizeof *needed);
  if (!v || !needed || !(v->of.rows = malloc((size_t)all->n * sizeof(ir_ref))) || !(v->of.result = calloc((size_t)all->n, sizeof(bool)))) {
    if (v) free(v->of.rows);
    free(v), free(needed);
    return w->no_memory = true, NULL;
  }
  v->mask = mask, v->cut = cut;
  v->next = x->variants, x->variants = v;
  for (int i = all->n - 1; i >= 0; i--) {
    int which = all->result[i] ? w->value_of[all->rows[i]] : -1;
    needed[i] |= which >= 0 && (mask >> (which - x->first) & 1);
    const ir_node *r = ir_at(w->g, all->rows[i]);
    for (uint32_t j = 0; needed[i] && j < r->n_args; j++)
      if (ir_at(w->g, r->args[j])->region == r->region && (!cut || is_soft(w, x, r->args[j]))) needed[r->args[j] - all->rows[0]] = true;
  }
  for (int i = 0; i < all->n; i++) {
    if (!needed[i]) continue;
    int which = all->result[i] ? w->value_of[all->rows[i]] : -1;
    v->of.result[v->of.n] = which >= 0 && (mask >> (which - x->first) & 1);
    v->of.rows[v->of.n++] = all->rows[i];
  }
  free(needed);
  bool sums = false;                                   /* how a loop adds up may follow from all that it does: only whole ones are copied */
  for (int i = 0; i < all->n && !cut; i++) {
    ir_op op = (ir_op)ir_at(w->g, all->rows[i])->op;
    sums |= (form_is_reduction(op) || (ir_is_attention(op) && ir_attention_first(op) > 3)) && (mask != x->all || v->of.n != all->n);
  }
  v->ok = !sums && form_of(w->g, v->of.rows, v->of.n, v->of.result, &v->f, NULL) && v->f.kind == (cut ? FORM_LOOP : (form_kind)x->kind);
  if (!arguments(w, v)) return w->no_memory = true, NULL;
  v->cost = estimate(w->g, &v->of);
  if (v->cost < 0) w->no_memory = true;
  return v;
}

static bool find_soft(const work *w, kernel *x, const group *of) {
  bool *easy = calloc((size_t)of->n + 1, sizeof *easy);
  if (!easy) return false;
  for (int i = 0; i < of->n; i++) {
    const ir_node *r = ir_at(w->g, of->rows[i]);
    ir_kind kind = ir_ops[r->op].kind;
    easy[i] = kind == IR_ELEMENTWISE || kind == IR_LEAF || (kind == IR_MOVEMENT && r->op != IR_fold);
    for (uint32_t k = 0; k < r->n_args; k++)
      if (ir_at(w->g, r->args[k])->region == r->region) easy[i] &= easy[r->args[k] - of->rows[0]] || w->value_of[r->args[k]] >= 0;
    if (easy[i] && of->result[i]) x->soft |= (uint64_t)1 << (w->value_of[of->rows[i]] - x->first);
  }
  free(easy);
  return true;
}

static bool start(work *w) {
  const ir_graph *g = w->g;
  int *maker = malloc(g->n_nodes * sizeof *maker), *last = malloc(g->n_nodes * sizeof *last);
  bool *is_output = calloc(g->n_nodes, sizeof *is_output), ok = maker && last && is_output;
  ir_ref *over = calloc(g->n_nodes, sizeof *over);
  w->kernels = calloc((size_t)w->n + 1, sizeof *w->kernels), w->values = calloc(g->n_nodes, sizeof *w->values);
  w->value_of = malloc(g->n_nodes * sizeof *w->value_of), w->writer = malloc(g->n_nodes * sizeof *w->writer);
  if ((ok = ok && over && w->kernels && w->values && w->value_of && w->writer)) {
    place_lives(g, w->groups, w->n, maker, last);
    for (uint32_t i = 0; i < g->n_outputs; i++) is_output[g->outputs[i].value] = true;
    for (ir_ref r = 0; r < g->n_nodes; r++) w->value_of[r] = w->writer[r] = -1;
    place_params(g, w->groups, w->n, maker, last, is_output, over);
  }
  for (int k = 0; ok && k < w->n; k++) {
    kernel *x = &w->kernels[k];
    uint32_t n;
    const int64_t *kind = ir_kernel_get(g, w->groups[k].region, "kind", &n);
    x->kind = kind ? *kind : FORM_LOOP;
    x->first = w->n_values;
    for (int i = 0; i < w->groups[k].n; i++) {
      ir_ref r = w->groups[k].rows[i];
      if (!w->groups[k].result[i]) continue;
      if (over[r]) w->writer[over[r]] = k;
      w->value_of[r] = w->n_values;
      w->values[w->n_values++] = (value){r, k, (pass_bytes(g, r) + 63) & ~(int64_t)63, !is_output[r] && !over[r], last[r] == w->n};
    }
    x->n = w->n_values - x->first;
    x->all = x->n >= MOST_RESULTS ? ~(uint64_t)0 : ((uint64_t)1 << x->n) - 1;
    ok = x->n <= MOST_RESULTS && find_soft(w, x, &w->groups[k]);
  }
  free(maker), free(last), free(is_output), free(over);
  return ok;
}

/* ---- schedules ---- */

static bool reserve(schedule *s, int n, int n_pool) {
  if (s->n + n > s->room) {
    int room = 2 * (s->n + n);
    void *a = realloc(s->at, (size_t)room * sizeof *s->at);
    if (a) s->at = a;
    void *b = a ? realloc(s->order, (size_t)room * sizeof *s->order) : NULL;
    if (b) s->order = b;
    void *c = b ? realloc(s->place, (size_t)room * sizeof *s->place) : NULL;
    if (c) s->place = c;
    if (!c) return false;
    s->room = room;
  }
  if (s->n_pool + n_pool > s->room_pool) {
    int room = 2 * (s->n_pool + n_pool);
    void *a = realloc(s->pool, (size_t)room * sizeof *s->pool);
    if (!a) return false;
    s->pool = a, s->room_pool = room;
  }
  return true;
}

static bool copy_schedule(schedule *to, const schedule *from) {
  to->n = to->n_pool = 0;
  if (!reserve(to, from->n + 1, from->n_pool + 1)) return false;
  memcpy(to->at, from->at, (size_t)from->n * sizeof *to->at);
  memcpy(to->order, from->order, (size_t)from->n_order * sizeof *to->order);
  memcpy(to->place, from->place, (size_t)from->n * sizeof *to->place);
  memcpy(to->pool, from->pool, (size_t)from->n_pool * sizeof *to->pool);
  to->n = from->n, to->n_order = from->n_order, to->n_pool = from->n_pool, to->n_slots = from->n_slots;
  return true;
}

static void free_schedule(schedule *s) { free(s->at), free(s->order), free(s->place), free(s->pool); }

/* A new instance at place `at`, its reads not yet set; -1: no memory. */
static int insert(work *w, schedule *s, int k, const variant *v, int at) {
  if (!reserve(s, 1, v->n_reads)) return w->no_memory = true, -1;
  int id = s->n++;
  s->at[id] = (instance){k, v, s->n_pool, s->n_slots};
  s->n_pool += v->n_reads, s->n_slots += w->kernels[k].n;
  memmove(s->order + at + 1, s->order + at, (size_t)(s->n_order - at) * sizeof *s->order);
  s->order[at] = id;
  s->n_order++;
  for (int i = at; i < s->n_order; i++) s->place[s->order[i]] = i;
  return id;
}

/* Buffers with lives, by the rules of memory.c. */
static bool simulate(work *w, const schedule *s) {
  int *last = realloc(w->last, ((size_t)s->n_slots + 1) * sizeof *last), *buffer_of = last ? realloc(w->buffer_of, ((size_t)s->n_slots + 1) * sizeof *last) : NULL;
  if (last) w->last = last;
  if (buffer_of) w->buffer_of = buffer_of;
  place_buffer *buffers = buffer_of ? realloc(w->buffers, ((size_t)s->n_slots + 1) * sizeof *buffers) : NULL;
  if (!buffers) return w->no_memory = true, false;
  w->buffers = buffers;
  w->n_buffers = 0;
  for (int i = 0; i < s->n_slots; i++) last[i] = buffer_of[i] = -1;
#define SLOT(id, value) (s->at[id].slots + (value) - w->kernels[s->at[id].kernel].first)
  for (int p = 0; p < s->n_order; p++) {
    const instance *x = &s->at[s->order[p]];
    for (int i = 0; i < x->v->n_reads; i++) last[SLOT(s->pool[x->from + i], x->v->reads[i])] = p;
  }
  for (int p = 0; p < s->n_order; p++) {
    int id = s->order[p];
    const instance *x = &s->at[id];
    const kernel *k = &w->kernels[x->kernel];
    for (int i = 0; i < k->n; i++) {
      const value *v = &w->values[k->first + i];
      bool copy = id >= w->n;                          /* a copy's results are no outputs, and are not assigned */
      if (!(x->v->mask >> i & 1) || (!v->arena && !copy)) continue;
      int slot = x->slots + i, end = v->to_end && !copy ? s->n_order : last[slot] > p ? last[slot] : p;
      for (int j = 0; j < x->v->n_pairs && buffer_of[slot] < 0; j++) {
        if (x->v->pairs[j][0] != k->first + i) continue;
        int from = -1;
        for (int m = 0; m < x->v->n_reads; m++)
          if (x->v->reads[m] == x->v->pairs[j][1]) from = SLOT(s->pool[x->from + m], x->v->reads[m]);
        if (from < 0 || buffer_of[from] < 0 || buffers[buffer_of[from]].last != p) continue;
        buffer_of[slot] = buffer_of[from];
        buffers[buffer_of[slot]].last = end;
      }
      if (buffer_of[slot] >= 0) continue;
      buffer_of[slot] = w->n_buffers;
      buffers[w->n_buffers++] = (place_buffer){.bytes = v->bytes, .first = p, .last = end};
    }
  }
  return true;
}

static int64_t live_at(const work *w, int p) {
  int64_t bytes = 0;
  for (int i = 0; i < w->n_buffers; i++) bytes += w->buffers[i].first <= p && w->buffers[i].last >= p ? w->buffers[i].bytes : 0;
  return bytes;
}

/* The last place where someone reads this value of instance id; -1: nobody. */
static int last_read(const schedule *s, int id, int which) {
  for (int p = s->n_order - 1; p > s->place[id]; p--) {
    const instance *x = &s->at[s->order[p]];
    for (int i = 0; i < x->v->n_reads; i++)
      if (x->v->reads[i] == which && s->pool[x->from + i] == id) return p;
  }
  return -1;
}

/* Who gives the value at place `at`: a copy made in this step, else one that is alive there, else the latest; *alive says whether it need not be kept longer. */
static int provider(const work *w, const schedule *s, int which, int at, bool *alive) {
  int k = w->values[which].kernel, best = -1;
  *alive = false;
  for (int p = 0; p < at; p++) {
    int id = s->order[p];
    if (s->at[id].kernel != k || !(s->at[id].v->mask >> (which - w->kernels[k].first) & 1)) continue;
    bool original = id < w->n, lives = id >= w->first_new || (original && (!w->values[which].arena || w->values[which].to_end)) || last_read(s, id, which) >= at;
    if (lives || !*alive) best = id;
    *alive |= lives;
  }
  return best;
}

/* Later readers of value bits `mask` of instance `from` get them of instance `to`. */
static void redirect(const work *w, schedule *s, int from, int to, uint64_t mask) {
  int first = w->kernels[s->at[to].kernel].first;
  for (int p = s->place[to] + 1; p < s->n_order; p++) {
    const instance *x = &s->at[s->order[p]];
    for (int i = 0; i < x->v->n_reads; i++)
      if (s->pool[x->from + i] == from && x->v->reads[i] >= first && (mask >> (x->v->reads[i] - first) & 1)) s->pool[x->from + i] = to;
  }
}

/* Puts a copy of instance id before place *at, which gives `want` and what is read of id from there on; copies of arguments before it.
 * With cut, only what is soft. The copy's number, -1: not possible. */
static int again(work *w, schedule *s, int id, uint64_t want, bool cut, int *at, int depth) {
  const kernel *k = &w->kernels[s->at[id].kernel];
  int number = s->at[id].kernel;
  uint64_t mask = want;
  for (int i = 0; i < k->n; i++)
    if ((s->at[id].v->mask >> i & 1) && (w->values[k->first + i].arena || id >= w->n) && last_read(s, id, k->first + i) >= *at) mask |= (uint64_t)1 << i;
  if (cut) mask &= k->soft;
  bool merge = w->merge && !cut;
  for (int p = *at; merge && p < s->n_order; p++)
    if (s->order[p] >= w->n && s->at[s->order[p]].kernel == number) mask |= s->at[s->order[p]].v->mask;
  const variant *v = variant_of(w, number, mask, cut);
  if (!v || !v->ok || depth == DEPTH) return -1;
  for (int i = 0; i < v->n_params; i++)
    if (w->writer[v->params[i]] >= 0 && s->place[w->writer[v->params[i]]] < *at) return -1;
  bool alive;
  for (int i = 0; i < v->n_reads; i++) {
    int from = provider(w, s, v->reads[i], *at, &alive), a = v->reads[i];
    if (from < 0) return -1;
    if (alive || (double)w->values[a].bytes <= w->keep) continue;
    const kernel *maker = &w->kernels[w->values[a].kernel];
    uint64_t bit = (uint64_t)1 << (a - maker->first);
    if ((maker->soft & bit) && again(w, s, from, bit, true, at, depth + 1) >= 0) continue;
    if (again(w, s, from, bit, false, at, depth + 1) < 0) return -1;
  }
  int copy = insert(w, s, number, v, *at);
  if (copy < 0) return -1;
  for (int i = 0; i < v->n_reads; i++) {
    int from = provider(w, s, v->reads[i], *at, &alive);
    if (from < 0) return -1;
    s->pool[s->at[copy].from + i] = from;
  }
  redirect(w, s, id, copy, mask);
  for (int p = *at + 1; merge && p < s->n_order; p++)
    if (s->order[p] >= w->n && s->at[s->order[p]].kernel == number) redirect(w, s, s->order[p], copy, mask);
  ++*at;
  return copy;
}

/* Results that nobody reads any more fall away, and copies without any. */
static bool clean(work *w, schedule *s) {
  uint64_t *used = calloc((size_t)s->n + 1, sizeof *used);
  if (!used) return w->no_memory = true, false;
  bool ok = true;
  for (int p = s->n_order - 1; ok && p >= 0; p--) {
    int id = s->order[p];
    instance *x = &s->at[id];
    const kernel *k = &w->kernels[x->kernel];
    for (int i = 0; id < w->n && i < k->n; i++)
      if (!w->values[k->first + i].arena || w->values[k->first + i].to_end) used[id] |= (uint64_t)1 << i;
    if (used[id] != x->v->mask && used[id]) {
      const variant *v = variant_of(w, x->kernel, used[id], x->v->cut);
      if (!v || !(ok = v->ok && v->n_reads <= x->v->n_reads)) { ok = false; break; }
      for (int i = 0; i < v->n_reads; i++)             /* a subset, in the same order */
        for (int j = i; j < x->v->n_reads; j++)
          if (x->v->reads[j] == v->reads[i]) {
            int t = s->pool[x->from + j];
            memmove(s->pool + x->from + i + 1, s->pool + x->from + i, (size_t)(j - i) * sizeof *s->pool);
            s->pool[x->from + i] = t;
            break;
          }
      x->v = v;
    }
    if (!used[id]) {
      memmove(s->order + p, s->order + p + 1, (size_t)(s->n_order - p - 1) * sizeof *s->order);
      s->n_order--;
      continue;
    }
    for (int i = 0; i < x->v->n_reads; i++) used[s->pool[x->from + i]] |= (uint64_t)1 << (x->v->reads[i] - w->kernels[w->values[x->v->reads[i]].kernel].first);
  }
  for (int p = 0; p < s->n_order; p++) s->place[s->order[p]] = p;
  free(used);
  return ok;
}

/* ---- the sequence of choices ---- */

static double total_cost(const schedule *s) {
  double sum = 0;
  for (int p = 0; p < s->n_order; p++) sum += s->at[s->order[p]].v->cost;
  return sum;
}

typedef struct { int64_t bound; int at, n_at; } peak;      /* most bytes alive at once, the first place where, and how many places */

static bool peak_of(work *w, const schedule *s, peak *x) {
  if (!simulate(w, s)) return false;
  if ((x->bound = place_bound(w->buffers, w->n_buffers, &x->at)) < 0) return w->no_memory = true, false;
  int64_t *change = calloc((size_t)s->n_order + 1, sizeof *change), live = 0;        /* of live bytes, from each kernel to the next */
  if (!change) return w->no_memory = true, false;
  for (int i = 0; i < w->n_buffers; i++) {
    if (w->buffers[i].last < 0 || w->buffers[i].first > w->buffers[i].last || w->buffers[i].first >= s->n_order) continue;
    change[w->buffers[i].first > 0 ? w->buffers[i].first : 0] += w->buffers[i].bytes;
    if (w->buffers[i].last + 1 < s->n_order) change[w->buffers[i].last + 1] -= w->buffers[i].bytes;
  }
  x->n_at = 0;
  for (int p = 0; p < s->n_order; p++) live += change[p], x->n_at += p >= x->at && live == x->bound;
  free(change);
  return true;
}

typedef struct { int id, place; bool cut; uint64_t mask; double bytes, rate; } candidate;
static int better_first(const void *a, const void *b) {
  const candidate *x = a, *y = b;
  return x->rate != y->rate ? (x->rate < y->rate) - (x->rate > y->rate) : x->id != y->id ? x->id - y->id : x->cut - y->cut;
}

/* Instances whose results lie there unread at place q; after simulate. */
static candidate *candidates(work *w, const schedule *s, int q, int *n) {
  candidate *list = malloc((2 * (size_t)q + 1) * sizeof *list);
  *n = 0;
  for (int p = 0; list && p < q; p++) {
    int id = s->order[p];
    const instance *x = &s->at[id];
    const kernel *k = &w->kernels[x->kernel];
    for (int cut = 0; cut < 2; cut++) {
      uint64_t may = cut ? k->soft : k->all;
      candidate c = {.id = id, .place = s->n_order, .cut = cut};
      if (cut && may == k->all) continue;
      for (int i = 0; i < k->n; i++) {
        const value *v = &w->values[k->first + i];
        if (!(x->v->mask & may & (uint64_t)1 << i) || w->last[x->slots + i] <= q || (id < w->n && (!v->arena || v->to_end))) continue;
        int next = s->n_order;
        bool now = false;
        for (int r = s->n_order - 1; r >= q; r--)
          for (int j = 0; j < s->at[s->order[r]].v->n_reads; j++)
            if (s->at[s->order[r]].v->reads[j] == k->first + i && s->pool[s->at[s->order[r]].from + j] == id) next = r, now |= r == q;
        if (now) continue;
        c.mask |= (uint64_t)1 << i, c.bytes += (double)v->bytes;
        if (next < c.place) c.place = next;
      }
      if (!c.mask) continue;
      const variant *v = variant_of(w, x->kernel, c.mask, cut);
      if (!v) return free(list), NULL;
      c.rate = c.bytes / v->cost;
      if (v->ok) list[(*n)++] = c;
    }
  }
  if (list) qsort(list, (size_t)*n, sizeof *list, better_first);
  return list;
}

/* The next copy of the sequence; false: none helps, or no memory. */
static bool step(work *w, schedule *s, peak *now) {
  schedule tried = {0}, best = {0};
  peak of_best = {0};
  double most = 0, cost = total_cost(s);
  int n = 0, kernel_at = s->order[now->at];
  if (!simulate(w, s)) return false;
  candidate *list = candidates(w, s, now->at, &n);
  w->no_memory |= !list;
  for (int i = 0; i < n && !w->no_memory && list[i].rate > most; i++)
    for (int option = 0; option < 6 && !w->no_memory; option++) {
      static const double keep[] = {2, 0.6, 1.0 / 16};     /* of what is freed */
      peak x;
      int at = list[i].place;
      w->keep = keep[option / 2] * list[i].bytes, w->merge = option % 2, w->first_new = s->n;
      if (!copy_schedule(&tried, s)) { w->no_memory = true; break; }
      if (again(w, &tried, list[i].id, list[i].mask, list[i].cut, &at, 0) < 0 || !clean(w, &tried) || !peak_of(w, &tried, &x)) continue;
      double gain = (double)(now->bound - live_at(w, tried.place[kernel_at])), more = total_cost(&tried) - cost;
      bool lower = x.bound < now->bound || (x.bound == now->bound && x.n_at < now->n_at);
      if (!lower || gain <= 0 || more < 0 || gain / (more + 1) <= most) continue;
      schedule t = best;
      best = tried, tried = t;
      most = gain / (more + 1), of_best = x;
    }
  free(list);
  free_schedule(&tried);
  if (most == 0 || w->no_memory) return free_schedule(&best), false;
  free_schedule(s);
  *s = best, *now = of_best;
  return true;
}

/* The beginning of the sequence that costs next to nothing. */
static bool take_free(work *w, schedule *s, peak *now) {
  schedule kept = {0};
  double most = (1 + FREE_TIME) * total_cost(s);
  bool ok = true;
  while (ok && now->bound >= 2 * LEAST_FREED) {
    peak before = *now;
    if (!(ok = copy_schedule(&kept, s)) || !step(w, s, now)) break;
    if (before.bound - now->bound >= LEAST_FREED && total_cost(s) <= most) continue;
    schedule t = *s;
    *s = kept, kept = t, *now = before;
    break;
  }
  free_schedule(&kept);
  return ok && !w->no_memory;
}

static int64_t placed(work *w, const schedule *s) {
  int64_t bytes = simulate(w, s) ? place_buffers(w->buffers, w->n_buffers) : -1;
  w->no_memory |= bytes < 0;
  return bytes;
}

/* ---- */

static bool emit(work *w, const schedule *s, ir_graph *out, const pass_options *options) {
  const ir_graph *in = w->g;
  bool plain = out->plain;
  ir_ref *map = calloc(in->n_nodes, sizeof *map), *made = calloc((size_t)s->n_slots + 1, sizeof *made);
  if (!map || !made) return free(map), free(made), false;
  out->plain = true;
  for (ir_ref r = 1; r < in->n_nodes && !out->error.status; r++)
    if (!ir_at(in, r)->region && ir_at(in, r)->op != IR_assign) map[r] = ir_rebuild(in, out, r, map);
  for (int p = 0; p < s->n_order && !out->error.status; p++) {
    const instance *x = &s->at[s->order[p]];
    const ir_kernel *k = &in->kernels[w->groups[x->kernel].region];
    char name[100];
    snprintf(name, sizeof name, "%.80s%s", k->name, s->order[p] < w->n ? "" : "_again");
    out->at_region = ir_kernel_add(out, name);
    if (x->v->cut) pass_plan_kernel(options, &x->v->of, in, out, out->at_region);
    for (uint32_t i = 0; !x->v->cut && i < k->n_plan; i++) ir_kernel_plan(out, out->at_region, k->plan[i].name, k->plan[i].values, k->plan[i].n);
    if (!x->v->cut && x->v->mask != w->kernels[x->kernel].all && x->v->f.kind == FORM_LOOP) {
      int64_t axes[TT_MAX_RANK];
      for (int i = 0; i < x->v->f.n_reduce; i++) axes[i] = x->v->f.reduce[i];
      ir_kernel_plan(out, out->at_region, "space", x->v->f.space.dim, (uint32_t)x->v->f.space.rank);
      ir_kernel_plan(out, out->at_region, "reduce", axes, (uint32_t)x->v->f.n_reduce);
    }
    for (int i = 0; i < x->v->n_reads; i++) map[w->values[x->v->reads[i]].row] = made[SLOT(s->pool[x->from + i], x->v->reads[i])];
    for (int i = 0; i < x->v->of.n; i++) {
      ir_ref r = x->v->of.rows[i];
      map[r] = ir_rebuild(in, out, r, map);
      if (x->v->of.result[i]) made[x->slots + w->value_of[r] - w->kernels[x->kernel].first] = map[r];
    }
  }
  out->at_region = 0;
  for (int i = 0; i < w->n_values; i++) map[w->values[i].row] = made[s->at[w->values[i].kernel].slots + i - w->kernels[w->values[i].kernel].first];
  for (uint32_t i = 0; i < in->n_effects && !out->error.status; i++) map[in->effects[i]] = ir_rebuild(in, out, in->effects[i], map);
  if (!out->error.status) ir_finish(in, out, map);
  out->plain = plain;
  free(map), free(made);
  return true;
}

static void finish(work *w, schedule *s) {
  for (int k = 0; w->kernels && k < w->n; k++)
    for (variant *v = w->kernels[k].variants, *next; v; v = next) {
      next = v->next;
      free(v->of.rows), free(v->of.result), free(v->reads), free(v->params), free(v->pairs), free(v);
    }
  groups_free(w->groups, w->n);
  free(w->kernels), free(w->values), free(w->value_of), free(w->writer), free(w->last), free(w->buffer_of), free(w->buffers);
  free_schedule(s);
}

/* "96.0 KiB", "12.5 MiB" */
static const char *bytes_text(int64_t bytes, char *text, size_t size) {
  if (bytes >= 1 << 20) snprintf(text, size, "%.1f MiB", (double)bytes / (1 << 20));
  else snprintf(text, size, "%.1f KiB", (double)bytes / (1 << 10));
  return text;
}

static tt_status too_small(const ir_graph *g, const pass_options *o, int64_t least, tt_error *err) {
  char wanted[40], rest[40], arena[40];
  return tt_fail(err, TT_INVALID, "error: @%s does not fit into %s of memory\n  at %s of parameters, inputs and scratch, and an arena of %s with all made again that helps\n  fix: allow %" PRId64 " bytes, which is the least it can reach, or take a smaller batch",
                 g->name, bytes_text(o->memory_budget, wanted, sizeof wanted), bytes_text(o->memory_fixed, rest, sizeof rest), bytes_text(least, arena, sizeof arena), o->memory_fixed + least);
}

tt_status pass_recompute(const ir_graph *in, ir_graph *out, const pass_options *options, tt_error *err) {
  work w = {.g = in};
  schedule s = {0};
  tt_status status = TT_OK;
  bool ok = (w.groups = groups_of(in, &w.n)) && start(&w);
  for (int k = 0; ok && k < w.n; k++) {
    const variant *v = variant_of(&w, k, w.kernels[k].all, false);
    ok = v && insert(&w, &s, k, v, s.n_order) >= 0;
    for (int i = 0; ok && i < v->n_reads; i++) s.pool[s.at[k].from + i] = w.values[v->reads[i]].kernel;
  }
  int64_t budget = options->memory_budget - options->memory_fixed, arena = INT64_MAX;
  peak now = {0};
  ok = ok && peak_of(&w, &s, &now) && take_free(&w, &s, &now);
  if (ok && options->memory_budget > 0) {
    arena = now.bound <= budget ? placed(&w, &s) : INT64_MAX;
    int64_t least = arena;
    while (arena > budget && step(&w, &s, &now)) {
      if (now.bound > budget && now.bound > least) continue;
      if ((arena = placed(&w, &s)) < least) least = arena;
    }
    if (arena > budget && !w.no_memory) {
      if (least == INT64_MAX) least = placed(&w, &s);
      status = too_small(in, options, least, err);
    }
  }
  ok = ok && !w.no_memory && (status != TT_OK || emit(&w, &s, out, options));
  finish(&w, &s);
  if (status != TT_OK) return status;
  if (!ok) return tt_fail(err, TT_NO_MEMORY, "error: no memory to choose what of @%s is made again\n  at pass recompute\n  fix: free memory", in->name);
  return out->error.status ? tt_fail(err, out->error.status, "%s", out->error.message) : TT_OK;
}
