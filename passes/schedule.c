/* schedule.c: a kernel for every computed row, an order, and a plan for each kernel.
 *
 * Every output and every assign first gets a computed row of its own: where the value is an input, a param, a constant or wanted twice,
 * a row `stop_gradient(value)` copies it. A row that fuse left out becomes a kernel of one op (with the constants that it reads).
 *
 * An assign is done in place: the kernel of its value writes into the param. So all kernels that read the param must run before that
 * kernel, and it must read the param itself only where it writes. Those are edges beside the ones that operands make. Where they make
 * a cycle (two params that are swapped, say), the value is copied by one more kernel, which nobody waits for, and the edges end there.
 *
 * Plan: kind (0 loop, 1 contract, 2 call); of a loop space and reduce; lanes: logical vector width in elements, some machine vectors of the type
 * that most of the work is done in; grain: elements of the space that a task should do. All follow from shapes, types and the CPU's vectors. */
#include "form.h"

#include <stdlib.h>
#include <string.h>

static tt_status no_memory(const ir_graph *g, tt_error *err) {
  return tt_fail(err, TT_NO_MEMORY, "error: no memory to schedule @%s\n  at %u rows\n  fix: free memory or make the model smaller", g->name, g->n_nodes);
}

static ir_ref copy_row(ir_graph *g, ir_ref r) {
  uint32_t origin = g->at_origin;
  g->at_origin = ir_at(g, r)->origin;
  g->at_region = 0;
  ir_ref copy = ir_emit(g, IR_stop_gradient, &r, 1, NULL, 0);
  g->at_origin = origin;
  return copy;
}

/* A constant that is one number is free to whoever reads it, but computed nowhere. */
static bool is_leaf(const ir_graph *g, ir_ref r) { return form_is_leaf(g, r) || ir_at(g, r)->op == IR_const; }

/* `in` again, with a row of its own for every output and assign; copies[i]: kernels that copy the value of effect i besides. */
static ir_graph *own_rows(const ir_graph *in, const int *copies, tt_error *err) {
  ir_graph *g = ir_graph_new(in->name);
  bool *live = ir_live(in);
  ir_ref *map = calloc(in->n_nodes, sizeof *map);
  bool *taken = calloc(in->n_nodes, sizeof *taken);
  if (!g || !live || !map || !taken) {
    ir_graph_free(g), free(live), free(map), free(taken);
    no_memory(in, err);
    return NULL;
  }
  g->plain = true, g->called = in->called;
  for (uint32_t k = 1; k < in->n_kernels; k++) ir_kernel_add(g, in->kernels[k].name);
  for (ir_ref r = 1; r < in->n_nodes && !g->error.status; r++) {
    if (!live[r] || ir_at(in, r)->op == IR_assign) continue;
    const ir_kernel *k = &in->kernels[ir_at(in, r)->region];
    g->at_region = ir_at(in, r)->op == IR_const && k->first == k->last ? 0 : ir_at(in, r)->region;      /* a number alone is no kernel */
    map[r] = ir_rebuild(in, g, r, map);
  }
  for (uint32_t i = 0; i < in->n_effects && !g->error.status; i++) {
    ir_ref value = ir_at(in, in->effects[i])->args[1], to = map[value];
    if (is_leaf(in, value) || taken[value]) to = copy_row(g, to);
    for (int k = 0; k < copies[i]; k++) to = copy_row(g, to);
    taken[value] = true;
    ir_ref args[2] = {map[ir_at(in, in->effects[i])->args[0]], to};
    g->at_region = 0;
    g->at_origin = ir_origin_copy(g, in, ir_at(in, in->effects[i])->origin);
    map[in->effects[i]] = ir_emit(g, IR_assign, args, 2, NULL, 0);
    g->at_origin = 0;
  }
  for (uint32_t i = 0; i < in->n_outputs && !g->error.status; i++) {
    ir_ref value = in->outputs[i].value, to = map[value];
    if (is_leaf(in, value) || taken[value]) to = copy_row(g, to);
    taken[value] = true;
    ir_output_add(g, in->outputs[i].name, to);
  }
  free(live), free(map), free(taken);
  if (!g->error.status) return g;
  tt_fail(err, g->error.status, "%s", g->error.message);
  ir_graph_free(g);
  return NULL;
}

/* Row r and the free rows that it reads, ascending. */
static int closure(const ir_graph *g, ir_ref r, ir_ref *rows, int cap) {
  int n = 0;
  rows[n++] = r;
  bool buffers = ir_ops[ir_at(g, r)->op].kind == IR_CONTRACTION || ir_at(g, r)->op == IR_argsort || ir_at(g, r)->op == IR_scan;   /* these read buffers only */
  for (int i = 0; i < n && !buffers; i++)
    for (uint32_t k = 0; k < ir_at(g, rows[i])->n_args; k++) {
      ir_ref a = ir_at(g, rows[i])->args[k];
      bool known = !form_is_free(g, a);
      for (int j = 0; j < n; j++) known |= rows[j] == a;
      if (!known && n < cap) rows[n++] = a;
    }
  for (int i = 1; i < n; i++)
    for (int j = i; j > 0 && rows[j - 1] > rows[j]; j--) {
      ir_ref t = rows[j];
      rows[j] = rows[j - 1], rows[j - 1] = t;
    }
  return n;
}

