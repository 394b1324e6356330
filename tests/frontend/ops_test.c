/* ops_test.c: ops, layers and losses whose meaning is put together in the frontend, against plain loops and known values. What PyTorch's
 * own numbers cover is checked by `tinytorch selftest`. */
#include <float.h>

#include "../../frontend/frontend.h"
#include "evaluate.h"

/* Opens a trace with x: f64[...]; the test's body makes y; then y is evaluated and compared with `want`. */
#define TRACE(...) \
  tt_trace *t = tt_trace_new("f", true); \
  tt_val x = tt_input(t, "x", TT_F64, TT_SHAPE(__VA_ARGS__)); \
  (void)x
static void expect(tt_trace *t, tt_val y, const double *x, const double *want, int64_t count, double tolerance) {
  tt_output(t, "y", y);
  results r = evaluate(t, (const given[]){{"x", x}}, x ? 1 : 0);
  const result *o = output(&r, "y");
  cr_assert_eq(o->count, count, "%lld elements, not %lld", (long long)o->count, (long long)count);
  for (int64_t i = 0; i < count; i++) {
    char what[40];
    snprintf(what, sizeof what, "element %lld", (long long)i);
    if (isnan(want[i])) cr_expect(isnan(o->values[i]), "%s is %g, not NaN", what, o->values[i]);
    else if (isinf(want[i])) cr_expect_eq(o->values[i], want[i], "%s", what);
    else expect_near(o->values[i], want[i], tolerance, what);
  }
  results_free(&r);
}
#define EXPECT(y, x, ...) expect(t, y, x, (const double[]){__VA_ARGS__}, (int64_t)(sizeof((const double[]){__VA_ARGS__}) / sizeof(double)), 1e-12)

Test(ops, numbers_as_operands) {
  TRACE(3);
  EXPECT(tt_sub(1, tt_div(tt_mul(x, 2), 4)), ((double[]){2, 4, 6}), 0, -1, -2);
}

Test(ops, pad_reflect) {
  TRACE(1, 4);
  EXPECT(tt_pad(x, TT_INTS(2, 3), TT_PAD_REFLECT, 0), ((double[]){1, 2, 3, 4}), 3, 2, 1, 2, 3, 4, 3, 2, 1);
}

Test(ops, pad_cuts_off) {
  TRACE(2, 4);
  EXPECT(tt_pad(x, TT_INTS(-1, 1, 0, -1), TT_PAD_CONSTANT, 9), ((double[]){1, 2, 3, 4, 5, 6, 7, 8}), 2, 3, 4, 9);
}

Test(ops, slices_as_python) {
  TRACE(6);
  double v[6] = {0, 1, 2, 3, 4, 5};
  tt_val parts[] = {tt_slice(x, 0, -4, TT_END, 2), tt_slice(x, 0, 1, -3, 1), tt_slice(x, 0, 4, 2, 1), tt_slice(x, 0, -99, 99, 3)};
  EXPECT(tt_concat(parts, 4, 0), v, 2, 4, 1, 2, 0, 3);
}

Test(ops, repeat_adds_axes) {
  TRACE(2);
  EXPECT(tt_repeat(x, TT_INTS(2, 2)), ((double[]){1, 2}), 1, 2, 1, 2, 1, 2, 1, 2);
}

Test(ops, repeat_many_axes) {
  TRACE(1, 2, 1, 1, 1, 1, 1, 2);
  cr_expect(!tt_ok(tt_repeat(x, TT_INTS(1, 2, 1, 1, 1, 1, 1, 1))));
  tt_trace_free(t);
}

Test(ops, diagonal_below) {
  TRACE(3, 3);
  EXPECT(tt_diagonal(x, -1, 0, 1), ((double[]){0, 1, 2, 3, 4, 5, 6, 7, 8}), 3, 7);
}

Test(ops, diagonal_outside) {
  TRACE(2, 2);
  tt_val y = tt_diagonal(x, 5, 0, 1);
  cr_expect_eq(tt_dim(y, 0), 0);
  tt_trace_free(t);
}

Test(ops, split_and_stack) {
  TRACE(4);
  tt_val parts[2];
  tt_split(x, 2, 0, parts);
  EXPECT(tt_flatten(tt_stack(parts, 2, 1), 0), ((double[]){1, 2, 3, 4}), 1, 3, 2, 4);
}

