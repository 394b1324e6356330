/* fuse.c: groups rows into kernels, greedily. It takes a graph of primitives and gives the same graph with braces: every computed row
 * stands in a kernel (but free constants that are themselves outputs, which schedule wraps).
 *
 *     %z = matmul(%x, %w)                        kernel @k0_matmul_add_relu(%x, %w, %b) -> %h {
 *     %c = broadcast(%b, dims=[1])                 %z = matmul(%x, %w)
 *     %a = add(%z, %c)                 gives       %c = broadcast(%b, dims=[1])
 *     %h = relu(%a)                                %a = add(%z, %c)
 *                                                  %h = relu(%a)
 *                                                }
 *
 * 1. Each row is solid or not. A row that is not is made again by everyone who reads it: movement (index arithmetic), and cheap
 *    elementwise rows on values that are in memory anyway or are smaller, when they are read about once by each reader; in large rows even
 *    one exp costs less than to write it and to read it back. What has to be a buffer is solid:
 *    outputs, assigned values, and the row that a contraction's operand is a strided view of; also the permute of a conv's or attention's result, which
 *    says how it is stored.
 * 2. Each solid row starts as a group. Reductions of one value join, then groups along reads: first where the value read then need not exist in memory, then where it
 *    saves reading it again, then side by side where both read the same large value, or are small and alike.
 *    Two groups join when form.c finds that their rows are a kernel, no path leads from one to the other through a third, and
 *    nobody computes a value much more often than it has elements (worth_it).
 * 3. Groups are written out in order. */
#include "form.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_ROWS = 160, MAX_READS = 24, MAX_RESULTS = 8 };
static const double FAR = 1 << 20;     /* so many bytes are no longer in a core's cache when the backward pass reads them */

typedef struct { ir_ref *at; int n, cap; } list;
typedef struct {
  const ir_graph *g;
  bool *live, *solid;
  bool narrow;                       /* products read operands in bf16: what widens them is part of their kernels */
  bool *turned;                      /* a transposed copy: a kernel of its own, since between the guards of a pad it would go element by element */
  bool *forced, *kept;               /* has to be a buffer; is an output or assigned */
  ir_ref *param;                     /* to which the row is assigned */
  int *group;                        /* of a solid row, -1 */
  list *members, *reads, *readers;   /* of a group: its solid rows; of a solid row: solid rows and leaves that it reads, those that read it */
  list *later;                       /* of a solid row: next values of params that it reads, which are to be written in place */
  int n_groups;
  int *place, *at_place;             /* an order of the groups in which all that lists say goes forward: of a group, its place; of a place, its group, or -1 */
  int *seen, stamp;                  /* of each row: marks of the last walk */
  int *seen_group, group_stamp;
  bool failed;
} fuser;

static void push(fuser *f, list *l, ir_ref r) {
  if (l->n == l->cap) {
    int cap = l->cap ? 2 * l->cap : 8;
    void *p = realloc(l->at, (size_t)cap * sizeof *l->at);
    if (!p) { f->failed = true; return; }
    l->at = p, l->cap = cap;
  }
  l->at[l->n++] = r;
}

static double count(const ir_graph *g, ir_ref r) {
  tt_shape s = ir_shape(g, r);
  return (double)tt_shape_count(&s);
}

static double bytes(const ir_graph *g, ir_ref r) { return count(g, r) * (double)tt_dtype_size((tt_dtype)ir_at(g, r)->dtype); }

static bool reads_buffers(ir_op op) { return ir_ops[op].kind == IR_CONTRACTION || op == IR_argsort || op == IR_scan; }

/* How many elements of its argument k row r asks for when it is computed once. */
static double asks(const ir_graph *g, ir_ref r, int k) {
  const ir_node *n = ir_at(g, r);
  if (form_is_reduction(n->op)) return count(g, n->args[0]);
  switch (n->op) {
  case IR_fold: return count(g, r) * (double)ir_at(g, n->args[0])->dim[ir_at(g, n->args[0])->rank - 1];
  case IR_scatter_add: return k == 0 ? count(g, r) : count(g, n->args[2]);
  case IR_random: return 1;
  case IR_pad: return k == 1 ? 1 : count(g, r);
  case IR_dynamic_slice: case IR_dynamic_update_slice: return count(g, r);
  default: return count(g, r);
  }
}

/* ---- what is solid ---- */

/* What making a row again would do: additions, large loads, and bytes that others would have to put into memory for it. */
typedef struct { double weight, fresh; int loads; } again;
typedef struct {
  fuser *f;
  double *asked;
  int *n_readers;                    /* seen through movement */
  bool *in_memory;                   /* whatever becomes of its readers */
  bool *summed;                      /* a reduction reads it, seen through movement */
  again *own, *with;                 /* as things stand; with what only this row reads made again too */
} solidity;

