/* weights_test.c: a checkpoint in GPT-2's published layout gives the logits that a few lines of C make of the same tensors, with and without what stands before the names, with masks
 * and a tied head in the file; it is written back as it was; what is missing, of another shape or not tied is said. */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "frontend/models/gpt.h"
#include "tests/runtime/files.h"

enum { L = 2, H = 3, C = 24, T = 10, V = 29, D = C / H, ROOM = 64 };

/* -- The tensors, as they are published --------------------------------------------------------------------------------------- */

typedef struct { tt_named_tensor list[ROOM]; char names[ROOM][100]; int n; } checkpoint;

static float *add(checkpoint *k, const char *prefix, const char *name, tt_shape s, double mean, double std) {
  tt_error err = {0};
  tt_tensor *x = tt_tensor_new(TT_F32, &s, &err);
  snprintf(k->names[k->n], sizeof k->names[k->n], "%s%s", prefix, name);
  tt_init_fill(tt_init_normal(mean, std), name, 5, TT_F32, &s, tt_tensor_data(x), &err);
  k->list[k->n] = (tt_named_tensor){k->names[k->n], x};
  k->n++;
  return tt_tensor_data(x);
}

static void make(checkpoint *k, const char *prefix) {
  static const struct { const char *name; int64_t in, out; } parts[] = {{"attn.c_attn", C, 3 * C}, {"attn.c_proj", C, C}, {"mlp.c_fc", C, 4 * C}, {"mlp.c_proj", 4 * C, C}};
  char name[100];
  *k = (checkpoint){0};
  add(k, prefix, "wte.weight", TT_SHAPE(V, C), 0, 0.5);
  add(k, prefix, "wpe.weight", TT_SHAPE(T, C), 0, 0.3);
  for (int i = 0; i < L; i++) {
    for (int p = 0; p < 2; p++) {
      snprintf(name, sizeof name, "h.%d.ln_%d.weight", i, p + 1), add(k, prefix, name, TT_SHAPE(C), 1, 0.3);
      snprintf(name, sizeof name, "h.%d.ln_%d.bias", i, p + 1), add(k, prefix, name, TT_SHAPE(C), 0, 0.3);
    }
    for (int p = 0; p < 4; p++) {
      snprintf(name, sizeof name, "h.%d.%s.weight", i, parts[p].name), add(k, prefix, name, TT_SHAPE(parts[p].in, parts[p].out), 0, 0.4);
      snprintf(name, sizeof name, "h.%d.%s.bias", i, parts[p].name), add(k, prefix, name, TT_SHAPE(parts[p].out), 0, 0.2);
    }
    snprintf(name, sizeof name, "h.%d.attn.bias", i), add(k, prefix, name, TT_SHAPE(1, 1, T, T), 0, 1);         /* the mask's buffer, which is no parameter */
  }
  add(k, prefix, "ln_f.weight", TT_SHAPE(C), 1, 0.3);
  add(k, prefix, "ln_f.bias", TT_SHAPE(C), 0, 0.3);
}

static void dispose(checkpoint *k) {
  for (int i = 0; i < k->n; i++) tt_tensor_free(k->list[i].tensor);
}

static int place(const checkpoint *k, const char *name) {
  int i = 0;
  while (i < k->n && (strlen(k->names[i]) < strlen(name) || strcmp(k->names[i] + strlen(k->names[i]) - strlen(name), name))) i++;
  cr_assert_lt(i, k->n, "%s", name);
  return i;
}
static const float *at(const checkpoint *k, int layer, const char *name) {
  char full[100];
  if (layer < 0) snprintf(full, sizeof full, "%s", name);
  else snprintf(full, sizeof full, "h.%d.%s", layer, name);
  return tt_tensor_data(k->list[place(k, full)].tensor);
}

/* -- GPT-2 by its definition, in double -------------------------------------------------------------------------------------------- */