Test(ops, cumprod_through_zero) {
  TRACE(5);
  double v[5] = {2, 3, 0, 4, 5};
  tt_val y = tt_cumprod(x, 0), g;
  tt_grad(tt_sum(y, TT_ALL, false), &x, 1, &g);
  tt_val both[] = {y, g};
  EXPECT(tt_concat(both, 2, 0), v, 2, 6, 0, 0, 0, 4, 2, 6 + 24 + 120, 0, 0);
}

Test(ops, norms_of_zeros_and_infinity) {
  TRACE(2, 3);
  double v[6] = {0, 0, 0, 3, -4, 0};
  tt_val g, n2 = tt_vector_norm(x, 2, TT_AXES(1), false);
  tt_grad(tt_sum(n2, TT_ALL, false), &x, 1, &g);
  tt_val all[] = {n2, tt_vector_norm(x, INFINITY, TT_AXES(1), false), tt_vector_norm(x, -INFINITY, TT_AXES(1), false), tt_vector_norm(x, 0, TT_AXES(1), false),
                  tt_vector_norm(x, 1, TT_AXES(1), false), tt_flatten(g, 0)};
  EXPECT(tt_concat(all, 6, 0), v, 0, 5, 0, 4, 0, 0, 0, 2, 0, 7, 0, 0, 0, 0.6, -0.8, 0);
}

Test(ops, logsumexp_of_infinities) {
  TRACE(3, 2);
  EXPECT(tt_logsumexp(x, TT_AXES(1), false), ((double[]){-INFINITY, -INFINITY, INFINITY, 0, 1000, 1000}), -INFINITY, INFINITY, 1000 + log(2));
}

Test(ops, activations_do_not_overflow) {
  TRACE(4);
  double v[4] = {-2000, 0, 2000, 30};
  tt_val g, y = tt_add(tt_softplus(x, 1, 20), tt_add(tt_mish(x), tt_log_sigmoid(x)));
  tt_grad(tt_sum(y, TT_ALL, false), &x, 1, &g);
  tt_val both[] = {y, g};
  expect(t, tt_concat(both, 2, 0), v, (double[]){-2000, 0, 4000, 60, 1, 1.6, 2, 2}, 8, 1e-9);
}

/* f64 softplus'(0) = 1/2, mish'(0) = tanh(log 2) = 0.6, log_sigmoid'(0) = 1/2: together 1.6, as above. */

Test(ops, gather_of_a_smaller_index) {
  TRACE(3, 2);
  tt_val i = tt_constant(t, TT_I64, TT_SHAPE(2, 1), ((int64_t[]){2, 0}));
  EXPECT(tt_flatten(tt_gather(x, 0, i), 0), ((double[]){1, 2, 3, 4, 5, 6}), 5, 1);
}

Test(ops, slices_at_places_that_are_values) {
  TRACE(3, 2);
  tt_val at = tt_constant(t, TT_I32, TT_SCALAR, ((int32_t[]){1})), far = tt_add(at, 7), u = tt_mul(tt_slice(x, 0, 0, 1, 1), 10.0);
  tt_val both[] = {tt_dynamic_slice(x, 0, at, 2), tt_dynamic_update_slice(x, 0, at, u), tt_dynamic_slice(x, -2, far, 1)};       /* clamped to the last */
  EXPECT(tt_flatten(tt_concat(both, 3, 0), 0), ((double[]){1, 2, 3, 4, 5, 6}), 3, 4, 5, 6, 1, 2, 10, 20, 5, 6, 5, 6);
}

Test(ops, one_hot_and_embedding) {
  TRACE(3, 2);
  tt_val i = tt_constant(t, TT_I32, TT_SHAPE(2), ((int32_t[]){2, 0}));
  tt_val both[] = {tt_flatten(tt_one_hot(i, 3, TT_F64), 0), tt_flatten(tt_f_embedding(i, x), 0)};
  EXPECT(tt_concat(both, 2, 0), ((double[]){1, 2, 3, 4, 5, 6}), 0, 0, 1, 1, 0, 0, 5, 6, 1, 2);
}

