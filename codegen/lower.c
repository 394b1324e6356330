/* lower.c: a loop kernel of the graph as loops. Its space S is the axes P, which are independent, and the axes R, which are reduced.
 *
 *     tasks: chunks of P
 *       for the rows of a chunk
 *         for each stage (a reduction belongs to the stage after those that it depends on)
 *           acc = identity
 *           for R vec: reduce acc op= pulled value            softmax: stage 0 the maximum, stage 1 the sum of exp
 *         for R vec: store results of shape S
 *         store results of shape P
 *
 * or, when vectors run along P, `for P vec` around the stages, with accumulators of W lanes. Axes next to each other become one loop
 * where no index needs their quotient. Which loop is vectorized is chosen by what loads and stores cost along it (lower_choose.c).
 * Costly values of shape S that several stages want are kept in scratch. Sums down the rows (of blocks of the leading axes of P) are added to where S is
 * stored: a task has the rows of one block, and the block's sums stand in the result, which stays in L1. Nothing here depends on the number of threads. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lower_loop.h"

tt_dtype nest_acc_type(tt_dtype t) { return t == TT_F16 || t == TT_BF16 ? TT_F32 : t; }

lp_ref nest_cast(loop_nest *ln, lp_ref e, tt_dtype t) { return lp_op(ln->k, IR_cast, t, e, 0, 0); }

/* ---- results and the space ---- */

bool nest_fits(const loop_nest *ln, ir_ref r, bool p_only) {
  const ir_node *n = ir_at(ln->g, r);
  int d = 0;
  for (int a = 0; a < ln->space.rank; a++) {
    if (ln->space.dim[a] == 1 || (p_only && ln->in_r[a])) continue;
    while (d < n->rank && n->dim[d] == 1) d++;
    if (d == n->rank || n->dim[d++] != ln->space.dim[a]) return false;
  }
  while (d < n->rank && n->dim[d] == 1) d++;
  return d == n->rank;
}

/* Row r's index at ln->at, by its dimensions that are not 1. */
void nest_index(const loop_nest *ln, ir_ref r, bool p_only, lp_ref *index) {
  const ir_node *n = ir_at(ln->g, r);
  int a = 0;
  for (int d = 0; d < n->rank; d++) {
    index[d] = lp_int(ln->k, 0);
    if (n->dim[d] == 1) continue;
    while (ln->space.dim[a] == 1 || (p_only && ln->in_r[a])) a++;
    index[d] = ln->at[a++];
  }
}

/* ---- loops ---- */

static int result_buffer(const loop_nest *ln, ir_ref r) {
  int i = 0;
  while (lower_result(ln->lx, i) != r) i++;
  return lower_result_buffer(ln->lx, i);
}

void nest_close(lp_cursor *at) {
  while (*at->tail) at->tail = &(*at->tail)->next;
}

void nest_set(loop_nest *ln, int group, lp_ref value) {
  const loop_group *p = &ln->groups[group];
  for (int i = p->n - 1; i > 0; i--) {
    ln->at[p->axes[i]] = lp_mod(ln->k, value, ln->space.dim[p->axes[i]]);
    value = lp_div(ln->k, value, ln->space.dim[p->axes[i]]);
  }
  ln->at[p->axes[0]] = value;
}

static int lanes_for(const loop_nest *ln, int64_t extent) {
  int64_t lanes = ln->lanes;
  while (lanes > 1 && lanes / 2 >= extent) lanes /= 2;
  return lanes > 1 ? (int)lanes : 0;
}

void nest_open_vector(loop_nest *ln, lp_cursor *at) {
  ln->lane = lp_int(ln->k, 0);
  if (ln->vec < 0 || ln->groups[ln->vec].reduced) return;
  if (ln->width > 1) {
    int var = lp_var_add(ln->k, "v", ln->width);
    lp_for(ln->k, at, var, 0, ln->width, lanes_for(ln, ln->width), at);
    ln->lane = lp_var(ln->k, var);
  }
  nest_set(ln, ln->vec, lp_add(ln->k, ln->place, ln->lane));
  if (ln->across >= 0) nest_open_tile(ln, at);
}

static lp_stmt *open_group(loop_nest *ln, lp_cursor *at, int group, bool unroll) {
  loop_group *p = &ln->groups[group];
  if (!p->var) p->var = lp_var_add(ln->k, "r", p->extent);
  lp_stmt *s = lp_for(ln->k, at, p->var, 0, p->extent, group == ln->vec ? lanes_for(ln, p->extent) : 0, at);
  s->unroll = unroll;
  p->number = lp_var(ln->k, p->var);
  nest_set(ln, group, p->number);
  return s;
}

/* Neighbouring columns of rows that the vector stands across: some in each step (codegen/llvm/transpose.c loads them together). */
static void open_columns(loop_nest *ln, lp_cursor *at, int group) {
  loop_group *p = &ln->groups[group];
  int block = lp_var_add(ln->k, "b", p->extent / ln->tile), column = lp_var_add(ln->k, "c", ln->tile);
  if (!p->var) p->var = lp_var_add(ln->k, "r", p->extent);
  lp_for(ln->k, at, block, 0, p->extent / ln->tile, 0, at);
  lp_for(ln->k, at, column, 0, ln->tile, 0, at)->unroll = true;
  p->number = lp_add(ln->k, lp_mul(ln->k, lp_var(ln->k, block), ln->tile), lp_var(ln->k, column));
  nest_set(ln, group, p->number);
}

void nest_open_reduced(loop_nest *ln, lp_cursor *at) {
  bool unroll = ln->n_reduced <= 16 && !(ln->vec >= 0 && ln->groups[ln->vec].reduced);      /* windows of pooling */
  ln->along = NULL;
  for (int i = 0; i < ln->n_groups; i++) {
    if (!ln->groups[i].reduced || i == ln->vec) continue;
    if ((!unroll || ln->brief) && i == ln->columns && ln->tile) open_columns(ln, at, i);
    else open_group(ln, at, i, unroll);
  }
  if (ln->vec >= 0 && ln->groups[ln->vec].reduced) ln->along = open_group(ln, at, ln->vec, false);
}

