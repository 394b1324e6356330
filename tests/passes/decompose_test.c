/* decompose_test.c: what composites mean, against plain loops over the same numbers; that none is left after the pass, nor a conv that
 * pads or dilates its input, nor a stop_gradient; and that f16 and large numbers come through. TT_SEED=n takes other numbers. */
#include "passes/passes.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHAPE(...) (tt_shape){sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), {__VA_ARGS__}}
#define L(...) ((int64_t[]){__VA_ARGS__})

static uint64_t state;
static uint64_t seed(void) { return getenv("TT_SEED") ? strtoull(getenv("TT_SEED"), NULL, 10) : 31; }
static double uniform(double lo, double hi) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return lo + (hi - lo) * (double)(state >> 11) * 0x1p-53;
}

enum { MAX = 4096 };
typedef struct { ir_graph *g; double x[4][MAX]; int n; } ctx;

static ctx *begin(void) {
  ctx *c = calloc(1, sizeof *c);
  c->g = ir_graph_new("f");
  c->g->rules = rewrite_rules;
  state = seed();
  return c;
}

static ir_ref input(ctx *c, tt_dtype t, tt_shape s, double lo, double hi) {
  char name[4] = {'i', (char)('0' + c->n)};
  cr_assert(tt_shape_count(&s) <= MAX);
  for (int64_t i = 0; i < tt_shape_count(&s); i++) {
    char rounded[8];
    ir_store_double(t, rounded, 0, uniform(lo, hi));
    c->x[c->n][i] = ir_load_double(t, rounded, 0);
  }
  c->n++;
  return ir_input(c->g, name, t, s);
}

/* y as doubles in a static buffer's worth of memory that the caller frees; the graph after the pass is looked over on the way. */
static double *run(ctx *c, ir_ref y) {
  pass_options options = {0};
  tt_error err = {0};
  ir_graph *p;
  ir_output_add(c->g, NULL, y);
  cr_assert_eq(pass_run(c->g, &p, NULL, "decompose", &options, NULL, NULL, &err), TT_OK, "%s%s", c->g->error.message, err.message);
  void **values = calloc(p->n_nodes, sizeof *values);
  char data[4][MAX * 8];
  bool *live = ir_live(p);
  for (ir_ref r = 1; r < p->n_nodes; r++) {
    const ir_node *n = ir_at(p, r);
    if (n->op == IR_input) {
      int k = ir_str(n, "name")[1] - '0';
      tt_shape s = ir_shape(p, r);
      for (int64_t i = 0; i < tt_shape_count(&s); i++) ir_store_double((tt_dtype)n->dtype, data[k], i, c->x[k][i]);
      values[r] = data[k];
    }
    if (!live[r]) continue;
    cr_expect_neq(ir_ops[n->op].kind, IR_COMPOSITE, "%s is left", ir_ops[n->op].name);
    cr_expect_neq(n->op, IR_stop_gradient);
    for (int i = 0; n->op == IR_conv && i < n->rank - 3; i++) {        /* no output reads what is left of the padding */
      int64_t d = ir_ints(n, "x_dilation", NULL)[i];
      cr_expect(ir_ints(n, "lo", NULL)[i] < d && ir_ints(n, "hi", NULL)[i] < d);
    }
  }
  cr_assert_eq(ir_eval(p, values, &err), TT_OK, "%s", err.message);
  ir_ref out = p->outputs[0].value;
  tt_shape s = ir_shape(p, out);
  double *got = malloc((size_t)tt_shape_count(&s) * sizeof *got + 1);
  for (int64_t i = 0; i < tt_shape_count(&s); i++) got[i] = ir_load_double((tt_dtype)ir_at(p, out)->dtype, values[out], i);
  ir_values_free(p, values), ir_graph_free(p), free(live);
  return got;
}

static void end(ctx *c, double *got) { free(got), ir_graph_free(c->g), free(c); }

static void near(const char *what, int64_t i, double got, double want, double tolerance) {
  cr_expect(got == want || (isnan(got) && isnan(want)) || fabs(got - want) <= tolerance * (1 + fabs(want)), "%s, seed %llu: element %lld is %.15g, not %.15g", what, (unsigned long long)seed(),
            (long long)i, got, want);
}

