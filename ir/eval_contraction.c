/* eval_contraction.c: matmul and conv, in double (reals, rounded once) or modulo 2^64 (integers).
 *
 * Operands are widened whole, so the inner loops are y[j] += a * b[j] over 8-byte numbers. split = S makes S partial sums,
 * each over an equal part of K (matmul) or C (conv), as the first axis of the result. */
#include "eval.h"

/* [batch, rows, columns] transposed in place of a copy: to is [batch, columns, rows]. 8-byte numbers of any class. */
static void transpose(int64_t batch, int64_t rows, int64_t columns, const uint64_t *from, uint64_t *to) {
  for (int64_t b = 0; b < batch; b++, from += rows * columns, to += rows * columns)
    for (int64_t i = 0; i < rows; i++)
      for (int64_t j = 0; j < columns; j++) to[j * rows + i] = from[i * columns + j];
}

/* All of argument i, wide, with its last two axes swapped when it stands transposed. */
static void *matrix_arg(const ev_call *c, uint32_t i, bool transposed) {
  const ir_node *x = ev_arg(c, i);
  void *w = ev_wide_arg(c, i);
  if (!w || !transposed) return w;
  void *t = ev_scratch(c, ev_count(x));
  if (t) transpose(ev_product(x->dim, 0, x->rank - 2), x->dim[x->rank - 2], x->dim[x->rank - 1], w, t);
  free(w);
  return t;
}

tt_status eval_matmul(const ev_call *c) {
  const ir_node *a = ev_arg(c, 0);
  bool ta = ir_int(c->n, "ta"), tb = ir_int(c->n, "tb");
  int64_t split = ir_int(c->n, "split"), parts = split > 1 ? split : 1;
  int64_t batch = ev_product(a->dim, 0, a->rank - 2), K = a->dim[a->rank - (ta ? 2 : 1)];
  int64_t M = c->n->dim[c->n->rank - 2], N = c->n->dim[c->n->rank - 1], part = K / parts;
  void *wa = matrix_arg(c, 0, ta), *wb = wa ? matrix_arg(c, 1, tb) : NULL, *row = wb ? ev_scratch(c, N) : NULL;
  if (row)
    EV_FOR_SUMS(ev_class_of(c->n->dtype),
      W *y = row;
      for (int64_t s = 0; s < parts; s++)
        for (int64_t n = 0; n < batch; n++)
          for (int64_t i = 0; i < M; i++) {
            const W *x = (const W *)wa + (n * M + i) * K + s * part, *w = (const W *)wb + (n * K + s * part) * N;
            memset(y, 0, (size_t)N * sizeof *y);
            int64_t k = 0;
            for (; k + 4 <= part; k += 4, w += 4 * N)           /* in the same order, with a quarter of the loads and stores of y */
              for (int64_t j = 0; j < N; j++) y[j] = y[j] + x[k] * w[j] + x[k + 1] * w[N + j] + x[k + 2] * w[2 * N + j] + x[k + 3] * w[3 * N + j];
            for (; k < part; k++, w += N)
              for (int64_t j = 0; j < N; j++) y[j] += x[k] * w[j];
            ev_narrow(c->n->dtype, y, N, c->out, ((s * batch + n) * M + i) * N);
          });
  tt_status status = row ? TT_OK : TT_NO_MEMORY;
  free(wa);
  free(wb);
  free(row);
  return status;
}

/* One spatial axis of a convolution; those that a lower-dimensional one lacks have extent 1. */
typedef struct { int64_t x, w, y, stride, lo, dilation, x_dilation; } conv_axis;

/* Output positions begin <= o < end whose tap k lies inside x: 0 <= o*stride - lo + k*dilation <= (x-1)*x_dilation. */
static void valid_range(const conv_axis *a, int64_t k, int64_t *begin, int64_t *end) {
  int64_t first = a->lo - k * a->dilation, last = first + (a->x - 1) * a->x_dilation;    /* bounds of o*stride */
  *begin = first <= 0 ? 0 : (first + a->stride - 1) / a->stride;
  *end = a->x == 0 || last < 0 ? 0 : last / a->stride + 1;
  if (*end > a->y) *end = a->y;
}
/* The element of x under tap k of output o, or -1 in a hole that x_dilation leaves. */
static int64_t tap(const conv_axis *a, int64_t o, int64_t k) {
  int64_t at = o * a->stride - a->lo + k * a->dilation;
  return a->x_dilation == 1 ? at : at % a->x_dilation ? -1 : at / a->x_dilation;
}

