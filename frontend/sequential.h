/* sequential.h: layers as data, named "0", "1", ... in the present scope, as torch.nn.Sequential names them; tinytorch.h includes it.
 *
 *     tt_sequential(x, TT_CONV2D(32, 3), TT_RELU, TT_FLATTEN, TT_LINEAR(10)) */
#ifndef TT_SEQUENTIAL_H
#define TT_SEQUENTIAL_H

typedef struct tt_layer {
  tt_val (*apply)(tt_here here, tt_val x, const char *name, const struct tt_layer *layer);
  tt_here here;
  int64_t n, m, kernel;
  double number, number2;
  tt_ints ints;
  tt_conv_options conv;
  tt_linear_options linear;
  tt_pool_options pool;
  tt_norm_options norm;
  tt_interpolate_options interpolate;
  tt_attention_options attention;
  tt_transformer_options transformer;
  tt_val (*function)(tt_val x, void *arg); void *arg;
} tt_layer;
TT_API tt_val tt_sequential_at(tt_here, tt_val x, const tt_layer *layers, int n);
#define tt_sequential(x, ...) tt_sequential_at(TT_HERE, x, (const tt_layer[]){__VA_ARGS__}, (int)(sizeof((const tt_layer[]){__VA_ARGS__}) / sizeof(tt_layer)))
#define TT_LAYER(apply_, ...) {.apply = tt_apply_##apply_, .here = {__FILE__, __LINE__}, __VA_ARGS__}

/* With weights. What is optional stands last, as in the function of that name. */
#define TT_LINEAR(out, ...) TT_LAYER(linear, .n = (out), .linear = {__VA_ARGS__})
#define TT_CONV1D(out, size, ...) TT_LAYER(conv1d, .n = (out), .kernel = (size), .conv = {__VA_ARGS__})
#define TT_CONV2D(out, size, ...) TT_LAYER(conv2d, .n = (out), .kernel = (size), .conv = {__VA_ARGS__})
#define TT_CONV3D(out, size, ...) TT_LAYER(conv3d, .n = (out), .kernel = (size), .conv = {__VA_ARGS__})
#define TT_CONV_TRANSPOSE1D(out, size, ...) TT_LAYER(conv_transpose1d, .n = (out), .kernel = (size), .conv = {__VA_ARGS__})
#define TT_CONV_TRANSPOSE2D(out, size, ...) TT_LAYER(conv_transpose2d, .n = (out), .kernel = (size), .conv = {__VA_ARGS__})
#define TT_BATCH_NORM TT_LAYER(batch_norm)
#define TT_LAYER_NORM(n_axes, ...) TT_LAYER(layer_norm, .n = (n_axes), .norm = {__VA_ARGS__})
#define TT_GROUP_NORM(groups, ...) TT_LAYER(group_norm, .n = (groups), .norm = {__VA_ARGS__})
#define TT_INSTANCE_NORM TT_LAYER(instance_norm)
#define TT_RMS_NORM(n_axes, ...) TT_LAYER(rms_norm, .n = (n_axes), .norm = {__VA_ARGS__})
#define TT_EMBEDDING(rows, d) TT_LAYER(embedding, .n = (rows), .m = (d))
#define TT_EMBEDDING_BAG(rows, d, mode) TT_LAYER(embedding_bag, .n = (rows), .m = (d), .kernel = (mode))
#define TT_PRELU(slopes) TT_LAYER(prelu, .n = (slopes))
#define TT_SWIGLU(hidden) TT_LAYER(swiglu, .n = (hidden))
#define TT_SELF_ATTENTION(d) TT_LAYER(self_attention, .n = (d))
#define TT_MULTI_HEAD_ATTENTION(heads, ...) TT_LAYER(multi_head_attention, .n = (heads), .attention = {__VA_ARGS__})      /* of x to itself */
#define TT_TRANSFORMER_ENCODER(heads, hidden, ...) TT_LAYER(transformer_encoder, .n = (heads), .m = (hidden), .transformer = {__VA_ARGS__})
#define TT_PATCH_EMBEDDING(patch, d) TT_LAYER(patch_embedding, .n = (patch), .m = (d))

