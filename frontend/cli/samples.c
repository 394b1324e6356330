/* samples.c: see samples.h. Elementwise ops share one list of shapes and arrangements; every other op has its own variants in a switch,
 * so that an op without samples is a compiler's warning (and an error in CI). */
#include "samples.h"

#include "../../passes/passes.h"

#include <math.h>
#include <string.h>

static tt_shape shape_of(int rank, const int64_t *dim) {
  tt_shape s = {.rank = rank};
  if (rank) memcpy(s.dim, dim, (size_t)rank * sizeof *dim);
  return s;
}
#define SHAPE(...) shape_of((int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]){__VA_ARGS__})
#define SCALAR ((tt_shape){.rank = 0})

static ir_ref in(ir_graph *g, const char *name, tt_dtype t, tt_shape s) { return ir_input(g, name, t, s); }

/* An operand of that shape that does not stand densely: a transposed, a sliced, a reversed or a broadcast input. */
static ir_ref arranged(ir_graph *g, const char *name, tt_dtype t, tt_shape s, int how) {
  tt_shape larger = s;
  int64_t start[TT_MAX_RANK] = {0}, stop[TT_MAX_RANK], step[TT_MAX_RANK];
  switch (how) {
    case 1:                                           /* transposed */
      if (s.rank < 2) return in(g, name, t, s);
      larger.dim[0] = s.dim[s.rank - 1], larger.dim[s.rank - 1] = s.dim[0];
      return ir_transpose(g, in(g, name, t, larger), 0, s.rank - 1);
    case 2:                                           /* every second element of a larger one, after the first */
      for (int i = 0; i < s.rank; i++) larger.dim[i] = 2 * s.dim[i] + 1, start[i] = 1, stop[i] = 2 * s.dim[i] + 1, step[i] = 2;
      return ir_slice(g, in(g, name, t, larger), start, stop, step);
    case 3:                                           /* one row for all */
      if (s.rank < 1) return in(g, name, t, s);
      return ir_broadcast_to(g, in(g, name, t, SHAPE(s.dim[s.rank - 1])), s);
    case 4:                                           /* one number for all */
      return ir_broadcast_to(g, in(g, name, t, SCALAR), s);
    case 5:                                           /* one column for all */
      if (s.rank < 1) return in(g, name, t, s);
      larger.dim[s.rank - 1] = 1;
      return ir_broadcast_to(g, in(g, name, t, larger), s);
    case 6:
      if (s.rank < 1) return in(g, name, t, s);
      return ir_reverse(g, in(g, name, t, s), (int[]){s.rank - 1}, 1);
    default: return in(g, name, t, s);
  }
}

/* Shapes and arrangements of an elementwise op's operands. */
static const struct { int rank; int64_t dim[4]; int a, b; } grid[] = {
  {0, {0}, 0, 0},        {1, {1}, 0, 0},          {1, {17}, 0, 4},      {1, {64}, 0, 0},    {1, {1003}, 0, 0}, {2, {0, 3}, 0, 0},   {2, {5, 7}, 1, 0},
  {2, {3, 33}, 0, 3},    {2, {9, 40}, 0, 5},      {3, {2, 3, 5}, 2, 1}, {2, {6, 21}, 6, 3}, {3, {4, 1, 19}, 0, 2}, {4, {2, 3, 2, 16}, 1, 4},
};
enum { GRID = sizeof grid / sizeof *grid };

static ir_ref elementwise(ir_graph *g, ir_op op, tt_dtype t, int v) {
  if (v >= GRID) return 0;
  tt_shape s = shape_of(grid[v].rank, grid[v].dim);
  if (op == IR_select) return ir_select(g, arranged(g, "a", TT_BOOL, s, grid[v].a), arranged(g, "b", t, s, grid[v].b), arranged(g, "c", t, s, 0));
  ir_ref a = arranged(g, "a", t, s, grid[v].a);
  if (ir_ops[op].arity == 1) return ir_ew1(g, op, a);
  return ir_ew2(g, op, a, arranged(g, "b", t, s, grid[v].b));
}

static tt_dtype same_width(tt_dtype t) {
  switch (tt_dtype_size(t)) {
    case 8: return t == TT_F64 ? TT_I64 : TT_F64;
    case 4: return t == TT_F32 ? TT_U32 : TT_F32;
    case 2: return t == TT_F16 ? TT_I16 : t == TT_BF16 ? TT_U16 : TT_F16;
    default: return t == TT_U8 ? TT_I8 : TT_U8;
  }
}

