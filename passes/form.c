/* form.c: may these rows be one kernel? It answers with the kernel's space, or with the reason why not.
 *
 * A loop kernel runs over a space S. With reductions over the axes R of S, the other axes are P: a reduction's value belongs to one
 * index of P, lives in a register and is good for nothing else. So the rule to check is where every row is read, given that results
 * are read at their own index. Demands flow from the results down:
 *
 *     %m = amax(%x, axes=[1]) : f32[64]                      wanted at axis 0 of S: fine, that is P
 *     %b = broadcast(%m, shape=[64,10], dims=[0])            wanted at axes 0, 1 of S
 *     %y = sub(%x, %b) : f32[64,10]                          a result of shape S: wanted at axes 0, 1 of S
 *
 * Movement that does more than rename axes (slices, merges of axes, gathers) makes a demand "lost" along the axes that it touches: elementwise rows
 * are computed wherever they are wanted, reductions only at P. So the entry of a row that a gather picks may follow from the row's sums.
 *
 * Sums down the rows of the space, of blocks of its leading axes, are results that nobody in the kernel reads: what each row adds to them is wanted
 * at the index of S, and they need no stage of their own. So a layer norm's gradients of gain and bias come from the pass that makes that of x.
 *
 * In a contraction's kernel the rows above the contraction are renamed by permute and reshape only, and every one of them must have
 * one view of it, so that each element of the result has one place. */
#include "form.h"

#include <stdlib.h>
#include <string.h>

enum { DEMANDS = 12, NO_AXIS = -1, LOST = -2 };
typedef struct { bool lost; int8_t ax[TT_MAX_RANK]; uint64_t tag; double evals; } demand;    /* ax: axis of S, NO_AXIS where the dimension is 1; lost: some are LOST */
typedef struct { demand d[DEMANDS]; int n, level; uint32_t stages; } state;

typedef struct {
  const ir_graph *g;
  const ir_ref *rows;
  int n;
  const bool *result;
  form *f;
  state *s;
  ir_ref *down;                      /* of each row that is a sum down the rows: what it sums; else 0 */
  int8_t p[TT_MAX_RANK];             /* P: axes of S */
  int n_p;
  double count_s, count_p;
} checker;

bool form_is_reduction(ir_op op) { return ir_ops[op].kind == IR_REDUCTION && op != IR_cumsum; }

bool form_is_free(const ir_graph *g, ir_ref r) {
  const ir_node *n = ir_at(g, r);
  double v;
  if (n->op == IR_iota) return true;
  return (n->op == IR_const || n->op == IR_broadcast) && ir_is_splat(g, r, &v);
}

bool form_is_leaf(const ir_graph *g, ir_ref r) {
  int op = ir_at(g, r)->op;
  return op == IR_input || op == IR_param || (op == IR_const && !form_is_free(g, r));
}

static int position(const ir_ref *rows, int n, ir_ref r) {
  int lo = 0, hi = n;
  while (lo < hi) {
    int mid = (lo + hi) / 2;
    if (rows[mid] < r) lo = mid + 1;
    else hi = mid;
  }
  return lo < n && rows[lo] == r ? lo : -1;
}

bool form_down(const ir_graph *g, const ir_ref *rows, int n, ir_ref r, pass_down *d) {
  const ir_node *x = ir_at(g, r);
  if (x->op != IR_sum || !pass_down_of(g, r, position(rows, n, x->args[0]) >= 0, d)) return false;
  for (int i = 0; i < n; i++)
    for (uint32_t k = 0; rows[i] > r && k < ir_at(g, rows[i])->n_args; k++)
      if (ir_at(g, rows[i])->args[k] == r) return false;
  return true;
}

static bool no(checker *c, const char *why) { return c->f->why = why, false; }

static double count(const ir_graph *g, ir_ref r) {
  tt_shape s = ir_shape(g, r);
  return (double)tt_shape_count(&s);
}

static uint64_t mix(uint64_t a, uint64_t b) {
  a = (a ^ b) * 0x9E3779B97F4A7C15;
  return a ^ a >> 29;
}