/* Adds a group for every live computed row without a region. Free rows get one where an output, assign, contraction or sort reads them. */
static bool add_single(const ir_graph *g, group **groups, int *n) {
  bool *live = ir_live(g), *wanted = calloc(g->n_nodes, sizeof *wanted);
  uint32_t singles = 0;
  ir_ref max_args = 0;
  if (!live || !wanted) return free(live), free(wanted), false;
  for (uint32_t i = 0; i < g->n_outputs; i++) wanted[g->outputs[i].value] = true;
  for (ir_ref r = 1; r < g->n_nodes; r++) {
    const ir_node *x = ir_at(g, r);
    if (!live[r]) continue;
    bool buffers = x->op == IR_assign || ir_ops[x->op].kind == IR_CONTRACTION || x->op == IR_argsort || x->op == IR_scan;
    for (uint32_t k = 0; k < x->n_args; k++)
      if (buffers && ir_at(g, x->args[k])->region != x->region) wanted[x->args[k]] = true;
      else if (buffers && !x->region) wanted[x->args[k]] = true;
    if (x->n_args > max_args) max_args = x->n_args;
    singles++;
  }
  group *all = realloc(*groups, ((size_t)*n + singles + 1) * sizeof *all);
  int cap = (int)max_args * 4 + 64 + (int)singles;
  ir_ref *rows = malloc((size_t)cap * sizeof *rows);
  bool ok = all && rows;
  if (all) *groups = all;
  for (ir_ref r = 1; ok && r < g->n_nodes; r++) {
    const ir_node *x = ir_at(g, r);
    if (!live[r] || x->region || x->op == IR_assign || form_is_leaf(g, r) || (form_is_free(g, r) && !wanted[r])) continue;
    int m = x->op == IR_scan ? 0 : closure(g, r, rows, cap);
    bool again = false;
    for (ir_ref s = 1; x->op == IR_scan && s < r && !again; s++) again = live[s] && !ir_at(g, s)->region && ir_same_scan(g, s, r);
    if (again) continue;                               /* all results of a scan are one kernel */
    for (ir_ref s = r; x->op == IR_scan && s < g->n_nodes && m < cap; s++)
      if (live[s] && !ir_at(g, s)->region && ir_same_scan(g, s, r)) rows[m++] = s;
    group *one = &all[(*n)++];
    *one = (group){.rows = malloc((size_t)m * sizeof(ir_ref)), .result = calloc((size_t)m, 1), .n = m, .key = r};
    if (!(ok = one->rows && one->result)) break;
    memcpy(one->rows, rows, (size_t)m * sizeof *rows);
    for (int i = 0; i < m; i++) one->result[i] = rows[i] == r || x->op == IR_scan;
  }
  free(live), free(wanted), free(rows);
  return ok;
}

/* ---- order ---- */

typedef struct { int (*at)[2]; int n, cap; } edge_list;
static bool edge(edge_list *e, int from, int to) {
  if (from == to) return true;
  if (e->n == e->cap) {
    int cap = e->cap ? 2 * e->cap : 256;
    void *p = realloc(e->at, (size_t)cap * sizeof *e->at);
    if (!p) return false;
    e->at = p, e->cap = cap;
  }
  e->at[e->n][0] = from, e->at[e->n++][1] = to;
  return true;
}

/* The order of groups. copies[i] is raised where effect i cannot be in place; *again is set then. */
static bool order_groups(const ir_graph *g, const group *groups, int n, int *order, int *copies, bool *again) {
  int *maker = malloc(g->n_nodes * sizeof *maker);     /* group that makes a row for others; -1 */
  edge_list e = {0};
  bool ok = maker != NULL;
  for (ir_ref r = 0; ok && r < g->n_nodes; r++) maker[r] = -1;
  for (int i = 0; ok && i < n; i++)
    for (int k = 0; k < groups[i].n; k++)
      if (groups[i].result[k]) maker[groups[i].rows[k]] = i;
  /* reads: every (group, row read from outside) */
  edge_list reads = {0};
  for (int i = 0; ok && i < n; i++)
    for (int k = 0; ok && k < groups[i].n; k++) {
      const ir_node *r = ir_at(g, groups[i].rows[k]);
      for (uint32_t j = 0; ok && j < r->n_args; j++) {
        ir_ref a = r->args[j];
        bool inside = false;
        for (int m = 0; m < k && !inside; m++) inside = groups[i].rows[m] == a;
        if (inside) continue;
        if (maker[a] >= 0) ok = edge(&e, maker[a], i);
        else if (ir_at(g, a)->op == IR_param) ok = edge(&reads, i, -1 - (int)a);
      }
    }
  *again = false;
  for (uint32_t i = 0; ok && i < g->n_effects; i++) {
    ir_ref p = ir_at(g, g->effects[i])->args[0], value = ir_at(g, g->effects[i])->args[1];
    int writer = maker[value], before = e.n;
    const group *w = &groups[writer];
    bool fits = form_in_place(g, w->rows, w->n, w->result, value, p);
    for (int k = 0; ok && k < reads.n; k++)
      if (reads.at[k][1] == -1 - (int)p) ok = edge(&e, reads.at[k][0], writer);
    if (ok && fits && (e.n == before || groups_order(groups, n, e.at, e.n, order))) continue;
    e.n = before;
    copies[i]++;
    *again = true;
  }
  ok = ok && groups_order(groups, n, e.at, e.n, order);
  free(maker), free(e.at), free(reads.at);
  return ok;
}

