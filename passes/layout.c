/* layout.c: images stay channels-last between convolutions, and long sums are cut.
 *
 * A value of the graph is kept as a row whose axes stand in another order, physical instead of logical, until somebody needs it as it
 * was. A convolution leaves its result as [N,*D,G,C]; elementwise rows, reductions, pads and the rest take their axes in whatever
 * order the values have; a permute only renames them. Where an order does not fit (a matmul, an output, a param's next value, a
 * reshape that joins axes that are not neighbours) a permute is written, so most are never written at all:
 *
 *     %y = conv(%x, %w) : [N,1,O,H,W]            %y = conv(%x, %w) : [N,1,O,H,W]
 *     %z = reshape(%y) : [N,O,H,W]               %p = permute(%y, perm=[0,3,4,1,2]) : [N,H,W,1,O]     a part of conv's kernel: how it stores
 *     %r = relu(%z) : [N,O,H,W]         gives    %z = reshape(%p) : [N,H,W,O]
 *                                                %r = relu(%z) : [N,H,W,O]
 *
 * Broadcasts and iotas have no order of their own: they are written in that of the row that reads them. A graph without conv keeps its
 * permutes as they are.
 *
 * Sums that would leave threads idle are cut (split.c): the cuts depend on shapes alone, so the bits do not depend on the threads. */
#include "form.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
  ir_ref row;                     /* in out; its axis i is axis order[i] of the value. 0: not written yet, a broadcast or iota */
  int8_t order[TT_MAX_RANK];
} value;

typedef struct {
  const ir_graph *in;
  ir_graph *out;
  value *v;
  bool *to_param, *to_conv;       /* it becomes a param's next value; it is the padded image of a conv */
  bool *fixed;                    /* it follows from params alone, which stay what they are */
  bool images;
} ctx;

static const int8_t same_order[TT_MAX_RANK] = {0, 1, 2, 3, 4, 5, 6, 7};
static bool equal_order(const int8_t *a, const int8_t *b, int n) { return !memcmp(a, b, (size_t)n); }
static bool moves(const int8_t *order, int n) { return !equal_order(order, same_order, n); }
static int at(const int8_t *order, int axis) {
  int i = 0;
  while (order[i] != axis) i++;
  return i;
}

static tt_shape ordered_shape(const ir_node *n, const int8_t *order) {
  tt_shape s = {.rank = n->rank};
  for (int i = 0; i < n->rank; i++) s.dim[i] = n->dim[order[i]];
  return s;
}

/* Value r with its axes in this order. */
static ir_ref as(ctx *c, ir_ref r, const int8_t *order) {
  const ir_node *n = ir_at(c->in, r);
  const value *v = &c->v[r];
  if (!v->row && n->op == IR_iota) return ir_iota(c->out, (tt_dtype)n->dtype, ordered_shape(n, order), at(order, (int)ir_int(n, "axis")));
  if (!v->row) {                  /* a broadcast: the argument's axes come in the order in which their places come */
    ir_ref arg = n->args[0];
    int rank = ir_at(c->in, arg)->rank, k = 0, dims[TT_MAX_RANK];
    const int64_t *to = ir_ints(n, "dims", NULL);
    int8_t arg_order[TT_MAX_RANK];
    for (int i = 0; i < n->rank; i++)
      for (int j = 0; j < rank; j++)
        if (to[j] == order[i]) arg_order[k] = (int8_t)j, dims[k++] = i;
    return ir_broadcast(c->out, as(c, arg, arg_order), ordered_shape(n, order), dims);
  }
  if (equal_order(v->order, order, n->rank)) return v->row;
  int perm[TT_MAX_RANK];
  for (int i = 0; i < n->rank; i++) perm[i] = at(v->order, order[i]);
  return ir_permute(c->out, v->row, perm);
}
static ir_ref as_was(ctx *c, ir_ref r) { return as(c, r, same_order); }

