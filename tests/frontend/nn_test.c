/* nn_test.c: layers, losses and metrics that no reference case covers, against plain loops. (layers_test.c puts all layers through training.) */
#include "evaluate.h"
#include "frontend/frontend.h"

#define TRACE(training, ...) \
  tt_trace *t = tt_trace_new("f", training); \
  tt_val x = tt_input(t, "x", TT_F64, TT_SHAPE(__VA_ARGS__)); \
  (void)x
#define GET(y) (tt_output(t, "y", y), evaluate(t, NULL, 0))
static void expect_all(results r, const double *want, int64_t count) {
  const result *o = output(&r, "y");
  cr_assert_eq(o->count, count, "%lld elements, not %lld", (long long)o->count, (long long)count);
  for (int64_t i = 0; i < count; i++) {
    char what[40];
    snprintf(what, sizeof what, "element %lld", (long long)i);
    expect_near(o->values[i], want[i], 1e-10, what);
  }
  results_free(&r);
}
#define EXPECT(y, ...) expect_all(GET(y), (const double[]){__VA_ARGS__}, (int64_t)(sizeof((const double[]){__VA_ARGS__}) / sizeof(double)))

/* ---- a transformer block in loops: rows x[T][E] of one sample; weights are pattern(name, i) ---- */

enum { T = 3, S = 2, E = 4, H = 2, F = 5 };

static void linear(const char *layer, const char *weight, const char *bias, int from, const double *x, int in, double *y, int out) {
  char w[80], b[80];
  snprintf(w, sizeof w, "%s%s", layer, weight), snprintf(b, sizeof b, "%s%s", layer, bias);
  for (int o = 0; o < out; o++) {
    y[o] = pattern(b, from + o);
    for (int i = 0; i < in; i++) y[o] += pattern(w, (int64_t)(from + o) * in + i) * x[i];
  }
}

static void attend(const char *layer, double (*x)[E], int rows, double (*memory)[E], int seen, bool causal, double (*y)[E]) {
  char name[80];
  for (int t = 0; t < rows; t++) {
    double q[E], all[E] = {0}, d = E / H;
    linear(layer, ".in_proj_weight", ".in_proj_bias", 0, x[t], E, q, E);
    for (int h = 0; h < H; h++) {
      double sum = 0, score[T > S ? T : S], part[E] = {0};
      for (int s = 0; s < seen; s++) {
        double k[E];
        linear(layer, ".in_proj_weight", ".in_proj_bias", E, memory[s], E, k, E);
        score[s] = 0;
        for (int i = 0; i < d; i++) score[s] += q[h * E / H + i] * k[h * E / H + i] / sqrt(d);
        score[s] = causal && s > t ? 0 : exp(score[s]);
        sum += score[s];
      }
      for (int s = 0; s < seen; s++) {
        double v[E];
        linear(layer, ".in_proj_weight", ".in_proj_bias", 2 * E, memory[s], E, v, E);
        for (int i = 0; i < d; i++) part[i] += score[s] / sum * v[h * E / H + i];
      }
      for (int i = 0; i < d; i++) all[h * E / H + i] = part[i];
    }
    snprintf(name, sizeof name, "%s.out_proj", layer);
    linear(name, ".weight", ".bias", 0, all, E, y[t], E);
  }
}

static void norm(const char *name, const double *x, double *y) {
  double mean = 0, var = 0;
  char w[80], b[80];
  snprintf(w, sizeof w, "%s.weight", name), snprintf(b, sizeof b, "%s.bias", name);
  for (int i = 0; i < E; i++) mean += x[i] / E;
  for (int i = 0; i < E; i++) var += (x[i] - mean) * (x[i] - mean) / E;
  for (int i = 0; i < E; i++) y[i] = (x[i] - mean) / sqrt(var + 1e-5) * pattern(w, i) + pattern(b, i);
}