static const double CHEAP = 8;

static double work_of(const lp_kernel *k, lp_ref e, bool *seen) {
  if (!e || seen[e]) return 0;
  const lp_expr *x = &k->exprs[e];
  seen[e] = true;
  double work = x->kind == LX_PHILOX ? 100 : x->kind == LX_OP && x->dtype != TT_I64 ? pass_op_cost((ir_op)x->op) : 0;
  for (int i = 0; i < 3; i++) work += work_of(k, x->a[i], seen);
  return work;
}

/* The plan's lanes are for all of the kernel. A stage along rows that does little by itself takes four vectors at a time: independent sums. */
static void weigh_pass(loop_nest *ln, const lp_ref *values, int n) {
  if (!ln->along || ln->along->lanes < 2 || n == 0) return;
  bool *seen = calloc(ln->k->n_exprs, sizeof *seen);
  double work = 0;
  int64_t lanes = ln->lanes, most = 4 * ln->lx->cpu->vector_bytes / (int64_t)tt_dtype_size(nest_acc_type(ln->k->exprs[values[0]].dtype));
  for (int i = 0; seen && i < n; i++) work += work_of(ln->k, values[i], seen);
  for (const lp_stmt *s = ln->along->body; seen && s; s = s->next) work += work_of(ln->k, s->value, seen);      /* what is kept */
  if (seen && work <= CHEAP && most > lanes) {
    ln->lanes = most;
    ln->along->lanes = lanes_for(ln, ln->groups[ln->vec].extent);
    ln->lanes = lanes;
  }
  free(seen);
  if (ln->n_passes < 16) ln->passes[ln->n_passes].loop = ln->along, ln->passes[ln->n_passes++].work = work;
}

static lp_ref reduced_number(loop_nest *ln) {
  lp_ref e = lp_int(ln->k, 0);
  for (int i = 0; i < ln->n_groups; i++)
    if (ln->groups[i].reduced) e = lp_add(ln->k, lp_mul(ln->k, e, ln->groups[i].extent), ln->groups[i].number);
  return e;
}

/* One row or one chunk of it: the vectorized group from `place` on, `width` elements. */
static void run_body(loop_nest *ln, nest_body *body, lp_cursor *at, lp_ref place, int64_t width) {
  ln->place = place;
  ln->width = width;
  lower_unhook(ln->lx);
  body(ln, at);
}

const down_sum *nest_down(const loop_nest *ln, ir_ref r) {
  for (int i = 0; i < ln->n_downs; i++)
    if (ln->downs[i].row == r) return &ln->downs[i];
  return NULL;
}

lp_ref nest_down_place(loop_nest *ln, const down_sum *d) {
  lp_ref place = ln->block;
  for (int i = ln->n_lead; i < ln->space.rank; i++) place = lp_add(ln->k, lp_mul(ln->k, place, ln->space.dim[i]), ln->at[i]);
  return place;
}

/* A task has a block: its rows in order, and all of a row but where vectors go along something long. */
static void sizes_down(loop_nest *ln) {
  enum { LONG = 4096, TOGETHER = 4 };
  int64_t lead = 1, extent = ln->vec >= 0 && !ln->groups[ln->vec].reduced ? ln->groups[ln->vec].extent : 1, parts = 1;
  for (int i = 0; i < ln->n_lead; i++) lead *= ln->space.dim[i];
  bool alone = ln->rows == lead;                               /* nothing between the rows and the vectors */
  ln->rows_per_task = ln->rows / ln->blocks;
  while (alone && extent / parts > LONG && extent % (2 * parts) == 0 && extent / (2 * parts) % ln->lanes == 0) parts *= 2;
  ln->chunk = extent / parts, ln->n_chunks = parts;
  ln->together = 1;
  while (alone && ln->n_stages == 0 && ln->together < TOGETHER && ln->rows_per_task % (2 * ln->together) == 0) ln->together *= 2;
  int64_t most = 2 * ln->lx->cpu->vector_bytes / (int64_t)tt_dtype_size(nest_acc_type(ir_at(ln->g, ln->downs[0].row)->dtype));      /* so that all of them fit into registers */
  if (ln->together > 1 && ln->lanes > most) ln->lanes = most;
}

void nest_sizes(loop_nest *ln) {
  ln->rows = ln->n_reduced = 1;
  int64_t extent = 1;
  for (int i = 0; i < ln->n_groups; i++) {
    if (ln->groups[i].reduced) ln->n_reduced *= ln->groups[i].extent;
    else if (i == ln->vec) extent = ln->groups[i].extent;
    else ln->rows *= ln->groups[i].extent;
  }
  int64_t depth = ln->n_reduced > 0 ? ln->n_reduced : 1;
  ln->chunk = extent, ln->n_chunks = ln->rows_per_task = 1;
  if (ln->n_downs && ln->rows > 0 && extent > 0) {
    sizes_down(ln);
    return;
  }
  if (extent > ln->lanes && (extent * depth >= 2 * ln->grain || ln->rows == 1)) {
    int64_t whole = ln->lanes > 1 ? ln->lanes : 1, want = (ln->grain / depth + whole - 1) / whole * whole;
    if (want < whole) want = whole;
    int64_t n = (extent + want - 1) / want;
    ln->chunk = ((extent + n - 1) / n + whole - 1) / whole * whole;
    for (int64_t c = ln->chunk; n > 1 && c <= 2 * ln->chunk; c += whole)          /* a size that divides it makes one body do */
      if (extent % c == 0) {
        ln->chunk = c;
        break;
      }
    if (ln->chunk > extent) ln->chunk = extent;
    ln->n_chunks = (extent + ln->chunk - 1) / ln->chunk;
  } else if (extent * depth < ln->grain && ln->rows > 0) {
    int64_t want = ln->grain / (extent * depth > 0 ? extent * depth : 1), n = (ln->rows + want - 1) / want;
    ln->rows_per_task = (ln->rows + n - 1) / n;
    for (int64_t c = ln->rows_per_task; n > 1 && c <= 2 * ln->rows_per_task; c++)
      if (ln->rows % c == 0) {
        ln->rows_per_task = c;
        break;
      }
  }
}