/* The order that r comes in most easily. false: it is as good in any. */
static bool natural(const ctx *c, ir_ref r, int8_t *order) {
  const ir_node *n = ir_at(c->in, r);
  memcpy(order, same_order, sizeof same_order);
  if (c->v[r].row) {
    memcpy(order, c->v[r].order, sizeof same_order);
    return n->rank > 0;
  }
  if (n->op == IR_iota) return false;
  ir_ref arg = n->args[0];
  int rank = ir_at(c->in, arg)->rank, k = 0;
  int8_t inner[TT_MAX_RANK];
  tt_shape s = ir_shape(c->in, arg), t = ir_shape(c->in, r);
  if (rank < 2 || tt_shape_count(&s) * 64 < tt_shape_count(&t) || !natural(c, arg, inner)) return false;
  if (!moves(inner, rank)) return true;
  const int64_t *dims = ir_ints(n, "dims", NULL);
  bool had[TT_MAX_RANK] = {false};
  for (int i = 0; i < rank; i++) had[dims[i]] = true;
  for (int i = 0; i < rank - 1; i++) order[k++] = (int8_t)dims[inner[i]];
  for (int i = 0; i < n->rank; i++)               /* new axes stand before the innermost */
    if (!had[i]) order[k++] = (int8_t)i;
  order[k] = (int8_t)dims[inner[rank - 1]];
  return true;
}

/* The order of most of a row's arguments that have its shape; of equally many, one that moves axes. */
static void vote(const ctx *c, const ir_node *n, uint32_t first, int8_t *best) {
  int most = 0;
  memcpy(best, same_order, sizeof same_order);
  for (uint32_t i = first; i < n->n_args; i++) {
    int8_t mine[TT_MAX_RANK], other[TT_MAX_RANK];
    int votes = 0;
    if (!natural(c, n->args[i], mine)) continue;
    for (uint32_t k = first; k < n->n_args; k++) votes += natural(c, n->args[k], other) && equal_order(mine, other, n->rank);
    if (votes > most || (votes == most && !moves(best, n->rank))) memcpy(best, mine, sizeof mine), most = votes;
  }
}

static void set(ctx *c, ir_ref r, ir_ref row, const int8_t *order) {
  c->v[r].row = row;
  memcpy(c->v[r].order, order, sizeof same_order);
  if (row && !moves(order, ir_at(c->in, r)->rank)) ir_name(c->out, row, ir_at(c->in, r)->name);
}

static void elementwise(ctx *c, ir_ref r) {
  const ir_node *n = ir_at(c->in, r);
  int8_t order[TT_MAX_RANK];
  ir_ref args[3];
  vote(c, n, 0, order);
  if (c->to_param[r]) memcpy(order, same_order, sizeof order);
  for (uint32_t i = 0; i < n->n_args; i++) args[i] = as(c, n->args[i], order);
  set(c, r, ir_emit(c->out, (ir_op)n->op, args, n->n_args, n->words, n->n_words), order);
}

/* Axes of the argument and of the result fall into segments of equal size, dimensions of 1 aside. */
typedef struct { int a, n_a, b, n_b; } segment;
static int segments(const int64_t *a, int n_a, const int64_t *b, int n_b, const int *axis_a, const int *axis_b, segment *s) {
  int n = 0, i = 0, k = 0;
  while (i < n_a || k < n_b) {
    segment x = {.a = i, .b = k};
    int64_t p = 1, q = 1;
    do {
      if (p <= q && i < n_a) p *= a[axis_a[i++]];
      else if (k < n_b) q *= b[axis_b[k++]];
      else return -1;
    } while (p != q);
    x.n_a = i - x.a, x.n_b = k - x.b;
    s[n++] = x;
  }
  return n;
}

static void reshape(ctx *c, ir_ref r) {
  const ir_node *n = ir_at(c->in, r), *a = ir_at(c->in, n->args[0]);
  int axis_a[TT_MAX_RANK], axis_b[TT_MAX_RANK], n_a = 0, n_b = 0, k = 0;
  int8_t order[TT_MAX_RANK], arg_order[TT_MAX_RANK], from[TT_MAX_RANK], placed[TT_MAX_RANK];
  segment s[TT_MAX_RANK];
  tt_shape shape = ir_shape(c->in, r);
  natural(c, n->args[0], from);
  for (int i = 0; i < a->rank; i++)
    if (a->dim[i] != 1) axis_a[n_a++] = i;
  for (int i = 0; i < n->rank; i++)
    if (n->dim[i] != 1) axis_b[n_b++] = i;
  int count = tt_shape_count(&shape) ? segments(a->dim, n_a, n->dim, n_b, axis_a, axis_b, s) : -1;
  if (count < 0 || !moves(from, a->rank)) {
    set(c, r, ir_reshape(c->out, as_was(c, n->args[0]), shape), same_order);
    return;
  }
  bool done[TT_MAX_RANK] = {false};
  int n_order = 0;
  for (int i = 0; i < a->rank; i++) {             /* the argument's axes, those of a segment side by side */
    int axis = from[i], which = -1;
    for (int j = 0; j < count; j++)
      for (int m = 0; m < s[j].n_a; m++)
        if (axis_a[s[j].a + m] == axis) which = j;
    if (which < 0) arg_order[k++] = (int8_t)axis;
    else if (!done[which]) {
      done[which] = true;
      for (int m = 0; m < s[which].n_a; m++) arg_order[k++] = (int8_t)axis_a[s[which].a + m];
      for (int m = 0; m < s[which].n_b; m++) placed[n_order++] = (int8_t)axis_b[s[which].b + m];
    }
  }
  k = 0;
  for (int i = 0; i < n_order; i++) {             /* a dimension of 1 stands before the axis that it precedes */
    for (int j = 0; j < placed[i]; j++) {
      bool ones = n->dim[j] == 1;
      for (int m = j; ones && m < placed[i]; m++) ones = n->dim[m] == 1;
      if (ones) order[k++] = (int8_t)j;
    }
    order[k++] = placed[i];
  }
  for (int j = n_b ? axis_b[n_b - 1] + 1 : 0; j < n->rank; j++) order[k++] = (int8_t)j;
  set(c, r, ir_reshape(c->out, as(c, n->args[0], arg_order), ordered_shape(n, order)), order);
}