/* kind 0: attention to itself, 1: to the memory, 2: feed-forward. */
static void branch(int kind, bool first, const char *norm_name, double (*x)[E], double (*memory)[E]) {
  double in[T][E], y[T][E];
  for (int t = 0; t < T; t++)
    if (first) norm(norm_name, x[t], in[t]);
    else memcpy(in[t], x[t], sizeof in[t]);
  if (kind == 0) attend("b.self_attn", in, T, in, T, true, y);
  if (kind == 1) attend("b.multihead_attn", in, T, memory, S, false, y);
  for (int t = 0; kind == 2 && t < T; t++) {
    double h[F];
    linear("b.linear1", ".weight", ".bias", 0, in[t], E, h, F);
    for (int i = 0; i < F; i++) h[i] = h[i] * 0.5 * (1 + erf(h[i] / sqrt(2)));
    linear("b.linear2", ".weight", ".bias", 0, h, F, y[t], E);
  }
  for (int t = 0; t < T; t++) {
    for (int i = 0; i < E; i++) x[t][i] += y[t][i];
    if (!first) norm(norm_name, x[t], y[t]), memcpy(x[t], y[t], sizeof x[t]);
  }
}

Test(nn, transformer_blocks) {
  for (int first = 0; first < 2; first++)
    for (int decoder = 0; decoder < 2; decoder++) {
      TRACE(false, 1, T, E);
      tt_val m = tt_input(t, "m", TT_F64, TT_SHAPE(1, S, E));
      tt_val y = decoder ? tt_transformer_decoder(x, m, "b", H, F, .norm_first = first, .causal = true, .activation = TT_ACT_GELU, .dropout = 0.5)
                         : tt_transformer_encoder(x, "b", H, F, .norm_first = first, .causal = true, .activation = TT_ACT_GELU, .drop_path = 0.5);
      double want[T][E], memory[S][E];
      for (int i = 0; i < T * E; i++) want[i / E][i % E] = pattern("x", i);
      for (int i = 0; i < S * E; i++) memory[i / E][i % E] = pattern("m", i);
      branch(0, first, "b.norm1", want, memory);
      if (decoder) branch(1, first, "b.norm2", want, memory);
      branch(2, first, decoder ? "b.norm3" : "b.norm2", want, memory);
      expect_all(GET(y), want[0], T * E);
    }
}

/* ---- recurrent layers with states, in loops, from torch.nn.LSTM's page ---- */

enum { STEPS = 3, BATCH = 2, IN = 3, HIDDEN = 2, LAYERS = 2, STATES = 2 * LAYERS };

static double sigmoid(double v) { return 1 / (1 + exp(-v)); }

static void cell_step(tt_cell cell, const double *p, const double *q, double *h, double *c) {
  for (int i = 0; i < HIDDEN; i++) {
    double g[4];
    for (int k = 0; k < 4; k++) g[k] = k * HIDDEN + i < (cell == TT_LSTM ? 4 : cell == TT_GRU ? 3 : 1) * HIDDEN ? p[k * HIDDEN + i] + q[k * HIDDEN + i] : 0;
    if (cell == TT_RNN_TANH) h[i] = tanh(g[0]);
    if (cell == TT_GRU) h[i] = (1 - sigmoid(g[1])) * tanh(p[2 * HIDDEN + i] + sigmoid(g[0]) * q[2 * HIDDEN + i]) + sigmoid(g[1]) * h[i];
    if (cell == TT_LSTM) c[i] = sigmoid(g[1]) * c[i] + sigmoid(g[0]) * tanh(g[2]), h[i] = sigmoid(g[3]) * tanh(c[i]);
  }
}