/* Would row a, which only a row of `size` elements reads, be made again along with that? */
static bool follows(const solidity *s, ir_ref a, double size) {
  return s->f->solid[a] && !s->f->forced[a] && s->n_readers[a] == 1 && ir_ops[ir_at(s->f->g, a)->op].kind == IR_ELEMENTWISE && count(s->f->g, a) == size;
}

static again make_again(const solidity *s, ir_ref r, bool with) {
  const ir_graph *g = s->f->g;
  const ir_node *n = ir_at(g, r);
  double size = count(g, r);
  again y = {.weight = pass_op_cost((ir_op)n->op)};
  for (uint32_t k = 0; k < n->n_args; k++) {
    ir_ref a = n->args[k];
    bool large = count(g, a) * 4 >= size, solid = s->f->solid[a] && !(with && follows(s, a, size));
    again x = with ? s->with[a] : s->own[a];
    if (form_is_leaf(g, a)) y.loads += large;
    else if (form_is_free(g, a)) continue;
    else if (solid) y.loads += large, y.fresh += s->in_memory[a] ? 0 : bytes(g, a);
    else y.weight += x.weight, y.fresh += x.fresh, y.loads += large ? x.loads : 0;      /* what a broadcast repeats stays in cache */
  }
  return y;
}

/* Are all large loads of making r again those of one row? */
static bool one_load(const solidity *s, ir_ref r, double size, ir_ref *from) {
  const ir_graph *g = s->f->g;
  const ir_node *n = ir_at(g, r);
  for (uint32_t k = 0; k < n->n_args; k++) {
    ir_ref a = n->args[k];
    bool load = form_is_leaf(g, a) || (s->f->solid[a] && !follows(s, a, size));
    if (!load && !form_is_free(g, a) && !one_load(s, a, size, from)) return false;
    if (load && count(g, a) * 4 >= size) {
      if (*from && *from != a) return false;
      *from = a;
    }
  }
  return true;
}

static void soften(const solidity *s, ir_ref r, double size) {
  const ir_node *n = ir_at(s->f->g, r);
  for (uint32_t k = 0; k < n->n_args; k++) {
    ir_ref a = n->args[k];
    if (follows(s, a, size)) s->f->solid[a] = false;
    else if (s->f->solid[a] || ir_ops[ir_at(s->f->g, a)->op].kind != IR_MOVEMENT) continue;
    soften(s, a, size);
  }
}

static void choose_row(solidity *s, ir_ref r) {
  fuser *f = s->f;
  const ir_graph *g = f->g;
  const ir_node *n = ir_at(g, r);
  ir_kind kind = ir_ops[n->op].kind;
  double size = count(g, r), times = s->n_readers[r] ? s->asked[r] / s->n_readers[r] : 0;
  s->in_memory[r] = true;
  for (uint32_t k = 0; k < n->n_args; k++) s->in_memory[r] &= s->in_memory[n->args[k]] || form_is_leaf(g, n->args[k]) || form_is_free(g, n->args[k]);
  s->own[r] = make_again(s, r, false), s->with[r] = make_again(s, r, true);
  if (kind == IR_MOVEMENT && n->op != IR_fold) {
    ir_op made = (ir_op)ir_at(g, n->args[0])->op;
    bool stores = n->op == IR_permute && (made == IR_conv || made == IR_winograd || ir_is_attention(made)) && s->n_readers[n->args[0]] == s->n_readers[r];
    if ((f->solid[r] = f->forced[r] || stores)) s->in_memory[r] = f->forced[r] || s->n_readers[r] > 1;
    return;
  }
  if (f->narrow && form_widens(g, r) && !f->forced[r]) return;
  bool fine = false, several = kind == IR_ELEMENTWISE && s->n_readers[r] > 1 && !f->forced[r];
  for (int with = s->with[r].fresh < s->own[r].fresh; several && with >= 0 && !fine; with--) {
    again y = with ? s->with[r] : s->own[r];
    bool small = size == 1 ? y.weight <= 3 : y.weight <= 2 && s->asked[r] <= 4096;
    bool cheap = y.weight <= 3 && times <= 1.3 * size && (y.loads <= 1 || (y.loads == 2 && s->n_readers[r] <= 3));
    ir_ref from = 0;
    cheap |= bytes(g, r) >= FAR && y.weight <= 16 && times <= 1.3 * size && !s->summed[r] && one_load(s, r, size, &from);
    fine = s->in_memory[r] ? small || cheap : cheap && 2 * y.fresh <= bytes(g, r);
    if (fine && with) {
      soften(s, r, size);
      s->own[r] = y;
    }
  }
  f->solid[r] = !fine;
  if (f->solid[r]) s->in_memory[r] = f->forced[r] || s->n_readers[r] > 1;
}

