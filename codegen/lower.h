/* lower.h: what lower.c (loop kernels) and contract.c (register tiles) share: rows of a kernel evaluated at an index.
 * lower_pull.c has the functions that stand here. */
#ifndef TT_LOWER_H
#define TT_LOWER_H

#include "codegen.h"

typedef struct lower_ctx {
  const ir_graph *g;
  uint32_t region;
  lp_kernel *k;
  const cg_cpu *cpu;
  tt_error *err;
  struct lower_state *state;      /* lower.c: argument rows, memo, hooks */
} lower_ctx;

/* Finds the kernel's external reads and its results (rows used outside of it) and makes a buffer of k for each: reads first, then results. */
lower_ctx *lower_begin(const ir_graph *g, uint32_t region, lp_kernel *k, const cg_cpu *cpu, tt_error *err);
void lower_end(lower_ctx *lx);                        /* frees lx, not k */
/* rows: the graph row behind each argument buffer; false (err is set) when something failed on the way or there are more than max_rows. */
bool lower_arguments(lower_ctx *lx, ir_ref *rows, int max_rows);
int lower_n_results(const lower_ctx *lx);
ir_ref lower_result(const lower_ctx *lx, int i);
int lower_result_buffer(const lower_ctx *lx, int i);
/* Row r at an index (one i64 expression a dimension): recurses through the kernel's elementwise and movement rows to loads. */
lp_ref lower_pull(lower_ctx *lx, ir_ref r, const lp_ref *index);
/* From now on row r has this value when it is pulled at exactly this index (a later hook of the same row replaces the earlier one and
 * forgets what was remembered of rows that depend on it); pulled at another index it is an internal error. */
void lower_hook(lower_ctx *lx, ir_ref r, const lp_ref *index, lp_ref value);
/* The index of `to` at which the element stands that is from_index of `from`, where `to` is made from `from` by elementwise, permute and
 * reshape rows of the kernel. false: it is not. */
bool lower_leads(lower_ctx *lx, ir_ref from, ir_ref to);                  /* is it? */
bool lower_push(lower_ctx *lx, ir_ref from, ir_ref to, const lp_ref *from_index, lp_ref *to_index);
lp_ref lower_linear(lower_ctx *lx, ir_ref r, const lp_ref *index);       /* row-major element number in r's shape */

/* For loop kernels (lower.c, lower_choose.c, lower_special.c). */
lower_ctx *lower_fork(const lower_ctx *lx, lp_kernel *k);                 /* the same kernel of the graph into another k (to try something); no hooks */
lp_ref lower_pull_if(lower_ctx *lx, ir_ref r, const lp_ref *index, lp_ref guard, lp_ref otherwise);   /* read only where guard holds */
bool lower_pulled_at(lower_ctx *lx, ir_ref r, const lp_ref *index);       /* was row r evaluated at this index, unguarded, since the last hook? */
void lower_unhook(lower_ctx *lx);                                         /* forgets all hooks */
void lower_forget(lower_ctx *lx);                                         /* what was pulled so far */
void lower_reshape_index(lp_kernel *k, int from_rank, const int64_t *from, const lp_ref *index, int to_rank, const int64_t *to, lp_ref *to_index);
uint8_t lower_streams(const lower_ctx *lx, ir_ref r);                      /* lower_stream.c: lp_stmt.stream of stores of result r */
uint8_t lower_streams_of(const ir_graph *g, uint32_t region, const cg_cpu *cpu, ir_ref r);
void lower_stream_stores(lower_ctx *lx);                                  /* the same of all stores of the kernel */
bool lower_inside(const lower_ctx *lx, ir_ref r);                         /* a row of this kernel? */
ir_ref lower_first(const lower_ctx *lx);                                  /* rows of the kernel are among first..last */
ir_ref lower_last(const lower_ctx *lx);
void lower_update_index(lower_ctx *lx, ir_ref r, const lp_ref *index, lp_ref *to);   /* dynamic_update_slice r: where element `index` of its update goes */
void lower_fail(lower_ctx *lx, const char *what, ir_ref r);               /* an internal error at row r */
bool lower_failed(const lower_ctx *lx);

#endif
