/* form.h: what fuse, schedule, memory and layout share: which sets of rows can be one kernel, views as strides, and groups of rows
 * written out as kernels. */
#ifndef TT_FORM_H
#define TT_FORM_H

#include "passes.h"

/* view.c: where the elements of a row stand in the dense data of another row that it is a view of. Every axis is a list of pieces, outer
 * to inner, as in a mixed radix number: index i of the axis is at sum of digit * stride. A piece of stride 0 repeats. */
enum { VIEW_PIECES = 32 };
typedef struct {
  int rank, n;                       /* pieces stand in the order of their axes; an axis of 1 has none */
  int64_t dim[TT_MAX_RANK];
  struct { int64_t size, stride; int axis; } piece[VIEW_PIECES];
  int64_t offset;
} view;
view view_dense(tt_shape s);
bool view_apply(view *v, const ir_node *movement);          /* permute, reshape, broadcast, slice or reverse; false: not a view in this form */
bool view_equal(const view *a, const view *b);
bool view_strided(const view *v);                           /* one stride an axis, as a contraction's operand needs it */

/* form.c: the kernel form. A kernel is one of: a loop over a space S (elementwise and movement rows, perhaps reductions over axes R of
 * S, or one fold, cumsum, scatter_add or dynamic_update_slice), a contraction with its epilogue, or a call: of a C function, or a scan's steps. */
typedef enum { FORM_LOOP, FORM_CONTRACT, FORM_CALL } form_kind;
typedef struct {
  form_kind kind;
  ir_ref core;                       /* the contraction, fold, cumsum, scatter_add, dynamic_update_slice, argsort or first result of the scan; 0: none */
  tt_shape space;                    /* S; of a contraction: the shape of its result */
  int n_reduce, reduce[TT_MAX_RANK]; /* R, ascending */
  int n_lead; int64_t blocks;        /* sums down the rows (pass_down_of): they add up along the first n_lead axes of S, in so many blocks; 0: there are none */
  const char *why;                   /* what does not fit, when nothing does */
} form;
/* Of each row of a kernel, in order: how often its elements are evaluated when results are pulled, all together, and in which stages
 * (bit s: in the loop that follows s reductions which depend on each other). aligned: read only at the index of S or of P. */
typedef struct { double evals; uint32_t stages; bool aligned; } form_use;
/* rows ascending; result: those that are materialized. use may be NULL. false: not a kernel, f->why says why. */
bool form_of(const ir_graph *g, const ir_ref *rows, int n, const bool *result, form *f, form_use *use);

/* Is row r of the kernel a sum that is taken along the way, down the rows that the kernel goes over? Nothing in it may need what comes of it. */
bool form_down(const ir_graph *g, const ir_ref *rows, int n, ir_ref r, pass_down *d);
bool form_is_reduction(ir_op op);    /* sum prod amax amin argmax argmin */
bool form_is_leaf(const ir_graph *g, ir_ref r);     /* has a buffer of its own, made by no kernel: input, param, a const that is no splat */
bool form_is_free(const ir_graph *g, ir_ref r);     /* made again in every kernel that reads it: splat consts and their views, iota */
/* May result `value` of this kernel overwrite arg, which has the same size: is arg read only where value is written, by elementwise rows? */
bool form_in_place(const ir_graph *g, const ir_ref *rows, int n, const bool *result, ir_ref value, ir_ref arg);
/* The lowest row that argument k of a contraction is a strided view of, seen through the pad that its kernel does (window.c) and, of a matmul, where `narrow`
 * says so, through the cast of bf16 to f32. */
ir_ref form_operand_base(const ir_graph *g, ir_ref contraction, int k, bool narrow);
bool form_widens(const ir_graph *g, ir_ref r);              /* is it such a cast? */

/* groups.c: rows of `in` as kernels of `out`. A group becomes one region: its rows (ascending), of which `result` ones are known outside. */
typedef struct { ir_ref *rows; bool *result; int n; int64_t key; uint32_t region; } group;
/* Order of groups: first[i] before then[i] for each edge, else by key. order gets n numbers; false: there is a cycle. */
bool groups_order(const group *groups, int n, const int (*edges)[2], int n_edges, int *order);
/* The kernels that g has, ascending; rows of a region are a run. *n gets their number; NULL: no memory. */
group *groups_of(const ir_graph *g, int *n);
void groups_free(group *groups, int n);
/* Makes leaves, then the groups in this order, outputs and effects. plan: called for each with its region in out. */
typedef void group_plan(void *user, const group *of, const ir_graph *in, ir_graph *out, uint32_t region);
tt_status groups_emit(const ir_graph *in, ir_graph *out, const group *groups, int n, const int *order, group_plan *plan, void *user, tt_error *err);
/* schedule.c: a kernel's plan: kind and, of a loop, space, reduce, lanes and grain. */
void pass_plan_kernel(const pass_options *options, const group *x, const ir_graph *in, ir_graph *out, uint32_t region);

/* place.c: buffers that live from kernel `first` to kernel `last`, in one arena. Bytes are multiples of 64. */
typedef struct { int64_t bytes, offset; int first, last; } place_buffer;
int64_t place_buffers(place_buffer *b, int n);              /* sets offsets; the bytes of the arena, -1: no memory */
int64_t place_bound(const place_buffer *b, int n, int *at); /* most bytes alive at once, which no arena can go below; at: the first kernel where. -1: no memory */
/* memory.c: the kernel that makes each row, and the last that reads it, -1: none. */
void place_lives(const ir_graph *g, const group *groups, int n, int *maker, int *last);
bool place_kept(const ir_graph *g, const group *groups, const int *maker, const int *last, ir_ref r);      /* r stays from one call to the next */
/* over[value]: the param that an assigned value is computed in place of, 0: none, then it is copied when all is done and last is n. */
void place_params(const ir_graph *g, const group *groups, int n, const int *maker, int *last, const bool *is_output, ir_ref *over);
double pass_work(const ir_graph *g);                        /* recompute.c: estimated nanoseconds of all kernels, by which it chooses; -1: no memory */
int64_t pass_bytes(const ir_graph *g, ir_ref r);            /* of a row's value */

/* fuse_prepare.c: the graph that fuse works on; NULL: err is set. */
ir_graph *fuse_prepare(const ir_graph *in, tt_error *err);

/* freeze.c: the rows that follow from params and constants alone, where these stay what they are from one call to the next; in a scan's body, from what is
 * the same in every step. NULL: no memory. */
bool *pass_fixed_rows(const ir_graph *g, const pass_options *options);

/* split.c: parts that the sum of contraction r is cut into, 1: none (fixed: pass_fixed_rows); and a reduction without its axes, in two steps where that pays. */
int64_t pass_split_contraction(const ir_graph *g, ir_ref r, const bool *fixed);
ir_ref pass_split_reduce(ir_graph *g, ir_op op, ir_ref x, const int *axes, int n);

#endif