/* Axes of S for the axes of a row whose dimensions, but for ones, are those of these axes of S. */
static bool match(const checker *c, const ir_node *r, const int8_t *axes, int n, int8_t *ax) {
  int k = 0;
  for (int i = 0; i < r->rank; i++) {
    ax[i] = -1;
    if (r->dim[i] == 1) continue;
    while (k < n && c->f->space.dim[axes[k]] == 1) k++;
    if (k == n || c->f->space.dim[axes[k]] != r->dim[i]) return false;
    ax[i] = axes[k++];
  }
  while (k < n && c->f->space.dim[axes[k]] == 1) k++;
  return k == n;
}

/* The index at which a row of this shape can be a result: 'S', 'P' or 0. Rows as large as both belong to P. */
static char canonical(const checker *c, const ir_node *r, int8_t *ax) {
  static const int8_t all[TT_MAX_RANK] = {0, 1, 2, 3, 4, 5, 6, 7};
  if (c->n_p < c->f->space.rank && match(c, r, c->p, c->n_p, ax)) return 'P';
  return match(c, r, all, c->f->space.rank, ax) ? 'S' : 0;
}

static bool same_axes(const ir_node *r, const int8_t *a, const int8_t *b) {
  for (int i = 0; i < r->rank; i++)
    if (r->dim[i] != 1 && a[i] != b[i]) return false;
  return true;
}

static void lose(demand *d) { memset(d->ax, LOST, sizeof d->ax); }

/* Row number i is wanted. */
static bool want(checker *c, int i, demand d) {
  state *s = &c->s[i];
  const ir_node *r = ir_at(c->g, c->rows[i]);
  int8_t ax[TT_MAX_RANK];
  d.lost = false;
  for (int k = 0; k < r->rank; k++)
    if (r->dim[k] == 1) d.ax[k] = NO_AXIS;
    else d.lost |= d.ax[k] == LOST;
  if (c->f->n_reduce && canonical(c, r, ax) == 'P' && same_axes(r, ax, d.ax)) d.evals = c->count_p;
  for (int k = 0; k < s->n; k++) {
    if (s->d[k].lost != d.lost) continue;
    if (same_axes(r, s->d[k].ax, d.ax) && (!d.lost || s->d[k].tag == d.tag)) {
      if (d.evals > s->d[k].evals) s->d[k].evals = d.evals;
      return true;
    }
  }
  if (s->n < DEMANDS) return s->d[s->n++] = d, true;
  for (int k = 0; d.lost && k < s->n; k++)
    if (s->d[k].lost) return lose(&s->d[k]), s->d[k].evals += d.evals, true;
  return no(c, "a row is read at too many different indices");
}

/* What row i, wanted as d, wants of its argument k. */
static demand below(const checker *c, int i, int k, const demand *d) {
  const ir_node *r = ir_at(c->g, c->rows[i]), *a = ir_at(c->g, r->args[k]);
  demand to = *d;
  const int64_t *list;
  int count_;
  to.tag = mix(d->tag, c->rows[i]);
  memset(to.ax, NO_AXIS, sizeof to.ax);
  switch (r->op) {
  case IR_random: return to;                          /* scalars */
  case IR_permute:
    list = ir_ints(r, "perm", &count_);
    for (int j = 0; j < r->rank; j++) to.ax[list[j]] = d->ax[j];
    return to;
  case IR_broadcast:
    list = ir_ints(r, "dims", &count_);
    for (int j = 0; j < count_; j++) to.ax[j] = d->ax[list[j]];
    return to;
  case IR_reshape: {                                  /* what stays at both ends */
    int j = 0, m = 0, j_end = r->rank, m_end = a->rank;
    for (int last = 0; last < 2; last++)
      while (j < j_end && m < m_end) {
        int x = last ? j_end - 1 : j, y = last ? m_end - 1 : m;
        if (r->dim[x] == 1) j += !last, j_end -= last;
        else if (a->dim[y] == 1) m += !last, m_end -= last;
        else if (r->dim[x] != a->dim[y]) break;
        else to.ax[y] = d->ax[x], j += !last, j_end -= last, m += !last, m_end -= last;
      }
    for (; m < m_end; m++) to.ax[m] = LOST;
    return to;
  }
  case IR_slice: case IR_dynamic_slice: case IR_concat: case IR_pad: case IR_gather:
    if (r->op == IR_pad && k == 1) return to;
    if (r->op == IR_dynamic_slice && k == 1) return lose(&to), to;
    memcpy(to.ax, d->ax, sizeof to.ax);
    if (r->op == IR_gather && k == 1) return to;
    for (int j = 0; j < r->rank; j++)
      if (r->dim[j] != a->dim[j] || (r->op == IR_gather && j == ir_int(r, "axis"))) to.ax[j] = LOST;
    if (r->op == IR_pad && count(c->g, c->rows[i]) > 0) to.evals *= count(c->g, r->args[0]) / count(c->g, c->rows[i]);      /* not in the padding */
    return to;
  case IR_reverse:
    memcpy(to.ax, d->ax, sizeof to.ax);
    list = ir_ints(r, "axes", &count_);
    for (int j = 0; j < count_; j++) to.ax[list[j]] = LOST;
    return to;
  case IR_unfold:
    for (int j = 0; j < a->rank; j++) to.ax[j] = (int8_t)(j == ir_int(r, "axis") ? LOST : d->ax[j]);
    return to;
  default:                                           /* elementwise: the same index, so the same tag */
    return *d;
  }
}