Test(ops, matmul_of_vectors) {
  TRACE(3);
  EXPECT(tt_matmul(x, x), ((double[]){1, 2, 3}), 14);
}

Test(ops, matmul_shapes) {
  TRACE(5, 1, 2, 3);
  tt_shape a = tt_shape_of(tt_matmul(x, tt_full(x, TT_SHAPE(4, 3, 7), 1))), b = tt_shape_of(tt_matmul(x, tt_full(x, TT_SHAPE(3), 1))), c = tt_shape_of(tt_matmul(tt_full(x, TT_SHAPE(2), 1), x));
  cr_expect(tt_shape_equal(&a, &TT_SHAPE(5, 4, 2, 7)));
  cr_expect(tt_shape_equal(&b, &TT_SHAPE(5, 1, 2)));
  cr_expect(tt_shape_equal(&c, &TT_SHAPE(5, 1, 3)));
  tt_trace_free(t);
}

Test(ops, einsum_trace_and_sums) {
  TRACE(2, 2);
  double v[4] = {1, 2, 3, 4};
  tt_val xs[] = {x, x};
  tt_val all[] = {tt_reshape(tt_einsum("ii", xs, 1), TT_SHAPE(1)), tt_einsum("ii->i", xs, 1), tt_flatten(tt_einsum("ab->ba", xs, 1), 0),
                  tt_reshape(tt_einsum("ij,ij->", xs, 2), TT_SHAPE(1)), tt_einsum("ij,kl->l", xs, 2), tt_flatten(tt_einsum("ij,kj", xs, 2), 0)};
  EXPECT(tt_concat(all, 6, 0), v, 5, 1, 4, 1, 3, 2, 4, 30, 40, 60, 5, 11, 11, 25);
}

/* -- Convolution and pooling --------------------------------------------------------------------------------------------- */

Test(ops, conv3d_with_groups) {
  enum { N = 2, C = 4, O = 6, D = 4, H = 5, W = 3, G = 2 };
  TRACE(N, C, D, H, W);
  tt_val w = tt_input(t, "w", TT_F64, TT_SHAPE(O, C / G, 2, 3, 1)), b = tt_input(t, "b", TT_F64, TT_SHAPE(O));
  int64_t od = (D + 2 - 2) / 2 + 1, oh = (H - 2 * 2 - 1) / 1 + 1, ow = (W + 4 - 1) / 3 + 1;
  double *want = malloc(sizeof *want * (size_t)(N * O * od * oh * ow)), *to = want;
  for (int n = 0; n < N; n++) for (int o = 0; o < O; o++) for (int p = 0; p < od; p++) for (int q = 0; q < oh; q++) for (int r = 0; r < ow; r++) {
    double sum = pattern("b", o);
    for (int c = 0; c < C / G; c++) for (int i = 0; i < 2; i++) for (int j = 0; j < 3; j++) {
      int d = p * 2 + i - 1, h = q + 2 * j, k = r * 3 - 2, channel = o / (O / G) * (C / G) + c;
      if (d < 0 || d >= D || k < 0 || k >= W) continue;
      sum += pattern("x", (((int64_t)n * C + channel) * D + d) * H * W + h * W + k) * pattern("w", ((o * (C / G) + c) * 2 + i) * 3 + j);
    }
    *to++ = sum;
  }
  tt_val y = tt_f_conv(x, w, b, .strides = {2, 1, 3}, .paddings = {1, 0, 2}, .dilations = {1, 2, 1}, .groups = G);
  expect(t, y, NULL, want, to - want, 1e-12);
  free(want);
}

/* Padding counts, what ceil mode adds to it does not: the last window of a 5 wide line is {4, pad} over 2. */
Test(ops, avg_pool_ceil_mode) {
  TRACE(1, 1, 1, 5);
  cr_expect(!tt_ok(tt_avg_pool2d(x, 3)));
  tt_trace_free(t);
  t = tt_trace_new("f", true);
  x = tt_input(t, "x", TT_F64, TT_SHAPE(1, 1, 2, 5));
  EXPECT(tt_flatten(tt_avg_pool2d(x, 2, .stride = 3, .ceil_mode = true), 0), ((double[]){1, 2, 3, 4, 5, 1, 2, 3, 4, 5}), 1.5, 4.5);
}