tt_status eval_conv(const ev_call *c) {
  const ir_node *x = ev_arg(c, 0), *w = ev_arg(c, 1);
  int n, spatial = x->rank - 3;
  const int64_t *stride = ir_ints(c->n, "stride", &n), *lo = ir_ints(c->n, "lo", &n), *dilation = ir_ints(c->n, "dilation", &n),
                *x_dilation = ir_ints(c->n, "x_dilation", &n);
  int64_t split = ir_int(c->n, "split"), parts = split > 1 ? split : 1;
  conv_axis ax[3] = {{1, 1, 1, 1, 0, 1, 1}, {1, 1, 1, 1, 0, 1, 1}, {1, 1, 1, 1, 0, 1, 1}};
  for (int i = 0; i < spatial; i++)
    ax[3 - spatial + i] = (conv_axis){x->dim[3 + i], w->dim[3 + i], c->n->dim[c->n->rank - spatial + i], stride[i], lo[i], dilation[i], x_dilation[i]};
  const conv_axis *ad = &ax[0], *ah = &ax[1], *aw = &ax[2];
  int64_t N = x->dim[0], G = x->dim[1], C = x->dim[2], O = w->dim[1], part = C / parts;
  int64_t plane = ad->y * ah->y * aw->y, x_plane = ad->x * ah->x * aw->x, taps = ad->w * ah->w * aw->w;
  void *wx = ev_wide_arg(c, 0), *ww = wx ? ev_wide_arg(c, 1) : NULL, *result = ww ? ev_scratch(c, plane) : NULL;
  if (result)
    EV_FOR_SUMS(ev_class_of(c->n->dtype),
      W *y = result;
      for (int64_t s = 0; s < parts; s++)
        for (int64_t ng = 0; ng < N * G; ng++)
          for (int64_t o = 0; o < O; o++) {
            memset(y, 0, (size_t)plane * sizeof *y);
            for (int64_t ci = s * part; ci < (s + 1) * part; ci++) {
              const W *px = (const W *)wx + (ng * C + ci) * x_plane, *pw = (const W *)ww + ((ng % G * O + o) * C + ci) * taps;
              for (int64_t kd = 0; kd < ad->w; kd++)
                for (int64_t kh = 0; kh < ah->w; kh++)
                  for (int64_t kw = 0; kw < aw->w; kw++, pw++) {
                    int64_t d0; int64_t d1; int64_t h0; int64_t h1; int64_t w0; int64_t w1;
                    valid_range(ad, kd, &d0, &d1);
                    valid_range(ah, kh, &h0, &h1);
                    valid_range(aw, kw, &w0, &w1);
                    for (int64_t od = d0; od < d1; od++)
                      for (int64_t oh = h0; oh < h1; oh++) {
                        int64_t xd = tap(ad, od, kd), xh = tap(ah, oh, kh);
                        if (xd < 0 || xh < 0) continue;
                        const W *from = px + (xd * ah->x + xh) * aw->x;
                        W *to = y + (od * ah->y + oh) * aw->y;
                        if (aw->x_dilation == 1) {
                          from += kw * aw->dilation - aw->lo;
                          for (int64_t ow = w0; ow < w1; ow++) to[ow] += *pw * from[ow * aw->stride];
                        } else {
                          for (int64_t ow = w0; ow < w1; ow++) {
                            int64_t at = tap(aw, ow, kw);
                            if (at >= 0) to[ow] += *pw * from[at];
                          }
                        }
                      }
                  }
            }
            ev_narrow(c->n->dtype, y, plane, c->out, ((s * N * G + ng) * O + o) * plane);
          });
  tt_status status = result ? TT_OK : TT_NO_MEMORY;
  free(wx);
  free(ww);
  free(result);
  return status;
}
