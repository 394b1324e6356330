/* gpt_weights.c: GPT-2's published checkpoints (Radford et al. 2019, in the safetensors layout of Hugging Face's transformers): what their tensors are called here, and which sizes a
 * file has. Its matrices stand as [in, out]. Width, layers, context and vocabulary are shapes; how many heads there are is said by config.json beside the file, else heads are 64 wide,
 * as in all of GPT-2's sizes. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpt.h"

const tt_weight_name gpt_names[] = {
  {"wte.weight", "wte.weight"},
  {"wpe.weight", "wpe.weight"},
  {"blocks.*.ln1.weight", "h.*.ln_1.weight"},
  {"blocks.*.ln1.bias", "h.*.ln_1.bias"},
  {"blocks.*.qkv.weight", "h.*.attn.c_attn.weight", .transposed = true},
  {"blocks.*.qkv.bias", "h.*.attn.c_attn.bias"},
  {"blocks.*.proj.weight", "h.*.attn.c_proj.weight", .transposed = true},
  {"blocks.*.proj.bias", "h.*.attn.c_proj.bias"},
  {"blocks.*.ln2.weight", "h.*.ln_2.weight"},
  {"blocks.*.ln2.bias", "h.*.ln_2.bias"},
  {"blocks.*.fc1.weight", "h.*.mlp.c_fc.weight", .transposed = true},
  {"blocks.*.fc1.bias", "h.*.mlp.c_fc.bias"},
  {"blocks.*.fc2.weight", "h.*.mlp.c_proj.weight", .transposed = true},
  {"blocks.*.fc2.bias", "h.*.mlp.c_proj.bias"},
  {"ln.weight", "ln_f.weight"},
  {"ln.bias", "ln_f.bias"},
  {"wte.weight", "lm_head.weight", .tied = true},
  {NULL, NULL},
};

/* The tensor whose name ends in `.name` or is it; rank 0: none. */
static tt_shape shape_of(const tt_safetensors *f, const char *name) {
  size_t m = strlen(name);
  for (int i = 0; i < tt_safetensors_count(f); i++) {
    const char *whole = tt_safetensors_name(f, i);
    size_t n = strlen(whole);
    if (n >= m && !strcmp(whole + n - m, name) && (n == m || whole[n - m - 1] == '.')) return tt_safetensors_shape(f, i);
  }
  return (tt_shape){0};
}

static int64_t layers_of(const tt_safetensors *f) {
  char ours[64], theirs[64];
  for (int64_t i = 0;; i++) {
    snprintf(ours, sizeof ours, "blocks.%lld.ln1.weight", (long long)i);
    snprintf(theirs, sizeof theirs, "h.%lld.ln_1.weight", (long long)i);
    if (!shape_of(f, ours).rank && !shape_of(f, theirs).rank) return i;
  }
}

/* config.json beside the file, where there is one: the heads, and that nothing else is asked for than what this model computes. */
static tt_status read_config(const char *path, int64_t *heads, tt_error *err) {
  const char *slash = strrchr(path, '/'), *const gelus[] = {"gelu_new", "gelu_pytorch_tanh"};
  char beside[RT_PATH];
  if (snprintf(beside, sizeof beside, "%.*sconfig.json", slash ? (int)(slash - path + 1) : 0, path) >= RT_PATH)
    return tt_fail(err, TT_INVALID, "error: the path of config.json is too long\n  at %.200s...\n  fix: use a folder with a shorter path", path);
  FILE *f = fopen(beside, "rb");
  if (!f) return TT_OK;
  json_error_t where;
  json_t *config = json_loadf(f, JSON_REJECT_DUPLICATES, &where), *v;
  fclose(f);
  if (!json_is_object(config)) tt_fail(err, TT_FORMAT, "error: expected an object: %.200s\n  at %s\n  fix: get the checkpoint's config.json again, or remove it", config ? "it is something else" : where.text, beside);
  else if ((v = json_object_get(config, "n_head")) && (!json_is_integer(v) || json_integer_value(v) < 1)) tt_fail(err, TT_FORMAT, "error: expected n_head to be a number of heads\n  at %s\n  fix: get the checkpoint's config.json again", beside);
  else if (v) *heads = json_integer_value(v);
  if (!err->status && (v = json_object_get(config, "activation_function")) && (!json_is_string(v) || (strcmp(json_string_value(v), gelus[0]) && strcmp(json_string_value(v), gelus[1]))))
    tt_fail(err, TT_UNSUPPORTED, "error: the checkpoint's activation is %.60s, the model's is gelu_new\n  at %s\n  fix: use a checkpoint of GPT-2", json_is_string(v) ? json_string_value(v) : "no name", beside);
  if (!err->status && (v = json_object_get(config, "layer_norm_epsilon")) && json_number_value(v) != 1e-5)
    tt_fail(err, TT_UNSUPPORTED, "error: the checkpoint's layer norm has epsilon %g, the model's 1e-05\n  at %s\n  fix: use a checkpoint of GPT-2", json_number_value(v), beside);
  if (!err->status && (json_is_true(json_object_get(config, "scale_attn_by_inverse_layer_idx")) || json_is_false(json_object_get(config, "scale_attn_weights"))))
    tt_fail(err, TT_UNSUPPORTED, "error: the checkpoint scales its attention otherwise than the model, by 1 / sqrt(size of a head)\n  at %s\n  fix: use a checkpoint of GPT-2", beside);
  json_decref(config);
  return err->status;
}

tt_status gpt_sizes(const char *path, model_config *c, tt_error *err) {
  tt_safetensors *f = tt_safetensors_open(path, err);
  if (!f) return err->status;
  tt_shape wte = shape_of(f, "wte.weight"), wpe = shape_of(f, "wpe.weight");
  int64_t layers = layers_of(f), heads = wte.rank == 2 && wte.dim[1] % 64 == 0 ? wte.dim[1] / 64 : 0;
  tt_safetensors_close(f);
  if (wte.rank != 2 || wpe.rank != 2 || !layers || tt_shape_count(&wte) < 1 || tt_shape_count(&wpe) < 1)
    return tt_fail(err, TT_INVALID, "error: the weights have no %s\n  at %s\n  fix: load weights that were saved from gpt or gpt2, or a checkpoint of GPT-2", wte.rank != 2 ? "matrix wte.weight" : wpe.rank != 2 ? "matrix wpe.weight" : !layers ? "h.0.ln_1.weight or blocks.0.ln1.weight" : "rows", path);
  if (read_config(path, &heads, err) != TT_OK) return err->status;
  if (!heads || wte.dim[1] % heads)
    return tt_fail(err, TT_INVALID, "error: %lld channels are not to be shared among %lld heads\n  at %s\n  fix: put a config.json with \"n_head\" beside the file", (long long)wte.dim[1], (long long)heads, path);
  c->classes = wte.dim[0], c->gpt.channels = wte.dim[1], c->gpt.context = wpe.dim[0], c->gpt.layers = layers, c->gpt.heads = heads;
  return TT_OK;
}