static void choose_solid(fuser *f) {
  const ir_graph *g = f->g;
  solidity s = {f, calloc(g->n_nodes, sizeof *s.asked), calloc(g->n_nodes, sizeof *s.n_readers), calloc(g->n_nodes, sizeof *s.in_memory),
                calloc(g->n_nodes, sizeof *s.summed), calloc(g->n_nodes, sizeof *s.own), calloc(g->n_nodes, sizeof *s.with)};
  if (!s.asked || !s.n_readers || !s.in_memory || !s.summed || !s.own || !s.with) f->failed = true;
  for (uint32_t i = 0; i < g->n_outputs; i++) f->forced[g->outputs[i].value] = f->kept[g->outputs[i].value] = true;
  for (ir_ref r = 1; r < g->n_nodes; r++) {
    const ir_node *n = ir_at(g, r);
    if (!f->live[r]) continue;
    if (n->op == IR_assign) f->forced[n->args[1]] = f->kept[n->args[1]] = true, f->param[n->args[1]] = n->args[0];
    if (ir_ops[n->op].kind == IR_CONTRACTION)
      for (int k = 0; k < (int)n->n_args; k++) f->forced[form_operand_base(g, r, k, f->narrow)] = true;
    for (uint32_t k = 0; (n->op == IR_argsort || n->op == IR_scan) && k < n->n_args; k++) f->forced[n->args[k]] = true;
    const ir_node *x = ir_at(g, n->n_args ? n->args[0] : 0);
    int last = x->rank - 1;
    if (n->op == IR_pad && x->op == IR_permute && last > 0 && ir_ints(x, "perm", NULL)[last] != last && x->dim[last] >= 8 && count(g, n->args[0]) >= 65536)
      f->turned[n->args[0]] = f->forced[n->args[0]] = true;
  }
  for (ir_ref r = g->n_nodes - 1; r > 0 && !f->failed; r--) {        /* who reads it, seen through movement */
    const ir_node *n = ir_at(g, r);
    bool through = ir_ops[n->op].kind == IR_MOVEMENT && n->op != IR_fold && !f->forced[r];
    for (uint32_t k = 0; f->live[r] && n->op != IR_assign && k < n->n_args; k++) {
      ir_ref a = n->args[k];
      bool repeated = false;
      for (uint32_t j = 0; j < k; j++) repeated |= n->args[j] == a;
      if (repeated) continue;
      s.asked[a] += through ? s.asked[r] : asks(g, r, (int)k);
      s.n_readers[a] += through ? s.n_readers[r] : 1;
      s.summed[a] |= through ? s.summed[r] : form_is_reduction((ir_op)n->op);
    }
  }
  for (ir_ref r = 1; r < g->n_nodes && !f->failed; r++) {
    if (!f->live[r] || ir_at(g, r)->op == IR_assign || form_is_leaf(g, r) || (form_is_free(g, r) && !f->forced[r])) continue;
    choose_row(&s, r);
  }
  free(s.asked), free(s.n_readers), free(s.in_memory), free(s.summed), free(s.own), free(s.with);
}

/* Solid rows and leaves that solid row r reads, and the rows between (not solid, made again in its kernel) when `between` is given. */
static void walk_down(fuser *f, ir_ref r, list *reads, list *between) {
  const ir_node *n = ir_at(f->g, r);
  for (uint32_t k = 0; k < n->n_args; k++) {
    ir_ref a = n->args[k];
    if (f->seen[a] == f->stamp) continue;
    f->seen[a] = f->stamp;
    if (f->solid[a] && (!form_is_free(f->g, a) || reads_buffers(n->op))) push(f, reads, a);
    else if (form_is_leaf(f->g, a)) push(f, reads, a);
    else {
      if (between) push(f, between, a);
      walk_down(f, a, reads, between);
    }
  }
}

static int latest_first(const void *a, const void *b) {
  ir_ref x = *(const ir_ref *)a, y = *(const ir_ref *)b;
  return (x < y) - (x > y);
}

/* Puts the groups, a row each, in order: by number, but readers of a param before its next value. Where they need that value themselves the wish is dropped. */
static bool order_rows(fuser *f) {
  size_t n = f->g->n_nodes;
  int *reads = calloc(n, sizeof *reads), *others = calloc(n, sizeof *others), placed = 0;
  f->place = malloc(n * sizeof *f->place), f->at_place = malloc(n * sizeof *f->at_place);
  bool ok = reads && others && f->place && f->at_place;
  for (ir_ref r = 1; ok && r < n; r++) {
    if (f->solid[r]) f->place[f->group[r]] = -1;
    for (int k = 0; f->solid[r] && k < f->readers[r].n; k++) reads[f->readers[r].at[k]]++;
    for (int k = 0; f->solid[r] && k < f->later[r].n; k++) others[f->later[r].at[k]]++;
  }
  for (bool force = false; ok && placed < f->n_groups;) {
    int before = placed;
    for (ir_ref r = 1; r < n && !(force && placed > before); r++) {
      if (!f->solid[r] || f->place[f->group[r]] >= 0 || reads[r] || (others[r] && !force)) continue;
      f->at_place[f->place[f->group[r]] = placed++] = f->group[r];
      for (int k = 0; k < f->readers[r].n; k++) reads[f->readers[r].at[k]]--;
      for (int k = 0; k < f->later[r].n; k++) others[f->later[r].at[k]]--;
    }
    force = placed == before;
  }
  for (ir_ref r = 1; ok && r < n; r++) {
    list *l = &f->later[r];
    int kept = 0;
    for (int k = 0; f->solid[r] && k < l->n; k++)
      if (f->place[f->group[r]] < f->place[f->group[l->at[k]]]) l->at[kept++] = l->at[k];
    l->n = kept;
  }
  free(reads), free(others);
  return ok;
}