/* ln->at of the groups of P that no vector runs along, at this row of them. */
static void set_row(loop_nest *ln, lp_ref row) {
  int outermost = -1;
  for (int i = ln->n_groups - 1; i >= 0; i--)
    if (!ln->groups[i].reduced && i != ln->vec) outermost = i;
  for (int i = ln->n_groups - 1; i >= 0; i--) {
    if (ln->groups[i].reduced || i == ln->vec) continue;
    nest_set(ln, i, i == outermost ? row : lp_mod(ln->k, row, ln->groups[i].extent));
    row = lp_div(ln->k, row, ln->groups[i].extent);
  }
}

static void clear_down(loop_nest *ln, lp_cursor *outside, const down_sum *d, lp_ref place) {
  lp_kernel *k = ln->k;
  int64_t columns = 1, some;
  for (int i = ln->n_lead; i < ln->space.rank; i++) columns *= ln->space.dim[i];
  some = ln->n_chunks > 1 ? ln->chunk : columns;
  lp_cursor at = *outside;
  int var = lp_var_add(k, "z", some);
  lp_for(k, &at, var, 0, some, lanes_for(ln, some), &at);
  lp_stmt *s = lp_append(k, &at, LS_STORE);
  tt_dtype t = ir_at(ln->g, d->row)->dtype;
  s->buffer = result_buffer(ln, d->row), s->index = lp_add(k, lp_mul(k, ln->block, columns), lp_var(k, var)), s->value = lp_const(k, t, 0);
  if (ln->n_chunks > 1) s->index = lp_add(k, s->index, place);
  nest_close(outside);
}

void nest_tasks(loop_nest *ln, nest_body *body) {
  lp_kernel *k = ln->k;
  int64_t extent = ln->vec >= 0 && !ln->groups[ln->vec].reduced ? ln->groups[ln->vec].extent : 1;
  k->tasks = extent == 0 ? 0 : (ln->rows + ln->rows_per_task - 1) / ln->rows_per_task * ln->n_chunks;
  if (k->tasks == 0) return;
  lp_cursor at = {&k->body};
  lp_ref task = lp_var(k, 0), row = lp_div(k, task, ln->n_chunks), chunk = lp_mod(k, task, ln->n_chunks);
  lp_ref place = lp_mul(k, chunk, ln->chunk);
  int64_t width = ln->chunk;
  bool again = ln->gathers && !ln->core && !ln->n_downs && ln->n_stages == 0 && ln->rows_per_task > 1;      /* neighbours of what a gather touched are used while they are in L1 */
  if ((again || ln->columns >= 0) && ln->chunk > ln->lanes && ln->chunk % ln->lanes == 0 && extent % ln->chunk == 0) {      /* columns: what is kept stays there too */
    int var = lp_var_add(k, "block", ln->chunk / ln->lanes);
    lp_for(k, &at, var, 0, ln->chunk / ln->lanes, 0, &at);
    width = ln->lanes;
    place = lp_add(k, place, lp_mul(k, lp_var(k, var), width));
  }
  ln->block = row;
  for (int i = 0; i < ln->n_downs; i++) clear_down(ln, &at, &ln->downs[i], place);
  if (ln->rows_per_task > 1) {
    int64_t together = ln->n_downs ? ln->together : 1;
    int var = lp_var_add(k, "row", ln->rows_per_task / together);
    lp_for(k, &at, var, 0, ln->rows_per_task / together, 0, &at);
    row = lp_add(k, lp_mul(k, row, ln->rows_per_task), lp_mul(k, lp_var(k, var), together));
    if (ln->rows % ln->rows_per_task) {
      lp_stmt *s = lp_append(k, &at, LS_IF);
      s->guard = lp_op(k, IR_lt, TT_BOOL, row, lp_int(k, ln->rows), 0);
      at.tail = &s->body;
    }
  }
  ln->row = row;
  set_row(ln, row);
  int64_t last = extent - (ln->n_chunks - 1) * ln->chunk;
  if (last == ln->chunk) {
    run_body(ln, body, &at, place, width);
    return;
  }
  for (int i = 0; i < 2; i++) {                              /* all chunks but the last; the last */
    lp_stmt *s = lp_append(k, &at, LS_IF);
    s->guard = lp_op(k, i ? IR_eq : IR_lt, TT_BOOL, chunk, lp_int(k, ln->n_chunks - 1), 0);
    lp_cursor inside = {&s->body};
    if (i == 0) run_body(ln, body, &inside, place, width);
    else run_body(ln, body, &inside, lp_int(k, extent - last), last);
  }
}

/* ---- values that several statements use ---- */

static void count_uses(const lp_kernel *k, lp_ref e, int *uses, int *seen, int number) {
  if (!e || seen[e] == number) return;
  seen[e] = number;
  uses[e]++;
  for (int i = 0; i < 3; i++) count_uses(k, k->exprs[e].a[i], uses, seen, number);
}

int nest_local(loop_nest *ln, lp_cursor *at, const char *name, tt_dtype t, lp_ref value) {
  lp_stmt *s = lp_append(ln->k, at, LS_LOCAL);
  s->local = lp_local_add(ln->k, name, t, 1);
  s->value = value;
  return s->local;
}