Test(ops, avg_pool_ceil_mode_with_padding) {
  TRACE(1, 1, 4, 4);
  double v[16];
  for (int i = 0; i < 16; i++) v[i] = 1;
  /* windows at -1 and 2 of width 3 and 4 for the padded line of 6: all of them lie inside the padding */
  EXPECT(tt_flatten(tt_avg_pool2d(x, 3, .stride = 2, .padding = 1, .ceil_mode = true), 0), v, 4.0 / 9, 6.0 / 9, 2.0 / 6, 6.0 / 9, 1, 3.0 / 6, 2.0 / 6, 3.0 / 6, 1.0 / 4);
}

Test(ops, max_pool_of_negative_numbers) {
  TRACE(1, 1, 2, 2);
  EXPECT(tt_flatten(tt_max_pool2d(x, 2, .stride = 1, .padding = 1), 0), ((double[]){-1, -2, -3, -4}), -1, -1, -2, -1, -1, -2, -3, -3, -4);
}

Test(ops, adaptive_pool_of_uneven_windows) {
  TRACE(1, 1, 1, 5);
  EXPECT(tt_flatten(tt_adaptive_avg_pool2d(x, 1, 3), 0), ((double[]){1, 2, 3, 4, 5}), 1.5, 3, 4.5);
}

/* -- Normalization and dropout ------------------------------------------------------------------------------------------- */

static results normalized(bool training) {
  tt_trace *t = tt_trace_new("f", training);
  tt_val x = tt_input(t, "x", TT_F64, TT_SHAPE(4, 1, 1, 2));
  tt_output(t, "y", tt_batch_norm(x, "bn", .momentum = 0.25));
  return evaluate(t, (const given[]){{"x", (double[]){1, 2, 3, 4, 5, 6, 7, 8}}, {"bn.weight", (double[]){2}}, {"bn.bias", (double[]){1}}, {"bn.running_mean", (double[]){10}}, {"bn.running_var", (double[]){3}}}, 5);
}

Test(ops, batch_norm_layer) {
  results r = normalized(true);
  expect_near(output(&r, "y")->values[0], 1 + 2 * (1 - 4.5) / sqrt(5.25 + 1e-5), 1e-12, "training");
  expect_near(output(&r, "next.bn.running_mean")->values[0], 0.75 * 10 + 0.25 * 4.5, 1e-12, "running mean");
  expect_near(output(&r, "next.bn.running_var")->values[0], 0.75 * 3 + 0.25 * 6, 1e-12, "running variance");
  results_free(&r);
  r = normalized(false);
  cr_expect_eq(r.n, 1);
  expect_near(output(&r, "y")->values[0], 1 + 2 * (1 - 10) / sqrt(3 + 1e-5), 1e-12, "evaluation");
  results_free(&r);
}

Test(ops, layer_norm_without_weights) {
  TRACE(1, 2);
  double s = 1 / sqrt(1 + 1e-5);
  EXPECT(tt_layer_norm(x, "ln", 1, .no_affine = true), ((double[]){1, 3}), -s, s);
}

enum { DROPPED = 4096 };
static results dropped(bool training, double seed, double step) {
  tt_trace *t = tt_trace_new("f", training);
  tt_val x = tt_input(t, "x", TT_F32, TT_SHAPE(DROPPED)), one = tt_full(x, TT_SHAPE(DROPPED), 1);
  tt_output(t, "a", tt_add(tt_mul(x, 0), tt_dropout(one, 0.25)));
  tt_output(t, "b", tt_add(tt_mul(x, 0), tt_dropout(one, 0.25)));
  return evaluate(t, (const given[]){{"seed", &seed}, {"step", &step}}, 2);
}