static bool start(fuser *f) {
  const ir_graph *g = f->g;
  size_t n = g->n_nodes;
  f->live = ir_live(g);
  f->solid = calloc(n, sizeof *f->solid), f->turned = calloc(n, sizeof *f->turned), f->forced = calloc(n, sizeof *f->forced), f->kept = calloc(n, sizeof *f->kept), f->param = calloc(n, sizeof *f->param);
  f->group = malloc(n * sizeof *f->group), f->seen = calloc(n, sizeof *f->seen), f->seen_group = calloc(n, sizeof *f->seen_group);
  f->members = calloc(n, sizeof *f->members), f->reads = calloc(n, sizeof *f->reads), f->readers = calloc(n, sizeof *f->readers), f->later = calloc(n, sizeof *f->later);
  bool marks = f->live && f->turned && f->solid && f->forced && f->kept && f->param && f->group && f->seen && f->seen_group;
  if (!marks || !f->members || !f->reads || !f->readers || !f->later) return false;
  choose_solid(f);
  for (ir_ref r = 0; r < n; r++) {
    f->group[r] = -1;
    if (!f->solid[r]) continue;
    f->group[r] = f->n_groups;
    push(f, &f->members[f->n_groups++], r);
    f->stamp++;
    walk_down(f, r, &f->reads[r], NULL);
    if (f->reads[r].n) qsort(f->reads[r].at, (size_t)f->reads[r].n, sizeof(ir_ref), latest_first);
    for (int i = 0; i < f->reads[r].n; i++) push(f, &f->readers[f->reads[r].at[i]], r);
  }
  for (uint32_t i = 0; i < g->n_effects; i++) {
    ir_ref p = ir_at(g, g->effects[i])->args[0], value = ir_at(g, g->effects[i])->args[1];
    for (int k = 0; k < f->readers[p].n && f->solid[value]; k++)
      if (f->readers[p].at[k] != value) push(f, &f->later[f->readers[p].at[k]], value);
  }
  return !f->failed && order_rows(f);
}

static void finish(fuser *f) {
  for (ir_ref r = 0; r < f->g->n_nodes; r++) {
    if (f->members) free(f->members[r].at);
    if (f->reads) free(f->reads[r].at);
    if (f->readers) free(f->readers[r].at);
    if (f->later) free(f->later[r].at);
  }
  free(f->live), free(f->turned), free(f->solid), free(f->forced), free(f->kept), free(f->param), free(f->group), free(f->seen), free(f->seen_group), free(f->place), free(f->at_place);
  free(f->members), free(f->reads), free(f->readers), free(f->later);
}

/* ---- joining ---- */

/* Does a path lead from group a, which stands first, to group b through others? Readers of a param come before its next value. When none does, the groups
 * between them that a leads to are those with the present stamp. */
static bool path_through(fuser *f, int a, int b) {
  list todo = {0};
  bool found = false;
  int last = f->place[b];
  f->group_stamp++;
  f->seen_group[a] = f->group_stamp;
  for (int at = a, first = 1; !found; first = 0) {
    if (!first) {
      if (!todo.n) break;
      at = (int)todo.at[--todo.n];
    }
    for (int i = 0; i < 2 * f->members[at].n && !found; i++) {
      const list *next = &(i % 2 ? f->later : f->readers)[f->members[at].at[i / 2]];
      for (int k = 0; k < next->n && !found; k++) {
        int to = f->group[next->at[k]];
        if (to == b) found = at != a;
        else if (f->seen_group[to] != f->group_stamp && f->place[to] < last) {
          f->seen_group[to] = f->group_stamp;
          push(f, &todo, (ir_ref)to);
        }
      }
    }
  }
  free(todo.at);
  return found;
}

static void put_at(fuser *f, int place, int which) { f->at_place[f->place[which] = place] = which; }

