/* winograd.c: 3x3 convolutions of stride 1 in Winograd's form (Lavin & Gray 2015), where a cost model finds that faster.
 *
 *     %y = conv(%x, %w) : f32[N,1,O,H,W]     gives     %u = matmul(G (x) G, %w') : f32[P,36,C,L]      the weights, transformed, in panels of L output channels
 *                                                      %y = winograd(%x, %u, tile=4, size=[O,H,W])
 *
 * F(4x4,3x3) needs 36 multiplications where the convolution has 144, and F(2x2,3x3) 16 where it has 36; against that stand the transforms, which are
 * additions over C and O alone, so it takes some channels. For normal data the results' error relative to the largest result stays below 1e-6 with
 * tiles of 2 and 1e-5 with tiles of 4; so f32 only, and `--skip winograd` where that is too much. */
#include "form.h"

#include <stdlib.h>

/* Cycles of the convolution as it is, with vectors of v numbers and two multiply-adds a cycle. */
static double direct_cycles(double results, double C, double O, double v) { return results * 9 * C * O / (2 * v) / 0.9; }

static double round_up(int64_t n, int64_t step) { return (double)((n + step - 1) / step * step); }

/* The same of its Winograd form; < 0: a block of tiles does not fit into L2. fixed: the weights are transformed once, not in every call. */
static double cycles(int64_t tile, const ir_node *y, int64_t C, int64_t panel, int64_t v, bool fixed) {
  double a = (double)((tile + 2) * (tile + 2)), tiles = (double)y->dim[0] * round_up(y->dim[3], tile) * round_up(y->dim[4], tile) / (double)(tile * tile), O = round_up(y->dim[2], panel);
  double fit = 320e3 / (a * 4 * (double)(C + panel));                     /* tiles of a block */
  if (fit < 8) return -1;
  if (fit > 64) fit = 64;
  double products = tiles * a * (double)C * O / (2 * (double)v) / 0.88;
  double transforms = tiles * (round_up(C, v) * (tile == 4 ? 200 : 70) + O * (tile == 4 ? 170 : 60)) / (double)v;
  double weights = fixed ? 0 : a * 9 * (double)C * O / (2 * (double)v) * 3 + 9 * (double)C * O;                  
  double stream = a * (double)C * O * 4 > 200e3 ? tiles / fit * a * (double)C * O * 4 / 16 : 0;         /* weights from L3, for every block */
  return products + transforms + weights + stream;
}

/* The tile of conv n, 0: as it is. */
static int64_t choose(const ir_graph *g, ir_ref r, int64_t panel, int64_t v, bool fixed) {
  const ir_node *n = ir_at(g, r), *x = ir_at(g, n->args[0]), *w = ir_at(g, n->args[1]);
  if (n->op != IR_conv || n->dtype != TT_F32 || x->rank != 5 || x->dim[1] != 1 || ir_int(n, "split") > 1) return 0;
  for (int i = 0; i < 2; i++)
    if (w->dim[3 + i] != 3 || ir_ints(n, "stride", NULL)[i] != 1 || ir_ints(n, "dilation", NULL)[i] != 1 || ir_ints(n, "x_dilation", NULL)[i] != 1 || ir_ints(n, "lo", NULL)[i]
        || ir_ints(n, "hi", NULL)[i]) return 0;
  bool channels_last = x->op == IR_permute && ir_ints(x, "perm", NULL)[2] == 4;
  pass_window window;
  if (pass_window_of(g, r, &window) && window.dots) return 0;            /* its panels would be mostly empty */
  if (!channels_last || n->dim[0] * n->dim[3] * n->dim[4] == 0) return 0;
  double best = direct_cycles((double)(n->dim[0] * n->dim[3] * n->dim[4]), (double)x->dim[2], round_up(n->dim[2], v), (double)v) / 1.2;
  int64_t chosen = 0;
  for (int64_t tile = 2; tile <= 4; tile += 2) {
    double c = cycles(tile, n, x->dim[2], panel, v, fixed);
    if (c >= 0 && c < best) best = c, chosen = tile;
  }
  return chosen;
}

