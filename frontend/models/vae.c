/* vae.c: Kingma & Welling 2013, "Auto-encoding variational Bayes". The encoder gives each image a Gaussian over 32 numbers, one draw of it is decoded, and what is
 * made small is minus the bound on log p(x), in nats a pixel: what the draw's image lacks, under a Gaussian whose width is learned too (one for all pixels,
 * Rybkin et al. 2020), and how far the encoder's Gaussian is from N(0, 1). Images of a width and height that 4 divides. */
#include "models.h"

static tt_val decode(tt_val z, int64_t channels, int64_t height, int64_t width) {
  tt_scope_push(z, "decoder");
  tt_val y = tt_relu(tt_linear(z, "fc1", 256));
  y = tt_reshape(tt_relu(tt_linear(y, "fc2", 64 * (height / 4) * (width / 4))), TT_SHAPE(-1, 64, height / 4, width / 4));
  y = tt_relu(tt_conv_transpose2d(y, "up1", 32, 4, .stride = 2, .padding = 1));
  y = tt_conv_transpose2d(y, "up2", channels, 4, .stride = 2, .padding = 1);
  tt_scope_pop(z);
  return y;
}

tt_val model_vae(tt_val x, void *arg) {
  int64_t n = tt_dim(x, 0), pixels = tt_dim(x, 1) * tt_dim(x, 2) * tt_dim(x, 3);
  tt_scope_push(x, "encoder");
  tt_val h = tt_relu(tt_conv2d(x, "conv1", 32, 4, .stride = 2, .padding = 1));
  h = tt_relu(tt_conv2d(h, "conv2", 64, 4, .stride = 2, .padding = 1));
  h = tt_relu(tt_linear(tt_flatten(h, 1), "fc", 256));
  tt_val mean = tt_linear(h, "mean", VAE_LATENT), log_var = tt_linear(h, "log_var", VAE_LATENT);
  tt_scope_pop(x);
  tt_val z = tt_add(mean, tt_mul(tt_exp(tt_mul(log_var, 0.5)), tt_randn(mean, TT_SHAPE(n, VAE_LATENT))));
  tt_val y = decode(z, tt_dim(x, 1), tt_dim(x, 2), tt_dim(x, 3));
  tt_val width = tt_param(x, "log_var", TT_SHAPE(1), tt_init_zeros());
  tt_val lacks = tt_mul(tt_add(tt_add(tt_mul(tt_mse(y, x, TT_MEAN), tt_exp(tt_neg(width))), width), 1.8378770664093453), 0.5);          /* log(2 pi) */
  tt_val divergence = tt_mul(tt_sum(tt_sub(tt_add(tt_square(mean), tt_exp(log_var)), tt_add(log_var, 1)), TT_ALL, false), 0.5 / (double)(n * pixels));
  tt_loss(tt_add(tt_reshape(lacks, TT_SCALAR), divergence));
  return y;
}

tt_val model_vae_sample(tt_val z, void *arg) {
  const model_config *c = arg;
  return decode(z, c->channels, c->height, c->width);
}