/* Groups a and b become the one group `joined`, behind what stands between them but for what a leads to, as path_through has marked it. */
static void place_together(fuser *f, int a, int b, int joined) {
  int from = f->place[a], to = f->place[b], at = from;
  list after = {0};
  for (int i = from + 1; i < to; i++) {
    int x = f->at_place[i];
    if (x >= 0 && f->seen_group[x] == f->group_stamp) push(f, &after, (ir_ref)x);
    else if (x >= 0) put_at(f, at++, x);
  }
  put_at(f, at++, joined);
  for (int i = 0; i < after.n; i++) put_at(f, at++, (int)after.at[i]);
  while (at <= to) f->at_place[at++] = -1;
  free(after.at);
}

static bool read_outside(const fuser *f, ir_ref r, int a, int b) {
  if (f->kept[r]) return true;
  for (int k = 0; k < f->readers[r].n; k++) {
    int to = f->group[f->readers[r].at[k]];
    if (to != a && to != b) return true;
  }
  return false;
}

static int ascending(const void *a, const void *b) {
  ir_ref x = *(const ir_ref *)a, y = *(const ir_ref *)b;
  return (x > y) - (x < y);
}

/* All rows of the kernel that groups a and b (b may be -1) would be, and how many values it would read. */
static bool rows_of(fuser *f, int a, int b, list *rows, int *n_reads) {
  list reads = {0};
  rows->n = 0;
  f->stamp++;
  for (int side = 0; side < 2; side++) {
    int which = side ? b : a;
    for (int i = 0; which >= 0 && i < f->members[which].n; i++) {
      push(f, rows, f->members[which].at[i]);
      f->seen[f->members[which].at[i]] = f->stamp;
    }
  }
  int solids = rows->n;
  for (int i = 0; i < solids && !f->failed; i++) walk_down(f, rows->at[i], &reads, rows);
  *n_reads = reads.n;
  free(reads.at);
  qsort(rows->at, (size_t)rows->n, sizeof *rows->at, ascending);
  return !f->failed;
}

static int position(const list *rows, ir_ref r) {
  const ir_ref *p = bsearch(&r, rows->at, (size_t)rows->n, sizeof r, ascending);
  return p ? (int)(p - rows->at) : -1;
}

static int bits(uint32_t x) { return __builtin_popcount(x); }

/* Is nothing computed much more often than it has elements, and is there enough to do in parallel? */
static bool worth_it(fuser *f, const list *rows, const bool *result, const form *k, const form_use *use) {
  const ir_graph *g = f->g;
  double weight[MAX_ROWS];           /* of a row with all that it pulls */
  bool after[MAX_ROWS];              /* it needs a reduction of this kernel */
  double space = (double)tt_shape_count(&k->space), lanes = 1, units = 1;
  bool last_reduced = k->n_reduce && k->reduce[k->n_reduce - 1] == k->space.rank - 1;
  for (int i = 0, j = 0; i < k->space.rank; i++) {
    if (j < k->n_reduce && k->reduce[j] == i) j++;
    else units *= (double)k->space.dim[i];
  }
  if (k->n_reduce && !last_reduced && k->space.rank) lanes = (double)k->space.dim[k->space.rank - 1] < 16 ? (double)k->space.dim[k->space.rank - 1] : 16;
  bool serial = k->n_reduce && units / lanes < 8 && space > 32768;
  for (int i = 0; i < rows->n; i++) {
    const ir_node *n = ir_at(g, rows->at[i]);
    double size = count(g, rows->at[i]);
    bool reduction = form_is_reduction(n->op) || n->op == IR_fold;
    weight[i] = pass_op_cost((ir_op)n->op), after[i] = false;
    for (uint32_t j = 0; j < n->n_args; j++) {
      int a = position(rows, n->args[j]);
      if (a < 0) continue;
      const ir_node *arg = ir_at(g, n->args[j]);
      bool value = form_is_reduction(arg->op) || arg->op == IR_fold;
      weight[i] += value ? 0 : weight[a];
      after[i] |= value || after[a];
    }
    if (result[i] && serial && size > units) return false;
    if (!f->solid[rows->at[i]] || reduction || rows->at[i] == k->core) continue;
    bool often = use[i].evals > 1.3 * size + 64 && use[i].evals * weight[i] > 4096;
    if (!use[i].aligned && (result[i] || often)) return false;
    if (bits(use[i].stages) > 1 && !after[i] && weight[i] > 8) return false;
  }
  return true;
}

/* Groups a and b become a; path_through has been asked. */
static void join(fuser *f, int a, int b) {
  int first = f->place[a] < f->place[b] ? a : b, second = first == a ? b : a;
  place_together(f, first, second, a);
  for (int i = 0; i < f->members[b].n; i++) {
    push(f, &f->members[a], f->members[b].at[i]);
    f->group[f->members[b].at[i]] = a;
  }
  f->members[b].n = 0;
}

