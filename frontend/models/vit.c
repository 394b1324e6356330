/* vit.c: Dosovitskiy et al. 2020, "An image is worth 16x16 words", small: a linear layer makes a token of each patch, a class token goes before
 * them, learned positions are added; six pre-norm blocks; the class token, normalized, is what two linear layers judge. */
#include "models.h"

tt_val model_vit_of(tt_val x, const vit_config *c) {
  int64_t n = tt_dim(x, 0), channels = tt_dim(x, 1), p = c->patch, rows = tt_dim(x, 2) / p, columns = tt_dim(x, 3) / p;
  x = tt_permute(tt_reshape(x, TT_SHAPE(n, channels, rows, p, columns, p)), TT_AXES(0, 2, 4, 1, 3, 5));
  x = tt_linear(tt_reshape(x, TT_SHAPE(n, rows * columns, channels * p * p)), "patch", c->width);
  tt_val class_token = tt_param(x, "cls", TT_SHAPE(1, 1, c->width), tt_init_zeros());
  tt_val tokens[2] = {tt_broadcast_to(class_token, TT_SHAPE(n, 1, c->width)), x};
  x = tt_add(tt_concat(tokens, 2, 1), tt_param(x, "pos", TT_SHAPE(1, rows * columns + 1, c->width), tt_init_normal(0, 0.02)));
  x = model_transformer(x, &(transformer_config){.n = c->depth, .heads = c->heads});
  x = tt_select(tt_layer_norm(x, "ln", 1), 1, 0);
  return tt_linear(tt_relu(tt_linear(x, "head1", c->head)), "head2", c->classes);
}

tt_val model_vit(tt_val x, void *arg) {
  const model_config *c = arg;
  return model_vit_of(x, &(vit_config){.patch = 4, .width = 256, .depth = 6, .heads = 8, .head = 128, .classes = c->classes});
}
