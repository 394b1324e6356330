/* sequential.c: layers as an array of data, applied in turn under the names "0", "1", ... Each carries the line on which it is written
 * and the function that applies it, so that a row of the graph points at its layer and not at the call that runs them all. */
#include "../frontend.h"

tt_val tt_sequential_at(tt_here here, tt_val x, const tt_layer *layers, int n) {
  for (int i = 0; i < n; i++) {
    char name[16];
    snprintf(name, sizeof name, "%d", i);
    x = layers[i].apply(layers[i].here, x, name, &layers[i]);
  }
  (void)here;
  return x;
}

#define APPLY(name, call) tt_val tt_apply_##name(tt_here here, tt_val x, const char *at, const tt_layer *l) { (void)at, (void)l; return call; }
APPLY(linear, tt_linear_at(here, x, at, l->n, l->linear))
APPLY(conv1d, tt_conv_at(here, x, "conv1d", 1, at, l->n, l->kernel, l->conv))
APPLY(conv2d, tt_conv_at(here, x, "conv2d", 2, at, l->n, l->kernel, l->conv))
APPLY(conv3d, tt_conv_at(here, x, "conv3d", 3, at, l->n, l->kernel, l->conv))
APPLY(conv_transpose1d, tt_conv_transpose_at(here, x, "conv_transpose1d", 1, at, l->n, l->kernel, l->conv))
APPLY(conv_transpose2d, tt_conv_transpose_at(here, x, "conv_transpose2d", 2, at, l->n, l->kernel, l->conv))
APPLY(batch_norm, tt_batch_norm_at(here, x, at, l->norm))
APPLY(layer_norm, tt_layer_norm_at(here, x, at, (int)l->n, l->norm))
APPLY(group_norm, tt_group_norm_at(here, x, at, l->n, l->norm))
APPLY(instance_norm, tt_instance_norm_at(here, x, at, l->norm))
APPLY(rms_norm, tt_rms_norm_at(here, x, at, (int)l->n, l->norm))
APPLY(embedding, tt_embedding_at(here, x, at, l->n, l->m))
APPLY(embedding_bag, tt_embedding_bag_at(here, x, at, l->n, l->m, (tt_bag_mode)l->kernel))
APPLY(prelu, tt_prelu_at(here, x, at, l->n))
APPLY(swiglu, tt_swiglu_at(here, x, at, l->n))
APPLY(self_attention, tt_self_attention_at(here, x, at, l->n))
APPLY(multi_head_attention, tt_multi_head_attention_at(here, x, x, at, l->n, l->attention))
APPLY(transformer_encoder, tt_transformer_encoder_at(here, x, at, l->n, l->m, l->transformer))
APPLY(patch_embedding, tt_patch_embedding_at(here, x, at, l->n, l->m))
APPLY(max_pool2d, tt_max_pool2d_at(here, x, l->n, l->pool))
APPLY(avg_pool2d, tt_avg_pool2d_at(here, x, l->n, l->pool))
APPLY(adaptive_avg_pool2d, tt_adaptive_avg_pool2d_at(here, x, l->n, l->n))
APPLY(interpolate, tt_interpolate_at(here, x, l->n, l->m, l->interpolate))
APPLY(upsample, tt_interpolate_at(here, x, tt_rank(x) == 4 ? tt_dim(x, 2) * l->n : 1, tt_rank(x) == 4 ? tt_dim(x, 3) * l->n : 1, l->interpolate))
APPLY(pixel_shuffle, tt_pixel_shuffle_at(here, x, l->n))
APPLY(pixel_unshuffle, tt_pixel_unshuffle_at(here, x, l->n))
APPLY(pad, tt_pad_at(here, x, l->ints, (tt_pad_mode)l->n, 0))
APPLY(flatten, tt_flatten_at(here, x, 1))
APPLY(dropout, tt_dropout_at(here, x, l->number))
APPLY(leaky_relu, tt_leaky_relu_at(here, x, l->number))
APPLY(elu, tt_elu_at(here, x, l->number))
APPLY(gelu, tt_gelu_at(here, x, false))
APPLY(gelu_tanh, tt_gelu_at(here, x, true))
APPLY(softplus, tt_softplus_at(here, x, 1, 20))
APPLY(hardtanh, tt_hardtanh_at(here, x, l->number, l->number2))
APPLY(softmax, tt_softmax_at(here, x, -1))
APPLY(log_softmax, tt_log_softmax_at(here, x, -1))
APPLY(glu, tt_glu_at(here, x, (int)l->n))
#define PLAIN(name) APPLY(name, tt_##name##_at(here, x))
PLAIN(relu) PLAIN(relu6) PLAIN(selu) PLAIN(silu) PLAIN(mish) PLAIN(sigmoid) PLAIN(log_sigmoid) PLAIN(hardswish) PLAIN(hardsigmoid) PLAIN(softsign) PLAIN(tanh) PLAIN(tanhshrink)

tt_val tt_apply_function(tt_here here, tt_val x, const char *at, const tt_layer *l) {
  tt_scope_push_at(here, x, at);
  tt_val y = l->function(x, l->arg);
  tt_scope_pop_at(here, x);
  return y;
}

tt_val tt_apply_residual(tt_here here, tt_val x, const char *at, const tt_layer *l) {
  tt_val y = tt_drop_path_at(here, tt_apply_function(here, x, at, l), l->number);
  return tt_add_at(here, tt_operand_of(x), tt_operand_of(y));
}
