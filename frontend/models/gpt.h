/* gpt.h: transformers over tokens: their sizes, and what gpt, bert and generation share. */
#ifndef TT_MODELS_GPT_H
#define TT_MODELS_GPT_H

#include "models.h"

typedef struct {
  int64_t layers, heads, channels, context, vocabulary;
  tt_dtype real;                   /* 0: f32 */
  bool bidirectional;              /* each position sees those after it too */
  bool rotary;                     /* positions turn q and k, and are not learned; not for generation */
} gpt_config;

gpt_config gpt_small(const model_config *c);      /* 10.8 million parameters with 65 tokens */
gpt_config gpt_124m(const model_config *c);       /* GPT-2's smallest, with 50257 tokens */
tt_val gpt_table(tt_val tokens, const char *name, int64_t n, const gpt_config *c);        /* the parameter NAME.weight [n,channels] */
tt_val gpt_forward(tt_val tokens, const gpt_config *c);

#endif