static bool has_product(const fuser *f, int a) {
  bool found = false;
  for (int i = 0; i < f->members[a].n && !found; i++) found = ir_ops[ir_at(f->g, f->members[a].at[i])->op].kind == IR_CONTRACTION;
  return found;
}

/* Groups with products that group b needs and that stand behind place `from`, itself not counted; at most `most`. */
static int products_before(fuser *f, int b, int from, int most) {
  list todo = {0};
  int n = 0;
  f->seen_group[b] = ++f->group_stamp;
  push(f, &todo, (ir_ref)b);
  while (todo.n && n < most) {
    int at = (int)todo.at[--todo.n];
    n += at != b && has_product(f, at);
    for (int i = 0; i < f->members[at].n; i++) {
      const list *reads = &f->reads[f->members[at].at[i]];
      for (int k = 0; k < reads->n; k++) {
        int to = f->group[reads->at[k]];
        if (to < 0 || f->seen_group[to] == f->group_stamp || f->place[to] <= from) continue;
        f->seen_group[to] = f->group_stamp;
        push(f, &todo, (ir_ref)to);
      }
    }
  }
  free(todo.at);
  return n;
}

/* Would a product of group `first` wait for group `second` while several others are made, and keep arguments alive all the while that are larger than its result?
 * So would the gradient by the logits of a weight that is an embedding too: through the whole backward pass. */
static bool waits(fuser *f, int first, int second) {
  enum { SEVERAL = 4 };
  double kept = 0;
  for (int i = 0; i < f->members[first].n; i++) {
    ir_ref r = f->members[first].at[i];
    if (ir_ops[ir_at(f->g, r)->op].kind != IR_CONTRACTION) continue;
    kept -= bytes(f->g, r);
    for (int k = 0; k < f->reads[r].n; k++) {
      ir_ref a = f->reads[r].at[k];
      int last = f->place[first];                      /* when a could be gone */
      for (int j = 0; j < f->readers[a].n; j++)
        if (f->readers[a].at[j] != r && f->place[f->group[f->readers[a].at[j]]] > last) last = f->place[f->group[f->readers[a].at[j]]];
      if (f->solid[a] && !f->kept[a] && products_before(f, second, last, SEVERAL) == SEVERAL) kept += bytes(f->g, a);
    }
  }
  return kept >= FAR;
}

static bool try_join(fuser *f, int a, int b) {
  if (f->members[a].n + f->members[b].n > MAX_ROWS / 2) return false;
  list rows = {0};
  int n_reads, n_results = 0;
  bool result[MAX_ROWS], ok = rows_of(f, a, b, &rows, &n_reads) && rows.n <= MAX_ROWS && n_reads <= MAX_READS;
  form k;
  form_use use[MAX_ROWS];
  for (int i = 0; ok && i < rows.n; i++) {
    int in = f->group[rows.at[i]];
    result[i] = f->solid[rows.at[i]] && (in == a || in == b) && read_outside(f, rows.at[i], a, b);
    n_results += result[i];
  }
  ok = ok && n_results <= MAX_RESULTS && form_of(f->g, rows.at, rows.n, result, &k, use);
  for (int i = 0; ok && i < rows.n; i++)               /* else schedule has to copy it, which is cheap only beside a large kernel */
    if (result[i] && f->param[rows.at[i]] && tt_shape_count(&k.space) < 32768)
      ok = form_in_place(f->g, rows.at, rows.n, result, rows.at[i], f->param[rows.at[i]]);
  int first = f->place[a] < f->place[b] ? a : b, second = first == a ? b : a;
  ok = ok && worth_it(f, &rows, result, &k, use) && !waits(f, first, second) && !path_through(f, first, second);
  free(rows.at);
  if (ok) join(f, a, b);
  return ok;
}

/* The results of a scan are one kernel, whatever else is. */
static void join_scans(fuser *f) {
  for (ir_ref r = 1; r < f->g->n_nodes && !f->failed; r++)
    for (ir_ref m = r + 1; f->solid[r] && ir_at(f->g, r)->op == IR_scan && m < f->g->n_nodes && ir_same_scan(f->g, r, m); m++)
      if (f->solid[m] && f->group[m] != f->group[r] && !path_through(f, f->group[r], f->group[m])) join(f, f->group[r], f->group[m]);
}

/* So are the results of an attention: its sums stand beside it, and derivatives are of the same scores. A task of a kernel of all derivatives has all rows of
 * a head of k, so where there are few heads those by q, whose tasks are rows, stay apart from the others, whose tasks are columns. */