static ir_ref reduction(ir_graph *g, ir_op op, tt_dtype t, int v) {
  static const struct { int rank; int64_t dim[4]; int n; int axes[4]; int how; } cases[] = {
    {1, {1}, 1, {0}, 0},        {1, {37}, 1, {0}, 0},         {2, {5, 33}, 1, {1}, 0},       {2, {33, 5}, 1, {0}, 0},          {2, {7, 16}, 2, {0, 1}, 0}, {3, {3, 4, 19}, 2, {0, 2}, 0},
    {3, {4, 9, 3}, 1, {1}, 0},  {2, {0, 3}, 1, {0}, 0},       {2, {3, 0}, 1, {0}, 0},        {2, {8, 40}, 1, {1}, 1},          {2, {8, 40}, 1, {0}, 2},    {4, {2, 3, 4, 5}, 3, {0, 1, 3}, 0},
    {2, {300, 2}, 1, {0}, 0},   {1, {5000}, 1, {0}, 0},
  };
  if (v >= (int)(sizeof cases / sizeof *cases)) return 0;
  ir_ref a = arranged(g, "a", t, shape_of(cases[v].rank, cases[v].dim), cases[v].how);
  return ir_reduce(g, op, a, cases[v].axes, cases[v].n, v % 2);
}

static ir_ref matmul(ir_graph *g, tt_dtype t, int v) {
  static const struct { int64_t b, m, n, k; int ta, tb, split, how; } cases[] = {
    {0, 1, 1, 1, 0, 0, 1, 0},    {0, 5, 7, 3, 0, 0, 1, 0},    {0, 13, 33, 17, 0, 1, 1, 0}, {0, 64, 40, 24, 1, 0, 1, 0}, {2, 6, 16, 8, 1, 1, 1, 0}, {3, 1, 20, 5, 0, 0, 1, 1}, {0, 1, 50, 70, 0, 1, 1, 0},
    {0, 37, 1, 19, 0, 0, 1, 0},  {0, 6, 6, 0, 0, 0, 1, 0},    {0, 0, 4, 4, 0, 0, 1, 0},    {0, 9, 12, 40, 0, 0, 4, 0},  {0, 70, 65, 130, 0, 1, 1, 0}, {0, 31, 18, 12, 1, 0, 3, 1}, {4, 17, 9, 6, 0, 1, 1, 2},
  };
  if (v >= (int)(sizeof cases / sizeof *cases)) return 0;
  int64_t b = cases[v].b, m = cases[v].m, n = cases[v].n, k = cases[v].k;
  tt_shape sa = cases[v].ta ? SHAPE(b, k, m) : SHAPE(b, m, k), sb = cases[v].tb ? SHAPE(b, n, k) : SHAPE(b, k, n);
  if (!b) sa = shape_of(2, sa.dim + 1), sb = shape_of(2, sb.dim + 1);
  return ir_matmul(g, arranged(g, "a", t, sa, cases[v].how), arranged(g, "b", t, sb, cases[v].how == 2 ? 3 : 0), cases[v].ta, cases[v].tb, cases[v].split);
}