void nest_share(loop_nest *ln, lp_cursor *at, lp_ref *values, int n) {
  lp_kernel *k = ln->k;
  uint32_t n_exprs = k->n_exprs;
  if (n < 2) return;
  int *uses = calloc(3 * (size_t)n_exprs, sizeof *uses), *seen = uses + n_exprs;
  lp_ref *to = (lp_ref *)(uses + 2 * (size_t)n_exprs);
  if (!uses) {
    lower_fail(ln->lx, "no memory", lower_first(ln->lx));
    return;
  }
  for (int i = 0; i < n; i++) count_uses(k, values[i], uses, seen, i + 1);
  memset(seen, 0, n_exprs * sizeof *seen);                   /* from here on: the largest row that several values have */
  for (int i = 0; i < n; i++) seen[values[i]] = 1;
  for (uint32_t e = 1; e < n_exprs; e++)
    for (int i = 0; i < 3 && uses[e]; i++)
      if (k->exprs[e].a[i] && uses[k->exprs[e].a[i]] > uses[e]) seen[k->exprs[e].a[i]] = 1;
  for (uint32_t e = 1; e < n_exprs; e++) {                   /* operands come before what uses them */
    if (!uses[e]) continue;
    lp_expr x = k->exprs[e];
    lp_ref a[3];
    for (int i = 0; i < 3; i++) a[i] = x.a[i] ? to[x.a[i]] : 0;
    to[e] = lp_rebuild(k, e, a);
    bool is_work = x.kind == LX_FMA || x.kind == LX_DOT || x.kind == LX_PHILOX || (x.kind == LX_OP && x.dtype != TT_I64);
    if (uses[e] > 1 && seen[e] && is_work) to[e] = lp_get(k, nest_local(ln, at, "t", x.dtype, to[e]), 0);
  }
  for (int i = 0; i < n; i++) values[i] = to[values[i]];
  free(uses);
}

/* ---- reductions ---- */

static double infinity_for(ir_op op) { return op == IR_max || op == IR_or ? -INFINITY : INFINITY; }

static lp_ref identity(lp_kernel *k, ir_op op, tt_dtype t) {
  if (op == IR_add || op == IR_mul) return lp_const(k, t, op == IR_mul);
  if (t == TT_BOOL) return lp_const(k, t, op == IR_and);
  if (tt_dtype_in(t, TT_REAL)) return lp_const(k, t, infinity_for(op));
  int bits = 8 * (int)tt_dtype_size(t);
  bool is_signed = tt_dtype_in(t, TT_SINT), highest = op == IR_min;
  uint64_t all = UINT64_MAX >> (64 - bits);
  if (!is_signed) return lp_const_bits(k, t, highest ? (int64_t)all : 0);
  return lp_const_bits(k, t, highest ? (int64_t)(all >> 1) : -(int64_t)(all >> 1) - 1);
}

static lp_ref compare(loop_nest *ln, ir_op op, lp_ref a, lp_ref b) { return lp_op(ln->k, op, TT_BOOL, a, b, 0); }

/* fold's terms: window element k of window w belongs to place w*stride + k*dilation. */
static lp_ref fold_term(loop_nest *ln, const ir_node *n) {
  lp_kernel *k = ln->k;
  const ir_node *x = ir_at(ln->g, n->args[0]);
  int axis = (int)ir_int(n, "axis"), last = x->rank - 1;
  int64_t stride = ir_int(n, "stride"), dilation = ir_int(n, "dilation");
  int64_t shift = ((x->dim[last] - 1) * dilation + stride - 1) / stride;            /* keeps what is divided >= 0 */
  lp_ref index[TT_MAX_RANK];
  for (int i = 0; i < x->rank; i++) index[i] = ln->at[i];
  lp_ref e = lp_add(k, lp_add(k, ln->at[axis], lp_mul(k, ln->at[last], -dilation)), lp_int(k, shift * stride));
  index[axis] = lp_add(k, lp_div(k, e, stride), lp_int(k, -shift));
  lp_ref guard = compare(ln, IR_eq, lp_mod(k, e, stride), lp_int(k, 0));
  guard = lp_op(k, IR_and, TT_BOOL, guard, compare(ln, IR_ge, index[axis], lp_int(k, 0)), 0);
  guard = lp_op(k, IR_and, TT_BOOL, guard, compare(ln, IR_lt, index[axis], lp_int(k, x->dim[axis])), 0);
  return lower_pull_if(ln->lx, n->args[0], index, guard, 0);
}

/* What goes into reduction r at ln->at. */
lp_ref nest_term(loop_nest *ln, const reduction *r) {
  lp_kernel *k = ln->k;
  const ir_node *n = ir_at(ln->g, r->row);
  if (n->op == IR_fold) return nest_cast(ln, fold_term(ln, n), r->acc);
  tt_dtype t = nest_acc_type(ir_at(ln->g, n->args[0])->dtype);
  lp_ref x = nest_cast(ln, lower_pull(ln->lx, n->args[0], ln->at), t);
  bool is_real = tt_dtype_in(t, TT_REAL);
  if (!r->is_index) return x;
  lp_ref best = lp_get(k, ln->reductions[r->key].local, 0), found = compare(ln, IR_eq, x, best);
  if (is_real)                                        /* NaN wins */
    found = lp_op(k, IR_or, TT_BOOL, found, lp_op(k, IR_and, TT_BOOL, compare(ln, IR_ne, x, x), compare(ln, IR_ne, best, best), 0), 0);
  return lp_op(k, IR_select, TT_I64, found, ln->at[ir_int(n, "axis")], lp_int(k, INT64_MAX));
}

/* The value of the row when its loop is done. */
static lp_ref finished(loop_nest *ln, const reduction *r) {
  lp_kernel *k = ln->k;
  const ir_node *n = ir_at(ln->g, r->row);
  lp_ref v = lp_get(k, r->local, 0);
  if (r->is_index) return v;
  return nest_cast(ln, v, n->dtype);
}

