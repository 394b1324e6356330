/* emit.h: the state of a kernel being emitted, shared by expr.c (expressions) and emit.c (statements). */
#ifndef TT_LLVM_EMIT_H
#define TT_LLVM_EMIT_H

#include "../loops_inner.h"
#include "llvm.h"

typedef struct { uint64_t vars, locals, loaded; bool loads; } em_needs;
typedef struct { em_val value; uint32_t serial, clock; int depth; } em_cached;
typedef struct {
  uint32_t serial;
  uint64_t vars, locals, stored;     /* what is made or changed in it */
  bool guarded;                      /* an if or a mask: loads stay inside */
  em_val pre;                        /* NULL: no block of its own */
} em_scope;
typedef struct { em_val *values; int width; bool live; } em_local;
enum { EM_NATURAL, EM_LANE0, EM_SPLAT, EM_NARROW, EM_N_CACHES };
enum { EM_MAX_DEPTH = 128 };

/* The innermost open loop: multiples of its variable that addresses want are carried by it and added to, not multiplied each time. */
typedef struct {
  int var;
  em_val counter, begin, pre;        /* pre: the branch into the loop */
  int64_t step;
  int depth;                         /* of its scope */
  struct { int64_t factor; em_val phi; } carried[8]; int n;
  struct { int64_t buffer; lp_ref terms[8]; int n_terms; em_val pointer; } bases[24]; int n_bases;      /* addresses that stay the same in it */
} em_loop;

struct em_kernel {
  const lp_kernel *k;
  em_val *pointers;
  em_needs *needs;
  em_cached *cache[EM_N_CACHES];
  uint32_t *vector_of;               /* by expression: 2*generation + is it a vector */
  uint32_t generation, serial, clock;
  em_scope scopes[EM_MAX_DEPTH];
  int depth;
  em_val *vars;                      /* value of each open loop variable; of lane 0 for the vector's */
  int64_t *var_multiple;             /* a power of two that divides it */
  em_local *locals;
  uint32_t local_clock[64], buffer_clock[64];       /* when one of these last changed */
  int width, active, vector_var;
  int64_t vector_step;
  em_loop *loop;                     /* NULL: the present statements stand in no loop without loops inside */
  em_val guard, mask;                /* conditions around the present expression: i1, and one a lane; NULL: none */
  em_val at;                         /* building before this branch; NULL: at the end of the code */
  bool checked, streamed;            /* buffers of LP_CHECK are aligned here; some store went past the caches */
  lp_block *blocks;                  /* memory */
  bool failed;
};

static inline uint64_t em_bit(int64_t id) { return (uint64_t)1 << (id & 63); }
static inline const lp_expr *em_expr(const em *e, lp_ref r) { return &e->kernel->k->exprs[r]; }

/* expr.c */
void *em_take(em *e, size_t n, size_t size);                     /* zeroed, until the kernel is done; NULL: no memory */
em_val em_bad(em *e, const char *what, lp_ref r);                /* our own mistake: recorded, and the kernel fails */
LLVMBasicBlockRef em_block(em *e);
void em_find_needs(em *e);
void em_push(em *e, em_scope scope);
void em_pop(em *e);
void em_touch_local(em *e, int64_t local);                       /* it changes: what was made from it is stale */
void em_touch_buffer(em *e, int64_t buffer);
bool em_is_vector(em *e, lp_ref r);
bool em_affine(em *e, lp_ref r, int64_t *coefficient);           /* r = coefficient * lane + what is the same in all lanes? */
int64_t em_multiple(em *e, lp_ref r);                            /* a power of two, at most 64, that divides lane 0 of r */
em_val em_value(em *e, lp_ref r);                                /* in its natural form: scalar unless something in it is a vector */
em_val em_wide(em *e, lp_ref r);                                 /* in as many lanes as the loop has */
em_val em_lane0(em *e, lp_ref r);                                /* of an affine r: as it is in lane 0 */
em_val em_address(em *e, int64_t buffer, em_val index);
void em_keep(em *e, lp_ref r, int level, em_val v);              /* the value of r, as long as scope `level` is open */
void em_statement(em *e, const lp_stmt *x);                      /* emit.c */
/* transpose.c: a load whose lanes are `stride` apart, from `first` on, together with its neighbours, which are kept; NULL: it has too few. */
em_val em_load_column(em *e, lp_ref r, em_val first, int64_t stride, int level);
const lp_stmt *em_store_columns(em *e, const lp_stmt *x);        /* x and more such stores behind it, if it has; gives the last of them, or NULL */
void em_tiles(em *e, const lp_stmt *x);                          /* amx.c */
em_val em_dot(em *e, em_val a, em_val b, em_val sum);            /* amx.c: LX_DOT */
em_val em_place(em *e, int64_t buffer, lp_ref index);               /* the address of an affine index in lane 0 */
void em_close_loop(em *e, em_loop *l, const LLVMBasicBlockRef from[2]);      /* carried multiples get their next values; at the end of the loop's body */
em_val em_both(em *e, em_val a, em_val b);                       /* and; NULL is true */
em_val em_lane(em *e, em_val v, int i);

#endif