static ir_ref conv(ir_graph *g, tt_dtype t, int v) {
  static const struct { int d; int64_t n, g, c, o, size, k, stride, lo, hi, dilation, x_dilation, split; } cases[] = {
    {2, 1, 1, 1, 1, 3, 1, 1, 0, 0, 1, 1, 1}, {2, 2, 1, 3, 8, 7, 3, 1, 1, 1, 1, 1, 1}, {2, 2, 2, 3, 5, 9, 3, 2, 1, 1, 1, 1, 1}, {2, 1, 1, 4, 17, 10, 3, 1, 2, 2, 2, 1, 1},
    {2, 3, 4, 1, 1, 6, 3, 1, 1, 1, 1, 1, 1}, {2, 2, 1, 2, 4, 4, 3, 1, 2, 1, 1, 2, 1}, {1, 2, 1, 3, 5, 20, 3, 1, 1, 1, 1, 1, 1},    {3, 1, 1, 2, 3, 4, 2, 1, 0, 1, 1, 1, 1},
    {2, 4, 1, 4, 6, 5, 2, 1, 0, 0, 1, 1, 2}, {2, 0, 1, 2, 3, 5, 3, 1, 0, 0, 1, 1, 1}, {2, 8, 1, 16, 32, 8, 3, 1, 1, 1, 1, 1, 1},
    {2, 2, 1, 8, 20, 5, 3, 1, 1, 2, 1, 2, 1}, {1, 2, 2, 3, 5, 6, 4, 2, 2, 3, 2, 3, 1},       {2, 2, 1, 6, 8, 4, 1, 1, 0, 1, 1, 2, 1},  {3, 1, 1, 2, 3, 3, 3, 1, 1, 1, 1, 3, 1},
  };
  if (v >= (int)(sizeof cases / sizeof *cases)) return 0;
  int64_t x[8] = {cases[v].n, cases[v].g, cases[v].c}, w[8] = {cases[v].g, cases[v].o, cases[v].c};
  ir_conv_attrs a = {.split = cases[v].split};
  for (int i = 0; i < cases[v].d; i++) {
    x[3 + i] = cases[v].size + (cases[v].d > 1 && i ? 1 : 0), w[3 + i] = cases[v].k;
    a.stride[i] = cases[v].stride, a.lo[i] = cases[v].lo, a.hi[i] = cases[v].hi, a.dilation[i] = cases[v].dilation, a.x_dilation[i] = cases[v].x_dilation;
  }
  return ir_conv(g, in(g, "a", t, shape_of(3 + cases[v].d, x)), in(g, "b", t, shape_of(3 + cases[v].d, w)), &a);
}

/* mask: 0 none, 1 bool, 2 added, as large as the scores; 3 and 4: the same of one row and head. how: 1: heads stand between rows and their numbers. */
static ir_ref attention(ir_graph *g, ir_op op, tt_dtype t, int v) {
  static const struct { int64_t b, h, g, t, s, d, e; bool causal, length; int mask, how; } cases[] = {
    {1, 1, 1, 5, 7, 3, 4, 0, 0, 0, 0},     {2, 3, 3, 40, 40, 16, 16, 1, 0, 0, 1},  {1, 4, 2, 33, 70, 17, 9, 0, 0, 1, 0},  {2, 2, 1, 20, 100, 8, 24, 0, 0, 2, 1}, {1, 2, 2, 1, 80, 32, 32, 1, 1, 0, 0},
    {1, 6, 2, 3, 130, 16, 16, 1, 1, 0, 1}, {2, 2, 2, 150, 150, 32, 32, 1, 0, 3, 0}, {1, 2, 2, 65, 65, 40, 40, 0, 1, 4, 1}, {1, 1, 1, 130, 50, 64, 64, 1, 0, 0, 0}, {2, 2, 2, 0, 5, 4, 4, 0, 0, 0, 0},
    {1, 1, 1, 3, 0, 4, 4, 0, 0, 0, 0}};
  if (v >= (int)(sizeof cases / sizeof *cases)) return 0;
  int64_t B = cases[v].b, H = cases[v].h, G = cases[v].g, T = cases[v].t, S = cases[v].s, D = cases[v].d, E = cases[v].e;
  struct { const char *name; int64_t heads, rows, n; } parts[] = {{"a", H, T, D}, {"b", G, S, D}, {"c", G, S, E}, {"d", H, T, E}};
  bool whole = cases[v].mask < 3;
  ir_ref args[6];
  for (int i = 0; i < 4; i++) {
    if (i == 3 && ir_attention_first(op) == 3) break;
    if (cases[v].how) args[i] = ir_permute(g, in(g, parts[i].name, t, SHAPE(B, parts[i].rows, parts[i].heads, parts[i].n)), (int[]){0, 2, 1, 3});
    else args[i] = in(g, parts[i].name, t, SHAPE(B, parts[i].heads, parts[i].rows, parts[i].n));
  }
  ir_attention_options o = {.scale = 1 / sqrt((double)D), .causal = cases[v].causal};
  if (ir_attention_first(op) == 6) args[4] = in(g, "e", t, SHAPE(B, H, T)), args[5] = in(g, "f", t, SHAPE(B, H, T));
  if (cases[v].mask) o.mask = in(g, "g", cases[v].mask & 1 ? TT_BOOL : t, whole ? SHAPE(B, H, T, S) : SHAPE(B, 1, 1, S));
  if (cases[v].length) o.length = in(g, "h", TT_I64, SCALAR);
  return ir_attention(g, op, args, &o);
}