/* All layers both ways; h and c go in as first states and come out as last ones. */
static void recurrent(tt_cell cell, double y[STEPS][BATCH][2 * HIDDEN], double (*h)[BATCH][HIDDEN], double (*c)[BATCH][HIDDEN]) {
  int gates = cell == TT_LSTM ? 4 : cell == TT_GRU ? 3 : 1, width = IN;
  double x[STEPS][BATCH][2 * HIDDEN] = {{{0}}};
  for (int i = 0; i < STEPS * BATCH * IN; i++) x[i / (BATCH * IN)][i / IN % BATCH][i % IN] = pattern("x", i);
  for (int l = 0; l < LAYERS; l++, width = 2 * HIDDEN) {
    for (int back = 0; back < 2; back++)
      for (int k = 0; k < STEPS; k++)
        for (int b = 0; b < BATCH; b++) {
          char end[20], bias[40];
          double p[4 * HIDDEN], q[4 * HIDDEN], *now = h[2 * l + back][b];
          int t = back ? STEPS - 1 - k : k;
          snprintf(end, sizeof end, "_l%d%s", l, back ? "_reverse" : "");
          char w[40];
          snprintf(w, sizeof w, ".weight_ih%s", end), snprintf(bias, sizeof bias, ".bias_ih%s", end), linear("r", w, bias, 0, x[t][b], width, p, gates * HIDDEN);
          snprintf(w, sizeof w, ".weight_hh%s", end), snprintf(bias, sizeof bias, ".bias_hh%s", end), linear("r", w, bias, 0, now, HIDDEN, q, gates * HIDDEN);
          cell_step(cell, p, q, now, c[2 * l + back][b]);
          memcpy(&y[t][b][back * HIDDEN], now, sizeof(double) * HIDDEN);
        }
    memcpy(x, y, sizeof x);
  }
}

Test(nn, recurrent_layers_with_first_and_last_states) {
  for (tt_cell cell = TT_RNN_TANH; cell <= TT_LSTM; cell++)
    for (int states = 0; states < 2; states++) {
      if (cell == TT_RNN_RELU) continue;
      TRACE(false, STEPS, BATCH, IN);
      double h[STATES][BATCH][HIDDEN] = {{{0}}}, c[STATES][BATCH][HIDDEN] = {{{0}}}, y[STEPS][BATCH][2 * HIDDEN], want[STEPS * BATCH * 2 * HIDDEN + 2 * STATES * BATCH * HIDDEN];
      tt_recurrent_options o = {.layers = LAYERS, .bidirectional = true};
      if (states) {
        o.h0 = tt_input(t, "h0", TT_F64, TT_SHAPE(STATES, BATCH, HIDDEN));
        if (cell == TT_LSTM) o.c0 = tt_input(t, "c0", TT_F64, TT_SHAPE(STATES, BATCH, HIDDEN));
        for (int i = 0; i < STATES * BATCH * HIDDEN; i++) h[i / (BATCH * HIDDEN)][i / HIDDEN % BATCH][i % HIDDEN] = pattern("h0", i), c[i / (BATCH * HIDDEN)][i / HIDDEN % BATCH][i % HIDDEN] = pattern("c0", i);
      }
      tt_recurrent_state r = tt_recurrent_at(TT_HERE, cell, x, "r", HIDDEN, o);
      tt_val all[3] = {tt_flatten(r.y, 0), tt_flatten(r.h, 0), cell == TT_LSTM ? tt_flatten(r.c, 0) : (tt_val){0}};
      recurrent(cell, y, h, c);
      memcpy(want, y, sizeof y), memcpy(want + STEPS * BATCH * 2 * HIDDEN, h, sizeof h), memcpy(want + STEPS * BATCH * 2 * HIDDEN + STATES * BATCH * HIDDEN, c, sizeof c);
      expect_all(GET(tt_concat(all, cell == TT_LSTM ? 3 : 2, 0)), want, STEPS * BATCH * 2 * HIDDEN + (cell == TT_LSTM ? 2 : 1) * STATES * BATCH * HIDDEN);
    }
}

/* What one part of a text ends with, the next begins with. */
Test(nn, recurrent_layers_go_on) {
  TRACE(false, 6, 2, 3);
  tt_val w[4], parts[2];
  tt_val one = tt_slice(x, 0, 0, 4, 1), two = tt_slice(x, 0, 4, 6, 1), h = tt_full(x, TT_SHAPE(2, 5), 0);
  static const char *const names[] = {"w", "u", "a", "b"};
  for (int i = 0; i < 4; i++) w[i] = tt_param(x, names[i], i > 1 ? TT_SHAPE(20) : TT_SHAPE(20, i ? 5 : 3), tt_init_zeros());
  tt_recurrent_state all = tt_f_recurrent(TT_LSTM, x, h, h, w[0], w[1], w[2], w[3], false), a = tt_f_recurrent(TT_LSTM, one, h, h, w[0], w[1], w[2], w[3], false), b = tt_f_recurrent(TT_LSTM, two, a.h, a.c, w[0], w[1], w[2], w[3], false);
  parts[0] = a.y, parts[1] = b.y;
  tt_val apart[3] = {tt_flatten(tt_sub(all.y, tt_concat(parts, 2, 0)), 0), tt_flatten(tt_sub(all.h, b.h), 0), tt_flatten(tt_sub(all.c, b.c), 0)};
  EXPECT(tt_amax(tt_abs(tt_concat(apart, 3, 0)), TT_ALL, false), 0);
}