static void convolution(ctx *c, ir_ref r) {
  const ir_node *n = ir_at(c->in, r);
  ir_conv_attrs a = {.split = 1, .winograd = ir_int(n, "winograd")};
  int D = n->rank - 3, perm[TT_MAX_RANK] = {0};
  for (int i = 0; i < D; i++) {
    a.stride[i] = ir_ints(n, "stride", NULL)[i], a.lo[i] = ir_ints(n, "lo", NULL)[i], a.hi[i] = ir_ints(n, "hi", NULL)[i];
    a.dilation[i] = ir_ints(n, "dilation", NULL)[i], a.x_dilation[i] = ir_ints(n, "x_dilation", NULL)[i];
    perm[1 + i] = 3 + i;
  }
  perm[D + 1] = 1, perm[D + 2] = 2;
  int8_t order[TT_MAX_RANK];
  for (int i = 0; i < n->rank; i++) order[i] = (int8_t)perm[i];
  ir_ref x = as_was(c, n->args[0]), w = as_was(c, n->args[1]);
  a.split = pass_split_contraction(c->in, r, c->fixed);
  ir_ref y = ir_conv(c->out, x, w, &a);
  if (a.split > 1) {                              /* [S,N,G,O,*D] */
    int split_perm[TT_MAX_RANK] = {0};
    for (int i = 0; i < n->rank; i++) split_perm[1 + i] = 1 + perm[i];
    y = ir_reduce(c->out, IR_sum, ir_permute(c->out, y, split_perm), (int[]){0}, 1, false);
  } else y = ir_permute(c->out, y, perm);
  set(c, r, y, order);
}

static void padding(ctx *c, ir_ref r) {
  const ir_node *n = ir_at(c->in, r);
  int8_t order[TT_MAX_RANK];
  int64_t lo[TT_MAX_RANK], hi[TT_MAX_RANK], interior[TT_MAX_RANK];
  natural(c, n->args[0], order);
  bool few = n->rank > 2 && n->dim[2] <= 4;       /* the channels of a first layer: pixels are as good to read as they stand */
  if (c->to_conv[r] && !few && order[n->rank - 1] >= 3 && (order[0] == 0 || order[0] == 2)) {     /* [N,G,C,*D], or [C,G,N,*D] of a weight's gradient */
    int first = order[0];
    order[0] = (int8_t)first, order[n->rank - 2] = 1, order[n->rank - 1] = (int8_t)(2 - first);
    for (int i = 3; i < n->rank; i++) order[i - 2] = (int8_t)i;
  }
  for (int i = 0; i < n->rank; i++) {
    lo[i] = ir_ints(n, "lo", NULL)[order[i]], hi[i] = ir_ints(n, "hi", NULL)[order[i]], interior[i] = ir_ints(n, "interior", NULL)[order[i]];
  }
  set(c, r, ir_pad(c->out, as(c, n->args[0], order), as_was(c, n->args[1]), lo, hi, interior), order);
}