static void norm(const double *x, const float *w, const float *b, double *y) {
  double mean = 0, var = 0;
  for (int i = 0; i < C; i++) mean += x[i] / C;
  for (int i = 0; i < C; i++) var += (x[i] - mean) * (x[i] - mean) / C;
  for (int i = 0; i < C; i++) y[i] = (x[i] - mean) / sqrt(var + 1e-5) * w[i] + b[i];
}
static void conv1d(const double *x, const float *w, const float *b, int in, int out, double *y) {
  for (int j = 0; j < out; j++) {
    y[j] = b[j];
    for (int i = 0; i < in; i++) y[j] += x[i] * w[i * out + j];
  }
}
static void forward(const checkpoint *k, const int32_t *tokens, double logits[T][V]) {
  static double x[T][C], qkv[T][3 * C], a[C], h[4 * C], seen[C];
  const float *wte = at(k, -1, "wte.weight"), *wpe = at(k, -1, "wpe.weight");
  for (int t = 0; t < T; t++)
    for (int i = 0; i < C; i++) x[t][i] = (double)wte[tokens[t] * C + i] + wpe[t * C + i];
  for (int l = 0; l < L; l++) {
    for (int t = 0; t < T; t++) norm(x[t], at(k, l, "ln_1.weight"), at(k, l, "ln_1.bias"), a), conv1d(a, at(k, l, "attn.c_attn.weight"), at(k, l, "attn.c_attn.bias"), C, 3 * C, qkv[t]);
    for (int t = 0; t < T; t++) {
      for (int head = 0; head < H; head++) {
        double w[T], sum = 0;
        for (int s = 0; s <= t; s++) {
          double dot = 0;
          for (int i = 0; i < D; i++) dot += qkv[t][head * D + i] * qkv[s][C + head * D + i];
          sum += w[s] = exp(dot / sqrt(D));
        }
        for (int i = 0; i < D; i++) {
          seen[head * D + i] = 0;
          for (int s = 0; s <= t; s++) seen[head * D + i] += w[s] / sum * qkv[s][2 * C + head * D + i];
        }
      }
      conv1d(seen, at(k, l, "attn.c_proj.weight"), at(k, l, "attn.c_proj.bias"), C, C, a);
      for (int i = 0; i < C; i++) x[t][i] += a[i];
      norm(x[t], at(k, l, "ln_2.weight"), at(k, l, "ln_2.bias"), a);
      conv1d(a, at(k, l, "mlp.c_fc.weight"), at(k, l, "mlp.c_fc.bias"), C, 4 * C, h);
      for (int i = 0; i < 4 * C; i++) h[i] = h[i] / 2 * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (h[i] + 0.044715 * h[i] * h[i] * h[i])));
      conv1d(h, at(k, l, "mlp.c_proj.weight"), at(k, l, "mlp.c_proj.bias"), 4 * C, C, a);
      for (int i = 0; i < C; i++) x[t][i] += a[i];
    }
  }
  for (int t = 0; t < T; t++) {
    norm(x[t], at(k, -1, "ln_f.weight"), at(k, -1, "ln_f.bias"), a);
    for (int v = 0; v < V; v++) {
      logits[t][v] = 0;
      for (int i = 0; i < C; i++) logits[t][v] += a[i] * wte[v * C + i];
    }
  }
}

/* -- The same through the model ---------------------------------------------------------------------------------------------------- */

typedef struct { folder f; char path[4200]; } home;
static home begin(const checkpoint *k, const char *config) {
  home h = {.f = folder_new()};
  tt_error err = {0};
  char beside[4200];
  snprintf(h.path, sizeof h.path, "%s/model.safetensors", h.f.dir);
  snprintf(beside, sizeof beside, "%s/config.json", h.f.dir);
  cr_assert_eq(tt_safetensors_save(h.path, k->list, k->n, &(tt_metadata){"format", "pt"}, 1, &err), TT_OK, "%s", err.message);
  if (config) cr_assert_eq(rt_write_file(beside, config, strlen(config), &err), TT_OK);
  return h;
}

static tt_model *load(const char *path, model_config *c, tt_error *err) {
  *c = (model_config){0};
  if (gpt_sizes(path, c, err) != TT_OK) return NULL;
  tt_model *m = tt_model_new(model_gpt2, c, &(tt_model_options){.names = gpt_names, .n_threads = 1}, err);
  if (tt_model_load(m, path, err) == TT_OK) return m;
  tt_model_free(m);
  return NULL;
}

static const int32_t tokens[T] = {3, 28, 0, 7, 7, 19, 4, 11, 2, 25};
static tt_tensor *predict(tt_model *m, tt_error *err) {
  tt_tensor *x = tt_tensor_from(TT_I32, &TT_SHAPE(1, T), tokens, err), *y = tt_predict(m, x, err);
  tt_tensor_free(x);
  return y;
}

#define CONFIG "{\"n_head\": 3, \"activation_function\": \"gelu_new\", \"layer_norm_epsilon\": 1e-05}"

