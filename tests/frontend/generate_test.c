/* generate_test.c: a text through the caches is the text through the whole model: the same likeliest tokens, logits to rounding, for prompts shorter, as long as and longer than a
 * chunk, up to the last place; it stops there, and says so when it cannot begin. What top-k, top-p and the temperature leave is counted against a few lines of C. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/models/gpt.h"

enum { CONTEXT = 83, WORDS = 13, MAX = CONTEXT + 2 };
static tt_val small(tt_val x, void *arg) { return gpt_forward(x, &(gpt_config){.layers = 2, .heads = 2, .channels = 32, .context = CONTEXT, .vocabulary = WORDS}); }

static tt_tensor *whole(tt_model *m, const int32_t *text, int64_t n, tt_error *err) {
  tt_shape s = TT_SHAPE(1, CONTEXT);
  tt_tensor *x = tt_tensor_new(TT_I32, &s, err);
  for (int64_t i = 0; i < CONTEXT; i++) ((int32_t *)tt_tensor_data(x))[i] = i < n ? text[i] : 0;
  tt_tensor *y = tt_predict(m, x, err);
  cr_assert(y, "%s", err->message);
  tt_tensor_free(x);
  return y;
}

/* Weights large enough for logits that differ. */
static tt_model *model(const char *backend, tt_error *err) {
  tt_model *m = tt_model_new(small, NULL, &(tt_model_options){.seed = 3, .backend = backend, .n_threads = 2}, err);
  tt_tensor_free(whole(m, NULL, 0, err));
  for (int i = 0; i < rt_params_count(tt_model_params(m)); i++) {
    const rt_param *p = rt_params_at(tt_model_params(m), i);
    tt_shape s = tt_tensor_shape(p->tensor);
    float *v = tt_tensor_data(p->tensor);
    for (int64_t k = 0; s.rank == 2 && k < tt_shape_count(&s); k++) v[k] *= 10;
  }
  return m;
}

typedef struct { int32_t text[MAX]; int64_t n; } story;
static bool take(void *user, int32_t id) {
  story *s = user;
  s->text[s->n++] = id;
  return s->n < MAX;
}

static void same_as_whole(const char *backend) {
  tt_error err = {0};
  tt_model *m = model(backend, &err);
  tt_generator *g = tt_generator_new(m, &err);
  cr_assert(g, "%s", err.message);
  cr_assert_eq(tt_generator_capacity(g), CONTEXT);
  const int64_t prompts[] = {1, 5, TT_GENERATE_CHUNK, TT_GENERATE_CHUNK + 1, 2 * TT_GENERATE_CHUNK + 7, CONTEXT - 1, CONTEXT};
  int different = 0;
  for (size_t k = 0; k < sizeof prompts / sizeof *prompts; k++) {
    story s = {.n = prompts[k]};
    for (int64_t i = 0; i < s.n; i++) s.text[i] = (int32_t)((i * 7 + (int64_t)k) % WORDS);
    int64_t made, n = s.n;
    tt_generator_reset(g);
    cr_assert_eq(tt_generate(g, s.text, n, &(tt_generate_options){.token = take, .user = &s}, &made, &err), TT_OK, "%s", err.message);
    cr_assert_eq(s.n, CONTEXT + 1, "it ends with the token behind the last place, not with %lld", (long long)s.n);
    cr_assert_eq(made, CONTEXT + 1 - n);
    tt_tensor *y = whole(m, s.text, CONTEXT, &err);
    const float *logits = tt_tensor_data(y);
    for (int64_t i = n; i < s.n; i++) {
      int32_t best = tt_sample_token(logits + (i - 1) * WORDS, WORDS, &(tt_generate_options){0}, 0);
      cr_assert_eq(s.text[i], best, "prompt of %lld, place %lld: %d and %d", (long long)n, (long long)i, s.text[i], best);
      different += s.text[i] != s.text[i - 1];
    }
    const float *mine;
    int64_t classes;
    tt_generator_reset(g);
    for (int64_t i = n; i <= CONTEXT; i++) {
      cr_assert_eq(tt_generator_feed(g, i == n ? s.text : s.text + i - 1, i == n ? n : 1, &mine, &classes, &err), TT_OK, "%s", err.message);
      cr_assert_eq(classes, WORDS);
      for (int w = 0; w < WORDS; w++) cr_assert_float_eq(mine[w], logits[(i - 1) * WORDS + w], 2e-4 * (1 + fabs((double)mine[w])), "prompt of %lld, place %lld: %g and %g", (long long)n, (long long)i, (double)mine[w], (double)logits[(i - 1) * WORDS + w]);
    }
    tt_tensor_free(y);
  }
  cr_assert_gt(different, 20, "the texts say always the same");
  tt_generator_free(g);
  tt_model_free(m);
}
Test(generate, through_the_caches_as_through_the_whole_model) { same_as_whole("jit"); }
Test(generate, the_same_in_the_interpreter) { same_as_whole("interp"); }