Test(decompose, softmax_and_its_log) {
  for (int t = 0; t < 3; t++)
    for (int log_of = 0; log_of < 2; log_of++)
      for (int axis = 0; axis < 2; axis++) {
        tt_dtype type = t == 0 ? TT_F64 : t == 1 ? TT_F32 : TT_F16;
        double range = t == 2 ? 60000 : 800;           /* exp of it overflows, and so would a sum in f16 */
        ctx *c = begin();
        ir_ref x = input(c, type, SHAPE(5, 7), -range / (axis ? 1 : 200), range / (axis ? 1 : 200));
        double *y = run(c, ir_softmax(c->g, log_of ? IR_log_softmax : IR_softmax, x, axis - 2));
        for (int i = 0; i < 35; i++) {
          int start = axis ? i / 7 * 7 : i % 7, step = axis ? 1 : 7, n = axis ? 7 : 5;
          double max = -INFINITY, sum = 0;
          for (int k = 0; k < n; k++) max = fmax(max, c->x[0][start + k * step]);
          for (int k = 0; k < n; k++) sum += exp(c->x[0][start + k * step] - max);
          double lp = c->x[0][i] - max - log(sum);
          if (t == 2 && lp < -65504) lp = -INFINITY;
          near("softmax", i, y[i], log_of ? lp : exp(lp), t == 0 ? 1e-14 : t == 1 ? 1e-5 : 2e-3);
        }
        end(c, y);
      }
}

Test(decompose, gelu_silu) {
  for (int k = 0; k < 3; k++) {
    ctx *c = begin();
    ir_ref x = input(c, TT_F64, SHAPE(200), -12, 12);
    double *y = run(c, k == 2 ? ir_silu(c->g, x) : ir_gelu(c->g, x, k));
    for (int i = 0; i < 200; i++) {
      double v = c->x[0][i];
      double want = k == 2 ? v / (1 + exp(-v)) : k == 1 ? 0.5 * v * (1 + tanh(sqrt(2 / M_PI) * (v + 0.044715 * v * v * v))) : 0.5 * v * (1 + erf(v / sqrt(2)));
      near(k == 2 ? "silu" : "gelu", i, y[i], want, 1e-14);
    }
    end(c, y);
  }
}

Test(decompose, layer_norm) {
  for (int t = 0; t < 3; t++)
    for (int axes = 1; axes < 3; axes++) {
      tt_dtype type = t == 0 ? TT_F64 : t == 1 ? TT_F32 : TT_BF16;
      ctx *c = begin();
      int n = axes == 1 ? 5 : 30;
      double offset = t == 1 ? 1000 : 0;                /* E(x^2) - E(x)^2 would be noise in f32 */
      ir_ref x = input(c, type, SHAPE(4, 6, 5), offset - 1, offset + 1);
      ir_ref w = input(c, type, axes == 1 ? SHAPE(5) : SHAPE(6, 5), 0.5, 2), b = input(c, type, axes == 1 ? SHAPE(5) : SHAPE(6, 5), -1, 1);
      double *y = run(c, ir_layer_norm(c->g, x, w, b, axes, 1e-5));
      for (int i = 0; i < 120; i++) {
        const double *row = c->x[0] + i / n * n;
        double mean = 0, variance = 0;
        for (int k = 0; k < n; k++) mean += row[k] / n;
        for (int k = 0; k < n; k++) variance += (row[k] - mean) * (row[k] - mean) / n;
        near("layer_norm", i, y[i], (row[i % n] - mean) / sqrt(variance + 1e-5) * c->x[1][i % n] + c->x[2][i % n], t == 0 ? 1e-13 : t == 1 ? 1e-3 : 1e-2);
      }
      end(c, y);
    }
}

/* Images whose mean is far from 0, of which the middle pixel may be an outlier, and batches of a few numbers a channel. */
Test(decompose, batch_norm_and_its_statistics) {
  static const tt_shape shapes[] = {{2, {40, 3}}, {3, {6, 3, 4}}, {3, {1, 2, 1200}}, {2, {1100, 3}}, {4, {20, 2, 9, 9}}};
  for (int t = 0; t < 3; t++)
    for (int i = 0; i < 5; i++)
      for (int what = 0; what < 3; what++) {
        tt_dtype type = t == 0 ? TT_F64 : t == 1 ? TT_F32 : TT_BF16;
        ctx *c = begin();
        tt_shape s = shapes[i];
        double offset = t == 1 ? 1000 : 0;
        ir_ref x = input(c, type, s, offset - 1, offset + 1);
        int64_t C = s.dim[1], D = 1, N = s.dim[0];
        for (int k = 2; k < s.rank; k++) D *= s.dim[k];
        if (i == 4) c->x[0][4 * 9 + 4] += t == 2 ? 8 : 30;         /* the first image's middle */
        ir_ref w = what ? 0 : input(c, type, SHAPE(C), 0.5, 2), b = what ? 0 : input(c, type, SHAPE(C), -1, 1);
        double *y = run(c, what == 0 ? ir_batch_norm(c->g, x, w, b, 1e-5) : what == 1 ? ir_batch_mean(c->g, x) : ir_batch_var(c->g, x));
        for (int64_t k = 0; k < C; k++) {
          double mean = 0, var = 0, tolerance = t == 0 ? 1e-13 : t == 1 ? 2e-4 : 2e-2;
          for (int64_t j = 0; j < N * D; j++) mean += c->x[0][(j / D * C + k) * D + j % D] / (double)(N * D);
          for (int64_t j = 0; j < N * D; j++) var += pow(c->x[0][(j / D * C + k) * D + j % D] - mean, 2) / (double)(N * D);
          if (what) near(what == 1 ? "batch_mean" : "batch_var", k, y[k], what == 1 ? mean : var, tolerance);
          for (int64_t j = 0; !what && j < N * D; j++) {
            int64_t at = (j / D * C + k) * D + j % D;
            near("batch_norm", at, y[at], (c->x[0][at] - mean) / sqrt(var + 1e-5) * c->x[1][k] + c->x[2][k], tolerance);
          }
        }
        end(c, y);
      }
}