static ir_ref pool(ir_graph *g, ir_op op, tt_dtype t, int v) {
  static const struct { int64_t n, c, h, w, size, stride, lo, hi, dilation; bool count; } cases[] = {
    {2, 3, 8, 8, 2, 2, 0, 0, 1, true}, {1, 2, 9, 7, 3, 2, 1, 1, 1, false}, {2, 1, 7, 7, 2, 1, 0, 0, 1, true}, {1, 3, 10, 11, 3, 3, 1, 2, 1, true}, {2, 17, 5, 5, 5, 1, 0, 0, 1, true}, {1, 1, 9, 9, 3, 1, 1, 1, 2, true},
  };
  if (v >= (int)(sizeof cases / sizeof *cases)) return 0;
  if (op == IR_avg_pool && cases[v].dilation > 1) return ir_pool(g, op, in(g, "a", t, SHAPE(1, 1, 9, 9)), 2, (int64_t[]){3, 3}, (int64_t[]){1, 1}, (int64_t[]){1, 1}, (int64_t[]){1, 1}, NULL, false);
  int64_t size[2] = {cases[v].size, cases[v].size}, stride[2] = {cases[v].stride, cases[v].stride}, lo[2] = {cases[v].lo, cases[v].lo}, hi[2] = {cases[v].hi, cases[v].hi},
          dilation[2] = {cases[v].dilation, cases[v].dilation};
  return ir_pool(g, op, in(g, "a", t, SHAPE(cases[v].n, cases[v].c, cases[v].h, cases[v].w)), 2, size, stride, lo, hi, op == IR_max_pool ? dilation : NULL, cases[v].count);
}

/* Shapes with an axis, for ops along one. */
static const struct { int rank; int64_t dim[3]; int axis, how; } lines[] = {
  {1, {1}, 0, 0}, {1, {37}, 0, 0}, {2, {5, 33}, 1, 0}, {2, {33, 5}, 0, 0}, {3, {3, 6, 19}, 1, 0}, {2, {0, 4}, 0, 0}, {2, {4, 0}, 0, 0}, {2, {9, 20}, 1, 1}, {3, {2, 7, 4}, 2, 2},
};
enum { LINES = sizeof lines / sizeof *lines };
static ir_ref line(ir_graph *g, tt_dtype t, int v) { return arranged(g, "a", t, shape_of(lines[v].rank, lines[v].dim), lines[v].how); }

/* h' = h r + x, or x where it is not r; y = the h before: forwards and backwards, the last h or the stack. */
static ir_ref scan(ir_graph *g, tt_dtype t, int v) {
  int64_t length = v < 4 ? 1 : 6;
  ir_graph *f = ir_graph_new("step");
  if (!f) return tt_fail(&g->error, TT_NO_MEMORY, "error: no memory for a scan's body\n  at samples.c\n  fix: free memory"), 0;
  ir_ref h = ir_param(f, "h", t, SHAPE(3, 5), false), x = ir_input(f, "x", t, SHAPE(3, 5)), r = ir_input(f, "r", t, SHAPE(3, 5));
  ir_assign(f, h, tt_dtype_in(t, TT_REAL) ? ir_ew2(f, IR_add, ir_ew2(f, IR_mul, h, r), x) : ir_select(f, ir_ew2(f, IR_ne, x, r), x, h));
  ir_output_add(f, "y", h);
  ir_ref args[] = {in(g, "a", t, SHAPE(3, 5)), in(g, "b", t, (tt_shape){3, {length, 3, 5}}), in(g, "c", t, SHAPE(3, 5))};
  return ir_scan(g, args, 3, (ir_scan_attrs){.body = ir_function_add(g, f), .carries = 1, .xs = 1, .length = length, .reversed = v & 1, .result = v / 2 % 2});
}

