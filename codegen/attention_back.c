/* attention_back.c: the derivatives of attention from its sums, as one kernel whose scores stay in cache (Dao 2023): probabilities are made again by blocks.
 *
 *     task = one head of k and v, and all heads of q that share it
 *       K, V = k, v;  dK, dV = 0                                copied, rows padded with zeros
 *       for each of these heads, for each block of rows of q
 *         Q, dY = q, dy; Q', dY' the same, transposed by panels of L lanes;  dQ = 0
 *         for each block of columns that some of these rows see
 *           P[j][i] = exp(sum over d of K[j][d] Q'[d][i] * scale - lse[i])
 *           dS[j][i] = P[j][i] * (sum over e of V[j][e] dY'[e][i] - delta[i])
 *           dV[j][e] += sum over i of P[j][i] dY[i][e]
 *           dK[j][d] += sum over i of dS[j][i] Q[i][d]
 *           dQ[i][d] += sum over j of dS[j][i] K[j][d]
 *         dq = dQ * scale
 *       dk, dv = dK * scale, dV
 *
 * All five products are register tiles over scratch alone, with the numbers of a row, or rows of q, across the lanes. Rows and columns past the end are zeros in scratch and
 * add nothing. Scratch has K, V, dK and dV of one head: it grows with the number of columns, never with its square.
 *
 * Where only dq is wanted a task is a block of rows, where it is not a block of columns. */
#include <float.h>
#include <math.h>

#include "attention.h"

typedef struct {
  attend *a;
  int64_t rows, row_blocks, W;                     /* rows of q in a block; W: the same, in whole panels */
  int64_t span, col_blocks;                        /* columns of a task; in so many blocks of a->Bk */
  int64_t wide[2], lanes[2], most[2];              /* of rows of q and k, of v and dy: numbers with padding, lanes and rows of a tile */
  int q, dy, q_turned, dy_turned, lse, delta, k, v, dq, dk, dv, p, ds;          /* scratch; lse: -lse log2(e) */
  lp_ref kv[TT_MAX_RANK];                          /* leading index of k and v */
  lp_ref base;                                     /* the task's first column */
} back;

/* to[row][lane] += sum over steps of by[row][step] * with[step][lane], from places *_at on; add: to what is there, else to 0. */
typedef struct {
  int to, by, with;
  lp_ref to_at, by_at, with_at, lane;
  int64_t to_row, by_row, by_step, with_step, rows, steps, most;
  bool add;
} product;

static void tiles(attend *a, lp_cursor *outer, const product *t, int64_t from, int64_t n, int64_t rows) {
  lp_kernel *k = a->k;
  lp_cursor at = *outer;
  lp_ref first = add(a, lp_mul(k, loop(a, &at, "t", n, 0), rows), from), to[64];
  int acc = lp_local_add(k, "acc", TT_F32, (int)rows), v = lp_local_add(k, "v", TT_F32, 1);
  lp_stmt *s = lp_append(k, &at, LS_LOCAL);
  s->local = acc, s->value = number(a, 0);
  for (int64_t i = 0; i < rows; i++) {
    to[i] = lp_add(k, t->to_at, at2(a, add(a, first, i), t->to_row, t->lane));
    if (!t->add) continue;
    s = lp_append(k, &at, LS_SET);
    s->local = acc, s->index = lp_int(k, i), s->value = lp_load(k, t->to, to[i], 0, 0);
  }
  lp_cursor inside = at;
  lp_ref step = by_four(a, &inside, "k", t->steps);
  s = lp_append(k, &inside, LS_LOCAL);
  s->local = v, s->value = lp_load(k, t->with, lp_add(k, t->with_at, at2(a, step, t->with_step, t->lane)), 0, 0);
  for (int64_t i = 0; i < rows; i++) {
    lp_ref scalar = lp_load(k, t->by, lp_add(k, t->by_at, lp_add(k, lp_mul(k, add(a, first, i), t->by_row), lp_mul(k, step, t->by_step))), 0, 0);
    s = lp_append(k, &inside, LS_SET);
    s->local = acc, s->index = lp_int(k, i), s->value = lp_fma(k, scalar, lp_get(k, v, 0), lp_get(k, acc, s->index));
  }
  end(&at);
  for (int64_t i = 0; i < rows; i++) store(a, &at, t->to, to[i], lp_get(k, acc, lp_int(k, i)));
  end(outer);
}