/* Is conv n the gradient of 3x3 weights, of channels-last images, and faster by F(3x3,4x4)? x is [C,1,N,X,Y], its w dy [1,O,N,H,W]. */
static bool is_weight_gradient(const ir_graph *g, const ir_node *n, int64_t v) {
  if (n->op != IR_conv || n->dtype != TT_F32) return false;
  const ir_node *x = ir_at(g, n->args[0]), *w = ir_at(g, n->args[1]);
  int first = ir_int(n, "split") > 1;
  if (x->rank != 5 || x->dim[1] != 1 || n->dim[first + 3] != 3 || n->dim[first + 4] != 3 || x->op != IR_permute || w->op != IR_permute) return false;
  for (int i = 0; i < 2; i++)
    if (ir_ints(n, "stride", NULL)[i] != 1 || ir_ints(n, "dilation", NULL)[i] != 1 || ir_ints(n, "x_dilation", NULL)[i] != 1 || ir_ints(n, "lo", NULL)[i] || ir_ints(n, "hi", NULL)[i]) return false;
  if (ir_ints(x, "perm", NULL)[0] != 4 || ir_ints(w, "perm", NULL)[1] != 4) return false;
  double C = (double)x->dim[0], O = (double)w->dim[1], pixels = (double)(w->dim[3] * w->dim[4]), tiles = round_up(w->dim[3], 4) * round_up(w->dim[4], 4) / 16;
  if (C < 8 || O < 8 || (double)x->dim[2] * pixels < 256) return false;
  double as_it_is = pixels * 9 * C * O / (2 * (double)v) / 0.9, transformed = tiles * (36 * C * O / (2 * (double)v) / 0.8 + (round_up(x->dim[0], v) * 220 + round_up(w->dim[1], v) * 150) / (double)v);
  return transformed * 1.1 < as_it_is;
}

static ir_ref weight_gradient(ir_graph *g, ir_ref x, ir_ref dy, const ir_node *n) {
  return ir_conv(g, x, dy, &(ir_conv_attrs){.split = ir_int(n, "split"), .winograd = 4});
}

/* w [1,O,C,3,3] as [P,a,C,L]: each panel's 3x3 weights as columns, times the 9 columns of G (x) G. */
static ir_ref transformed(ir_graph *g, ir_ref w, int64_t tile, int64_t panel) {
  tt_shape s = ir_shape(g, w);
  int64_t O = s.dim[1], C = s.dim[2], a = (tile + 2) * (tile + 2), P = (O + panel - 1) / panel;
  float both[36 * 9];
  const double *G = ir_winograd_matrix(tile, 'G');
  for (int64_t i = 0; i < a; i++)
    for (int64_t k = 0; k < 9; k++) both[i * 9 + k] = (float)(G[i / (tile + 2) * 3 + k / 3] * G[i % (tile + 2) * 3 + k % 3]);
  ir_ref m = ir_const(g, TT_F32, (tt_shape){.rank = 2, .dim = {a, 9}}, both);
  ir_ref columns = ir_reshape(g, w, (tt_shape){.rank = 3, .dim = {O, C, 9}});
  if (P * panel > O) columns = ir_pad(g, columns, ir_scalar(g, TT_F32, 0), (int64_t[]){0, 0, 0}, (int64_t[]){P * panel - O, 0, 0}, (int64_t[]){0, 0, 0});
  columns = ir_permute(g, ir_reshape(g, columns, (tt_shape){.rank = 4, .dim = {P, panel, C, 9}}), (int[]){0, 3, 2, 1});
  columns = ir_reshape(g, columns, (tt_shape){.rank = 3, .dim = {P, 9, C * panel}});
  ir_ref left = ir_broadcast(g, m, (tt_shape){.rank = 3, .dim = {P, a, 9}}, (int[]){1, 2});
  return ir_reshape(g, ir_matmul(g, left, columns, false, false, 1), (tt_shape){.rank = 4, .dim = {P, a, C, panel}});
}

ir_ref pass_winograd_conv(ir_graph *g, ir_ref x, ir_ref w, int64_t tile, int64_t panel) {
  tt_shape s = ir_shape(g, x), sw = ir_shape(g, w);
  int64_t hi[TT_MAX_RANK] = {0}, none[TT_MAX_RANK] = {0}, size[3] = {sw.dim[1], s.dim[3] - 2, s.dim[4] - 2};
  for (int i = 1; i < 3; i++) hi[2 + i] = (tile - size[i] % tile) % tile;
  if (hi[3] || hi[4]) x = pass_padded(g, x, none, hi, none);
  return ir_winograd(g, x, transformed(g, w, tile, panel), tile, size);
}