Test(ops, dropout_masks) {
  results r = dropped(true, 1, 0), same = dropped(true, 1, 0), later = dropped(true, 1, 1), seed = dropped(true, 2, 0), off = dropped(false, 1, 0);
  const double *a = output(&r, "a")->values, *b = output(&r, "b")->values;
  int zeros = 0, equal[4] = {0};
  for (int i = 0; i < DROPPED; i++) {
    cr_assert(a[i] == 0 || fabs(a[i] - 4.0 / 3) < 1e-6, "element %d is %g", i, a[i]);
    zeros += a[i] == 0;
    equal[0] += a[i] == output(&same, "a")->values[i];
    equal[1] += a[i] == b[i];
    equal[2] += a[i] == output(&later, "a")->values[i];
    equal[3] += a[i] == output(&seed, "a")->values[i];
    cr_assert_eq(output(&off, "a")->values[i], 1);
  }
  cr_expect(abs(zeros - DROPPED / 4) < 140, "%d of %d are dropped", zeros, DROPPED);
  cr_expect_eq(equal[0], DROPPED, "one seed and step give one mask");
  for (int k = 1; k < 4; k++) cr_expect(abs(equal[k] - DROPPED * 10 / 16) < 160, "masks %d agree in %d of %d", k, equal[k], DROPPED);
  results_free(&r), results_free(&same), results_free(&later), results_free(&seed), results_free(&off);
}

/* Attention of one row over itself is the value's projection: softmax of one number is 1. */
Test(ops, self_attention_names_and_shape) {
  TRACE(2, 3, 4);
  tt_shape s = tt_shape_of(tt_self_attention(x, "attn", 6));
  cr_expect(tt_shape_equal(&s, &TT_SHAPE(2, 3, 6)));
  tt_output(t, "y", x);
  tt_error err = {0};
  ir_graph *g;
  cr_assert_eq(tt_trace_finish(t, &g, &err), TT_OK, "%s", err.message);
  cr_expect(ir_find(g, "attn.q.weight") && ir_find(g, "attn.k.bias") && ir_find(g, "attn.v.weight") && ir_find(g, "attn.out.bias"));
  ir_graph_free(g);
  tt_trace_free(t);
}

/* Grouped heads are those of k and v repeated; what a causal mask forbids, a mask of -inf does too; a row that sees nothing is 0; of a live length the rest is not seen. */
Test(ops, attention_masks_and_groups) {
  enum { B = 2, H = 4, G = 2, S = 5, D = 3 };
  TRACE(B, H, S, D);
  double v[B * H * S * D], forbid[S * S];
  for (int i = 0; i < B * H * S * D; i++) v[i] = sin(1.7 * i);
  for (int i = 0; i < S * S; i++) forbid[i] = i % S > i / S ? -INFINITY : 0;
  bool nothing[S * S] = {0};
  tt_val k = tt_slice(x, 1, 0, G, 1), w = tt_slice(tt_square(x), 1, 0, G, 1), m = tt_constant(t, TT_F64, TT_SHAPE(S, S), forbid), none = tt_constant(t, TT_BOOL, TT_SHAPE(S, S), nothing);
  tt_val a = tt_f_attention(x, k, w, .causal = true), b = tt_f_attention(x, tt_repeat_interleave(k, H / G, 1), tt_repeat_interleave(w, H / G, 1), .mask = m);
  tt_val c = tt_f_attention(x, k, w, .mask = none), n = tt_constant(t, TT_I32, TT_SCALAR, &(int32_t){3});
  tt_val d = tt_sub(tt_f_attention(tt_slice(x, 2, 1, 3, 1), k, w, .causal = true, .length = n), tt_slice(a, 2, 1, 3, 1));
  tt_val e = tt_sub(tt_f_attention_naive(x, k, w, .mask = m), a);
  tt_val parts[] = {tt_amax(tt_abs(tt_sub(a, b)), TT_ALL, false), tt_amax(tt_abs(c), TT_ALL, false), tt_amax(tt_abs(d), TT_ALL, false), tt_amax(tt_abs(e), TT_ALL, false)};
  expect(t, tt_stack(parts, 4, 0), v, (double[]){0, 0, 0, 0}, 4, 1e-12);
}

