/* models.h: the models that the command knows. Each is a C function in a file of its own, to be copied; what it needs beside x is how
 * many classes there are. Input is images [B,C,H,W] of any size that its pooling allows, with labels i32 [B]; or tokens i32 [B,T], where
 * classes are the vocabulary, with labels i32 [B,T]. */
#ifndef TT_MODELS_H
#define TT_MODELS_H

#include "../tinytorch.h"

typedef struct {
  int64_t classes;
  int64_t channels, height, width;       /* of the images that are to be made of noise */
  struct { int64_t layers, heads, channels, context; } gpt;      /* as the file of its weights has them; 0: the model's own */
} model_config;                          /* arg of every model function */

tt_model_fn model_mlp, model_lenet, model_cnn, model_resnet20, model_capstone, model_mobilenet, model_unet, model_vae, model_gan, model_vit, model_gpt, model_gpt2, model_bert, model_charlstm;

enum { VAE_LATENT = 32, GAN_LATENT = 64 };
tt_model_fn model_vae_sample, model_gan_sample;         /* z [N,latent], from N(0, 1) -> images, with the same parameters */

/* What they are made of, for models of other sizes. x [B,T,C] through n pre-norm blocks, called blocks.0, blocks.1 ...: ln1, qkv, proj, ln2, fc1, fc2. */
typedef struct {
  int64_t n, heads;
  bool causal, tanh_gelu, rotary;  /* rotary: q and k are turned by their positions */
  double std;                      /* of the weights, N(0, std), and less by sqrt(2n) where they join the residual stream (Radford et al. 2019); 0: a linear layer's own */
  tt_val (*attend)(tt_val q, tt_val k, tt_val v, int64_t block, void *arg);       /* [B,heads,T,d]; NULL: over all of x */
  void *arg;
} transformer_config;
tt_val model_transformer(tt_val x, const transformer_config *c);
typedef struct { int64_t patch, width, depth, heads, head, classes; } vit_config;     /* head: units of the layer before the last */
tt_val model_vit_of(tt_val x, const vit_config *c);     /* images whose sides are multiples of the patch */

typedef struct {
  const char *name;
  tt_model_fn *function;
  const char *about;
  const char *optimizer, *hyper, *schedule;      /* what it is usually trained with */
  double lr;
  int64_t batch;
  int64_t channels, size;                        /* of the images it is dumped and timed on when no data set is named */
  int64_t classes;                               /* the same; 0: 10 */
  int64_t context;                               /* > 0: it takes tokens, at most so many */
  double masked;                                 /* > 0: it learns to guess this share of them */
  bool pixels;                                   /* it learns a label for each pixel */
  tt_model_fn *sample; int64_t latent;           /* it has a loss of its own, needs no labels, and makes images of z [N,latent] */
  const tt_weight_name *names;                   /* of a published checkpoint's tensors; NULL: there is none */
  tt_status (*sizes)(const char *path, model_config *c, tt_error *err);       /* what a file of its weights says about its sizes; NULL: they are fixed */
  const char *demo;                              /* the data it takes when none is named; NULL: some must be */
} model_info;
extern const tt_weight_name gpt_names[];
tt_status gpt_sizes(const char *path, model_config *c, tt_error *err);
extern const model_info model_table[];           /* ends with a NULL name */
tt_shape model_input(const model_info *m, int64_t batch, tt_dtype *dtype);       /* what it is dumped and timed on */
tt_labels model_labels(const model_info *m);     /* what it is trained with when no data set is named */
const model_info *model_find(const char *name);  /* NULL: none of that name */

#endif