/* Tiles are equal where some that are not much smaller divide the rows. */
static void multiply(attend *a, lp_cursor *outer, const product *t) {
  int64_t rows = t->most < t->rows ? t->most : t->rows;
  for (int64_t r = rows; 2 * r >= rows; r--)
    if (t->rows % r == 0) {
      tiles(a, outer, t, 0, t->rows / r, r);
      return;
    }
  tiles(a, outer, t, 0, t->rows / rows, rows);
  tiles(a, outer, t, t->rows / rows * rows, 1, t->rows % rows);
}

static lp_ref both(attend *a, lp_ref x, lp_ref y) { return !x ? y : !y ? x : op2(a, IR_and, TT_BOOL, x, y); }

/* n rows of operand i from row `from` on, with zeros from row `rows` (0: there are that many) and number `numbers` on. */
static void copy(back *b, lp_cursor *outer, int i, int to, lp_ref from, int64_t n, lp_ref rows, int side) {
  attend *a = b->a;
  lp_cursor at = *outer;
  int64_t numbers = side ? a->E : a->D;
  lp_ref row = loop(a, &at, "r", n, 0), d = loop(a, &at, "d", b->wide[side], (int)b->lanes[side]), place = lp_add(a->k, from, row);
  lp_ref guard = both(a, rows ? op2(a, IR_lt, TT_BOOL, place, rows) : 0, b->wide[side] > numbers ? op2(a, IR_lt, TT_BOOL, d, lp_int(a->k, numbers)) : 0);
  store(a, &at, to, at2(a, row, b->wide[side], d), att_operand(a, i, place, d, guard));
  end(outer);
}

static void turn(back *b, lp_cursor *outer, int from, int to, int side) {
  attend *a = b->a;
  lp_cursor at = *outer;
  lp_ref panel = loop(a, &at, "p", a->panels, 0), lane = loop(a, &at, "l", a->L, (int)a->L), d = lp_mul(a->k, loop(a, &at, "d", b->wide[side] / 4, 0), 4);
  int var = lp_var_add(a->k, "c", 4);
  lp_for(a->k, &at, var, 0, 4, 0, &at)->unroll = true;
  d = lp_add(a->k, d, lp_var(a->k, var));
  store(a, &at, to, at2(a, at2(a, panel, b->wide[side], d), a->L, lane), lp_load(a->k, from, at2(a, at2(a, panel, a->L, lane), b->wide[side], d), 0, 0));
  end(outer);
}

static void clear(back *b, lp_cursor *outer, int buffer, int64_t rows, int side) {
  lp_cursor at = *outer;
  lp_ref row = loop(b->a, &at, "r", rows, 0), d = loop(b->a, &at, "d", b->wide[side], (int)b->lanes[side]);
  store(b->a, &at, buffer, at2(b->a, row, b->wide[side], d), number(b->a, 0));
  end(outer);
}

static bool scored(const back *b) { return b->a->result[2] || b->a->result[3]; }      /* is dS needed? */

/* A block of rows of q, and all that its columns read of it. */
static void begin(back *b, lp_cursor *outer) {
  attend *a = b->a;
  lp_kernel *k = a->k;
  bool whole = a->T == b->rows * b->row_blocks && b->W == b->rows;
  lp_ref rows = whole ? 0 : lp_int(k, a->T);
  copy(b, outer, 0, b->q, a->first, b->W, rows, 0);
  copy(b, outer, 3, b->dy, a->first, b->W, rows, 1);
  turn(b, outer, b->q, b->q_turned, 0);
  if (scored(b)) turn(b, outer, b->dy, b->dy_turned, 1);
  if (a->result[2]) clear(b, outer, b->dq, b->rows, 0);
  lp_cursor at = *outer;
  lp_ref lane = loop(a, &at, "l", b->W, (int)a->L), row = lp_add(k, a->first, lane), guard = whole ? 0 : op2(a, IR_lt, TT_BOOL, row, rows), largest = number(a, FLT_MAX);
  lp_ref lse = con_keep(k, &at, TT_F32, op2(a, IR_mul, TT_F32, att_operand(a, 4, row, 0, guard), number(a, -M_LOG2E)));
  store(a, &at, b->lse, lane, lp_op(k, IR_select, TT_F32, op2(a, IR_lt, TT_BOOL, largest, lse), largest, lse));
  if (scored(b)) store(a, &at, b->delta, lane, att_operand(a, 5, row, 0, guard));
  end(outer);
}

