/* generate.h: texts token by token. A model that asks tt_position for where its tokens stand, and keeps in tt_cached what later tokens look back at, is compiled twice: for a chunk
 * of the prompt, and for one token; the caches have a fixed capacity, of which the first tokens are live.
 *
 *     tt_generator *g = tt_generator_new(model, &err);
 *     tt_generate(g, prompt, n, &(tt_generate_options){.max_new_tokens = 100, .temperature = 0.8, .top_k = 40, .token = print, .user = tokenizer}, NULL, &err); */
#ifndef TT_GENERATE_H
#define TT_GENERATE_H

enum { TT_GENERATE_CHUNK = 32 };             /* tokens of a prompt that are taken in one call */

typedef struct {
  double temperature;              /* logits are divided by it; 0: always the likeliest token, the first of equals */
  int64_t top_k;                   /* > 0: only the k likeliest tokens (Fan et al. 2018) */
  double top_p;                    /* 0 < top_p < 1: of these only the likeliest whose probabilities together reach top_p (Holtzman et al. 2020); 0 or 1: all */
  uint64_t seed;                   /* the token at place i depends on the logits, seed and i alone */
  int64_t max_new_tokens;          /* 0: as many as the capacity holds. More than that: each time it is full, the text goes on from its last capacity / 2 tokens alone */
  bool (*token)(void *user, int32_t id);     /* each new token as it comes; false: enough. May be NULL */
  void *user;
} tt_generate_options;

typedef struct tt_generator tt_generator;
/* The model, which must outlive it, with caches of its own. A model without tt_cached is an error. */
TT_API tt_generator *tt_generator_new(tt_model *m, tt_error *err);
TT_API void tt_generator_free(tt_generator *g);
TT_API int64_t tt_generator_capacity(const tt_generator *g);     /* tokens, those of the prompt included */
TT_API int64_t tt_generator_length(const tt_generator *g);       /* live ones */
TT_API void tt_generator_reset(tt_generator *g);                 /* to an empty text */
TT_API void tt_generator_rewind(tt_generator *g, int64_t n);     /* to its first n tokens, 0 <= n <= length, without computing them again: another continuation of them */
/* n >= 1 more tokens; *logits [*classes], borrowed until the next call: of what follows the last. Tokens outside of the vocabulary, or more than the capacity holds, are errors, and nothing
 * has changed then. */
TT_API tt_status tt_generator_feed(tt_generator *g, const int32_t *tokens, int64_t n, const float **logits, int64_t *classes, tt_error *err);
/* The prompt is fed and continued until max_new_tokens, `token`, or, without the first, the capacity (the token behind the last live one is still given) ends it; logits that are
 * not finite are an error. *made, unless it is NULL: how many new tokens. */
TT_API tt_status tt_generate(tt_generator *g, const int32_t *prompt, int64_t n, const tt_generate_options *o, int64_t *made, tt_error *err);
/* A token of logits [classes] for place i of a text; -1: no memory. */
TT_API int32_t tt_sample_token(const float *logits, int64_t classes, const tt_generate_options *o, int64_t place);

#endif