/* What a core or a reduction wants of its argument k. */
static demand core_below(const checker *c, int i, int k) {
  const ir_node *r = ir_at(c->g, c->rows[i]), *a = ir_at(c->g, r->args[k]);
  demand d = {.tag = mix(3 + (uint64_t)k, c->rows[i]), .evals = c->count_s};
  for (int j = 0; j < TT_MAX_RANK; j++) d.ax[j] = (int8_t)(j < a->rank && a->dim[j] != 1 ? j : NO_AXIS);
  if (r->op == IR_fold || r->op == IR_scatter_add || (r->op == IR_dynamic_update_slice && k > 0)) lose(&d);
  if (r->op == IR_scatter_add && k == 0) d.evals = count(c->g, c->rows[i]);
  return d;
}

static bool is_core(ir_op op) { return op == IR_fold || op == IR_cumsum || op == IR_scatter_add || op == IR_dynamic_update_slice; }

static bool loop_form(checker *c, form_use *use) {
  form *f = c->f;
  int last = -1;
  for (int i = 0; i < c->n; i++)
    if (c->result[i]) last = i;
  if (last < 0) return no(c, "nothing of it is used outside");

  if (f->core) {
    const ir_node *core = ir_at(c->g, f->core);
    ir_op op = core->op;
    f->space = ir_shape(c->g, op == IR_scatter_add ? core->args[2] : f->core);
    if (op == IR_fold) {
      const ir_node *x = ir_at(c->g, core->args[0]);
      f->space.dim[f->space.rank] = x->dim[x->rank - 1];
      f->n_reduce = 1, f->reduce[0] = f->space.rank++;
    } else if (op != IR_dynamic_update_slice) f->n_reduce = 1, f->reduce[0] = (int)ir_int(core, "axis");
    if (op != IR_fold)
      for (int i = 0; i < c->n; i++)
        if (c->result[i] != (c->rows[i] == f->core)) return no(c, "a cumsum, scatter_add or dynamic_update_slice is the only result of its kernel");
  } else if (!f->n_reduce && f->space.rank < 0) f->space = ir_shape(c->g, c->rows[last]);

  bool in_r[TT_MAX_RANK] = {false};
  bool folds = !f->core || ir_at(c->g, f->core)->op == IR_fold;
  for (int k = 0; folds && k < f->n_reduce; k++) in_r[f->reduce[k]] = true;
  c->count_s = (double)tt_shape_count(&f->space), c->count_p = 1;
  for (int i = 0; i < f->space.rank; i++)
    if (!in_r[i]) c->p[c->n_p++] = (int8_t)i, c->count_p *= (double)f->space.dim[i];

  for (int i = 0; i < c->n; i++) {                    /* levels: how many reductions deep */
    const ir_node *r = ir_at(c->g, c->rows[i]);
    for (uint32_t k = 0; k < r->n_args; k++) {
      int a = position(c->rows, c->n, r->args[k]);
      if (a >= 0 && c->s[a].level > c->s[i].level) c->s[i].level = c->s[a].level;
      if (a >= 0 && r->args[k] == f->core && !folds) return no(c, "a row reads the cumsum, scatter_add or dynamic_update_slice of its own kernel");
    }
    if ((form_is_reduction(r->op) && !c->down[i]) || r->op == IR_fold) c->s[i].level++;
  }

  for (int i = c->n - 1; i >= 0; i--) {
    const ir_node *r = ir_at(c->g, c->rows[i]);
    state *s = &c->s[i];
    int8_t ax[TT_MAX_RANK];
    char at = canonical(c, r, ax);
    bool core = is_core(r->op), reduction = form_is_reduction(r->op) && !c->down[i];
    if (c->down[i]) {
      int a = position(c->rows, c->n, c->down[i]);
      demand d = {.evals = c->count_s};
      if (a >= 0 && canonical(c, ir_at(c->g, c->down[i]), d.ax) && !want(c, a, d)) return false;
      if (a >= 0) c->s[a].stages |= 1u << (s->level < 31 ? s->level : 31);
      if (use) use[i] = (form_use){count(c->g, c->rows[i]), 1u << (s->level < 31 ? s->level : 31), true};
      continue;
    }
    if (c->result[i]) {
      demand d = {.evals = at == 'P' ? c->count_p : c->count_s};
      memcpy(d.ax, ax, sizeof ax);
      if (!at && !core) return no(c, "a result has neither the shape of the space nor of what is left of it");
      if (at && !want(c, i, d)) return false;
      s->stages |= 1u << (s->level < 31 ? s->level : 31);
    }
    if (reduction || r->op == IR_fold)
      for (int k = 0; k < s->n; k++) {
        for (int j = 0; j < r->rank; j++)
          if (r->dim[j] != 1 && s->d[k].ax[j] != c->p[j]) return no(c, "a reduction is read at another index than its own");
      }
    if (use) {
      use[i] = (form_use){.stages = s->stages, .aligned = true};
      for (int k = 0; k < s->n; k++) {
        use[i].evals += s->d[k].evals;
        use[i].aligned &= !s->d[k].lost && at && same_axes(r, ax, s->d[k].ax);
      }
    }
    for (uint32_t k = 0; k < r->n_args; k++) {
      int a = position(c->rows, c->n, r->args[k]);
      if (a < 0) continue;
      if (core || reduction) {
        c->s[a].stages |= 1u << (s->level - (core && r->op != IR_fold ? 0 : 1));
        if (!want(c, a, core_below(c, i, (int)k))) return false;
        continue;
      }
      c->s[a].stages |= s->stages;
      for (int j = 0; j < s->n; j++)
        if (!want(c, a, below(c, i, (int)k, &s->d[j]))) return false;
    }
  }
  return true;
}