/* Past the capacity each token is the likeliest one of the whole model over what is live: each time the context is full, its last half with the token behind it begins anew. The random
 * choice goes on with the place in the whole text. */
typedef struct { int32_t text[5 * CONTEXT]; int64_t n; } novel;
static bool take_on(void *user, int32_t id) {
  novel *s = user;
  return s->text[s->n++] = id, true;
}
Test(generate, past_the_context) {
  tt_error err = {0};
  tt_model *m = model("jit", &err);
  tt_generator *g = tt_generator_new(m, &err);
  cr_assert(g, "%s", err.message);
  for (int kind = 0; kind < 2; kind++) {
    novel s = {.text = {5, 1, 9}, .n = 3};
    tt_generate_options o = {.max_new_tokens = 4 * CONTEXT, .token = take_on, .user = &s, .temperature = kind, .seed = 7};
    int64_t made, begin = 0, turns = 0;
    tt_generator_reset(g);
    cr_assert_eq(tt_generate(g, s.text, 3, &o, &made, &err), TT_OK, "%s", err.message);
    cr_assert(made == 4 * CONTEXT && s.n == 3 + made);
    tt_tensor *y = NULL;
    for (int64_t i = 3; i < s.n; i++) {                 /* token i follows tokens begin .. i-1 */
      if (i - begin > CONTEXT) begin = i - CONTEXT / 2, turns++, tt_tensor_free(y), y = NULL;
      if (!y) y = whole(m, s.text + begin, s.n - begin < CONTEXT ? s.n - begin : CONTEXT, &err);
      int32_t id = tt_sample_token((const float *)tt_tensor_data(y) + (i - 1 - begin) * WORDS, WORDS, &o, i);
      cr_assert_eq(s.text[i], id, "kind %d, place %lld: %d and %d", kind, (long long)i, s.text[i], id);
    }
    tt_tensor_free(y);
    cr_assert_geq(turns, 5);
  }
  tt_generator_free(g);
  tt_model_free(m);
}

static tt_val without(tt_val x, void *arg) { return tt_linear(tt_cast(tt_unsqueeze(x, 2), TT_F32), "fc", WORDS); }