/* P and dS of the block of columns that begins at `from` (of the task), for one panel. */
static void panel_scores(back *b, lp_cursor at, lp_ref from, lp_ref panel) {
  attend *a = b->a;
  lp_kernel *k = a->k;
  lp_ref lane = loop(a, &at, "l", a->L, (int)a->L), i = at2(a, panel, a->L, lane), row = lp_add(k, a->first, i);
  product t = {.to = b->p, .by = b->k, .with = b->q_turned, .to_at = lp_mul(k, panel, a->L), .by_at = lp_mul(k, from, b->wide[0]), .with_at = lp_mul(k, panel, b->wide[0] * a->L), .lane = lane,
               .to_row = b->W, .by_row = b->wide[0], .by_step = 1, .with_step = a->L, .rows = a->Bk, .steps = a->D, .most = a->R};
  multiply(a, &at, &t);
  if (scored(b)) {
    t.to = b->ds, t.by = b->v, t.with = b->dy_turned, t.by_at = lp_mul(k, from, b->wide[1]), t.with_at = lp_mul(k, panel, b->wide[1] * a->L), t.by_row = b->wide[1], t.steps = a->E;
    multiply(a, &at, &t);
  }
  lp_ref limit = att_limit(a, &at, row), lse = con_keep(k, &at, TT_F32, lp_load(k, b->lse, i, 0, 0)), delta = 0;
  lp_ref slack = con_keep(k, &at, TT_F32, op2(a, IR_mul, TT_F32, lp_op(k, IR_abs, TT_F32, lse, 0, 0), number(a, 0x1p-21)));       /* so far above 1 rounding of large sums may lift a probability */
  if (scored(b)) delta = con_keep(k, &at, TT_F32, lp_load(k, b->delta, i, 0, 0));
  lp_ref step = loop(a, &at, "j", a->Bk, 0), column = lp_add(k, b->base, lp_add(k, from, step)), place = at2(a, step, b->W, i), zero = number(a, 0);
  lp_ref score = lp_load(k, b->p, place, 0, 0), scale = number(a, a->o.scale * M_LOG2E), x;
  if (limit || a->o.mask) x = op2(a, IR_add, TT_F32, att_masked(a, &at, op2(a, IR_min, TT_I64, row, lp_int(k, a->T - 1)), column, limit, con_keep(k, &at, TT_F32, op2(a, IR_mul, TT_F32, score, scale))), lse);
  else x = lp_fma(k, score, scale, lse);
  x = con_keep(k, &at, TT_F32, x);
  lp_ref most = lp_op(k, IR_select, TT_F32, op2(a, IR_lt, TT_BOOL, slack, x), number(a, 127), zero);
  lp_ref p = con_keep(k, &at, TT_F32, att_power(a, &at, lp_op(k, IR_select, TT_F32, op2(a, IR_lt, TT_BOOL, most, x), most, x)));
  store(a, &at, b->p, place, p);
  if (scored(b)) store(a, &at, b->ds, place, op2(a, IR_mul, TT_F32, p, op2(a, IR_sub, TT_F32, lp_load(k, b->ds, place, 0, 0), delta)));
}