static bool is_elementwise(const ir_node *n) { return ir_ops[n->op].kind == IR_ELEMENTWISE; }

static bool is_result(const loop_nest *ln, ir_ref r) {
  for (int i = 0; i < lower_n_results(ln->lx); i++)
    if (lower_result(ln->lx, i) == r) return true;
  return false;
}

static bool wants_local(const loop_nest *ln, ir_ref r) {
  if (is_result(ln, r)) return true;
  for (ir_ref u = r + 1; u <= lower_last(ln->lx); u++)
    for (uint32_t i = 0; lower_inside(ln->lx, u) && i < ir_at(ln->g, u)->n_args; i++)
      if (ir_at(ln->g, u)->args[i] == r && !is_elementwise(ir_at(ln->g, u))) return true;
  return false;
}

/* A sum of exponentials that elements are divided by: they are multiplied by its inverse instead (half an ulp more). No other sum, because the
 * inverse of a subnormal number is infinite. */
static bool wants_inverse(const loop_nest *ln, const reduction *r) {
  const ir_node *n = ir_at(ln->g, r->row);
  bool divided = false;
  for (ir_ref u = r->row + 1; u <= lower_last(ln->lx); u++) divided |= lower_inside(ln->lx, u) && ir_at(ln->g, u)->op == IR_div && !nest_fits(ln, u, true);
  return divided && n->op == IR_sum && ir_at(ln->g, n->args[0])->op == IR_exp && n->dtype == r->acc;
}

static void use_inverses(loop_nest *ln, lp_ref *values, int n) {
  lp_kernel *k = ln->k;
  uint32_t end = k->n_exprs;
  for (int i = 0; i < ln->n_reductions; i++) {
    const reduction *r = &ln->reductions[i];
    if (!r->inverse) continue;
    lp_ref sum = lp_get(k, r->local, 0), inverse = lp_get(k, r->inverse, 0);
    for (lp_ref e = 1; e < end; e++) {
      lp_expr x = k->exprs[e];
      if (x.kind != LX_OP || x.op != IR_div || x.a[1] != sum || x.dtype != r->acc || (k->exprs[x.a[0]].kind == LX_CONST)) continue;
      lp_ref product = lp_op(k, IR_mul, x.dtype, x.a[0], inverse, 0);
      lp_replace(k, values, n, &e, &product, 1);
    }
  }
}

/* Rows of shape P that can be computed now: once, not in each step of the next stages. */
static void settle(loop_nest *ln, lp_cursor *at, int stage) {
  for (int i = 0; i < ln->n_reductions; i++) {
    reduction *r = &ln->reductions[i];
    bool last = r->stage == stage && ln->ready[r->row - lower_first(ln->lx)] == stage + 1;
    lp_ref index[TT_MAX_RANK];
    if (!last) continue;
    nest_index(ln, r->row, true, index);
    lower_hook(ln->lx, r->row, index, finished(ln, r));
    if (wants_inverse(ln, r)) r->inverse = nest_local(ln, at, "inverse", r->acc, lp_op(ln->k, IR_div, r->acc, lp_const(ln->k, r->acc, 1), finished(ln, r), 0));
  }
  for (ir_ref r = lower_first(ln->lx); r <= lower_last(ln->lx); r++) {
    const ir_node *n = ir_at(ln->g, r);
    lp_ref index[TT_MAX_RANK];
    if (!lower_inside(ln->lx, r) || !is_elementwise(n) || ln->ready[r - lower_first(ln->lx)] != stage + 1) continue;
    if (!nest_fits(ln, r, true) || !wants_local(ln, r)) continue;
    nest_index(ln, r, true, index);
    lower_hook(ln->lx, r, index, lp_get(ln->k, nest_local(ln, at, n->name, n->dtype, lower_pull(ln->lx, r, index)), 0));
  }
}

static void hook_kept(loop_nest *ln, lp_cursor *at, int stage) {
  lp_kernel *k = ln->k;
  for (int i = 0; i < ln->n_kept; i++) {
    kept_row *kept = &ln->kept[i];
    if (kept->stage > stage) continue;
    tt_dtype t = ir_at(ln->g, kept->row)->dtype;
    lp_ref index[TT_MAX_RANK], place = lp_add(k, lp_mul(k, reduced_number(ln), ln->width), ln->lane), value;
    nest_index(ln, kept->row, false, index);
    if (kept->stage == stage) {
      value = lp_get(k, nest_local(ln, at, "t", t, lower_pull(ln->lx, kept->row, index)), 0);
      lp_stmt *s = lp_append(k, at, LS_STORE);
      s->buffer = kept->buffer, s->index = place, s->value = value;
    } else {
      value = lp_load(k, kept->buffer, place, 0, 0);
    }
    lower_hook(ln->lx, kept->row, index, value);
  }
}

static void stage(loop_nest *ln, lp_cursor *at, int number) {
  lp_kernel *k = ln->k;
  int n = 0;
  lp_ref *values = malloc(((size_t)ln->n_reductions + 1) * sizeof *values);
  if (!values) {
    lower_fail(ln->lx, "no memory", lower_first(ln->lx));
    return;
  }
  for (int i = 0; i < ln->n_reductions; i++) {
    reduction *r = &ln->reductions[i];
    if (r->stage == number) r->local = nest_local(ln, at, "acc", r->acc, identity(k, r->op, r->acc));
  }
  if (ln->n_reduced > 0) {
    lp_cursor inside = *at;
    nest_open_reduced(ln, &inside);
    hook_kept(ln, &inside, number);
    for (int i = 0; i < ln->n_reductions; i++)
      if (ln->reductions[i].stage == number) values[n++] = nest_term(ln, &ln->reductions[i]);
    use_inverses(ln, values, n);
    weigh_pass(ln, values, n);
    nest_share(ln, &inside, values, n);
    n = 0;
    for (int i = 0; i < ln->n_reductions; i++) {
      if (ln->reductions[i].stage != number) continue;
      lp_stmt *s = lp_append(k, &inside, LS_REDUCE);
      s->local = ln->reductions[i].local, s->op = ln->reductions[i].op, s->value = values[n++];
    }
    nest_close(at);
  }
  free(values);
  settle(ln, at, number);
}