Test(generate, what_cannot_be_is_an_error_and_changes_nothing) {
  tt_error err = {0};
  tt_model *m = model("jit", &err);
  tt_generator *g = tt_generator_new(m, &err), *other = tt_generator_new(m, &err);
  cr_assert(g && other, "%s", err.message);
  int32_t text[MAX] = {1, 2, 3};
  const float *logits;
  float before[WORDS];
  int64_t classes;
  cr_assert_eq(tt_generator_feed(g, text, 2, &logits, &classes, &err), TT_OK);
  cr_assert_eq(tt_generator_feed(other, text + 1, 2, &logits, &classes, &err), TT_OK);           /* caches of its own */
  cr_assert_eq(tt_generator_feed(g, text + 2, 1, &logits, &classes, &err), TT_OK);
  memcpy(before, logits, sizeof before);
  struct { const int32_t *tokens; int64_t n; const char *says; } cases[] = {{text, 0, "no tokens"}, {text, CONTEXT - 2, "do not fit into the model's context of 83"}, {(int32_t[]){1, WORDS}, 2, "token 13 is outside"}, {(int32_t[]){-1}, 1, "token -1 is outside"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    err = (tt_error){0};
    cr_assert_eq(tt_generator_feed(g, cases[i].tokens, cases[i].n, &logits, &classes, &err), TT_INVALID);
    cr_assert(strstr(err.message, cases[i].says) && strstr(err.message, "\n  fix: "), "%s", err.message);
    cr_assert_eq(tt_generator_length(g), 3);
  }
  tt_generate_options bad[] = {{.temperature = -1}, {.temperature = NAN}, {.top_k = -1}, {.top_p = 1.5}, {.max_new_tokens = -1}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    err = (tt_error){0};
    cr_assert_eq(tt_generate(g, text, 1, &bad[i], NULL, &err), TT_INVALID);
    cr_assert_eq(tt_generator_length(g), 3);
  }
  err = (tt_error){0};
  tt_generator_reset(g);
  cr_assert_eq(tt_generator_feed(g, text, 3, &logits, &classes, &err), TT_OK);
  for (int w = 0; w < WORDS; w++) cr_assert_float_eq(before[w], logits[w], 1e-4, "the caches of two generators mix");
  rt_param *wte = rt_params_find(tt_model_params(m), "wte.weight");
  *(float *)tt_tensor_data(wte->tensor) = NAN;               /* no text out of weights that training has ruined */
  int64_t made;
  err = (tt_error){0};
  tt_generator_reset(g);
  cr_assert_eq(tt_generate(g, text, 1, &(tt_generate_options){.temperature = 1, .top_k = 3}, &made, &err), TT_INVALID);
  cr_assert(made == 0 && strstr(err.message, "nan") && strstr(err.message, "\n  fix: "), "%s", err.message);
  int n = rt_params_count(tt_model_params(m));
  for (int i = 0; i < n; i++) cr_assert(!strstr(rt_params_at(tt_model_params(m), i)->name, ".cache"), "a cache is no parameter");
  tt_generator_free(g);
  tt_generator_free(other);
  tt_model_free(m);
  err = (tt_error){0};
  m = tt_model_new(without, NULL, NULL, &err);
  cr_assert_null(tt_generator_new(m, &err));
  cr_assert(strstr(err.message, "keeps no cache"), "%s", err.message);
  tt_model_free(m);
}

/* The probabilities that are left, from the definition: a token is kept when fewer than k are likelier and those that are do not reach p among the k. */
static void expected(const float *logits, const tt_generate_options *o, double p[WORDS]) {
  double all = 0, whole_sum = 0, raw[WORDS];
  int likelier[WORDS] = {0};
  for (int i = 0; i < WORDS; i++) {
    raw[i] = exp(logits[i] / o->temperature);
    for (int j = 0; j < WORDS; j++) likelier[i] += logits[j] > logits[i] || (logits[j] == logits[i] && j < i);
    if (!o->top_k || likelier[i] < o->top_k) whole_sum += raw[i];
  }
  for (int i = 0; i < WORDS; i++) {
    double before = 0;
    for (int j = 0; j < WORDS; j++)
      if (likelier[j] < likelier[i]) before += raw[j];
    p[i] = (!o->top_k || likelier[i] < o->top_k) && (!o->top_p || before < o->top_p * whole_sum) ? raw[i] : 0;
    all += p[i];
  }
  for (int i = 0; i < WORDS; i++) p[i] /= all;
}

Test(generate, samples_as_their_probabilities_say) {
  const float logits[WORDS] = {0.3f, 2, -1, 0.9f, 1.7f, -2, 0, 0.4f, 1.1f, 1.7f, -0.5f, 0.2f, -3};
  tt_generate_options cases[] = {{.temperature = 1}, {.temperature = 0.5}, {.temperature = 2, .top_k = 4}, {.temperature = 1, .top_p = 0.7}, {.temperature = 1.3, .top_k = 6, .top_p = 0.8}, {.temperature = 1, .top_k = 1}, {.temperature = 1, .top_k = 100, .top_p = 1}};
  enum { TRIES = 40000 };
  for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
    double p[WORDS];
    int count[WORDS] = {0};
    tt_generate_options o = cases[k], plain = o;
    if (plain.top_p == 1) plain.top_p = 0;
    expected(logits, &plain, p);
    o.seed = 17;
    for (int i = 0; i < TRIES; i++) count[tt_sample_token(logits, WORDS, &o, i)]++;
    for (int i = 0; i < WORDS; i++) {
      cr_assert(p[i] > 0 || !count[i], "case %zu: token %d is cut off", k, i);
      cr_assert_float_eq(count[i], p[i] * TRIES, 5 * sqrt(TRIES * p[i] * (1 - p[i])) + 1e-6, "case %zu: token %d comes %d times, not %g", k, i, count[i], p[i] * TRIES);
    }
    cr_assert_eq(tt_sample_token(logits, WORDS, &o, 5), tt_sample_token(logits, WORDS, &o, 5));
  }
  cr_assert_eq(tt_sample_token((float[]){1, 3, 3}, 3, &(tt_generate_options){0}, 0), 1, "the first of equals");
}