static void join_attention(fuser *f) {
  enum { HEADS = 8 };
  const ir_graph *g = f->g;
  for (ir_ref r = 1; r < g->n_nodes && !f->failed; r++)
    for (ir_ref m = r + 1; f->solid[r] && ir_is_attention((ir_op)ir_at(g, r)->op) && m < g->n_nodes; m++) {
      if (!f->solid[m] || f->group[m] == f->group[r] || !ir_same_attention(g, r, m)) continue;
      const ir_node *k = ir_at(g, ir_at(g, r)->args[1]);
      int64_t heads = 1;
      for (int i = 0; i < k->rank - 2; i++) heads *= k->dim[i];
      bool rows = ir_at(g, r)->op == IR_attention_dq || ir_at(g, m)->op == IR_attention_dq;
      int a = f->group[r], b = f->group[m], first = f->place[a] < f->place[b] ? a : b;
      if (!(rows && heads < HEADS) && !path_through(f, first, first == a ? b : a)) join(f, a, b);
    }
}

/* Does the group pick a few entries out of large rows? It belongs to who goes over those rows, not to who sums up what was picked. */
static bool picks(const fuser *f, int i) {
  for (int k = 0; k < f->members[i].n; k++) {
    const ir_node *n = ir_at(f->g, f->members[i].at[k]);
    if (n->op == IR_gather && count(f->g, n->args[0]) >= 8 * count(f->g, f->members[i].at[k])) return true;
  }
  return false;
}

/* Joins groups along reads. gone: only where the value read is then in nobody's memory. */
static void join_reads(fuser *f, bool gone) {
  for (ir_ref r = 1; r < f->g->n_nodes && !f->failed; r++)
    for (int i = 0; f->solid[r] && i < f->reads[r].n; i++) {
      ir_ref a = f->reads[r].at[i];
      if (!f->solid[a] || f->turned[a] || f->group[a] == f->group[r] || (gone && read_outside(f, a, f->group[r], f->group[a]))) continue;
      if (gone && form_is_reduction((ir_op)ir_at(f->g, r)->op) && picks(f, f->group[a])) continue;
      try_join(f, f->group[a], f->group[r]);
    }
}

/* The reduction that group i is for, with what it alone pulls; 0: another group. */
static ir_ref reduction_of(const fuser *f, int i) {
  for (int k = 0; k < f->members[i].n; k++)
    if (form_is_reduction((ir_op)ir_at(f->g, f->members[i].at[k])->op)) return f->members[i].at[k];
  return 0;
}

/* Reductions of one value over the same axes join before anything else can put a row between them: they are one pass over it. */
static void join_reductions(fuser *f) {
  const ir_graph *g = f->g;
  for (ir_ref r = 1; r < g->n_nodes && !f->failed; r++)
    for (int k = 0; f->solid[r] && form_is_reduction((ir_op)ir_at(g, r)->op) && k < f->members[f->group[r]].n; k++) {       /* grows */
      ir_ref m = f->members[f->group[r]].at[k];
      for (int i = 0; i < f->reads[m].n; i++) {
        ir_ref a = f->reads[m].at[i];
        bool own = f->solid[a] && f->group[a] != f->group[r] && ir_ops[ir_at(g, a)->op].kind == IR_ELEMENTWISE && !read_outside(f, a, f->group[r], f->group[a]);
        bool shares = false;                             /* it stands between the reduction and a value that others read too */
        for (int j = 0; own && j < f->reads[a].n; j++) shares |= f->readers[f->reads[a].at[j]].n > 1 && count(g, f->reads[a].at[j]) * 8 >= count(g, a);
        if (shares && count(g, a) >= asks(g, r, 0)) try_join(f, f->group[r], f->group[a]);
      }
    }
  for (ir_ref r = 1; r < g->n_nodes && !f->failed; r++)
    for (int i = 1; i < f->readers[r].n; i++)
      for (int k = i - 1; k >= 0 && k >= i - 4; k--) {
        int a = f->group[f->readers[r].at[k]], b = f->group[f->readers[r].at[i]];
        ir_ref x = reduction_of(f, a), y = reduction_of(f, b);
        if (a == b || !x || !y || count(g, r) < 64 || count(g, r) * 8 < asks(g, x, 0) || count(g, r) * 8 < asks(g, y, 0)) continue;
        try_join(f, a, b);
      }
}