/* One block of rows of q and one of columns. */
static void block(back *b, lp_cursor at, lp_ref from) {
  attend *a = b->a;
  lp_kernel *k = a->k;
  lp_cursor inside = at;
  lp_ref panel = loop(a, &inside, "p", a->panels, 0);
  if (a->o.causal && !a->o.length && a->panels > 1) {                  /* a panel that sees none of it */
    lp_ref seen = op2(a, IR_lt, TT_BOOL, lp_add(k, b->base, from), lp_add(k, a->first, lp_mul(k, add(a, panel, 1), a->L)));
    lp_cursor other = inside;
    only_if(a, &other, op2(a, IR_ge, TT_BOOL, lp_add(k, b->base, from), lp_add(k, a->first, lp_mul(k, add(a, panel, 1), a->L))));
    lp_ref step = loop(a, &other, "j", a->Bk, 0), lane = loop(a, &other, "l", a->L, (int)a->L), place = at2(a, step, b->W, at2(a, panel, a->L, lane));
    store(a, &other, b->p, place, number(a, 0));
    if (scored(b)) store(a, &other, b->ds, place, number(a, 0));
    end(&inside);
    only_if(a, &inside, seen);
  }
  panel_scores(b, inside, from, panel);
  end(&at);
  for (int which = 2; which < ATT_RESULTS; which++) {
    if (!a->result[which]) continue;
    int side = which == 4;
    inside = at;
    lp_ref lane = loop(a, &inside, "d", b->wide[side], (int)b->lanes[side]), columns = lp_mul(k, from, b->wide[side]), zero = lp_int(k, 0);
    product t = {.by = side ? b->p : b->ds, .by_at = zero, .to_at = columns, .with_at = zero, .lane = lane, .to_row = b->wide[side], .with_step = b->wide[side], .most = b->most[side], .add = true};
    if (which == 2) t.to = b->dq, t.with = b->k, t.to_at = zero, t.with_at = columns, t.by_row = 1, t.by_step = b->W, t.rows = b->rows, t.steps = a->Bk;
    else t.to = side ? b->dv : b->dk, t.with = side ? b->dy : b->q, t.by_row = b->W, t.by_step = 1, t.rows = a->Bk, t.steps = b->rows;
    multiply(a, &inside, &t);
    end(&at);
  }
}

/* n rows of scratch, times scale, to result `which` from row `from` on, of which there are `rows`. */
static void put(back *b, lp_cursor *outer, int which, int buffer, lp_ref from, int64_t n, int64_t rows, bool whole) {
  attend *a = b->a;
  lp_kernel *k = a->k;
  lp_cursor at = *outer;
  int side = which == 4;
  lp_ref index[TT_MAX_RANK], i = loop(a, &at, "r", n, 0), row = lp_add(k, from, i);
  if (!whole) only_if(a, &at, op2(a, IR_lt, TT_BOOL, row, lp_int(k, rows)));
  lp_ref d = loop(a, &at, "d", side ? a->E : a->D, (int)b->lanes[side]), value = lp_load(k, buffer, at2(a, i, b->wide[side], d), 0, 0);
  at_row(a, index, row, d);
  for (int64_t j = 0; which > 2 && j < a->rank - 2; j++) index[j] = b->kv[j];
  con_store(a->lx, a->result[which], &at, index, which == 4 ? value : op2(a, IR_mul, TT_F32, value, number(a, a->o.scale)));
  end(outer);
}

static void choose(back *b) {
  attend *a = b->a;
  const cg_cpu *cpu = a->lx->cpu;
  int64_t lanes = cpu->vector_bytes / 4, n = a->T > 96 ? (a->T + 63) / 64 : 1, columns = a->o.causal && !a->o.length && a->T <= 512 ? 32 : a->S <= 96 ? 96 : 64, each;
  b->rows = (a->T + n - 1) / n, b->row_blocks = (a->T + b->rows - 1) / b->rows;
  a->L = lanes * att_vectors(b->rows, lanes, &a->R, cpu);
  a->panels = (b->rows + a->L - 1) / a->L, b->W = a->panels * a->L;
  n = (a->S + columns - 1) / columns, each = (a->S + n - 1) / n;
  a->Bk = (each + a->R - 1) / a->R * a->R;
  for (int64_t r = a->R - 1; 3 * r >= 2 * a->R; r--)
    if ((each + r - 1) / r * r < a->Bk) a->Bk = (each + r - 1) / r * r;
  b->col_blocks = (a->S + a->Bk - 1) / a->Bk;
  for (int side = 0; side < 2; side++) {
    int64_t numbers = side ? a->E : a->D;
    b->lanes[side] = lanes * att_vectors(numbers, lanes, &b->most[side], cpu);
    b->wide[side] = (numbers + b->lanes[side] - 1) / b->lanes[side] * b->lanes[side];
  }
}

static int scratch(back *b, const char *name, int64_t count) { return lp_buffer_add(b->a->k, name, TT_F32, count, true, true); }

