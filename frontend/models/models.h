/* models.h: the models that the command knows. Each is a C function in a file of its own, to be copied; what it needs beside x is how
 * many classes there are. Input is images [B,C,H,W] of any size that its pooling allows; labels are i32 [B]. */
#ifndef TT_MODELS_H
#define TT_MODELS_H

#include "../tinytorch.h"

typedef struct { int64_t classes; } model_config;      /* arg of every model function */

tt_model_fn model_mlp, model_lenet, model_cnn, model_resnet20, model_capstone, model_vit;

/* What they are made of, for models of other sizes. x [B,T,C] through n pre-norm blocks, called blocks.0, blocks.1 ...: ln1, qkv, proj, ln2, fc1, fc2. */
tt_val model_transformer(tt_val x, int64_t n, int64_t heads, bool causal, bool tanh_gelu);
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
} model_info;
extern const model_info model_table[];           /* ends with a NULL name */
const model_info *model_find(const char *name);  /* NULL: none of that name */

#endif