lp_stmt *nest_store(loop_nest *ln, lp_cursor *at, ir_ref result, const lp_ref *index, lp_ref value) {
  lp_stmt *s = lp_append(ln->k, at, LS_STORE);
  s->buffer = result_buffer(ln, result);
  s->index = lower_linear(ln->lx, result, index);
  s->value = value;
  s->stream = ln->core ? 0 : lower_streams(ln->lx, result);
  return s;
}

enum { PADDED_LOADS = 24 };
typedef struct { lp_ref at[PADDED_LOADS]; int n; bool all; } load_list;

static void guarded_loads(const lp_kernel *k, lp_ref e, lp_ref guard, load_list *l) {
  const lp_expr *x = &k->exprs[e];
  for (int i = 0; i < l->n; i++)
    if (l->at[i] == e) return;
  if (x->kind == LX_LOAD && x->a[1] == guard && !x->a[2]) {
    if (l->n == PADDED_LOADS) l->all = false;
    else l->at[l->n++] = e;
  } else if (x->kind != LX_LOCAL)
    for (int i = 0; i < 3; i++)
      if (x->a[i]) guarded_loads(k, x->a[i], guard, l);
}

/* Is e made of indices that are one for all lanes? */
static bool is_scalar_index(const loop_nest *ln, lp_ref e) {
  const lp_expr *x = &ln->k->exprs[e];
  const lp_expr *lane = &ln->k->exprs[ln->lane];
  bool reduced = ln->vec >= 0 && ln->groups[ln->vec].reduced;
  if (x->kind == LX_VAR) return reduced ? x->imm != ln->groups[ln->vec].var : lane->kind != LX_VAR || x->imm != lane->imm;
  if (x->kind == LX_CONST) return true;
  if (x->kind != LX_OP) return false;
  for (int i = 0; i < 3; i++)
    if (x->a[i] && !is_scalar_index(ln, x->a[i])) return false;
  return true;
}

/* A padded result: one branch for a whole vector, which then is loaded, computed and stored without masks, or is the padding.
 * false: the value is of another kind. */
static bool store_padded(loop_nest *ln, lp_cursor *at, ir_ref r, const lp_ref *index, lp_ref value) {
  lp_kernel *k = ln->k;
  const lp_expr v = k->exprs[value];
  if (v.kind != LX_OP || v.op != IR_select || k->exprs[v.a[2]].kind != LX_CONST || k->exprs[v.a[0]].kind == LX_CONST || !is_scalar_index(ln, v.a[0])) return false;
  load_list l = {.all = true};
  guarded_loads(k, v.a[1], v.a[0], &l);
  if (!l.n || !l.all) return false;
  lp_ref to[PADDED_LOADS], image = v.a[1], guard = v.a[0];
  for (int i = 0; i < l.n; i++) to[i] = lp_load(k, (int)k->exprs[l.at[i]].imm, k->exprs[l.at[i]].a[0], 0, 0);
  lp_replace(k, &image, 1, l.at, to, l.n);
  for (int padding = 0; padding < 2; padding++) {
    lp_stmt *s = lp_append(k, at, LS_IF);
    s->guard = padding ? lp_op(k, IR_not, TT_BOOL, guard, 0, 0) : guard;
    lp_cursor inside = {&s->body};
    nest_store(ln, &inside, r, index, padding ? v.a[2] : image);
  }
  return true;
}

/* Is r stored once for an element of P? Where nothing is reduced that is S, and sums down the rows go with it. */
static bool stored_with_p(const loop_nest *ln, ir_ref r) { return nest_down(ln, r) ? ln->flat : nest_fits(ln, r, true); }

static void put_down(loop_nest *ln, lp_cursor *at, const down_sum *d, lp_ref value) {
  lp_stmt *s = lp_append(ln->k, at, LS_STORE);
  s->buffer = result_buffer(ln, d->row), s->index = nest_down_place(ln, d), s->value = value;
}

/* What `rows` rows of `each` values have for sums down the rows goes to those of the first row, added to what the block has so far. That is read before anything is
 * stored: stores on their way past the caches hold up loads that are a multiple of 4 KiB from them. */
static void add_down(loop_nest *ln, lp_cursor *at, lp_ref *values, int each, int rows, bool p_only) {
  lp_kernel *k = ln->k;
  for (int i = 0, place = 0; i < lower_n_results(ln->lx); i++) {
    const down_sum *d = nest_down(ln, lower_result(ln->lx, i));
    if (stored_with_p(ln, lower_result(ln->lx, i)) != p_only) continue;
    tt_dtype t = k->exprs[values[place]].dtype;
    for (int j = 1; d && j < rows; j++) values[place] = lp_op(k, IR_add, t, values[place], values[place + j * each], 0);
    if (d) values[place] = lp_get(k, nest_local(ln, at, "sum", t, lp_op(k, IR_add, t, lp_load(k, result_buffer(ln, d->row), nest_down_place(ln, d), 0, 0), values[place], 0)), 0);
    place++;
  }
}

/* Stores the results of shape P, or the others, of all rows that are taken together. All values stand in locals before the first store: a result may lie
 * over an argument. */
