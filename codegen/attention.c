/* attention.c: attention as one kernel whose scores stay in cache (Dao et al. 2022; FlashAttention-2, Dao 2023).
 *
 *     task = a block of rows of q, in panels of L lanes
 *       Q[d][l] = q * scale * log2(e)                          the panel, transposed
 *       for each block of columns, for each panel that sees some of it
 *         S[k][l] = sum over d of k[k][d] * Q[d][l]            register tiles of R columns x L rows of q
 *         m' = max(m, S), P = 2^(S - m'), the sum and what was made so far times 2^(m - m')
 *         O[e][l] += sum over k of v[k][e] * P[k][l]           register tiles of R x L
 *       y = O / sum, lse = m ln 2 + log(sum)
 *
 * Rows of q lie across the lanes, so maxima and sums are of whole vectors, and k and v are read where they stand, number by number. A block that no
 * row of a panel sees (causal, or past the live length) is skipped. Scratch is that of one block: nothing grows with the number of columns. */
#include <float.h>
#include <math.h>

#include "attention.h"

lp_ref att_operand(attend *a, int i, lp_ref row, lp_ref d, lp_ref guard) {
  lp_ref index[TT_MAX_RANK];
  at_row(a, index, row, d);
  if ((i == 1 || i == 2) && a->rank > 2) index[a->rank - 3] = lp_div(a->k, index[a->rank - 3], a->shared);
  return lower_pull_if(a->lx, a->n->args[i], index, guard, 0);
}

static lp_ref operand(attend *a, int i, lp_ref row, lp_ref d) { return att_operand(a, i, row, d, 0); }

/* The row of q in a lane of a panel. A panel that reaches over the last row lies over the one before it, so that its rows stand a stride apart. */
static lp_ref row_at(attend *a, lp_ref panel, lp_ref lane) {
  lp_ref first = lp_add(a->k, a->first, lp_mul(a->k, panel, a->L));
  if (a->T < a->L) return op2(a, IR_min, TT_I64, lp_add(a->k, first, lane), lp_int(a->k, a->T - 1));
  if (a->T % (a->panels * a->L)) first = op2(a, IR_min, TT_I64, first, lp_int(a->k, a->T - a->L));
  return lp_add(a->k, first, lane);
}

/* Below -126.5 it is 0. x = n + r; the polynomial is minimax for |r| <= 1/2. */
lp_ref att_power(attend *a, lp_cursor *at, lp_ref x) {
  static const double c[] = {1, 0.693147182, 0.240226462, 0.0555032901, 0.00961812921, 0.00133998809, 0.000154346};
  lp_kernel *k = a->k;
  x = lp_op(k, IR_select, TT_F32, op2(a, IR_lt, TT_BOOL, x, number(a, -127)), number(a, -127), x);
  x = con_keep(k, at, TT_F32, x);
  lp_ref shifted = con_keep(k, at, TT_F32, op2(a, IR_add, TT_F32, x, number(a, 0x1.8p23)));              /* n in its last bits */
  lp_ref r = con_keep(k, at, TT_F32, op2(a, IR_sub, TT_F32, x, op2(a, IR_sub, TT_F32, shifted, number(a, 0x1.8p23)))), y = number(a, c[6]);
  for (int i = 5; i >= 0; i--) y = lp_fma(k, y, r, number(a, c[i]));
  lp_ref bits = op2(a, IR_add, TT_I32, lp_op(k, IR_bitcast, TT_I32, shifted, 0, 0), lp_const(k, TT_I32, 127));
  bits = op2(a, IR_shl, TT_I32, bits, lp_const(k, TT_I32, 23));
  return op2(a, IR_mul, TT_F32, y, lp_op(k, IR_bitcast, TT_F32, bits, 0, 0));
}

lp_ref att_limit(attend *a, lp_cursor *at, lp_ref row) {
  lp_kernel *k = a->k;
  lp_ref last = a->o.length || a->S % a->Bk ? add(a, a->live, -1) : 0;
  if (a->o.causal) {
    lp_ref own = a->o.length ? lp_add(k, row, op2(a, IR_sub, TT_I64, a->live, lp_int(k, a->T))) : row;
    last = last ? op2(a, IR_min, TT_I64, own, last) : own;
  }
  return last ? con_keep(k, at, TT_I32, lp_op(k, IR_cast, TT_I32, last, 0, 0)) : 0;
}