static void reduction(ctx *c, ir_ref r) {
  const ir_node *n = ir_at(c->in, r);
  int rank = ir_at(c->in, n->args[0])->rank, axes[TT_MAX_RANK], n_axes = 1, k = 0, number[TT_MAX_RANK];
  int8_t from[TT_MAX_RANK], order[TT_MAX_RANK];
  bool gone[TT_MAX_RANK] = {false}, arg = n->op == IR_argmax || n->op == IR_argmin;
  natural(c, n->args[0], from);
  const int64_t *list = arg ? NULL : ir_ints(n, "axes", &n_axes);
  for (int i = 0; i < n_axes; i++) gone[arg ? ir_int(n, "axis") : list[i]] = true;
  for (int i = 0, m = 0; i < rank; i++) number[i] = gone[i] ? -1 : m++;
  n_axes = 0;
  for (int i = 0; i < rank; i++)
    if (gone[from[i]]) axes[n_axes++] = i;
    else order[k++] = (int8_t)number[from[i]];
  while (k < TT_MAX_RANK) order[k] = (int8_t)k, k++;
  ir_ref x = as(c, n->args[0], from);
  set(c, r, arg ? ir_arg(c->out, (ir_op)n->op, x, axes[0]) : pass_split_reduce(c->out, (ir_op)n->op, x, axes, n_axes), order);
}

/* Slices, folds, gathers: the attributes follow the axes. */
static void movement(ctx *c, ir_ref r) {
  const ir_node *n = ir_at(c->in, r);
  int8_t order[TT_MAX_RANK];
  int64_t start[TT_MAX_RANK], stop[TT_MAX_RANK], step[TT_MAX_RANK];
  int rank = ir_at(c->in, n->args[0])->rank, axes[TT_MAX_RANK], count = 0;
  natural(c, n->args[0], order);
  if (n->n_args > 1) vote(c, n, 0, order);
  ir_ref *args = malloc(n->n_args * sizeof *args), y = 0;
  if (!args) { tt_fail(&c->out->error, TT_NO_MEMORY, "error: no memory for a row of @%s", c->in->name); return; }
  switch (n->op) {
  case IR_permute: {
    const int64_t *perm = ir_ints(n, "perm", NULL);
    int8_t renamed[TT_MAX_RANK];
    for (int i = 0; i < rank; i++)
      for (int k = 0; k < rank; k++)
        if (perm[k] == order[i]) renamed[i] = (int8_t)k;
    y = as(c, n->args[0], order);
    memcpy(order, renamed, (size_t)rank);
    break;
  }
  case IR_slice:
    for (int i = 0; i < rank; i++) {
      start[i] = ir_ints(n, "start", NULL)[order[i]], stop[i] = ir_ints(n, "stop", NULL)[order[i]], step[i] = ir_ints(n, "step", NULL)[order[i]];
    }
    y = ir_slice(c->out, as(c, n->args[0], order), start, stop, step);
    break;
  case IR_reverse: {
    const int64_t *list = ir_ints(n, "axes", &count);
    for (int i = 0; i < count; i++) axes[i] = at(order, (int)list[i]);
    y = ir_reverse(c->out, as(c, n->args[0], order), axes, count);
    break;
  }
  case IR_unfold: {
    int axis = at(order, (int)ir_int(n, "axis"));
    y = ir_unfold(c->out, as(c, n->args[0], order), axis, ir_int(n, "size"), ir_int(n, "stride"), ir_int(n, "dilation"));
    order[rank] = (int8_t)rank;
    if (moves(order, rank) && axis != rank - 1) {  /* the innermost axis stays innermost */
      for (int i = 0; i < rank - 1; i++) axes[i] = i;
      axes[rank - 1] = rank, axes[rank] = rank - 1;
      y = ir_permute(c->out, y, axes);
      order[rank] = order[rank - 1], order[rank - 1] = (int8_t)rank;
    }
    break;
  }
  case IR_fold: {
    int k = 0;
    for (int i = 0; i < rank; i++)
      if (order[i] != rank - 1) order[k++] = order[i];
    order[k] = (int8_t)(rank - 1);
    y = ir_fold(c->out, as(c, n->args[0], order), at(order, (int)ir_int(n, "axis")), ir_int(n, "length"), ir_int(n, "stride"), ir_int(n, "dilation"));
    break;
  }
  default:                                         /* along one axis, all arguments in one order */
    for (uint32_t i = 0; i < n->n_args; i++) args[i] = as(c, n->args[i], order);
    int axis = at(order, (int)ir_int(n, "axis"));
    if (n->op == IR_concat) y = ir_concat(c->out, args, (int)n->n_args, axis);
    else if (n->op == IR_gather) y = ir_gather(c->out, args[0], args[1], axis);
    else if (n->op == IR_scatter_add) y = ir_scatter_add(c->out, args[0], args[1], args[2], axis);
    else if (n->op == IR_argsort) y = ir_argsort(c->out, args[0], axis, ir_int(n, "descending"));
    else y = ir_cumsum(c->out, args[0], axis, ir_int(n, "exclusive"), ir_int(n, "reversed"));
  }
  free(args);
  set(c, r, y, order);
}