/* The same token as of all of them sorted, many of which are equal. */
static const float *sorted_logits;
static int by_logit(const void *a, const void *b) {
  int x = *(const int *)a, y = *(const int *)b;
  return sorted_logits[x] != sorted_logits[y] ? (sorted_logits[x] < sorted_logits[y] ? 1 : -1) : x - y;
}
Test(generate, a_large_vocabulary_as_if_sorted) {
  enum { MANY = 3000 };
  static float logits[MANY];
  static int order[MANY];
  uint64_t state = 9;
  for (int i = 0; i < MANY; i++) state = state * 6364136223846793005u + 1442695040888963407u, logits[i] = (float)(state >> 53) / 256, order[i] = i;
  sorted_logits = logits;
  qsort(order, MANY, sizeof *order, by_logit);
  const struct { int64_t k; double p; } cases[] = {{0, 0.9}, {40, 0}, {40, 0.5}, {MANY - 1, 0}, {MANY, 0.99}, {1, 0}, {2999, 1e-9}};
  for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
    for (int place = 0; place < 50; place++) {
      tt_generate_options o = {.temperature = 0.8, .top_k = cases[c].k, .top_p = cases[c].p, .seed = 5};
      int n = cases[c].k ? (int)cases[c].k : MANY, kept = n, at = 0;
      double all = 0, some = 0, sum;
      for (int i = 0; i < n; i++) all += exp(((double)logits[order[i]] - (double)logits[order[0]]) / 0.8);
      for (int i = 0; i < n && cases[c].p > 0; i++)
        if ((some += exp(((double)logits[order[i]] - (double)logits[order[0]]) / 0.8)) >= cases[c].p * all) kept = i + 1, n = 0;
      double point = (tt_random_word(5, (uint64_t)place, 0, 0) + 0.5) / 4294967296.0 * (cases[c].p > 0 ? some : all);
      for (sum = 1; at < kept - 1 && sum <= point; sum += exp(((double)logits[order[at]] - (double)logits[order[0]]) / 0.8)) at++;
      int id = tt_sample_token(logits, MANY, &o, place);
      cr_assert_eq(id, order[at], "case %zu, place %d: token %d, not %d", c, place, id, order[at]);
    }
}

/* Another continuation of the same beginning: as one that was fed anew. */
Test(generate, rewound) {
  tt_error err = {0};
  tt_model *m = model("jit", &err);
  tt_generator *g = tt_generator_new(m, &err);
  const float *logits;
  int64_t classes;
  int32_t text[50];
  float first[WORDS];
  for (int i = 0; i < 50; i++) text[i] = i % 7;
  cr_assert_eq(tt_generator_feed(g, text, 50, &logits, &classes, &err), TT_OK);
  tt_generator_rewind(g, 41);
  cr_assert_eq(tt_generator_length(g), 41);
  cr_assert_eq(tt_generator_feed(g, (int32_t[]){12}, 1, &logits, &classes, &err), TT_OK);
  memcpy(first, logits, sizeof first);
  tt_generator_reset(g);
  text[41] = 12;
  cr_assert_eq(tt_generator_feed(g, text, 41, &logits, &classes, &err), TT_OK);
  cr_assert_eq(tt_generator_feed(g, text + 41, 1, &logits, &classes, &err), TT_OK);
  for (int i = 0; i < WORDS; i++) cr_assert_float_eq(first[i], logits[i], 1e-5 * (1 + fabs((double)first[i])));
  tt_generator_rewind(g, 1000);
  cr_assert_eq(tt_generator_length(g), 42, "no further than there is text");
  tt_generator_free(g);
  tt_model_free(m);
}
