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
APPLY(conv2d, tt_conv_at(here, x, "conv2d", 2, at, l->n, l->kernel, l->conv))
APPLY(max_pool2d, tt_max_pool2d_at(here, x, l->n, l->pool))
APPLY(avg_pool2d, tt_avg_pool2d_at(here, x, l->n, l->pool))
APPLY(adaptive_avg_pool2d, tt_adaptive_avg_pool2d_at(here, x, l->n, l->n))
APPLY(batch_norm, tt_batch_norm_at(here, x, at, l->norm))
APPLY(layer_norm, tt_layer_norm_at(here, x, at, (int)l->n, l->norm))
APPLY(dropout, tt_dropout_at(here, x, l->number))
APPLY(self_attention, tt_self_attention_at(here, x, at, l->n))
APPLY(relu, tt_relu_at(here, x))
APPLY(gelu, tt_gelu_at(here, x, false))
APPLY(sigmoid, tt_sigmoid_at(here, x))
APPLY(tanh, tt_tanh_at(here, x))
APPLY(softmax, tt_softmax_at(here, x, -1))
APPLY(flatten, tt_flatten_at(here, x, 1))

tt_val tt_apply_function(tt_here here, tt_val x, const char *at, const tt_layer *l) {
  tt_scope_push_at(here, x, at);
  tt_val y = l->function(x, l->arg);
  tt_scope_pop_at(here, x);
  return y;
}
