/* interpolate.c: images of another size. Each axis by itself is a product with a constant matrix [out, in], the weights of every input
 * for every output: adaptive averages, and PyTorch's nearest, bilinear and bicubic interpolation. What divides evenly is cheaper: an
 * average pool, or each pixel repeated. */
#include "../frontend.h"

static bool sane(int64_t v) { return v >= 1 && v <= INT32_MAX; }

/* Adds row `o` of the matrix. */
typedef void rows_fn(double *row, int64_t o, int64_t in, int64_t out, bool corners);

static void average(double *row, int64_t o, int64_t in, int64_t out, bool corners) {
  int64_t start = o * in / out, stop = ((o + 1) * in + out - 1) / out;
  for (int64_t i = start; i < stop; i++) row[i] = 1.0 / (double)(stop - start);
}

static void nearest(double *row, int64_t o, int64_t in, int64_t out, bool corners) { row[o * in / out] = 1; }

/* Where output o lies among the inputs: their centres, or with corners the first and last ones themselves, fall together. */
static double place(int64_t o, int64_t in, int64_t out, bool corners) {
  if (corners) return out > 1 ? (double)o * (double)(in - 1) / (double)(out - 1) : 0;
  return ((double)o + 0.5) * (double)in / (double)out - 0.5;
}

static void linear(double *row, int64_t o, int64_t in, int64_t out, bool corners) {
  double at = fmax(place(o, in, out, corners), 0);
  int64_t i = (int64_t)at < in - 1 ? (int64_t)at : in - 1;
  row[i] += 1 - (at - (double)i);
  row[i + 1 < in ? i + 1 : i] += at - (double)i;
}

/* Keys 1981, with PyTorch's a = -0.75; inputs beyond the border are those at it. */
static void cubic(double *row, int64_t o, int64_t in, int64_t out, bool corners) {
  double at = place(o, in, out, corners), a = -0.75;
  int64_t i = (int64_t)floor(at);
  for (int64_t k = -1; k <= 2; k++) {
    double d = fabs(at - (double)(i + k)), w = d <= 1 ? ((a + 2) * d - (a + 3)) * d * d + 1 : ((a * d - 5 * a) * d + 8 * a) * d - 4 * a;
    int64_t j = i + k < 0 ? 0 : i + k >= in ? in - 1 : i + k;
    row[j] += w;
  }
}

/* y[..., o] = sum over i of m[o, i] x[..., i]. */
static ir_ref resample_last(ir_graph *g, ir_ref x, int64_t out, rows_fn *fill, bool corners) {
  tt_shape s = ir_shape(g, x), rows = TT_SHAPE(1, s.dim[s.rank - 1]);
  int64_t in = rows.dim[1];
  tt_dtype t = (tt_dtype)ir_at(g, x)->dtype;
  unsigned char *m = calloc((size_t)out, (size_t)in * tt_dtype_size(t));
  double *row = m ? malloc((size_t)in * sizeof *row) : NULL;
  if (!row) {
    free(m);
    tt_fail(&g->error, TT_NO_MEMORY, "error: interpolate: no memory for %lld x %lld weights\n  at the trace\n  fix: ask for a smaller result", (long long)out, (long long)in);
    return 0;
  }
  for (int64_t o = 0; o < out; o++) {
    memset(row, 0, (size_t)in * sizeof *row);
    fill(row, o, in, out, corners);
    for (int64_t i = 0; i < in; i++) ir_store_double(t, m, o * in + i, row[i]);
  }
  ir_ref w = ir_const(g, t, TT_SHAPE(out, in), m);
  free(m);
  free(row);
  for (int i = 0; i + 1 < s.rank; i++) rows.dim[0] *= s.dim[i];
  s.dim[s.rank - 1] = out;
  ir_ref y = w ? ir_matmul(g, ir_reshape(g, x, rows), w, false, true, 1) : 0;
  return y ? ir_reshape(g, y, s) : 0;
}

static ir_ref resample(ir_graph *g, ir_ref x, int64_t height, int64_t width, rows_fn *fill, bool corners) {
  tt_shape s = ir_shape(g, x);
  ir_ref y = s.dim[3] == width && fill != cubic ? x : resample_last(g, x, width, fill, corners);
  if (!y || (s.dim[2] == height && fill != cubic)) return y;
  y = resample_last(g, ir_transpose(g, y, 2, 3), height, fill, corners);
  return y ? ir_transpose(g, y, 2, 3) : 0;
}

#define IMAGE(x) \
  if (tt_rank(x) != 4) WRONG("give images as [N, C, H, W]", "it takes rank 4, not %d", tt_rank(x)); \
  if (!tt_dtype_in(tt_dtype_of(x), TT_REAL)) WRONG("use tt_cast to make it f32", "it takes real numbers, not %s", tt_dtype_name(tt_dtype_of(x))); \
  int64_t h = tt_dim(x, 2), w = tt_dim(x, 3); \
  if (!sane(height) || !sane(width) || !h || !w) \
    WRONG("give sizes of at least 1", "cannot make %lld x %lld of %lld x %lld", (long long)height, (long long)width, (long long)h, (long long)w)

tt_val tt_adaptive_avg_pool2d_at(tt_here here, tt_val x, int64_t height, int64_t width) {
  OPEN("adaptive_avg_pool2d", here, x);
  IMAGE(x);
  if (height == 1 && width == 1) DONE(ir_mean(g, x.ref, (const int[]){2, 3}, 2, true));
  if (h % height == 0 && w % width == 0) {
    int64_t size[2] = {h / height, w / width}, zero[2] = {0};
    DONE(ir_pool(g, IR_avg_pool, x.ref, 2, size, size, zero, zero, NULL, false));
  }
  DONE(resample(g, x.ref, height, width, average, false));
}

tt_val tt_interpolate_at(tt_here here, tt_val x, int64_t height, int64_t width, tt_interpolate_options o) {
  OPEN("interpolate", here, x);
  IMAGE(x);
  if (o.mode < TT_NEAREST || o.mode > TT_BICUBIC) WRONG("use TT_NEAREST, TT_BILINEAR or TT_BICUBIC", "there is no mode %d", (int)o.mode);
  if (o.mode == TT_NEAREST && o.align_corners) WRONG("leave it out", "nearest interpolation has no align_corners");
  if (o.mode == TT_NEAREST && height % h == 0 && width % w == 0) {
    tt_shape s = tt_shape_of(x), split = TT_SHAPE(s.dim[0], s.dim[1], h, 1, w, 1), wide = TT_SHAPE(s.dim[0], s.dim[1], h, height / h, w, width / w);
    ir_ref y = ir_broadcast_to(g, ir_reshape(g, x.ref, split), wide);
    s.dim[2] = height, s.dim[3] = width;
    DONE(y ? ir_reshape(g, y, s) : 0);
  }
  DONE(resample(g, x.ref, height, width, o.mode == TT_NEAREST ? nearest : o.mode == TT_BILINEAR ? linear : cubic, o.align_corners));
}