Test(nn, recurrent_states_of_another_shape) {
  static const struct { tt_cell cell; int states; bool c0; const char *says; } cases[] = {{TT_LSTM, 1, false, "h0 of r is no f64[2,2,4]"}, {TT_LSTM, 3, true, "c0 of r is no f64[2,2,4]"}, {TT_GRU, 2, true, "only an LSTM has c"}};
  for (int i = 0; i < 3; i++) {
    TRACE(false, 6, 2, 3);
    ir_graph *g;
    tt_error err = {0};
    tt_recurrent_options o = {.layers = 2};
    *(cases[i].c0 ? &o.c0 : &o.h0) = tt_input(t, "s", TT_F64, TT_SHAPE(cases[i].states, 2, 4));
    tt_output(t, "y", tt_recurrent_at(TT_HERE, cases[i].cell, x, "r", 4, o).h);
    cr_assert_neq(tt_trace_finish(t, &g, &err), TT_OK);
    cr_expect(strstr(err.message, cases[i].says) && strstr(err.message, "fix: "), "%s", err.message);
    tt_trace_free(t);
  }
}

Test(nn, transformer_block_drops_in_training) {
  TRACE(true, 64, 2, 4);
  tt_val y = tt_transformer_encoder(x, "b", 2, 4, .norm_first = true, .drop_path = 1);
  results r = GET(tt_sub(y, x));
  for (int i = 0; i < 512; i++) cr_assert_eq(output(&r, "y")->values[i], 0);
  results_free(&r);
}

Test(nn, drop_path_takes_samples_as_wholes) {
  TRACE(true, 400, 5);
  results r = GET(tt_drop_path(tt_full(x, TT_SHAPE(400, 5), 1), 0.25));
  const double *v = output(&r, "y")->values;
  int dropped = 0;
  for (int i = 0; i < 400; i++) {
    dropped += v[5 * i] == 0;
    for (int k = 0; k < 5; k++) cr_assert(v[5 * i + k] == v[5 * i] && (v[5 * i] == 0 || fabs(v[5 * i] - 4.0 / 3) < 1e-4));
  }
  cr_expect(dropped > 60 && dropped < 140, "%d of 400 are dropped with probability 1/4", dropped);
  results_free(&r);
}

Test(nn, patch_embedding_is_a_convolution) {
  TRACE(false, 2, 3, 6, 4);
  tt_val y = tt_patch_embedding(x, "patch", 2, 5);
  tt_val w = {t, ir_find(t->g, "patch.proj.weight")}, b = {t, ir_find(t->g, "patch.proj.bias")};
  tt_val conv = tt_transpose(tt_flatten(tt_f_conv(x, w, b, .stride = 2), 2), 1, 2);
  double zero[60] = {0};
  expect_all(GET(tt_sub(y, conv)), zero, 60);
}

Test(nn, embedding_bag_has_the_type_of_the_reals) {
  TRACE(false, 2, 3);
  tt_val index = tt_constant(t, TT_I64, TT_SHAPE(2, 2), ((int64_t[]){2, 0, 1, 1}));
  tt_val y = tt_embedding_bag(index, "bag", 3, 2, TT_BAG_MEAN);
  cr_assert_eq(tt_dtype_of(y), TT_F64);
#define W(i) pattern("bag.weight", i)
  EXPECT(tt_flatten(y, 0), (W(4) + W(0)) / 2, (W(5) + W(1)) / 2, W(2), W(3));
#undef W
}