/* As it was, all arguments too. */
static void plain(ctx *c, ir_ref r, ir_ref *map) {
  const ir_node *n = ir_at(c->in, r);
  for (uint32_t i = 0; i < n->n_args; i++) map[n->args[i]] = as_was(c, n->args[i]);
  int64_t split = n->op == IR_matmul || n->op == IR_conv ? pass_split_contraction(c->in, r, c->fixed) : 1;
  if (split > 1) {
    ir_ref y;
    if (n->op == IR_matmul) y = ir_matmul(c->out, map[n->args[0]], map[n->args[1]], ir_int(n, "ta"), ir_int(n, "tb"), split);
    else { convolution(c, r); return; }
    set(c, r, ir_reduce(c->out, IR_sum, y, (int[]){0}, 1, false), same_order);
  } else if (n->op == IR_sum || n->op == IR_amax || n->op == IR_amin) reduction(c, r);
  else set(c, r, ir_rebuild(c->in, c->out, r, map), same_order);
}

static void mark(ctx *c, const bool *live) {
  const ir_graph *g = c->in;
  for (ir_ref r = g->n_nodes - 1; r > 0; r--) {
    const ir_node *n = ir_at(g, r);
    if (!live[r]) continue;
    if (n->op == IR_conv) c->images = true, c->to_conv[n->args[0]] = ir_at(g, n->args[0])->op == IR_pad;
    if (n->op == IR_assign) c->to_param[n->args[1]] = true;
    if (!c->to_param[r] || ir_ops[n->op].kind != IR_ELEMENTWISE) continue;
    for (uint32_t i = 0; i < n->n_args; i++) c->to_param[n->args[i]] = true;
  }
}

static void row(ctx *c, ir_ref r, ir_ref *map) {
  const ir_node *n = ir_at(c->in, r);
  ir_kind kind = ir_ops[n->op].kind;
  if (!c->images || form_is_leaf(c->in, r)) plain(c, r, map);
  else if (n->op == IR_broadcast || n->op == IR_iota) c->v[r].row = 0;
  else if (kind == IR_ELEMENTWISE) elementwise(c, r);
  else if (n->op == IR_reshape) reshape(c, r);
  else if (n->op == IR_pad) padding(c, r);
  else if (n->op == IR_conv && ir_int(n, "split") <= 1) convolution(c, r);
  else if (form_is_reduction((ir_op)n->op)) reduction(c, r);
  else if (kind == IR_MOVEMENT || n->op == IR_gather || n->op == IR_scatter_add || n->op == IR_argsort || n->op == IR_cumsum) movement(c, r);
  else plain(c, r, map);
}

tt_status pass_layout(const ir_graph *in, ir_graph *out, const pass_options *options, tt_error *err) {
  size_t n = in->n_nodes;
  ctx c = {.in = in, .out = out, .v = calloc(n, sizeof *c.v), .to_param = calloc(n, sizeof(bool)), .to_conv = calloc(n, sizeof(bool)), .fixed = pass_fixed_rows(in, options)};
  ir_ref *map = calloc(n, sizeof *map);
  bool *live = ir_live(in), ok = c.v && c.to_param && c.to_conv && c.fixed && map && live;
  if (ok) {
    mark(&c, live);
    for (ir_ref r = 1; r < n && !out->error.status; r++) {
      if (!live[r]) continue;
      out->at_origin = ir_origin_copy(out, in, ir_at(in, r)->origin);
      row(&c, r, map);
    }
    out->at_origin = 0;
    for (uint32_t i = 0; i < in->n_outputs && !out->error.status; i++) map[in->outputs[i].value] = as_was(&c, in->outputs[i].value);
    for (uint32_t i = 0; i < in->n_effects && !out->error.status; i++) map[in->effects[i]] = c.v[in->effects[i]].row;
    if (!out->error.status) ir_finish(in, out, map);
  } else tt_fail(err, TT_NO_MEMORY, "error: no memory for the layouts of @%s\n  at %u rows\n  fix: free memory", in->name, in->n_nodes);
  free(c.v), free(c.to_param), free(c.to_conv), free(c.fixed), free(map), free(live);
  return !ok ? TT_NO_MEMORY : out->error.status ? tt_fail(err, out->error.status, "%s", out->error.message) : TT_OK;
}
