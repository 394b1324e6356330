/* attention.h: what attention.c (the result and its sums), attention_row.c (of one row of q) and attention_back.c (the derivatives) share. */
#ifndef TT_ATTENTION_H
#define TT_ATTENTION_H

#include "contract.h"

enum { ATT_RESULTS = IR_attention_dv - IR_attention + 1 };

typedef struct {
  lower_ctx *lx;
  lp_kernel *k;
  const ir_node *n;
  ir_ref result[ATT_RESULTS];                      /* rows of the kernel: attention, its sums, the derivatives by q, k, v; 0: not wanted */
  ir_attention_options o;
  int64_t rank, T, S, D, E, heads, shared;         /* heads: all of q's; shared: so many have one k and v */
  int64_t L, R, panels, blocks, Bk;                /* lanes of a panel, rows of a register tile; blocks: of rows of q in a head; Bk: columns of a block */
  int q, out, max, sum, p;                         /* scratch */
  lp_ref head[TT_MAX_RANK], live, last, first;     /* leading index of q; number of live columns, the last that may be read; first row of the task */
} attend;

static inline lp_ref op2(attend *a, ir_op op, tt_dtype t, lp_ref x, lp_ref y) { return lp_op(a->k, op, t, x, y, 0); }
static inline lp_ref number(attend *a, double v) { return lp_const(a->k, TT_F32, v); }
static inline lp_ref add(attend *a, lp_ref x, int64_t i) { return lp_add(a->k, x, lp_int(a->k, i)); }
static inline lp_ref at2(attend *a, lp_ref i, int64_t n, lp_ref j) { return lp_add(a->k, lp_mul(a->k, i, n), j); }

static inline void store(attend *a, lp_cursor *at, int buffer, lp_ref index, lp_ref value) {
  lp_stmt *s = lp_append(a->k, at, LS_STORE);
  s->buffer = buffer, s->index = index, s->value = value;
}

static inline lp_ref loop(attend *a, lp_cursor *at, const char *name, int64_t n, int lanes) {
  int var = lp_var_add(a->k, name, n);
  lp_for(a->k, at, var, 0, n, lanes, at);
  return lp_var(a->k, var);
}

/* Over n numbers, four at a time where they divide n. */
static inline lp_ref by_four(attend *a, lp_cursor *at, const char *name, int64_t n) {
  int64_t by = n % 4 ? 1 : 4;
  lp_ref i = lp_mul(a->k, loop(a, at, name, n / by, 0), by);
  int fine = lp_var_add(a->k, "c", by);
  lp_for(a->k, at, fine, 0, by, 0, at)->unroll = true;
  return lp_add(a->k, i, lp_var(a->k, fine));
}

static inline void only_if(attend *a, lp_cursor *at, lp_ref guard) {
  lp_stmt *s = lp_append(a->k, at, LS_IF);
  s->guard = guard;
  at->tail = &s->body;
}

static inline void end(lp_cursor *at) { while (*at->tail) at->tail = &(*at->tail)->next; }

/* Where the rows of q, or its sums (d: 0), of the head at hand stand. */
static inline void at_row(const attend *a, lp_ref *index, lp_ref row, lp_ref d) {
  for (int64_t j = 0; j < a->rank - 2; j++) index[j] = a->head[j];
  index[a->rank - 2] = row, index[a->rank - 1] = d;
}

lp_ref att_operand(attend *a, int i, lp_ref row, lp_ref d, lp_ref guard);               /* argument i at a row of its head and a number of that; 0 where the guard (0: none) fails */
void att_columns(attend *a, lp_cursor *at);                                             /* live and last */
lp_ref att_power(attend *a, lp_cursor *at, lp_ref x);                                   /* 2^x for x <= 127 */
lp_ref att_limit(attend *a, lp_cursor *at, lp_ref row);                                 /* the last column that each row of a panel sees, kept; 0: all of them */
lp_ref att_masked(attend *a, lp_cursor *at, lp_ref row, lp_ref column, lp_ref limit, lp_ref score);      /* the score, times log2(e), under masks: -inf where it is not seen */
int64_t att_vectors(int64_t n, int64_t lanes, int64_t *rows, const cg_cpu *cpu);         /* vectors that a register tile has across n numbers, and its most rows */

void att_row_choose(attend *a);                                                         /* attention_row.c: of one row */
void att_row_begin(attend *a, lp_cursor *at);
void att_row_block(attend *a, lp_cursor at, lp_ref columns);
void con_attention_back(attend *a);                                                     /* attention_back.c */

#endif