Test(nn, swiglu_and_prelu) {
  TRACE(false, 1, 2);
  double a = pattern("x", 0), b = pattern("x", 1), h[2], y[2];
#define W(name, o) (pattern(name, 2 * (o)) * a + pattern(name, 2 * (o) + 1) * b)
  for (int o = 0; o < 2; o++) h[o] = W("s.gate_proj.weight", o) / (1 + exp(-W("s.gate_proj.weight", o))) * W("s.up_proj.weight", o);
  a = h[0], b = h[1];
  for (int o = 0; o < 2; o++) y[o] = W("s.down_proj.weight", o);
#undef W
  for (int o = 0; o < 2; o++) y[o] *= y[o] > 0 ? 1 : pattern("p.weight", o);
  EXPECT(tt_prelu(tt_swiglu(x, "s", 2), "p", 2), y[0], y[1]);
}

Test(nn, norms_of_one_channel_axis) {
  TRACE(false, 2, 2, 2);
  double v[8], want[24];
  for (int i = 0; i < 8; i++) v[i] = pattern("x", i);
  for (int i = 0; i < 8; i++) {
    int c = i / 2 % 2, row = i / 2 * 2, sample = i / 4 * 4;
    double mean = (v[row] + v[row + 1]) / 2, var = (v[row] - mean) * (v[row] - mean) / 2 + (v[row + 1] - mean) * (v[row + 1] - mean) / 2, all = 0, square = 0;
    want[i] = (v[i] - mean) / sqrt(var + 1e-5) * pattern("i.weight", c) + pattern("i.bias", c);
    for (int k = 0; k < 4; k++) all += v[sample + k] / 4;
    for (int k = 0; k < 4; k++) square += (v[sample + k] - all) * (v[sample + k] - all) / 4;
    want[8 + i] = (v[i] - all) / sqrt(square + 1e-5) * pattern("g.weight", c) + pattern("g.bias", c);
    want[16 + i] = v[i] / sqrt((v[row] * v[row] + v[row + 1] * v[row + 1]) / 2 + 1e-6) * pattern("r.weight", i % 2);
  }
  tt_val all[] = {tt_instance_norm(x, "i"), tt_group_norm(x, "g", 1), tt_rms_norm(x, "r", 1)};
  expect_all(GET(tt_stack(all, 3, 0)), want, 24);
}

/* [N,C], and [N,C,L] with the statistics over N and L. */
Test(nn, batch_norm_of_vectors_and_sequences) {
  for (int sequence = 0; sequence < 2; sequence++) {
    int l = sequence ? 2 : 1;
    TRACE(true, 3, 2, l);
    double v[12], want[12];
    for (int i = 0; i < 6 * l; i++) v[i] = pattern("x", i);
    for (int c = 0; c < 2; c++) {
      double mean = 0, var = 0;
      for (int n = 0; n < 3; n++)
        for (int k = 0; k < l; k++) mean += v[(2 * n + c) * l + k] / (3 * l);
      for (int n = 0; n < 3; n++)
        for (int k = 0; k < l; k++) var += pow(v[(2 * n + c) * l + k] - mean, 2) / (3 * l);
      for (int n = 0; n < 3; n++)
        for (int k = 0; k < l; k++) want[(2 * n + c) * l + k] = (v[(2 * n + c) * l + k] - mean) / sqrt(var + 1e-5) * pattern("b.weight", c) + pattern("b.bias", c);
    }
    expect_all(GET(tt_batch_norm(sequence ? x : tt_squeeze(x, 2), "b")), want, 6 * l);
  }
}

Test(nn, pad_circular_and_pixel_unshuffle) {
  TRACE(false, 1, 1, 2, 4);
  double v[8];
  for (int i = 0; i < 8; i++) v[i] = pattern("x", i);
  tt_val all[] = {tt_flatten(tt_pad(x, TT_INTS(1, 2), TT_PAD_CIRCULAR, 0), 0), tt_flatten(tt_pixel_unshuffle(x, 2), 0), tt_flatten(tt_pixel_shuffle(tt_pixel_unshuffle(x, 2), 2), 0)};
  EXPECT(tt_concat(all, 3, 0), v[3], v[0], v[1], v[2], v[3], v[0], v[1], v[7], v[4], v[5], v[6], v[7], v[4], v[5], v[0], v[2], v[1], v[3], v[4], v[6], v[5], v[7], v[0], v[1], v[2], v[3],
         v[4], v[5], v[6], v[7]);
}