static ir_ref build(ir_graph *g, ir_op op, tt_dtype t, int v) {
  const ir_op_info *info = &ir_ops[op];
  if (info->ew || op == IR_select) return elementwise(g, op, t, v);
  tt_shape s = v < GRID ? shape_of(grid[v].rank, grid[v].dim) : SCALAR;
  switch (op) {
    case IR_input: return v < GRID ? in(g, "a", t, s) : 0;
    case IR_param: return v < GRID ? ir_param(g, "a", t, s, tt_dtype_in(t, TT_REAL)) : 0;
    case IR_const: {
      static const uint64_t zeros[8], bits[8] = {0x0101010100000001u, 0x0001010000010101u, 0x0100000001010001u, 0x0001000101000001u, 1, 0x0100u, 0x010101u, 0x01u};
      return v == 0 ? ir_const(g, t, SCALAR, bits) : v == 1 ? ir_const(g, t, SHAPE(7), bits) : v == 2 ? ir_const(g, t, SHAPE(0), zeros) : v == 3 ? ir_const(g, t, SHAPE(2, 3), zeros) : 0;
    }
    case IR_iota: return v < GRID && grid[v].rank > 0 ? ir_iota(g, t, s, v % grid[v].rank) : v < GRID ? ir_iota(g, t, SHAPE(3), 0) : 0;
    case IR_random: return v < GRID ? ir_random(g, in(g, "a", TT_U64, SCALAR), in(g, "b", TT_U64, SCALAR), s, 3 + v) : 0;
    case IR_cast: {
      int to = v / 4;
      return to < TT_N_DTYPES ? ir_cast(g, arranged(g, "a", t, SHAPE(3, 35), v % 4 ? v % 4 : 0), (tt_dtype)to == t ? (t == TT_F32 ? TT_F64 : TT_F32) : (tt_dtype)to) : 0;
    }
    case IR_bitcast: return v < GRID ? ir_bitcast(g, arranged(g, "a", t, s, grid[v].a), same_width(t)) : 0;
    case IR_stop_gradient: return v < GRID ? ir_stop_gradient(g, arranged(g, "a", t, s, grid[v].a)) : 0;

    case IR_reshape: return v == 0 ? ir_reshape(g, in(g, "a", t, SHAPE(6, 10)), SHAPE(4, 15)) : v == 1 ? ir_reshape(g, arranged(g, "a", t, SHAPE(6, 35), 1), SHAPE(210)) : v == 2 ? ir_reshape(g, in(g, "a", t, SCALAR), SHAPE(1, 1)) : v == 3 ? ir_reshape(g, in(g, "a", t, SHAPE(0, 5)), SHAPE(5, 0, 3)) : 0;
    case IR_permute: return v == 0 ? ir_permute(g, in(g, "a", t, SHAPE(17, 33)), (int[]){1, 0}) : v == 1 ? ir_permute(g, in(g, "a", t, SHAPE(3, 4, 5, 6)), (int[]){2, 0, 3, 1}) : v == 2 ? ir_permute(g, arranged(g, "a", t, SHAPE(5, 2, 9), 2), (int[]){2, 1, 0}) : v == 3 ? ir_permute(g, in(g, "a", t, SHAPE(4, 0)), (int[]){1, 0}) : 0;
    case IR_broadcast: return v == 0 ? ir_broadcast_to(g, in(g, "a", t, SHAPE(1, 19)), SHAPE(5, 19)) : v == 1 ? ir_broadcast_to(g, in(g, "a", t, SCALAR), SHAPE(3, 3)) : v == 2 ? ir_broadcast(g, in(g, "a", t, SHAPE(3)), SHAPE(3, 21), (int[]){0}) : v == 3 ? ir_broadcast_to(g, in(g, "a", t, SHAPE(2, 1, 4)), SHAPE(3, 2, 5, 4)) : 0;
    case IR_slice: return v == 0 ? ir_slice_axis(g, in(g, "a", t, SHAPE(9, 20)), 1, 3, 18, 2) : v == 1 ? ir_slice_axis(g, in(g, "a", t, SHAPE(9, 20)), 0, 2, 9, 3) : v == 2 ? ir_slice_axis(g, in(g, "a", t, SHAPE(40)), 0, 5, 39, 1) : v == 3 ? ir_slice_axis(g, in(g, "a", t, SHAPE(4, 3)), 0, 2, 2, 1) : 0;
    case IR_pad: {
      if (v > 3) return 0;
      ir_ref value = in(g, "b", t, SCALAR);
      if (v == 0) return ir_pad(g, in(g, "a", t, SHAPE(3, 17)), value, (int64_t[]){1, 2}, (int64_t[]){0, 3}, (int64_t[]){0, 0});
      if (v == 1) return ir_pad(g, in(g, "a", t, SHAPE(2, 5)), value, (int64_t[]){0, 1}, (int64_t[]){2, 0}, (int64_t[]){2, 1});
      if (v == 2) return ir_pad(g, in(g, "a", t, SHAPE(2, 4, 4, 19)), value, (int64_t[]){0, 1, 1, 0}, (int64_t[]){0, 1, 1, 0}, (int64_t[]){0, 0, 0, 0});
      return ir_pad(g, in(g, "a", t, SHAPE(0)), value, (int64_t[]){2}, (int64_t[]){3}, (int64_t[]){1});
    }
    case IR_concat: {
      if (v > 2) return 0;
      int axis = v == 0 ? 0 : v == 1 ? 1 : 2;
      tt_shape a = SHAPE(3, 4, 5), b = a, c = a;
      b.dim[axis] = 1, c.dim[axis] = v == 2 ? 0 : 7;
      return ir_concat(g, (ir_ref[]){in(g, "a", t, a), in(g, "b", t, b), in(g, "c", t, c)}, 3, axis);
    }
    case IR_reverse: return v == 0 ? ir_reverse(g, in(g, "a", t, SHAPE(35)), (int[]){0}, 1) : v == 1 ? ir_reverse(g, in(g, "a", t, SHAPE(3, 4, 5)), (int[]){0, 2}, 2) : 0;
    case IR_unfold: return v == 0 ? ir_unfold(g, in(g, "a", t, SHAPE(3, 12)), 1, 3, 2, 1) : v == 1 ? ir_unfold(g, in(g, "a", t, SHAPE(2, 9, 5)), 1, 2, 1, 3) : v == 2 ? ir_unfold(g, in(g, "a", t, SHAPE(40)), 0, 4, 4, 1) : 0;
    case IR_fold: return v == 0 ? ir_fold(g, in(g, "a", t, SHAPE(3, 5, 3)), 1, 12, 2, 1) : v == 1 ? ir_fold(g, in(g, "a", t, SHAPE(2, 6, 5, 2)), 1, 9, 1, 3) : v == 2 ? ir_fold(g, in(g, "a", t, SHAPE(10, 4)), 0, 40, 4, 1) : v == 3 ? ir_fold(g, in(g, "a", t, SHAPE(2, 7, 17, 2)), 1, 8, 1, 1) : 0;

    case IR_sum: case IR_prod: case IR_amax: case IR_amin: return reduction(g, op, t, v);
    case IR_argmax: case IR_argmin: return v < LINES && (lines[v].dim[lines[v].axis] || v == 6) ? ir_arg(g, op, line(g, t, v == 6 ? 1 : v), lines[v == 6 ? 1 : v].axis) : v < LINES ? ir_arg(g, op, in(g, "a", t, SHAPE(2, 0, 3)), 2) : 0;
    case IR_cumsum: return v < 4 * LINES ? ir_cumsum(g, line(g, t, v / 4), lines[v / 4].axis, v & 1, v >> 1 & 1) : 0;
    case IR_matmul: return matmul(g, t, v);
    case IR_conv: return conv(g, t, v);
    case IR_winograd: {
      static const struct { int64_t n, c, p, l, tile, size[3]; } cases[] = {{1, 1, 1, 1, 2, {1, 1, 1}}, {2, 3, 1, 8, 2, {5, 4, 7}}, {3, 17, 2, 16, 4, {20, 8, 8}}, {2, 8, 3, 16, 4, {48, 5, 10}}, {5, 9, 1, 32, 4, {32, 4, 4}}, {0, 2, 1, 8, 4, {8, 4, 4}}};
      if (v >= (int)(sizeof cases / sizeof *cases)) return 0;
      int64_t m = cases[v].tile, x = (cases[v].size[1] + m - 1) / m * m + 2, y = (cases[v].size[2] + m - 1) / m * m + 2;
      return ir_winograd(g, in(g, "a", t, SHAPE(cases[v].n, 1, cases[v].c, x, y)), in(g, "b", t, SHAPE(cases[v].p, (m + 2) * (m + 2), cases[v].c, cases[v].l)), m, cases[v].size);
    }

    case IR_attention: case IR_attention_lse: case IR_attention_dq: case IR_attention_dk: case IR_attention_dv: return attention(g, op, t, v);

    case IR_gather: {
      static const tt_dtype index[] = {TT_I64, TT_I32, TT_I64, TT_I64};
      if (v > 3) return 0;
      if (v == 0) return ir_gather(g, in(g, "a", t, SHAPE(4, 9)), in(g, "b", index[v], SHAPE(4, 5)), 1);
      if (v == 1) return ir_gather(g, in(g, "a", t, SHAPE(11, 6)), ir_broadcast(g, in(g, "b", index[v], SHAPE(7)), SHAPE(7, 6), (int[]){0}), 0);
      if (v == 2) return ir_gather(g, arranged(g, "a", t, SHAPE(5, 3, 20), 1), in(g, "b", index[v], SHAPE(5, 4, 20)), 1);
      return ir_gather(g, in(g, "a", t, SHAPE(6)), in(g, "b", index[v], SHAPE(0)), 0);
    }
    case IR_scatter_add: {
      if (v > 3) return 0;
      if (v == 0) return ir_scatter_add(g, in(g, "a", t, SHAPE(4, 9)), in(g, "b", TT_I64, SHAPE(4, 5)), in(g, "c", t, SHAPE(4, 5)), 1);
      if (v == 1) return ir_scatter_add(g, in(g, "a", t, SHAPE(11, 6)), ir_broadcast(g, in(g, "b", TT_I32, SHAPE(7)), SHAPE(7, 6), (int[]){0}), in(g, "c", t, SHAPE(7, 6)), 0);
      if (v == 2) return ir_scatter_add(g, in(g, "a", t, SHAPE(5, 3, 20)), in(g, "b", TT_I64, SHAPE(5, 8, 20)), arranged(g, "c", t, SHAPE(5, 8, 20), 1), 1);
      return ir_scatter_add(g, in(g, "a", t, SHAPE(6)), in(g, "b", TT_I64, SHAPE(40)), in(g, "c", t, SHAPE(40)), 0);
    }
    case IR_argsort: return v < 2 * LINES ? ir_argsort(g, line(g, t, v / 2), lines[v / 2].axis, v & 1) : 0;
    case IR_dynamic_slice: return v == 0 ? ir_dynamic_slice(g, in(g, "a", t, SHAPE(9, 20)), in(g, "b", TT_I64, SHAPE(2)), (int64_t[]){3, 17}) : v == 1 ? ir_dynamic_slice(g, in(g, "a", t, SHAPE(40)), in(g, "b", TT_I64, SHAPE(1)), (int64_t[]){33}) : 0;
    case IR_dynamic_update_slice: return v == 0 ? ir_dynamic_update_slice(g, in(g, "a", t, SHAPE(9, 20)), in(g, "b", t, SHAPE(3, 17)), in(g, "c", TT_I64, SHAPE(2))) : v == 1 ? ir_dynamic_update_slice(g, in(g, "a", t, SHAPE(40)), in(g, "b", t, SHAPE(33)), in(g, "c", TT_I64, SHAPE(1))) : 0;
    case IR_scan: return v < 8 ? scan(g, t, v) : 0;
    case IR_assign: {
      if (v >= GRID) return 0;
      ir_ref p = ir_param(g, "a", t, s, tt_dtype_in(t, TT_REAL)), b = in(g, "b", t, s);
      ir_assign(g, p, b);
      return p;                                       /* this call sees the old value */
    }
    case IR_softmax: case IR_log_softmax: return v < LINES ? ir_softmax(g, op, line(g, t, v), lines[v].axis) : 0;
    case IR_gelu: return v < 2 * GRID ? ir_gelu(g, arranged(g, "a", t, shape_of(grid[v / 2].rank, grid[v / 2].dim), grid[v / 2].a), v & 1) : 0;
    case IR_silu: return v < GRID ? ir_silu(g, arranged(g, "a", t, s, grid[v].a)) : 0;
    case IR_layer_norm: return v == 0 ? ir_layer_norm(g, in(g, "a", t, SHAPE(4, 33)), in(g, "b", t, SHAPE(33)), in(g, "c", t, SHAPE(33)), 1, 1e-5) : v == 1 ? ir_layer_norm(g, in(g, "a", t, SHAPE(2, 3, 4, 5)), in(g, "b", t, SHAPE(4, 5)), in(g, "c", t, SHAPE(4, 5)), 2, 1e-3) : 0;
    case IR_batch_mean: case IR_batch_var: case IR_batch_norm: {
      static const tt_shape batches[] = {{2, {9, 5}}, {4, {3, 5, 6, 7}}, {4, {15, 4, 9, 9}}, {4, {2, 17, 9, 8}}, {3, {1, 3, 1100}}, {2, {1030, 3}}};
      if (v >= (int)(sizeof batches / sizeof *batches)) return 0;
      ir_ref x = in(g, "a", t, batches[v]);
      if (op != IR_batch_norm) return op == IR_batch_mean ? ir_batch_mean(g, x) : ir_batch_var(g, x);
      return ir_batch_norm(g, x, in(g, "b", t, SHAPE(batches[v].dim[1])), in(g, "c", t, SHAPE(batches[v].dim[1])), 1e-3);
    }
    case IR_dropout: return v < GRID ? ir_dropout(g, arranged(g, "a", t, s, grid[v].a), in(g, "b", TT_U64, SCALAR), in(g, "c", TT_U64, SCALAR), 0.3, 5) : 0;
    case IR_max_pool: case IR_avg_pool: return pool(g, op, t, v);
    default: return tt_bug(g, "samples.c has no sample of %s", info->name);
  }
}

