/* models.c: the table of models. */
#include "models.h"

#include <string.h>

#define DEMO "sentences:20000"

const model_info model_table[] = {
    {"mlp", model_mlp, "784-512-512-10 with relu", "sgd", "momentum=0.9", "constant", 0.01, 128, 1, 28},
    {"lenet", model_lenet, "LeNet-5 (LeCun et al. 1998) with relu and max pooling", "sgd", "momentum=0.9", "constant", 0.01, 64, 1, 28},
    {"cnn", model_cnn, "two 3x3 convolutions with batch norm, 32 and 64 channels, then 256 hidden units", "sgd", "momentum=0.9, weight_decay=5e-4", "cosine", 0.05, 64, 3, 32},
    {"resnet20", model_resnet20, "He et al. 2015, section 4.2, n = 3", "sgd", "momentum=0.9, weight_decay=1e-4", "cosine", 0.1, 64, 3, 32},
    {"capstone", model_capstone, "convolution, linear, self-attention over the rows of the batch, softmax", "adam", NULL, "constant", 0.001, 64, 3, 32},
    {"mobilenet", model_mobilenet, "MobileNetV2 (Sandler et al. 2018) for small images: depthwise convolutions in inverted residuals", "sgd", "momentum=0.9, weight_decay=4e-5", "cosine", 0.05, 64, 3, 32},
    {"unet", model_unet, "U-Net (Ronneberger et al. 2015), small: a class for each pixel, three sizes of 16, 32 and 64 channels", "adam", NULL, "cosine", 0.002, 32, 3, 32, .classes = 11, .pixels = true},
    {"vae", model_vae, "variational autoencoder (Kingma & Welling 2013): convolutions, 32 numbers an image", "adam", NULL, "cosine", 1e-3, 64, 3, 32, .sample = model_vae_sample, .latent = VAE_LATENT},
    {"gan", model_gan, "generator and discriminator of convolutions (DCGAN, Radford et al. 2015), both trained in each step", "adam", "beta1=0.5", "constant", 2e-4, 64, 3, 32, .sample = model_gan_sample, .latent = GAN_LATENT},
    {"vit", model_vit, "vision transformer (Dosovitskiy et al. 2020): patches of 4x4, 6 blocks of width 256, 8 heads", "adamw", "weight_decay=0.05", "cosine", 5e-4, 64, 3, 32},
    {"gpt", model_gpt, "Radford et al. 2019, 6 layers, 6 heads, 384 channels, context 256", "adamw", "beta2=0.99, weight_decay=0.1", "cosine", 0.001, 8, 0, 0, .classes = 65, .context = 256, .names = gpt_names, .sizes = gpt_sizes, .demo = DEMO},
    {"gpt2", model_gpt2, "its 124M: 12 layers, 12 heads, 768 channels, context 1024", "adamw", "beta2=0.95, weight_decay=0.1", "cosine", 6e-4, 1, 0, 0, .classes = 50257, .context = 1024, .names = gpt_names, .sizes = gpt_sizes, .demo = DEMO},
    {"bert", model_bert, "masked language model (Devlin et al. 2018): 4 layers, 4 heads, 256 channels, context 128", "adamw", "beta2=0.99, weight_decay=0.1", "cosine", 0.001, 16, 0, 0, .classes = 66, .context = 128, .masked = 0.15, .demo = DEMO},
    {"charlstm", model_charlstm, "two layers of LSTM over characters (Karpathy 2015): 256 hidden units, windows of 128", "adam", NULL, "cosine", 0.002, 32, 0, 0, .classes = 65, .context = 128, .demo = DEMO},
    {NULL}};

tt_shape model_input(const model_info *m, int64_t batch, tt_dtype *dtype) {
  *dtype = m->context ? TT_I32 : TT_F32;
  return m->context ? TT_SHAPE(batch, m->context) : TT_SHAPE(batch, m->channels, m->size, m->size);
}

tt_labels model_labels(const model_info *m) { return m->pixels ? TT_PIXEL_LABELS : TT_LABELS; }

const model_info *model_find(const char *name) {
  for (const model_info *m = model_table; m->name; m++)
    if (!strcmp(m->name, name)) return m;
  return NULL;
}