Test(nn, focal) {
  TRACE(false, 2, 3);
  tt_val label = tt_constant(t, TT_I32, TT_SHAPE(2), ((int32_t[]){2, 0})), soft = tt_input(t, "s", TT_F64, TT_SHAPE(2, 3));
  double of_classes = 0, of_each = 0;
  for (int n = 0; n < 2; n++) {
    double sum = 0, p = exp(pattern("x", n ? 3 : 2));
    for (int c = 0; c < 3; c++) sum += exp(pattern("x", 3 * n + c));
    p /= sum;
    of_classes -= 0.7 * (1 - p) * (1 - p) * log(p);
  }
  for (int i = 0; i < 6; i++) {
    double p = 1 / (1 + exp(-pattern("x", i))), y = pattern("s", i);
    of_each -= 0.25 * pow(1 - p, 1.5) * y * log(p) + 0.75 * pow(p, 1.5) * (1 - y) * log(1 - p);
  }
  tt_val all[] = {tt_focal(x, label, 0.7, 2, TT_SUM), tt_focal(x, soft, 0.25, 1.5, TT_MEAN), tt_focal(x, label, -1, 0, TT_MEAN), tt_cross_entropy(x, label)};
  results r = GET(tt_stack(all, 4, 0));
  const double *got = output(&r, "y")->values;
  expect_near(got[0], of_classes, 1e-12, "of classes");
  expect_near(got[1], of_each / 6, 1e-12, "of each");
  expect_near(got[2], got[3], 1e-12, "gamma 0 is cross entropy");
  results_free(&r);
}

/* What is sure has no gradient, in f16 too, where a power of a number near 0 is soon infinite. */
Test(nn, focal_of_what_is_sure) {
  tt_trace *t = tt_trace_new("f", true);
  tt_val x = tt_cast(tt_constant(t, TT_F32, TT_SHAPE(2, 2), ((float[]){40, -40, 1, 0})), TT_F16), y = tt_constant(t, TT_I32, TT_SHAPE(2), ((int32_t[]){0, 0})), d;
  tt_grad(tt_focal(x, y, -1, 0.5, TT_SUM), &x, 1, &d);
  tt_output(t, "y", tt_cast(d, TT_F64));
  results r = evaluate(t, NULL, 0);
  const double *got = output(&r, "y")->values, q = 1 / (1 + exp(1)), p = 1 - q, want = 0.5 * sqrt(q) * p * log(p) - pow(q, 1.5);
  cr_expect(got[0] == 0 && got[1] == 0, "%g %g", got[0], got[1]);
  expect_near(got[2], want, 1e-3, "the gradient of the first");
  expect_near(got[3], -want, 1e-3, "of the second");
  results_free(&r);
}