void con_attention_back(attend *a) {
  back w = {.a = a}, *b = &w;
  lp_kernel *k = a->k;
  const ir_node *q = ir_at(a->lx->g, a->n->args[0]);
  choose(b);
  bool columns = a->result[3] || a->result[4], apart = columns && !a->result[2], dq_alone = !columns;
  int64_t blocks = dq_alone ? b->row_blocks : apart ? b->col_blocks : 1, heads = dq_alone ? a->heads : a->heads / a->shared;
  b->span = apart ? a->Bk : b->col_blocks * a->Bk;
  k->tasks = heads * blocks;
  b->q = scratch(b, "Q", b->W * w.wide[0]), b->q_turned = scratch(b, "Qt", b->W * w.wide[0]), b->dy = scratch(b, "dY", b->W * w.wide[1]), b->lse = scratch(b, "lse", b->W);
  b->k = scratch(b, "K", b->span * w.wide[0]), b->p = scratch(b, "P", a->Bk * b->W);
  if (scored(b)) b->dy_turned = scratch(b, "dYt", b->W * w.wide[1]), b->delta = scratch(b, "delta", b->W), b->v = scratch(b, "V", b->span * w.wide[1]), b->ds = scratch(b, "dS", a->Bk * b->W);
  if (a->result[2]) b->dq = scratch(b, "dQ", b->rows * w.wide[0]);
  if (a->result[3]) b->dk = scratch(b, "dK", b->span * w.wide[0]);
  if (a->result[4]) b->dv = scratch(b, "dV", b->span * w.wide[1]);

  lp_ref head = lp_div(k, lp_var(k, 0), blocks), part = lp_mod(k, lp_var(k, 0), blocks);
  for (int i = q->rank - 3; i >= 0; i--) {
    int64_t n = i == q->rank - 3 && !dq_alone ? q->dim[i] / a->shared : q->dim[i];
    a->head[i] = b->kv[i] = i ? lp_mod(k, head, n) : head, head = lp_div(k, head, n);
    if (i == q->rank - 3) b->kv[i] = dq_alone ? lp_div(k, a->head[i], a->shared) : a->head[i], a->head[i] = dq_alone ? a->head[i] : lp_mul(k, a->head[i], a->shared);
  }
  b->base = apart ? lp_mul(k, part, a->Bk) : lp_int(k, 0);
  lp_cursor at = {&k->body};
  att_columns(a, &at);
  bool whole = a->S == b->col_blocks * a->Bk;
  lp_ref rows = a->o.length ? a->live : whole ? 0 : lp_int(k, a->S);
  copy(b, &at, 1, b->k, b->base, b->span, rows, 0);
  if (scored(b)) copy(b, &at, 2, b->v, b->base, b->span, rows, 1);
  if (a->result[3]) clear(b, &at, b->dk, b->span, 0);
  if (a->result[4]) clear(b, &at, b->dv, b->span, 1);
  lp_cursor inside = at;
  if (a->shared > 1 && !dq_alone) a->head[q->rank - 3] = lp_add(k, a->head[q->rank - 3], loop(a, &inside, "h", a->shared, 0));
  a->first = lp_mul(k, dq_alone ? part : loop(a, &inside, "rows", b->row_blocks, 0), b->rows);
  begin(b, &inside);
  lp_cursor deep = inside;
  lp_ref from = lp_mul(k, loop(a, &deep, "block", b->span / a->Bk, 0), a->Bk), column = lp_add(k, b->base, from);
  if (a->o.length) only_if(a, &deep, op2(a, IR_lt, TT_BOOL, column, a->live));
  if (a->o.causal && !a->o.length) only_if(a, &deep, op2(a, IR_lt, TT_BOOL, column, add(a, a->first, b->rows)));
  block(b, deep, from);
  end(&inside);
  if (a->result[2]) put(b, &inside, 2, b->dq, a->first, b->rows, a->T, a->T == b->rows * b->row_blocks);
  end(&at);
  if (a->result[3]) put(b, &at, 3, b->dk, b->base, b->span, a->S, whole);
  if (a->result[4]) put(b, &at, 4, b->dv, b->base, b->span, a->S, whole);
}