/* ---- contractions ---- */

bool form_widens(const ir_graph *g, ir_ref r) {
  const ir_node *n = ir_at(g, r);
  return n->op == IR_cast && n->dtype == TT_F32 && ir_at(g, n->args[0])->dtype == TT_BF16;
}

static ir_ref view_base(const ir_graph *g, ir_ref operand, bool narrow) {
  ir_ref chain[64], best = operand;
  int n = 0;
  for (ir_ref r = operand; n < 64 && (ir_ops[ir_at(g, r)->op].kind == IR_MOVEMENT || (narrow && form_widens(g, r))); r = ir_at(g, r)->args[0]) {
    if (!form_widens(g, r)) chain[n++] = r;
    ir_ref base = ir_at(g, r)->args[0];
    view v = view_dense(ir_shape(g, base));
    bool ok = true;
    for (int i = n - 1; ok && i >= 0; i--) ok = view_apply(&v, ir_at(g, chain[i]));
    if (ok && view_strided(&v) && !form_is_free(g, base)) best = base;
  }
  return best;
}

ir_ref form_operand_base(const ir_graph *g, ir_ref contraction, int k, bool narrow) {
  const ir_node *n = ir_at(g, contraction);
  pass_window w;
  return view_base(g, k == 0 && pass_window_of(g, contraction, &w) && w.pad ? ir_at(g, w.pad)->args[0] : n->args[k], narrow && n->op == IR_matmul);
}