static void store_results(loop_nest *ln, lp_cursor *at, bool p_only) {
  lp_kernel *k = ln->k;
  int n = lower_n_results(ln->lx), m = 0, rows = ln->n_downs && p_only == ln->flat ? (int)ln->together : 1;
  lp_ref *values = malloc(((size_t)(n * rows) + 1) * sizeof *values), index[TT_MAX_RANK];
  if (!values) {
    lower_fail(ln->lx, "no memory", lower_first(ln->lx));
    return;
  }
  for (int pass = 0; pass < 2; pass++) {
    if (pass) use_inverses(ln, values, m);
    if (pass && !p_only) weigh_pass(ln, values, m);
    bool alone = pass && n == 1 && m == 1 && ln->n_stages == 0 && !ln->n_downs;
    if (alone) {
      nest_index(ln, lower_result(ln->lx, 0), p_only, index);
      if (store_padded(ln, at, lower_result(ln->lx, 0), index, values[0])) break;
    }
    if (pass) nest_share(ln, at, values, m);
    for (int i = 0; pass && m > 1 && i < m; i++)
      if (k->exprs[values[i]].kind != LX_LOCAL && k->exprs[values[i]].kind != LX_CONST)
        values[i] = lp_get(k, nest_local(ln, at, "y", k->exprs[values[i]].dtype, values[i]), 0);
    if (pass) add_down(ln, at, values, m / rows, rows, p_only);
    m = 0;
    for (int j = 0; j < rows; j++) {
      if (rows > 1) set_row(ln, lp_add(k, ln->row, lp_int(k, j)));
      for (int i = 0; i < n; i++) {
        ir_ref r = lower_result(ln->lx, i);
        const down_sum *d = nest_down(ln, r);
        if (stored_with_p(ln, r) != p_only) continue;
        if (!d) nest_index(ln, r, p_only, index);
        if (pass == 0) values[m] = d ? lower_pull(ln->lx, d->base, ln->at) : lower_pull(ln->lx, r, index);
        else if (!d) nest_store(ln, at, r, index, values[m]);
        else if (j == 0) put_down(ln, at, d, values[m]);
        m++;
      }
    }
  }
  free(values);
}

static void body_reductions(loop_nest *ln, lp_cursor *outside) {
  lp_cursor at = *outside;
  ln->n_passes = 0;
  nest_open_vector(ln, &at);
  for (int s = 0; s < ln->n_stages; s++) stage(ln, &at, s);
  bool any_full = false;
  for (int i = 0; i < lower_n_results(ln->lx); i++) any_full |= !stored_with_p(ln, lower_result(ln->lx, i));
  if (any_full && ln->n_reduced > 0) {
    lp_cursor inside = at;
    nest_open_reduced(ln, &inside);
    hook_kept(ln, &inside, ln->n_stages);
    store_results(ln, &inside, false);
    nest_close(&at);
  }
  nest_prefetch(ln);
  lp_stmt **body = at.tail;
  store_results(ln, &at, true);
  nest_prefetch_flat(ln, body);
}

/* ---- reading the kernel ---- */

static void add_reduction(loop_nest *ln, ir_ref r, int at_stage) {
  const ir_node *n = ir_at(ln->g, r);
  tt_dtype x = ir_at(ln->g, n->args[0])->dtype;
  bool is_arg = n->op == IR_argmax || n->op == IR_argmin, is_max = n->op == IR_amax || n->op == IR_argmax, is_sum = n->op == IR_sum || n->op == IR_fold;
  ir_op op = is_sum ? IR_add : n->op == IR_prod ? IR_mul : x == TT_BOOL ? (is_max ? IR_or : IR_and) : is_max ? IR_max : IR_min;
  ln->reductions[ln->n_reductions++] = (reduction){.row = r, .stage = at_stage, .op = op, .acc = nest_acc_type(x)};
  if (is_arg) {
    ln->reductions[ln->n_reductions] = (reduction){.row = r, .stage = at_stage + 1, .op = IR_min, .acc = TT_I64, .is_index = true, .key = ln->n_reductions - 1};
    ln->n_reductions++;
  }
}

/* A sum down the rows that the kernel goes over (form_down says the same). */
static bool is_down(const loop_nest *ln, ir_ref r, pass_down *d) {
  const ir_node *n = ir_at(ln->g, r);
  if (n->op != IR_sum || !pass_down_of(ln->g, r, lower_inside(ln->lx, n->args[0]), d)) return false;
  for (ir_ref u = r + 1; u <= lower_last(ln->lx); u++)
    for (uint32_t i = 0; lower_inside(ln->lx, u) && i < ir_at(ln->g, u)->n_args; i++)
      if (ir_at(ln->g, u)->args[i] == r) return false;
  return true;
}

static bool read_rows(loop_nest *ln) {
  ir_ref first = lower_first(ln->lx), last = lower_last(ln->lx);
  ln->ready = calloc(last - first + 1, sizeof *ln->ready);
  ln->reductions = malloc(2 * (size_t)(last - first + 1) * sizeof *ln->reductions);
  if (!ln->ready || !ln->reductions) return lower_fail(ln->lx, "no memory", first), false;
  for (ir_ref r = first; r <= last; r++) {
    const ir_node *n = ir_at(ln->g, r);
    if (!lower_inside(ln->lx, r)) continue;
    int ready = 0;
    pass_down d;
    for (uint32_t i = 0; i < n->n_args; i++)
      if (lower_inside(ln->lx, n->args[i]) && ln->ready[n->args[i] - first] > ready) ready = ln->ready[n->args[i] - first];
    if (n->op == IR_cumsum || n->op == IR_scatter_add || n->op == IR_dynamic_update_slice) {
      ln->core = r;
    } else if (is_down(ln, r, &d)) {
      if (ln->n_downs == MAX_DOWNS) return lower_fail(ln->lx, "it has too many sums down its rows", r), false;
      ln->downs[ln->n_downs++] = (down_sum){r, d.base};
      ln->n_lead = d.n_lead, ln->blocks = d.blocks;
    } else if (ir_ops[n->op].kind == IR_REDUCTION || n->op == IR_fold) {
      add_reduction(ln, r, ready);
      ready += n->op == IR_argmax || n->op == IR_argmin ? 2 : 1;
    }
    ln->ready[r - first] = ready;
    if (ready > ln->n_stages) ln->n_stages = ready;
  }
  return true;
}