/* The products of a turned q and k depend on the distance of their rows alone, in both conventions, with positions given or not. */
Test(ops, rotary_embedding_is_relative) {
  TRACE(1, 1, 1, 6);
  double v[6] = {0.3, -1, 2, 0.7, 1.1, -0.4};
  int32_t at[2][2] = {{5, 3}, {4, 2}};
  tt_val twice = tt_repeat(x, TT_INTS(1, 6, 1, 1)), parts[6];
  for (int i = 0; i < 2; i++) {
    tt_val r = tt_rotary_embedding(twice, .interleaved = i);
    tt_val q = tt_rotary_embedding(tt_slice(twice, 1, 0, 2, 1), .interleaved = i, .positions = tt_constant(t, TT_I32, TT_SHAPE(2), at[0])),
           k = tt_rotary_embedding(tt_slice(twice, 1, 0, 2, 1), .interleaved = i, .positions = tt_constant(t, TT_I32, TT_SHAPE(2), at[1]));
    tt_val apart = tt_sum(tt_mul(tt_slice(r, 1, 1, TT_END, 1), tt_slice(r, 1, 0, -1, 1)), TT_AXES(0, 2, 3), false);
    tt_val placed = tt_sum(tt_mul(q, k), TT_AXES(0, 2, 3), false);
    parts[3 * i] = tt_sub(tt_amax(apart, TT_ALL, false), tt_amin(apart, TT_ALL, false));
    parts[3 * i + 1] = tt_sub(tt_amax(placed, TT_ALL, false), tt_select(apart, 0, 0));
    parts[3 * i + 2] = tt_sub(tt_sum(tt_square(r), TT_ALL, false), tt_mul(tt_sum(tt_square(x), TT_ALL, false), 6));
  }
  expect(t, tt_stack(parts, 6, 0), v, (double[]){0, 0, 0, 0, 0, 0}, 6, 1e-12);
}

Test(ops, interpolate_bicubic) {                    /* PyTorch's numbers for [0, 1, 4, 9] to 6 columns, and a cubic that goes through */
  TRACE(1, 1, 1, 4);
  tt_val y = tt_interpolate(x, 1, 4, .mode = TT_BICUBIC), z = tt_interpolate(x, 3, 2, .mode = TT_NEAREST), u = tt_interpolate(x, 1, 7, .mode = TT_BICUBIC, .align_corners = true);
  tt_val parts[] = {tt_flatten(y, 0), tt_flatten(z, 0), tt_flatten(u, 0)};
  EXPECT(tt_concat(parts, 3, 0), ((double[]){0, 1, 4, 9}), 0, 1, 4, 9, 0, 4, 0, 4, 0, 4, 0, 0.21875, 1, 2.125, 4, 6.78125, 9);
}

/* One element: a kernel stamped at a stride, what the padding cuts away, in one dimension; and the layer's parameters. */
Test(ops, conv_transpose_stamps) {
  TRACE(1, 1, 2);
  tt_val w = tt_constant(t, TT_F64, TT_SHAPE(1, 1, 3), ((double[]){1, 10, 100})), none = {0};
  tt_val parts[] = {tt_flatten(tt_f_conv_transpose(x, w, none, .stride = 2), 0), tt_flatten(tt_f_conv_transpose(x, w, none, .stride = 2, .padding = 1, .output_padding = 1), 0),
                    tt_flatten(tt_f_conv_transpose(x, tt_slice(w, 2, 0, 1, 1), none, .stride = 4, .padding = 1), 0)};
  EXPECT(tt_concat(parts, 3, 0), ((double[]){1, 2}), 1, 10, 102, 20, 200, 10, 102, 20, 200, 0, 0, 0);
}

Test(ops, layers_of_modern_networks_name_their_parameters) {
  TRACE(2, 4, 6);
  tt_val i = tt_input(t, "i", TT_I64, TT_SHAPE(2, 4)), y = tt_multi_head_attention(x, x, "attn", 3);
  tt_val e = tt_cast(tt_embedding(i, "wte", 9, 6), TT_F64), z = tt_conv_transpose1d(x, "up", 8, 2, .stride = 2, .groups = 2);
  tt_output(t, "y", tt_add(y, e)), tt_output(t, "z", z);
  tt_error err = {0};
  ir_graph *g;
  cr_assert_eq(tt_trace_finish(t, &g, &err), TT_OK, "%s", err.message);
  static const struct { const char *name; tt_shape shape; } wanted[] = {{"attn.in_proj_weight", {2, {18, 6}}}, {"attn.in_proj_bias", {1, {18}}}, {"attn.out_proj.weight", {2, {6, 6}}},
    {"attn.out_proj.bias", {1, {6}}}, {"wte.weight", {2, {9, 6}}}, {"up.weight", {3, {4, 4, 2}}}, {"up.bias", {1, {8}}}};
  for (size_t k = 0; k < sizeof wanted / sizeof *wanted; k++) {
    ir_ref r = ir_find(g, wanted[k].name);
    cr_assert(r, "there is no %s", wanted[k].name);
    tt_shape s = ir_shape(g, r);
    cr_expect(tt_shape_equal(&s, &wanted[k].shape), "%s has another shape", wanted[k].name);
  }
  ir_graph_free(g);
  tt_trace_free(t);
}