Test(decompose, dropout) {
  static const double ps[] = {0, 0.1, 0.5, 0.9, 1 - 0x1p-30};
  for (int k = 0; k < 5; k++) {
    ctx *c = begin();
    ir_ref x = input(c, TT_F32, SHAPE(40, 50), -1, 1);
    double *y = run(c, ir_dropout(c->g, x, ir_scalar_int(c->g, TT_U64, 99), ir_scalar_int(c->g, TT_U64, 1234567890123), ps[k], 17));
    int kept = 0;
    for (int i = 0; i < 2000; i++) {
      bool keep = ps[k] == 0 || tt_random_half(99, 1234567890123, 17, (uint64_t)i) >= rint(ps[k] * 65536);
      near("dropout", i, y[i], keep ? c->x[0][i] / (1 - ps[k]) : 0, 1e-6);
      kept += keep;
    }
    cr_expect(fabs(kept / 2000.0 - (1 - ps[k])) < 0.05, "%d of 2000 kept at p=%g", kept, ps[k]);
    end(c, y);
  }
}

/* sizes of two axes: x, window, stride, lo, hi, dilation */
static const int64_t windows[][12] = {
    {6, 2, 2, 0, 0, 1, 8, 4, 4, 0, 0, 1}, {7, 2, 2, 0, 0, 1, 9, 3, 3, 0, 0, 1}, {7, 3, 2, 1, 1, 1, 5, 3, 1, 1, 1, 1}, {5, 2, 2, 0, 1, 1, 7, 2, 2, 1, 0, 1},
    {9, 3, 1, 2, 2, 2, 8, 2, 3, 0, 1, 1}, {4, 4, 4, 0, 0, 1, 3, 1, 1, 0, 0, 1}, {6, 1, 2, 0, 0, 1, 6, 2, 2, 0, 0, 1}, {5, 3, 3, 2, 2, 1, 5, 5, 1, 4, 4, 1}};

static void pool(ir_op op, bool count_pad, tt_dtype type) {
  for (size_t k = 0; k < sizeof windows / sizeof windows[0]; k++) {
    const int64_t *a = windows[k], *b = a + 6;
    if (op == IR_avg_pool && a[5] > 1) continue;
    ctx *c = begin();
    ir_ref x = input(c, type, SHAPE(2, 3, a[0], b[0]), -9, op == IR_max_pool ? -1 : 9);      /* zeros of padding must not win */
    double *y = run(c, ir_pool(c->g, op, x, 2, L(a[1], b[1]), L(a[2], b[2]), L(a[3], b[3]), L(a[4], b[4]), L(a[5], b[5]), count_pad));
    int64_t h = (a[0] + a[3] + a[4] - (a[1] - 1) * a[5] - 1) / a[2] + 1, w = (b[0] + b[3] + b[4] - (b[1] - 1) * b[5] - 1) / b[2] + 1;
    for (int64_t i = 0; i < 6 * h * w; i++) {
      double best = -INFINITY, sum = 0;
      int64_t count = 0, plane = i / (h * w), p = i / w % h, q = i % w;
      for (int64_t u = 0; u < a[1]; u++)
        for (int64_t v = 0; v < b[1]; v++) {
          int64_t m = p * a[2] + u * a[5] - a[3], n = q * b[2] + v * b[5] - b[3];
          if (m < 0 || n < 0 || m >= a[0] || n >= b[0]) continue;
          double e = c->x[0][(plane * a[0] + m) * b[0] + n];
          best = e > best ? e : best, sum += e, count++;
        }
      near(op == IR_max_pool ? "max_pool" : "avg_pool", i, y[i], op == IR_max_pool ? best : sum / (double)(count_pad ? a[1] * b[1] : count), type == TT_F64 ? 1e-14 : 1e-2);
    }
    end(c, y);
  }
}
Test(decompose, max_pool) { pool(IR_max_pool, false, TT_F64), pool(IR_max_pool, false, TT_I32), pool(IR_max_pool, false, TT_F16); }
Test(decompose, avg_pool) { pool(IR_avg_pool, true, TT_F64), pool(IR_avg_pool, false, TT_F64), pool(IR_avg_pool, false, TT_F16); }