static int64_t plan_number(const loop_nest *ln, const char *name, int64_t otherwise) {
  uint32_t n;
  const int64_t *v = ir_kernel_get(ln->g, ln->lx->region, name, &n);
  return v && n && v[0] > 0 ? v[0] : otherwise;
}

/* Is row r written into the memory of row x? memory.c's pairs say so. */
static bool lies_over(const loop_nest *ln, ir_ref r, ir_ref x) {
  static const char *const names[2] = {"inplace", "reuse"};
  for (int i = 0; i < 2; i++) {
    uint32_t n;
    const int64_t *v = ir_kernel_get(ln->g, ln->lx->region, names[i], &n);
    for (uint32_t j = 0; v && j + 1 < n; j += 2)
      if (v[j] == (int64_t)r && v[j + 1] == (int64_t)x) return true;
  }
  return false;
}

static bool read_space(loop_nest *ln) {
  uint32_t n, n_reduce;
  const int64_t *dims = ir_kernel_get(ln->g, ln->lx->region, "space", &n), *axes = ir_kernel_get(ln->g, ln->lx->region, "reduce", &n_reduce);
  if (ln->core) {
    const ir_node *c = ir_at(ln->g, ln->core);
    ln->in_place = lies_over(ln, ln->core, c->args[0]);
    ln->space = ir_shape(ln->g, c->op == IR_scatter_add ? c->args[2] : c->op == IR_dynamic_update_slice && ln->in_place ? c->args[1] : ln->core);
    if (c->op != IR_dynamic_update_slice) ln->in_r[ir_int(c, "axis")] = true;
  } else {
    if (!dims) n = 0;
    if (n > TT_MAX_RANK) return lower_fail(ln->lx, "its space has too many axes", lower_first(ln->lx)), false;
    ln->space.rank = (int)n;
    for (uint32_t i = 0; i < n; i++) ln->space.dim[i] = dims[i];
    for (int i = 0; i < ln->n_reductions; i++) {       /* a plan may come from a text that somebody edited */
      tt_shape from = ir_shape(ln->g, ir_at(ln->g, ln->reductions[i].row)->args[0]);
      bool same = ir_at(ln->g, ln->reductions[i].row)->op == IR_fold || tt_shape_equal(&from, &ln->space);
      if (!same) return lower_fail(ln->lx, "what it reduces has another shape than the space", ln->reductions[i].row), false;
    }
    for (uint32_t i = 0; axes && i < n_reduce; i++) {
      if (axes[i] < 0 || axes[i] >= n) return lower_fail(ln->lx, "it reduces an axis that its space has not", lower_first(ln->lx)), false;
      ln->in_r[axes[i]] = true;
    }
    for (int i = 0; i < ln->n_downs; i++) {
      tt_shape from = ir_shape(ln->g, ln->downs[i].base);
      bool same = tt_shape_equal(&from, &ln->space);
      for (int a = 0; a < ln->n_lead; a++) same &= !ln->in_r[a];
      if (!same) return lower_fail(ln->lx, "what it sums down its rows has another shape than the space", ln->downs[i].row), false;
    }
    for (int i = 0; i < lower_n_results(ln->lx); i++) {
      ir_ref r = lower_result(ln->lx, i);
      if (nest_down(ln, r)) continue;
      if (!nest_fits(ln, r, true) && !nest_fits(ln, r, false)) return lower_fail(ln->lx, "a result has another shape than the space", r), false;
    }
  }
  ln->flat = true;
  for (int a = 0; a < ln->space.rank; a++) ln->flat &= !ln->in_r[a];
  for (int reduced = 0; reduced < 2; reduced++)
    for (int a = 0; a < ln->space.rank; a++)
      if (ln->in_r[a] == reduced && ln->space.dim[a] != 1) ln->groups[ln->n_groups++] = (loop_group){.axes = {a}, .n = 1, .extent = ln->space.dim[a], .reduced = reduced};
  return true;
}

lp_kernel *cg_lower(const ir_graph *g, uint32_t region, const cg_cpu *cpu, ir_ref *rows, int max_rows, tt_error *err) {
  uint32_t n;
  const int64_t *kind = ir_kernel_get(g, region, "kind", &n);
  if (kind && n && kind[0] == 1) return cg_lower_contract(g, region, cpu, rows, max_rows, err);
  lp_kernel *k = lp_new(g->kernels[region].name, 0);
  lower_ctx *lx = k ? lower_begin(g, region, k, cpu, err) : NULL;
  loop_nest ln = {.lx = lx, .k = k, .g = g, .vec = -1, .across = -1, .columns = -1};
  bool ok = lx && read_rows(&ln) && read_space(&ln);
  if (ok) {
    ln.lanes = plan_number(&ln, "lanes", cpu->vector_bytes / 4);
    ln.grain = plan_number(&ln, "grain", 16384);
    for (int i = 0; i < ln.space.rank; i++) ln.at[i] = lp_int(k, 0);
    ln.place = ln.lane = ln.block = ln.row = lp_int(k, 0);
    bool empty = false;
    for (int i = 0; i < ln.n_groups; i++) empty |= ln.groups[i].extent == 0;
    ok = empty || nest_choose(&ln);
    nest_sizes(&ln);
    if (ok && !empty) ok = nest_keep(&ln);
    if (ok && ln.across >= 0) nest_tiles(&ln, body_reductions);
    else if (ok) nest_tasks(&ln, ln.core ? nest_body_special : body_reductions);
    if (ok) lp_unroll(k);
    ok = ok && lower_arguments(lx, rows, max_rows);
  }
  free(ln.ready);
  free(ln.reductions);
  lower_end(lx);
  if (ok) return k;
  lp_free(k);
  if (!lx) tt_fail(err, TT_NO_MEMORY, "lower: no memory");
  return NULL;
}