int sample_build(ir_graph *g, ir_op op, tt_dtype t, int variant) {
  ir_ref y = build(g, op, t, variant);
  if (!y) return g->error.status ? 1 : 0;
  ir_output_add(g, "y", y);
  return 1;
}

void sample_fill(const ir_graph *g, ir_op op, ir_ref input, uint64_t seed, bool exact, void *data) {
  static const double odd[] = {0.0, -0.0, 1, -1, INFINITY, -INFINITY, NAN, 1e-40, -1e-40, 1e30, -1e30, 0.5, 1e-20, 88.5, -104, 3.1415926535};
  const ir_node *n = ir_at(g, input);
  tt_shape s = ir_shape(g, input);
  tt_dtype t = n->dtype;
  int64_t count = tt_shape_count(&s);
  const char *name = ir_str(n, "name");
  bool index = (tt_dtype_in(t, TT_SINT) && ((op == IR_gather && name[0] == 'b') || (op == IR_scatter_add && name[0] == 'b') || (op == IR_dynamic_slice && name[0] == 'b') || (op == IR_dynamic_update_slice && name[0] == 'c')));
  bool any_number = ir_ops[op].kind == IR_ELEMENTWISE || op == IR_amax || op == IR_amin || op == IR_argmax || op == IR_argmin || op == IR_argsort;
  bool shift = (op == IR_shl || op == IR_shr) && name[0] == 'b';
  for (int64_t i = 0; i < count; i++) {
    uint32_t word = tt_random_word(seed, 0, (uint32_t)name[0], (uint64_t)i), more = tt_random_word(seed, 1, (uint32_t)name[0], (uint64_t)i);
    double u = word / 4294967296.0, value;
    if (ir_is_attention(op) && t != TT_BOOL) value = name[0] == 'h' ? (double)(word % 60) : name[0] == 'e' ? 3 + u : exact ? (double)(word % 3) - 1 : 2 * u - 1;
    else if (index) value = (double)(word % 12) - 1;
    else if (shift) value = word % 70;
    else if (t == TT_BOOL) value = word & 1;
    else if (exact) value = (double)(word % 5) - (tt_dtype_in(t, TT_UINT) ? 0 : 2);
    else if (tt_dtype_in(t, TT_INT)) {
      uint64_t bits = (uint64_t)more << 32 | word;
      value = word % 3 ? (double)(word % 200) - (tt_dtype_in(t, TT_SINT) ? 100 : 0) : 0;
      if (word % 3 == 0 && t != TT_BOOL) {                                     /* any bits */
        memcpy((char *)data + (size_t)i * tt_dtype_size(t), &bits, tt_dtype_size(t));
        continue;
      }
    } else if (ir_ops[op].kind == IR_ELEMENTWISE && i % 5 == 3) value = odd[word % 16];
    else if (any_number && more % 4 == 0) value = ldexp(2 * u - 1, (int)(more >> 8) % 60 - 30);
    else value = op == IR_prod ? 0.75 + 0.5 * u : 4 * (2 * u - 1);
    ir_store_double(t, data, i, value);
  }
}

int sample_ulp(ir_op op, tt_dtype t) {
  if (ir_ops[op].kind != IR_ELEMENTWISE) return -1;
  bool function = (pass_op_cost(op) >= PASS_COSTLY && op != IR_fmod) || op == IR_rsqrt;
  return !function ? 0 : t == TT_F16 || t == TT_BF16 ? 1 : 4;
}