/* Element i of a parameter is of the Philox block i/2 of its name, whatever is drawn side by side. */
Test(ops, initial_values_are_philox) {
  enum { N = 77 };
  double v[N], unit[2];
  tt_error err = {0};
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char *c = "a.w"; *c; c++) hash = (hash ^ (unsigned char)*c) * 0x100000001b3u;
  cr_assert_eq(tt_init_fill(tt_init_uniform(0, 1), "a.w", 5, TT_F64, &TT_SHAPE(N), v, &err), TT_OK);
  for (int i = 0; i < N; i++) {
    uint32_t w[4];
    tt_philox(10, (uint32_t[4]){(uint32_t)i / 2, 0, (uint32_t)hash, (uint32_t)(hash >> 32)}, (uint32_t[2]){5, 0}, w);
    for (int k = 0; k < 2; k++) unit[k] = ((double)((uint64_t)w[2 * k] << 21 | w[2 * k + 1] >> 11) + 0.5) * 0x1p-53;
    cr_assert_eq(v[i], unit[i % 2], "element %d", i);
  }
}

/* Normal values are Box and Muller's of those, to rounding, as the C library has the functions; the same bits on any number of threads. */
Test(ops, initial_values_are_normal_on_any_threads) {
  enum { N = 100003 };
  double *v = malloc(N * sizeof *v), *u = malloc(N * sizeof *u), *shared = malloc(N * sizeof *shared), pi = 3.14159265358979323846;
  tt_error err = {0};
  rt_team *team = rt_team_new(3, &err);
  cr_assert(v && u && shared && team);
  cr_assert_eq(tt_init_fill(tt_init_normal(0, 1), "a.w", 5, TT_F64, &TT_SHAPE(N), v, &err), TT_OK);
  cr_assert_eq(tt_init_fill(tt_init_uniform(0, 1), "a.w", 5, TT_F64, &TT_SHAPE(N), u, &err), TT_OK);
  cr_assert_eq(init_fill(team, tt_init_normal(0, 1), "a.w", 5, TT_F64, &TT_SHAPE(N), shared, &err), TT_OK);
  for (int i = 0; i + 1 < N; i += 2) {
    double r = sqrt(-2 * log(u[i])), c = r * cos(2 * pi * u[i + 1]), s = r * sin(2 * pi * u[i + 1]);
    cr_assert_lt(fabs(v[i] - c), 1e-14, "element %d: %.17g, not %.17g", i, v[i], c);
    cr_assert_lt(fabs(v[i + 1] - s), 1e-14, "element %d: %.17g, not %.17g", i + 1, v[i + 1], s);
  }
  cr_assert_eq(memcmp(v, shared, N * sizeof *v), 0);
  rt_team_free(team);
  free(v), free(u), free(shared);
}

/* -- Losses -------------------------------------------------------------------------------------------------------------- */

static double log_p(const double *x, int c, int n) {
  double sum = 0;
  for (int i = 0; i < n; i++) sum += exp(x[i]);
  return x[c] - log(sum);
}