lp_ref att_masked(attend *a, lp_cursor *at, lp_ref row, lp_ref column, lp_ref limit, lp_ref score) {
  lp_kernel *k = a->k;
  lp_ref seen = limit ? op2(a, IR_le, TT_BOOL, lp_op(k, IR_cast, TT_I32, column, 0, 0), limit) : 0;
  if (a->o.mask) {
    const ir_node *mask = ir_at(a->lx->g, a->o.mask);
    lp_ref index[TT_MAX_RANK];
    at_row(a, index, row, op2(a, IR_min, TT_I64, column, lp_int(k, a->S - 1)));
    for (int j = 0; j < mask->rank; j++)
      if (mask->dim[j] == 1) index[j] = lp_int(k, 0);
    lp_ref value = lower_pull(a->lx, a->o.mask, index);
    if (mask->dtype == TT_BOOL) seen = seen ? op2(a, IR_and, TT_BOOL, seen, value) : value;
    else {                                                             /* the lowest finite f32 is a number yet, as it is in softmax: a row of those alone is a mean */
      lp_ref sum = con_keep(k, at, TT_F32, lp_fma(k, value, number(a, M_LOG2E), score)), low = number(a, -FLT_MAX);
      score = lp_op(k, IR_select, TT_F32, op2(a, IR_and, TT_BOOL, op2(a, IR_lt, TT_BOOL, sum, low), op2(a, IR_ge, TT_BOOL, value, low)), low, sum);
    }
  }
  return seen ? lp_op(k, IR_select, TT_F32, seen, score, number(a, -INFINITY)) : score;
}

/* Tiles of `rows` from number `from` on, n of them: acc[i] = start(i) + sum over `steps` of scalar(i, step) * vector(step). */
typedef struct { int64_t rows, from, n; bool scores; lp_ref block, panel, lane, rescale; } tiles;

static void register_tiles(attend *a, lp_cursor *outer, const tiles *t) {
  lp_kernel *k = a->k;
  if (t->n <= 0) return;
  lp_cursor at = *outer;
  lp_ref tile = loop(a, &at, "t", t->n, 0), first = add(a, lp_mul(k, tile, t->rows), t->from), rows[64], base = 0;
  lp_ref column = lp_add(k, t->block, first);
  if (t->scores) {                     /* the last tile lies over the one before it */
    if (a->S % a->Bk) column = op2(a, IR_min, TT_I64, column, lp_int(k, a->S - t->rows));
    base = op2(a, IR_sub, TT_I64, column, t->block);
  }
  int acc = lp_local_add(k, "acc", TT_F32, (int)t->rows), v = lp_local_add(k, "v", TT_F32, 1);
  lp_stmt *s = lp_append(k, &at, LS_LOCAL);
  s->local = acc, s->value = number(a, 0);
  for (int64_t i = 0; i < t->rows; i++) {
    rows[i] = t->scores ? add(a, base, i + a->R) : at2(a, at2(a, t->panel, a->E, add(a, first, i)), a->L, t->lane);
    if (t->scores) continue;
    s = lp_append(k, &at, LS_SET);
    s->local = acc, s->index = lp_int(k, i), s->value = op2(a, IR_mul, TT_F32, lp_load(k, a->out, rows[i], 0, 0), t->rescale);
  }
  lp_cursor inside = at;
  lp_ref step = loop(a, &inside, t->scores ? "d" : "k", t->scores ? a->D : a->Bk, 0);
  s = lp_append(k, &inside, LS_LOCAL);
  s->local = v;
  s->value = t->scores ? lp_load(k, a->q, at2(a, at2(a, t->panel, a->D, step), a->L, t->lane), 0, 0) : lp_load(k, a->p, at2(a, add(a, step, a->R), a->L, t->lane), 0, 0);
  lp_ref from = lp_add(k, t->block, step);
  if (!t->scores && (a->o.length || a->S % a->Bk)) from = op2(a, IR_min, TT_I64, from, a->last);      /* what is dead is not read: 0 times NaN is NaN */
  for (int64_t i = 0; i < t->rows; i++) {
    s = lp_append(k, &inside, LS_SET);
    s->local = acc, s->index = lp_int(k, i);
    s->value = lp_fma(k, t->scores ? operand(a, 1, add(a, column, i), step) : operand(a, 2, from, add(a, first, i)), lp_get(k, v, 0), lp_get(k, acc, s->index));
  }
  end(&at);
  for (int64_t i = 0; i < t->rows; i++) store(a, &at, t->scores ? a->p : a->out, t->scores ? at2(a, rows[i], a->L, t->lane) : rows[i], lp_get(k, acc, lp_int(k, i)));
  end(outer);
}