/* m (x) m as a matrix: what m does on both sides of a matrix, written as a row. */
static ir_ref kronecker(ir_graph *g, tt_dtype t, const double *m, int64_t rows, int64_t columns) {
  double both[36 * 36];
  for (int64_t i = 0; i < rows * rows; i++)
    for (int64_t k = 0; k < columns * columns; k++) both[i * columns * columns + k] = m[i / rows * columns + k / columns] * m[i % rows * columns + k % columns];
  return ir_cast(g, ir_const(g, TT_F64, (tt_shape){.rank = 2, .dim = {rows * rows, columns * columns}}, both), t);
}

ir_ref pass_winograd_by_steps(ir_graph *g, ir_ref x, ir_ref u, const ir_node *n) {
  int64_t m = ir_int(n, "tile"), a = m + 2, h = (n->dim[3] + m - 1) / m, w = (n->dim[4] + m - 1) / m;
  tt_dtype t = (tt_dtype)n->dtype;
  tt_shape s = ir_shape(g, x), su = ir_shape(g, u);
  int64_t N = s.dim[0], C = s.dim[2], O = su.dim[0] * su.dim[3], T = N * h * w;
  ir_ref d = ir_unfold(g, ir_unfold(g, x, 3, a, m, 1), 4, a, m, 1);                                        /* [N,1,C,h,w,a,a] */
  d = ir_reshape(g, ir_permute(g, d, (int[]){0, 1, 3, 4, 2, 5, 6}), (tt_shape){.rank = 2, .dim = {T * C, a * a}});
  ir_ref v = ir_matmul(g, d, kronecker(g, t, ir_winograd_matrix(m, 'B'), a, a), false, true, 1);
  v = ir_permute(g, ir_reshape(g, v, (tt_shape){.rank = 3, .dim = {T, C, a * a}}), (int[]){2, 0, 1});
  ir_ref weights = ir_reshape(g, ir_permute(g, u, (int[]){1, 2, 0, 3}), (tt_shape){.rank = 3, .dim = {a * a, C, O}});
  ir_ref y = ir_permute(g, ir_matmul(g, v, weights, false, false, 1), (int[]){1, 2, 0});                   /* [T,O,a*a] */
  y = ir_matmul(g, ir_reshape(g, y, (tt_shape){.rank = 2, .dim = {T * O, a * a}}), kronecker(g, t, ir_winograd_matrix(m, 'A'), m, a), false, true, 1);
  y = ir_permute(g, ir_reshape(g, y, (tt_shape){.rank = 6, .dim = {N, h, w, O, m, m}}), (int[]){0, 3, 1, 4, 2, 5});
  y = ir_reshape(g, y, (tt_shape){.rank = 5, .dim = {N, 1, O, h * m, w * m}});
  for (int i = 2; i < 5; i++) y = ir_slice_axis(g, y, i, 0, n->dim[i], 1);
  return y;
}

tt_status pass_winograd(const ir_graph *in, ir_graph *out, const pass_options *options, tt_error *err) {
  bool *live = ir_live(in), *fixed = pass_fixed_rows(in, options);
  ir_ref *map = calloc(in->n_nodes, sizeof *map);
  if (!live || !fixed || !map) {
    free(live), free(fixed), free(map);
    return tt_fail(err, TT_NO_MEMORY, "error: no memory for %u rows\n  at pass winograd\n  fix: free memory", in->n_nodes);
  }
  int64_t v = options->vector_bytes >= 16 ? options->vector_bytes / 4 : 8;
  for (ir_ref r = 1; r < in->n_nodes && !out->error.status; r++) {
    if (!live[r]) continue;
    const ir_node *n = ir_at(in, r);
    int64_t panel = n->rank == 5 && n->dim[2] <= v ? v : 2 * v, tile = n->op == IR_conv ? choose(in, r, panel, v, fixed[n->args[1]]) : 0;
    if (is_weight_gradient(in, n, v)) {
      out->at_origin = ir_origin_copy(out, in, n->origin);
      map[r] = weight_gradient(out, map[n->args[0]], map[n->args[1]], n);
      out->at_origin = 0;
      continue;
    }
    if (!tile) {
      map[r] = ir_rebuild(in, out, r, map);
      continue;
    }
    out->at_origin = ir_origin_copy(out, in, n->origin);
    map[r] = pass_winograd_conv(out, map[n->args[0]], map[n->args[1]], tile, panel);
    out->at_origin = 0;
  }
  ir_finish(in, out, map);
  free(live), free(fixed), free(map);
  return out->error.status ? tt_fail(err, out->error.status, "%s", out->error.message) : TT_OK;
}
