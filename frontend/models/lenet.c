/* lenet.c: LeNet-5 (LeCun et al. 1998, "Gradient-based learning applied to document recognition"), with relu and max pooling in the
 * place of its sigmoids and trained averages. Images of 28x28 are padded to 32x32, as there. */
#include "models.h"

tt_val model_lenet(tt_val x, void *arg) {
  const model_config *c = arg;
  x = tt_relu(tt_conv2d(x, "conv1", 6, 5, .padding = tt_dim(x, 2) < 32 ? 2 : 0));
  x = tt_max_pool2d(x, 2);
  x = tt_relu(tt_conv2d(x, "conv2", 16, 5));
  x = tt_flatten(tt_max_pool2d(x, 2), 1);
  x = tt_relu(tt_linear(x, "fc1", 120));
  x = tt_relu(tt_linear(x, "fc2", 84));
  return tt_linear(x, "fc3", c->classes);
}
