/* gan.c: Goodfellow et al. 2014 in the form of Radford et al. 2015, "Unsupervised representation learning with deep convolutional generative adversarial
 * networks" (DCGAN), small. One step trains both: the discriminator's loss sees generated images through stop_gradient, the generator's sees the
 * discriminator's weights through it, so that the gradient of their sum is for each of the two that of its own loss. Images of a width and height that 4
 * divides; 3 tanh covers normalized pixels. */
#include "models.h"

static tt_val generate(tt_val z, int64_t channels, int64_t height, int64_t width) {
  tt_init init = tt_init_normal(0, 0.02);
  tt_scope_push(z, "generator");
  tt_val y = tt_reshape(tt_linear(z, "fc", 128 * (height / 4) * (width / 4), .weight = init), TT_SHAPE(-1, 128, height / 4, width / 4));
  y = tt_relu(tt_batch_norm(y, "bn1"));
  y = tt_relu(tt_batch_norm(tt_conv_transpose2d(y, "up1", 64, 4, .stride = 2, .padding = 1, .no_bias = true, .weight = init), "bn2"));
  y = tt_mul(tt_tanh(tt_conv_transpose2d(y, "up2", channels, 4, .stride = 2, .padding = 1, .weight = init)), 3);
  tt_scope_pop(z);
  return y;
}

enum { CONV1, CONV2, SCALE, SHIFT, LINEAR, BIAS, N_WEIGHTS };

static void weights(tt_val x, tt_val w[N_WEIGHTS]) {
  tt_init init = tt_init_normal(0, 0.02);
  tt_scope_push(x, "discriminator");
  w[CONV1] = tt_param(x, "conv1.weight", TT_SHAPE(64, tt_dim(x, 1), 4, 4), init);
  w[CONV2] = tt_param(x, "conv2.weight", TT_SHAPE(128, 64, 4, 4), init);
  w[SCALE] = tt_param(x, "norm.weight", TT_SHAPE(128), tt_init_ones());
  w[SHIFT] = tt_param(x, "norm.bias", TT_SHAPE(128), tt_init_zeros());
  w[LINEAR] = tt_param(x, "fc.weight", TT_SHAPE(1, 128 * (tt_dim(x, 2) / 4) * (tt_dim(x, 3) / 4)), init);
  w[BIAS] = tt_param(x, "fc.bias", TT_SHAPE(1), tt_init_zeros());
  tt_scope_pop(x);
}

/* How real each image looks, a logit. Norms of a sample's channels, for those of a batch would tell real batches from generated ones. */
static tt_val judge(tt_val x, const tt_val w[N_WEIGHTS]) {
  tt_val y = tt_leaky_relu(tt_f_conv(x, w[CONV1], (tt_val){0}, .stride = 2, .padding = 1), 0.2);
  y = tt_f_group_norm(tt_f_conv(y, w[CONV2], (tt_val){0}, .stride = 2, .padding = 1), w[SCALE], w[SHIFT], 8, 1e-5);
  return tt_f_linear(tt_flatten(tt_leaky_relu(y, 0.2), 1), w[LINEAR], w[BIAS]);
}

static tt_val judged(tt_val logits, double real) {
  return tt_binary_cross_entropy_with_logits(logits, tt_full(logits, tt_shape_of(logits), real), (tt_val){0}, (tt_val){0}, TT_MEAN);
}

tt_val model_gan(tt_val x, void *arg) {
  tt_val w[N_WEIGHTS], fixed[N_WEIGHTS];
  tt_val made = generate(tt_randn(x, TT_SHAPE(tt_dim(x, 0), GAN_LATENT)), tt_dim(x, 1), tt_dim(x, 2), tt_dim(x, 3));
  weights(x, w);
  for (int i = 0; i < N_WEIGHTS; i++) fixed[i] = tt_stop_gradient(w[i]);
  tt_loss(judged(judge(x, w), 1));
  tt_loss(judged(judge(tt_stop_gradient(made), w), 0));
  tt_loss(judged(judge(made, fixed), 1));
  return made;
}

tt_val model_gan_sample(tt_val z, void *arg) {
  const model_config *c = arg;
  return generate(z, c->channels, c->height, c->width);
}