Test(ops, cross_entropy_smoothed_weighted_ignored) {
  enum { N = 4, C = 3 };
  double v[N * C] = {1, 2, 3, -1, 0.5, 2, 0, 0, 1, 3, -2, 0.25}, w[C] = {0.5, 1, 2}, e = 0.3, nll = 0, smooth = 0, weight = 0, none[N];
  int32_t labels[N] = {2, 0, -100, 1};
  for (int i = 0; i < N; i++) {
    none[i] = 0;
    if (labels[i] < 0) continue;
    double a = -w[labels[i]] * log_p(v + C * i, labels[i], C), b = 0;
    for (int c = 0; c < C; c++) b -= w[c] * log_p(v + C * i, c, C);
    nll += a, smooth += b, weight += w[labels[i]], none[i] = (1 - e) * a + e / C * b;
  }
  TRACE(N, C);
  tt_val y = tt_constant(t, TT_I32, TT_SHAPE(N), labels), weights = tt_constant(t, TT_F64, TT_SHAPE(C), w);
  tt_val all[] = {tt_reshape(tt_cross_entropy(x, y, .weight = weights, .label_smoothing = e, .ignoring = true, .ignore_index = -100), TT_SHAPE(1)),
                  tt_cross_entropy(x, y, TT_NONE, .weight = weights, .label_smoothing = e, .ignoring = true, .ignore_index = -100),
                  tt_reshape(tt_cross_entropy(x, y, TT_SUM, .weight = weights, .ignoring = true, .ignore_index = -100), TT_SHAPE(1))};
  double want[6] = {((1 - e) * nll + e / C * smooth) / weight, none[0], none[1], none[2], none[3], nll};
  expect(t, tt_concat(all, 3, 0), v, want, 6, 1e-12);
}

/* Label 0 is smoothed labels of probability 1; nll of log_softmax is cross_entropy. */
Test(ops, cross_entropy_forms_agree) {
  TRACE(2, 3, 2);
  tt_val y = tt_constant(t, TT_I64, TT_SHAPE(2, 2), ((int64_t[]){0, 2, 1, 1}));
  tt_val p = tt_permute(tt_one_hot(y, 3, TT_F64), TT_AXES(0, 2, 1)), a = tt_cross_entropy(x, y, .label_smoothing = 0.1);
  tt_val all[] = {tt_sub(a, tt_cross_entropy(x, tt_add(tt_mul(p, 0.9), 0.1 / 3))), tt_sub(tt_div(a, tt_div(a, tt_cross_entropy(x, y))), tt_nll(tt_log_softmax(x, 1), y))};
  /* The mean over probabilities is over N * D rows only when they are divided so: sum / (N * D). */
  EXPECT(tt_stack(all, 2, 0), NULL, 0, 0);
}

Test(ops, bce_corners_and_weights) {
  TRACE(3);
  double v[3] = {0, 1, 0.25};
  tt_val y = tt_constant(t, TT_F64, TT_SHAPE(3), ((double[]){1, 1, 0})), none = {0}, g, l = tt_binary_cross_entropy(x, y, TT_NONE);
  tt_grad(tt_sum(l, TT_ALL, false), &x, 1, &g);
  tt_val logits = tt_log(tt_div(tt_scalar(x, 0.25), 0.75)), two = tt_scalar(x, 2), three = tt_scalar(x, 3), one = tt_full(x, TT_SHAPE(), 1);
  tt_val weighted = tt_binary_cross_entropy_with_logits(logits, one, two, three, TT_NONE), plain = tt_binary_cross_entropy_with_logits(logits, one, none, none, TT_NONE);
  tt_val all[] = {l, g, tt_reshape(weighted, TT_SHAPE(1)), tt_reshape(plain, TT_SHAPE(1))};
  EXPECT(tt_concat(all, 4, 0), v, 100, 0, -log(0.75), 0, -1, 1 / 0.75, 6 * -log(0.25), -log(0.25));
}

Test(ops, losses_between_targets) {
  TRACE(2);
  double v[2] = {0.5, 2};
  tt_val y = tt_constant(t, TT_F64, TT_SHAPE(2), ((double[]){1, 3})), tiny = tt_full(x, TT_SHAPE(2), 1e-9);
  tt_val all[] = {tt_poisson_nll(x, y, false, true, 0, TT_NONE), tt_gaussian_nll(x, y, tiny, true, 0.5, TT_NONE), tt_kl_div(x, tt_log(y), true, TT_NONE), tt_smooth_l1(x, y, 0, TT_NONE)};
  double pi = 3.14159265358979323846;
  EXPECT(tt_concat(all, 4, 0), v, 0.5 - log(0.5), 2 - 3 * log(2) + 3 * log(3) - 3 + 0.5 * log(6 * pi), 0.5 * (log(0.5) + 0.5 + log(2 * pi)), 0.5 * (log(0.5) + 2 + log(2 * pi)),
         -0.5, 3 * (log(3) - 2), 0.5, 1);
}