/* One panel and one block of columns. */
static void block(attend *a, lp_cursor at, lp_ref columns, lp_ref panel) {
  lp_kernel *k = a->k;
  lp_ref lane = loop(a, &at, "l", a->L, (int)a->L), state = at2(a, panel, a->L, lane), row = row_at(a, panel, lane);
  int64_t rows = a->R < a->S ? a->R : a->S;
  register_tiles(a, &at, &(tiles){.rows = rows, .n = a->S < a->R ? 1 : a->Bk / rows, .scores = true, .block = columns, .panel = panel, .lane = lane});
  int m = lp_local_add(k, "m", TT_F32, 1), l = lp_local_add(k, "l", TT_F32, 1);
  lp_ref before = con_keep(k, &at, TT_F32, lp_load(k, a->max, state, 0, 0)), limit = att_limit(a, &at, row);
  lp_stmt *s = lp_append(k, &at, LS_LOCAL);
  s->local = m, s->value = before;
  lp_cursor inside = at;
  lp_ref step = loop(a, &inside, "k", a->Bk, 0), column = lp_add(k, columns, step), place = at2(a, add(a, step, a->R), a->L, lane);
  lp_ref score = con_keep(k, &inside, TT_F32, att_masked(a, &inside, row, column, limit, lp_load(k, a->p, place, 0, 0)));
  if (limit || a->o.mask) store(a, &inside, a->p, place, score);
  s = lp_append(k, &inside, LS_SET);
  s->local = m, s->value = lp_op(k, IR_select, TT_F32, op2(a, IR_lt, TT_BOOL, lp_get(k, m, 0), score), score, lp_get(k, m, 0));
  end(&at);
  lp_ref largest = con_keep(k, &at, TT_F32, lp_get(k, m, 0)), rescale = con_keep(k, &at, TT_F32, att_power(a, &at, op2(a, IR_sub, TT_F32, before, largest)));
  store(a, &at, a->max, state, largest);
  s = lp_append(k, &at, LS_LOCAL);
  s->local = l, s->value = op2(a, IR_mul, TT_F32, lp_load(k, a->sum, state, 0, 0), rescale);
  inside = at;
  step = loop(a, &inside, "k", a->Bk, 0), place = at2(a, add(a, step, a->R), a->L, lane);
  lp_ref p = con_keep(k, &inside, TT_F32, att_power(a, &inside, op2(a, IR_sub, TT_F32, lp_load(k, a->p, place, 0, 0), largest)));
  store(a, &inside, a->p, place, p);
  s = lp_append(k, &inside, LS_SET);
  s->local = l, s->value = op2(a, IR_add, TT_F32, lp_get(k, l, 0), p);
  end(&at);
  store(a, &at, a->sum, state, lp_get(k, l, 0));
  if (!a->result[0]) return;
  int64_t full = a->E / a->R;
  register_tiles(a, &at, &(tiles){.rows = a->R, .n = full, .block = columns, .panel = panel, .lane = lane, .rescale = rescale});
  if (a->E % a->R) register_tiles(a, &at, &(tiles){.rows = a->E % a->R, .from = full * a->R, .n = 1, .block = columns, .panel = panel, .lane = lane, .rescale = rescale});
}