/* ---- plan ---- */


enum { RANDOM_LANES = 64 };              /* two times what a vector of four counters of Philox gives: two chains of rounds, and vectors of AVX-512 full */

/* Bytes of a lane while it is computed: halves are f32 then. */
static int64_t work_bytes(tt_dtype t) { return t == TT_F16 || t == TT_BF16 ? 4 : (int64_t)tt_dtype_size(t); }

void pass_plan_kernel(const pass_options *options, const group *x, const ir_graph *in, ir_graph *out, uint32_t region) {
  form f;
  if (!form_of(in, x->rows, x->n, x->result, &f, NULL)) {
    tt_bug(out, "kernel @%s is none: %s", out->kernels[region].name, f.why);
    return;
  }
  int64_t vector = options->vector_bytes > 0 ? options->vector_bytes : 32, values[TT_MAX_RANK];
  double cost = 0, by_size[9] = {0};
  bool random = false;
  for (int i = 0; i < x->n; i++) {
    const ir_node *r = ir_at(in, x->rows[i]);
    tt_shape s = ir_shape(in, x->rows[i]);
    double c = pass_op_cost((ir_op)r->op);
    if (tt_shape_count(&s) <= 1 && x->n > 1) continue;
    int64_t size = work_bytes((tt_dtype)r->dtype);
    for (uint32_t k = 0; k < r->n_args; k++)
      if (work_bytes((tt_dtype)ir_at(in, r->args[k])->dtype) > size && ir_ops[r->op].gives_bool) size = work_bytes((tt_dtype)ir_at(in, r->args[k])->dtype);
    by_size[size] += c + 0.25;
    cost += c;
    random |= r->op == IR_random;
  }
  int64_t work = 4;
  for (int64_t i = 1; i <= 8; i++)
    if (by_size[i] > by_size[work]) work = i;
  int64_t kind = f.kind;
  ir_kernel_plan(out, region, "kind", &kind, 1);
  if (f.kind != FORM_LOOP) return;       /* a contraction's tile follows from its strides: codegen/contract.c */
  for (int i = 0; i < f.space.rank; i++) values[i] = f.space.dim[i];
  ir_kernel_plan(out, region, "space", values, (uint32_t)f.space.rank);
  for (int i = 0; i < f.n_reduce; i++) values[i] = f.reduce[i];
  ir_kernel_plan(out, region, "reduce", values, (uint32_t)f.n_reduce);
  int64_t lanes = random ? RANDOM_LANES : vector / work * (cost > 40 ? 2 : cost <= 3 && f.n_reduce > 0 ? 8 : 4);
  int64_t grain = (int64_t)(131072 / (4 + cost));
  if (grain < 1024) grain = 1024;
  ir_kernel_plan(out, region, "lanes", &lanes, 1);
  ir_kernel_plan(out, region, "grain", &grain, 1);
}

static void plan_kernel(void *user, const group *x, const ir_graph *in, ir_graph *out, uint32_t region) { pass_plan_kernel(user, x, in, out, region); }

tt_status pass_schedule(const ir_graph *in, ir_graph *out, const pass_options *options, tt_error *err) {
  int *copies = calloc(in->n_effects + 1, sizeof *copies);
  if (!copies) return no_memory(in, err);
  tt_status status = TT_OK;
  for (bool again = true; again && status == TT_OK;) {
    ir_graph *g = own_rows(in, copies, err);
    if (!g) {
      status = err && err->status ? err->status : TT_NO_MEMORY;
      break;
    }
    int n = 0;
    group *groups = groups_of(g, &n);
    int *order = NULL;
    if (!groups || !add_single(g, &groups, &n) || !(order = calloc((size_t)n + 1, sizeof *order))) status = no_memory(in, err);
    else if (!order_groups(g, groups, n, order, copies, &again)) status = tt_fail(err, TT_INTERNAL, "schedule: kernels of @%s wait for each other", in->name);
    else if (!again) status = groups_emit(g, out, groups, n, order, plan_kernel, (void *)options, err);
    groups_free(groups, n);
    free(order);
    ir_graph_free(g);
  }
  free(copies);
  return status;
}
