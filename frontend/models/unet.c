/* unet.c: Ronneberger et al. 2015, "U-Net: convolutional networks for biomedical image segmentation", small: two convolutions at each of three
 * sizes on the way down, and on the way up, where each meets what its size had before; padded, with batch norm, so that the labels have the image's
 * size. Images of a width and height that 4 divides. */
#include "models.h"

static tt_val twice(tt_val x, const char *name, int64_t channels) {
  tt_scope_push(x, name);
  tt_val y = tt_relu(tt_batch_norm(tt_conv2d(x, "conv1", channels, 3, .padding = 1, .no_bias = true), "bn1"));
  y = tt_relu(tt_batch_norm(tt_conv2d(y, "conv2", channels, 3, .padding = 1, .no_bias = true), "bn2"));
  tt_scope_pop(x);
  return y;
}

static tt_val up(tt_val x, tt_val across, const char *name, int64_t channels) {
  tt_scope_push(x, name);
  tt_val both[2] = {across, tt_conv_transpose2d(x, "up", channels, 2, .stride = 2)};
  tt_val y = twice(tt_concat(both, 2, 1), "conv", channels);
  tt_scope_pop(x);
  return y;
}

tt_val model_unet(tt_val x, void *arg) {
  const model_config *c = arg;
  tt_val a = twice(x, "down1", 16), b = twice(tt_max_pool2d(a, 2), "down2", 32);
  tt_val y = twice(tt_max_pool2d(b, 2), "bottom", 64);
  return tt_conv2d(up(up(y, b, "up2", 32), a, "up1", 16), "classes", c->classes, 1);
}