/* max_pool written by choice, which only derivatives use, is the same value. */
Test(decompose, max_pool_by_choice) {
  ctx *c = begin();
  ir_ref x = input(c, TT_F64, SHAPE(2, 3, 7, 5), -1, 1), y = ir_pool(c->g, IR_max_pool, x, 2, L(3, 2), L(2, 1), L(1, 0), L(1, 1), L(1, 1), false);
  double *d = run(c, ir_reduce(c->g, IR_amax, ir_ew1(c->g, IR_abs, ir_ew2(c->g, IR_sub, y, pass_max_pool_by_choice(c->g, x, ir_at(c->g, y)))), NULL, 0, false));
  cr_expect_eq(*d, 0);
  end(c, d);
}

Test(decompose, conv) {
  static const int64_t one[][6] = {{7, 3, 2, 1, 1, 1}, {5, 2, 1, 3, 0, 2}, {4, 3, 3, 0, 5, 3}, {6, 3, 1, 0, 0, 1}};      /* x, window, stride, lo, hi, x_dilation */
  for (int permuted = 0; permuted < 2; permuted++)
    for (int k = 0; k < 4; k++) {
      const int64_t *o = one[k];
      ctx *c = begin();
      ir_ref x = input(c, TT_F64, permuted ? SHAPE(o[0], 3, 2, 2) : SHAPE(2, 2, 3, o[0]), -1, 1), w = input(c, TT_F64, SHAPE(2, 4, 3, o[1]), -1, 1);
      ir_ref operand = permuted ? ir_permute(c->g, x, (int[]){3, 2, 1, 0}) : x;
      ir_conv_attrs a = {.stride = {o[2]}, .lo = {o[3]}, .hi = {o[4]}, .x_dilation = {o[5]}};
      double *y = run(c, ir_conv(c->g, operand, w, &a));
      int64_t length = (o[0] - 1) * o[5] + 1, out = (length + o[3] + o[4] - o[1]) / o[2] + 1;
      for (int64_t i = 0; i < 2 * 2 * 4 * out; i++) {
        int64_t p = i % out, f = i / out % 4, group = i / out / 4 % 2, n = i / out / 8;
        double sum = 0;
        for (int64_t ch = 0; ch < 3; ch++)
          for (int64_t u = 0; u < o[1]; u++) {
            int64_t at = p * o[2] + u - o[3];
            if (at < 0 || at >= length || at % o[5]) continue;
            at /= o[5];
            sum += c->x[0][permuted ? ((at * 3 + ch) * 2 + group) * 2 + n : ((n * 2 + group) * 3 + ch) * o[0] + at] * c->x[1][((group * 4 + f) * 3 + ch) * o[1] + u];
          }
        near("conv", i, y[i], sum, 1e-13);
      }
      end(c, y);
    }
}

/* The rules move relu behind max_pool, but not where a window may see nothing but padding, whose maximum would become 0. */
Test(decompose, max_pool_of_relu) {
  for (int k = 0; k < 3; k++) {
    ctx *c = begin();
    ir_ref x = input(c, TT_F64, SHAPE(2, 3, 9, 8), -1, 0.3);
    int64_t lo = k, dilation = k == 2 ? 3 : 1;
    ir_ref y = ir_pool(c->g, IR_max_pool, ir_ew1(c->g, IR_relu, x), 2, L(2, 2), L(2, 2), L(lo, 0), L(0, 0), L(dilation, 1), false);
    cr_expect_eq(ir_at(c->g, y)->op, k < 2 ? IR_relu : IR_max_pool);
    tt_shape s = ir_shape(c->g, y);
    double *got = run(c, y);
    for (int64_t i = 0; i < tt_shape_count(&s); i++) {
      int64_t w = i % s.dim[3], h = i / s.dim[3] % s.dim[2], plane = i / s.dim[3] / s.dim[2];
      double want = -INFINITY;
      for (int64_t a = 0; a < 2; a++)
        for (int64_t b = 0; b < 2; b++) {
          int64_t row = h * 2 - lo + a * dilation;
          if (row >= 0 && row < 9) want = fmax(want, fmax(0, c->x[0][(plane * 9 + row) * 8 + w * 2 + b]));
        }
      near("max_pool of relu", i, got[i], want, 0);
    }
    end(c, got);
  }
}