/* The panels of q, transposed, and nothing made yet. */
static void begin(attend *a, lp_cursor *outer) {
  lp_cursor at = *outer;
  lp_ref panel = loop(a, &at, "p", a->panels, 0), lane = loop(a, &at, "l", a->L, (int)a->L), state = at2(a, panel, a->L, lane), row = row_at(a, panel, lane);
  store(a, &at, a->max, state, number(a, -FLT_MAX));
  store(a, &at, a->sum, state, number(a, 0));
  lp_cursor inside = at;
  lp_ref d = by_four(a, &inside, "d", a->D);
  store(a, &inside, a->q, at2(a, at2(a, panel, a->D, d), a->L, lane), op2(a, IR_mul, TT_F32, operand(a, 0, row, d), number(a, a->o.scale * M_LOG2E)));
  end(&at);
  if (!a->result[0]) {
    end(outer);
    return;
  }
  lp_ref e = loop(a, &at, "e", a->E, 0);
  store(a, &at, a->out, at2(a, at2(a, panel, a->E, e), a->L, lane), number(a, 0));
  end(outer);
}

static void finish(attend *a, lp_cursor at, int lanes) {
  lp_kernel *k = a->k;
  lp_ref panel = loop(a, &at, "p", a->panels, 0), lane = loop(a, &at, "l", a->L, 0), state = at2(a, panel, a->L, lane), row = row_at(a, panel, lane);
  if (a->T % (a->panels * a->L))                                       /* what another panel has is its to store; a panel of few rows has copies of the last */
    only_if(a, &at, a->T < a->L ? op2(a, IR_lt, TT_BOOL, state, lp_int(k, a->T)) : op2(a, IR_ge, TT_BOOL, row, lp_add(k, a->first, lp_mul(k, panel, a->L))));
  lp_ref sum = lp_load(k, a->sum, state, 0, 0);                        /* of a row that sees nothing 0, else at least 1 */
  sum = con_keep(k, &at, TT_F32, lp_op(k, IR_select, TT_F32, op2(a, IR_lt, TT_BOOL, sum, number(a, 0.5)), number(a, 1), sum));
  lp_ref index[TT_MAX_RANK];
  at_row(a, index, row, 0);
  if (a->result[1]) {                                                        /* the lowest finite number stands for itself, as it does in softmax */
    lp_ref low = number(a, -FLT_MAX), m = lp_load(k, a->max, state, 0, 0), log = lp_op(k, IR_log, TT_F32, sum, 0, 0);
    con_store(a->lx, a->result[1], &at, index, lp_op(k, IR_select, TT_F32, op2(a, IR_le, TT_BOOL, m, low), low, lp_fma(k, m, number(a, M_LN2), log)));
  }
  if (!a->result[0]) return;
  lp_ref e = loop(a, &at, "e", a->E, lanes);
  index[a->rank - 1] = e;
  con_store(a->lx, a->result[0], &at, index, op2(a, IR_div, TT_F32, lp_load(k, a->out, at2(a, at2(a, panel, a->E, e), a->L, lane), 0, 0), sum));
}

int64_t att_vectors(int64_t n, int64_t lanes, int64_t *rows, const cg_cpu *cpu) {
  int64_t one = (n + lanes - 1) / lanes, vectors = 10 * one < 9 * ((one + 1) / 2 * 2) ? 1 : 2;
  *rows = (cpu->n_registers - 1 - vectors) / vectors;
  if (*rows > 14) *rows = 14;
  return vectors;
}

/* Vectors of a panel, rows of a tile: as for products, of one vector where two fit the rows of q much worse. Blocks of columns are of like size, short ones one
 * block; causal ones are finer, because they are skipped whole. */
static void choose(attend *a, const cg_cpu *cpu) {
  int64_t lanes = cpu->vector_bytes / 4, rows, vectors = att_vectors(a->T, lanes, &rows, cpu), columns = a->o.causal && !a->o.length && a->T <= 512 ? 32 : a->S <= 96 ? 96 : 64;
  int64_t blocks = (a->S + columns - 1) / columns, each = (a->S + blocks - 1) / blocks;
  a->L = vectors * lanes, a->R = rows;
  for (int64_t r = rows - 1; 5 * r >= 4 * rows; r--)
    if ((each + r - 1) / r * r < (each + a->R - 1) / a->R * a->R) a->R = r;
  a->Bk = (each + a->R - 1) / a->R * a->R;
  int64_t panels = (a->T + a->L - 1) / a->L, most = 64 / a->L > 1 ? 64 / a->L : 1;
  if (panels < 2 * most && blocks == 1) most = panels;                /* all in one task: what it packs is used once */
  a->blocks = (panels + most - 1) / most, a->panels = (panels + a->blocks - 1) / a->blocks;
}