/* Joins groups side by side: those that read one large value, and small ones of one shape. */
static void join_neighbours(fuser *f) {
  const ir_graph *g = f->g;
  for (ir_ref r = 1; r < g->n_nodes && !f->failed; r++)
    for (int i = 1; i < f->readers[r].n; i++)
      for (int k = i - 1; k >= 0 && k >= i - 4; k--) {
        ir_ref x = f->readers[r].at[k], y = f->readers[r].at[i];
        if (f->group[x] == f->group[y] || reads_buffers(ir_at(g, x)->op) || reads_buffers(ir_at(g, y)->op)) continue;
        if (count(g, r) < 64 || count(g, r) * 2 < asks(g, x, 0) || count(g, r) * 2 < asks(g, y, 0)) continue;
        try_join(f, f->group[x], f->group[y]);
      }
  ir_ref recent[16] = {0};                             /* the last small rows of different shapes; of reductions that of what is reduced counts */
  for (ir_ref r = 1; r < g->n_nodes && !f->failed; r++) {
    const ir_node *n = ir_at(g, r);
    bool reduces = form_is_reduction((ir_op)n->op);
    if (!f->solid[r] || (!reduces && ir_ops[n->op].kind != IR_ELEMENTWISE)) continue;
    tt_shape s = ir_shape(g, reduces ? n->args[0] : r);
    if (tt_shape_count(&s) > 1024) continue;
    int slot = -1;
    for (int i = 0; i < 16 && recent[i]; i++) {
      const ir_node *m = ir_at(g, recent[i]);
      tt_shape t = ir_shape(g, form_is_reduction((ir_op)m->op) ? m->args[0] : recent[i]);
      if (tt_shape_equal(&s, &t) && reduces == form_is_reduction((ir_op)m->op)) slot = i;
    }
    if (slot >= 0 && f->group[recent[slot]] != f->group[r]) try_join(f, f->group[recent[slot]], f->group[r]);
    if (slot < 0)
      for (slot = 0; slot < 15 && recent[slot];) slot++;
    recent[slot] = r;
  }
}

/* ---- writing out ---- */

static tt_status write_groups(fuser *f, ir_graph *out, tt_error *err) {
  int n = 0, n_edges = 0, cap = 0;
  for (ir_ref r = 0; r < f->g->n_nodes; r++) cap += f->reads[r].n;
  group *groups = calloc((size_t)f->n_groups + 1, sizeof *groups);
  int *number = calloc((size_t)f->n_groups + 1, sizeof *number), *order = calloc((size_t)f->n_groups + 1, sizeof *order);
  int (*edges)[2] = calloc((size_t)cap + 1, sizeof *edges);
  bool ok = groups && number && order && edges;
  for (int i = 0; ok && i < f->n_groups; i++) {
    list rows = {0};
    int n_reads;
    if (!f->members[i].n) continue;
    if (!(ok = rows_of(f, i, -1, &rows, &n_reads))) break;
    bool *result = calloc((size_t)rows.n, sizeof *result);
    if (!(ok = result != NULL)) { free(rows.at); break; }
    int64_t key = 0, heavy = 0;                        /* when its inputs are there: an update that it does besides should not delay it */
    for (int k = 0; k < rows.n; k++) result[k] = f->solid[rows.at[k]] && f->group[rows.at[k]] == i && read_outside(f, rows.at[k], i, i);
    for (int k = 0; k < f->members[i].n; k++) {
      ir_ref r = f->members[i].at[k];
      ir_op op = (ir_op)ir_at(f->g, r)->op;
      if (r > key) key = r;
      if (r > heavy && (reads_buffers(op) || form_is_reduction(op) || op == IR_fold)) heavy = r;
    }
    if (heavy) key = heavy;
    number[i] = n;
    groups[n++] = (group){.rows = rows.at, .result = result, .n = rows.n, .key = key};
  }
  for (ir_ref r = 1; ok && r < f->g->n_nodes; r++)
    for (int i = 0; f->solid[r] && i < f->reads[r].n; i++) {
      ir_ref a = f->reads[r].at[i];
      if (!f->solid[a] || f->group[a] == f->group[r]) continue;
      edges[n_edges][0] = number[f->group[a]], edges[n_edges++][1] = number[f->group[r]];
    }
  tt_status status = TT_OK;
  if (!ok) status = tt_fail(err, TT_NO_MEMORY, "error: no memory to fuse @%s\n  at %u rows\n  fix: free memory", f->g->name, f->g->n_nodes);
  else if (!groups_order(groups, n, (const int (*)[2])edges, n_edges, order)) status = tt_fail(err, TT_INTERNAL, "fuse: kernels of @%s wait for each other", f->g->name);
  else status = groups_emit(f->g, out, groups, n, order, NULL, NULL, err);
  groups_free(groups, n);
  free(number), free(order), free(edges);
  return status;
}

tt_status pass_fuse(const ir_graph *in, ir_graph *out, const pass_options *options, tt_error *err) {
  ir_graph *g = fuse_prepare(in, err);
  if (!g) return err ? err->status : TT_NO_MEMORY;
  fuser f = {.g = g, .narrow = options->bf16};
  tt_status status = TT_OK;
  if (start(&f)) {
    join_scans(&f);
    join_attention(&f);
    join_reductions(&f);
    join_reads(&f, true);
    join_reads(&f, false);
    join_neighbours(&f);
    status = write_groups(&f, out, err);
  } else status = tt_fail(err, TT_NO_MEMORY, "error: no memory to fuse @%s\n  at %u rows\n  fix: free memory", g->name, g->n_nodes);
  finish(&f);
  ir_graph_free(g);
  return status;
}
