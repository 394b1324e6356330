/* lower_choose.c: the decisions of a loop kernel: which axes are one loop, which loop is vectorized, which values are kept in scratch.
 * Each is tried out: the kernel's values are pulled into a kernel that is thrown away, with one variable a loop, and the expressions are
 * looked at. Two neighbouring axes become one loop when then no index needs a quotient or remainder of its variable; a loop costs what
 * its loads and stores cost: contiguous ones little, gathers much, short loops in unused lanes. */
#include <stdlib.h>
#include <string.h>

#include "lower_loop.h"

typedef struct {
  loop_nest ln;
  lp_ref *roots, *stores; int n_roots, n_stores;
  bool *live;                          /* by expression: needed by roots or stores */
} probe;

static void mark(probe *p, lp_ref e) {
  if (!e || p->live[e]) return;
  p->live[e] = true;
  for (int i = 0; i < 3; i++) mark(p, p->ln.k->exprs[e].a[i]);
}

static void probe_end(probe *p) {
  lower_end(p->ln.lx);
  lp_free(p->ln.k);
  free(p->roots);
  free(p->live);
}

static void hook_reductions(loop_nest *ln) {
  for (int i = 0; i < ln->n_reductions; i++) {
    reduction *r = &ln->reductions[i];
    lp_ref index[TT_MAX_RANK];
    r->local = lp_local_add(ln->k, "acc", r->acc, 1);
    nest_index(ln, r->row, true, index);
    lower_hook(ln->lx, r->row, index, nest_cast(ln, lp_get(ln->k, r->local, 0), ir_at(ln->g, r->row)->dtype));
  }
}

static bool probe_start(probe *p, const loop_nest *ln, const loop_group *groups, int n_groups) {
  *p = (probe){.ln = *ln};
  loop_nest *t = &p->ln;
  t->k = lp_new("probe", 1);
  t->lx = t->k ? lower_fork(ln->lx, t->k) : NULL;
  int n_results = lower_n_results(ln->lx);
  p->roots = calloc(2 * (size_t)(ln->n_reductions + n_results + 8), sizeof *p->roots);
  if (!t->lx || !p->roots) {
    probe_end(p);
    return lower_fail(ln->lx, "no memory", lower_first(ln->lx)), false;
  }
  p->stores = p->roots + ln->n_reductions + n_results + 8;
  memcpy(t->groups, groups, (size_t)n_groups * sizeof *groups);
  t->n_groups = n_groups;
  for (int i = 0; i < ln->space.rank; i++) t->at[i] = lp_int(t->k, 0);
  t->place = t->lane = t->block = lp_int(t->k, 0);
  for (int i = 0; i < n_groups; i++) {
    t->groups[i].var = lp_var_add(t->k, "x", groups[i].extent);
    nest_set(t, i, lp_var(t->k, t->groups[i].var));
  }
  hook_reductions(t);
  if (ln->core) {
    nest_special_roots(t, p->roots, &p->n_roots, p->stores, &p->n_stores);
  } else {
    for (int i = 0; i < ln->n_reductions; i++) p->roots[p->n_roots++] = nest_term(t, &ln->reductions[i]);
    for (int i = 0; i < n_results; i++) {
      ir_ref r = lower_result(ln->lx, i);
      const down_sum *d = nest_down(ln, r);
      lp_ref index[TT_MAX_RANK];
      if (d) {
        p->roots[p->n_roots++] = lower_pull(t->lx, d->base, t->at);
        p->stores[p->n_stores++] = nest_down_place(t, d);
        continue;
      }
      nest_index(t, r, nest_fits(t, r, true), index);
      p->roots[p->n_roots++] = lower_pull(t->lx, r, index);
      p->stores[p->n_stores++] = lower_linear(t->lx, r, index);
    }
  }
  p->live = calloc(t->k->n_exprs, sizeof *p->live);
  bool failed = !p->live || lower_failed(t->lx);
  if (failed) {
    probe_end(p);
    return lower_fail(ln->lx, "its values cannot be made", lower_first(ln->lx)), false;
  }
  for (int i = 0; i < p->n_roots; i++) mark(p, p->roots[i]);
  for (int i = 0; i < p->n_stores; i++) mark(p, p->stores[i]);
  return true;
}

