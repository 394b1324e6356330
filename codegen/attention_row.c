/* attention_row.c: attention of a single row of q (a token that is generated, behind all whose k and v lie in a cache), which has nothing to lie across the lanes:
 *
 *     task = a head
 *       for each block of columns that is live
 *         P[k] = sum over d of k[k][d] * q[d]                    dot products along the rows of k, from DOT_PLACES places of the block at once
 *         m' = max(m, max of P), P = 2^(P - m'), the sum times 2^(m - m') and that of P
 *         O[e] = O[e] * 2^(m - m') + sum over k of P[k] * v[k][e]      vectors along the rows of v
 *
 * So k and v are read from end to end, once, by vectors. As in attention.c P has a factor of log2(e), and what is dead is not read. */
#include <float.h>
#include <math.h>

#include "attention.h"

enum { COLUMNS = 64, VECTORS = 8 /* of O in registers */ };

/* P of the block, as far as it is known: not masked yet. */
static void products(attend *a, lp_cursor *outer, lp_ref columns) {
  lp_kernel *k = a->k;
  int64_t apart = a->Bk / DOT_PLACES;
  lp_cursor at = *outer, inside;
  lp_ref i = loop(a, &at, "k", apart, 0);
  int acc = lp_local_add(k, "acc", TT_F32, DOT_PLACES), var = lp_var_add(k, "d", a->D);
  lp_stmt *s = lp_append(k, &at, LS_LOCAL);
  s->local = acc, s->value = number(a, 0);
  lp_for(k, &at, var, 0, a->D, 2 * a->lx->cpu->vector_bytes / 4, &inside);
  for (int j = 0; j < DOT_PLACES; j++) {
    lp_ref column = lp_add(k, columns, add(a, i, j * apart));
    if (a->o.length || a->S % a->Bk) column = op2(a, IR_min, TT_I64, column, a->last);
    s = lp_append(k, &inside, LS_REDUCE);
    s->local = acc, s->index = lp_int(k, j), s->op = IR_add;
    s->value = op2(a, IR_mul, TT_F32, att_operand(a, 0, lp_int(k, 0), lp_var(k, var), 0), att_operand(a, 1, column, lp_var(k, var), 0));
  }
  end(&at);
  for (int j = 0; j < DOT_PLACES; j++) store(a, &at, a->p, add(a, i, j * apart), op2(a, IR_mul, TT_F32, lp_get(k, acc, lp_int(k, j)), number(a, a->o.scale * M_LOG2E)));
  end(outer);
}

/* A pass over P, from `start` on: masks it and finds the largest number, or, where that is given, makes the powers and their sum. */
static lp_ref over_columns(attend *a, lp_cursor *outer, lp_ref columns, lp_ref limit, lp_ref start, lp_ref largest) {
  lp_kernel *k = a->k;
  int result = lp_local_add(k, largest ? "l" : "m", TT_F32, 1);
  lp_stmt *s = lp_append(k, outer, LS_LOCAL);
  s->local = result, s->value = start;
  lp_cursor at = *outer;
  lp_ref step = loop(a, &at, "k", a->Bk, 2 * a->lx->cpu->vector_bytes / 4), p = lp_load(k, a->p, step, 0, 0);
  p = con_keep(k, &at, TT_F32, largest ? att_power(a, &at, op2(a, IR_sub, TT_F32, p, largest)) : att_masked(a, &at, lp_int(k, 0), lp_add(k, columns, step), limit, p));
  if (largest || limit) store(a, &at, a->p, step, p);
  s = lp_append(k, &at, LS_REDUCE);
  s->local = result, s->op = largest ? IR_add : IR_max, s->value = p;
  end(outer);
  return lp_get(k, result, 0);
}

/* O, some vectors of it at a time. */
static void add_values(attend *a, lp_cursor *outer, lp_ref columns, lp_ref rescale) {
  lp_kernel *k = a->k;
  lp_cursor at = *outer;
  int64_t one = a->lx->cpu->vector_bytes / 4, lanes = one;
  while (lanes < VECTORS * one && lanes < a->E) lanes *= 2;
  lp_ref e = loop(a, &at, "e", a->E, (int)lanes);
  int acc = lp_local_add(k, "o", TT_F32, 1);
  lp_stmt *s = lp_append(k, &at, LS_LOCAL);
  s->local = acc, s->value = op2(a, IR_mul, TT_F32, lp_load(k, a->out, e, 0, 0), rescale);
  lp_cursor inside = at;
  lp_ref step = loop(a, &inside, "k", a->Bk, 0), column = lp_add(k, columns, step);
  if (a->o.length || a->S % a->Bk) column = op2(a, IR_min, TT_I64, column, a->last);
  s = lp_append(k, &inside, LS_SET);
  s->local = acc, s->value = lp_fma(k, lp_load(k, a->p, step, 0, 0), att_operand(a, 2, column, e, 0), lp_get(k, acc, 0));
  end(&at);
  store(a, &at, a->out, e, lp_get(k, acc, 0));
  end(outer);
}

void att_row_choose(attend *a) {
  int64_t blocks = (a->S + COLUMNS - 1) / COLUMNS, each = (a->S + blocks - 1) / blocks;
  a->Bk = (each + DOT_PLACES - 1) / DOT_PLACES * DOT_PLACES;
  a->L = a->panels = a->blocks = 1;
}

void att_row_begin(attend *a, lp_cursor *at) {
  store(a, at, a->max, lp_int(a->k, 0), number(a, -FLT_MAX));
  store(a, at, a->sum, lp_int(a->k, 0), number(a, 0));
  if (!a->result[0]) return;
  lp_cursor inside = *at;
  lp_ref e = loop(a, &inside, "e", a->E, a->lx->cpu->vector_bytes / 4);
  store(a, &inside, a->out, e, number(a, 0));
  end(at);
}

void att_row_block(attend *a, lp_cursor at, lp_ref columns) {
  lp_kernel *k = a->k;
  lp_ref zero = lp_int(k, 0);
  products(a, &at, columns);
  lp_ref before = con_keep(k, &at, TT_F32, lp_load(k, a->max, zero, 0, 0)), limit = att_limit(a, &at, zero);
  lp_ref largest = con_keep(k, &at, TT_F32, over_columns(a, &at, columns, limit, before, 0));
  lp_ref rescale = con_keep(k, &at, TT_F32, att_power(a, &at, op2(a, IR_sub, TT_F32, before, largest)));
  store(a, &at, a->max, zero, largest);
  lp_ref sum = over_columns(a, &at, columns, limit, number(a, 0), largest);
  store(a, &at, a->sum, zero, lp_fma(k, lp_load(k, a->sum, zero, 0, 0), rescale, sum));
  if (a->result[0]) add_values(a, &at, columns, rescale);
}