Test(weights, gpt2_as_published) {
  static double want[T][V];
  for (int kind = 0; kind < 3; kind++) {
    const char *prefix = kind ? "transformer." : "";
    tt_error err = {0};
    checkpoint k;
    model_config c;
    make(&k, prefix);
    if (kind == 2) {
      memcpy(add(&k, "", "lm_head.weight", TT_SHAPE(V, C), 0, 1), at(&k, -1, "wte.weight"), V * C * sizeof(float));
      k.n--;                                            /* not what place() finds */
      forward(&k, tokens, want);
      k.n++;
    } else forward(&k, tokens, want);
    home h = begin(&k, CONFIG);
    tt_model *m = load(h.path, &c, &err);
    cr_assert(m, "%s", err.message);
    cr_assert(c.classes == V && c.gpt.layers == L && c.gpt.heads == H && c.gpt.channels == C && c.gpt.context == T);
    tt_tensor *y = predict(m, &err);
    cr_assert(y, "%s", err.message);
    const float *got = tt_tensor_data(y);
    double largest = 0;
    for (int t = 0; t < T; t++)
      for (int v = 0; v < V; v++) {
        largest = fmax(largest, fabs(want[t][v]));
        cr_assert_float_eq(got[t * V + v], want[t][v], 2e-5 * (1 + fabs(want[t][v])), "prefix \"%s\", logits[%d][%d]: %g and %g", prefix, t, v, (double)got[t * V + v], want[t][v]);
      }
    cr_assert_gt(largest, 1);
    /* Written back: the same tensors under the same names, without what is no parameter. */
    cr_assert_eq(tt_model_save_published(m, gpt_names, h.path, &err), TT_OK, "%s", err.message);
    tt_safetensors *f = tt_safetensors_open(h.path, &err);
    cr_assert_eq(tt_safetensors_count(f), 4 + 12 * L);
    for (int i = 0; i < tt_safetensors_count(f); i++) {
      tt_tensor *x = tt_safetensors_get(f, tt_safetensors_name(f, i), &err), *was = k.list[place(&k, tt_safetensors_name(f, i))].tensor;
      tt_shape s = tt_tensor_shape(x), u = tt_tensor_shape(was);
      cr_assert(tt_shape_equal(&s, &u) && !memcmp(tt_tensor_data(x), tt_tensor_data(was), (size_t)tt_shape_count(&s) * 4), "%s", tt_safetensors_name(f, i));
      tt_tensor_free(x);
    }
    tt_safetensors_close(f);
    tt_tensor_free(y);
    tt_model_free(m);
    folder_remove(&h.f);
    dispose(&k);
  }
}

/* What is wrong with a file is said with the name that the file has for it. */
Test(weights, wrong_checkpoints) {
  enum { MISSING, SHAPE, UNTIED, NO_WTE, HEADS, GELU, EPSILON, JSON, KINDS };
  static const char *const says[KINDS] = {[MISSING] = "no tensor \"blocks.1.fc1.weight\", nor \"transformer.h.1.mlp.c_fc.weight\"", [SHAPE] = "\"transformer.h.0.attn.c_attn.weight\" is f32[72,24] in the weights, but the model has f32[24,72]",
                                          [UNTIED] = "\"lm_head.weight\" is not the same as \"transformer.wte.weight\"", [NO_WTE] = "no matrix wte.weight", [HEADS] = "24 channels are not to be shared among 5 heads", [GELU] = "activation is relu",
                                          [EPSILON] = "epsilon 1e-06", [JSON] = "expected an object"};
  static const char *const configs[KINDS] = {[HEADS] = "{\"n_head\": 5}", [GELU] = "{\"n_head\": 3, \"activation_function\": \"relu\"}", [EPSILON] = "{\"n_head\": 3, \"layer_norm_epsilon\": 1e-06}", [JSON] = "[3]"};
  for (int kind = 0; kind < KINDS; kind++) {
    tt_error err = {0};
    checkpoint k;
    model_config c;
    make(&k, "transformer.");
    int p = place(&k, kind == MISSING ? "h.1.mlp.c_fc.weight" : kind == SHAPE ? "h.0.attn.c_attn.weight" : "wte.weight");
    if (kind == MISSING || kind == NO_WTE) snprintf(k.names[p], sizeof k.names[p], "other");
    if (kind == SHAPE) {
      tt_tensor_free(k.list[p].tensor);
      k.list[p].tensor = tt_tensor_new(TT_F32, &TT_SHAPE(3 * C, C), &err);
    }
    if (kind == UNTIED) add(&k, "", "lm_head.weight", TT_SHAPE(V, C), 0, 1);
    home h = begin(&k, configs[kind] ? configs[kind] : CONFIG);
    tt_model *m = load(h.path, &c, &err);
    tt_tensor *y = m ? predict(m, &err) : NULL;
    cr_assert_null(y);
    cr_assert(strstr(err.message, says[kind]) && strstr(err.message, "\n  fix: "), "kind %d: %s", kind, err.message);
    tt_model_free(m);
    folder_remove(&h.f);
    dispose(&k);
  }
}

static tt_val line(tt_val x, void *arg) { return tt_linear(x, "fc", 3); }

Test(weights, a_parameter_without_a_published_name) {
  tt_error err = {0};
  tt_model *m = tt_model_new(line, NULL, NULL, &err);
  cr_assert_eq(tt_model_save_published(m, gpt_names, "never", &err), TT_INVALID);
  cr_assert(strstr(err.message, "no parameters yet"), "%s", err.message);
  tt_tensor *x = tt_tensor_new(TT_F32, &TT_SHAPE(1, 2), &err);
  err = (tt_error){0};
  tt_tensor_free(tt_predict(m, x, &err));
  cr_assert_eq(tt_model_save_published(m, gpt_names, "never", &err), TT_INVALID);
  cr_assert(strstr(err.message, "\"fc.weight\" has no published name"), "%s", err.message);
  tt_tensor_free(x);
  tt_model_free(m);
}