static bool is_index_op(const lp_expr *x, ir_op op) { return x->kind == LX_OP && x->op == op && x->dtype == TT_I64; }

/* Does anything need a quotient of the variable of this group? */
static bool divides(const probe *p, int group) {
  const lp_kernel *k = p->ln.k;
  for (uint32_t e = 1; e < k->n_exprs; e++) {
    if (!p->live[e] || (!is_index_op(&k->exprs[e], IR_div) && !is_index_op(&k->exprs[e], IR_fmod))) continue;
    if (lp_depends(k, e, p->ln.groups[group].var)) return true;
  }
  return false;
}

static bool join_groups(loop_nest *ln) {
  for (int i = ln->n_groups - 2; i >= 0; i--) {
    loop_group groups[TT_MAX_RANK];
    if (ln->groups[i].reduced != ln->groups[i + 1].reduced) continue;
    if (ln->n_downs && (ln->groups[i].axes[0] < ln->n_lead) != (ln->groups[i + 1].axes[0] < ln->n_lead)) continue;
    memcpy(groups, ln->groups, sizeof groups);
    loop_group *a = &groups[i], *b = &groups[i + 1];
    memcpy(a->axes + a->n, b->axes, (size_t)b->n * sizeof *b->axes);
    a->n += b->n;
    a->extent *= b->extent;
    memmove(b, b + 1, (size_t)(ln->n_groups - i - 2) * sizeof *b);
    probe p;
    if (!probe_start(&p, ln, groups, ln->n_groups - 1)) return false;
    if (!divides(&p, i)) {
      memcpy(ln->groups, groups, sizeof groups);
      ln->n_groups--;
    }
    probe_end(&p);
  }
  return true;
}

static bool is_costly(ir_op op) { return pass_op_cost(op) >= PASS_COSTLY; }

enum { COLUMNS = 8, FEWEST = 4 };      /* elements of the other axis in a tile */

/* Where the elements of an index have a stride along group `vec`: a group along which they are contiguous, so that the two make tiles
 * (or, of a reduced group, steps of some columns); -1: none. */
static int group_across(const loop_nest *ln, lp_ref index, int vec) {
  int64_t by;
  if (!lp_affine(ln->k, index, ln->groups[vec].var, &by) || by == 0 || by == 1 || ln->groups[vec].reduced) return -1;
  for (int i = ln->n_groups - 1; i >= 0; i--) {
    if (i == vec || ln->groups[i].extent < FEWEST || !lp_affine(ln->k, index, ln->groups[i].var, &by) || by != 1) continue;
    return ln->groups[i].reduced || nest_may_tile(ln) ? i : -1;
  }
  return -1;
}

static bool fits_tile(tt_dtype t) { return tt_dtype_size(t) == 4 || tt_dtype_size(t) == 8; }

/* Columns in a step: the largest divisor that is not too many; 0: rows so long are better walked along. */
static int step_of(int64_t extent) {
  if (extent > 48) return 0;
  for (int n = COLUMNS; n >= FEWEST; n--)
    if (extent % n == 0) return n;
  return 0;
}

static bool may_step(const loop_nest *ln, int group) { return !ln->groups[group].reduced || ln->groups[group].extent <= 16 || step_of(ln->groups[group].extent); }

/* A kernel that is over within microseconds, with exp or the like along its columns: unrolled whole, cross entropy of ten classes takes ten times
 * as long to compile as other kernels. A step of columns is a loop's body then, and one vector stands across rows. (Of many rows, unrolled
 * ones are up to a quarter faster.) */
static bool is_brief(const loop_nest *ln, const probe *p) {
  int64_t elements = 1;
  bool costly = false;
  for (int i = 0; i < ln->n_groups; i++) elements *= ln->groups[i].extent;
  for (uint32_t e = 1; e < p->ln.k->n_exprs; e++) costly |= p->live[e] && p->ln.k->exprs[e].kind == LX_OP && is_costly((ir_op)p->ln.k->exprs[e].op);
  return costly && elements <= ln->grain;
}

