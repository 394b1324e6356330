/* lower_loop.h: what lower.c (the nest of a loop kernel) and lower_special.c (kernels whose core is no reduction) share. */
#ifndef TT_LOWER_LOOP_H
#define TT_LOWER_LOOP_H

#include "lower.h"

enum { MAX_DOWNS = 8 };

/* Axes of the space S that one loop runs over: the last is counted fastest. */
typedef struct {
  int axes[TT_MAX_RANK], n;
  int64_t extent;
  bool reduced;
  int var;                            /* 0: none yet */
  lp_ref number;                      /* where the loop over it stands; reduced groups */
} loop_group;

/* A reduction in one stage. An argmax is two: the extreme, then the first index where it stands. */
typedef struct {
  ir_ref row;
  int stage, local;
  ir_op op;                           /* of the reduce statement */
  tt_dtype acc;
  bool is_index;
  int key;                            /* of an index: the reduction of the extreme */
  int inverse;                        /* local of 1/sum; 0: none (local 0 is the first accumulator) */
} reduction;

/* A row of shape S that several stages want and that is costly: kept in scratch. */
typedef struct { ir_ref row; int stage, buffer; } kept_row;

/* A sum down the rows of a block (pass_down_of), which stands in its result while a task goes over them. */
typedef struct { ir_ref row, base; } down_sum;

typedef struct loop_nest loop_nest;
typedef void nest_body(loop_nest *ln, lp_cursor *at);

struct loop_nest {
  lower_ctx *lx;
  lp_kernel *k;
  const ir_graph *g;
  ir_ref core;                        /* cumsum, scatter_add, dynamic_update_slice; 0: reductions, or nothing */
  bool in_place;                      /* the core writes over its first argument */
  tt_shape space;
  bool in_r[TT_MAX_RANK], flat;       /* flat: nothing is reduced */
  loop_group groups[TT_MAX_RANK]; int n_groups;     /* P outer to inner, then R */
  reduction *reductions; int n_reductions, n_stages;
  int *ready;                         /* by row - first: the stage from which it may be pulled */
  kept_row kept[8]; int n_kept;
  down_sum downs[MAX_DOWNS]; int n_downs;           /* a task has one block; rows are `together` at a time */
  int n_lead;
  int64_t blocks, together;
  int64_t lanes, grain;
  int vec;                            /* group; -1: none */
  bool gathers;                       /* along it a load has a stride: the rows of a task are then walked inside of blocks of lanes */
  int across;                         /* group along which those loads (or the stores) are contiguous: tiles of both; -1: none */
  int tile;                           /* elements of it that a tile has */
  int columns;                        /* innermost reduced group, when the vector stands across rows of it: `tile` of it are a step; -1: none */
  bool brief;                         /* small and dear to compile: a step of columns is the body of a loop, however few there are */
  lp_ref tile_place;                  /* the first of these */
  int64_t rows, rows_per_task;        /* P without the vectorized group */
  int64_t chunk, n_chunks;            /* of the vectorized group, when it is in P; else 1, 1 */
  int64_t n_reduced;                  /* elements of R */

  /* while emitting */
  lp_ref at[TT_MAX_RANK];             /* index in S */
  lp_ref place;                       /* element of the vectorized P group at which this loop begins */
  int64_t width;                      /* elements of it that this loop does; 1 when vec is not in P */
  lp_stmt *along;                     /* the vector loop over R that is open, or NULL */
  struct { lp_stmt *loop; double work; } passes[16]; int n_passes;      /* such loops, in order, and what an element of each costs */
  lp_ref row, block;                  /* the row at hand, the first of `together`; the block that it is in */
  lp_ref lane;                        /* variable of the vector loop over P; the constant 0 when there is none */
};

void nest_tiles(loop_nest *ln, nest_body *body);              /* lower_tile.c: the same, when there is a group `across` */
bool nest_may_tile(const loop_nest *ln);
void nest_open_tile(loop_nest *ln, lp_cursor *at);
void nest_tasks(loop_nest *ln, nest_body *body);              /* sets tasks, and runs body inside of the loops over P (the vectorized group not opened) */
void nest_open_vector(loop_nest *ln, lp_cursor *at);          /* when the vectorized group is in P */
void nest_open_reduced(loop_nest *ln, lp_cursor *at);         /* loops over R, the vectorized group innermost */
void nest_close(lp_cursor *at);                               /* moves a cursor behind what was put at it */
void nest_set(loop_nest *ln, int group, lp_ref value);        /* ln->at of a group's axes */
void nest_share(loop_nest *ln, lp_cursor *at, lp_ref *values, int n);   /* what several values use is computed once, into locals */
void nest_body_special(loop_nest *ln, lp_cursor *at);         /* lower_special.c */
tt_dtype nest_acc_type(tt_dtype t);
lp_ref nest_cast(loop_nest *ln, lp_ref e, tt_dtype t);
bool nest_fits(const loop_nest *ln, ir_ref r, bool p_only);   /* has row r the shape of S (of P), but for dimensions of 1? */
void nest_index(const loop_nest *ln, ir_ref r, bool p_only, lp_ref *index);   /* of such a row, at ln->at */
lp_ref nest_term(loop_nest *ln, const reduction *r);          /* what goes into a reduction at ln->at */
int nest_local(loop_nest *ln, lp_cursor *at, const char *name, tt_dtype t, lp_ref value);
const down_sum *nest_down(const loop_nest *ln, ir_ref r);     /* is r a sum down the rows? NULL: no */
lp_ref nest_down_place(loop_nest *ln, const down_sum *d);     /* the element of its result at ln->at */
void nest_sizes(loop_nest *ln);                               /* how much a task does */
/* lower_choose.c */
bool nest_choose(loop_nest *ln);                              /* joins axes, and chooses which group is vectorized */
bool nest_keep(loop_nest *ln);                                /* which rows are kept in scratch from one stage to the next */
lp_stmt *nest_store(loop_nest *ln, lp_cursor *at, ir_ref result, const lp_ref *index, lp_ref value);
void nest_prefetch(loop_nest *ln);                            /* lower_stream.c: the rows after this one are asked for while it is computed */
void nest_prefetch_flat(loop_nest *ln, lp_stmt **body);       /* the same where nothing is reduced; body: of the loop over the vectors */
/* What a special core reads and where it writes, at ln->at, for choosing loops: at most 4 of each. */
void nest_special_roots(loop_nest *ln, lp_ref *roots, int *n_roots, lp_ref *stores, int *n_stores);

#endif