/* Without. */
#define TT_MAX_POOL2D(size, ...) TT_LAYER(max_pool2d, .n = (size), .pool = {__VA_ARGS__})
#define TT_AVG_POOL2D(size, ...) TT_LAYER(avg_pool2d, .n = (size), .pool = {__VA_ARGS__})
#define TT_ADAPTIVE_AVG_POOL2D(size) TT_LAYER(adaptive_avg_pool2d, .n = (size))
#define TT_INTERPOLATE(height, width, ...) TT_LAYER(interpolate, .n = (height), .m = (width), .interpolate = {__VA_ARGS__})
#define TT_UPSAMPLE(factor, ...) TT_LAYER(upsample, .n = (factor), .interpolate = {__VA_ARGS__})           /* height and width times factor */
#define TT_PIXEL_SHUFFLE(factor) TT_LAYER(pixel_shuffle, .n = (factor))
#define TT_PIXEL_UNSHUFFLE(factor) TT_LAYER(pixel_unshuffle, .n = (factor))
#define TT_PAD(mode, ...) TT_LAYER(pad, .n = (mode), .ints = TT_INTS(__VA_ARGS__))                         /* lo, hi of the last axis, of the one before ...; constant: of zeros */
#define TT_FLATTEN TT_LAYER(flatten)                     /* from axis 1 */
#define TT_DROPOUT(p) TT_LAYER(dropout, .number = (p))
#define TT_RELU TT_LAYER(relu)
#define TT_RELU6 TT_LAYER(relu6)
#define TT_LEAKY_RELU(slope) TT_LAYER(leaky_relu, .number = (slope))
#define TT_ELU(alpha) TT_LAYER(elu, .number = (alpha))
#define TT_SELU TT_LAYER(selu)
#define TT_GELU TT_LAYER(gelu)
#define TT_GELU_TANH TT_LAYER(gelu_tanh)
#define TT_SILU TT_LAYER(silu)
#define TT_MISH TT_LAYER(mish)
#define TT_SOFTPLUS TT_LAYER(softplus)                   /* of beta 1, threshold 20 */
#define TT_SIGMOID TT_LAYER(sigmoid)
#define TT_LOG_SIGMOID TT_LAYER(log_sigmoid)
#define TT_HARDSWISH TT_LAYER(hardswish)
#define TT_HARDSIGMOID TT_LAYER(hardsigmoid)
#define TT_HARDTANH(low, high) TT_LAYER(hardtanh, .number = (low), .number2 = (high))
#define TT_SOFTSIGN TT_LAYER(softsign)
#define TT_TANH TT_LAYER(tanh)
#define TT_TANHSHRINK TT_LAYER(tanhshrink)
#define TT_SOFTMAX TT_LAYER(softmax)                     /* over the last axis */
#define TT_LOG_SOFTMAX TT_LAYER(log_softmax)             /* over the last axis */
#define TT_GLU(axis) TT_LAYER(glu, .n = (axis))

/* Any function of x: f(x, arg), in the scope of its number. The same of samples as wholes is a residual branch with stochastic depth: x + tt_drop_path(f(x, arg), p). */
#define TT_FUNCTION(f, argument) TT_LAYER(function, .function = (f), .arg = (argument))
#define TT_RESIDUAL(f, argument, p) TT_LAYER(residual, .function = (f), .arg = (argument), .number = (p))

/* What a macro TT_NAME above applies is tt_apply_name. */
#define TT_LAYERS(L) \
  L(linear) L(conv1d) L(conv2d) L(conv3d) L(conv_transpose1d) L(conv_transpose2d) L(batch_norm) L(layer_norm) L(group_norm) L(instance_norm) L(rms_norm) L(embedding) \
  L(embedding_bag) L(prelu) L(swiglu) L(self_attention) L(multi_head_attention) L(transformer_encoder) L(patch_embedding) \
  L(max_pool2d) L(avg_pool2d) L(adaptive_avg_pool2d) L(interpolate) L(upsample) L(pixel_shuffle) L(pixel_unshuffle) L(pad) L(flatten) L(dropout) \
  L(relu) L(relu6) L(leaky_relu) L(elu) L(selu) L(gelu) L(gelu_tanh) L(silu) L(mish) L(softplus) L(sigmoid) L(log_sigmoid) L(hardswish) L(hardsigmoid) L(hardtanh) L(softsign) \
  L(tanh) L(tanhshrink) L(softmax) L(log_softmax) L(glu) L(function) L(residual)
#define TT_DECLARE_LAYER(name) TT_API tt_val tt_apply_##name(tt_here, tt_val x, const char *at, const tt_layer *);
TT_LAYERS(TT_DECLARE_LAYER)
#undef TT_DECLARE_LAYER

#endif
