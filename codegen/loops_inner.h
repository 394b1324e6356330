/* loops_inner.h: what the files loops*.c share and nobody else sees. */
#ifndef TT_LOOPS_INNER_H
#define TT_LOOPS_INNER_H

#include "loops.h"

/* What is known of an expression. lo..hi: its value when it is i64 (INT64_MIN..INT64_MAX: nothing known). vars: bit v for
 * each loop variable v < 63 that it depends on, bit 63 for any other. */
typedef struct { int64_t lo, hi; uint64_t vars; } lp_fact;

typedef struct lp_block { struct lp_block *next; size_t used, size; } lp_block;

struct lp_arena {
  lp_block *blocks;
  lp_fact *facts;                     /* beside lp_kernel.exprs */
  int64_t *var_ends; int cap_vars, cap_buffers, cap_locals;
  uint32_t *slots, n_slots;           /* hash of expressions: open addressing, 0 is free */
  bool failed;                        /* memory ran out: the kernel is not whole, lp_check says so */
  char spare[1024];                   /* what lp_alloc gives then */
};

static inline lp_fact *lp_fact_of(const lp_kernel *k, lp_ref e) { return &k->arena->facts[e]; }
static inline bool lp_known(const lp_fact *f) { return f->lo != INT64_MIN || f->hi != INT64_MAX; }

lp_ref lp_intern(lp_kernel *k, lp_expr e, lp_fact fact);      /* the row of an expression, new or equal */
lp_ref lp_raw(lp_kernel *k, ir_op op, tt_dtype t, lp_ref a, lp_ref b, lp_ref c, int64_t lo, int64_t hi);   /* LX_OP, as told */
lp_ref lp_index_op(lp_kernel *k, ir_op op, tt_dtype result, lp_ref a, lp_ref b);          /* i64 arguments; 0: nothing to simplify */

#endif