Test(nn, contrastive) {
  enum { N = 3, D = 2 };
  TRACE(false, N, D);
  tt_val b = tt_input(t, "b", TT_F64, TT_SHAPE(N, D)), y = tt_constant(t, TT_I32, TT_SHAPE(N), ((int32_t[]){1, 0, 0}));
  double u[2 * N][D], pair[N], info = 0, back = 0, xent = 0;
  for (int i = 0; i < N; i++) {
    double d = hypot(pattern("x", 2 * i) - pattern("b", 2 * i), pattern("x", 2 * i + 1) - pattern("b", 2 * i + 1));
    pair[i] = i == 0 ? d * d / 2 : d < 1.5 ? (1.5 - d) * (1.5 - d) / 2 : 0;
  }
  for (int i = 0; i < 2 * N; i++) {
    const char *from = i < N ? "x" : "b";
    double length = hypot(pattern(from, 2 * (i % N)), pattern(from, 2 * (i % N) + 1));
    for (int k = 0; k < D; k++) u[i][k] = pattern(from, 2 * (i % N) + k) / length;
  }
#define COSINE(i, j) ((u[i][0] * u[j][0] + u[i][1] * u[j][1]) / 0.4)
  for (int i = 0; i < N; i++) {
    double sum = 0, other = 0;
    for (int j = 0; j < N; j++) sum += exp(COSINE(i, N + j)), other += exp(COSINE(N + i, j));
    info += (log(sum) - COSINE(i, N + i)) / N, back += (log(other) - COSINE(i, N + i)) / N;
  }
  for (int i = 0; i < 2 * N; i++) {
    double sum = 0;
    for (int j = 0; j < 2 * N; j++) sum += j == i ? 0 : exp(COSINE(i, j));
    xent += (log(sum) - COSINE(i, (i + N) % (2 * N))) / (2 * N);
  }
  tt_val all[] = {tt_contrastive(x, b, y, 1.5, TT_SUM), tt_info_nce(x, b, 0.4, false), tt_info_nce(x, b, 0.4, true), tt_nt_xent(x, b, 0.4)};
  EXPECT(tt_stack(all, 4, 0), pair[0] + pair[1] + pair[2], info, (info + back) / 2, xent);
}

Test(nn, distillation) {
  TRACE(false, 2, 3);
  tt_val teacher = tt_input(t, "t", TT_F64, TT_SHAPE(2, 3)), grad;
  double kl[2] = {0};
  for (int n = 0; n < 2; n++) {
    double p[3], q[3], a = 0, b = 0;
    for (int c = 0; c < 3; c++) p[c] = exp(pattern("t", 3 * n + c) / 3), q[c] = exp(pattern("x", 3 * n + c) / 3), a += p[c], b += q[c];
    for (int c = 0; c < 3; c++) kl[n] += 9 * p[c] / a * log(p[c] / a / (q[c] / b));
  }
  tt_val y = tt_distillation(x, teacher, 3, TT_NONE);
  tt_grad(tt_sum(y, TT_ALL, false), &teacher, 1, &grad);
  tt_val all[] = {y, tt_flatten(grad, 0)};
  EXPECT(tt_concat(all, 2, 0), kl[0], kl[1], 0, 0, 0, 0, 0, 0);
}

Test(nn, metrics) {
  tt_trace *t = tt_trace_new("f", false);
  tt_val x = tt_constant(t, TT_F64, TT_SHAPE(5, 3), ((double[]){3, 1, 2, 1, 1, 1, NAN, 5, 1, 0, 2, 1, 4, 3, 9})), y = tt_constant(t, TT_I32, TT_SHAPE(5), ((int32_t[]){2, 1, 1, 3, 2}));
  tt_val wide = tt_transpose(tt_reshape(x, TT_SHAPE(1, 5, 3)), 1, 2), labels = tt_reshape(y, TT_SHAPE(1, 5));       /* [N,C,D] */
  tt_val all[] = {tt_topk_correct(x, y, 1), tt_topk_correct(x, y, 2), tt_topk_correct(x, y, 3), tt_topk_correct(wide, labels, 2), tt_cast(tt_mul(tt_accuracy(x, y, 2), 10), TT_I64)};
  tt_val both[] = {tt_stack(all, 5, 0), tt_flatten(tt_confusion_matrix(x, y), 0)};
  EXPECT(tt_concat(both, 2, 0), 1, 4, 4, 4, 8, 0, 0, 0, 2, 0, 0, 1, 0, 1);
}

Test(nn, perplexity) {
  TRACE(false, 2, 3);
  tt_val y = tt_constant(t, TT_I64, TT_SHAPE(2), ((int64_t[]){0, 2}));
  double nll = 0;
  for (int n = 0; n < 2; n++) nll += log(exp(pattern("x", 3 * n)) + exp(pattern("x", 3 * n + 1)) + exp(pattern("x", 3 * n + 2))) - pattern("x", n ? 5 : 0);
  EXPECT(tt_perplexity(x, y), exp(nll / 2));
}