/* Sets across, columns and tile for the chosen vectorized group. */
static void choose_tile(loop_nest *ln, const probe *p) {
  const loop_nest *t = &p->ln;
  int across = -1;
  int64_t size = 0;
  for (uint32_t e = 1; e < t->k->n_exprs && across < 0; e++) {
    const lp_expr *x = &t->k->exprs[e];
    if (!p->live[e] || x->kind != LX_LOAD || x->a[1] || !fits_tile(x->dtype)) continue;
    across = group_across(t, x->a[0], ln->vec);
    size = (int64_t)tt_dtype_size(x->dtype);
  }
  for (int i = 0; i < p->n_stores && across < 0 && !ln->core; i++) {
    tt_dtype type = ir_at(ln->g, lower_result(ln->lx, i))->dtype;
    if (!fits_tile(type)) continue;
    across = group_across(t, p->stores[i], ln->vec);
    size = (int64_t)tt_dtype_size(type);
  }
  if (across < 0 || !may_step(ln, across)) return;
  if (ln->groups[across].reduced) {
    ln->columns = across, ln->tile = step_of(ln->groups[across].extent);      /* up to 16 are unrolled whole, unless the kernel is brief */
    ln->brief = ln->tile && is_brief(ln, p);
    int64_t lanes = ln->lx->cpu->vector_bytes / 4;
    if (ln->brief && ln->lanes > lanes) ln->lanes = lanes;
    return;
  }
  int64_t lanes = 64 / size;                                  /* a line */
  while (lanes > ln->groups[ln->vec].extent) lanes /= 2;
  if (lanes * size < 16) return;
  ln->across = across, ln->lanes = lanes;
  ln->tile = ln->groups[across].extent < COLUMNS ? FEWEST : COLUMNS;
}

/* Cost of one element when this group is vectorized, in operations of a machine vector. */
static double cost_of(const probe *p, int group) {
  const loop_nest *ln = &p->ln;
  const lp_kernel *k = ln->k;
  const loop_group *v = &ln->groups[group];
  double lanes = 1, machine = (double)ln->lx->cpu->vector_bytes / 4;
  while (lanes < (double)ln->lanes && lanes < (double)v->extent) lanes *= 2;
  double units = lanes > machine ? lanes / machine : 1, total = 0;
  for (uint32_t e = 1; e < k->n_exprs; e++) {
    const lp_expr *x = &k->exprs[e];
    int64_t by;
    if (!p->live[e] || !lp_depends(k, e, v->var)) continue;
    if (x->kind == LX_LOAD) {
      bool affine = lp_affine(k, x->a[0], v->var, &by);
      int across = x->a[1] || !fits_tile(x->dtype) ? -1 : group_across(ln, x->a[0], group);
      bool tiles = across >= 0 && may_step(ln, across);
      total += affine && by == 0 ? 0.5 : affine && by == 1 ? units : tiles || (affine && by == -1) ? 3 * units : lanes;
    } else if (x->kind == LX_OP && x->dtype != TT_I64) {
      total += is_costly(x->op) ? 12 * units : units;
    } else if (x->kind == LX_PHILOX) {
      total += 20 * units;
    }
  }
  double depth = ln->n_reduced > 0 ? (double)ln->n_reduced : 1;
  for (int i = 0; i < p->n_stores; i++) {
    bool affine, full = ln->core || !nest_fits(ln, lower_result(ln->lx, i), true);
    int64_t by;
    if (v->reduced && !full) continue;
    affine = lp_affine(k, p->stores[i], v->var, &by);
    int across = ln->core || !fits_tile(ir_at(ln->g, lower_result(ln->lx, i))->dtype) ? -1 : group_across(ln, p->stores[i], group);
    total += (affine && by == 1 ? units : across >= 0 && may_step(ln, across) ? 3 * units : 1.5 * lanes) / (full ? 1 : depth);
  }
  double trips = ((double)v->extent + lanes - 1) / lanes;
  trips = (double)(int64_t)trips;
  if (v->reduced) total += 10.0 * ln->n_reductions / (trips * depth / (double)v->extent);       /* lanes are summed at the end of a row */
  return total * trips / (double)v->extent;
}

