/* window.c: convolutions whose sum is short: depthwise and grouped ones, and first layers of few channels; and those of few outputs. They do little with each element, so a copy
 * of x with its border costs as much as they do themselves, and so with their weights' gradients. Their kernels (codegen/window.c, window_sums.c, weights.c) read x as it stands, the pad is a part of them:
 *
 *     %p = pad(%x, 0) : [64,34,34,32]             kernel @k(%x, %w) -> %y {
 *     %y = conv(permute(%p), %w)           gives    %p = pad(%x, 0) ...
 *                                                   %y = conv(permute(%p), %w) } */
#include "passes.h"

enum { MAX_TAPS = 11, MOST_WEIGHTS = 64 << 10, FEW_CHANNELS = 8, FEW_OUTPUTS = 4 };      /* taps of the last axis, which are unrolled; weights are kept packed in L2 */

/* The pad that x is, seen through permutes and reshapes that leave the spatial axes alone; it puts zeros around these and nowhere else. */
static void find_pad(const ir_graph *g, ir_ref x, int D, pass_window *w) {
  int axis[3];
  for (int i = 0; i < D; i++) axis[i] = 3 + i, w->lo[i] = 0, w->size[i] = ir_at(g, x)->dim[3 + i];
  w->pad = 0;
  const ir_node *n = ir_at(g, x);
  for (; n->op == IR_permute || n->op == IR_reshape; n = ir_at(g, x)) {
    const ir_node *a = ir_at(g, x = n->args[0]);
    for (int i = 0; i < D; i++)
      if (n->op == IR_permute) axis[i] = (int)ir_ints(n, "perm", NULL)[axis[i]];
      else {
        int64_t before = 1, others = 1;
        int j = 0;
        for (int k = 0; k < axis[i]; k++) before *= n->dim[k];
        while (j < a->rank && (others < before || (others == before && a->dim[j] == 1))) others *= a->dim[j++];
        if (j == a->rank || others != before || a->dim[j] != n->dim[axis[i]]) return;
        axis[i] = j;
      }
  }
  double zero = 1;
  if (n->op != IR_pad || !ir_is_splat(g, n->args[1], &zero) || zero != 0) return;
  const int64_t *lo = ir_ints(n, "lo", NULL), *hi = ir_ints(n, "hi", NULL), *interior = ir_ints(n, "interior", NULL);
  for (int k = 0; k < n->rank; k++) {
    bool spatial = false;
    for (int i = 0; i < D; i++) spatial |= axis[i] == k;
    if (interior[k] || (!spatial && (lo[k] || hi[k])) || ir_at(g, n->args[0])->dim[k] == 0) return;
  }
  for (int i = 0; i < D; i++) w->lo[i] = lo[axis[i]], w->size[i] = ir_at(g, n->args[0])->dim[axis[i]];
  w->pad = x;
}

/* The weight gradient of a depthwise one: the sum goes over many pixels of some images, the results are the few weights of each channel. */
static bool is_sums(const ir_graph *g, const ir_node *n) {
  enum { LEAST_IMAGES = 4, LEAST_PIXELS = 36, MOST_ROWS = 16 };
  const ir_node *x = ir_at(g, n->args[0]), *y = ir_at(g, n->args[1]);
  if (y->rank != 5 || x->dim[0] != 1 || y->dim[0] == 1 || y->dim[1] != 1) return false;
  int64_t H = n->dim[n->rank - 2], W = n->dim[n->rank - 1];
  const int64_t *x_dilation = ir_ints(n, "x_dilation", NULL);
  return x_dilation[0] == 1 && x_dilation[1] == 1 && y->dim[2] >= LEAST_IMAGES && y->dim[3] * y->dim[4] >= LEAST_PIXELS && H && W && H <= MOST_ROWS && W <= MAX_TAPS && y->dim[0] * H * W <= MOST_WEIGHTS;
}

/* The weight gradient of a layer of few channels, both operands channels-last (codegen/weights.c). */
static bool is_weights(const ir_graph *g, const ir_node *n) {
  enum { LEAST_CHANNELS = 8, LEAST_ROWS = 3, MOST_ROWS = 64 };            /* of dy; taps of a line times channels of x */
  const ir_node *x = ir_at(g, n->args[0]), *y = ir_at(g, n->args[1]);
  if (x->rank != 5 || (n->dtype != TT_F32 && n->dtype != TT_F64) || x->op != IR_permute || ir_ints(x, "perm", NULL)[0] != 4 || y->op != IR_permute || ir_ints(y, "perm", NULL)[1] != 4) return false;
  for (int i = 0; i < 2; i++)
    if (ir_ints(n, "x_dilation", NULL)[i] != 1 || ir_ints(n, "stride", NULL)[i] != 1 || ir_ints(n, "lo", NULL)[i] || ir_ints(n, "hi", NULL)[i]) return false;
  int64_t C = x->dim[0], R = n->dim[n->rank - 2], S = n->dim[n->rank - 1];
  return C >= 1 && C < FEW_CHANNELS && x->dim[1] == 1 && y->dim[0] == 1 && y->dim[1] >= LEAST_CHANNELS && R >= 1 && R <= MAX_TAPS && S > 1 && S <= MAX_TAPS && S * C >= LEAST_ROWS && S * C <= MOST_ROWS &&
         y->dim[2] * y->dim[3] * y->dim[4] >= 4 * R * S;
}

bool pass_window_of(const ir_graph *g, ir_ref conv, pass_window *w) {
  const ir_node *n = ir_at(g, conv);
  w->sums = w->weights = w->depthwise = w->dots = false;
  if (n->op != IR_conv) return false;
  w->weights = is_weights(g, n);
  if (w->weights) {
    find_pad(g, n->args[0], 2, w);
    return true;
  }
  w->sums = is_sums(g, n);
  if (w->sums) {
    w->depthwise = true;
    find_pad(g, n->args[0], 2, w);
    return true;
  }
  if (ir_int(n, "split") > 1) return false;
  const ir_node *k = ir_at(g, n->args[1]);
  int D = k->rank - 3;
  int64_t G = k->dim[0], O = k->dim[1], C = k->dim[2], taps = 1, count = 1;
  for (int i = 3; i < k->rank; i++) taps *= k->dim[i];
  for (int i = 0; i < n->rank; i++) count *= n->dim[i];
  if (!count || !taps || !C || k->dim[k->rank - 1] > MAX_TAPS || G * O * C * taps > MOST_WEIGHTS) return false;
  w->depthwise = G > 1 && O == 1 && C == 1;
  const ir_node *x = ir_at(g, n->args[0]);
  w->dots = G == 1 && O <= FEW_OUTPUTS && C >= FEW_CHANNELS && taps > 1 && x->op == IR_permute && ir_ints(x, "perm", NULL)[2] == x->rank - 1 && (n->dtype == TT_F32 || n->dtype == TT_F64);
  if (!w->depthwise && !w->dots && (taps == 1 || (G == 1 && (C >= FEW_CHANNELS || O < 4)) || (G > 1 && O < 4))) return false;
  find_pad(g, n->args[0], D, w);
  return true;
}