/* pad: a row on the way that may be one; 0: none. */
static bool operand_form(checker *c, ir_ref operand, ir_ref pad) {
  ir_ref chain[64];
  int n = 0;
  ir_ref r = operand;
  for (int i; (i = position(c->rows, c->n, r)) >= 0; r = ir_at(c->g, r)->args[0]) {
    if (r == pad) return operand_form(c, ir_at(c->g, r)->args[0], 0);      /* above it stand views alone, as pass_window_of has seen */
    if (form_widens(c->g, r) && ir_at(c->g, c->f->core)->op == IR_matmul) continue;
    if (n == 64 || ir_ops[ir_at(c->g, r)->op].kind != IR_MOVEMENT) return no(c, "an operand of the contraction is not a view");
    chain[n++] = r;
  }
  view v = view_dense(ir_shape(c->g, r));
  for (int i = n - 1; i >= 0; i--)
    if (!view_apply(&v, ir_at(c->g, chain[i]))) return no(c, "an operand of the contraction is not a view");
  return n == 0 || view_strided(&v) || no(c, "an operand of the contraction is not a strided view");
}

static uint64_t view_tag(const view *v) {
  uint64_t h = 17;
  for (int i = 0; i < v->n; i++) h = mix(mix(mix(h, (uint64_t)v->piece[i].size), (uint64_t)v->piece[i].stride), (uint64_t)v->piece[i].axis);
  return h;
}

/* The contraction of the kernel, or one more result of its attention. */
static bool is_contraction(const checker *c, int i) { return ir_ops[ir_at(c->g, c->rows[i])->op].kind == IR_CONTRACTION; }

static bool contract_form(checker *c, form_use *use) {
  const ir_node *core = ir_at(c->g, c->f->core);
  c->f->space = ir_shape(c->g, c->f->core);
  pass_window w = {0};
  if (!pass_window_of(c->g, c->f->core, &w)) w.pad = 0;
  for (uint32_t k = 0; k < core->n_args; k++)
    if (!operand_form(c, core->args[k], k == 0 ? w.pad : 0)) return false;
  view *views = calloc((size_t)c->n, sizeof *views);     /* of rows above the contraction; rank -1: not above it */
  if (!views) return no(c, "no memory");
  bool ok = true, several = false;
  for (int i = 0; ok && i < c->n; i++) {
    const ir_node *r = ir_at(c->g, c->rows[i]);
    ir_kind kind = ir_ops[r->op].kind;
    views[i].rank = -1;
    if (is_contraction(c, i)) {
      views[i] = view_dense(ir_shape(c->g, c->rows[i]));
      several |= c->rows[i] != c->f->core;
      continue;
    }
    bool view_op = r->op == IR_permute || r->op == IR_reshape || r->op == IR_broadcast || r->op == IR_slice || r->op == IR_reverse;
    if (kind != IR_ELEMENTWISE && !view_op && c->rows[i] != w.pad && r->op != IR_const && r->op != IR_iota && r->op != IR_random) ok = no(c, "an epilogue has elementwise rows and views only");
    for (uint32_t k = 0; ok && k < r->n_args; k++) {
      int a = position(c->rows, c->n, r->args[k]);
      if (a < 0 || views[a].rank < 0) continue;
      view v = views[a];
      bool renamed = kind != IR_MOVEMENT || ((r->op == IR_permute || r->op == IR_reshape) && view_apply(&v, r));
      if (!renamed) ok = no(c, "an epilogue only permutes and reshapes the contraction's result");
      else if (kind != IR_MOVEMENT && kind != IR_ELEMENTWISE) ok = no(c, "an epilogue has elementwise rows and views only");
      else if (views[i].rank >= 0 && !view_equal(&views[i], &v)) ok = no(c, "an epilogue combines two views of the contraction's result");
      else views[i] = v;
    }
    if (ok && c->result[i] && views[i].rank < 0) ok = no(c, "a result does not depend on the contraction");
  }
  for (int i = 0; ok && several && i < c->n; i++)       /* what one element is made of would be made at different times */
    if (ir_ops[ir_at(c->g, c->rows[i])->op].kind == IR_ELEMENTWISE) ok = no(c, "an epilogue of several results of attention");
  c->count_s = count(c->g, c->f->core);
  for (int i = c->n - 1; ok && i >= 0; i--) {
    const ir_node *r = ir_at(c->g, c->rows[i]);
    state *s = &c->s[i];
    if (views[i].rank >= 0 && !s->n) {
      demand d = {.lost = true, .tag = view_tag(&views[i]), .evals = c->count_s};
      lose(&d);
      s->d[s->n++] = d;
    }
    if (use) {
      use[i] = (form_use){.stages = 1, .aligned = views[i].rank >= 0};
      for (int k = 0; k < s->n; k++) use[i].evals += s->d[k].evals;
    }
    for (uint32_t k = 0; ok && k < r->n_args && !is_contraction(c, i); k++) {
      int a = position(c->rows, c->n, r->args[k]);
      if (a < 0 || views[a].rank >= 0) continue;
      for (int j = 0; ok && j < s->n; j++) {
        demand d = below(c, i, (int)k, &s->d[j]);
        lose(&d);
        ok = want(c, a, d);
      }
    }
  }
  free(views);
  return ok;
}

