/* mobilenet.c: Sandler et al. 2018, "MobileNetV2: inverted residuals and linear bottlenecks", for small images: strides that the paper takes on 224x224 are 1
 * until the third stage, so that 32x32 ends as 4x4. A block widens with a 1x1 convolution, filters each channel for itself (depthwise), and narrows
 * without an activation. */
#include "models.h"

#include <stdio.h>

static tt_val normed(tt_val x, const char *name, int64_t out, int64_t size, int64_t stride, int64_t groups) {
  tt_scope_push(x, name);
  x = tt_batch_norm(tt_conv2d(x, "conv", out, size, .stride = stride, .padding = size / 2, .groups = groups, .no_bias = true), "bn");
  tt_scope_pop(x);
  return x;
}

static tt_val block(tt_val x, int64_t number, int64_t widen, int64_t out, int64_t stride) {
  int64_t in = tt_dim(x, 1), wide = in * widen;
  char name[32];
  snprintf(name, sizeof name, "block%lld", (long long)number);
  tt_scope_push(x, name);
  tt_val y = widen > 1 ? tt_relu6(normed(x, "expand", wide, 1, 1, 1)) : x;
  y = tt_relu6(normed(y, "depthwise", wide, 3, stride, wide));
  y = normed(y, "project", out, 1, 1, 1);
  tt_scope_pop(x);
  return stride == 1 && in == out ? tt_add(x, y) : y;
}

tt_val model_mobilenet(tt_val x, void *arg) {
  static const struct { int64_t widen, channels, n, stride; } stages[] = {{1, 16, 1, 1}, {6, 24, 2, 1}, {6, 32, 3, 2}, {6, 64, 4, 2}, {6, 96, 3, 1}, {6, 160, 3, 2}, {6, 320, 1, 1}};
  const model_config *c = arg;
  int64_t number = 0;
  x = tt_relu6(normed(x, "first", 32, 3, 1, 1));
  for (size_t s = 0; s < sizeof stages / sizeof *stages; s++)
    for (int64_t i = 0; i < stages[s].n; i++) x = block(x, number++, stages[s].widen, stages[s].channels, i ? 1 : stages[s].stride);
  x = tt_relu6(normed(x, "last", 1280, 1, 1, 1));
  return tt_linear(tt_flatten(tt_adaptive_avg_pool2d(x, 1, 1), 1), "classifier", c->classes);
}