bool nest_choose(loop_nest *ln) {
  if (!join_groups(ln)) return false;
  probe p;
  if (!probe_start(&p, ln, ln->groups, ln->n_groups)) return false;
  p.ln.n_reduced = 1;
  for (int i = 0; i < ln->n_groups; i++)
    if (ln->groups[i].reduced) p.ln.n_reduced *= ln->groups[i].extent;
  double best = 0;
  for (int i = ln->n_groups - 1; i >= 0; i--) {
    if ((ln->core && ln->groups[i].reduced) || (ln->n_downs && ln->groups[i].axes[0] < ln->n_lead)) continue;
    double cost = cost_of(&p, i);
    bool innermost = ln->groups[i].axes[ln->groups[i].n - 1] == ln->space.rank - 1;
    if (!innermost) cost *= 1.05;
    if (ln->vec < 0 || cost < best) ln->vec = i, best = cost;
  }
  for (uint32_t e = 1; ln->vec >= 0 && e < p.ln.k->n_exprs; e++) {
    const lp_expr *x = &p.ln.k->exprs[e];
    int64_t by = 0;
    if (p.live[e] && x->kind == LX_LOAD && lp_affine(p.ln.k, x->a[0], p.ln.groups[ln->vec].var, &by)) ln->gathers |= by > 1 || by < -1;
  }
  if (ln->vec >= 0 && !ln->core && !ln->n_downs) choose_tile(ln, &p);
  probe_end(&p);
  return true;
}

/* Does stage `number` (n_stages: the stores of shape S) want row r at the index of S? */
static void pull_stage(loop_nest *t, int number) {
  lower_forget(t->lx);
  for (int i = 0; i < t->n_reductions; i++)
    if (t->reductions[i].stage == number) nest_term(t, &t->reductions[i]);
  for (int i = 0; number == t->n_stages && i < lower_n_results(t->lx); i++) {
    ir_ref r = lower_result(t->lx, i);
    lp_ref index[TT_MAX_RANK];
    const down_sum *d = nest_down(t, r);
    if (nest_fits(t, r, true)) continue;
    if (!d) nest_index(t, r, false, index);
    if (d) lower_pull(t->lx, d->base, t->at);
    else lower_pull(t->lx, r, index);
  }
}

enum { KEEP_BYTES = 256 << 10 };

bool nest_keep(loop_nest *ln) {
  ir_ref first = lower_first(ln->lx), last = lower_last(ln->lx);
  if (ln->core || ln->n_stages == 0) return true;
  bool any = false;
  for (ir_ref r = first; r <= last; r++) any |= lower_inside(ln->lx, r) && is_costly(ir_at(ln->g, r)->op);
  if (!any) return true;
  probe p;
  if (!probe_start(&p, ln, ln->groups, ln->n_groups)) return false;
  int *since = malloc((last - first + 1) * sizeof *since);       /* first stage that wants it; -1: none */
  bool ok = since;
  for (ir_ref r = first; ok && r <= last; r++) since[r - first] = -1;
  int64_t bytes = 0;
  for (int s = 0; ok && s <= ln->n_stages; s++) {
    pull_stage(&p.ln, s);
    for (ir_ref r = first; r <= last; r++) {
      const ir_node *n = ir_at(ln->g, r);
      lp_ref index[TT_MAX_RANK];
      if (!lower_inside(ln->lx, r) || !is_costly(n->op) || !nest_fits(ln, r, false) || nest_fits(ln, r, true)) continue;
      nest_index(&p.ln, r, false, index);
      if (!lower_pulled_at(p.ln.lx, r, index)) continue;
      if (since[r - first] < 0) {
        since[r - first] = s;
        continue;
      }
      bool is_known = false;
      for (int i = 0; i < ln->n_kept; i++) is_known |= ln->kept[i].row == r;
      bool blocks = ln->columns >= 0 && ln->chunk % ln->lanes == 0 && ln->groups[ln->vec].extent % ln->chunk == 0;      /* nest_tasks goes by vectors then */
      int64_t count = ln->n_reduced * (blocks ? ln->lanes : ln->chunk), size = count * (int64_t)tt_dtype_size(n->dtype);
      if (is_known || ln->n_kept == 8 || bytes + size > KEEP_BYTES) continue;
      bytes += size;
      ln->kept[ln->n_kept++] = (kept_row){r, since[r - first], lp_buffer_add(ln->k, n->name ? n->name : "row", n->dtype, count, true, true)};
    }
  }
  free(since);
  probe_end(&p);
  if (!ok) lower_fail(ln->lx, "no memory", first);
  return ok;
}