static int by_number(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

/* The kind, the core, and the space and its reduced axes where reductions say so. */
static bool read_form(checker *c) {
  form *f = c->f;
  tt_shape down = {.rank = -1};
  for (int i = 0; i < c->n; i++) {
    const ir_node *r = ir_at(c->g, c->rows[i]);
    ir_op op = r->op;
    pass_down d;
    if (f->core && (ir_same_scan(c->g, f->core, c->rows[i]) || ir_same_attention(c->g, f->core, c->rows[i]))) continue;
    if (ir_ops[op].kind == IR_CONTRACTION || op == IR_argsort || op == IR_scan || is_core(op)) {
      if (f->core) return no(c, "two contractions, folds or the like");
      f->core = c->rows[i];
    } else if (op == IR_input || op == IR_param || op == IR_assign || ir_ops[op].kind == IR_COMPOSITE) return no(c, "a row that belongs into no kernel");
    if (!form_is_reduction(op)) continue;
    if (form_down(c->g, c->rows, c->n, c->rows[i], &d)) {
      tt_shape s = ir_shape(c->g, d.base);
      if (f->n_lead && (d.n_lead != f->n_lead || d.blocks != f->blocks || !tt_shape_equal(&s, &down))) return no(c, "two sums down the rows of different blocks");
      f->n_lead = d.n_lead, f->blocks = d.blocks, down = s, c->down[i] = d.base;
      continue;
    }
    int axes[TT_MAX_RANK], n_axes = 1;
    if (op == IR_argmax || op == IR_argmin) axes[0] = (int)ir_int(r, "axis");
    else {
      const int64_t *list = ir_ints(r, "axes", &n_axes);
      for (int k = 0; k < n_axes; k++) axes[k] = (int)list[k];
    }
    qsort(axes, (size_t)n_axes, sizeof *axes, by_number);
    tt_shape s = ir_shape(c->g, r->args[0]);
    if (f->space.rank >= 0 && (!tt_shape_equal(&s, &f->space) || n_axes != f->n_reduce || memcmp(axes, f->reduce, (size_t)n_axes * sizeof *axes)))
      return no(c, "two reductions over different spaces or axes");
    f->space = s, f->n_reduce = n_axes;
    memcpy(f->reduce, axes, (size_t)n_axes * sizeof *axes);
  }
  if (f->n_lead && f->space.rank < 0) f->space = down;
  if (f->n_lead && (!tt_shape_equal(&down, &f->space) || (f->n_reduce && f->reduce[0] < f->n_lead))) return no(c, "a sum down other rows than those of the space");
  ir_op op = f->core ? ir_at(c->g, f->core)->op : IR_poison;
  if (f->core && f->space.rank >= 0) return no(c, "a reduction beside a contraction, fold or the like");
  f->kind = ir_ops[op].kind == IR_CONTRACTION ? FORM_CONTRACT : op == IR_argsort || op == IR_scan ? FORM_CALL : FORM_LOOP;
  return true;
}

bool form_of(const ir_graph *g, const ir_ref *rows, int n, const bool *result, form *f, form_use *use) {
  *f = (form){.space = {.rank = -1}};
  checker c = {.g = g, .rows = rows, .n = n, .result = result, .f = f};
  if (n <= 0) return no(&c, "no rows");
  c.s = calloc((size_t)n, sizeof *c.s), c.down = calloc((size_t)n, sizeof *c.down);
  bool ok = (c.s && c.down) || no(&c, "no memory");
  if ((ok = ok && read_form(&c))) {
    if (f->kind == FORM_CALL) {
      f->space = ir_shape(g, f->core);
      for (int i = 0; ok && i < n; i++) {
        if (use) use[i] = (form_use){count(g, rows[i]), 1, true};
        if (rows[i] != f->core && !ir_same_scan(g, f->core, rows[i])) ok = no(&c, "argsort and scan stand alone");
      }
    } else ok = f->kind == FORM_CONTRACT ? contract_form(&c, use) : loop_form(&c, use);
  }
  free(c.s), free(c.down);
  return ok;
}

/* ---- in place ---- */

/* A sum down the rows, or the reshape that only such sums read: it is taken where all results are computed, before any is stored. */
static bool is_down(const ir_graph *g, const ir_ref *rows, int n, int i) {
  const ir_node *r = ir_at(g, rows[i]);
  pass_down d;
  bool any = false;
  if (r->op == IR_sum) return form_down(g, rows, n, rows[i], &d);
  if (r->op != IR_reshape) return false;
  for (int j = i + 1; j < n; j++)
    for (uint32_t k = 0; k < ir_at(g, rows[j])->n_args; k++) {
      if (ir_at(g, rows[j])->args[k] != rows[i]) continue;
      if (!form_down(g, rows, n, rows[j], &d) || d.base == rows[i]) return false;
      any = true;
    }
  return any;
}

bool form_in_place(const ir_graph *g, const ir_ref *rows, int n, const bool *result, ir_ref value, ir_ref arg) {
  tt_shape have = ir_shape(g, arg);
  bool *reads = calloc((size_t)n, sizeof *reads), ok = reads != NULL;     /* rows whose elements depend on arg at their own index */
  int *level = calloc((size_t)n, sizeof *level), at = -1;
  ok = ok && level;
  for (int i = 0; ok && i < n; i++) {
    const ir_node *r = ir_at(g, rows[i]);
    for (uint32_t k = 0; k < r->n_args; k++) {
      int a = position(rows, n, r->args[k]);
      if (a >= 0 && level[a] > level[i]) level[i] = level[a];
      if (r->args[k] != arg && (a < 0 || !reads[a])) continue;
      if (rows[i] != value && is_down(g, rows, n, i)) continue;
      reads[i] = true;
      tt_shape s = ir_shape(g, rows[i]);
      bool same = ir_ops[r->op].kind == IR_ELEMENTWISE || r->op == IR_reshape || (r->op == IR_dynamic_update_slice && k == 0);      /* a reshape keeps addresses */
      if (!same || tt_shape_count(&s) != tt_shape_count(&have)) ok = false;
    }
    if ((form_is_reduction(r->op) && !is_down(g, rows, n, i)) || r->op == IR_fold) level[i]++;
    if (rows[i] == value) at = i;
  }
  for (int i = 0; ok && i < n; i++)                    /* a later stage would read what an earlier one has overwritten */
    if (result[i] && reads[i] && level[i] != level[at]) ok = false;
  free(reads), free(level);
  return ok;
}

double pass_op_cost(ir_op op) {
  switch (op) {
  case IR_exp: case IR_expm1: case IR_log: case IR_log1p: case IR_sin: case IR_cos: case IR_atan: case IR_tanh: case IR_erf: case IR_sigmoid: return 10;
  case IR_tan: case IR_pow: case IR_atan2: case IR_fmod: case IR_random: return 20;
  case IR_div: case IR_sqrt: case IR_rsqrt: return 4;
  case IR_gather: case IR_dynamic_slice: case IR_concat: case IR_pad: return 3;
  default: return ir_ops[op].kind == IR_MOVEMENT || ir_ops[op].kind == IR_LEAF || op == IR_stop_gradient || op == IR_bitcast ? 0 : 1;
  }
}
