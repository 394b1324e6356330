/* resnet20.c: He et al. 2015, "Deep residual learning for image recognition", section 4.2 with n = 3: three stages of three blocks,
 * 16, 32 and 64 channels; where a stage begins, the shortcut is a 1x1 convolution with batch norm. */
#include "models.h"

typedef struct { int64_t channels, stride; } block_config;

/* relu(bn(conv(relu(bn(conv(x))))) + shortcut(x)) */
static tt_val block(tt_val x, void *arg) {
  const block_config *b = arg;
  tt_val y = tt_conv2d(x, "conv1", b->channels, 3, .stride = b->stride, .padding = 1, .no_bias = true);
  y = tt_relu(tt_batch_norm(y, "bn1"));
  y = tt_conv2d(y, "conv2", b->channels, 3, .padding = 1, .no_bias = true);
  y = tt_batch_norm(y, "bn2");
  if (b->stride != 1 || tt_dim(x, 1) != b->channels) {
    tt_scope_push(x, "short");
    x = tt_sequential(x, TT_CONV2D(b->channels, 1, .stride = b->stride, .no_bias = true), TT_BATCH_NORM);
    tt_scope_pop(x);
  }
  return tt_relu(tt_add(y, x));
}

tt_val model_resnet20(tt_val x, void *arg) {
  const model_config *c = arg;
  block_config stage1 = {16, 1}, stage2 = {32, 1}, stage3 = {64, 1}, to2 = {32, 2}, to3 = {64, 2};
  return tt_sequential(x,
    TT_CONV2D(16, 3, .padding = 1, .no_bias = true), TT_BATCH_NORM, TT_RELU,
    TT_FUNCTION(block, &stage1), TT_FUNCTION(block, &stage1), TT_FUNCTION(block, &stage1),
    TT_FUNCTION(block, &to2), TT_FUNCTION(block, &stage2), TT_FUNCTION(block, &stage2),
    TT_FUNCTION(block, &to3), TT_FUNCTION(block, &stage3), TT_FUNCTION(block, &stage3),
    TT_ADAPTIVE_AVG_POOL2D(1), TT_FLATTEN, TT_LINEAR(c->classes));
}
