/* eval_winograd.c: what winograd means. Each tile of tile x tile results is A^T [sum over c of u . (B^T d B)] A, with d the (tile+2)^2 pixels under it and
 * u = G g G^T the weights, transformed by whoever made the row; products are element by element (Lavin & Gray 2015, "Fast algorithms for convolutional
 * neural networks"). In exact arithmetic it is the convolution. */
#include "eval.h"

static const double B2[] = {1, 0, -1, 0, 0, 1, 1, 0, 0, -1, 1, 0, 0, 1, 0, -1};
static const double G2[] = {1, 0, 0, 0.5, 0.5, 0.5, 0.5, -0.5, 0.5, 0, 0, 1};
static const double A2[] = {1, 1, 1, 0, 0, 1, -1, -1};
static const double B4[] = {4, 0, -5, 0, 1, 0, 0, -4, -4, 1, 1, 0, 0, 4, -4, -1, 1, 0, 0, -2, -1, 2, 1, 0, 0, 2, -1, -2, 1, 0, 0, 4, 0, -5, 0, 1};
static const double G4[] = {1.0 / 4, 0, 0, -1.0 / 6, -1.0 / 6, -1.0 / 6, -1.0 / 6, 1.0 / 6, -1.0 / 6, 1.0 / 24, 1.0 / 12, 1.0 / 6, 1.0 / 24, -1.0 / 12, 1.0 / 6, 0, 0, 1};
static const double A4[] = {1, 1, 1, 1, 1, 0, 0, 1, -1, 2, -2, 0, 0, 1, 1, 4, 4, 0, 0, 1, -1, 8, -8, 1};

const double *ir_winograd_matrix(int64_t tile, char which) {
  if (which == 'B') return tile == 2 ? B2 : B4;
  if (which == 'G') return tile == 2 ? G2 : G4;
  return tile == 2 ? A2 : A4;
}

/* y [rows,rows] = m x m^T, with m [rows,n] and x [n,n]. */
static void both_sides(const double *m, int rows, int n, const double *x, double *y) {
  double t[36];
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < n; j++) {
      t[i * n + j] = 0;
      for (int k = 0; k < n; k++) t[i * n + j] += m[i * n + k] * x[k * n + j];
    }
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < rows; j++) {
      y[i * rows + j] = 0;
      for (int k = 0; k < n; k++) y[i * rows + j] += t[i * n + k] * m[j * n + k];
    }
}

tt_status eval_winograd(const ev_call *c) {
  const ir_node *x = ev_arg(c, 0), *u = ev_arg(c, 1);
  int tile = (int)ir_int(c->n, "tile"), a = tile + 2;
  const double *B = ir_winograd_matrix(tile, 'B'), *A = ir_winograd_matrix(tile, 'A');
  int64_t N = x->dim[0], C = x->dim[2], X = x->dim[3], Y = x->dim[4], O = c->n->dim[2], H = c->n->dim[3], W = c->n->dim[4], L = u->dim[3];
  double *wx = ev_wide_arg(c, 0), *wu = wx ? ev_wide_arg(c, 1) : NULL, *v = wu ? ev_scratch(c, C * a * a) : NULL, *y = v ? ev_scratch(c, ev_count(c->n)) : NULL;
  for (int64_t n = 0; y && n < N; n++)
    for (int64_t h = 0; h < H; h += tile)
      for (int64_t w = 0; w < W; w += tile) {
        double d[36], sum[36], out[16];
        for (int64_t ch = 0; ch < C; ch++) {
          for (int i = 0; i < a * a; i++) d[i] = wx[((n * C + ch) * X + h + i / a) * Y + w + i % a];
          both_sides(B, a, a, d, v + ch * a * a);
        }
        for (int64_t o = 0; o < O; o++) {
          for (int i = 0; i < a * a; i++) {
            sum[i] = 0;
            for (int64_t ch = 0; ch < C; ch++) sum[i] += v[ch * a * a + i] * wu[((o / L * a * a + i) * C + ch) * L + o % L];
          }
          both_sides(A, tile, a, sum, out);
          for (int i = 0; i < tile * tile; i++)
            if (h + i / tile < H && w + i % tile < W) y[((n * O + o) * H + h + i / tile) * W + w + i % tile] = out[i];
        }
      }
  if (y) ev_narrow(c->n->dtype, y, ev_count(c->n), c->out, 0);
  tt_status status = y ? TT_OK : TT_NO_MEMORY;
  free(wx), free(wu), free(v), free(y);
  return status;
}
