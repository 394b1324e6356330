/* contract.h: what the parts of the contraction generator share: contract.c has the form of a matmul or conv as axes and strides, contract_choose.c
 * the cost model that picks the roles of the axes, the tile, packing and blocks, contract_build.c makes the loops;
 * weights.c and winograd.c have forms of their own. */
#ifndef TT_CONTRACT_H
#define TT_CONTRACT_H

#include "lower.h"

enum { MAX_AXES = 16, A = 0, B = 1, C = 2, MAX_PHASES = 16, DOT_PLACES = 4, CON_SHORT = 8 /* steps of a loop that is unrolled */ };

typedef struct {
  int64_t extent;
  bool summed;
  bool affine[3];               /* in the address of a, b and the result */
  int64_t stride[3];
} axis;

/* A spatial axis of a convolution: output q*period + first, under its tap number j, reads x at q*step + j*tap_step + x_first through weight
 * j*w_step + w_first. Without x_dilation the period is 1 and first is 0; with it outputs fall into phases that see different taps. */
typedef struct { int64_t period, first, step, tap_step, x_first, w_step, w_first, outputs, taps; } spatial;

typedef struct {
  lower_ctx *lx;
  const ir_graph *g;
  ir_ref row;                   /* the matmul or conv */
  axis axes[MAX_AXES];
  int n_axes;
  spatial space[3];             /* conv: of this phase */
  tt_dtype acc_type;
  const cg_cpu *cpu;
  lp_cursor body;               /* where its statements go */
  lp_ref task;                  /* 0 .. n_tasks-1 */
  int64_t n_tasks;

  /* what was chosen */
  int vec, scalar_op, vector_op;                            /* axis; A or B */
  int batch[MAX_AXES], n_batch;                             /* axes that both operands have */
  int outer[MAX_AXES], n_outer;                             /* of the scalar operand, looped one by one */
  int rows[MAX_AXES], n_rows;                               /* of the scalar operand, tiled together */
  int sum[MAX_AXES], n_sum;                                 /* outermost first */
  int64_t lanes, tile, n_rows_all, n_outer_all;
  bool pack, keep;                                          /* panels are copied to scratch; all of a group's, for all tasks of a call that share them */
  bool ahead;                                               /* few rows: what stands in memory is asked for ahead of its use */
  bool along;                                               /* so few that it is read row by row: blocks of CON_SHORT steps, all panels of a group in each */
  bool pack_first;                                          /* the first tile of a chunk copies the panel while it computes */
  bool once;                                                /* pack_first, and no other chunk reads the panel: the next one takes its place */
  int64_t rows_ahead;                                       /* elements, one after the other, that the rows of the next chunk read, asked for by the tiles of this one; 0: none are */
  bool next;                                                /* all tiles of a panel ask for a share of what the next one is packed from */
  bool copy, copy_rows;                                     /* the rows of a block are copied too: k fastest, or (copy_rows) the rows of a tile fastest */
  bool slow, inside;                                        /* slow: the epilogue is a loop over stored sums; inside: panels are the inner loop */
  int cut;                                                  /* the first summed axes, counted as one, are cut into blocks */
  int64_t block, n_blocks;                                  /* the last block may be shorter */
  int64_t chunk, n_chunks;                                  /* of outer when n_outer_all > 1, else of row tiles */
  int64_t chunk_rows;                                       /* of row tiles: all chunks have so many rows, in balanced tiles; 0: the last one has fewer */
  int64_t group, n_groups;                                  /* panels of a task */
  int panel_buffer, stage_buffer, rows_buffer;
  bool dots;                                                /* no register tiles: every result a dot product */
  bool weights, pairs;                                      /* nothing of this: weights.c, contract_bf16.c */
  int64_t places, per_task;                                 /* of dot products: equal parts of the numbers of `batch`, and how many of each a task has, for all of the few `rows` */
} contraction;

/* contract.c */
void con_result_at(const contraction *c, lp_kernel *k, const lp_ref *at, lp_ref *index);      /* the result's index at the axes' values */
lp_ref con_operand(const contraction *c, lower_ctx *lx, int which, const lp_ref *at);      /* operand A or B at the axes' values */
bool con_depends(const axis *x, int which);
int64_t con_magnitude(const axis *x, int which);                                           /* |stride|; not affine: INT64_MAX */
int64_t con_nearest_divisor(int64_t n, int64_t wanted);                                    /* the smallest divisor >= wanted, or n */

/* contract_choose.c */
bool con_choose(contraction *c);              /* false: a plan entry of the kernel cannot be had */
/* A plan entry of the kernel (from a tuner or a user) that replaces what would be chosen: value i of `name`, within least..most. false: there is none. */
bool con_planned(contraction *c, const char *name, uint32_t i, uint32_t n, int64_t least, int64_t most, int64_t *value);

/* attention.c */
void con_attention(lower_ctx *lx, ir_ref row);

/* winograd.c */
void con_winograd(lower_ctx *lx, ir_ref row);
lp_ref con_keep(lp_kernel *k, lp_cursor *at, tt_dtype t, lp_ref value);                               /* in a local of its own */
void con_winograd_input(lp_kernel *k, lp_cursor *at, tt_dtype t, int tile, const lp_ref *x, lp_ref *y);      /* y = B^T x, tile + 2 of each */

/* contract_bf16.c */
lp_ref con_load(const lp_kernel *k, lp_ref e);      /* the load under a cast, or e itself */
bool con_pairs(contraction *c);              /* is it made as said there, and then with which tasks, once con_choose has given the axes their roles */
void con_pairs_build(contraction *c);

/* weights.c */
bool con_weights(const contraction *c, bool winograd);       /* is it a weight's gradient that is made as said there; one that Winograd's form exists of? */
int64_t con_weights_tasks(contraction *c);
void con_weights_build(contraction *c);

/* window.c */
void con_window_sums(lower_ctx *lx, ir_ref row, const contraction *c, const pass_window *see);   /* window_sums.c */
bool con_window(lower_ctx *lx, ir_ref row, const contraction *phases, int n_phases);      /* false: it is none of these; nothing was made */

/* contract_build.c */
void con_unflatten(contraction *c, const int *list, int n, lp_ref flat, lp_ref *at);      /* values of a list of axes from one number that counts through them, the last fastest */
void con_store(lower_ctx *lx, ir_ref row, lp_cursor *at_cursor, const lp_ref *index, lp_ref value);   /* row has this value there: epilogue and stores */
bool con_costly(const ir_graph *g, uint32_t region);                                                  /* contract_choose.c: functions in the epilogue */
void con_count_tasks(contraction *c);
void con_dot_products(contraction *c);
void con_register_tiles(contraction *c);

#endif