void att_columns(attend *a, lp_cursor *at) {
  lp_kernel *k = a->k;
  a->live = lp_int(k, a->S), a->last = lp_int(k, a->S - 1);
  if (!a->o.length) return;
  lp_ref live = op2(a, IR_max, TT_I64, lower_pull(a->lx, a->o.length, NULL), lp_int(k, 0));
  a->live = con_keep(k, at, TT_I64, op2(a, IR_min, TT_I64, live, a->live));
  a->last = con_keep(k, at, TT_I64, op2(a, IR_max, TT_I64, add(a, a->live, -1), lp_int(k, 0)));
}

static void forward(attend *a) {
  lp_kernel *k = a->k;
  const ir_node *q = ir_at(a->lx->g, a->n->args[0]);
  bool row = a->T == 1 && !a->o.mask;
  if (row) att_row_choose(a);
  else choose(a, a->lx->cpu);
  k->tasks = a->heads * a->blocks;
  if (!row) a->q = lp_buffer_add(k, "Q", TT_F32, a->panels * a->D * a->L, true, true);
  if (a->result[0]) a->out = lp_buffer_add(k, "O", TT_F32, a->panels * a->E * a->L, true, true);
  a->max = lp_buffer_add(k, "m", TT_F32, a->panels * a->L, true, true);
  a->sum = lp_buffer_add(k, "sum", TT_F32, a->panels * a->L, true, true);
  a->p = lp_buffer_add(k, "P", TT_F32, (a->Bk + 2 * a->R) * a->L, true, true);
  lp_ref head = lp_div(k, lp_var(k, 0), a->blocks);
  a->first = lp_mul(k, lp_mod(k, lp_var(k, 0), a->blocks), a->panels * a->L);
  for (int i = q->rank - 3; i >= 0; i--) a->head[i] = i ? lp_mod(k, head, q->dim[i]) : head, head = lp_div(k, head, q->dim[i]);
  lp_cursor at = {&k->body};
  att_columns(a, &at);
  if (row) att_row_begin(a, &at);
  else begin(a, &at);
  lp_cursor inside = at;
  lp_ref columns = lp_mul(k, loop(a, &inside, "block", (a->S + a->Bk - 1) / a->Bk, 0), a->Bk);
  if (a->o.length) only_if(a, &inside, op2(a, IR_lt, TT_BOOL, columns, a->live));
  lp_ref panel = row ? lp_int(k, 0) : loop(a, &inside, "p", a->panels, 0);
  if (a->o.causal && !a->o.length) only_if(a, &inside, op2(a, IR_lt, TT_BOOL, columns, lp_add(k, a->first, lp_mul(k, add(a, panel, 1), a->L))));
  if (row) att_row_block(a, inside, columns);
  else block(a, inside, columns, panel);
  end(&at);
  finish(a, at, a->lx->cpu->vector_bytes / 4);
}

void con_attention(lower_ctx *lx, ir_ref row) {
  const ir_node *n = ir_at(lx->g, row), *q = ir_at(lx->g, n->args[0]), *v = ir_at(lx->g, n->args[2]);
  attend a = {.lx = lx, .k = lx->k, .n = n, .o = ir_attention_of(n), .rank = q->rank, .heads = 1, .shared = 1};
  for (ir_ref r = lower_first(lx); r <= lower_last(lx); r++)
    if (lower_inside(lx, r) && ir_is_attention((ir_op)ir_at(lx->g, r)->op)) a.result[ir_at(lx->g, r)->op - IR_attention] = r;
  a.T = q->dim[q->rank - 2], a.D = q->dim[q->rank - 1], a.S = v->dim[q->rank - 2], a.E = v->dim[q->rank - 1];
  for (int i = 0; i < q->rank - 2; i++) a.heads *= q->dim[i];
  if (q->rank > 2) a.shared = q->dim[q->rank - 3] / v->dim[q->rank - 3];
  if (a.result[0] || a.result[1]) forward(&a);
  else con_attention_back(&a);
}
